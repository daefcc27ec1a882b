package sim_test

import (
	"math"
	"testing"

	"evenkeel/sim"
)

// Rules of whole batches do to aggregated tokens what they do to each: over many seeds, in one world, every figure of a run that
// was drawn token by token and of one that was aggregated agrees at three and a half standard errors (some 40 are compared).
func TestAggregatedRunsAgreeWithTokenByToken(t *testing.T) {
	settings := []string{"tokens=1024", "evaluation_tokens=4096", "sequence_length=1", "micro_batches=1", "experts=16", "topk=3", "groups=4", "groups_kept=2", "width=16", "steps=40",
		"synthetic.vocabulary=300", "world_seed=7", "seeds=[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24]",
		"synthetic.energy={type: 0.8, domain: 0.2, sequence: 0, noise: 0}"}
	specs := []string{"none", "loss-free:rate=0.01", "loss-free:rate=0.03,rule=proportional", "aux-loss:coeff=0.1", "z-loss", "multiplicative-bias:rate=0.03"}
	one := run(t, configure(t, "pretraining", append(settings, "aggregate=false"), sim.Learned, specs...))
	many := run(t, configure(t, "pretraining", append(settings, "aggregate=true"), sim.Learned, specs...))
	compared := 0
	for i, s := range one.Strategies {
		for _, key := range []string{"maxvio_batch", "maxvio_global", "load_variance", "affinity_kept", "affinity_total", "output_error", "choice_agreement", "rank_displacement", "gate_sum", "bias_spread",
			"maxvio_device", "domain_information"} {
			a, b := moments(s, key), moments(many.Strategies[i], key)
			if a.n == 0 && b.n == 0 {
				continue
			}
			compared++
			if a.n != b.n {
				t.Errorf("%s: %s has %v and %v seeds", s.Traits.Spec, key, a.n, b.n)
			}
			z := (a.mean - b.mean) / math.Sqrt((a.variance+b.variance)/a.n+1e-12)
			if math.Abs(z) > 3.5 {
				t.Errorf("%s: %s is %.5f token by token and %.5f aggregated: %.1f standard errors", s.Traits.Spec, key, a.mean, b.mean, z)
			}
			if ratio := a.variance / b.variance; a.variance > 1e-12 && (ratio > 5 || ratio < 0.2) {
				t.Errorf("%s: the variance of %s over seeds is %.3g token by token and %.3g aggregated", s.Traits.Spec, key, a.variance, b.variance)
			}
		}
	}
	if compared < 40 {
		t.Errorf("%d figures were compared", compared)
	}
	var steps [2][]float64
	for i, r := range []*sim.Result{one, many} {
		for _, x := range r.Strategies[3].Runs {
			steps[i] = append(steps[i], x.Steps[20].BalanceLoss, x.Steps[20].LayerError)
		}
	}
	for i := range 2 {
		a, b := 0.0, 0.0
		for j := i; j < len(steps[0]); j += 2 {
			a += steps[0][j] / 24
			b += steps[1][j] / 24
		}
		if math.Abs(a-b) > 0.02*a {
			t.Errorf("loss %d of a step is %v token by token and %v aggregated", i, a, b)
		}
	}
}

type momentsOf struct{ mean, variance, n float64 }

// moments are those of a metric over the seeds.
func moments(s *sim.StrategyResult, key string) (m momentsOf) {
	for _, x := range s.Runs {
		if v, ok := x.Values[key]; ok {
			m.mean += v
			m.n++
		}
	}
	m.mean /= m.n
	for _, x := range s.Runs {
		if v, ok := x.Values[key]; ok {
			m.variance += (v - m.mean) * (v - m.mean) / (m.n - 1)
		}
	}
	return m
}

// What works token by token is refused on aggregated tokens, by name and with the way out.
func TestAggregateRefusesWhatWorksTokenByToken(t *testing.T) {
	kinds := []string{"aggregate=true", "synthetic.energy={type: 0.8, domain: 0.2, sequence: 0, noise: 0}"}
	for _, spec := range []string{"random", "round-robin", "capacity", "expert-choice", "quantile-balancing", "noisy-topk", "jitter", "balanced-optimum", "aux-loss:scope=sequence", "bip", "sinkhorn", "hash"} {
		if err := sim.Check(configure(t, "pretraining", kinds, sim.Learned, spec)); err == nil {
			t.Errorf("%s is accepted", spec)
		}
	}
	c := configure(t, "pretraining", kinds, sim.Learned, "none")
	c.Experts.Learn = true
	if sim.Check(c) == nil {
		t.Error("experts that learn are accepted")
	}
}

// Padding can be left out of counts, and makes no difference to what looks at one token at a time; what looks at the tokens of a
// batch itself is refused.
func TestPaddingThatIsNotCountedRefusesWhatSeesIt(t *testing.T) {
	for spec, want := range map[string]bool{"none": true, "random": true, "round-robin": true, "jitter": true, "loss-free": true, "aux-loss": true,
		"none:groups=v2": true, "capacity": false, "expert-choice": false, "quantile-balancing": false, "bip": false, "sinkhorn": false, "threshold": false,
		"simbal": false, "balanced-optimum": false} {
		err := sim.Check(configure(t, "padding", []string{"synthetic.padding.counted=false"}, sim.Learned, spec))
		if (err == nil) != want {
			t.Errorf("%s is accepted: %v, want %v (%v)", spec, err == nil, want, err)
		}
	}
}

// Padding that is not counted leaves a bias and a loss as if it were not there: after any number of steps the state is that of a run
// whose experts saw the same real tokens. So the real tokens are more even than where padding counts, for any rule of counts; and
// what experts have to do is not.
func TestPaddingThatIsNotCounted(t *testing.T) {
	for _, spec := range []string{"loss-free:rate=0.003", "aux-loss:coeff=0.3"} {
		settings := []string{"steps=200", "seeds=[1,2,3,4,5,6]"}
		counted := run(t, configure(t, "padding", append(settings, "synthetic.padding.counted=true"), sim.Learned, spec))
		not := run(t, configure(t, "padding", append(settings, "synthetic.padding.counted=false"), sim.Learned, spec))
		for i, x := range not.Strategies[0].Runs {
			y := counted.Strategies[0].Runs[i]
			if x.Values["maxvio_useful"] >= y.Values["maxvio_useful"] {
				t.Errorf("%s, seed %d: real tokens have a MaxVio of %.3f where padding is not counted, %.3f where it is", spec, x.Seed, x.Values["maxvio_useful"], y.Values["maxvio_useful"])
			}
			// A quarter of the tokens on 6 of 64 experts is 2.67 times an expert's share.
			if x.Values["maxvio_global"] < 1.5 || y.Values["maxvio_global"] < 1.5 {
				t.Errorf("%s, seed %d: MaxVio of all tokens is %.3f and %.3f: padding loads experts", spec, x.Seed, x.Values["maxvio_global"], y.Values["maxvio_global"])
			}
		}
	}
}
