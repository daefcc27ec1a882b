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
	for _, line := range [][2]string{{"Needs", p.Needs}, {"Changes", p.Changes}, {"Fails", p.Fails}, {"Paper", p.Paper}, {"Read", p.Read}, {"Try", p.Try()}} {
		if _, err := fmt.Fprintf(w, "%-8s %s\n", line[0]+":", strings.ReplaceAll(wrap(line[1], 100), "\n", "\n         ")); err != nil {
			return err
		}
	}
	return nil
}
