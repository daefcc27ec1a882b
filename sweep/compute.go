package sweep

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"evenkeel/experiment"
	"evenkeel/moe"
	"evenkeel/scenarios"
	"evenkeel/sim"
	"evenkeel/strategies"
)

// Computer runs the cells of a plan. Its methods may be called by several goroutines.
type Computer struct {
	Memory float64 // bytes that cells which run side by side may take; 0: any

	p *Plan

	mu     sync.Mutex
	loaded []variant // scenarios of the last variants, the newest first
}

// variant is a scenario that was loaded, or why it cannot be.
type variant struct {
	index int
	s     *scenarios.Scenario
	err   error
}

// remembered is how many variants a computer keeps: units come in order of variant, so few are in use at once.
const remembered = 8

// NewComputer returns what runs the cells of a plan.
func NewComputer(p *Plan) *Computer { return &Computer{p: p} }

// scenario returns that of a variant, for one seed.
func (c *Computer) scenario(index int, seed uint64) (*scenarios.Scenario, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	at := slices.IndexFunc(c.loaded, func(v variant) bool { return v.index == index })
	if at < 0 {
		s, err := c.p.Scenario.LoadPinned(append(slices.Concat(c.p.Settings, c.p.VariantSettings(index)), "seeds=["+strconv.FormatUint(seed, 10)+"]"))
		if elsewhere(err) {
			return nil, err // and may be mended
		}
		if len(c.loaded) == remembered {
			c.loaded = c.loaded[:remembered-1]
		}
		c.loaded = slices.Insert(c.loaded, 0, variant{index, s, err})
		at = 0
	}
	v := c.loaded[at]
	if v.err != nil {
		return nil, v.err
	}
	return v.s.Replicate(seed), nil
}

// Compute runs cells of one variant and seed side by side and returns their records. What cannot act there has a record that
// says why. The error is ctx's, or of this machine: the cells would take more than Memory, or their trace is not here.
func (c *Computer) Compute(ctx context.Context, cells []Cell) ([]*Record, error) {
	records := make([]*Record, len(cells))
	fail := func(err error) ([]*Record, error) {
		for i := range records {
			if records[i] == nil {
				records[i] = &Record{Failed: err.Error()}
			}
		}
		return records, nil
	}
	config, at, err := c.config(cells, records)
	switch {
	case elsewhere(err):
		return nil, err
	case err != nil:
		return fail(err)
	case len(at) == 0:
		return records, nil
	}
	r, err := sim.Compare(ctx, config)
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if err != nil && len(at) == 1 {
		return fail(err)
	}
	if err != nil { // of one of them: the others must not know
		for _, i := range at {
			alone, err := c.Compute(ctx, cells[i:i+1])
			if err != nil {
				return nil, err
			}
			records[i] = alone[0]
		}
		return records, nil
	}
	for n, i := range at {
		records[i] = c.p.record(r.Strategies[n])
	}
	return records, nil
}

// elsewhere reports whether an error is of this machine, so that another may do better: it lacks memory, or a trace.
func elsewhere(err error) bool {
	var other scenarios.OtherTrace
	var system syscall.Errno
	return errors.Is(err, errMemory) || errors.As(err, &other) || errors.As(err, &system)
}

// errMemory is that cells need more memory than there is, which says nothing about the cells.
var errMemory = errors.New("take fewer --workers, or a larger machine")

// Reachable says why this machine cannot run a plan that others can: the file of its trace is not here, or not the same.
func (c *Computer) Reachable() error {
	p := c.p
	reads := func(s string) bool { return strings.HasPrefix(s, traceFile) }
	named := false
	for _, s := range p.Settings {
		named = named || reads(s)
	}
	for _, a := range p.Axes {
		named = named || reads(a.Name+"=")
	}
	if !named {
		return nil
	}
	var first error
	for i := range min(len(p.Variants), checked) {
		_, err := c.scenario(i, p.Seeds[0])
		if err == nil {
			return nil
		}
		if first == nil {
			first = err
		}
	}
	return first
}

// config makes the configuration of those cells that can act on their variant, and lists them; of the others it fills the records.
func (c *Computer) config(cells []Cell, records []*Record) (config *sim.Config, at []int, err error) {
	s, err := c.scenario(cells[0].Variant, cells[0].Seed)
	if err != nil {
		return nil, nil, err
	}
	layer := s.Layer()
	var specs []strategies.Spec
	var traits []moe.Traits
	for i, cell := range cells {
		spec, err := c.p.spec(cell.Spec)
		if err != nil {
			return nil, nil, err
		}
		r, err := spec.Build(layer)
		if err != nil {
			records[i] = &Record{Failed: err.Error()}
			continue
		}
		specs, traits, at = append(specs, spec), append(traits, r.Traits()), append(at, i)
	}
	if len(specs) == 0 {
		return nil, nil, nil
	}
	x, err := experiment.New(s, specs)
	if err != nil {
		return nil, nil, err
	}
	if config, err = x.Config(1); err != nil {
		return nil, nil, err
	}
	if need := float64(config.Memory()); c.Memory > 0 && need > c.Memory {
		const gib = 1 << 30
		return nil, nil, fmt.Errorf("cell %d and those beside it need about %.1f GiB of memory, and %.1f GiB are free for them: %w", cells[0].Index, need/gib, c.Memory/gib, errMemory)
	}
	if err := c.p.tooLong(config); err != nil {
		return nil, nil, err
	}
	if c.p.Loads {
		config.Shots = c.p.recorded(config.Steps)
	}
	all, list := at, config.Strategies
	at, config.Strategies = nil, nil
	for n, i := range all {
		if err := config.Refuse(traits[n]); err != nil {
			records[i] = &Record{Failed: err.Error()}
			continue
		}
		at, config.Strategies = append(at, i), append(config.Strategies, list[n])
	}
	return config, at, nil
}

// tooLong says that a record would be longer than a line of a result file may be.
func (p *Plan) tooLong(c *sim.Config) error {
	const number = 26 // bytes of one at most, with a comma
	each := len(stepColumns) * (number + len("regret_to_optimum"))
	if p.Loads {
		each += number * c.Layer.Experts
	}
	if n := min(p.Steps, c.Steps); n*each > maxLine/2 {
		return fmt.Errorf("the record of a cell would be longer than %d bytes with %d steps of %d experts: record fewer steps", maxLine/2, n, c.Layer.Experts)
	}
	return nil
}

// recorded are the indices of the steps that are kept of a run of n.
func (p *Plan) recorded(n int) []int {
	list := make([]int, min(p.Steps, n))
	for i := range list {
		list[i] = (i+1)*n/len(list) - 1
	}
	return list
}

// record keeps what a plan asks for of a run.
func (p *Plan) record(s *sim.StrategyResult) *Record {
	run := s.Runs[0]
	r := &Record{Kind: s.Traits.Kind(), Values: finite(run.Values), Warnings: s.Warnings}
	for key, e := range s.Metrics {
		if e.Floor != nil {
			if r.Floors == nil {
				r.Floors = map[string]float64{}
			}
			r.Floors[key] = *e.Floor
		}
	}
	if p.Steps == 0 {
		return r
	}
	shots := run.Shots
	for _, i := range p.recorded(len(run.Steps)) {
		row := &run.Steps[i]
		s := StepOfCell{Step: row.Step, Values: finite(stepValues(row))}
		if p.Loads {
			if j, ok := slices.BinarySearchFunc(shots, row.Step, func(s sim.Shot, step int) int { return s.Step - step }); ok {
				s.Loads = shots[j].Load
			}
		}
		r.Steps = append(r.Steps, s)
	}
	return r
}

// finite leaves out what JSON has no number for.
func finite(values map[string]float64) map[string]float64 {
	for k, v := range values {
		if math.IsNaN(v) || math.IsInf(v, 0) {
			delete(values, k)
		}
	}
	return values
}

// stepValues are the figures of a step, by the names of steps.csv.
func stepValues(r *sim.StepRow) map[string]float64 {
	return map[string]float64{"maxvio": r.MaxVio, "maxvio_sequence": r.MaxVioSequence, "maxvio_device": r.MaxVioDevice, "load_variance": r.LoadVariance,
		"drop_rate": r.DropRate, "affinity_kept": r.AffinityKept, "layer_error": r.LayerError, "balance_loss": r.BalanceLoss,
		"regret_to_optimum": r.RegretToOptimum, "bias_spread": r.BiasSpread, "bias_mean": r.BiasMean}
}
