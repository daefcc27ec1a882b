package sweep

import (
	"cmp"
	"encoding/binary"
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

	search bool   // its points are a search's, which may ask for what cannot run
	mode   string // what learns, where an earlier plan of the same search decided it
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
	m := &maker{variants: map[string]int32{}, specs: map[string]int32{}, plan: &Plan{Format: Format, Scenario: text, Settings: slices.Clone(b.Settings), Design: design, Seeds: b.Seeds, Steps: b.Steps, Loads: b.Loads}}
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
	if len(m.plan.Pairs) == 0 {
		return nil, nil, errors.New("there is nothing to run: the design has no points")
	}
	p := m.plan
	p.order()
	if err := p.settle(b); err != nil {
		return nil, nil, err
	}
	return p, first, p.checkShape() // its specs are Full ones of known strategies
}

// maker gathers the points of a plan.
type maker struct {
	plan     *Plan
	bases    [][]int32          // specs of the strategies as they were given; what an axis varies has its place
	roles    []role             // of the axes
	axes     []map[string]int32 // of the plan's axes, from words to indices of values
	knobs    []map[string]int32 // and of its knobs
	variants map[string]int32   // from rows to their indices
	specs    map[string]int32
}

// role is what an axis varies: a knob of some strategies, or a key of the scenario, by its index in the plan.
type role struct {
	knob bool
	at   int
}

// assign finds out what each axis varies, and what the strategies are.
func (m *maker) assign(axes []string, specs []strategies.Spec) error {
	specs = slices.Clone(specs)
	for _, name := range axes {
		if name == "seeds" || name == "seed" {
			return errors.New("seeds are no axis: --seeds says how many replicates each cell has")
		}
		if fixed[name] {
			return fmt.Errorf("--vary %s: it only describes a scenario, and changes nothing", name)
		}
		var err error
		if specs, err = m.role(name, specs); err != nil {
			return err
		}
	}
	if len(specs) == 0 {
		return errors.New("there is no strategy: name some by -s, or a knob to vary, such as --vary loss-free.rate=log:1e-4..1e-1:13")
	}
	m.tellApart(specs)
	for _, s := range specs {
		if err := m.base(s); err != nil {
			return err
		}
	}
	return m.plan.define()
}

// tellApart has those knobs vary in which strategies of one name differ: nothing else tells them apart in a table.
func (m *maker) tellApart(specs []strategies.Spec) {
	first := map[string]strategies.Spec{}
	for _, s := range specs {
		f, ok := first[s.Preset.Name]
		if !ok {
			first[s.Preset.Name] = s
			continue
		}
		for _, k := range s.Preset.Knobs {
			if s.Values[k.Name] != f.Values[k.Name] {
				m.knob(s.Preset.Name + "." + k.Name)
			}
		}
	}
}

// knob is the index of a knob, which varies from then on.
func (m *maker) knob(name string) int {
	at := slices.IndexFunc(m.plan.Knobs, func(a Axis) bool { return a.Name == name })
	if at < 0 {
		at = len(m.plan.Knobs)
		m.plan.Knobs, m.knobs = append(m.plan.Knobs, Axis{Name: name}), append(m.knobs, map[string]int32{})
	}
	return at
}

// base enters a strategy as it was given.
func (m *maker) base(s strategies.Spec) error {
	p := m.plan
	row := []int32{0}
	plain := s
	for k := range p.Knobs {
		strategy, knob, _ := strings.Cut(p.Knobs[k].Name, ".")
		n := int32(-1)
		if strategy == s.Preset.Name {
			n = 0
			if !slices.Contains(m.roles, role{true, k}) {
				n = index(m.knobs[k], &p.Knobs[k].Values, s.Values[knob])
			}
			var err error
			if plain, err = plain.Plain(knob); err != nil {
				return err
			}
		}
		row = append(row, n)
	}
	at := slices.Index(p.Strategies, plain.Full())
	if at < 0 {
		at = len(p.Strategies)
		p.Strategies = append(p.Strategies, plain.Full())
	}
	row[0] = int32(at)
	if !slices.ContainsFunc(m.bases, func(b []int32) bool { return slices.Equal(b, row) }) {
		m.bases = append(m.bases, row)
	}
	text := string(s.Preset.Source())
	if text == "" {
		return nil
	}
	if p.Files == nil {
		p.Files = map[string]string{}
	}
	if other, ok := p.Files[s.Preset.Name]; ok && other != text {
		return fmt.Errorf("two strategy files describe %s, and not the same: give them names of their own", s.Preset.Name)
	}
	p.Files[s.Preset.Name] = text
	return nil
}

// role enters an axis by its name. What begins with the name of a strategy is a knob of it, which the strategies of that name have
// by default from then on.
func (m *maker) role(name string, specs []strategies.Spec) ([]strategies.Spec, error) {
	strategy, knob, _ := strings.Cut(name, ".")
	of := func(s strategies.Spec) bool { return s.Preset.Name == strategy }
	if !slices.ContainsFunc(specs, of) {
		if !slices.ContainsFunc(strategies.Presets(), func(p *strategies.Preset) bool { return p.Name == strategy }) {
			return specs, m.key(name)
		}
		s, err := strategies.Parse(strategy)
		if err != nil {
			return nil, err
		}
		specs = append(specs, s)
	}
	for i, s := range specs {
		if !of(s) {
			continue
		}
		var err error
		if specs[i], err = s.Plain(knob); err != nil {
			return nil, fmt.Errorf("--vary %s: %w", name, err)
		}
	}
	m.roles = append(m.roles, role{true, m.knob(name)})
	return specs, nil
}

// flagOf says of words that look like keys how they are given.
var flagOf = map[string]string{
	"scenario": "a sweep is of one, which --scenario names",
	"strategy": "-s names a strategy, and may be repeated",
	"model":    "a sweep is of one model at most, which --model names",
	"layer":    "it is trace.layer, of a trace of several layers",
}

// key enters an axis that is a key of the scenario.
func (m *maker) key(name string) error {
	if known := scenarios.Keys(); !slices.Contains(known, name) {
		if strategy, _, dotted := strings.Cut(name, "."); dotted && nearest.Name(name, known) == "" {
			if _, err := strategies.Find(strategy); err != nil {
				return fmt.Errorf("--vary %s: it is no key of a scenario, and %w", name, err)
			}
		}
		if flag, ok := flagOf[name]; ok {
			return fmt.Errorf("--vary %s: it is no key of a scenario: %s", name, flag)
		}
		return fmt.Errorf("--vary %s: it is neither a key of a scenario nor a knob of a strategy, such as loss-free.rate%s", name, nearest.Hint(name, known))
	}
	m.roles = append(m.roles, role{false, len(m.plan.Axes)})
	m.plan.Axes, m.axes = append(m.plan.Axes, Axis{Name: name}), append(m.axes, map[string]int32{})
	return nil
}

// add enters a point: the variant that it asks for, with every strategy, of which it returns the first pair.
func (m *maker) add(point Point) (first [2]int32, err error) {
	p := m.plan
	variant, knobs := make([]int32, len(p.Axes)), make([]int32, len(p.Knobs))
	for i, r := range m.roles {
		if r.knob {
			if knobs[r.at], err = m.value(r.at, point.Values[i]); err != nil {
				return first, err
			}
		} else {
			variant[r.at] = index(m.axes[r.at], &p.Axes[r.at].Values, point.Values[i])
		}
	}
	v := number(m.variants, &p.Variants, variant)
	for i, base := range m.bases {
		spec := slices.Clone(base)
		for _, r := range m.roles {
			if r.knob && spec[1+r.at] >= 0 {
				spec[1+r.at] = knobs[r.at]
			}
		}
		s := number(m.specs, &p.Specs, spec)
		p.Pairs = append(p.Pairs, [3]int32{v, s, int32(cmp.Or(point.Seeds, len(p.Seeds)))})
		if i == 0 {
			first = [2]int32{v, s}
		}
	}
	return first, nil
}

// blame says whose an error is that a variant gives: the axes', unless the scenario does not load without them either.
func (p *Plan) blame(variant, layer int, err error) error {
	settings := p.VariantSettings(variant)
	if _, alone := p.Scenario.Load(p.Settings, layer); alone != nil || len(settings) == 0 {
		return err
	}
	return fmt.Errorf("--vary: with %s it cannot run: %s", strings.Join(settings, " "), varied(err))
}

// varied is what an error says of settings that come of --vary, and not of --set.
func varied(err error) string { return strings.ReplaceAll(err.Error(), "--set: ", "") }

// value is the index of a knob's value, which other words may mean too.
func (m *maker) value(k int, word string) (int32, error) {
	if n, ok := m.knobs[k][word]; ok {
		return n, nil
	}
	knob := &m.plan.Knobs[k]
	value, err := m.plan.canonical(k, word)
	if err != nil {
		return 0, fmt.Errorf("--vary %s: %w", knob.Name, err)
	}
	n := index(m.knobs[k], &knob.Values, value)
	m.knobs[k][word] = n
	return n, nil
}

// index is where a value stands in a list, which gets it if it is new.
func index(known map[string]int32, list *[]string, value string) int32 {
	n, ok := known[value]
	if !ok {
		n = int32(len(*list))
		*list, known[value] = append(*list, value), n
	}
	return n
}

// number is index of a row.
func number(known map[string]int32, list *[][]int32, row []int32) int32 {
	var short [64]byte
	key := appendKey(short[:0], row)
	n, ok := known[string(key)]
	if !ok {
		n = int32(len(*list))
		*list, known[string(key)] = append(*list, row), n
	}
	return n
}

// appendKey appends what tells rows of one length apart.
func appendKey(into []byte, row []int32) []byte {
	for _, n := range row {
		into = binary.AppendVarint(into, int64(n))
	}
	return into
}

// order sorts the pairs. One that several points ask for has the most seeds that one of them has.
func (p *Plan) order() {
	slices.SortFunc(p.Pairs, func(a, b [3]int32) int {
		return cmp.Or(cmp.Compare(a[0], b[0]), cmp.Compare(a[1], b[1]), cmp.Compare(b[2], a[2]))
	})
	p.Pairs = slices.CompactFunc(p.Pairs, func(a, b [3]int32) bool { return a[0] == b[0] && a[1] == b[1] })
}

const worldSeed = "world_seed=" // begins a setting

// settle fixes what a scenario leaves open, so that all cells agree on it: the file and layer of a trace, seeds, what learns.
func (p *Plan) settle(b Base) error {
	s, variant, err := p.check(b)
	if err != nil {
		return err
	}
	varies := func(key string) bool {
		return slices.ContainsFunc(p.Axes, func(a Axis) bool { return a.Name == key && len(a.Values) > 1 })
	}
	if varies("trace.file") && !varies("trace.sha256") {
		return errors.New("--vary trace.file: files are told apart by their checksums: add --vary trace.sha256=... with as many values, and --design zip")
	}
	said := func(setting string) bool { return strings.HasPrefix(setting, worldSeed) }
	if s.WorldSeed != 0 && !slices.ContainsFunc(p.Settings, said) && !slices.ContainsFunc(p.Axes, func(a Axis) bool { return said(a.Name + "=") }) {
		p.Settings = append(p.Settings, fmt.Sprint(worldSeed, s.WorldSeed)) // from a file: the tables must know
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
	built := map[string]bool{}
	for i, row := range p.Specs {
		nature := p.nature(row)
		if built[nature] {
			continue
		}
		spec, err := p.spec(i)
		if err != nil {
			return nil, err
		}
		r, err := spec.Build(layer)
		if err != nil {
			refused = cmp.Or(refused, err)
			continue
		}
		built[nature] = true
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

// nature is a spec without its numbers, but for those that are zero: what decides whether it has a loss.
func (p *Plan) nature(row []int32) string {
	row = slices.Clone(row)
	for k, n := range row[1:] {
		if n >= 0 && unequalToZero(p.Knobs[k].Values[n]) {
			row[1+k] = -2
		}
	}
	return string(appendKey(nil, row))
}

// unequalToZero reports whether a value is a number, and not zero.
func unequalToZero(value string) bool {
	x, err := strconv.ParseFloat(value, 64)
	return err == nil && x != 0
}

// Before a sweep begins, so many values of an axis are tried, and those that are wrong in so many other combinations.
const (
	checked  = 200
	replaced = 20
)

// check loads the scenario of the first variant that can be loaded, and makes sure that no value of an axis is wrong in every
// combination. Where there are too many to look at, what is left of a value may be right.
func (p *Plan) check(b Base) (first *scenarios.Scenario, at int, err error) {
	type value struct{ axis, index int32 }
	load := func(row []int32) (*scenarios.Scenario, error) {
		return p.Scenario.Load(slices.Concat(p.Settings, p.settings(row)), b.Layer)
	}
	good, bad := map[value]bool{}, map[value]error{}
	var fit [][]int32 // variants that can be loaded
	var wrong error
	tries := 0
	for i, row := range p.Variants {
		var open []value // that were in no combination that can be loaded
		for a, n := range row {
			if v := (value{int32(a), n}); n < checked && !good[v] {
				open = append(open, v)
			}
		}
		if first != nil && len(open) == 0 {
			continue
		}
		if tries > 10*checked {
			for _, v := range open {
				delete(bad, v)
			}
			continue
		}
		tries++
		s, err := load(row)
		if err != nil {
			if wrong == nil {
				wrong = p.blame(i, b.Layer, err)
			}
		} else if fit = append(fit, row); first == nil {
			first, at = s, i
		}
		for _, v := range open {
			if bad[v] = err; err == nil {
				good[v] = true
				delete(bad, v)
			}
		}
	}
	if first == nil {
		return nil, 0, wrong
	}
	if b.search {
		return first, at, nil
	}
	// Of a sampled design a value may be in one combination alone, in which it is another that is wrong.
	for a := range p.Axes {
		for n := range p.Axes[a].Values {
			err := bad[value{int32(a), int32(n)}]
			for i := 0; err != nil && i < min(len(fit), replaced); i++ {
				row := slices.Clone(fit[i*len(fit)/min(len(fit), replaced)])
				row[a] = int32(n)
				if _, other := load(row); other == nil {
					err = nil
				}
			}
			if err != nil {
				return nil, 0, fmt.Errorf("--vary %s: with %s it cannot run: %s", p.Axes[a].Name, p.Axes[a].Values[n], varied(err))
			}
		}
	}
	return first, at, nil
}
