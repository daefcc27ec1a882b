package sweep

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"evenkeel/internal/nearest"
	"evenkeel/sim"
	"evenkeel/sweep/design"
)

// Objective is a metric that a search makes small, or large.
type Objective struct {
	Metric string
	Larger bool // is better
}

// ParseObjective reads a metric, to be made better, or min:METRIC or max:METRIC.
func ParseObjective(text string) (o Objective, err error) {
	way, metric, ok := strings.Cut(text, ":")
	if !ok {
		metric = text
	} else if way != "min" && way != "max" {
		return o, fmt.Errorf("--objective %s: want a metric, such as maxvio_global, or min:METRIC or max:METRIC", text)
	}
	if keys := sim.MetricKeys(); !slices.Contains(keys, metric) {
		return o, fmt.Errorf("--objective %s: there is no metric %q%s: the metrics are %s", text, metric, nearest.Hint(metric, keys), strings.Join(keys, ", "))
	}
	larger, known := sim.LargerIsBetter(metric)
	if !ok && !known {
		return o, fmt.Errorf("--objective %s: neither more nor less of it is better as such: write min:%s or max:%s", text, metric, metric)
	}
	return Objective{metric, way == "max" || !ok && larger}, nil
}

// String is the objective as ParseObjective reads it.
func (o Objective) String() string {
	if o.Larger {
		return "max:" + o.Metric
	}
	return "min:" + o.Metric
}

// Adaptive is a sweep whose points depend on what earlier ones found.
type Adaptive struct {
	Base       Base // with one strategy
	Axes       []string
	Design     string // in words: all that decides which points are asked for
	Search     design.Search
	Objectives []Objective
	Options    Options
	// Generation is told of each generation when its values are there; it may be nil.
	Generation func(number int, g design.Generation)
}

// SearchFile holds the generations of a search and their values, each to be made small.
const SearchFile = "search.json"

// Run asks, runs and tells until the search is over, in a folder that Hold gave for the plan of the first generation. It returns the
// plan of all. A run that was stopped goes on: what it asks for again is stored already.
func (a *Adaptive) Run(ctx context.Context, dir string) (*Plan, []design.Generation, error) {
	var points []Point
	var generations []design.Generation
	var p *Plan
	var folder *Folder
	defer func() {
		if folder != nil {
			folder.Release()
		}
	}()
	for trials := a.Search.Ask(); len(trials) > 0; trials = a.Search.Ask() {
		for _, t := range trials {
			points = append(points, a.point(t))
		}
		axes := a.Axes
		if trials[0].Steps > 0 {
			axes = append(slices.Clone(axes), "steps")
		}
		var pairs [][2]int32
		var err error
		if p, pairs, err = newPlan(a.Base, axes, a.Design, slices.Values(points)); err != nil {
			return nil, nil, err
		}
		if folder == nil {
			folder, err = Hold(dir, p, Grow, false)
		} else {
			err = folder.enter(p, Grow)
		}
		if err != nil {
			return nil, nil, err
		}
		values, err := a.evaluate(ctx, dir, p, pairs[len(pairs)-len(trials):], trials)
		if err != nil {
			return p, generations, err
		}
		if err := a.Search.Tell(values); err != nil {
			return p, generations, err
		}
		generations = append(generations, design.Generation{Trials: trials, Values: values})
		if a.Generation != nil {
			a.Generation(len(generations), generations[len(generations)-1])
		}
	}
	return p, generations, writeGenerations(dir, generations)
}

// point is a trial as a point of the plan. Where steps are the search's, they are the last axis.
func (a *Adaptive) point(t design.Trial) Point {
	p := Point{Values: t.Point, Seeds: t.Seeds}
	if t.Steps > 0 {
		p.Values = append(slices.Clone(p.Values), strconv.Itoa(t.Steps))
	}
	return p
}

// evaluate runs what is missing of a plan and returns the objectives of some of its pairs, nil for one without figures.
func (a *Adaptive) evaluate(ctx context.Context, dir string, p *Plan, pairs [][2]int32, trials []design.Trial) ([][]float64, error) {
	s, err := Open(dir, p, Shard{})
	if err != nil {
		return nil, err
	}
	_, err = Run(ctx, p, s, a.Options)
	if closing := s.Close(); err == nil {
		err = closing
	}
	if err != nil {
		return nil, err
	}
	c, err := newCollector(dir, p)
	if err != nil {
		return nil, err
	}
	defer c.close()
	values := make([][]float64, len(trials))
	for i, pair := range pairs {
		if values[i], err = c.means(pair, trials[i].Seeds, a.Objectives); err != nil {
			return nil, err
		}
	}
	return values, nil
}

// means are the objectives of a pair, each the mean over its first seeds, to be made small; nil if one has no figure.
func (c *collector) means(pair [2]int32, seeds int, objectives []Objective) ([]float64, error) {
	at, _ := slices.BinarySearchFunc(c.p.Pairs, pair, func(a [3]int32, b [2]int32) int { return slices.Compare(a[:2], b[:]) })
	if seeds == 0 {
		seeds = int(c.p.Pairs[at][2])
	}
	sums := make([]float64, len(objectives))
	var buffer []byte
	for i := range seeds {
		r, err := c.record(c.p.before[at]+i, &buffer)
		if err != nil {
			return nil, err
		}
		if r == nil || r.Failed != "" {
			return nil, nil
		}
		for j, o := range objectives {
			x, ok := r.Values[o.Metric]
			if !ok {
				return nil, nil
			}
			if o.Larger {
				x = -x
			}
			sums[j] += x / float64(seeds)
		}
	}
	return sums, nil
}

// writeGenerations writes what a search did. Trials without figures have no values.
func writeGenerations(dir string, generations []design.Generation) error {
	for _, g := range generations {
		for i, row := range g.Values {
			if slices.ContainsFunc(row, func(x float64) bool { return math.IsNaN(x) || math.IsInf(x, 0) }) {
				g.Values[i] = nil
			}
		}
	}
	text, err := json.MarshalIndent(generations, "", " ")
	if err != nil {
		return err
	}
	return writeWhole(filepath.Join(dir, SearchFile), func(w io.Writer) error { _, err := w.Write(append(text, '\n')); return err })
}
