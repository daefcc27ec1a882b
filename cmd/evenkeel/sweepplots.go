package main

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"evenkeel/internal/whole"
	"evenkeel/plots"
	"evenkeel/sim/stat"
	"evenkeel/sweep"
	"evenkeel/sweep/design"
)

// sweptPictures draws a sweep. Limits are of what one can read.
type sweptPictures struct {
	r       *sweep.Results
	about   plots.Sweep
	filters []string
	varied  map[string]int // values of what varies
}

const (
	mostSeries = 8
	mostPanels = 9
)

// obsoletePictures are those that an earlier sweep in the same folder may have left.
var obsoletePictures = []string{"pareto", "parallel", "effects", "search", "rungs", "generations"}

func newSweptPictures(r *sweep.Results, filters []string) *sweptPictures {
	m := r.Manifest
	// What pictures call a cell is a setting under all its seeds.
	about := fmt.Sprintf("Scenario %s. %s under %s.", m.Scenario, plural(m.Cells, "run"), plural(len(m.Seeds), "seed"))
	if len(filters) > 0 {
		about = fmt.Sprintf("Scenario %s. Of %s under %s, those with %s.", m.Scenario, plural(m.Cells, "run"), plural(len(m.Seeds), "seed"), strings.Join(filters, ", "))
	}
	if note := oneWorld(m); note != "" && len(m.Seeds) > 1 {
		about += " " + note
	}
	if chosen := outcomes(r, filters); len(chosen) > 0 {
		about += fmt.Sprintf(" The runs are chosen by what they found, %s: means and intervals are of the chosen seeds and not of the strategy.", strings.Join(chosen, " and "))
	}
	return &sweptPictures{r: r, filters: filters, about: plots.Sweep{About: about, Interval: "95 % t-interval of the mean over the seeds"}}
}

// sample is a group as pictures have it.
func sample(g *sweep.Group) plots.Sample {
	if g == nil {
		return plots.Sample{}
	}
	s := plots.Sample{N: len(g.Values), Mean: math.NaN(), Low: math.NaN(), High: math.NaN(), Floor: g.Floor}
	if s.N == 0 {
		s.N = max(1, g.Failed)
		return s
	}
	s.Without = g.Failed
	s.Mean = stat.Mean(g.Values)
	if s.N > 1 && len(g.Mixed) == 0 {
		i := stat.Student(g.Values, 0.95)
		s.Low, s.High = i.Low, i.High
	}
	return s
}

// parameters are what varies among the cells that are drawn, but for the strategy.
func (d *sweptPictures) parameters() []string {
	if d.varied == nil {
		d.varied = map[string]int{}
		for _, n := range d.r.Varied() {
			d.varied[n] = d.values(n)
		}
	}
	return slices.DeleteFunc(slices.Clone(d.r.Varied()), func(n string) bool { return n == "strategy" || d.varied[n] < 2 })
}

// without lists the strategy and all parameters, but some of them.
func (d *sweptPictures) without(names ...string) (list []string) {
	for _, n := range append([]string{"strategy"}, d.parameters()...) {
		if !slices.Contains(names, n) {
			list = append(list, n)
		}
	}
	return list
}

func (d *sweptPictures) project(metric string, rows, columns []string) (*sweptTable, error) {
	if rows == nil {
		rows = []string{}
	}
	p, err := d.r.Project(sweep.Query{Rows: rows, Columns: columns, Metric: metric, Filters: d.filters})
	if err != nil {
		return nil, err
	}
	return &sweptTable{Projection: p}, nil
}

// name is that of a picture's files.
func name(words ...string) string {
	return strings.NewReplacer("/", "-", " ", "-").Replace(strings.Join(words, "-"))
}

// response draws a metric along a parameter, a line for each strategy with its other settings. Those that do not have the parameter
// are the same everywhere.
func (d *sweptPictures) response(metric, x string) (plots.Named, error) {
	t, err := d.project(metric, d.without(x), []string{x})
	if err != nil {
		return plots.Named{}, err
	}
	f := plots.Response{Sweep: d.level(t, x), Metric: plots.MetricOf(metric)}
	f.X, f.Series = d.along(t, x, nil)
	if len(f.Series) > mostSeries {
		return plots.Named{}, fmt.Errorf("a response along %s would have %d lines: --over or --y shows one more parameter, and --filter leaves some out", x, len(f.Series))
	}
	p, err := f.Picture()
	return plots.Named{Name: name("response", metric, x), Picture: p}, err
}

// level is what a picture is of, with a sentence on the strategies of a table that do not have a parameter along which it is drawn.
func (d *sweptPictures) level(t *sweptTable, names ...string) plots.Sweep {
	about := d.about
	for _, name := range names {
		var without []string
		at, strategy := slices.Index(t.Rows, name), slices.Index(t.Rows, "strategy")
		for i, l := range t.RowLabels {
			lacks := at >= 0 && l[at] == ""
			for j, c := range t.ColumnLabels {
				lacks = lacks || at < 0 && c[0] == "" && t.Groups[i][j] != nil
			}
			if lacks && strategy >= 0 && !slices.Contains(without, l[strategy]) {
				without = append(without, l[strategy])
			}
		}
		if len(without) > 0 {
			about.About += fmt.Sprintf(" What has no %s, %s, is the same at all of its values.", name, strings.Join(without, " and "))
		}
	}
	return about
}

// along makes the lines of a table whose columns are the values of x, of the rows that keep lets pass.
func (d *sweptPictures) along(t *sweptTable, x string, keep func(labels []string) bool) (p plots.Parameter, lines []plots.Series) {
	p.Name = x
	none := -1 // the column of those that do not have the parameter
	var columns []int
	for j, l := range t.ColumnLabels {
		if l[0] == "" {
			none = j
			continue
		}
		columns = append(columns, j)
		p.Values = append(p.Values, l[0])
	}
	for i := range t.RowLabels {
		if keep != nil && !keep(t.RowLabels[i]) {
			continue
		}
		s := plots.Series{Name: joinLabels(t.Rows, t.RowLabels[i][:len(t.Rows)], ""), Bound: t.RowKinds[i] == "bound"}
		for _, j := range columns {
			if none >= 0 && t.Groups[i][none] != nil {
				s.Y = append(s.Y, sample(t.Groups[i][none]))
			} else {
				s.Y = append(s.Y, sample(t.Groups[i][j]))
			}
		}
		lines = append(lines, s)
	}
	return p, lines
}

// multiples draws a metric along x, a panel for each value of another parameter.
func (d *sweptPictures) multiples(metric, x, over string) (plots.Named, error) {
	t, err := d.project(metric, append(d.without(x, over), over), []string{x})
	if err != nil {
		return plots.Named{}, err
	}
	last := len(t.Rows) - 1
	f := plots.Multiples{Sweep: d.level(t, x, over), Metric: plots.MetricOf(metric), Over: plots.Parameter{Name: over}}
	for _, l := range t.RowLabels {
		if l[last] != "" && !slices.Contains(f.Over.Values, l[last]) {
			f.Over.Values = append(f.Over.Values, l[last])
		}
	}
	sortLabels(f.Over.Values)
	if len(f.Over.Values) > mostPanels {
		return plots.Named{}, fmt.Errorf("%s has %d values, more than panels that one can read: --filter leaves some out", over, len(f.Over.Values))
	}
	t.Rows = t.Rows[:last]
	for _, value := range f.Over.Values {
		keep := func(l []string) bool { return l[last] == value || l[last] == "" }
		var lines []plots.Series
		f.X, lines = d.along(t, x, keep)
		if len(lines) > mostSeries {
			return plots.Named{}, fmt.Errorf("a panel would have %d lines: --filter leaves some out", len(lines))
		}
		f.Panels = append(f.Panels, lines)
	}
	p, err := f.Picture()
	return plots.Named{Name: name("multiples", metric, x, over), Picture: p}, err
}

// sortLabels sorts numbers as numbers.
func sortLabels(list []string) {
	slices.SortStableFunc(list, func(a, b string) int {
		x, err1 := strconv.ParseFloat(a, 64)
		y, err2 := strconv.ParseFloat(b, 64)
		switch {
		case err1 != nil || err2 != nil:
			return 0
		case x < y:
			return -1
		case x > y:
			return 1
		}
		return 0
	})
}

// heatMap draws a metric over two parameters, a panel for each strategy with its other settings.
func (d *sweptPictures) heatMap(metric, x, y string) (plots.Named, error) {
	t, err := d.project(metric, append(d.without(x, y), y), []string{x})
	if err != nil {
		return plots.Named{}, err
	}
	last := len(t.Rows) - 1
	f := plots.HeatMap{Sweep: d.about, Metric: plots.MetricOf(metric), X: plots.Parameter{Name: x}, Y: plots.Parameter{Name: y}}
	var columns []int
	for j, l := range t.ColumnLabels {
		if l[0] != "" {
			columns = append(columns, j)
			f.X.Values = append(f.X.Values, l[0])
		}
	}
	rows := map[string]map[string]int{}
	var panels []string
	bound := map[string]bool{}
	for i, l := range t.RowLabels {
		has := slices.ContainsFunc(columns, func(j int) bool { return t.Groups[i][j] != nil })
		if l[last] == "" || !has {
			continue
		}
		if !slices.Contains(f.Y.Values, l[last]) {
			f.Y.Values = append(f.Y.Values, l[last])
		}
		panel := joinLabels(t.Rows[:last], l[:last], "")
		if rows[panel] == nil {
			rows[panel] = map[string]int{}
			panels = append(panels, panel)
			bound[panel] = t.RowKinds[i] == "bound"
		}
		rows[panel][l[last]] = i
	}
	sortLabels(f.Y.Values)
	if len(panels) > mostPanels || len(panels) == 0 {
		return plots.Named{}, fmt.Errorf("a heat map over %s and %s would have %d panels: --filter picks some", x, y, len(panels))
	}
	for _, panel := range panels {
		h := plots.HeatPanel{Name: panel, Bound: bound[panel]}
		for _, value := range f.Y.Values {
			cells := make([]plots.Sample, len(columns))
			if i, ok := rows[panel][value]; ok {
				for k, j := range columns {
					cells[k] = sample(t.Groups[i][j])
				}
			}
			h.Cells = append(h.Cells, cells)
		}
		f.Panels = append(f.Panels, h)
	}
	p, err := f.Picture()
	return plots.Named{Name: name("heat", metric, x, y), Picture: p}, err
}

// pareto draws two metrics of all settings.
func (d *sweptPictures) pareto(x, y string) (plots.Named, error) {
	about := d.about
	var streams []string
	for _, n := range d.parameters() {
		if !slices.Contains(d.r.Manifest.Knobs, n) {
			streams = append(streams, n)
		}
	}
	if len(streams) > 0 {
		about.About += " The front of all is over settings of the scenario too, " + strings.Join(streams, ", ") + ": a point may beat another by its stream, not by its strategy."
	}
	clouds, err := d.clouds(x, y, true)
	if err == nil && len(clouds) > 2*mostSeries {
		clouds, err = d.clouds(x, y, false)
	}
	if err != nil {
		return plots.Named{}, err
	}
	p, err := plots.Pareto{Sweep: about, X: plots.MetricOf(x), Y: plots.MetricOf(y), Clouds: clouds}.Picture()
	return plots.Named{Name: "pareto", Picture: p}, err
}

// clouds are the settings of each strategy, on each stream alone or on all.
func (d *sweptPictures) clouds(x, y string, alone bool) (clouds []plots.Cloud, err error) {
	tx, err := d.project(x, d.without(), []string{})
	if err != nil {
		return nil, err
	}
	ty, err := d.project(y, d.without(), []string{})
	if err != nil {
		return nil, err
	}
	at := map[string]int{}
	streams := 1 // columns that tell clouds apart: the strategy, and keys of the scenario
	for alone && streams < len(tx.Rows) && !slices.Contains(d.r.Manifest.Knobs, tx.Rows[streams]) {
		streams++
	}
	for i, l := range tx.RowLabels {
		name := joinLabels(tx.Rows[:streams], l[:streams], "")
		n, ok := at[name]
		if !ok {
			n = len(clouds)
			at[name] = n
			clouds = append(clouds, plots.Cloud{Name: name, Bound: tx.RowKinds[i] == "bound"})
		}
		clouds[n].X = append(clouds[n].X, sample(tx.Groups[i][0]))
		clouds[n].Y = append(clouds[n].Y, sample(ty.Groups[i][0]))
	}
	return clouds, nil
}

// parallel draws all settings of many parameters.
func (d *sweptPictures) parallel(metric string) (plots.Named, error) {
	t, err := d.project(metric, d.without(), []string{})
	if err != nil {
		return plots.Named{}, err
	}
	f := plots.Parallel{Sweep: d.about, Metric: plots.MetricOf(metric)}
	index := make([]map[string]int32, len(t.Rows))
	for k, n := range t.Rows {
		var values []string
		index[k] = map[string]int32{}
		for _, l := range t.RowLabels {
			if _, seen := index[k][l[k]]; !seen {
				index[k][l[k]] = 0
				values = append(values, l[k])
			}
		}
		sortLabels(values)
		for i, v := range values {
			index[k][v] = int32(i)
			if v == "" {
				values[i] = "none"
			}
		}
		f.Parameters = append(f.Parameters, plots.Parameter{Name: n, Values: values})
	}
	for i, l := range t.RowLabels {
		s := plots.Setting{Y: sample(t.Groups[i][0])}
		for k, v := range l {
			s.At = append(s.At, index[k][v])
		}
		f.Cells = append(f.Cells, s)
	}
	// A strategy that is alone is no axis.
	if len(f.Parameters) > 0 && len(f.Parameters[0].Values) == 1 {
		f.Parameters = f.Parameters[1:]
		for i := range f.Cells {
			f.Cells[i].At = f.Cells[i].At[1:]
		}
	}
	p, err := f.Picture()
	return plots.Named{Name: "parallel", Picture: p}, err
}

// effects draws what explains the variance of a metric.
func (d *sweptPictures) effects(metric string) (plots.Named, error) {
	e, err := d.r.Effects(sweep.Query{Metric: metric, Filters: d.filters})
	if err != nil {
		return plots.Named{}, err
	}
	f := plots.Effects{Sweep: d.about, Metric: plots.MetricOf(metric), Residual: plots.Effect{Name: "seeds and what is left"}}
	f.Interval = ""
	for _, t := range e.Terms {
		switch {
		case t.Name == sweep.Blocks:
			f.Blocks, f.Residual.Name = plots.Effect{Name: t.Name, Share: t.Share}, "what is left"
			continue
		case t.Name == sweep.Higher:
			t.Order = 3
		case t.Order == 0:
			f.Residual.Share += t.Share
			continue
		}
		f.Terms = append(f.Terms, plots.Effect{Name: t.Name, Order: t.Order, Share: t.Share})
	}
	p, err := f.Picture()
	return plots.Named{Name: "effects", Picture: p}, err
}

// all draws what suits a sweep: responses, maps, the front, and what a search did. What has too many lines or panels is left out,
// and why.
func (d *sweptPictures) all(dir string) (list []plots.Named, left []string) {
	metrics := reportedMetrics(d.r)
	parameters := d.parameters()
	slices.SortStableFunc(parameters, func(a, b string) int { return d.varied[b] - d.varied[a] })
	add := func(n plots.Named, err error) {
		switch {
		case err == nil:
			list = append(list, n)
		case !errors.Is(err, plots.ErrNothing):
			left = append(left, err.Error())
		}
	}
	kind, _, _ := strings.Cut(d.r.Manifest.Design, " ")
	if kind == "grid" || kind == "zip" {
		for _, axes := range d.drawn(parameters) {
			for _, metric := range metrics {
				if len(axes) == 1 {
					add(d.response(metric, axes[0]))
					continue
				}
				add(d.multiples(metric, axes[0], axes[1]))
				add(d.heatMap(metric, axes[0], axes[1]))
			}
		}
	}
	if len(parameters) > 2 && len(metrics) > 0 {
		add(d.parallel(metrics[0]))
	}
	if len(metrics) > 1 && !strings.HasPrefix(kind, "halving") { // whose runs are not equally long
		add(d.pareto(metrics[0], metrics[1]))
	}
	if len(parameters) > 1 && len(metrics) > 0 && kind == "grid" {
		add(d.effects(metrics[0]))
	}
	if path, err := sweep.ReadPath(dir); err == nil {
		add(d.search(path))
	}
	return list, left
}

// drawn are the parameters along which a sweep is drawn: each that has most values of those that meet, and with it the next. Knobs of
// different strategies never meet. With more than three parameters such pictures have too many lines.
func (d *sweptPictures) drawn(parameters []string) (list [][]string) {
	seen := map[string]bool{}
	for _, x := range parameters {
		others := slices.DeleteFunc(slices.Clone(parameters), func(n string) bool { return n == x || !d.meet(n, x) })
		if seen[x] || len(others) > 2 {
			continue
		}
		axes := append([]string{x}, others[:min(1, len(others))]...)
		list = append(list, axes)
		for _, n := range parameters {
			if !slices.ContainsFunc(axes, func(a string) bool { return !d.meet(a, n) }) {
				seen[n] = true
			}
		}
	}
	return list
}

// meet reports whether two parameters may be those of one cell.
func (d *sweptPictures) meet(a, b string) bool {
	knobs := d.r.Manifest.Knobs
	x, _, _ := strings.Cut(a, ".")
	y, _, _ := strings.Cut(b, ".")
	return x == y || !slices.Contains(knobs, a) || !slices.Contains(knobs, b)
}

// values is how many values a parameter has among the cells.
func (d *sweptPictures) values(name string) (n int) {
	t, err := d.project(d.r.Measured()[0], []string{name}, []string{})
	if err != nil {
		return 0
	}
	for _, l := range t.RowLabels {
		if l[0] != "" {
			n++
		}
	}
	return n
}

// writeSweptPictures draws into the folder plots of a sweep.
func writeSweptPictures(dir string) (files, left []string, err error) {
	r, err := sweep.OpenResults(dir)
	if err != nil {
		return nil, nil, err
	}
	defer r.Close()
	if len(r.Measured()) == 0 {
		return nil, nil, nil
	}
	list, left := newSweptPictures(r, nil).all(dir)
	if len(list) == 0 {
		return nil, left, nil
	}
	folder := filepath.Join(dir, "plots")
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return nil, nil, whole.Located(err)
	}
	files, err = plots.Write(folder, list, obsoletePictures...)
	return files, left, err
}

// search draws the path of a search: of one objective, of several, or of successive halving.
func (d *sweptPictures) search(p *sweep.Path) (plots.Named, error) {
	var objectives []sweep.Objective
	for _, text := range p.Objectives {
		o, err := sweep.ParseObjective(text)
		if err != nil {
			return plots.Named{}, err
		}
		objectives = append(objectives, o)
	}
	if len(objectives) == 0 {
		return plots.Named{}, errors.New("the search has no objective")
	}
	var tables []*sweptTable
	var rows []map[string]int
	for _, o := range objectives {
		t, err := d.project(o.Metric, p.Axes, []string{})
		if err != nil {
			return plots.Named{}, err
		}
		at := map[string]int{}
		for i, l := range t.RowLabels {
			at[settingKey(l)] = i
		}
		tables, rows = append(tables, t), append(rows, at)
	}
	find := func(o int, point []string, steps int) plots.Sample {
		if len(point) < len(p.Axes) {
			point = append(slices.Clone(point), strconv.Itoa(steps))
		}
		i, ok := rows[o][settingKey(point)]
		if !ok {
			return plots.Sample{N: 1, Mean: math.NaN(), Low: math.NaN(), High: math.NaN()}
		}
		return sample(tables[o].Groups[i][0])
	}
	switch {
	case len(objectives) > 1:
		f := plots.Generations{Sweep: d.about, X: aimed(objectives[0]), Y: aimed(objectives[1]), Fronts: fronts(p, find)}
		picture, err := f.Picture()
		return plots.Named{Name: "generations", Picture: picture}, err
	case strings.HasPrefix(p.Design, "halving"):
		return d.rungs(p, objectives[0], find)
	}
	f := plots.Search{Sweep: d.about, Metric: aimed(objectives[0])}
	cells := 0
	for n, g := range p.Generations {
		for _, t := range g.Trials {
			cells += cmp.Or(t.Seeds, len(d.r.Manifest.Seeds))
			f.Trials = append(f.Trials, plots.Trial{Cells: cells, Generation: n + 1, Y: find(0, t.Point, t.Steps)})
		}
	}
	picture, err := f.Picture()
	return plots.Named{Name: "search", Picture: picture}, err
}

// fronts are the cells of each generation, with the front of both metrics that those before it had found: a search loses nothing.
func fronts(p *sweep.Path, find func(o int, point []string, steps int) plots.Sample) (list []plots.Generation) {
	var trials []design.Trial
	var values [][]float64 // each to be made small
	for n, g := range p.Generations {
		trials = append(trials, g.Trials...)
		for _, row := range g.Values {
			values = append(values, row[:min(len(row), 2)])
		}
		x := plots.Generation{Number: n + 1}
		for _, t := range trials {
			x.X, x.Y = append(x.X, find(0, t.Point, t.Steps)), append(x.Y, find(1, t.Point, t.Steps))
		}
		list = append(list, x)
		front := design.Front(values)
		for k, i := range front { // rising, so that nothing is overwritten before it is read
			trials[k], values[k] = trials[i], values[i]
		}
		trials, values = trials[:len(front)], values[:len(front)]
	}
	return list
}

// aimed is the metric of an objective, with the side that is to be better.
func aimed(o sweep.Objective) plots.Metric { return plots.MetricOf(o.Metric).Aimed(o.Larger) }

// rungs draws a successive halving.
func (d *sweptPictures) rungs(p *sweep.Path, o sweep.Objective, find func(o int, point []string, steps int) plots.Sample) (plots.Named, error) {
	f := plots.Rungs{Sweep: d.about, Metric: aimed(o), Budget: plots.Parameter{Name: "steps and seeds"}}
	at := map[string]int{}
	for n, g := range p.Generations {
		if len(g.Trials) > 0 {
			b := g.Trials[0].Budget
			f.Budget.Values = append(f.Budget.Values, fmt.Sprintf("%d×%d", b.Steps, max(1, b.Seeds)))
		}
		for i, t := range g.Trials {
			key := strings.Join(t.Point, " ")
			k, ok := at[key]
			if !ok {
				k = len(f.Entrants)
				at[key] = k
				f.Entrants = append(f.Entrants, plots.Series{Name: pointText(p.Axes, t.Point), Y: make([]plots.Sample, len(p.Generations))})
			}
			// Later rungs may have run more seeds of the same steps: what this one saw is in the path.
			s := plots.Sample{N: max(1, t.Seeds), Mean: math.NaN(), Low: math.NaN(), High: math.NaN(), Floor: find(0, t.Point, t.Steps).Floor}
			if row := g.Values[i]; row != nil {
				s.Mean = row[0]
				if o.Larger {
					s.Mean = -row[0]
				}
			}
			f.Entrants[k].Y[n] = s
		}
	}
	picture, err := f.Picture()
	return plots.Named{Name: "rungs", Picture: picture}, err
}

// settingKey is what values have in common that are written otherwise.
func settingKey(values []string) string {
	var b strings.Builder
	for _, v := range values {
		if x, err := strconv.ParseFloat(v, 64); err == nil {
			v = strconv.FormatFloat(x, 'g', -1, 64)
		}
		b.WriteString(v + "\x00")
	}
	return b.String()
}
