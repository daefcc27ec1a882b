package main

import (
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"evenkeel/scenarios"
)

func scenariosCommand(stdout io.Writer) *cobra.Command {
	return &cobra.Command{
		Use:   "scenarios [NAME]",
		Short: "List the shipped scenarios, or print one as YAML to start from",
		Example: `  evenkeel scenarios
  evenkeel scenarios pretraining > mine.yaml && evenkeel compare --scenario mine.yaml`,
		Args:      cobra.MaximumNArgs(1),
		ValidArgs: scenarios.Names(),
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) == 1 {
				text, err := scenarios.Source(args[0])
				if err != nil {
					return err
				}
				_, err = stdout.Write(text)
				return err
			}
			w := tabwriter.NewWriter(stdout, 0, 0, 2, ' ', 0)
			for _, name := range scenarios.Names() {
				s, err := scenarios.Load(name, nil, -1)
				if err != nil {
					return err
				}
				fmt.Fprintf(w, "%s\t%s\n", name, s.About)
			}
			fmt.Fprintf(w, "trace:FILE.npz\treplay of a router's dump; see evenkeel inspect FILE.npz\n")
			return w.Flush()
		},
	}
}
