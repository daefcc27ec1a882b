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
	markdown := false
	c := &cobra.Command{
		Use:       "strategies [NAME]",
		Short:     "List the strategies by family, or explain one: formula, knobs, needs, paper",
		Example:   "  evenkeel strategies\n  evenkeel strategies aux-loss\n  evenkeel strategies --markdown > catalogue.md",
		Args:      cobra.MaximumNArgs(1),
		ValidArgs: names,
		RunE: func(_ *cobra.Command, args []string) error {
			switch {
			case markdown && len(args) > 0:
				return fmt.Errorf("--markdown prints every strategy: leave out %s", args[0])
			case markdown:
				return catalogue(stdout)
			case len(args) == 1:
				p, err := strategies.Find(args[0])
				if err != nil {
					return err
				}
				return explain(stdout, p, terminalWidth(stdout))
			}
			return listStrategies(stdout)
		},
	}
	c.Flags().BoolVar(&markdown, "markdown", false, "print the whole catalogue as Markdown")
	return c
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
	fmt.Fprintln(t, "not implemented: primary source not read")
	for _, u := range strategies.Unread() {
		fmt.Fprintf(t, "  %s\t%s\n", u.Name, u.Source)
	}
	fmt.Fprintln(t, "not implemented for other reasons")
	for _, a := range strategies.Absent() {
		fmt.Fprintf(t, "  %s\t%s\n", a.Name, a.Why)
	}
	return t.Flush()
}

// catalogue writes every strategy's card as Markdown. docs/strategies.md is its output.
func catalogue(w io.Writer) error {
	var b strings.Builder
	b.WriteString("# Strategies\n\nEvery strategy that Evenkeel knows, as `evenkeel strategies NAME` explains it. Written by `evenkeel strategies --markdown`;\na test compares. Letters: T tokens, E experts, K chosen per token, z logits, s scores, b bias, n_e assignments to expert e,\nn̄ = TK/E.\n")
	family := ""
	for _, p := range strategies.Presets() {
		if p.Family != family {
			family = p.Family
			fmt.Fprintf(&b, "\n## %s%s\n", strings.ToUpper(family[:1]), family[1:])
		}
		fmt.Fprintf(&b, "\n### %s\n\n%s\n\n```\n%s\n```\n", p.Name, sentence(p.Summary), p.Formula)
		if len(p.Knobs) > 0 {
			b.WriteString("\n| knob | default | |\n|---|---|---|\n")
			for _, k := range p.Knobs {
				fmt.Fprintf(&b, "| %s | %s | %s |\n", k.Name, k.Default, strings.ReplaceAll(aboutOf(k), "|", "\\|"))
			}
		}
		b.WriteString("\n")
		for _, line := range cardLines(p) {
			fmt.Fprintf(&b, "- %s: %s\n", line[0], line[1])
		}
	}
	b.WriteString("\n## Not implemented: primary source not read\n\n")
	for _, u := range strategies.Unread() {
		fmt.Fprintf(&b, "- %s: %s\n", u.Name, u.Source)
	}
	b.WriteString("\n## Not implemented for other reasons\n\n")
	for _, a := range strategies.Absent() {
		fmt.Fprintf(&b, "- %s: %s\n", a.Name, a.Why)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// sentence begins with a capital and ends with a full stop.
func sentence(s string) string { return strings.ToUpper(s[:1]) + s[1:] + "." }

func aboutOf(k strategies.Knob) string {
	if k.Options == nil {
		return k.About
	}
	return k.About + " (" + strings.Join(k.Options, ", ") + ")"
}

// cardLines is what a card says below formula and knobs.
func cardLines(p *strategies.Preset) [][2]string {
	lines := [][2]string{{"Needs", p.Needs}, {"Changes", p.Changes}, {"Fails", p.Fails}, {"Paper", p.Paper}, {"Read", p.Read}}
	if m := p.Model; m != nil {
		groups := ""
		if m.GroupsKept < m.Groups {
			groups = fmt.Sprintf(" from %d of %d groups", m.GroupsKept, m.Groups)
		}
		lines = append(lines, [2]string{"Model", fmt.Sprintf("%d experts, %d per token%s, %s scores, %s gates times %g; --model %s gives a scenario this shape", m.Experts, m.TopK, groups, m.Score, m.Gate, m.GateScale, p.Name)})
	}
	return append(lines, [2]string{"Try", p.Try()})
}

func explain(w io.Writer, p *strategies.Preset, width int) error {
	fmt.Fprintf(w, "%s: %s\n\n  %s\n\n", p.Name, p.Summary, strings.ReplaceAll(strings.ReplaceAll(p.Formula, "\n", "\n  "), "\n  \n", "\n\n"))
	if len(p.Knobs) > 0 {
		fmt.Fprintln(w, "Knobs (name=default):")
		margin := 0
		for _, k := range p.Knobs {
			margin = max(margin, len("  "+k.Name+"="+k.Default+"  "))
		}
		for _, k := range p.Knobs {
			about := strings.ReplaceAll(wrap(aboutOf(k), max(30, min(width, 110)-margin)), "\n", "\n"+strings.Repeat(" ", margin))
			fmt.Fprintf(w, "%-*s%s\n", margin, "  "+k.Name+"="+k.Default, about)
		}
		fmt.Fprintln(w)
	}
	for _, line := range cardLines(p) {
		text := line[1]
		if text == "" {
			continue
		}
		if line[0] != "Try" { // which is to be copied
			text = strings.ReplaceAll(wrap(text, max(30, min(width, 110)-9)), "\n", "\n         ")
		}
		if _, err := fmt.Fprintf(w, "%-8s %s\n", line[0]+":", text); err != nil {
			return err
		}
	}
	return nil
}
