package plots

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strings"

	"evenkeel/moe"
	"evenkeel/sim"
)

// sample says what a synthetic result is like.
type sample struct {
	specs               []string
	experts, steps      int
	seeds               int
	domains             []string
	events              []moe.Mark
	withoutBias, hollow bool // hollow: every number that may be NaN is
}

// usual is a run as somebody would publish it.
var usual = sample{
	specs:   []string{"none", "loss-free", "aux-loss:coeff=0.01", "aux-loss:coeff=0.1", "aux-loss:coeff=0.3", "balanced-optimum"},
	experts: 64, steps: 500, seeds: 3, domains: []string{"web", "code", "maths", "dialogue"},
	events: []moe.Mark{{Step: 250, Label: "domain mix shifts"}},
}

// behaviour is how a synthetic strategy acts: the share of the imbalance that it leaves and how fast, and what that costs.
type behaviour struct{ left, rate, lost float64 }

func behaviourOf(spec string) behaviour {
	switch {
	case spec == "none":
		return behaviour{1, 1, 0.005}
	case strings.HasPrefix(spec, "loss-free"):
		return behaviour{0.03, 0.015, 0.039}
	case strings.HasPrefix(spec, "balanced"):
		return behaviour{0, 1, 0.028}
	case strings.HasPrefix(spec, "aux-loss"):
		coeff := 0.03
		fmt.Sscanf(spec, "aux-loss:coeff=%g", &coeff)
		return behaviour{0.05 + 0.02/(coeff+0.025), 0.02 + coeff/4, 0.065 + 0.025*math.Log10(coeff/0.03)}
	default:
		return behaviour{0.5, 0.05, 0.1}
	}
}

// result draws the synthetic result.
func (m sample) result() *sim.Result {
	const tokens, topK = 2048, 6
	r := &sim.Result{
		Layer: moe.Layer{Experts: m.experts, TopK: min(topK, m.experts), Width: 64, Groups: 1, GroupsKept: 1},
		Facts: moe.Facts{Latent: true, Sequences: true, Domains: m.domains, Events: m.events},
		Steps: m.steps, Tokens: tokens, MicroBatches: 4, Ranks: 1, Evaluation: 65536, Router: "learned",
	}
	for i := range m.seeds {
		r.Seeds = append(r.Seeds, uint64(i+1))
	}
	for i, spec := range m.specs {
		name, _, _ := strings.Cut(spec, ":")
		bound := strings.HasPrefix(name, "balanced")
		s := &sim.StrategyResult{
			Traits: moe.Traits{Name: name, Spec: spec, Causal: !bound && !strings.HasPrefix(name, "expert-choice"), Bound: bound},
		}
		for _, seed := range r.Seeds {
			s.Runs = append(s.Runs, m.run(r, s.Traits, seed, uint64(i)))
		}
		s.Metrics = m.metrics(r, s)
		r.Strategies = append(r.Strategies, s)
	}
	return r
}

// run draws one strategy's run on one seed. The popularity of the experts hangs on the seed alone.
func (m sample) run(r *sim.Result, traits moe.Traits, seed, strategy uint64) *sim.Run {
	world, chance := rand.New(rand.NewPCG(seed, 0)), rand.New(rand.NewPCG(seed, 1+strategy))
	b := behaviourOf(traits.Spec)
	noise := math.Sqrt(float64(m.experts) / float64(r.Tokens*r.Layer.TopK))
	popularity, bias := normals(world, m.experts, 0.7), make([]float64, m.experts)
	run := &sim.Run{Seed: seed}
	left := 1.0
	for step := range m.steps {
		for _, e := range m.events {
			if e.Step == step {
				for i, x := range normals(world, m.experts, 0.5) {
					popularity[i] = 0.7*popularity[i] + x
				}
				left = min(1, left+0.4)
			}
		}
		left += b.rate * (b.left - left)
		load := loadsOf(popularity, left)
		for i := range load {
			load[i] = max(0, load[i]+noise*math.Sqrt(load[i])*chance.NormFloat64())
			bias[i] += 1e-3 * math.Copysign(1, 1-load[i])
		}
		if traits.Bound {
			if step%max(1, m.steps/8) != 0 {
				continue
			}
			load = loadsOf(popularity, 0)
		}
		row := sim.StepRow{Step: step, MaxVio: maxOf(load) - 1}
		if m.hollow {
			row.MaxVio = math.NaN()
		}
		run.Steps = append(run.Steps, row)
		if step%max(1, m.steps/250) == 0 {
			run.Shots = append(run.Shots, m.shot(traits, step, load, bias))
		}
	}
	for range m.domains {
		run.Domains = append(run.Domains, loadsOf(normals(world, m.experts, 1), 0.4+0.6*left))
	}
	return run
}

func (m sample) shot(traits moe.Traits, step int, load, bias []float64) sim.Shot {
	x := sim.Shot{Step: step}
	biased := !m.withoutBias && (strings.HasPrefix(traits.Name, "loss-free") || strings.HasPrefix(traits.Name, "bias"))
	for i := range load {
		x.Load = append(x.Load, float32(load[i]))
		if biased {
			x.Bias = append(x.Bias, float32(bias[i]))
		}
		if m.hollow {
			x.Load[i] = float32(math.NaN())
		}
	}
	return x
}

func (m sample) metrics(r *sim.Result, s *sim.StrategyResult) map[string]sim.Estimate {
	b := behaviourOf(s.Traits.Spec)
	estimate := func(mean, half, floor float64) sim.Estimate {
		e := sim.Estimate{Mean: mean, Floor: &floor}
		if m.seeds > 1 {
			low, high := mean-half, mean+half
			e.Low, e.High = &low, &high
		}
		return e
	}
	if m.hollow {
		return map[string]sim.Estimate{"maxvio_global": {Mean: math.NaN()}, "affinity_kept": {Mean: math.NaN()}}
	}
	global := 2.6 * b.left
	kept := estimate(1-b.lost, 0.002+b.lost/20, 0)
	kept.Floor = nil
	return map[string]sim.Estimate{
		"maxvio_batch":  estimate(global+0.15, 0.1*global, 0.17),
		"maxvio_global": estimate(global, 0.15*global, 0.031),
		"affinity_kept": kept,
	}
}

// loadsOf are the relative loads of experts whose popularity shows to some share.
func loadsOf(popularity []float64, share float64) []float64 {
	load, sum := make([]float64, len(popularity)), 0.0
	for i, p := range popularity {
		load[i] = math.Exp(share * p)
		sum += load[i]
	}
	for i := range load {
		load[i] *= float64(len(load)) / sum
	}
	return load
}

func normals(r *rand.Rand, n int, deviation float64) []float64 {
	x := make([]float64, n)
	for i := range x {
		x[i] = deviation * r.NormFloat64()
	}
	return x
}

func maxOf(x []float64) float64 {
	m := math.Inf(-1)
	for _, v := range x {
		m = max(m, v)
	}
	return m
}
