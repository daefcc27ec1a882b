package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"

	"evenkeel/metrics"
	"evenkeel/scenarios"
	"evenkeel/sweep"
	"evenkeel/sweep/design"
)

// adapt runs a sweep whose points depend on what earlier ones found.
func (q *sweepRequest) adapt(ctx context.Context, b sweep.Base, axes []design.Axis, stdin io.Reader, stdout, stderr io.Writer) error {
	kind, size, _ := strings.Cut(q.design, ":")
	switch {
	case q.dryRun || q.planOnly:
		return fmt.Errorf("--design %s decides what to run by what it finds, so that there is no plan beforehand: leave out --dry-run and --plan-only", kind)
	case q.extend:
		return fmt.Errorf("--design %s goes on from its folder without --extend, and another search needs another folder: leave it out", kind)
	case len(axes) == 0:
		return fmt.Errorf("--design %s has nothing to choose: name what varies, such as --vary loss-free.rate=log:1e-4..1e-1", kind)
	case len(b.Strategies) > 1:
		return fmt.Errorf("--design %s searches for the best settings of one strategy, and %d are named: sweep each alone", kind, len(b.Strategies))
	}
	s, err := scenarios.Load(b.Scenario, b.Settings, b.Layer)
	if err != nil {
		return err
	}
	if b.Seeds == nil {
		b.Seeds = s.Seeds
	}
	session := sweep.Session{Base: b, Axes: names(axes), Options: sweep.Options{Workers: q.workers, Memory: knownMemory()}}
	if err := session.Check(); err != nil {
		return fmt.Errorf("--design %s: %w", kind, err)
	}
	if kind == "ask" {
		if size != "" || len(q.objectives) > 0 {
			return errors.New("--design ask answers with every metric: leave out its size and --objective")
		}
		session.Design, session.Steps, session.Keep = q.words("ask", axes), true, true
		return q.serve(ctx, session, axes, s.Steps, stdin, stdout, stderr)
	}
	var objectives []sweep.Objective
	for _, text := range q.objectives {
		o, err := sweep.ParseObjective(text)
		if err != nil {
			return err
		}
		objectives = append(objectives, o)
	}
	search, err := q.search(kind, size, axes, len(objectives), s.Steps, len(b.Seeds))
	if err != nil {
		return err
	}
	session.Steps = kind == "halving"
	words := q.words(q.design, axes)
	for _, o := range objectives {
		words += " " + o.String()
	}
	session.Design = words
	run := sweep.NewSession(q.out, session)
	defer run.Close()
	begin := time.Now()
	number := 0
	generations, err := run.Search(ctx, search, objectives, func(g design.Generation) {
		number++
		if !q.quiet && !q.json {
			fmt.Fprintln(stderr, generationLine(number, names(axes), g, objectives))
		}
	})
	if err != nil {
		return stopped(err, q.out)
	}
	err = q.finish(ctx, run.Plan, sweep.Outcome{Cells: run.Plan.Cells(), Ran: run.Ran}, sweep.Found{}, time.Since(begin), stdout, stderr)
	if err != nil || q.quiet || q.json {
		return err
	}
	if len(objectives) == 1 {
		return writeBest(stdout, names(axes), generations, objectives[0], terminalWidth(stdout))
	}
	return writeFront(stdout, names(axes), generations, objectives, terminalWidth(stdout))
}

// writeBest prints the best setting that was tried: of a halving, the best of the last rung, which alone ran all steps and seeds.
func writeBest(w io.Writer, axes []string, generations []design.Generation, o sweep.Objective, width int) error {
	var best design.Trial
	least, tried := math.Inf(1), map[string]bool{}
	for _, g := range generations {
		if len(g.Trials) > 0 && g.Trials[0].Budget != best.Budget {
			least = math.Inf(1)
		}
		for i, t := range g.Trials {
			tried[strings.Join(t.Point, "\x00")] = true
			if row := g.Values[i]; row != nil && row[0] < least {
				best, least = t, row[0]
			}
		}
	}
	if math.IsInf(least, 1) {
		return nil // the report says that nothing ran
	}
	if o.Larger {
		least = -least
	}
	_, err := fmt.Fprintln(w, "\n"+wrap(fmt.Sprintf("The best, of %s that were tried: %s, with a mean %s of %.4g. Of settings that differ by noise alone it is the luckiest: confirm it with fresh seeds.",
		plural(len(tried), "setting"), pointText(axes, best.Point), o.Metric, least), width))
	return err
}

// pointText is a point of a search with the names of its axes.
func pointText(axes, point []string) string {
	list := make([]string, len(point))
	for i, name := range shortNames(axes[:len(point)]) {
		list[i] = name + "=" + brief(point[i])
	}
	return strings.Join(list, " ")
}

// writeFront prints the settings that no other one beats in all objectives.
func writeFront(w io.Writer, axes []string, generations []design.Generation, objectives []sweep.Objective, width int) error {
	var trials []design.Trial
	var values [][]float64
	seen := map[string]bool{}
	for _, g := range generations {
		for i, t := range g.Trials {
			if key := strings.Join(t.Point, "\x00"); !seen[key] {
				seen[key] = true
				trials, values = append(trials, t), append(values, g.Values[i])
			}
		}
	}
	front := design.Front(values)
	slices.SortStableFunc(front, func(a, b int) int { return cmp.Compare(values[a][0], values[b][0]) })
	t := newTable()
	header := table.Row{}
	for _, name := range shortNames(axes) {
		header = append(header, name)
	}
	for _, o := range objectives {
		header = append(header, o.Metric)
	}
	t.AppendHeader(header)
	for _, i := range front {
		row := table.Row{}
		for _, v := range trials[i].Point {
			row = append(row, brief(v))
		}
		for j, o := range objectives {
			x := values[i][j]
			if o.Larger {
				x = -x
			}
			row = append(row, strconv.FormatFloat(x, 'g', 4, 64))
		}
		t.AppendRow(row)
	}
	head := fmt.Sprintf("The front, of %d settings that were tried, by their means (of settings that differ by noise alone the luckiest are on it):", len(trials))
	_, err := fmt.Fprintf(w, "\n%s\n%s\n", wrap(head, width), rendered(t))
	return err
}

// search makes that of --design.
func (q *sweepRequest) search(kind, size string, axes []design.Axis, objectives, steps, seeds int) (design.Search, error) {
	if objectives == 0 {
		return nil, fmt.Errorf("--design %s needs something to make better: name it by --objective, such as --objective maxvio_global", kind)
	}
	if kind != "nsga2" && objectives > 1 {
		return nil, fmt.Errorf("--design %s has one objective, and %d are named: --design nsga2:20x10 finds the front of several", kind, objectives)
	}
	if kind == "nsga2" {
		population, generations, ok := strings.Cut(size, "x")
		p, err1 := strconv.Atoi(population)
		g, err2 := strconv.Atoi(generations)
		if !ok || err1 != nil || err2 != nil {
			return nil, fmt.Errorf("--design %s: want nsga2:PxG, such as nsga2:20x10 for 10 generations of 20", q.design)
		}
		return orNil(design.NewNSGA2(axes, design.NSGA2Options{Objectives: objectives, Population: p, Generations: g, Seed: q.designSeed}))
	}
	n, err := strconv.Atoi(size)
	if err != nil || n < 1 {
		return nil, fmt.Errorf("--design %s: want %s:N, such as %s:81", q.design, kind, kind)
	}
	if kind == "cma-es" {
		return orNil(design.NewCMAES(axes, design.CMAESOptions{Trials: n, Seed: q.designSeed}))
	}
	d, err := design.ParseDesign("halton:"+size, q.designSeed)
	if err != nil {
		return nil, err
	}
	points, err := d.Sample(axes)
	if err != nil {
		return nil, err
	}
	// The first rung is short and of one seed: a ninth of the steps.
	least := design.Budget{Steps: max(1, steps/9), Seeds: 1}
	return orNil(design.NewHalving(slices.Collect(points), design.HalvingOptions{Min: least, Max: design.Budget{Steps: steps, Seeds: seeds}}))
}

// orNil keeps a nil pointer from becoming a search.
func orNil[S design.Search](s S, err error) (design.Search, error) {
	if err != nil {
		return nil, fmt.Errorf("--design: %w", err)
	}
	return s, nil
}

// generationLine says what a generation found.
func generationLine(number int, axes []string, g design.Generation, objectives []sweep.Objective) string {
	line := fmt.Sprintf("generation %d, %s", number, plural(len(g.Trials), "trial"))
	if b := g.Trials[0].Budget; b.Steps > 0 {
		line += fmt.Sprintf(" of %s and %s", plural(b.Steps, "step"), plural(max(1, b.Seeds), "seed"))
	}
	for j, o := range objectives {
		best, failed := -1, 0
		for i, row := range g.Values {
			switch {
			case row == nil:
				failed++
			case best < 0 || row[j] < g.Values[best][j]:
				best = i
			}
		}
		if best < 0 {
			return line + ": none has figures"
		}
		x := g.Values[best][j]
		if o.Larger {
			x = -x
		}
		line += fmt.Sprintf("; best %s %.4g at %s", o.Metric, x, pointText(axes, g.Trials[best].Point))
		if failed > 0 && j == len(objectives)-1 {
			line += fmt.Sprintf("; %d without figures", failed)
		}
	}
	return line
}

// serve answers trials that another program chooses.
func (q *sweepRequest) serve(ctx context.Context, s sweep.Session, axes []design.Axis, steps int, stdin io.Reader, stdout, stderr io.Writer) error {
	if steps == 0 {
		steps = 500
	}
	run := sweep.NewSession(q.out, s)
	defer run.Close()
	err := design.Serve(ctx, stdin, stdout, axes, func(ctx context.Context, t design.Trial) (map[string]design.Value, error) {
		if t.Steps == 0 {
			t.Steps = steps
		}
		if t.Seeds > len(s.Base.Seeds) {
			return nil, fmt.Errorf("seeds is %d: the sweep has %d, see --seeds", t.Seeds, len(s.Base.Seeds))
		}
		found, err := run.Evaluate(ctx, []design.Trial{t})
		if err != nil {
			return nil, err
		}
		if found[0].Failed != "" {
			return nil, errors.New(found[0].Failed)
		}
		return meansOf(found[0]), nil
	})
	if err != nil {
		return stopped(err, q.out)
	}
	if run.Plan == nil {
		return nil
	}
	_, err = tabulate(ctx, q.out, run.Plan, q.csv, newProgress(stderr, true))
	return err
}

// meansOf are the metrics of a trial with their intervals over the seeds.
func meansOf(r sweep.Replicates) map[string]design.Value {
	list := map[string][]float64{}
	for _, values := range r.Values {
		for key, x := range values {
			list[key] = append(list[key], x)
		}
	}
	means := map[string]design.Value{}
	for key, values := range list {
		if len(values) == len(r.Values) {
			v := design.Value{HalfWidth: math.NaN()}
			var low, high *float64
			if v.Mean, low, high = metrics.MeanInterval(values); low != nil {
				v.HalfWidth = float64(*high-*low) / 2
			}
			means[key] = v
		}
	}
	return means
}
