package sim_test

import (
	"math"
	"slices"
	"testing"

	"gonum.org/v1/gonum/stat"

	"evenkeel/sim"
)

// Rules of whole batches do to aggregated tokens what they do to each: over many seeds, in one world, every figure of a run that
// was drawn token by token and of one that was aggregated has the same mean and the same variance over seeds. Some 70 are compared,
// so the largest deviation may be what is as unlikely among so many as three standard errors are alone.
func TestAggregatedRunsAgreeWithTokenByToken(t *testing.T) {
	settings := []string{"tokens=1024", "evaluation_tokens=4096", "sequence_length=1", "micro_batches=1", "experts=16", "topk=3", "groups=4", "groups_kept=2", "width=16", "steps=40",
		"synthetic.vocabulary=300", "world_seed=7", seedList(1, 100),
		"synthetic.energy={type: 0.8, domain: 0.2, sequence: 0, noise: 0}"}
	specs := []string{"none", "loss-free:rate=0.01", "loss-free:rate=0.03,rule=proportional", "aux-loss:coeff=0.1", "z-loss", "multiplicative-bias:rate=0.03"}
	one := run(t, configure(t, "pretraining", append(settings, "aggregate=false"), sim.Learned, specs...))
	many := run(t, configure(t, "pretraining", append(settings, "aggregate=true"), sim.Learned, specs...))
	compared, bound := 0, bonferroni(70)
	var worst [2]float64
	widest := 0.0
	for i, s := range one.Strategies {
		for _, key := range []string{"maxvio_batch", "maxvio_global", "load_variance", "affinity_kept", "affinity_total", "output_error", "choice_agreement", "rank_displacement", "gate_sum", "bias_spread",
			"maxvio_device", "domain_information"} {
			a, b := valuesOf(s, key), valuesOf(many.Strategies[i], key)
			if len(a) == 0 && len(b) == 0 {
				continue
			}
			compared++
			if len(a) != len(b) {
				t.Errorf("%s: %s has %d and %d seeds", s.Traits.Spec, key, len(a), len(b))
			}
			x, y := estimated(a), estimated(b)
			z := (x.mean - y.mean) / math.Hypot(math.Hypot(x.se, y.se), 1e-9)
			if !(math.Abs(z) <= bound) {
				t.Errorf("%s: %s is %.5f token by token and %.5f aggregated: %.1f standard errors", s.Traits.Spec, key, x.mean, y.mean, z)
			}
			if x.se < 1e-9 {
				continue
			}
			x, y = logVariance(a), logVariance(b)
			w := (x.mean - y.mean) / math.Hypot(x.se, y.se)
			if !(math.Abs(w) <= bound) {
				t.Errorf("%s: the variance of %s over seeds is %.3g token by token and %.3g aggregated: %.1f standard errors",
					s.Traits.Spec, key, math.Exp(x.mean), math.Exp(y.mean), w)
			}
			worst[0], worst[1], widest = max(worst[0], math.Abs(z)), max(worst[1], math.Abs(w)), max(widest, math.Hypot(x.se, y.se))
		}
	}
	t.Logf("%d figures: means %.2f and variances %.2f standard errors off at most, of %.2f allowed; one of a ratio of variances is at most %.2f",
		compared, worst[0], worst[1], bound, widest)
	if compared < 40 {
		t.Errorf("%d figures were compared", compared)
	}
	for name, loss := range map[string]func(sim.StepRow) float64{
		"balance": func(row sim.StepRow) float64 { return row.BalanceLoss },
		"layer":   func(row sim.StepRow) float64 { return row.LayerError },
	} {
		var of [2][]float64
		for i, r := range []*sim.Result{one, many} {
			for _, x := range r.Strategies[3].Runs {
				of[i] = append(of[i], loss(x.Steps[20]))
			}
		}
		agrees(t, "the loss of the "+name+", aggregated,", estimated(of[1]), estimated(of[0]))
	}
}

// valuesOf are those of a metric over the seeds.
func valuesOf(s *sim.StrategyResult, key string) (x []float64) {
	for _, run := range s.Runs {
		if v, ok := run.Values[key]; ok {
			x = append(x, v)
		}
	}
	return x
}

// logVariance is the logarithm of the variance of x with its jackknife standard error, which holds for any distribution with a
// fourth moment (Miller 1968, Jackknifing variances, Annals of Mathematical Statistics 39).
func logVariance(x []float64) estimate {
	var without []float64
	for i := range x {
		without = append(without, math.Log(stat.Variance(slices.Delete(slices.Clone(x), i, i+1), nil)))
	}
	n := float64(len(x))
	return estimate{math.Log(stat.Variance(x, nil)), math.Sqrt((n - 1) * (n - 1) / n * stat.Variance(without, nil))}
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
