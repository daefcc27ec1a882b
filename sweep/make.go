package sweep

import (
	"cmp"
	"errors"
	"fmt"
	"iter"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"evenkeel/experiment"
	"evenkeel/internal/nearest"
	"evenkeel/scenarios"
	"evenkeel/sim"
	"evenkeel/strategies"
)

// Base is what a plan is made of beside the values that it tries.
type Base struct {
	Scenario   string   // reference; see scenarios.Find
	Settings   []string // key=value
	Layer      int      // of a trace; negative: as the scenario says
	Strategies []strategies.Spec
	Seeds      []uint64 // empty: the scenario's
	Steps      int      // recorded
	Loads      bool

	mode string // what learns, where an earlier plan of the same search decided it
}

// Point is one combination of values, one of each axis, and under how many of the seeds it is run; 0 for all.
type Point struct {
	Values []string
	Seeds  int
}

// New makes the plan of some points over axes. An axis is a key of the scenario, or strategy.knob, which every one of the
// strategies of that name takes; one that is named by an axis only is added with its defaults. New decides once for all cells
// what learns, since a cell must not depend on which others run beside it. An error says what can run in no combination.
func New(b Base, axes []string, design string, points iter.Seq[Point]) (*Plan, error) {
	p, _, err := newPlan(b, axes, design, points)
	return p, err
}

// newPlan is New, and of each point the variant and the spec of the first strategy.
func newPlan(b Base, axes []string, design string, points iter.Seq[Point]) (*Plan, [][2]int32, error) {
	text, err := scenarios.Find(b.Scenario)
	if err != nil {
		return nil, nil, err
	}
	m := &maker{plan: &Plan{Format: Format, Scenario: text, Settings: slices.Clone(b.Settings), Design: design, Seeds: b.Seeds, Steps: b.Steps, Loads: b.Loads}}
	if err := m.assign(axes, b.Strategies); err != nil {
		return nil, nil, err
	}
	var first [][2]int32
	for point := range points {
		pair, err := m.add(point)
		if err != nil {
			return nil, nil, err
		}
		first = append(first, pair)
	}
	if len(m.pairs) == 0 {
		return nil, nil, errors.New("there is nothing to run: the design has no points")
	}
	p := m.finish()
	if err := p.settle(b); err != nil {
		return nil, nil, err
	}
	return p, first, p.checkShape() // its specs are Full ones of known strategies
}

// maker gathers the points of a plan.
type maker struct {
	plan  *Plan
	roles []role // of the axes

	bases    []strategies.Spec
	variants map[string]int32
	specs    map[string]int32   // by their full texts
	recent   map[string]int32   // the same by the values that a point gives
	pairs    map[[2]int32]int32 // to seeds
	values   []map[string]int32 // of the plan's axes, to their indices
}

// role says what an axis varies: an axis of the plan, or a knob of some of the bases.
type role struct {
	axis  int
	knob  string
	bases []int
}

// assign finds out what each axis varies.
func (m *maker) assign(axes []string, specs []strategies.Spec) error {
	m.bases, m.variants, m.specs, m.recent, m.pairs = slices.Clone(specs), map[string]int32{}, map[string]int32{}, map[string]int32{}, map[[2]int32]int32{}
	for _, name := range axes {
		if name == "seeds" || name == "seed" {
			return errors.New("seeds are no axis: --seeds says how many replicates each cell has")
		}
		if fixed[name] {
			return fmt.Errorf("--vary %s: it only describes a scenario, and changes nothing", name)
		}
		r, err := m.role(name)
		if err != nil {
			return err
		}
		m.roles = append(m.roles, r)
	}
	if len(m.bases) == 0 {
		return errors.New("there is no strategy: name some by -s, or a knob to vary, such as --vary loss-free.rate=log:1e-4..1e-1:13")
	}
	m.tellApart()
	return nil
}

// tellApart adds to the knobs that vary those in which strategies of one name differ as they were given: nothing else tells them
// apart in a table.
func (m *maker) tellApart() {
	first := map[string]strategies.Spec{}
	for _, s := range m.bases {
		f, ok := first[s.Preset.Name]
		if !ok {
			first[s.Preset.Name] = s
			continue
		}
		for _, k := range s.Preset.Knobs {
			if name := s.Preset.Name + "." + k.Name; s.Values[k.Name] != f.Values[k.Name] && !slices.Contains(m.plan.Knobs, name) {
				m.plan.Knobs = append(m.plan.Knobs, name)
			}
		}
	}
}

// role of an axis by its name. What begins with the name of a strategy is a knob of it; of names of which one begins with
// another the longest counts.
func (m *maker) role(name string) (role, error) {
	owner := func(s strategies.Spec) int {
		if strings.HasPrefix(name, s.Preset.Name+".") {
			return len(s.Preset.Name)
		}
		return 0
	}
	longest := 0
	for _, s := range m.bases {
		longest = max(longest, owner(s))
	}
	if longest == 0 {
		for _, preset := range strategies.Presets() {
			if s := (strategies.Spec{Preset: preset}); owner(s) > longest {
				longest = owner(s)
			}
		}
		if longest > 0 {
			s, err := strategies.Parse(name[:longest])
			if err != nil {
				return role{}, err
			}
			m.bases = append(m.bases, s)
		}
	}
	if longest == 0 {
		if key, known := name, scenarios.Keys(); !slices.Contains(known, key) {
			if strategy, _, dotted := strings.Cut(name, "."); dotted && nearest.Name(key, known) == "" {
				if _, err := strategies.Find(strategy); err != nil {
					return role{}, fmt.Errorf("--vary %s: it is no key of a scenario, and %w", name, err)
				}
			}
			return role{}, fmt.Errorf("--vary %s: it is neither a key of a scenario nor a knob of a strategy, such as loss-free.rate%s", name, nearest.Hint(key, known))
		}
		m.plan.Axes = append(m.plan.Axes, Axis{Name: name})
		m.values = append(m.values, map[string]int32{})
		return role{axis: len(m.plan.Axes) - 1}, nil
	}
	r := role{knob: name[longest+1:]}
	for i, s := range m.bases {
		if owner(s) != longest {
			continue
		}
		if !slices.ContainsFunc(s.Preset.Knobs, func(k strategies.Knob) bool { return k.Name == r.knob }) {
			_, err := s.With(r.knob, "")
			return role{}, fmt.Errorf("--vary %s: %w", name, err)
		}
		r.bases = append(r.bases, i)
	}
	m.plan.Knobs = append(m.plan.Knobs, name)
	return r, nil
}

// add enters a point: the variant that it asks for, with every strategy, of which it returns the first pair.
func (m *maker) add(point Point) (first [2]int32, err error) {
	row := make([]int32, len(m.plan.Axes))
	key := make([]byte, 0, 5*len(row))
	for i, r := range m.roles {
		if r.bases != nil {
			continue
		}
		value := point.Values[i]
		n, ok := m.values[r.axis][value]
		if !ok {
			axis := &m.plan.Axes[r.axis]
			n = int32(len(axis.Values))
			axis.Values, m.values[r.axis][value] = append(axis.Values, value), n
		}
		row[r.axis] = n
		key = append(strconv.AppendInt(key, int64(n), 36), ' ')
	}
	v, ok := m.variants[string(key)]
	if !ok {
		v = int32(len(m.plan.Variants))
		m.variants[string(key)], m.plan.Variants = v, append(m.plan.Variants, row)
	}
	for base := range m.bases {
		s, err := m.spec(base, point)
		if err != nil {
			return first, err
		}
		pair := [2]int32{v, s}
		m.pairs[pair] = max(m.pairs[pair], int32(cmp.Or(point.Seeds, len(m.plan.Seeds))))
		if base == 0 {
			first = pair
		}
	}
	return first, nil
}

// spec returns the index of a base with the knobs of a point.
func (m *maker) spec(base int, point Point) (int32, error) {
	key := strconv.Itoa(base)
	for i, r := range m.roles {
		if slices.Contains(r.bases, base) {
			key += "\x00" + point.Values[i]
		}
	}
	if s, ok := m.recent[key]; ok {
		return s, nil
	}
	spec := m.bases[base]
	for i, r := range m.roles {
		if slices.Contains(r.bases, base) {
			next, err := spec.With(r.knob, point.Values[i])
			if err != nil {
				return 0, fmt.Errorf("--vary %s.%s: %w", spec.Preset.Name, r.knob, err)
			}
			spec = next
		}
	}
	full := spec.Full()
	s, ok := m.specs[full] // other words may mean the same
	if !ok {
		s = int32(len(m.plan.Specs))
		m.plan.Specs = append(m.plan.Specs, full)
		m.specs[full] = s
		if text := spec.Preset.Source(); text != nil {
			if m.plan.Files == nil {
				m.plan.Files = map[string]string{}
			}
			m.plan.Files[spec.Preset.Name] = string(text)
		}
	}
	if len(m.recent) == 1<<16 { // a sampled design has each once
		clear(m.recent)
	}
	m.recent[key] = s
	return s, nil
}

// finish orders the pairs.
func (m *maker) finish() *Plan {
	p := m.plan
	p.Pairs = make([][3]int32, 0, len(m.pairs))
	for pair, seeds := range m.pairs {
		p.Pairs = append(p.Pairs, [3]int32{pair[0], pair[1], seeds})
	}
	slices.SortFunc(p.Pairs, func(a, b [3]int32) int { return cmp.Or(cmp.Compare(a[0], b[0]), cmp.Compare(a[1], b[1])) })
	return p
}

// settle fixes what a scenario leaves open, so that all cells agree on it: the file and layer of a trace, seeds, what learns.
func (p *Plan) settle(b Base) error {
	if err := p.define(); err != nil {
		return err
	}
	s, variant, err := p.check(b.Layer)
	if err != nil {
		return err
	}
	varies := func(key string) bool {
		return slices.ContainsFunc(p.Axes, func(a Axis) bool { return a.Name == key && len(a.Values) > 1 })
	}
	if varies("trace.file") && !varies("trace.sha256") {
		return errors.New("--vary trace.file: files are told apart by their checksums: add --vary trace.sha256=... with as many values, and --design zip")
	}
	if s.Trace != nil {
		p.Settings = append(p.Settings, "trace.layer="+strconv.Itoa(s.Trace.Layer), "trace.sha256="+s.Trace.SHA256)
		if !s.Trace.Embedded() {
			file, err := filepath.Abs(s.Trace.File)
			if err != nil {
				return err
			}
			p.Settings = append(p.Settings, traceFile+strconv.Quote(file))
			if reference := "trace:" + filepath.Base(file); strings.HasPrefix(b.Scenario, "trace:") {
				if p.Scenario, err = scenarios.Find(reference); err != nil { // without the folder, which is no part of what is computed
					return err
				}
			}
		}
	}
	if !slices.ContainsFunc(p.Axes, func(a Axis) bool { return a.Name == "trace.file" }) { // whose values may be relative to that folder
		p.Scenario.File = filepath.Base(p.Scenario.File)
	}
	if len(b.Seeds) == 0 {
		p.Seeds = s.Seeds
		for i := range p.Pairs {
			if p.Pairs[i][2] == 0 {
				p.Pairs[i][2] = int32(len(p.Seeds))
			}
		}
	}
	specs, err := p.able(s)
	if err != nil {
		return fmt.Errorf("with %s nothing can run: %w", cmp.Or(strings.Join(p.VariantSettings(variant), " "), "these settings"), err)
	}
	if s.Router.Mode != "auto" {
		return nil
	}
	x, err := experiment.New(s, specs)
	if err != nil {
		return err
	}
	if p.mode = b.mode; p.mode == "" {
		p.mode = sim.Learned
		if x.Mode == sim.Frozen {
			p.mode = sim.Frozen
		}
	}
	p.Settings = append(p.Settings, "router.mode="+p.mode)
	return nil
}

// able returns the first spec that can be built on a scenario, and the first with a loss, which decides whether the router learns; an
// error if there is none.
func (p *Plan) able(s *scenarios.Scenario) (list []strategies.Spec, err error) {
	var refused error
	layer := s.Layer()
	for i := range p.Specs {
		spec, err := p.spec(i)
		if err != nil {
			return nil, err
		}
		r, err := spec.Build(layer)
		if err != nil {
			refused = cmp.Or(refused, err)
			continue
		}
		loss := r.Traits().Loss
		if len(list) == 0 || loss {
			list = append(list, spec)
		}
		if loss || s.Router.Mode != "auto" {
			return list, nil
		}
	}
	if len(list) == 0 {
		return nil, refused
	}
	return list, nil
}

// checked is how many values of an axis are tried before a sweep begins.
const checked = 200

// check loads the scenario of the first variant that can be loaded, and makes sure that no value of an axis is wrong in every
// combination that was looked at.
func (p *Plan) check(layer int) (first *scenarios.Scenario, at int, err error) {
	type value struct{ axis, index int32 }
	good, bad := map[value]bool{}, map[value]error{}
	var wrong error
	tries := 0
	for i, row := range p.Variants {
		fresh := first == nil
		for a, n := range row {
			v := value{int32(a), n}
			fresh = fresh || n < checked && !good[v]
		}
		if !fresh || tries > 10*checked {
			continue
		}
		tries++
		s, err := p.Scenario.Load(slices.Concat(p.Settings, p.VariantSettings(i)), layer)
		if err != nil {
			wrong = cmp.Or(wrong, err)
		} else if first == nil {
			first, at = s, i
		}
		for a, n := range row {
			if v := (value{int32(a), n}); err == nil {
				good[v] = true
				delete(bad, v)
			} else if !good[v] {
				bad[v] = err
			}
		}
	}
	if first == nil {
		return nil, 0, wrong
	}
	for a := range p.Axes {
		for n := range p.Axes[a].Values {
			if err := bad[value{int32(a), int32(n)}]; err != nil {
				return nil, 0, fmt.Errorf("--vary %s: with %s it cannot run: %w", p.Axes[a].Name, p.Axes[a].Values[n], err)
			}
		}
	}
	return first, at, nil
}
