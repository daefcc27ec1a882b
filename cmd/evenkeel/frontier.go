package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"evenkeel/experiment"
	"evenkeel/internal/vec"
	"evenkeel/internal/whole"
	"evenkeel/plots"
	"evenkeel/sim"
	"evenkeel/strategies"
)

// frontierRequest is what the flags of frontier ask for.
type frontierRequest struct {
	request
	points, refine int
	at             string
}

func frontierCommand(stdout, stderr io.Writer) *cobra.Command {
	var q frontierRequest
	c := &cobra.Command{
		Use:   "frontier",
		Short: "At equal imbalance, which rule keeps most quality? Sweep every strategy's strength",
		Long: `Frontier sweeps the knob that sets each strategy's strength over its useful range, in even
ratios and then again where the curve bends, all on the same tokens in lockstep. It prints
the curve of imbalance against quality with intervals over seeds, and for every pair of
strategies the difference in quality at equal imbalance, paired by seed.

A strategy may fix its other knobs, aux-loss:scope=sequence, and the range of its strength,
loss-free:rate=1e-4..1e-2. One without a strength is a point. What strength 0 is, such as
none for a loss, begins the curve; the best exactly balanced assignment is the bound.`,
		Example: `  evenkeel frontier
  evenkeel frontier -s aux-loss -s aux-loss:scope=sequence -s loss-free --at 0.1,0.3 --out out
  evenkeel frontier -s loss-free:rate=1e-4..3e-2 --points 12 --scenario tinymoe`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			q.router = strings.ToLower(q.router)
			return q.run(cmd.Context(), cmd.Flags(), stdout, stderr)
		},
	}
	f := c.Flags()
	f.SortFlags = false
	f.StringArrayVarP(&q.strategies, "strategy", "s", nil, "a strategy, name:knob=value,...; may be repeated")
	f.IntVar(&q.points, "points", 7, "strengths of each strategy at first, in even ratios")
	f.IntVar(&q.refine, "refine", 4, "further strengths of each, where its curve bends")
	f.StringVar(&q.at, "at", "", "global MaxVio at which to compare, such as 0.1,0.3 (default: the middle of what both cover)")
	q.streamFlags(f)
	f.SetOutput(stderr)
	complete(c)
	return c
}

// swept is one strategy whose strength varies.
type swept struct {
	spec      strategies.Spec
	strengths []float64 // ascending; nil where it has none
}

// newSwept reads a strategy, in which the strength may be a range low..high.
func newSwept(text string, points int) (swept, error) {
	name, knobs, _ := strings.Cut(text, ":")
	p, err := strategies.Find(strings.TrimSpace(name))
	if err != nil {
		return swept{}, err
	}
	low, high := p.Range()
	var kept []string
	fixed := false
	for _, setting := range strings.Split(knobs, ",") {
		knob, value, _ := strings.Cut(setting, "=")
		from, to, ranged := strings.Cut(value, "..")
		switch {
		case knob != p.Strength || p.Strength == "":
			if setting != "" {
				kept = append(kept, setting)
			}
		case !ranged:
			kept, fixed = append(kept, setting), true
		default:
			var errs [2]error
			low, errs[0] = strconv.ParseFloat(from, 64)
			high, errs[1] = strconv.ParseFloat(to, 64)
			if errors.Join(errs[:]...) != nil || !(low > 0 && high > low) || math.IsInf(high, 0) {
				return swept{}, fmt.Errorf("strategy %s: %s=%s is no range: write low..high, both above 0, such as %s=1e-4..1e-2", text, knob, value, knob)
			}
		}
	}
	bare := p.Name
	if kept != nil {
		bare += ":" + strings.Join(kept, ",")
	}
	s := swept{}
	if s.spec, err = strategies.Parse(bare, p); err != nil || fixed || low == high {
		return s, err
	}
	for i := range points {
		s.strengths = append(s.strengths, rounded(low*math.Pow(high/low, float64(i)/float64(points-1))))
	}
	s.strengths = slices.Compact(s.strengths)
	return s, nil
}

// rounded keeps three digits, so that specs can be read and mean the same on every platform.
func rounded(x float64) float64 {
	r, _ := strconv.ParseFloat(strconv.FormatFloat(x, 'e', 2, 64), 64)
	return r
}

// specs returns the strategy at each of the strengths.
func (s *swept) specs(strengths []float64) ([]strategies.Spec, error) {
	if s.strengths == nil {
		return []strategies.Spec{s.spec}, nil
	}
	var list []strategies.Spec
	for _, x := range strengths {
		spec, err := s.spec.With(s.spec.Preset.Strength, strconv.FormatFloat(x, 'g', -1, 64))
		if err != nil {
			return nil, err
		}
		list = append(list, spec)
	}
	return list, nil
}

// frontierDefault shows the two published ways of balancing, and what their scope and rule change.
func frontierDefault() []string { return []string{"aux-loss", "aux-loss:scope=sequence", "loss-free"} }

func (q *frontierRequest) run(ctx context.Context, flags *pflag.FlagSet, stdout, stderr io.Writer) error {
	if q.points < 2 || q.points > 100 || q.refine < 0 || q.refine > 100 {
		return fmt.Errorf("--points is %d and --refine %d: points must be 2 to 100, refine 0 to 100", q.points, q.refine)
	}
	var levels []float64
	for _, text := range strings.FieldsFunc(q.at, func(r rune) bool { return r == ',' || r == ' ' }) {
		x, err := strconv.ParseFloat(text, 64)
		if err != nil || !(x > 0) || math.IsInf(x, 0) {
			return fmt.Errorf("--at is %q: it must be a list of global MaxVio above 0, such as 0.1,0.3", q.at)
		}
		levels = append(levels, x)
	}
	if len(q.strategies) == 0 {
		q.strategies = frontierDefault()
	}
	var sweeps []swept
	var first []strategies.Spec
	for _, text := range q.strategies {
		s, err := newSwept(text, q.points)
		if err != nil {
			return err
		}
		if s.spec.Preset.Family == "bounds" {
			continue // drawn anyway
		}
		sweeps = append(sweeps, s)
		specs, err := s.specs(s.strengths)
		if err != nil {
			return err
		}
		first = append(first, specs...)
		if z := s.spec.Preset.Zero; z != nil && s.strengths != nil {
			zero, err := strategies.Parse(z(s.spec.Values))
			if err != nil {
				return err
			}
			first = append(first, zero)
		}
	}
	if sweeps != nil && !slices.ContainsFunc(sweeps, func(s swept) bool { return s.strengths != nil }) {
		return errors.New("none of these strategies has a strength that is free, so there is no curve to draw: use evenkeel compare, or name one such as loss-free")
	}
	if sweeps == nil {
		return errors.New("a bound alone has no frontier: name a strategy, such as loss-free")
	}
	for _, name := range []string{"none", "balanced-optimum"} {
		spec, err := strategies.Parse(name)
		if err != nil {
			return err
		}
		first = append(first, spec)
	}
	if err := vec.Use(q.kernel); err != nil {
		return err
	}
	stream, err := q.stream(flags)
	if err != nil {
		return err
	}
	if stream.Task.Experts == experiment.LearnedExperts {
		return errors.New("a frontier is of affinity at equal imbalance, and experts that learn have no true affinity: use --experts fixed, or evenkeel compare --experts learned with several strengths")
	}
	p, err := newPlan(stream, fresh(first, nil))
	if err != nil {
		return err
	}
	if q.workers < 0 {
		return fmt.Errorf("--workers is %d: it must be at least 1", q.workers)
	}
	if q.out != "" {
		if err := prepareFolder(q.out); err != nil {
			return err
		}
	}
	begin := time.Now()
	r, err := q.compare(ctx, p, stderr)
	if err != nil {
		return err
	}
	r, err = q.refined(ctx, p, r, sweeps, stderr)
	if err != nil {
		return err
	}
	f := newFrontier(r, sweeps, levels)
	wall := time.Since(begin)
	if q.json {
		err = f.writeJSON(stdout, p)
	} else {
		err = f.print(stdout, p, wall, terminalWidth(stdout), q.quiet)
	}
	if err != nil {
		return failed(err)
	}
	if q.out != "" {
		if err := f.writeFolder(q.out, p, wall); err != nil {
			return failed(err)
		}
		if !q.json && !q.quiet {
			fmt.Fprintf(stdout, "\nWritten to %s: frontier.json, summary.json, summary.csv, steps.csv, loads.csv, manifest.json and plots/frontier.\n", q.out)
		}
	}
	return nil
}

// fresh returns the specs that are new, each once.
func fresh(specs, known []strategies.Spec) (list []strategies.Spec) {
	for _, s := range specs {
		same := func(k strategies.Spec) bool { return k.String() == s.String() }
		if !slices.ContainsFunc(list, same) && !slices.ContainsFunc(known, same) {
			list = append(list, s)
		}
	}
	return list
}

// compare runs the strategies of a plan. A frontier is whole or not at all, so an interruption ends it.
func (q *frontierRequest) compare(ctx context.Context, p *plan, stderr io.Writer) (*sim.Result, error) {
	c, err := p.Config(q.workers)
	if err != nil {
		return nil, err
	}
	if err := checkMemory(c); err != nil {
		return nil, err
	}
	if err := sim.Check(c); err != nil {
		return nil, err
	}
	progress := newProgress(stderr, q.quiet || q.json)
	c.Progress = progress.show
	r, err := sim.Compare(ctx, c)
	progress.clear()
	switch {
	case errors.Is(err, context.Canceled), err == nil && (r.Incomplete || ctx.Err() != nil):
		if q.out != "" {
			removeEmpty(q.out)
		}
		return nil, failure{exitInterrupted, fmt.Errorf("%w: a frontier needs all its points, so nothing was written", errInterrupted)}
	case err != nil:
		return nil, failed(err)
	}
	return r, nil
}

// refined adds the strengths where curves bend. The tokens are the same, and figures do not depend on who runs beside
// whom, so the second run's strategies stand beside the first's.
func (q *frontierRequest) refined(ctx context.Context, p *plan, r *sim.Result, sweeps []swept, stderr io.Writer) (*sim.Result, error) {
	var more []strategies.Spec
	for i := range sweeps {
		s := &sweeps[i]
		if s.strengths == nil || q.refine == 0 {
			continue
		}
		var extra []float64
		for _, segment := range (&sim.Curve{Points: pointsOf(r, s)}).Bends(q.refine) {
			// Point 0 of the curve may be strength 0, below which nothing can be added.
			at := segment - (len(pointsOf(r, s)) - len(s.strengths))
			if at >= 0 {
				extra = append(extra, rounded(math.Sqrt(s.strengths[at]*s.strengths[at+1])))
			}
		}
		specs, err := s.specs(extra)
		if err != nil {
			return nil, err
		}
		more = append(more, specs...)
		s.strengths = append(s.strengths, extra...)
		slices.Sort(s.strengths)
		s.strengths = slices.Compact(s.strengths)
	}
	second := &plan{Experiment: &experiment.Experiment{Scenario: p.Scenario, Mode: p.Mode, Why: p.Why, Specs: fresh(more, p.Specs)}}
	if second.Specs == nil {
		return r, nil
	}
	added, err := q.compare(ctx, second, stderr)
	if err != nil {
		return nil, err
	}
	p.Specs = append(p.Specs, second.Specs...)
	return r.Join(added), nil
}

// pointsOf are a sweep's results in the order of strength, from strength 0 where that is something else.
func pointsOf(r *sim.Result, s *swept) (points []*sim.StrategyResult) {
	find := func(spec string) {
		if i := slices.IndexFunc(r.Strategies, func(x *sim.StrategyResult) bool { return x.Traits.Spec == spec }); i >= 0 && !slices.Contains(points, r.Strategies[i]) {
			points = append(points, r.Strategies[i])
		}
	}
	if z := s.spec.Preset.Zero; z != nil && s.strengths != nil {
		if zero, err := strategies.Parse(z(s.spec.Values)); err == nil {
			find(zero.String())
		}
	}
	specs, _ := s.specs(s.strengths) // they were made before
	for _, spec := range specs {
		find(spec.String())
	}
	return points
}

// frontier is what the command found.
type frontier struct {
	result *sim.Result
	sweeps []swept
	curves []*sim.Curve
	pairs  []sim.EqualBalance
	bound  *sim.StrategyResult
}

func newFrontier(r *sim.Result, sweeps []swept, levels []float64) *frontier {
	f := &frontier{result: r, sweeps: sweeps}
	for i := range sweeps {
		points := pointsOf(r, &sweeps[i])
		name := points[len(points)-1].Traits.Family
		if sweeps[i].strengths == nil {
			name = points[0].Traits.Spec
		}
		f.curves = append(f.curves, &sim.Curve{Family: name, Points: points})
	}
	for i, a := range f.curves {
		for _, b := range f.curves[i+1:] {
			if !varies(a) && !varies(b) {
				f.pairs = append(f.pairs, sim.CompareCurves(a, b, levels)...)
			}
		}
	}
	for _, s := range r.Strategies {
		if s.Traits.Bound {
			f.bound = s
		}
	}
	return f
}

// varies reports whether a curve gives tokens more or fewer experts than K, so that its affinity is no measure of quality.
func varies(c *sim.Curve) bool { return c.Points[len(c.Points)-1].Traits.Varies }

func (f *frontier) print(w io.Writer, p *plan, wall time.Duration, width int, quiet bool) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n\n", wrap(heading(p, f.result), width))
	t := newTable()
	var shown []column
	for _, metric := range []string{"maxvio_global", "affinity_kept", "output_error"} {
		shown = append(shown, columns[slices.IndexFunc(columns, func(c column) bool { return c.metric == metric })])
	}
	header, configs := table.Row{"strategy", "strength"}, []table.ColumnConfig{right(2)}
	floors := table.Row{"sampling floor", ""}
	for i, c := range shown {
		header = append(header, c.title)
		floors = append(floors, floorCell(f.result, c))
		configs = append(configs, right(i+3))
	}
	t.SetColumnConfigs(configs)
	t.AppendHeader(header)
	row := func(name, strength string, s *sim.StrategyResult) {
		t.AppendRow(table.Row{name, strength, cell(s, shown[0]), cell(s, shown[1]), cell(s, shown[2])})
	}
	for i, c := range f.curves {
		if i > 0 {
			t.AppendSeparator()
		}
		for j, s := range c.Points {
			name := ""
			if j == 0 {
				if name = c.Family; c.Kind() != "" {
					name += " (" + c.Kind() + ")"
				}
			}
			if k, ok := s.Metrics["experts_per_token"]; ok && s.Traits.Varies {
				name = strings.TrimSpace(fmt.Sprintf("%s (%.3g experts a token)", name, k.Mean))
			}
			row(name, f.strength(i, s), s)
		}
	}
	if f.bound != nil {
		t.AppendSeparator()
		row(f.bound.Traits.Spec+" (bound)", "", f.bound)
	}
	t.AppendFooter(floors)
	hidden := widest(t.Render()) > width
	if hidden {
		configs[len(configs)-1].Hidden = true // the output error
		t.SetColumnConfigs(configs)
	}
	b.WriteString(rendered(t) + "\n")
	if hidden && !quiet {
		b.WriteString(wrap(fmt.Sprintf("Not shown in %d columns: output error; --json, --out and a wider terminal have it.", width), width) + "\n")
	}
	for _, e := range f.pairs {
		fmt.Fprintf(&b, "\n%s\n", wrap(f.sentence(e), width))
	}
	if !quiet {
		b.WriteString("\n" + wrap(legend(f.result, len(f.result.Seeds) > 1)+" Differences at equal imbalance are paired by seed, and each interval is of its pair alone; a strategy's quality there is that of its best points that are at least as even, between two points linear in the logarithm of MaxVio.", width) + "\n")
		for _, n := range f.notes() {
			b.WriteString(wrap("- "+n, width) + "\n")
		}
		fmt.Fprintf(&b, "%.1f s, kernel %s.\n", wall.Seconds(), vec.Kernel())
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// notes are those of each curve's first point that has any, and what its points are warned about, each kind once.
func (f *frontier) notes() (list []string) {
	for i, c := range f.curves {
		for _, s := range c.Points {
			if len(s.Traits.Notes) > 0 {
				list = append(list, s.Traits.Spec+": "+strings.Join(s.Traits.Notes, "; "))
				break
			}
		}
		warned := 0
		first := ""
		for _, s := range c.Points {
			if len(s.Warnings) > 0 {
				if warned++; first == "" {
					first = fmt.Sprintf("at %s: %s", cmp.Or(f.strength(i, s), "its defaults"), strings.Join(s.Warnings, "; "))
				}
			}
		}
		if warned > 0 {
			list = append(list, fmt.Sprintf("WARNING %s, %d of %d points; %s", c.Family, warned, len(c.Points), first))
		}
	}
	for _, c := range f.curves {
		if varies(c) {
			list = append(list, fmt.Sprintf("%s gives tokens more or fewer than K = %d experts, whose affinity is no measure of quality: it is compared with nobody", c.Family, f.result.Layer.TopK))
		}
	}
	return append(list, f.result.Warnings...)
}

// strength names a point of a curve: the value of its knob, or what strength 0 is.
func (f *frontier) strength(curve int, s *sim.StrategyResult) string {
	sw := &f.sweeps[curve]
	if sw.strengths == nil {
		return ""
	}
	for _, x := range sw.strengths {
		if specs, err := sw.specs([]float64{x}); err == nil && specs[0].String() == s.Traits.Spec {
			return sw.spec.Preset.Strength + "=" + strconv.FormatFloat(x, 'g', -1, 64)
		}
	}
	return s.Traits.Spec
}

// sentence says how two strategies compare.
func (f *frontier) sentence(e sim.EqualBalance) string {
	seeds := len(f.result.Seeds)
	switch {
	case e.Apart && !e.Requested:
		return fmt.Sprintf("%s and %s: their ranges of imbalance do not overlap on every seed, so they cannot be compared at equal balance: %s has a global MaxVio of %s, %s of %s (means over seeds).",
			e.A, e.B, e.A, span(e.Range[0]), e.B, span(e.Range[1]))
	case e.Apart:
		return fmt.Sprintf("%s and %s cannot be compared at a global MaxVio of %s: %s is that even on %d of %d seeds, %s on %d; without --at they are compared where both are.", e.A, e.B, vio(e.MaxVio), e.A, e.Reached[0], seeds, e.B, e.Reached[1])
	}
	lost := -100 * e.Affinity.Mean
	better, worse, by := e.A, e.B, -lost
	if lost > 0 {
		better, worse, by = e.B, e.A, lost
	}
	start := fmt.Sprintf("At a global MaxVio of %s:", vio(e.MaxVio))
	switch {
	case e.Affinity.Low == nil:
		return fmt.Sprintf("%s %s loses %.2f points less of the affinity, in percent of the oracle's, than %s; one seed gives no interval.", start, better, by, worse)
	case *e.Affinity.Low <= 0 && *e.Affinity.High >= 0:
		return fmt.Sprintf("%s %s and %s are not shown to differ: difference in affinity kept %+.2f points (95 %% interval %+.2f to %+.2f).", start, e.A, e.B, 100*e.Affinity.Mean, 100**e.Affinity.Low, 100**e.Affinity.High)
	}
	low, high := math.Abs(100**e.Affinity.Low), math.Abs(100**e.Affinity.High)
	return fmt.Sprintf("%s %s loses %.2f points less of the affinity, in percent of the oracle's, than %s (95 %% interval %.2f to %.2f)%s.", start, better, by, worse, min(low, high), max(low, high), f.errorPart(e, better))
}

// errorPart adds what the output error says, if it says anything.
func (f *frontier) errorPart(e sim.EqualBalance, better string) string {
	if e.Error.Low == nil {
		return ""
	}
	d := e.Error.Mean
	if better == e.B {
		d = -d
	}
	if *e.Error.Low <= 0 && *e.Error.High >= 0 {
		return fmt.Sprintf("; the output error's difference %+.4f may be chance", d)
	}
	return fmt.Sprintf(", and its output error differs by %+.4f", d)
}

func span(r [2]float64) string {
	if r[0] == r[1] {
		return vio(r[0])
	}
	return vio(r[0]) + " to " + vio(r[1])
}

// vio prints a MaxVio, of which the smallest stands for 0.
func vio(x float64) string {
	if x < 2e-6 {
		return "0"
	}
	return strconv.FormatFloat(x, 'g', 3, 64)
}

// frontierJSON is the contract of frontier --json, version 1.
type frontierJSON struct {
	Version  int            `json:"version"`
	Scenario scenarioJSON   `json:"scenario"`
	Seeds    []uint64       `json:"seeds"`
	Kernel   string         `json:"kernel"`
	Router   string         `json:"router"`
	Curves   []curveJSON    `json:"curves"`
	Bound    *pointJSON     `json:"bound,omitempty"`
	Equal    []equalBalance `json:"equal_balance"`
	Warnings []string       `json:"warnings"`
}

type curveJSON struct {
	Family   string      `json:"family"`
	Strength string      `json:"strength,omitempty"` // the knob
	Points   []pointJSON `json:"points"`
}

type pointJSON struct {
	Spec    string                `json:"spec"`
	Value   *float64              `json:"value,omitempty"` // of the knob; absent at strength 0
	Metrics map[string]metricJSON `json:"metrics"`
}

type equalBalance struct {
	A        string      `json:"a"`
	B        string      `json:"b"`
	MaxVio   *float64    `json:"maxvio_global"`
	Affinity *metricJSON `json:"affinity_kept"` // a − b; null where the ranges do not overlap
	Error    *metricJSON `json:"output_error"`
	Reached  [2]int      `json:"seeds_reached"` // by a and b
	RangeA   [2]float64  `json:"maxvio_global_range_a"`
	RangeB   [2]float64  `json:"maxvio_global_range_b"`
}

func (f *frontier) json(p *plan) *frontierJSON {
	s := newSummary(p, f.result)
	j := &frontierJSON{Version: 1, Scenario: s.Scenario, Seeds: s.Seeds, Kernel: s.Kernel, Router: s.Router, Equal: []equalBalance{}, Warnings: s.Warnings}
	point := func(x *sim.StrategyResult) pointJSON {
		i := slices.Index(f.result.Strategies, x)
		return pointJSON{Spec: x.Traits.Spec, Metrics: s.Strategies[i].Metrics}
	}
	for i, c := range f.curves {
		curve := curveJSON{Family: c.Family}
		for _, x := range c.Points {
			y := point(x)
			if knob, value, ok := strings.Cut(f.strength(i, x), "="); ok && f.sweeps[i].strengths != nil && knob == f.sweeps[i].spec.Preset.Strength {
				curve.Strength = knob
				v, _ := strconv.ParseFloat(value, 64)
				y.Value = &v
			}
			curve.Points = append(curve.Points, y)
		}
		j.Curves = append(j.Curves, curve)
	}
	if f.bound != nil {
		y := point(f.bound)
		j.Bound = &y
	}
	for _, e := range f.pairs {
		x := equalBalance{A: e.A, B: e.B, Reached: e.Reached, RangeA: e.Range[0], RangeB: e.Range[1]}
		if e.MaxVio > 0 {
			x.MaxVio = finite(e.MaxVio)
		}
		if !e.Apart {
			x.Affinity = &metricJSON{Mean: finite(e.Affinity.Mean), Low: e.Affinity.Low, High: e.Affinity.High}
			x.Error = &metricJSON{Mean: finite(e.Error.Mean), Low: e.Error.Low, High: e.Error.High}
		}
		j.Equal = append(j.Equal, x)
	}
	return j
}

func (f *frontier) writeJSON(w io.Writer, p *plan) error {
	return encode(w, f.json(p))
}

// writeFolder writes what compare writes of the same strategies, with frontier.json and its picture in place of compare's.
func (f *frontier) writeFolder(dir string, p *plan, wall time.Duration) error {
	if err := whole.Write(filepath.Join(dir, "frontier.json"), func(w io.Writer) error { return f.writeJSON(w, p) }); err != nil {
		return err
	}
	return writeFiles(dir, p, f.result, wall, func(folder string) error {
		return plots.WriteFrontier(folder, f.result, f.curves, p.Scenario.Name)
	})
}
