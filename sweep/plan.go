// Package sweep runs many experiments and keeps what they found. A plan lists cells, each a scenario with settings, a strategy and a
// seed. A cell is independent and deterministic, and its name is the hash of all that decides its result, so that it does not
// matter who runs it, when, how often, or beside which others.
//
// The reading order is plan (and make, which builds it), which is cut into units of work → name → compute, a unit at a time →
// store and folder → run → collect (and gather, lacking, parquet, csv) → project and effects. Estimate measures a plan beforehand,
// wire carries results between machines, and search runs plans that grow by what they found. Which values are tried is decided in
// package design, what a cell computes in packages experiment and sim, what differences mean in package stat. Engines that are
// more than this process, in packages cluster and fleet, fill the same store: by the command run, or by Computer and Store.
package sweep

import (
	"bufio"
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"evenkeel/internal/whole"
	"evenkeel/scenarios"
	"evenkeel/strategies"
	"evenkeel/sweep/design"
)

// Format is the version of plans and results. Results of another one are never mixed with this one's. It is raised when a plan or
// a record is written otherwise, and when a cell of the same name computes other figures: by a change of streams, metrics, the
// simulation, its random numbers or the default of a scenario's key. A change of one strategy raises its revision instead, and
// the text of a shipped scenario is in the plan.
const Format = 3

// Plan is everything that a sweep computes.
type Plan struct {
	Format   int               `json:"format"`
	Scenario scenarios.Text    `json:"scenario"`
	Settings []string          `json:"settings,omitempty"` // key=value, of every cell
	Files    map[string]string `json:"strategy_files,omitempty"`
	Design   string            `json:"design"`          // in words, for people
	Axes     []Axis            `json:"axes,omitempty"`  // keys of the scenario
	Knobs    []Axis            `json:"knobs,omitempty"` // of strategies: strategy.knob
	// Strategies, each name once, have all their knobs, in order. Those that vary have their defaults.
	Strategies []string `json:"strategies"`
	// Variants are the scenarios: of each axis the index of its value. Specs are what they are routed by: the index of a strategy,
	// then of each knob the index of its value, -1 where it is another strategy's.
	Variants [][]int32 `json:"variants"`
	Specs    [][]int32 `json:"specs"`
	// Pairs are the combinations that are run: a variant, a spec, and under how many of the seeds, the first ones.
	Pairs [][3]int32 `json:"pairs"`
	Seeds []uint64   `json:"seeds"`
	Steps int        `json:"recorded_steps"` // steps of a cell that are kept, evenly spaced; 0 for none
	Loads bool       `json:"recorded_loads"` // whether the loads of experts at those steps are kept

	hash   string
	mode   string            // what New decided to learn
	before []int             // cells of the pairs before pair i; the last is the number of cells
	rules  []strategies.Spec // the strategies
	owners []owner           // of the knobs
}

// owner is the strategy that has a knob, and how it calls it.
type owner struct {
	rule int32
	knob string
}

// Axis is a key of the scenario or a knob that varies, and its values, as one would write them behind --set key= or knob=.
type Axis struct {
	Name   string   `json:"name"`
	Values []string `json:"values"`
}

// Limits of a plan that somebody else may have written: one of a few bytes must not ask for much memory.
const (
	maxPlan  = 1 << 28 // bytes
	maxCells = 1 << 24
	maxSteps = 100_000 // recorded
	maxWord  = 1 << 14 // bytes of a name or a spec
	maxText  = 1 << 20 // bytes of any other text
	maxTexts = 1 << 12 // settings or strategy files
)

// ReadPlan reads a plan and checks it, but for what only running a cell tells.
func ReadPlan(name string) (*Plan, error) {
	info, err := os.Stat(name)
	if err != nil {
		return nil, whole.Located(err)
	}
	if info.IsDir() {
		return nil, fmt.Errorf("%s is a folder, and a plan is a file, such as %s", name, filepath.Join(name, PlanFile))
	}
	if info.Size() > maxPlan || !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s has %d bytes: a plan is a file of at most %d", name, info.Size(), maxPlan)
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, whole.Located(err)
	}
	defer f.Close()
	p, err := decodePlan(bufio.NewReaderSize(io.LimitReader(f, maxPlan), 1<<16))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return p, nil
}

// DecodePlan is ReadPlan of a text.
func DecodePlan(text []byte) (*Plan, error) {
	if len(text) > maxPlan {
		return nil, fmt.Errorf("is no plan of a sweep: it has %d bytes, and a plan has at most %d", len(text), maxPlan)
	}
	return decodePlan(bytes.NewReader(text))
}

func decodePlan(r io.Reader) (*Plan, error) {
	d := json.NewDecoder(r)
	d.DisallowUnknownFields()
	p := new(Plan)
	if err := p.decode(d); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return nil, fmt.Errorf("is no plan of a sweep: %s", strings.TrimPrefix(err.Error(), "json: "))
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("has something after the plan")
	}
	if err := p.Check(); err != nil {
		return nil, err
	}
	return p, nil
}

// decode reads member by member, and the long lists item by item, so that the text need not be in memory at once.
func (p *Plan) decode(d *json.Decoder) error {
	if err := delimiter(d, '{'); err != nil {
		return err
	}
	members := map[string]func() error{
		"variants": func() error { return decodeList(d, &p.Variants) },
		"specs":    func() error { return decodeList(d, &p.Specs) },
		"pairs":    func() error { return decodeList(d, &p.Pairs) },
	}
	for name, into := range map[string]any{"format": &p.Format, "scenario": &p.Scenario, "settings": &p.Settings, "strategy_files": &p.Files, "design": &p.Design,
		"axes": &p.Axes, "knobs": &p.Knobs, "strategies": &p.Strategies, "seeds": &p.Seeds, "recorded_steps": &p.Steps, "recorded_loads": &p.Loads} {
		members[name] = func() error { return d.Decode(into) }
	}
	for d.More() {
		t, err := d.Token()
		if err != nil {
			return err
		}
		name, _ := t.(string)
		read := members[name]
		if read == nil {
			return fmt.Errorf("it has a member %.100q that is unknown or given twice", name)
		}
		delete(members, name)
		if err := read(); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return delimiter(d, '}')
}

func decodeList[T any](d *json.Decoder, into *[]T) error {
	if err := delimiter(d, '['); err != nil {
		return err
	}
	for d.More() {
		var item T
		if err := d.Decode(&item); err != nil {
			return err
		}
		if *into = append(*into, item); len(*into) > maxCells {
			return fmt.Errorf("it has more than %d items", maxCells)
		}
	}
	return delimiter(d, ']')
}

func delimiter(d *json.Decoder, want json.Delim) error {
	t, err := d.Token()
	if err == nil && t != want {
		err = fmt.Errorf("%.100v stands where %s should", t, want)
	}
	return err
}

// Check says what is wrong with a plan.
func (p *Plan) Check() error {
	if err := p.checkShape(); err != nil {
		return err
	}
	return p.checkSpecs()
}

// checkShape is Check but for what strategies and their knobs may be.
func (p *Plan) checkShape() error {
	switch {
	case p.Format != Format:
		return fmt.Errorf("the plan has format %d, and this program writes and reads %d: use the program that made it", p.Format, Format)
	case len(p.Variants) == 0 || len(p.Specs) == 0 || len(p.Pairs) == 0 || len(p.Seeds) == 0:
		return errors.New("the plan has no cells: it needs at least one variant, spec, pair and seed")
	case p.Steps < 0 || p.Steps > maxSteps:
		return fmt.Errorf("recorded_steps is %d: it must be 0 to %d", p.Steps, maxSteps)
	}
	if len(p.Strategies) > maxTexts || len(p.Knobs) > design.MaxAxes {
		return fmt.Errorf("the plan has %d strategies and %d knobs that vary: at most %d and %d can be", len(p.Strategies), len(p.Knobs), maxTexts, design.MaxAxes)
	}
	if err := p.checkTexts(); err != nil {
		return err
	}
	if err := p.checkAxes(); err != nil {
		return err
	}
	seen := map[uint64]bool{}
	for _, s := range p.Seeds {
		if seen[s] {
			return fmt.Errorf("seed %d is given twice: equal seeds give equal runs", s)
		}
		seen[s] = true
	}
	return p.count()
}

// checkTexts bounds the texts.
func (p *Plan) checkTexts() error {
	if len(p.Settings) > maxTexts || len(p.Files) > maxTexts {
		return fmt.Errorf("the plan has %d settings and %d strategy files: at most %d of each are read", len(p.Settings), len(p.Files), maxTexts)
	}
	long := func(what, text string, most int) error {
		if len(text) > most {
			return fmt.Errorf("%s has %d bytes: at most %d are read", what, len(text), most)
		}
		return nil
	}
	errs := []error{long("scenario.file", p.Scenario.File, maxWord), long("scenario.name", p.Scenario.Name, maxWord),
		long("scenario.text", p.Scenario.YAML, maxText), long("design", p.Design, design.MaxAxes*maxText)}
	for i, s := range p.Settings {
		errs = append(errs, long(fmt.Sprintf("setting %d", i), s, maxText))
	}
	for _, name := range slices.Sorted(maps.Keys(p.Files)) {
		errs = append(errs, long("the name of a strategy file", name, maxWord), long("strategy file "+name, p.Files[name], maxText))
	}
	return cmp.Or(errs...)
}

// fixed are keys of a scenario that are no axes: two that only describe, and the seeds, which a plan has apart.
var fixed = map[string]bool{"name": true, "about": true, "seed": true, "seeds": true}

// checkAxes makes sure that axes are keys of a scenario, and that variants take values that they have.
func (p *Plan) checkAxes() error {
	if len(p.Axes) > design.MaxAxes {
		return fmt.Errorf("the plan has %d axes: at most %d can vary", len(p.Axes), design.MaxAxes)
	}
	known := scenarios.Keys()
	for i, a := range p.Axes {
		if !slices.Contains(known, a.Name) || fixed[a.Name] {
			return fmt.Errorf("axis %d, %.100q, is no key of a scenario that can vary", i, a.Name)
		}
		if slices.ContainsFunc(p.Axes[:i], func(b Axis) bool { return b.Name == a.Name }) {
			return fmt.Errorf("%s is an axis twice", a.Name)
		}
		for n, v := range a.Values {
			if len(v) > maxText {
				return fmt.Errorf("value %d of %s has %d bytes: at most %d are read", n, a.Name, len(v), maxText)
			}
		}
		if v, twice := repeated(a.Values); twice {
			return fmt.Errorf("%s has the value %s twice", a.Name, v)
		}
	}
	for i, v := range p.Variants {
		if len(v) != len(p.Axes) {
			return fmt.Errorf("variant %d has %d values: there are %d axes", i, len(v), len(p.Axes))
		}
		for a, n := range v {
			if n < 0 || int(n) >= len(p.Axes[a].Values) {
				return fmt.Errorf("variant %d takes value %d of %s: there are %d", i, n, p.Axes[a].Name, len(p.Axes[a].Values))
			}
		}
	}
	if i := twice(p.Variants); i >= 0 {
		return fmt.Errorf("variant %d, %v, is there twice", i, p.Variants[i])
	}
	return nil
}

// define reads the strategy files and the strategies.
func (p *Plan) define() error {
	var defined []*strategies.Preset
	for _, name := range slices.Sorted(maps.Keys(p.Files)) {
		preset, err := strategies.Define(name, []byte(p.Files[name]))
		if err != nil {
			return err
		}
		if preset.Name != name {
			return fmt.Errorf("strategy_files: the text of %s describes %s: a plan has each under its name", name, preset.Name)
		}
		defined = append(defined, preset)
	}
	p.rules, p.owners = nil, nil
	for i, text := range p.Strategies {
		if len(text) > maxWord {
			return fmt.Errorf("strategy %d has %d bytes: at most %d are read", i, len(text), maxWord)
		}
		if name, _, _ := strings.Cut(text, ":"); strings.ContainsAny(name, "./\\") {
			return fmt.Errorf("strategy %d is %s: a plan carries the texts of strategy files, and its strategies have their names", i, text)
		}
		spec, err := strategies.Parse(text, defined...)
		if err != nil {
			return err
		}
		if full := spec.Full(); full != text {
			return fmt.Errorf("strategy %d is %s: a plan has every knob, in order, %s", i, text, full)
		}
		if p.rule(spec.Preset.Name) >= 0 {
			return fmt.Errorf("strategy %d is %s twice: what differs varies, and is a knob", i, spec.Preset.Name)
		}
		p.rules = append(p.rules, spec)
	}
	for k, knob := range p.Knobs {
		if slices.ContainsFunc(p.Knobs[:k], func(a Axis) bool { return a.Name == knob.Name }) {
			return fmt.Errorf("knob %d, %.100q, is named twice", k, knob.Name)
		}
		strategy, name, _ := strings.Cut(knob.Name, ".")
		r := p.rule(strategy)
		if r < 0 {
			return fmt.Errorf("knob %d, %.100q, is no knob of the plan's strategies", k, knob.Name)
		}
		plain, err := p.rules[r].Plain(name)
		if err != nil {
			return fmt.Errorf("knob %d, %.100q, is none: %w", k, knob.Name, err)
		}
		if plain.Full() != p.Strategies[r] {
			return fmt.Errorf("strategy %d is %s: %s varies, so that here it must have its default", r, p.Strategies[r], knob.Name)
		}
		p.owners = append(p.owners, owner{int32(r), name})
	}
	return nil
}

// rule is the index of the strategy of a name, or -1.
func (p *Plan) rule(name string) int {
	return slices.IndexFunc(p.rules, func(s strategies.Spec) bool { return s.Preset.Name == name })
}

// checkSpecs makes sure that strategies are known, or described by the plan itself, that knobs are theirs, and that they may have
// their values.
func (p *Plan) checkSpecs() error {
	if err := p.define(); err != nil {
		return err
	}
	for k, knob := range p.Knobs {
		for n, v := range knob.Values {
			if len(v) > maxWord {
				return fmt.Errorf("value %d of %s has %d bytes: at most %d are read", n, knob.Name, len(v), maxWord)
			}
			canonical, err := p.canonical(k, v)
			if err != nil {
				return err
			}
			if canonical != v {
				return fmt.Errorf("value %d of %s is %s: a plan writes it %s", n, knob.Name, v, canonical)
			}
		}
		if text, twice := repeated(knob.Values); twice {
			return fmt.Errorf("%s has the value %s twice", knob.Name, text)
		}
	}
	for i, row := range p.Specs {
		if len(row) != 1+len(p.Knobs) || row[0] < 0 || int(row[0]) >= len(p.rules) {
			return fmt.Errorf("spec %d is %.100s: it must be the index of one of %d strategies, then of each of %d knobs that of its value", i, fmt.Sprint(row), len(p.rules), len(p.Knobs))
		}
		for k, n := range row[1:] {
			if own := p.owners[k].rule == row[0]; own != (n >= 0) || n < -1 || int(n) >= len(p.Knobs[k].Values) {
				return fmt.Errorf("spec %d takes value %d of %s: there are %d, and -1 is for a strategy that does not have it", i, n, p.Knobs[k].Name, len(p.Knobs[k].Values))
			}
		}
	}
	if i := twice(p.Specs); i >= 0 {
		return fmt.Errorf("spec %d, %v, is there twice", i, p.Specs[i])
	}
	return nil
}

// canonical is a value of a knob as specs write it.
func (p *Plan) canonical(k int, word string) (string, error) {
	o := p.owners[k]
	s, err := p.rules[o.rule].With(o.knob, word)
	return s.Values[o.knob], err
}

// twice finds a row that a list has twice, or returns -1.
func twice(rows [][]int32) int {
	order := make([]int32, len(rows))
	for i := range order {
		order[i] = int32(i)
	}
	slices.SortFunc(order, func(a, b int32) int { return slices.Compare(rows[a], rows[b]) })
	for i := 1; i < len(order); i++ {
		if slices.Equal(rows[order[i-1]], rows[order[i]]) {
			return int(max(order[i-1], order[i]))
		}
	}
	return -1
}

// repeated finds a text that a list has twice. Of a million texts it keeps hashes only.
func repeated(list []string) (text string, twice bool) {
	seed := maphash.MakeSeed()
	sums := make([]uint64, len(list))
	for i, s := range list {
		sums[i] = maphash.String(seed, s)
	}
	slices.Sort(sums)
	for i := 1; i < len(sums); i++ {
		if sums[i] != sums[i-1] {
			continue
		}
		seen := map[string]bool{}
		for _, s := range list {
			if maphash.String(seed, s) == sums[i] && seen[s] {
				return s, true
			}
			if maphash.String(seed, s) == sums[i] {
				seen[s] = true
			}
		}
	}
	return "", false
}

// count checks the pairs and numbers the cells.
func (p *Plan) count() error {
	p.before = make([]int, 1, len(p.Pairs)+1)
	total := 0
	for i, pair := range p.Pairs {
		v, s, n := pair[0], pair[1], pair[2]
		if v < 0 || int(v) >= len(p.Variants) || s < 0 || int(s) >= len(p.Specs) || n < 1 || int(n) > len(p.Seeds) {
			return fmt.Errorf("pair %d is of variant %d and spec %d under %d seeds: there are %d, %d and %d", i, v, s, n, len(p.Variants), len(p.Specs), len(p.Seeds))
		}
		if i > 0 && (v < p.Pairs[i-1][0] || v == p.Pairs[i-1][0] && s <= p.Pairs[i-1][1]) {
			return fmt.Errorf("pair %d does not come after the one before it: pairs are in order of variant, then spec, each once", i)
		}
		if total += int(n); total > maxCells {
			return fmt.Errorf("the plan has more than %d cells", maxCells)
		}
		p.before = append(p.before, total)
	}
	return nil
}

// spec returns spec i. A plan may have a million, so they are kept as indices.
func (p *Plan) spec(i int) (s strategies.Spec, err error) {
	row := p.Specs[i]
	s = p.rules[row[0]]
	for k, n := range row[1:] {
		if n < 0 {
			continue
		}
		if s, err = s.With(p.owners[k].knob, p.Knobs[k].Values[n]); err != nil {
			return s, err
		}
	}
	return s, nil
}

// Spec is spec i as a user writes it, without what has its default.
func (p *Plan) Spec(i int) string {
	s, _ := p.spec(i) // whose values were checked
	return s.String()
}

// VariantSettings are those of a variant beside the plan's own.
func (p *Plan) VariantSettings(variant int) []string { return p.settings(p.Variants[variant]) }

func (p *Plan) settings(variant []int32) []string {
	list := make([]string, len(p.Axes))
	for a, n := range variant {
		list[a] = p.Axes[a].Name + "=" + p.Axes[a].Values[n]
	}
	return list
}

// Encode returns the plan as ReadPlan reads it, the same bytes for equal plans.
func (p *Plan) Encode() []byte {
	var b bytes.Buffer
	_ = p.WriteText(&b) // a buffer takes everything
	return b.Bytes()
}

// WriteText writes what Encode returns, the long lists item by item.
func (p *Plan) WriteText(w io.Writer) error {
	short := *p
	short.Variants, short.Specs, short.Pairs = nil, nil, nil
	text, _ := json.Marshal(&short)                           // plain values only, so it cannot fail
	const lists = `"variants":null,"specs":null,"pairs":null` // which is in no string, where its quotes would be escaped
	before, after, _ := bytes.Cut(text, []byte(lists))
	b := bufio.NewWriterSize(w, 1<<16)
	b.Write(before)
	writeList(b, `"variants":`, p.Variants)
	writeList(b, `,"specs":`, p.Specs)
	writeList(b, `,"pairs":`, p.Pairs)
	b.Write(after)
	b.WriteByte('\n')
	return b.Flush() // which has the first error
}

// writeWithin is WriteText of a plan that ReadPlan may read again: of at most so many bytes.
func (p *Plan) writeWithin(w io.Writer, most int) error {
	return p.WriteText(&bounded{w, most})
}

// bounded is a writer that takes so many bytes.
type bounded struct {
	w    io.Writer
	left int
}

func (b *bounded) Write(text []byte) (int, error) {
	if b.left -= len(text); b.left < 0 {
		return 0, fmt.Errorf("the plan would be too large to be read again, which takes at most %d bytes: try fewer points, or vary less", maxPlan)
	}
	return b.w.Write(text)
}

// writeList writes a list in pieces.
func writeList[T any](b *bufio.Writer, name string, list []T) {
	b.WriteString(name)
	b.WriteByte('[')
	const piece = 1024
	for from := 0; from < len(list); from += piece {
		text, _ := json.Marshal(list[from:min(from+piece, len(list))])
		if from > 0 {
			b.WriteByte(',')
		}
		b.Write(text[1 : len(text)-1])
	}
	b.WriteByte(']')
}

// Hash names the plan.
func (p *Plan) Hash() string {
	if p.hash == "" {
		sum := sha256.New()
		_ = p.WriteText(sum) // a hash takes everything
		p.hash = hex.EncodeToString(sum.Sum(nil)[:8])
	}
	return p.hash
}

// Cells is the number of cells.
func (p *Plan) Cells() int { return p.before[len(p.Pairs)] }

// First is the number of the first cell of a pair; of the pair behind the last one it is the number of all cells.
func (p *Plan) First(pair int) int { return p.before[pair] }

// Cell is one cell of a plan. Cells are numbered in the order of pairs, and within a pair of seeds.
type Cell struct {
	Index         int
	Variant, Spec int
	Seed          uint64
}

// Unit is the smallest piece of work: the cells of some pairs of one variant under one seed, which share their tokens.
type Unit struct {
	From, To int // pairs
	Seed     int // of the plan's, by index
}

// lockstep is the largest number of strategies that run side by side on the same tokens.
const lockstep = 16

// Units cuts a plan into units, in order of variant, then seed. Each has a cell.
func (p *Plan) Units() (units []Unit) {
	for from := 0; from < len(p.Pairs); {
		to := from
		most := int32(0)
		for to < len(p.Pairs) && p.Pairs[to][0] == p.Pairs[from][0] {
			most = max(most, p.Pairs[to][2])
			to++
		}
		for seed := range int(most) {
			for at := from; at < to; at += lockstep {
				u := Unit{at, min(at+lockstep, to), seed}
				if slices.ContainsFunc(p.Pairs[u.From:u.To], func(pair [3]int32) bool { return seed < int(pair[2]) }) {
					units = append(units, u)
				}
			}
		}
		from = to
	}
	return units
}

// Of returns the cells of a unit.
func (p *Plan) Of(u Unit) (cells []Cell) {
	for i := u.From; i < u.To; i++ {
		if pair := p.Pairs[i]; u.Seed < int(pair[2]) {
			cells = append(cells, Cell{p.before[i] + u.Seed, int(pair[0]), int(pair[1]), p.Seeds[u.Seed]})
		}
	}
	return cells
}
