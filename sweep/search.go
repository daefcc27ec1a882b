package sweep

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"evenkeel/internal/nearest"
	"evenkeel/internal/whole"
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

// Session is a sweep whose points depend on what earlier ones found. One that was stopped goes on: what is asked for again is
// stored already.
type Session struct {
	Base    Base // with one strategy, or none where an axis names it
	Axes    []string
	Design  string // in words: all that decides which points are asked for
	Steps   bool   // whether trials say how many steps they run
	Keep    bool   // whether what an earlier session asked for stays in the plan: this one may not ask for it again
	Options Options

	Plan *Plan // of all points so far
	Ran  int   // cells that were not stored before

	dir    string
	folder *Folder
	points []Point
}

// Replicates are the metrics of a trial under each of its seeds, or why there are none.
type Replicates struct {
	Values []map[string]float64
	Failed string
}

// NewSession begins a sweep in a folder, which the first Evaluate takes for this process alone.
func NewSession(dir string, s Session) *Session {
	s.dir, s.Base.search = dir, true
	if s.Steps {
		s.Axes = append(slices.Clone(s.Axes), "steps")
	}
	return &s
}

// Check says what is wrong with the axes: a trial is judged by one strategy, to which knobs of another mean nothing.
func (s *Session) Check() error {
	m := &maker{plan: new(Plan)}
	if err := m.assign(s.Axes, s.Base.Strategies); err != nil {
		return err
	}
	if len(m.bases) > 1 {
		var list []string
		for _, r := range m.plan.rules {
			list = append(list, r.Preset.Name)
		}
		return fmt.Errorf("it searches for the best settings of one strategy, and -s and --vary name %s: sweep each alone", strings.Join(list, " and "))
	}
	return nil
}

// Close gives the folder back.
func (s *Session) Close() {
	if s.folder != nil {
		s.folder.Release()
	}
}

// Evaluate runs trials and returns what they found.
func (s *Session) Evaluate(ctx context.Context, trials []design.Trial) ([]Replicates, error) {
	if s.folder == nil && s.Keep {
		s.keep()
	}
	points := slices.Clip(s.points)
	for _, t := range trials {
		point := Point{Values: t.Point, Seeds: t.Seeds}
		if s.Steps {
			point.Values = append(slices.Clone(point.Values), strconv.Itoa(t.Steps))
		}
		points = append(points, point)
	}
	p, pairs, err := newPlan(s.Base, s.Axes, s.Design, slices.Values(points))
	if err != nil {
		return nil, err
	}
	if s.folder == nil {
		s.folder, err = Hold(s.dir, p, Grow, false)
	} else {
		err = s.folder.enter(p, Grow)
	}
	if err != nil {
		return nil, err
	}
	s.Plan, s.points, s.Base.mode = p, points, p.mode
	if err := s.run(ctx); err != nil {
		return nil, err
	}
	c, err := newCollector(s.dir, p)
	if err != nil {
		return nil, err
	}
	defer c.close()
	list := make([]Replicates, len(trials))
	for i, pair := range pairs[len(pairs)-len(trials):] {
		if list[i], err = c.replicates(pair, trials[i].Seeds); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// keep begins with the points of the plan that is in the folder, if it is this session's.
func (s *Session) keep() {
	old, err := ReadPlan(filepath.Join(s.dir, PlanFile))
	if err != nil || old.Design != s.Design {
		return // Hold says so
	}
	values := func(pair [3]int32) (list []string) {
		for _, name := range s.Axes {
			is := func(a Axis) bool { return a.Name == name }
			if a := slices.IndexFunc(old.Axes, is); a >= 0 {
				list = append(list, old.Axes[a].Values[old.Variants[pair[0]][a]])
			} else if k := slices.IndexFunc(old.Knobs, is); k >= 0 && old.Specs[pair[1]][1+k] >= 0 {
				list = append(list, old.Knobs[k].Values[old.Specs[pair[1]][1+k]])
			}
		}
		return list
	}
	for _, pair := range old.Pairs {
		if point := (Point{values(pair), int(pair[2])}); len(point.Values) == len(s.Axes) {
			s.points = append(s.points, point)
		}
	}
	for _, setting := range old.Settings {
		if mode, ok := strings.CutPrefix(setting, "router.mode="); ok {
			s.Base.mode = mode
		}
	}
}

func (s *Session) run(ctx context.Context) error {
	store, err := Open(s.dir, s.Plan, Shard{})
	if err != nil {
		return err
	}
	out, err := Run(ctx, s.Plan, store, s.Options)
	s.Ran += out.Ran
	if closing := store.Close(); err == nil {
		err = closing
	}
	return err
}

// replicates are those of a pair under its first seeds, 0 for all.
func (c *collector) replicates(pair [2]int32, seeds int) (r Replicates, err error) {
	at, _ := slices.BinarySearchFunc(c.p.Pairs, pair, func(a [3]int32, b [2]int32) int { return slices.Compare(a[:2], b[:]) })
	if seeds == 0 {
		seeds = int(c.p.Pairs[at][2])
	}
	var buffer []byte
	for i := range seeds {
		record, err := c.record(c.p.before[at]+i, &buffer)
		if err != nil {
			return r, err
		}
		if record == nil {
			return r, fmt.Errorf("cell %d was run and is not stored", c.p.before[at]+i)
		}
		if record.Failed != "" {
			return Replicates{Failed: record.Failed}, nil
		}
		r.Values = append(r.Values, record.Values)
	}
	return r, nil
}

// Search asks, runs and tells until the search is over, and returns the generations. Told, which may be nil, hears of each.
func (s *Session) Search(ctx context.Context, search design.Search, objectives []Objective, told func(design.Generation)) (all []design.Generation, err error) {
	for trials := search.Ask(); len(trials) > 0; trials = search.Ask() {
		found, err := s.Evaluate(ctx, trials)
		if err != nil {
			return all, err
		}
		g := design.Generation{Trials: trials}
		for _, r := range found {
			g.Values = append(g.Values, r.objectives(objectives))
		}
		if err := search.Tell(g.Values); err != nil {
			return all, err
		}
		all = append(all, g)
		if told != nil {
			told(g)
		}
	}
	path := &Path{Design: s.Design, Axes: s.Axes, Generations: all}
	for _, o := range objectives {
		path.Objectives = append(path.Objectives, o.String())
	}
	text, _ := json.MarshalIndent(path, "", " ") // plain values only
	return all, whole.WriteBytes(filepath.Join(s.dir, SearchFile), append(text, '\n'))
}

// objectives are the means over the seeds, each to be made small; nil if one has no figure.
func (r Replicates) objectives(list []Objective) []float64 {
	if r.Failed != "" {
		return nil
	}
	sums := make([]float64, len(list))
	for j, o := range list {
		for _, values := range r.Values {
			x, ok := values[o.Metric]
			if !ok {
				return nil
			}
			if o.Larger {
				x = -x
			}
			sums[j] += x / float64(len(r.Values))
		}
	}
	return sums
}

// SearchFile is the path of a search, in its folder.
const SearchFile = "search.json"

// Path is what a search asked and was told, each value to be made small.
type Path struct {
	Design      string              `json:"design"`
	Axes        []string            `json:"axes"` // of the points; steps, where they are the search's, come last and are in the budgets
	Objectives  []string            `json:"objectives"`
	Generations []design.Generation `json:"generations"`
}

// ReadPath reads the path of a search.
func ReadPath(dir string) (*Path, error) {
	name := filepath.Join(dir, SearchFile)
	text, err := whole.Read(name, maxPlan)
	if err != nil {
		return nil, err
	}
	p := new(Path)
	if err := json.Unmarshal(text, p); err != nil {
		return nil, fmt.Errorf("%s is no path of a search: %w", name, err)
	}
	return p, nil
}
