package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"evenkeel/strategies"
)

func strategiesCommand(stdout io.Writer) *cobra.Command {
	var names []string
	for _, p := range strategies.Presets() {
		names = append(names, p.Name)
	}
	return &cobra.Command{
		Use:       "strategies [NAME]",
		Short:     "List the strategies by family, or explain one: formula, knobs, needs, paper",
		Example:   "  evenkeel strategies\n  evenkeel strategies aux-loss",
		Args:      cobra.MaximumNArgs(1),
		ValidArgs: names,
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) == 1 {
				p, err := strategies.Find(args[0])
				if err != nil {
					return err
				}
				return explain(stdout, p)
			}
			return listStrategies(stdout)
		},
	}
}

func listStrategies(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	family := ""
	for _, p := range strategies.Presets() {
		if p.Family != family {
			family = p.Family
			fmt.Fprintf(t, "%s\n", family)
		}
		fmt.Fprintf(t, "  %s\t%s\n", p.Name, p.Summary)
	}
	return t.Flush()
}

func explain(w io.Writer, p *strategies.Preset) error {
	fmt.Fprintf(w, "%s: %s\n\n  %s\n\n", p.Name, p.Summary, strings.ReplaceAll(strings.ReplaceAll(p.Formula, "\n", "\n  "), "\n  \n", "\n\n"))
	if len(p.Knobs) > 0 {
		fmt.Fprintln(w, "Knobs (name=default):")
		t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		for _, k := range p.Knobs {
			about := k.About
			if k.Options != nil {
				about += " (" + strings.Join(k.Options, ", ") + ")"
			}
			fmt.Fprintf(t, "  %s=%s\t%s\n", k.Name, k.Default, about)
		}
		if err := t.Flush(); err != nil {
			return err
		}
		fmt.Fprintln(w)
	}
	_, err := fmt.Fprintf(w, "Needs: %s\nPaper: %s\n", p.Needs, p.Paper)
	return err
}
