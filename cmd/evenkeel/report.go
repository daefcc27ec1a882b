package main

import (
	"cmp"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"

	"evenkeel/internal/nearest"
	"evenkeel/internal/vec"
	"evenkeel/sim"
)

// column is one metric of the printed table.
type column struct {
	title  string
	metric string
	format string  // of the mean
	scale  float64 // factor from the metric to what is printed
	floor  bool    // the floor is printed in the last row
}

// columns are the metrics of the table, the most wanted first; as many are shown as the width allows.
var columns = []column{
	{"MaxVio\nglobal", "maxvio_global", "%.3f", 1, true},
	{"MaxVio\nbatch", "maxvio_batch", "%.3f", 1, true},
	{"MaxVio\nof useful", "maxvio_useful", "%.3f", 1, false},
	{"task\nloss", "task_loss", "%.4f", 1, false},
	{"affinity\nlost, %", "affinity_kept", "%.2f", -100, false},
	{"output\nerror", "output_error", "%.4f", 1, false},
	{"dropped,\n%", "drop_rate", "%.2f", 100, false},
	{"settled\nat step", "settled_step", "%.0f", 1, false},
	{"recovery\nsteps", "recovery_steps", "%.0f", 1, false},
	{"experts\nper token", "experts_per_token", "%.2f", 1, false},
	{"without\nexpert, %", "tokens_unserved", "%.2f", 100, false},
	{"regret,\n%", "regret_to_optimum", "%.2f", 100, false},
	{"MaxVio\nsequence", "maxvio_sequence", "%.2f", 1, true},
	{"domain\nbits", "domain_information", "%.3f", 1, true},
	{"churn,\n%", "churn", "%.2f", 100, false},
	{"bias\nspread", "bias_spread", "%.3f", 1, false},
}

// reason is why a strategy is left out, without its name.
func (x refusal) reason() string {
	return strings.TrimPrefix(strings.TrimPrefix(x.err.Error(), "strategy "+x.spec+": "), x.spec+" ")
}

// view is which metrics a table shows, and by which it is sorted.
type view struct {
	columns []column
	sort    string
}

// newView reads the flags --columns and --sort; columns that are empty are the default ones, as many as fit.
func newView(names, sort string) (v view, err error) {
	known := func(flag, name string) error {
		if slices.Contains(sim.MetricKeys(), name) {
			return nil
		}
		return fmt.Errorf("%s: there is no metric %q%s: the known ones are %s", flag, name, nearest.Hint(name, sim.MetricKeys()), strings.Join(sim.MetricKeys(), ", "))
	}
	if v.sort = sort; sort != "" {
		if err := known("--sort", sort); err != nil {
			return v, err
		}
	}
	if names == "" {
		return v, nil
	}
	for _, name := range strings.Split(names, ",") {
		name = strings.TrimSpace(name)
		if err := known("--columns", name); err != nil {
			return v, err
		}
		c := column{strings.Replace(name, "_", "\n", 1), name, "%.4g", 1, true}
		if i := slices.IndexFunc(columns, func(c column) bool { return c.metric == name }); i >= 0 {
			c = columns[i]
		}
		v.columns = append(v.columns, c)
	}
	return v, nil
}

// rows are the strategies in the order of the view. Those without the metric come last.
func (v view) rows(r *sim.Result) []*sim.StrategyResult {
	if v.sort == "" {
		return r.Strategies
	}
	value := func(s *sim.StrategyResult) float64 {
		e, ok := s.Metrics[v.sort]
		switch {
		case !ok || math.IsNaN(e.Mean):
			return math.Inf(1)
		case v.sort == "affinity_kept": // shown as lost
			return -e.Mean
		}
		return e.Mean
	}
	rows := slices.Clone(r.Strategies)
	slices.SortStableFunc(rows, func(a, b *sim.StrategyResult) int { return cmp.Compare(value(a), value(b)) })
	return rows
}

// writeReport prints what a reader wants at a glance: the table, the comparison at equal quality, and notes.
func writeReport(w io.Writer, p *plan, r *sim.Result, v view, wall time.Duration, width int, quiet bool) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n\n", wrap(heading(p, r), width))
	text, hidden := mainTable(r, v, width)
	b.WriteString(text + "\n")
	if len(hidden) > 0 && !quiet {
		fmt.Fprintf(&b, "%s\n", wrap(fmt.Sprintf("Not shown in %d columns: %s; --json, --out and a wider terminal have them.", width, strings.Join(hidden, ", ")), width))
	}
	b.WriteString(leftOut(p.left, width))
	if len(r.Strategies) <= many {
		for _, line := range conclusions(r) {
			fmt.Fprintf(&b, "\n%s\n", wrap(line, width))
		}
	}
	if slices.ContainsFunc(v.columns, func(c column) bool { return c.metric == "recovery_steps" }) {
		for _, line := range recoveries(v.rows(r)) {
			b.WriteString(wrap(line, width) + "\n")
		}
	}
	if !quiet {
		b.WriteString("\n" + wrap(legend(r, len(r.Seeds) > 1), width) + "\n")
		for _, n := range notes(r) {
			b.WriteString(wrap("- "+n, width) + "\n")
		}
		fmt.Fprintf(&b, "%.1f s, kernel %s.\n", wall.Seconds(), vec.Kernel())
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// leftOut says which strategies --all left out, and why.
func leftOut(left []refusal, width int) string {
	if len(left) == 0 {
		return ""
	}
	var b strings.Builder
	b.WriteString("\n" + wrap("Left out, since this scenario does not permit them:", width) + "\n")
	var reasons []string
	names := map[string][]string{}
	for _, x := range left {
		if names[x.reason()] == nil {
			reasons = append(reasons, x.reason())
		}
		names[x.reason()] = append(names[x.reason()], x.spec)
	}
	for _, reason := range reasons {
		b.WriteString(wrap("- "+strings.Join(names[reason], ", ")+": "+reason, width) + "\n")
	}
	return b.String()
}

func heading(p *plan, r *sim.Result) string {
	l := r.Layer
	groups := ""
	if l.Limited() {
		groups = fmt.Sprintf(", %d of %d groups", l.GroupsKept, l.Groups)
	}
	seeds := "seed"
	if len(r.Seeds) > 1 {
		seeds = "seeds"
	}
	state := ""
	if r.Incomplete {
		state = " INCOMPLETE: the run was interrupted."
	}
	level := ""
	if r.Facts.Trace {
		level = fmt.Sprintf(" (a trace of %s", r.Facts.Level)
		if r.Facts.Layers > 1 {
			level += fmt.Sprintf(", layer %d of 0 to %d", r.Facts.Layer, r.Facts.Layers-1)
		}
		level += ")"
	}
	events := ""
	for _, e := range r.Facts.Events {
		events += fmt.Sprintf(" Step %d: %s.", e.Step, e.Label)
	}
	experts := ""
	if t := p.Scenario.Task; r.ExpertsLearn {
		experts = fmt.Sprintf(" Experts: learned (hidden width %d, a task of %d regions", t.Hidden, t.Regions)
		if t.Shared {
			experts += ", beside a shared linear expert"
		}
		experts += ")."
	}
	router := r.Router
	if router == sim.Offsets {
		router = "learned, one offset per expert"
	}
	return fmt.Sprintf("Scenario %s%s: E = %d experts, K = %d per token%s, %s scores; T = %d tokens a step, %d steps, %d %s. Router: %s (%s).%s%s%s",
		p.Scenario.Name, level, l.Experts, l.TopK, groups, l.Score, r.Tokens, r.Steps, len(r.Seeds), seeds, router, p.Why, experts, events, state)
}

// mainTable renders the table with as many columns as fit, and names the others.
func mainTable(r *sim.Result, v view, width int) (text string, hidden []string) {
	if v.columns != nil {
		return renderTable(r, v, v.columns), nil
	}
	var shown []column
	for _, c := range columns {
		for _, s := range r.Strategies {
			if _, ok := s.Metrics[c.metric]; ok {
				shown = append(shown, c)
				break
			}
		}
	}
	for n := len(shown); ; n-- {
		text = renderTable(r, v, shown[:n])
		if n > 3 && widest(text) > width {
			continue
		}
		for _, c := range shown[n:] {
			hidden = append(hidden, strings.TrimSuffix(strings.ReplaceAll(c.title, "\n", " "), ", %"))
		}
		return text, hidden
	}
}

func widest(s string) (n int) {
	for _, line := range strings.Split(s, "\n") {
		n = max(n, text.StringWidthWithoutEscSequences(line))
	}
	return n
}

func renderTable(r *sim.Result, v view, shown []column) string {
	t := newTable()
	header, floors := table.Row{"strategy"}, table.Row{"sampling floor"}
	configs := []table.ColumnConfig{}
	for i, c := range shown {
		header = append(header, c.title)
		floors = append(floors, floorCell(r, c))
		configs = append(configs, right(i+2))
	}
	t.SetColumnConfigs(configs)
	t.AppendHeader(header)
	for _, s := range v.rows(r) {
		row := table.Row{label(s)}
		for _, c := range shown {
			row = append(row, cell(s, c))
		}
		t.AppendRow(row)
	}
	t.AppendFooter(floors)
	return rendered(t)
}

// label is the spec of a strategy with what sets it apart from one that could be used.
func label(s *sim.StrategyResult) string {
	name := s.Traits.Spec
	if kind := s.Traits.Kind(); kind != "" {
		name += " (" + kind + ")"
	}
	if k, ok := s.Metrics["experts_per_token"]; ok && s.Traits.Varies {
		name += fmt.Sprintf(" (%.3g experts a token)", k.Mean)
	}
	return name
}

// shown is the value of a metric as it is printed.
func (c column) shown(value float64) float64 {
	if c.scale < 0 { // kept is shown as lost
		return float64(value*c.scale) - c.scale
	}
	return value * c.scale
}

// figure prints a number, without the sign of one that is printed as zero.
func figure(format string, v float64) string {
	s := fmt.Sprintf(format, v)
	if strings.Trim(s, "-0.") == "" {
		s = strings.TrimPrefix(s, "-")
	}
	return s
}

// cell is a mean with the half width of its interval.
func cell(s *sim.StrategyResult, c column) string {
	e, ok := s.Metrics[c.metric]
	if !ok || math.IsNaN(e.Mean) {
		return "-"
	}
	text := figure(c.format, c.shown(e.Mean))
	if e.Low == nil || e.High == nil {
		return text
	}
	return text + " ±" + fmt.Sprintf(c.format, math.Abs(c.scale)*(*e.High-*e.Low)/2)
}

func floorCell(r *sim.Result, c column) string {
	if !c.floor {
		return ""
	}
	for _, s := range r.Strategies {
		if e, ok := s.Metrics[c.metric]; ok && e.Floor != nil {
			return fmt.Sprintf(c.format, *e.Floor*c.scale)
		}
	}
	return ""
}

// conclusions answers the question of the comparison: who is more even at the same quality.
func conclusions(r *sim.Result) (lines []string) {
	for _, c := range r.Comparisons {
		verdict := "the interval spans equality, so neither is shown to be more even"
		switch {
		case c.Low == nil:
			verdict = "one seed gives no interval"
		case *c.High < 0:
			verdict = fmt.Sprintf("%s is more even by a factor of %.2f (95 %% interval %.2f to %.2f)", c.Strategy, math.Exp(-c.LogRatio), math.Exp(-*c.High), math.Exp(-*c.Low))
		case *c.Low > 0:
			verdict = fmt.Sprintf("%s is less even by a factor of %.2f (95 %% interval %.2f to %.2f)", c.Strategy, math.Exp(c.LogRatio), math.Exp(*c.Low), math.Exp(*c.High))
		}
		strengths := "its strengths"
		if c.Zero != "" {
			strengths += " from " + c.Zero + " on"
		}
		lines = append(lines, fmt.Sprintf("At equal quality: losing %.2f %% of the affinity, %s has a global MaxVio of %.3f, and %s, interpolated between %s, %.3f: %s.",
			100*(1-c.Kept), c.Strategy, c.MaxVio, c.Family, strengths, c.OnCurve, verdict))
	}
	if n := len(lines); n > 1 && len(r.Seeds) > 1 {
		lines[n-1] += fmt.Sprintf(" Intervals are of each comparison alone, not widened for the number of %d.", n)
	}
	if r.ExpertsLearn && len(r.Strategies) > 1 {
		lines = append(lines, lowestTaskLoss(r))
	}
	return lines
}

// lowestTaskLoss says which strategy had the lowest task loss, and which others these seeds do not tell apart from it.
func lowestTaskLoss(r *sim.Result) string {
	best := slices.MinFunc(r.Strategies, func(a, b *sim.StrategyResult) int {
		return cmp.Compare(a.Metrics["task_loss"].Mean, b.Metrics["task_loss"].Mean)
	})
	var near, far []string
	for _, d := range r.Differences {
		if d.Metric != "task_loss" || d.A != best.Traits.Spec && d.B != best.Traits.Spec {
			continue
		}
		other, mean, low, high := d.A, d.Mean, d.Low, d.High
		if other == best.Traits.Spec {
			other, mean = d.B, -mean
			if low != nil {
				a, b := -*high, -*low
				low, high = &a, &b
			}
		}
		switch {
		case low == nil:
			near = append(near, fmt.Sprintf("%s (%+.4f)", other, mean))
		case *low > 0:
			far = append(far, fmt.Sprintf("%s (%+.4f, interval %+.4f to %+.4f)", other, mean, *low, *high))
		default:
			near = append(near, fmt.Sprintf("%s (%+.4f, interval %+.4f to %+.4f)", other, mean, *low, *high))
		}
	}
	s := fmt.Sprintf("Lowest task loss: %s, %.4f.", best.Traits.Spec, best.Metrics["task_loss"].Mean)
	switch {
	case len(r.Seeds) == 1:
		return s + " One seed gives no interval. The others: " + strings.Join(near, ", ") + "."
	case len(far) > 0:
		s += " Higher: " + strings.Join(far, ", ") + "."
	}
	if len(near) > 0 {
		s += " Not told apart from it by these seeds: " + strings.Join(near, ", ") + "."
	}
	return s + fmt.Sprintf(" Differences are paired by seed, with 95 %% intervals of each pair alone, not widened for the choice of the best of %d.", len(r.Strategies))
}

// recoveries says for each strategy how many steps it took after every event, where there are several.
func recoveries(rows []*sim.StrategyResult) (lines []string) {
	for _, s := range rows {
		if len(s.Recoveries) < 2 {
			continue
		}
		var parts []string
		for _, r := range s.Recoveries {
			took := "not settled"
			if r.Settled > 0 {
				took = fmt.Sprintf("%.0f", r.Steps.Mean)
				if r.Steps.High != nil {
					took += fmt.Sprintf(" ±%.0f", (*r.Steps.High-*r.Steps.Low)/2)
				}
				if r.Settled < len(s.Runs) {
					took += fmt.Sprintf(" (%d of %d seeds)", r.Settled, len(s.Runs))
				}
			}
			parts = append(parts, fmt.Sprintf("%s after step %d", took, r.Event.Step))
		}
		lines = append(lines, fmt.Sprintf("- steps in which %s settles: %s", s.Traits.Spec, strings.Join(parts, ", ")))
	}
	return lines
}

// legend explains the columns; intervals says that the table holds some.
func legend(r *sim.Result, intervals bool) string {
	quality := " Affinity lost and output error are proxies for quality from the stream's own affinities, not perplexity."
	if r.ExpertsLearn {
		quality = " Task loss is the squared error of the layer's output on fresh tokens, of the target's energy, after experts and router learned a synthetic task together from scratch: 0 is perfect, 1 is what no output earns; it is no language model's loss."
	}
	s := "MaxVio is the largest relative load minus 1: global over the evaluation's tokens, batch over one step's. The floor is what K experts chosen at random give; it is noise, not imbalance." + quality
	if slices.ContainsFunc(r.Strategies, func(x *sim.StrategyResult) bool { return x.Traits.Varies }) {
		s += fmt.Sprintf(" A rule that gives tokens more or fewer than K = %d experts is marked with their mean: its affinity lost compares with the oracle's K all the same, so that more experts buy affinity, and the balanced optimum, with K each, does not bound it.", r.Layer.TopK)
	}
	if r.Layer.Limited() {
		s += " Under group limits the floor is approximate."
	}
	if intervals {
		s += " ± is half of the 95 % interval over seeds."
	}
	if r.Facts.InSample {
		s += fmt.Sprintf(" The evaluation is in-sample: the trace's own %d tokens.", r.Evaluation)
	}
	return s
}

// many is the number of strategies above which a report says of each only what would mislead if it were not said: notes
// of rules that are not causal, and warnings.
const many = 12

// notes collects conventions and warnings.
func notes(r *sim.Result) (list []string) {
	for _, s := range r.Strategies {
		if len(r.Strategies) > many && (s.Traits.Causal || s.Traits.Bound) {
			continue
		}
		for _, n := range s.Notes {
			list = append(list, s.Traits.Spec+": "+n)
		}
	}
	if len(r.Strategies) > many {
		list = append(list, fmt.Sprintf("with more than %d strategies, comparisons at equal quality and further notes are left to --json and --out; evenkeel frontier compares at equal imbalance", many))
		return slices.Concat(list, warnings(r), r.Warnings)
	}
	return slices.Concat(list, warnings(r), r.Incomparable, r.Warnings)
}

// warnings are what a reader of the figures must not miss, so that they are said even when notes are not.
func warnings(r *sim.Result) (list []string) {
	for _, s := range r.Strategies {
		for _, n := range s.Warnings {
			list = append(list, "WARNING "+s.Traits.Spec+": "+n)
		}
	}
	return list
}

// wrap breaks a sentence into lines of at most width columns.
func wrap(s string, width int) string {
	var b strings.Builder
	column := 0
	for i, word := range strings.Fields(s) {
		n := text.StringWidthWithoutEscSequences(word)
		switch {
		case i == 0:
		case column+1+n > min(width, 110):
			b.WriteByte('\n')
			column = 0
		default:
			b.WriteByte(' ')
			column++
		}
		b.WriteString(word)
		column += n
	}
	return b.String()
}
