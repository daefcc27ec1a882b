package main

import (
	"cmp"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"

	"evenkeel/sim/stat"
	"evenkeel/sweep"
)

// tableRequest is what the flags of table ask for.
type tableRequest struct {
	rows, columns, metrics, base, format string
	filters                              []string
	pairs, effects                       bool
}

func tableCommand(stdout io.Writer) *cobra.Command {
	var q tableRequest
	c := &cobra.Command{
		Use:   "table DIR",
		Short: "Project a sweep's results on rows and columns, with statistics paired by seed",
		Long: `Table groups the cells of a sweep by the columns of --row and --col and prints the mean of a
metric over the seeds of each group, ± half of its 95 % t-interval. What a sweep varied, and
every metric, is a column; a knob may be named without its strategy where that is clear. A
group that mixes settings is marked, and is no basis of a comparison.

With --base every other row is compared with that row, column by column: by Wilcoxon's
signed-rank test, exact up to 50 differences, over the seeds that both have, with Holm's
correction for all comparisons of the table. A difference that is not shown is printed as ~
with its p, never as a percentage.
--pairs compares all rows, and --effects says what share of the variance each parameter and
each pair of them explains.

steps.METRIC is the mean over a cell's recorded steps (sweep --record-steps) after its
transient, whose end MSER-5 finds.`,
		Example: `  evenkeel table rates --row strategy,rate --col tokens --metric maxvio_global
  evenkeel table rates --filter 'tokens>=4096' --base none --metric maxvio_global,affinity_kept
  evenkeel table rates --pairs --filter tokens=4096
  evenkeel table rates --format bench >rates.txt && benchstat -col /strategy rates.txt`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return errors.New("table needs the folder of one sweep: evenkeel table DIR")
			}
			return nil
		},
		RunE: func(_ *cobra.Command, args []string) error { return q.run(args[0], stdout) },
	}
	f := c.Flags()
	f.SortFlags = false
	f.StringVar(&q.rows, "row", "", "columns whose values make the rows (default: the strategy and its knobs)")
	f.StringVar(&q.columns, "col", "", "columns whose values make the columns (default: the first key of the scenario that varies)")
	f.StringVar(&q.metrics, "metric", "maxvio_global", "what is shown; several, with commas, make a table each")
	f.StringArrayVar(&q.filters, "filter", nil, "cells to keep, such as rate<0.01, tokens>=4096 or strategy=none|loss-free; may be repeated")
	f.StringVar(&q.base, "base", "", "label of the row that the others are compared with, such as none")
	f.BoolVar(&q.pairs, "pairs", false, "compare all pairs of rows, in every column")
	f.BoolVar(&q.effects, "effects", false, "share of the variance that each parameter, and each pair of them, explains")
	f.StringVar(&q.format, "format", "text", "text, markdown, csv, json or bench (Go's benchmark format, for benchstat)")
	return c
}

// split is a list with commas, without empty words.
func split(list string) (words []string) {
	for _, w := range strings.Split(list, ",") {
		if w = strings.TrimSpace(w); w != "" {
			words = append(words, w)
		}
	}
	return words
}

func (q *tableRequest) run(dir string, stdout io.Writer) error {
	if !slices.Contains([]string{"text", "markdown", "csv", "json", "bench"}, q.format) {
		return fmt.Errorf("--format is %q: it must be text, markdown, csv, json or bench", q.format)
	}
	if (q.pairs || q.effects) && (q.format == "csv" || q.format == "bench") {
		return fmt.Errorf("--format %s has no place for --pairs and --effects: take text, markdown or json", q.format)
	}
	r, err := sweep.OpenResults(dir)
	if err != nil {
		return err
	}
	defer r.Close()
	query := sweep.Query{Rows: split(q.rows), Columns: split(q.columns), Filters: q.filters}
	r.Defaults(&query)
	var list []*sweptTable
	for _, metric := range split(q.metrics) {
		query.Metric = metric
		p, err := r.Project(query)
		if err != nil {
			return err
		}
		t := &sweptTable{Projection: p, chosen: outcomes(r, q.filters)}
		if t.base, err = t.row(q.base); err != nil {
			return err
		}
		if err := t.compare(q.pairs); err != nil {
			return err
		}
		if q.effects {
			if t.effects, err = r.Effects(query); err != nil {
				return err
			}
		}
		list = append(list, t)
	}
	if len(list) == 0 {
		return errors.New("--metric names nothing: it is such as maxvio_global,affinity_kept")
	}
	switch q.format {
	case "json":
		return writeTablesJSON(stdout, r.Manifest, list)
	case "csv":
		return writeTablesCSV(stdout, list)
	case "bench":
		return writeBench(stdout, r.Manifest, list)
	}
	return writeTables(stdout, r.Manifest, list, q.format == "markdown", terminalWidth(stdout))
}

// outcomes are the metrics that filters choose cells by.
func outcomes(r *sweep.Results, filters []string) (list []string) {
	for _, f := range filters {
		if end := strings.IndexAny(f, "=!<>"); end > 0 {
			if name := strings.TrimSpace(f[:end]); slices.Contains(r.Measured(), name) && !slices.Contains(list, name) {
				list = append(list, name)
			}
		}
	}
	return list
}

// sweptTable is a projection with what the seeds say about its rows.
type sweptTable struct {
	*sweep.Projection
	base    int               // row that others are compared with, or -1
	versus  [][]*stat.Verdict // [row][column], of the row less the base; nil where they cannot be compared
	pairs   []pairVerdict
	effects *sweep.Effects
	chosen  []string // metrics that a filter chose the cells by
	beside  []string // what differs between rows that are compared, beside their labels
}

// pairVerdict compares two rows in one column.
type pairVerdict struct {
	a, b, column int
	a12          float64
	stat.Verdict
}

// effect is the size of a difference that is shown: in standard deviations of the differences, and as the chance that a value of
// the first is above one of the second. Of few seeds both are too large.
func (p *pairVerdict) effect() string {
	if !p.Significant {
		return ""
	}
	return fmt.Sprintf("; d_z %.2g, A12 %.2f", p.DZ, p.a12)
}

// rowLabel is a row in words.
func (t *sweptTable) rowLabel(i int) string { return joinLabels(t.Rows, t.RowLabels[i], t.RowKinds[i]) }

// columnLabel is a column in words.
func (t *sweptTable) columnLabel(i int) string {
	kind := ""
	if slices.Contains(t.Columns, "strategy") || slices.Contains(t.Columns, "spec") {
		kind = t.ColumnKinds[i]
	}
	return joinLabels(t.Columns, t.ColumnLabels[i], kind)
}

// joinLabels is what values of columns say: words alone where they speak for themselves, else name=value. What has none of the
// columns, as a strategy without a knob, says so.
func joinLabels(names, values []string, kind string) string {
	var list []string
	short := shortNames(names)
	for i, v := range values {
		switch {
		case v == "":
		case names[i] == "strategy" || names[i] == "spec":
			list = append(list, v)
		default:
			list = append(list, short[i]+"="+brief(v))
		}
	}
	s := strings.Join(list, " ")
	switch {
	case len(names) == 0:
		s = "all"
	case s == "":
		s = "without " + strings.Join(short, " or ")
	}
	if kind != "" {
		s += " (" + kind + ")"
	}
	return s
}

// lastWord is a knob without its strategy.
func lastWord(name string) string { return name[strings.LastIndexByte(name, '.')+1:] }

// brief is a number of few enough digits to read; what it stands for is in the other formats.
func brief(label string) string {
	if x, err := strconv.ParseFloat(label, 64); err == nil && len(label) > 8 {
		return strconv.FormatFloat(x, 'g', 5, 64)
	}
	return label
}

// shortNames are the names of columns, knobs without their strategy where that leaves no doubt.
func shortNames(names []string) []string {
	short := make([]string, len(names))
	for i, n := range names {
		short[i] = lastWord(n)
		for j, other := range names {
			if i != j && lastWord(other) == short[i] {
				short[i] = n
			}
		}
	}
	return short
}

// row finds the row of a label, or -1 for none.
func (t *sweptTable) row(label string) (int, error) {
	if label == "" {
		return -1, nil
	}
	if len(t.RowLabels) == 1 {
		return 0, fmt.Errorf("--base %s: rows are compared with it, and there is one row: name by --row what is to be compared", label)
	}
	var known []string
	for i := range t.RowLabels {
		if t.rowLabel(i) == label || strings.Join(t.RowLabels[i], ",") == label || len(t.RowLabels[i]) > 0 && t.RowLabels[i][0] == label && strings.Trim(strings.Join(t.RowLabels[i][1:], ""), " ") == "" {
			return i, nil
		}
		known = append(known, t.rowLabel(i))
	}
	return 0, fmt.Errorf("--base %s: there is no such row: the rows are %s", label, shorten(known, 12))
}

// compare fills the verdicts.
func (t *sweptTable) compare(pairs bool) error {
	verdict := func(a, b, column int) (*stat.Verdict, error) {
		x, y := sweep.Pair(t.Groups[a][column], t.Groups[b][column])
		if len(x) == 0 {
			return nil, nil
		}
		for _, name := range sweep.Differ(t.Groups[a][column], t.Groups[b][column]) {
			if !slices.Contains(t.beside, name) {
				t.beside = append(t.beside, name)
			}
		}
		v, err := stat.Compare(x, y, stat.Options{A: t.rowLabel(a), B: t.rowLabel(b), Metric: t.Metric})
		return &v, err
	}
	if t.base >= 0 {
		t.versus = make([][]*stat.Verdict, len(t.RowLabels))
		var family []*stat.Verdict
		for i := range t.versus {
			t.versus[i] = make([]*stat.Verdict, len(t.ColumnLabels))
			for j := range t.versus[i] {
				if i == t.base {
					continue
				}
				v, err := verdict(i, t.base, j)
				if err != nil {
					return err
				}
				if t.versus[i][j] = v; v != nil {
					family = append(family, v)
				}
			}
		}
		correct(family)
	}
	if !pairs {
		return nil
	}
	if n := len(t.RowLabels); n > maxPairedRows {
		return fmt.Errorf("--pairs would compare %d rows: choose fewer than %d by --row or --filter", n, maxPairedRows+1)
	}
	var family []*stat.Verdict
	for j := range t.ColumnLabels {
		for a := range t.RowLabels {
			for b := range a {
				v, err := verdict(a, b, j)
				if err != nil {
					return err
				}
				if v != nil {
					x, y := sweep.Pair(t.Groups[a][j], t.Groups[b][j])
					t.pairs = append(t.pairs, pairVerdict{a: a, b: b, column: j, a12: stat.A12(x, y), Verdict: *v})
				}
			}
		}
	}
	for i := range t.pairs {
		family = append(family, &t.pairs[i].Verdict)
	}
	correct(family)
	return nil
}

// maxPairedRows bounds what somebody has to read.
const maxPairedRows = 60

// correct applies Holm's correction to a family.
func correct(family []*stat.Verdict) {
	list := make([]stat.Verdict, len(family))
	for i, v := range family {
		list[i] = *v
	}
	stat.Correct(list)
	for i, v := range family {
		*v = list[i]
	}
}

// meanOf is the mean of a group and half of its interval over seeds: none where there is one seed, or where settings are mixed.
func meanOf(g *sweep.Group) (m float64, half float64) {
	if g == nil || len(g.Values) == 0 {
		return math.NaN(), math.NaN()
	}
	m = stat.Mean(g.Values)
	if len(g.Values) < 2 || len(g.Mixed) > 0 {
		return m, math.NaN()
	}
	i := stat.Student(g.Values, 0.95)
	return m, (i.High - i.Low) / 2
}

// cellText prints a group. The digits of the mean are those that its interval leaves.
func cellText(g *sweep.Group) string {
	m, half := meanOf(g)
	switch {
	case g == nil:
		return ""
	case math.IsNaN(m):
		return "no figure"
	}
	s := strconv.FormatFloat(m, 'g', 4, 64)
	if !math.IsNaN(half) {
		digits := 3
		switch {
		case half > 0:
			digits = max(0, 1-int(math.Floor(math.Log10(half))))
		case m != 0: // equal values, maybe small ones
			digits = max(digits, 3-int(math.Floor(math.Log10(math.Abs(m)))))
		}
		if digits > 8 || math.Abs(m) >= 1e7 {
			s = strconv.FormatFloat(m, 'g', 4, 64) + " ±" + strconv.FormatFloat(half, 'g', 2, 64)
		} else {
			s = strconv.FormatFloat(m, 'f', digits, 64) + " ±" + strconv.FormatFloat(half, 'f', digits, 64)
		}
	}
	if len(g.Mixed) > 0 {
		s += " !"
	}
	if g.Failed > 0 {
		s += fmt.Sprintf(" (%d without)", g.Failed)
	}
	return s
}

// versusText is what a comparison shows.
func versusText(v *stat.Verdict) string {
	switch {
	case v == nil:
		return ""
	case !v.Significant:
		return fmt.Sprintf("~ p=%.2g", v.Corrected)
	case !v.Directed():
		return fmt.Sprintf("differs, p=%.2g", v.Corrected) // its mean says one thing, its ranks another
	case v.MeanA*v.MeanB < 0 || v.MeanB == 0: // which has no share of the other
		return fmt.Sprintf("%+.3g p=%.2g", v.Difference.Estimate, v.Corrected)
	}
	return fmt.Sprintf("%+.3g %% p=%.2g", 100*v.Difference.Estimate/math.Abs(v.MeanB), v.Corrected)
}

// fewPairs is how many pairs are listed of which none can be shown to differ: of more, one line says so.
const fewPairs = 12

// cannotShow says in one line what every one of many pairs would say: that there are too few seeds.
func cannotShow(pairs []pairVerdict) string {
	seeds, low, high := 0, math.MaxInt, 0
	for _, p := range pairs {
		if seeds = max(seeds, p.Seeds); p.Needed > 0 {
			low, high = min(low, p.Needed), max(high, p.Needed)
		}
	}
	text := fmt.Sprintf("WARNING: with %s none of the %d pairs can be shown to differ: at least %d are needed, or fewer pairs, by --filter or --row", plural(seeds, "seed"), len(pairs), pairs[0].Least)
	if high > 0 {
		text += fmt.Sprintf("; the differences that were measured take about %d to %d", low, high)
	}
	return text + "."
}

// writeTables prints the tables for people.
func writeTables(w io.Writer, m *sweep.Manifest, list []*sweptTable, markdown bool, width int) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s, %s\n", m.Scenario, m.Design)
	if m.Missing > 0 {
		fmt.Fprintf(&b, "%s\n", wrap(fmt.Sprintf("WARNING: of %s %d were missing when the tables were made: evenkeel collect makes them again.", plural(m.Cells, "cell"), m.Missing), width))
	}
	for _, t := range list {
		b.WriteString("\n" + t.render(markdown, width) + "\n")
		for _, note := range t.notes(m) {
			b.WriteString(wrap(note, width) + "\n")
		}
		pairs := t.pairs
		if len(pairs) > fewPairs && !slices.ContainsFunc(pairs, func(p pairVerdict) bool { return p.Seeds >= p.Least }) {
			b.WriteString(wrap(cannotShow(pairs), width) + "\n")
			pairs = nil
		}
		for _, p := range pairs {
			b.WriteString(wrap("- "+prefixed(t.columnLabel(p.column), p.String()+p.effect())+".", width) + "\n")
		}
		if t.effects != nil {
			b.WriteString("\n" + effectsText(t.effects, t.Metric, width))
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func prefixed(column, sentence string) string {
	if column == "all" {
		return sentence
	}
	return column + ": " + sentence
}

// narrow is the least width of a column: a sign and a space on both sides.
const narrow = 3

// render lays a table out; one that is too wide is cut into several, each with the labels of the rows.
func (t *sweptTable) render(markdown bool, width int) string {
	var parts []string
	for from := 0; from < len(t.ColumnLabels); {
		to := len(t.ColumnLabels)
		if !markdown {
			to = min(to, from+width/narrow+1)
		}
		text := t.part(from, to, markdown)
		for !markdown && to > from+1 && widest(text) > width {
			to--
			text = t.part(from, to, markdown)
		}
		parts = append(parts, text)
		from = to
	}
	return strings.Join(parts, "\n\n")
}

// part is the table of some columns.
func (t *sweptTable) part(from, to int, markdown bool) string {
	w := newTable()
	header, configs := table.Row{}, []table.ColumnConfig{}
	numeric := func() {
		configs = append(configs, right(len(header)))
	}
	for i, name := range shortNames(t.Rows) {
		header = append(header, name)
		if t.numericRow(i) {
			numeric()
		}
	}
	if len(t.Rows) == 0 {
		header = append(header, "")
	}
	for j := from; j < to; j++ {
		title := t.Metric
		if len(t.Columns) > 0 {
			title = t.columnLabel(j)
		}
		header = append(header, title)
		numeric()
		if t.base >= 0 {
			header = append(header, "vs "+t.rowLabel(t.base))
			numeric()
		}
	}
	w.AppendHeader(header)
	w.SetColumnConfigs(configs)
	for i := range t.RowLabels {
		row := table.Row{}
		for k, v := range t.RowLabels[i] {
			if (t.Rows[k] == "strategy" || t.Rows[k] == "spec") && t.RowKinds[i] != "" {
				v += " (" + t.RowKinds[i] + ")"
			}
			row = append(row, brief(v))
		}
		if len(t.Rows) == 0 {
			row = append(row, "all")
		}
		for j := from; j < to; j++ {
			row = append(row, cellText(t.Groups[i][j]))
			if t.base >= 0 {
				row = append(row, versusText(t.versus[i][j]))
			}
		}
		w.AppendRow(row)
	}
	if floors := t.Floors[from:to]; slices.ContainsFunc(floors, func(x [2]float64) bool { return !math.IsNaN(x[0]) }) {
		footer := table.Row{"sampling floor"}
		for range max(0, len(t.Rows)-1) {
			footer = append(footer, "")
		}
		for _, x := range floors {
			s := ""
			if !math.IsNaN(x[0]) {
				s = strconv.FormatFloat(x[0], 'g', 4, 64)
			}
			if x[1] > x[0] {
				s += " to " + strconv.FormatFloat(x[1], 'g', 4, 64)
			}
			footer = append(footer, s)
			if t.base >= 0 {
				footer = append(footer, "")
			}
		}
		w.AppendFooter(footer)
	}
	if markdown {
		return "**" + t.Metric + "**\n\n" + w.RenderMarkdown()
	}
	w.SetTitle(t.Metric)
	return rendered(w)
}

// numericRow reports whether all labels of a row's name are numbers.
func (t *sweptTable) numericRow(k int) bool {
	for _, l := range t.RowLabels {
		if _, err := strconv.ParseFloat(l[k], 64); err != nil && l[k] != "" {
			return false
		}
	}
	return true
}

// notes say what a reader must know of a table.
func (t *sweptTable) notes(m *sweep.Manifest) (list []string) {
	var mixed []string
	failed, single, seeds, fewest := 0, 0, 0, math.MaxInt
	for _, row := range t.Groups {
		for _, g := range row {
			if g == nil {
				continue
			}
			failed += g.Failed
			if len(g.Mixed) == 0 {
				seeds = max(seeds, len(g.Seeds))
				if len(g.Seeds) > 1 {
					fewest = min(fewest, len(g.Seeds))
				}
			}
			if len(g.Values) == 1 {
				single++
			}
			for _, name := range g.Mixed {
				if !slices.Contains(mixed, name) {
					mixed = append(mixed, name)
				}
			}
		}
	}
	if len(mixed) > 0 {
		vary := "varies"
		if len(mixed) > 1 {
			vary = "vary"
		}
		list = append(list, fmt.Sprintf("WARNING: what is marked ! mixes settings: %s %s within it, so that there is no interval over seeds. Add it to --row or --col, or pick one value by --filter.", strings.Join(mixed, " and "), vary))
	}
	if seeds > 1 {
		over := strconv.Itoa(seeds)
		if fewest < seeds {
			over = fmt.Sprintf("%d to %d", fewest, seeds)
		}
		list = append(list, fmt.Sprintf("± is half of the 95 %% t-interval over %s seeds.", over))
	}
	if note := oneWorld(m); note != "" && seeds > 1 {
		list = append(list, note)
	}
	if single > 0 && seeds == 1 {
		list = append(list, "WARNING: one seed gives no interval: nothing can be said of differences. Sweep again with --seeds 8 and --extend.")
	}
	if failed -= t.Uncut; failed > 0 { // what has no end of its transient has a note of its own
		list = append(list, fmt.Sprintf("%s without this figure: a mean says nothing of such. Either the column failed of %s says why, or the metric does not apply, or a run never came to it, as one that does not settle.",
			plural(failed, "cell"), sweep.CellsTable))
	}
	if t.Uncut > 0 {
		list = append(list, fmt.Sprintf("%s left out: MSER-5 found no end of the transient. Run more steps, or record more of them.", plural(t.Uncut, "cell")))
	}
	var family []*stat.Verdict
	for _, row := range t.versus {
		for _, v := range row {
			if v != nil {
				family = append(family, v)
			}
		}
	}
	if len(t.chosen) > 0 {
		list = append(list, fmt.Sprintf("WARNING: --filter chooses cells by what they found, %s: means, intervals and p are of the chosen seeds and not of the strategy.", strings.Join(t.chosen, " and ")))
	}
	if len(t.beside) > 0 {
		list = append(list, fmt.Sprintf("WARNING: rows that are compared also differ in %s: their difference may be due to that.", strings.Join(t.beside, " and ")))
	}
	if t.base >= 0 && len(family) == 0 && len(t.RowLabels) > 1 {
		list = append(list, fmt.Sprintf("WARNING: no row was compared with %s: no column has figures of both under the same seeds, without mixed settings.", t.rowLabel(t.base)))
	}
	if len(family) > 0 {
		least, most := family[0].Least, 0
		shown, exact := 0, "exact"
		for _, v := range family {
			if v.Significant {
				shown++
			}
			if !v.Test.Exact {
				exact = "of more than 50 by the normal approximation"
			}
			most = max(most, v.Seeds)
		}
		note := fmt.Sprintf("%d of %d differences from %s are shown (Wilcoxon's signed-rank test over seeds, %s, with Holm's correction for %s); ~ is not shown to differ.", shown, len(family), t.rowLabel(t.base), exact, plural(len(family), "comparison"))
		if most < least {
			note = fmt.Sprintf("WARNING: with %s none of the %s can be significant: at least %d are needed. ~ is not shown to differ.", plural(most, "seed"), plural(len(family), "comparison"), least)
		}
		list = append(list, note)
	}
	return list
}

// oneWorld says what intervals and tests are of where seeds do not draw worlds of their own; else nothing.
func oneWorld(m *sweep.Manifest) string {
	keys := slices.Clone(m.Settings)
	for _, a := range m.Axes {
		keys = append(keys, a.Name+"=")
	}
	switch {
	case slices.ContainsFunc(keys, func(k string) bool { return strings.HasPrefix(k, "trace.") }):
		return "Seeds replay one trace in other orders: intervals and tests tell how far the order matters, and nothing of other tokens or routers."
	case slices.ContainsFunc(keys, func(k string) bool { return strings.HasPrefix(k, "world_seed=") && k != "world_seed=0" }):
		return "Seeds share a world: intervals and tests tell how far its tokens matter, and nothing of other worlds."
	}
	return ""
}

// effectsText prints what explains the variance.
func effectsText(e *sweep.Effects, metric string, width int) string {
	w := newTable()
	w.SetColumnConfigs([]table.ColumnConfig{right(2), right(3), right(4)})
	w.AppendHeader(table.Row{"what varies " + metric, "share, %", "degrees of freedom", "F"})
	for _, term := range e.Terms {
		f := ""
		if term.F > 0 {
			f = strconv.FormatFloat(term.F, 'g', 3, 64)
		}
		w.AppendRow(table.Row{term.Name, fmt.Sprintf("%.1f", 100*term.Share), term.DF, f})
	}
	var b strings.Builder
	b.WriteString(rendered(w) + "\n")
	for _, n := range e.Notes {
		b.WriteString(wrap(n, width) + "\n")
	}
	return b.String()
}

// tableJSON is one table of --format json.
type tableJSON struct {
	Metric   string       `json:"metric"`
	Groups   []groupJSON  `json:"groups"`
	Pairs    []versusJSON `json:"pairs,omitempty"`
	Effects  any          `json:"effects,omitempty"`
	Warnings []string     `json:"notes"`
}

type groupJSON struct {
	Row    map[string]string `json:"row"`
	Column map[string]string `json:"column,omitempty"`
	Kind   string            `json:"kind,omitempty"`
	Seeds  []uint64          `json:"seeds"`
	Values []float64         `json:"values"`
	Mean   *float64          `json:"mean"`
	Half   *float64          `json:"half_width"`
	Floor  *float64          `json:"floor"`
	Failed int               `json:"failed,omitempty"`
	Mixed  []string          `json:"mixed,omitempty"`
	Versus *versusJSON       `json:"versus_base,omitempty"`
}

type versusJSON struct {
	First       string   `json:"a"`
	Second      string   `json:"b"`
	Column      string   `json:"column,omitempty"`
	Difference  *float64 `json:"difference"`
	Low         *float64 `json:"low"`
	High        *float64 `json:"high"`
	Method      string   `json:"interval"`
	P           float64  `json:"p"`
	Corrected   float64  `json:"p_holm"`
	Comparisons int      `json:"comparisons"`
	Significant bool     `json:"significant"`
	DZ          *float64 `json:"d_z"`
	RankBi      *float64 `json:"rank_biserial"`
	A12         *float64 `json:"a12,omitempty"`
	Needed      int      `json:"seeds_needed,omitempty"`
}

func newVersus(v *stat.Verdict, column string) *versusJSON {
	if v == nil {
		return nil
	}
	return &versusJSON{First: v.A, Second: v.B, Column: column, Difference: finite(v.Difference.Estimate), Low: finite(v.Difference.Low), High: finite(v.Difference.High),
		Method: v.Method, P: v.Test.P, Corrected: v.Corrected, Comparisons: v.Pairs, Significant: v.Significant, DZ: finite(v.DZ), RankBi: finite(v.RankBiserial), Needed: v.Needed}
}

func named(names, values []string) map[string]string {
	if len(names) == 0 {
		return nil
	}
	m := map[string]string{}
	for i, n := range names {
		if values[i] != "" {
			m[n] = values[i]
		}
	}
	return m
}

func writeTablesJSON(w io.Writer, m *sweep.Manifest, list []*sweptTable) error {
	var tables []tableJSON
	for _, t := range list {
		j := tableJSON{Metric: t.Metric, Warnings: t.notes(m)}
		for i, row := range t.Groups {
			for c, g := range row {
				if g == nil {
					continue
				}
				mean, half := meanOf(g)
				x := groupJSON{Row: named(t.Rows, t.RowLabels[i]), Column: named(t.Columns, t.ColumnLabels[c]), Kind: t.RowKinds[i], Seeds: g.Seeds, Values: g.Values,
					Mean: finite(mean), Half: finite(half), Floor: finite(g.Floor), Failed: g.Failed, Mixed: g.Mixed}
				if t.versus != nil {
					x.Versus = newVersus(t.versus[i][c], "")
				}
				j.Groups = append(j.Groups, x)
			}
		}
		for i := range t.pairs {
			v := newVersus(&t.pairs[i].Verdict, t.columnLabel(t.pairs[i].column))
			v.A12 = finite(t.pairs[i].a12)
			j.Pairs = append(j.Pairs, *v)
		}
		if t.effects != nil {
			j.Effects = t.effects
		}
		tables = append(tables, j)
	}
	return encode(w, map[string]any{"scenario": m.Scenario, "design": m.Design, "plan": m.Plan, "missing": m.Missing, "tables": tables})
}

// writeTablesCSV writes a line for each group.
func writeTablesCSV(w io.Writer, list []*sweptTable) error {
	out := csv.NewWriter(w)
	header := append(append(append([]string{"metric"}, list[0].Rows...), list[0].Columns...), "kind", "seeds", "mean", "half_width", "floor", "failed", "mixed", "difference", "p_holm", "significant")
	if err := out.Write(header); err != nil {
		return err
	}
	for _, t := range list {
		for i, row := range t.Groups {
			for c, g := range row {
				if g == nil {
					continue
				}
				m, half := meanOf(g)
				line := append(append(append([]string{t.Metric}, t.RowLabels[i]...), t.ColumnLabels[c]...), t.RowKinds[i], strconv.Itoa(len(g.Values)), number(m), number(half), number(g.Floor),
					strconv.Itoa(g.Failed), strings.Join(g.Mixed, " "))
				if t.versus != nil && t.versus[i][c] != nil {
					v := t.versus[i][c]
					line = append(line, number(v.Difference.Estimate), number(v.Corrected), strconv.FormatBool(v.Significant))
				} else {
					line = append(line, "", "", "")
				}
				if err := out.Write(line); err != nil {
					return err
				}
			}
		}
	}
	out.Flush()
	return out.Error()
}

// writeBench writes a line for each cell in Go's benchmark format (golang.org/design/14313-benchmark-format), the metrics as units.
// The -1 at the end is where a number of processors would be, so that no value is taken for one.
func writeBench(w io.Writer, m *sweep.Manifest, list []*sweptTable) error {
	var b strings.Builder
	fmt.Fprintf(&b, "scenario: %s\nplan: %s\n", m.Scenario, m.Plan)
	safe := strings.NewReplacer(" ", "_", "/", "|", "\t", "_", "\n", "_")
	for i := range list[0].Groups {
		for c, g := range list[0].Groups[i] {
			if g == nil {
				continue
			}
			name := "BenchmarkCell"
			for k, v := range list[0].RowLabels[i] {
				name += "/" + safe.Replace(shortNames(list[0].Rows)[k]+"="+cmp.Or(v, "none"))
			}
			for k, v := range list[0].ColumnLabels[c] {
				name += "/" + safe.Replace(shortNames(list[0].Columns)[k]+"="+cmp.Or(v, "none"))
			}
			if len(g.Mixed) > 0 {
				return fmt.Errorf("--format bench: %s varies within %s, and its lines would pass for repetitions: add it to --row or --col, or pick one value by --filter", strings.Join(g.Mixed, " and "), name)
			}
			var seeds []uint64 // that have any of the metrics
			for _, t := range list {
				for _, seed := range t.Groups[i][c].Seeds {
					if !slices.Contains(seeds, seed) {
						seeds = append(seeds, seed)
					}
				}
			}
			for _, seed := range seeds {
				fmt.Fprintf(&b, "%s-1 1", name)
				for _, t := range list {
					if at := slices.Index(t.Groups[i][c].Seeds, seed); at >= 0 {
						fmt.Fprintf(&b, " %s %s", number(t.Groups[i][c].Values[at]), t.Metric)
					}
				}
				b.WriteString("\n")
			}
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}
