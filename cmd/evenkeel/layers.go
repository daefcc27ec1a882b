package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"evenkeel/internal/vec"
	"evenkeel/internal/whole"
	"evenkeel/metrics"
	"evenkeel/sim"
)

// layerRun is the comparison on one layer of a trace.
type layerRun struct {
	layer   int
	result  *sim.Result // without its runs
	summary *summary
}

// layerList reads the flag --layers, makes sure that the stream is a trace which has them, and opens that.
func (q *request) layerList(flags *pflag.FlagSet) ([]int, error) {
	for _, other := range []string{"layer", "from"} {
		if flags.Changed(other) {
			return nil, fmt.Errorf("--layers runs several layers, each anew: leave out --%s", other)
		}
	}
	s, err := q.stream(flags)
	if err != nil {
		return nil, err
	}
	if s.Trace == nil {
		return nil, fmt.Errorf("--layers picks layers of a trace, and scenario %s is not one", s.Name)
	}
	if q.trace, err = s.OpenTrace(); err != nil {
		return nil, err
	}
	var list []int
	there := s.Facts().Layers
	if q.layers == "all" {
		for l := range there {
			list = append(list, l)
		}
		return list, nil
	}
	for _, text := range strings.Split(q.layers, ",") {
		l, err := strconv.Atoi(strings.TrimSpace(text))
		switch {
		case err != nil:
			return nil, fmt.Errorf("--layers is %q: write all, or layers such as 0,3,5", q.layers)
		case l < 0 || l >= there:
			return nil, fmt.Errorf("--layers %s: layer %d does not exist, %s has layers 0 to %d", q.layers, l, s.Trace.File, there-1)
		case slices.Contains(list, l):
			return nil, fmt.Errorf("--layers %s: layer %d is asked for twice", q.layers, l)
		}
		list = append(list, l)
	}
	return list, nil
}

// onLayer plans the comparison on one layer and checks all that can be known before its first step.
func (q *request) onLayer(layer int, flags *pflag.FlagSet) (*plan, *sim.Config, error) {
	one := *q
	one.layer = layer
	p, err := one.plan(flags)
	if err != nil {
		return nil, nil, err
	}
	c, err := p.Config(q.workers)
	if err == nil {
		err = checkMemory(c)
	}
	if err == nil {
		err = sim.Check(c)
	}
	return p, c, err
}

// runLayers runs the comparison on each layer. One layer is in memory at a time, so every layer is read twice: all are
// checked before the first step.
func (q *request) runLayers(ctx context.Context, flags *pflag.FlagSet, stdout, stderr io.Writer) error {
	layers, err := q.layerList(flags)
	if q.trace != nil {
		defer q.trace.Close()
	}
	if err != nil {
		return err
	}
	v, err := newView(q.columns, q.sort)
	if err != nil {
		return err
	}
	if q.workers < 0 {
		return fmt.Errorf("--workers is %d: it must be at least 1", q.workers)
	}
	for _, l := range layers {
		if _, _, err := q.onLayer(l, flags); err != nil {
			return err
		}
	}
	folder := func(layer int) string {
		digits := len(strconv.Itoa(slices.Max(layers)))
		return filepath.Join(q.out, fmt.Sprintf("layer-%0*d", digits, layer))
	}
	if q.out != "" {
		for _, l := range layers {
			if err := prepareFolder(folder(l)); err != nil {
				return err
			}
		}
	}
	progress := newProgress(stderr, q.quiet || q.json)
	r := layersReport{view: v}
	begin := time.Now()
	for i, l := range layers {
		p, c, err := q.onLayer(l, flags)
		if err != nil {
			return err
		}
		c.Progress = func(done, total int) { progress.show(i*total+done, len(layers)*total) }
		started := time.Now()
		result, err := sim.Compare(ctx, c)
		progress.clear()
		if errors.Is(err, context.Canceled) {
			break
		}
		if err != nil {
			return failed(err)
		}
		if q.out != "" {
			if err := writeFolder(folder(l), p, result, time.Since(started)); err != nil {
				return failed(err)
			}
		}
		r.add(p, l, result)
		if ctx.Err() != nil {
			break
		}
	}
	if q.out != "" {
		for _, l := range layers {
			removeEmpty(folder(l))
		}
		os.Remove(q.out)
	}
	if len(r.runs) == 0 {
		return failure{exitInterrupted, fmt.Errorf("%w before any seed of a layer had finished: nothing was written", errInterrupted)}
	}
	if q.json {
		err = r.writeJSON(stdout)
	} else {
		err = r.print(stdout, time.Since(begin), terminalWidth(stdout), q.quiet)
	}
	if err != nil {
		return failed(err)
	}
	if q.quiet && !q.json {
		for _, n := range r.notes(warnings) {
			fmt.Fprintln(stderr, n)
		}
	}
	if q.out != "" {
		if err := whole.WriteBytes(filepath.Join(q.out, "layers.csv"), r.csv()); err != nil {
			return failed(err)
		}
		if !q.json && !q.quiet {
			fmt.Fprintf(stdout, "\nWritten to %s: layers.csv, and a folder for each layer.\n", q.out)
		}
	}
	if ctx.Err() != nil {
		return failure{exitInterrupted, fmt.Errorf("%w: the figures cover %d of %d layers", errInterrupted, len(r.runs), len(layers))}
	}
	return nil
}

// layersReport is the comparison on all layers.
type layersReport struct {
	view view
	head string
	left []refusal // by every layer alike, since they have one shape
	runs []layerRun
}

// add keeps what tables need of a layer, and nothing of its tokens and steps.
func (r *layersReport) add(p *plan, layer int, x *sim.Result) {
	if r.head == "" {
		whole := *x
		whole.Facts.Layers = 1 // the layers are named by the columns
		r.head = heading(p, &whole)
		r.left = p.left
	}
	s := newSummary(p, x)
	for _, strategy := range x.Strategies {
		strategy.Runs = nil
	}
	r.runs = append(r.runs, layerRun{layer, x, s})
}

// across are a figure's values by layer, NaN where a layer lacks it, and what is said of all.
type across struct {
	values         []float64
	p5, p50, p95   float64
	highest, layer int // place of the highest value, and its layer; −1 if there is none
}

func (r *layersReport) across(of func(run layerRun) float64) across {
	a := across{highest: -1}
	for i, run := range r.runs {
		v := of(run)
		a.values = append(a.values, v)
		if !math.IsNaN(v) && (a.highest < 0 || v > a.values[a.highest]) {
			a.highest, a.layer = i, run.layer
		}
	}
	a.p5, a.p50, a.p95 = metrics.Quantile(a.values, 0.05), metrics.Quantile(a.values, 0.5), metrics.Quantile(a.values, 0.95)
	return a
}

// metricOf is the mean of a metric of the strategy at a place, NaN where there is none.
func metricOf(place int, metric string) func(layerRun) float64 {
	return func(run layerRun) float64 {
		if e, ok := run.result.Strategies[place].Metrics[metric]; ok {
			return e.Mean
		}
		return math.NaN()
	}
}

// order is that of the strategies in tables: as asked for, or by the median across layers of --sort, smallest first.
func (r *layersReport) order() []int {
	places := make([]int, len(r.runs[0].result.Strategies))
	for i := range places {
		places[i] = i
	}
	if r.view.sort == "" {
		return places
	}
	value := func(place int) float64 {
		v := r.across(metricOf(place, r.view.sort)).p50
		switch {
		case math.IsNaN(v):
			return math.Inf(1)
		case r.view.sort == "affinity_kept": // shown as lost
			return -v
		}
		return v
	}
	slices.SortStableFunc(places, func(a, b int) int { return cmp.Compare(value(a), value(b)) })
	return places
}

// columns are the metrics asked for, or else balance and its price as far as the strategies have them.
func (r *layersReport) columns() (list []column) {
	if r.view.columns != nil {
		return r.view.columns
	}
	for _, c := range columns {
		has := func(s *sim.StrategyResult) bool { _, ok := s.Metrics[c.metric]; return ok }
		if slices.Contains([]string{"maxvio_global", "affinity_kept", "task_loss"}, c.metric) && slices.ContainsFunc(r.runs[0].result.Strategies, has) {
			list = append(list, c)
		}
	}
	return list
}

// table is one metric: a row for each strategy, a column for each layer that fits, and percentiles across layers.
func (r *layersReport) table(c column, width int) string {
	header := func(n int) []string {
		h := []string{"strategy"}
		for _, run := range r.runs[:n] {
			h = append(h, strconv.Itoa(run.layer))
		}
		return append(h, "p5", "p50", "p95", "highest (layer)")
	}
	row := func(n int, name string, of func(layerRun) float64) []string {
		a := r.across(func(run layerRun) float64 { return c.shown(of(run)) })
		cell := func(v float64) string {
			if math.IsNaN(v) {
				return "-"
			}
			return figure(c.format, v)
		}
		cells := []string{name}
		for _, v := range a.values[:n] {
			cells = append(cells, cell(v))
		}
		worst := "-"
		if a.highest >= 0 {
			worst = fmt.Sprintf("%s (%d)", cell(a.values[a.highest]), a.layer)
		}
		return append(cells, cell(a.p5), cell(a.p50), cell(a.p95), worst)
	}
	for n := len(r.runs); ; n-- {
		var rows [][]string
		for _, place := range r.order() {
			rows = append(rows, row(n, label(r.runs[0].result.Strategies[place]), metricOf(place, c.metric)))
		}
		if c.floor {
			rows = append(rows, row(n, "sampling floor", func(run layerRun) float64 { return floorOf(run.result, c.metric) }))
		}
		text := gridText(1, header(n), rows)
		if n > 0 && widest(text) > width {
			continue
		}
		if hidden := len(r.runs) - n; hidden > 0 {
			text += wrap(fmt.Sprintf("%s not shown in %d columns; --json, --out and a wider terminal have them.", plural(hidden, "layer"), width), width) + "\n"
		}
		return text
	}
}

// floorOf is the sampling floor of a metric, NaN where no strategy has one.
func floorOf(r *sim.Result, metric string) float64 {
	for _, s := range r.Strategies {
		if e, ok := s.Metrics[metric]; ok && e.Floor != nil {
			return *e.Floor
		}
	}
	return math.NaN()
}

// layers says which layers were run: the ends of a row of them, or all.
func (r *layersReport) layers() string {
	var names []string
	row := true
	for i, run := range r.runs {
		names = append(names, strconv.Itoa(run.layer))
		row = row && (i == 0 || run.layer == r.runs[i-1].layer+1)
	}
	if len(names) == 1 {
		return "Layer " + names[0] + "."
	}
	list := strings.Join(names, ", ")
	if row && len(names) > 2 {
		list = names[0] + " to " + names[len(names)-1]
	}
	return "Layers " + list + ", each with the same strategies and seeds."
}

func (r *layersReport) print(w io.Writer, wall time.Duration, width int, quiet bool) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n", wrap(r.head+" "+r.layers(), width))
	for _, c := range r.columns() {
		fmt.Fprintf(&b, "\n%s, by layer\n%s", strings.ReplaceAll(c.title, "\n", " "), r.table(c, width))
	}
	b.WriteString(leftOut(r.left, width))
	if !quiet {
		b.WriteString("\n" + wrap(legend(r.runs[0].result, false)+" Figures are means over seeds; their intervals are in --json and --out. Percentiles are across layers.", width) + "\n")
		for _, n := range r.notes(notes) {
			b.WriteString(wrap("- "+n, width) + "\n")
		}
		fmt.Fprintf(&b, "%.1f s, kernel %s.\n", wall.Seconds(), vec.Kernel())
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// notes are those of all layers, each once, with the layers to which it belongs where these are not all. Those that differ in
// their numbers alone are one, with the range of each.
func (r *layersReport) notes(of func(*sim.Result) []string) (list []string) {
	groups, order := map[string]*layerNote{}, []string{}
	for _, run := range r.runs {
		seen := map[string]int{} // in this layer, so that no two of its notes are one
		for _, n := range of(run.result) {
			words := strings.Fields(n)
			key := strings.Join(withoutNumbers(words), " ")
			seen[key]++
			key += strings.Repeat(" ", seen[key])
			if groups[key] == nil {
				groups[key], order = &layerNote{low: words, high: slices.Clone(words)}, append(order, key)
			}
			groups[key].add(words, run.layer)
		}
	}
	for _, key := range order {
		text := groups[key].text()
		if in := groups[key].layers; len(in) < len(r.runs) {
			text = fmt.Sprintf("%s (layer %s)", text, strings.Join(in, ", "))
		}
		list = append(list, text)
	}
	return list
}

// layerNote is a note of several layers, word by word with the lowest and the highest numbers.
type layerNote struct{ low, high, layers []string }

func (n *layerNote) add(words []string, layer int) {
	for i, w := range words {
		v, ok := numberOf(w)
		if low, _ := numberOf(n.low[i]); ok && v < low {
			n.low[i] = w
		}
		if high, _ := numberOf(n.high[i]); ok && v > high {
			n.high[i] = w
		}
	}
	n.layers = append(n.layers, strconv.Itoa(layer))
}

func (n *layerNote) text() string {
	words := slices.Clone(n.low)
	for i, high := range n.high {
		if high != words[i] {
			words[i] = strings.TrimRight(words[i], marks) + " to " + strings.TrimLeft(high, "(")
		}
	}
	return strings.Join(words, " ")
}

const marks = ",.;:)%" // that may follow a number

// numberOf reads a word that is a number, as the values in a strategy's name are not.
func numberOf(word string) (float64, bool) {
	v, err := strconv.ParseFloat(strings.TrimRight(strings.TrimPrefix(word, "("), marks), 64)
	return v, err == nil
}

// withoutNumbers has what is around a number in its place.
func withoutNumbers(words []string) (list []string) {
	for _, w := range words {
		if _, ok := numberOf(w); ok {
			w = strings.Map(func(c rune) rune {
				if strings.ContainsRune("("+marks, c) && c != '.' {
					return c
				}
				return -1
			}, w) + "#"
		}
		list = append(list, w)
	}
	return list
}

// layerSummary is the summary of a layer.
type layerSummary struct {
	Layer int `json:"layer"`
	*summary
}

func (r *layersReport) writeJSON(w io.Writer) error {
	var list []layerSummary
	for _, run := range r.runs {
		list = append(list, layerSummary{run.layer, run.summary})
	}
	return encode(w, list)
}

// csv has one row for each strategy and metric: the mean in every layer, and percentiles across layers.
func (r *layersReport) csv() []byte {
	header := []string{"spec", "metric"}
	for _, run := range r.runs {
		header = append(header, "layer_"+strconv.Itoa(run.layer))
	}
	return csvText(append(header, "p5", "p50", "p95", "highest", "highest_layer"), func(write func(...string)) {
		for place, s := range r.runs[0].result.Strategies {
			for _, metric := range sim.MetricKeys() {
				a := r.across(metricOf(place, metric))
				if a.highest < 0 {
					continue
				}
				row := []string{s.Traits.Spec, metric}
				for _, v := range a.values {
					row = append(row, number(v))
				}
				write(append(row, number(a.p5), number(a.p50), number(a.p95), number(a.values[a.highest]), strconv.Itoa(a.layer))...)
			}
		}
	})
}
