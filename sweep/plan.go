// Package sweep runs many experiments: a plan of cells, each a scenario with settings, a strategy and a seed; a store of what
// finished; shards that any engine may run; and the tables that are made of them.
//
// A cell is independent and deterministic, and its name is the hash of what it computes, so that it does not matter who runs
// it, when, how often, or beside which others: the reading order is plan → shard → store → tables. What values a plan tries is
// decided in package design, what a cell computes in packages experiment and sim, what tables mean in package stat.
package sweep

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"evenkeel/experiment"
	"evenkeel/internal/whole"
	"evenkeel/scenarios"
	"evenkeel/sim"
	"evenkeel/strategies"
)

// Format is the version of plans and results. Results of another one are never mixed with this one's.
const Format = 1

// Plan is everything that a sweep computes.
type Plan struct {
	Format   int               `json:"format"`
	Scenario scenarios.Text    `json:"scenario"`
	Settings []string          `json:"settings,omitempty"` // key=value, of every cell
	Files    map[string]string `json:"strategy_files,omitempty"`
	Axes     []string          `json:"axes"`     // what varies, by name: a key of the scenario, or strategy.knob
	Design   string            `json:"design"`   // in words, for people
	Variants [][]string        `json:"variants"` // further settings of the scenario
	Specs    []string          `json:"specs"`    // strategies with all their knobs
	// Pairs are the combinations of a variant and a spec that are run, each under every seed.
	Pairs [][2]int32 `json:"pairs"`
	Seeds []uint64   `json:"seeds"`
	Steps int        `json:"recorded_steps"` // steps of a cell that are kept, evenly spaced; 0 for none
	Loads bool       `json:"recorded_loads"` // whether the loads of experts at those steps are kept

	hash  string
	specs []strategies.Spec // parsed
}

// Limits of a plan that somebody else may have written.
const (
	maxPlan  = 1 << 30 // bytes
	maxCells = 1 << 28
)

// ReadPlan reads a plan and checks it, but for what only running a cell tells.
func ReadPlan(name string) (*Plan, error) {
	info, err := os.Stat(name)
	if err != nil {
		return nil, whole.Located(err)
	}
	if info.Size() > maxPlan {
		return nil, fmt.Errorf("%s has %d bytes: a plan has at most %d", name, info.Size(), maxPlan)
	}
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, whole.Located(err)
	}
	p, err := DecodePlan(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return p, nil
}

// DecodePlan is ReadPlan of a text.
func DecodePlan(text []byte) (*Plan, error) {
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	p := new(Plan)
	if err := d.Decode(p); err != nil {
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

// Check says what is wrong with a plan.
func (p *Plan) Check() error {
	switch {
	case p.Format != Format:
		return fmt.Errorf("the plan has format %d, and this program writes and reads %d: use the program that made it", p.Format, Format)
	case len(p.Variants) == 0 || len(p.Specs) == 0 || len(p.Pairs) == 0 || len(p.Seeds) == 0:
		return errors.New("the plan has no cells: it needs at least one variant, spec, pair and seed")
	case len(p.Pairs) > maxCells/len(p.Seeds):
		return fmt.Errorf("the plan has %d pairs under %d seeds: more than %d cells", len(p.Pairs), len(p.Seeds), maxCells)
	case p.Steps < 0 || p.Steps > 1e6:
		return fmt.Errorf("recorded_steps is %d: it must be 0 to 1000000", p.Steps)
	}
	for i, pair := range p.Pairs {
		if pair[0] < 0 || int(pair[0]) >= len(p.Variants) || pair[1] < 0 || int(pair[1]) >= len(p.Specs) {
			return fmt.Errorf("pair %d is of variant %d and spec %d: there are %d and %d", i, pair[0], pair[1], len(p.Variants), len(p.Specs))
		}
		if i > 0 && (pair[0] < p.Pairs[i-1][0] || pair[0] == p.Pairs[i-1][0] && pair[1] <= p.Pairs[i-1][1]) {
			return fmt.Errorf("pair %d does not come after the one before it: pairs are in order of variant, then spec, each once", i)
		}
	}
	seen := map[uint64]bool{}
	for _, s := range p.Seeds {
		if seen[s] {
			return fmt.Errorf("seed %d is given twice: equal seeds give equal runs", s)
		}
		seen[s] = true
	}
	var defined []*strategies.Preset
	for name, text := range p.Files {
		preset, err := strategies.Define(name, []byte(text))
		if err != nil {
			return err
		}
		defined = append(defined, preset)
	}
	p.specs = nil
	for _, text := range p.Specs {
		spec, err := strategies.Parse(text, defined...)
		if err != nil {
			return err
		}
		p.specs = append(p.specs, spec)
	}
	return nil
}

// Encode returns the plan as ReadPlan reads it, the same bytes for equal plans.
func (p *Plan) Encode() []byte {
	text, _ := json.Marshal(p) // plain values only, so it cannot fail
	return append(text, '\n')
}

// Hash names the plan.
func (p *Plan) Hash() string {
	if p.hash == "" {
		sum := sha256.Sum256(p.Encode())
		p.hash = hex.EncodeToString(sum[:8])
	}
	return p.hash
}

// Cells is the number of cells.
func (p *Plan) Cells() int { return len(p.Pairs) * len(p.Seeds) }

// Cell is one cell of a plan: cell i is of pair i/seeds and of seed i%seeds.
type Cell struct {
	Index         int
	Variant, Spec int
	Seed          uint64
}

// Cell returns cell i.
func (p *Plan) Cell(i int) Cell {
	pair := p.Pairs[i/len(p.Seeds)]
	return Cell{i, int(pair[0]), int(pair[1]), p.Seeds[i%len(p.Seeds)]}
}

// Name is the hash that names a cell.
type Name [16]byte

// String is the name in hexadecimal digits.
func (n Name) String() string { return hex.EncodeToString(n[:]) }

// names computes the names of cells. What all cells or many share is hashed once.
type names struct {
	p        *Plan
	variants [][32]byte // of the scenario with its settings
	specs    [][32]byte
}

// newNames prepares the names of a plan's cells: the hash of the format, the text and the settings of the scenario, what is
// recorded, the strategy with its revision, and the seed. Where the file of a trace lies is no part of it, its checksum is.
func newNames(p *Plan) *names {
	n := &names{p: p}
	for _, settings := range p.Variants {
		all := slices.DeleteFunc(slices.Concat(p.Settings, settings), func(s string) bool { return strings.HasPrefix(s, traceFile) })
		text, _ := json.Marshal([]any{Format, p.Scenario.Name, p.Scenario.YAML, all, p.Steps, p.Loads})
		n.variants = append(n.variants, sha256.Sum256(text))
	}
	for _, spec := range p.specs {
		text, _ := json.Marshal([]any{spec.Full(), spec.Preset.Revision, string(spec.Preset.Source())})
		n.specs = append(n.specs, sha256.Sum256(text))
	}
	return n
}

func (n *names) of(c Cell) (name Name) {
	var text [32 + 32 + 20]byte
	b := append(text[:0], n.variants[c.Variant][:]...)
	b = append(b, n.specs[c.Spec][:]...)
	b = strconv.AppendUint(b, c.Seed, 10)
	sum := sha256.Sum256(b)
	copy(name[:], sum[:])
	return name
}

const traceFile = "trace.file=" // begins a setting

// lockstep is the largest number of strategies that run side by side on the same tokens.
const lockstep = 16

// Unit is the smallest piece of work: cells of one variant and seed, which share their tokens. It is a range of pairs.
type Unit struct {
	From, To int // pairs
	Seed     int // of the plan's, by index
}

// Units cuts a plan into units, in order of variant, then seed.
func (p *Plan) Units() (units []Unit) {
	for from := 0; from < len(p.Pairs); {
		to := from
		for to < len(p.Pairs) && p.Pairs[to][0] == p.Pairs[from][0] {
			to++
		}
		for seed := range p.Seeds {
			for at := from; at < to; at += lockstep {
				units = append(units, Unit{at, min(at+lockstep, to), seed})
			}
		}
		from = to
	}
	return units
}

// Base is what a plan is made of beside the values that it tries.
type Base struct {
	Scenario string   // reference; see scenarios.Find
	Settings []string // key=value
	Layer    int      // of a trace; negative: as the scenario says
	Seeds    []uint64 // empty: the scenario's
	Steps    int
	Loads    bool
}

// Combination is a variant's settings and a strategy.
type Combination struct {
	Settings []string
	Spec     strategies.Spec
}

// New makes the plan of some combinations. It decides once for all cells what learns, since a cell must not depend on which
// others run beside it.
func New(b Base, axes []string, words string, list []Combination) (*Plan, error) {
	text, err := scenarios.Find(b.Scenario)
	if err != nil {
		return nil, err
	}
	p := &Plan{Format: Format, Scenario: text, Settings: slices.Clone(b.Settings), Axes: axes, Design: words, Seeds: b.Seeds, Steps: b.Steps, Loads: b.Loads}
	if len(list) == 0 {
		return nil, errors.New("there is nothing to vary: name a strategy by -s or values by --vary")
	}
	s, err := text.Load(slices.Concat(b.Settings, list[0].Settings), b.Layer)
	if err != nil {
		return nil, err
	}
	if s.Trace != nil {
		p.Settings = append(p.Settings, "trace.layer="+strconv.Itoa(s.Trace.Layer), "trace.sha256="+s.Trace.SHA256)
		if !s.Trace.Embedded() {
			file, err := filepath.Abs(s.Trace.File)
			if err != nil {
				return nil, err
			}
			p.Settings = append(p.Settings, traceFile+strconv.Quote(file))
		}
	}
	if len(p.Seeds) == 0 {
		p.Seeds = s.Seeds
	}
	var all []strategies.Spec
	seen := map[string]bool{}
	for _, c := range list {
		if full := c.Spec.Full(); !seen[full] {
			seen[full] = true
			all = append(all, c.Spec)
		}
	}
	x, err := experiment.New(s, all)
	if err != nil {
		return nil, err
	}
	if s.Router.Mode == "auto" {
		mode := sim.Learned
		if x.Mode == sim.Frozen {
			mode = sim.Frozen
		}
		p.Settings = append(p.Settings, "router.mode="+mode)
	}
	if err := p.add(list); err != nil {
		return nil, err
	}
	return p, p.Check()
}

// add enters the combinations, each once, in the order of pairs.
func (p *Plan) add(list []Combination) error {
	variants, specs := map[string]int32{}, map[string]int32{}
	pairs := map[[2]int32]bool{}
	for _, c := range list {
		key := strings.Join(c.Settings, "\x00")
		v, ok := variants[key]
		if !ok {
			v = int32(len(p.Variants))
			variants[key] = v
			p.Variants = append(p.Variants, append([]string{}, c.Settings...))
		}
		full := c.Spec.Full()
		s, ok := specs[full]
		if !ok {
			s = int32(len(p.Specs))
			specs[full] = s
			p.Specs = append(p.Specs, full)
			if text := c.Spec.Preset.Source(); text != nil {
				if p.Files == nil {
					p.Files = map[string]string{}
				}
				p.Files[c.Spec.Preset.Name] = string(text)
			}
		}
		pairs[[2]int32{v, s}] = true
	}
	p.Pairs = p.Pairs[:0]
	for pair := range pairs {
		p.Pairs = append(p.Pairs, pair)
	}
	slices.SortFunc(p.Pairs, func(a, b [2]int32) int {
		if a[0] != b[0] {
			return int(a[0] - b[0])
		}
		return int(a[1] - b[1])
	})
	return nil
}
