// Package experiment puts a scenario and strategies together: it decides what learns, refuses what cannot act, and makes the
// configuration that package sim runs. Commands and sweeps begin here; what a run computes lives in sim.
package experiment

import (
	"errors"
	"fmt"
	"runtime"

	"evenkeel/moe"
	"evenkeel/scenarios"
	"evenkeel/sim"
	"evenkeel/strategies"
)

// LearnedExperts is the value of a scenario's task.experts where experts learn.
const LearnedExperts = "learned"

// Experiment is a comparison, resolved: strategies on one stream.
type Experiment struct {
	Scenario *scenarios.Scenario
	Specs    []strategies.Spec
	Mode     string // what moves: sim.Frozen, sim.Learned or sim.Offsets
	Why      string // why the router learns or does not
}

// New puts a scenario and strategies together and decides what learns. Errors are one sentence that says what cannot act, and the
// way out.
func New(s *scenarios.Scenario, specs []strategies.Spec) (*Experiment, error) {
	x := &Experiment{Scenario: s, Specs: specs}
	seen := map[string]bool{}
	for _, spec := range specs {
		if seen[spec.String()] {
			return nil, fmt.Errorf("strategy %s is asked for twice: a comparison has each once", spec)
		}
		seen[spec.String()] = true
	}
	facts, layer := s.Facts(), s.Layer()
	if facts.Level == scenarios.LevelChoices {
		out := "dump the router's logits, or look at it with evenkeel inspect"
		if s.Trace.Weighted() {
			out = "dump the router's logits, assume the unseen scores by --set trace.complete=flat or popularity, or look at it with evenkeel inspect"
		}
		return nil, fmt.Errorf("%s cannot be compared: measuring what a choice costs needs the scores of all experts, and %s holds choices only; %s", x.Specs[0], s.Trace.File, out)
	}
	if s.Router.Mode == sim.Learned && layer.Score == moe.Stored {
		return nil, errors.New("--router learned: this stream carries scores, not logits, so no router can learn on it; leave it out or use --router frozen")
	}
	loss := false
	for _, spec := range x.Specs {
		r, err := spec.Build(layer)
		if err != nil {
			return nil, err
		}
		loss = loss || r.Traits().Loss
	}
	x.decide(facts, layer, loss)
	s.SettleSteps(x.Mode == sim.Frozen)
	return x, nil
}

// decide fixes what moves; see section "What learns" of the README.
func (x *Experiment) decide(f moe.Facts, l moe.Layer, loss bool) {
	learned := sim.Learned
	if !f.Latent {
		learned = sim.Offsets
	}
	switch mode := x.Scenario.Router.Mode; {
	case mode == sim.Frozen:
		x.Mode, x.Why = sim.Frozen, "as asked"
	case l.Score == moe.Stored:
		x.Mode, x.Why = sim.Frozen, "the stream carries scores, so nothing can learn"
	case mode == sim.Learned:
		x.Mode, x.Why = learned, "as asked"
	case loss:
		x.Mode, x.Why = learned, "a strategy has a loss"
	case f.Trace:
		x.Mode, x.Why = sim.Frozen, "a trace, and no strategy has a loss"
	case !f.Latent:
		x.Mode, x.Why = sim.Frozen, "no latent vectors, and no strategy has a loss"
	default:
		x.Mode, x.Why = learned, "the default"
	}
}

// Config returns what the step loop runs. Workers that are 0 are as many as there are processors.
func (x *Experiment) Config(workers int) (*sim.Config, error) {
	s := x.Scenario
	if workers == 0 {
		workers = runtime.GOMAXPROCS(0)
	}
	c := &sim.Config{
		Layer: s.Layer(), Facts: s.Facts(), Tokens: s.Tokens, Distinct: s.Distinct(), MicroBatches: s.MicroBatches, Ranks: s.Ranks, Steps: s.Steps,
		Seeds: s.Seeds, WorldSeed: s.WorldSeed, Stream: s.Stream, Workers: workers,
		Experts: sim.ExpertsConfig{Learn: s.Task.Experts == LearnedExperts, Rate: s.Task.Rate, Hidden: s.Task.Hidden, Regions: s.Task.Regions, Shared: s.Task.Shared},
		Router:  sim.RouterConfig{Mode: x.Mode, Rate: s.Router.Rate, Oracle: s.Router.Init == "oracle"},
	}
	for _, spec := range x.Specs {
		c.Strategies = append(c.Strategies, func() (moe.Strategy, error) { return spec.Build(c.Layer) })
	}
	if c.Router.Oracle && c.Router.Mode == sim.Learned && s.Stream(s.Seeds[0]).OracleRouter() == nil {
		return nil, errors.New("router.init is oracle, but this stream knows no router: use router.init=random")
	}
	return c, nil
}
