package sim_test

import (
	"math"
	"testing"

	"evenkeel/metrics"
	"evenkeel/moe"
	"evenkeel/sim"
)

// find returns the strategy of a spec.
func find(t *testing.T, r *sim.Result, spec string) *sim.StrategyResult {
	t.Helper()
	for _, s := range r.Strategies {
		if s.Traits.Spec == spec {
			return s
		}
	}
	t.Fatalf("no strategy %s", spec)
	return nil
}

// pooled is the MaxVio of the loads of recorded steps, taken together.
func pooled(shots []sim.Shot) float64 {
	most := 0.0
	for e := range shots[0].Load {
		sum := 0.0
		for _, s := range shots {
			sum += float64(s.Load[e])
		}
		most = max(most, sum/float64(len(shots)))
	}
	return most - 1
}

// The orderings that Evenkeel exists to show, over eight seeds of the default scenario, since coefficients of 0.1 and 0.3 end close to the noise of one.
func TestOrderingsOnPretraining(t *testing.T) {
	if testing.Short() {
		t.Skip("runs for half a minute: run without -short")
	}
	coefficients := []string{"aux-loss:coeff=0.01", "aux-loss", "aux-loss:coeff=0.06", "aux-loss:coeff=0.1", "aux-loss:coeff=0.3"}
	c := configure(t, "pretraining", []string{"seeds=[1,2,3,4,5,6,7,8]"}, sim.Learned,
		append(coefficients, "none", "loss-free", "loss-free:rate=0.01", "aux-loss:scope=sequence", "aux-loss:coeff=0.1,scope=sequence")...)
	r := run(t, c)
	for _, s := range r.Strategies {
		v := s.Metrics
		t.Logf("%-34s global %.3f kept %.4f error %.4f settled %.0f", s.Traits.Spec, v["maxvio_global"].Mean, v["affinity_kept"].Mean, v["output_error"].Mean, v["settled_step"].Mean)
	}
	var family []*sim.StrategyResult
	for _, spec := range append(coefficients, "none") { // none is the loss at coefficient 0, where the curve begins
		family = append(family, find(t, r, spec))
	}

	t.Run("the bias is more even than the loss at equal affinity", func(t *testing.T) {
		e, ok := sim.AtEqualQuality(find(t, r, "loss-free"), family)
		if !ok || !(*e.High < 0) {
			t.Errorf("log ratio of MaxVio %+v, comparable: %v", e, ok)
		}
	})
	t.Run("a global scope is more even than a sequence scope at equal affinity", func(t *testing.T) {
		e, ok := sim.AtEqualQuality(find(t, r, "aux-loss:scope=sequence"), family)
		if !ok || !(*e.Low > 0) {
			t.Errorf("log ratio of the sequence scope's MaxVio %+v, comparable: %v", e, ok)
		}
	})
	t.Run("a larger coefficient means less imbalance", func(t *testing.T) {
		for i := 1; i < len(coefficients); i++ {
			var less, more []float64
			for seed := range family[i].Runs {
				less = append(less, family[i-1].Runs[seed].Values["maxvio_batch"])
				more = append(more, family[i].Runs[seed].Values["maxvio_batch"])
			}
			if a, b := family[i-1].Metrics["maxvio_global"].Mean, family[i].Metrics["maxvio_global"].Mean; a <= b {
				t.Errorf("%s has a global MaxVio of %.3f, %s %.3f", family[i-1].Traits.Spec, a, family[i].Traits.Spec, b)
			}
			d, low, high := metrics.PairedInterval(less, more)
			if !(*low > 0) {
				t.Errorf("MaxVio of a batch, %s less %s: %.3f [%.3f, %.3f]", family[i-1].Traits.Spec, family[i].Traits.Spec, d, *low, *high)
			}
		}
	})
	t.Run("a smaller rate settles later", func(t *testing.T) {
		var slow, fast []float64
		for i, x := range find(t, r, "loss-free").Runs {
			a, settledSlow := x.Values["settled_step"]
			b, settledFast := find(t, r, "loss-free:rate=0.01").Runs[i].Values["settled_step"]
			if !settledSlow || !settledFast {
				t.Fatalf("seed %d: rate 1e-3 settles: %v, 1e-2: %v", x.Seed, settledSlow, settledFast)
			}
			slow, fast = append(slow, a), append(fast, b)
		}
		if d, low, _ := metrics.PairedInterval(slow, fast); !(*low > 0) {
			t.Errorf("rate 1e-3 settles %v steps after 1e-2, the interval begins at %v", d, *low)
		}
	})
	t.Run("a sequence scope leaves domains at most half of the experts' bits that a global one does", func(t *testing.T) {
		global, sequence := find(t, r, "aux-loss:coeff=0.1"), find(t, r, "aux-loss:coeff=0.1,scope=sequence")
		for i, x := range global.Runs {
			a, b := x.Values["domain_information"], sequence.Runs[i].Values["domain_information"]
			free := find(t, r, "loss-free").Runs[i].Values["domain_information"]
			if a < 2*b || free < a {
				t.Errorf("seed %d: %.4f bits with a global scope, %.4f by sequence, %.4f with a bias", x.Seed, a, b, free)
			}
		}
	})
	t.Run("the prototype's table", func(t *testing.T) {
		// One seed of a prototype of the same design; its MaxVio is that of the last quarter's tokens together.
		for _, row := range []struct {
			spec                string
			maxvio, kept, error float64
		}{
			{"none", 2.59, 0.995, 0.002}, {"loss-free", 0.06, 0.961, 0.018}, {"aux-loss:coeff=0.01", 1.23, 0.978, 0.011}, {"aux-loss", 0.59, 0.957, 0.021},
			{"aux-loss:coeff=0.1", 0.22, 0.931, 0.034}, {"aux-loss:coeff=0.3", 0.08, 0.903, 0.048}, {"aux-loss:coeff=0.1,scope=sequence", 0.23, 0.906, 0.046},
		} {
			s := find(t, r, row.spec)
			var vio, kept, errs []float64
			for _, x := range s.Runs {
				vio = append(vio, math.Log(pooled(x.Shots[len(x.Shots)*3/4:])))
				kept = append(kept, x.Values["affinity_kept"])
				errs = append(errs, x.Values["output_error"])
			}
			within(t, row.spec+": log MaxVio", math.Log(row.maxvio), vio)
			within(t, row.spec+": affinity kept", row.kept, kept)
			within(t, row.spec+": output error", row.error, errs)
		}
	})
}

// within checks that one more seed with the given figure is no outlier among the others: a 99 % prediction interval.
func within(t *testing.T, what string, figure float64, seeds []float64) {
	t.Helper()
	mean, _, high := metrics.MeanInterval(seeds)
	n := float64(len(seeds))
	sd := (*high - mean) / 2.776 * math.Sqrt(n) // the 95 % quantile of t with 4 degrees of freedom
	if half := 4.604 * sd * math.Sqrt(1+1/n); math.Abs(figure-mean) > half {
		t.Errorf("%s %.4f lies outside %.4f ± %.4f", what, figure, mean, half)
	} else {
		t.Logf("%s %.4f within %.4f ± %.4f", what, figure, mean, half)
	}
}

// On stationary tokens a bias that moves by u settles in steps inversely proportional to u, the proportional rule ends more
// even than the sign rule, and a bias that stops stays as even as it was.
func TestLawsOfBiasesOnStationaryTokens(t *testing.T) {
	if testing.Short() {
		t.Skip("runs for half a minute: run without -short")
	}
	c := configure(t, "independent", []string{"steps=4000", "evaluation_tokens=262144", "seeds=[1,2,3,4,5]"}, sim.Frozen,
		"loss-free:rate=1e-4", "loss-free:rate=3e-4", "loss-free", "loss-free:rule=proportional,rate=1e-2", "loss-free:stop=1000")
	r := run(t, c)
	var product []float64
	for i, u := range []float64{1e-4, 3e-4, 1e-3} {
		product = append(product, u*r.Strategies[i].Metrics["settled_step"].Mean)
	}
	for i, x := range product {
		if math.Abs(x/product[0]-1) > 0.2 {
			t.Errorf("u times the steps to settle is %.4f for rate %d, %.4f for the smallest", x, i, product[0])
		}
	}
	sign, proportional, stopped := r.Strategies[2], r.Strategies[3], r.Strategies[4]
	var a, b []float64
	for i := range sign.Runs {
		a, b = append(a, sign.Runs[i].Values["maxvio_global"]), append(b, proportional.Runs[i].Values["maxvio_global"])
	}
	if d, low, _ := metrics.PairedInterval(a, b); !(*low > 0) {
		t.Errorf("global MaxVio, sign less proportional: %.4f, the interval begins at %.4f", d, *low)
	}
	for _, x := range stopped.Runs {
		mean := func(from, to int) (sum float64) {
			for _, row := range x.Steps[from:to] {
				sum += row.MaxVio / float64(to-from)
			}
			return sum
		}
		if x.Steps[1001].BiasSpread != x.Steps[3999].BiasSpread || x.Steps[1001].BiasMean != x.Steps[3999].BiasMean {
			t.Errorf("seed %d: a stopped bias moves", x.Seed)
		}
		if first, last := mean(1001, 2500), mean(2500, 4000); math.Abs(last/first-1) > 0.05 {
			t.Errorf("seed %d: MaxVio goes from %.4f to %.4f though nothing moves", x.Seed, first, last)
		}
	}
}

// clock records how long the slowest rank of each micro-batch takes, in units of an even one, from a step on.
type clock struct {
	moe.Strategy
	from  int
	times []float64
}

func (s *clock) Update(o *moe.Outcome) {
	if e := o.Batch.Layer.Experts; o.Step >= s.from {
		for n := o.Chosen.MicroBatch; len(n) > 0; n = n[e:] {
			s.times = append(s.times, 1+metrics.MaxVio(metrics.GroupLoads(n[:e], o.Batch.Layer.Groups, nil)))
		}
	}
	s.Strategy.Update(o)
}

// If the largest rank's load sets the time of a micro-batch (numbers.md S33), a loss of the whole step is slower than one of each
// micro-batch by less than 10 %, and a hundredth of the latter beside it wins some of that back.
func TestStepTimeByScope(t *testing.T) {
	if testing.Short() {
		t.Skip("runs for half a minute: run without -short")
	}
	c := configure(t, "pretraining", []string{"tokens=4096", "micro_batches=8", "groups=8", "groups_kept=8", "seeds=[1,2,3,4,5,6,7,8]"}, sim.Learned,
		"aux-loss:scope=micro-batch", "aux-loss:scope=global", "aux-loss:local=0.01")
	c.Workers = 1 // so that clocks come in the order of seeds
	clocks := make([][]*clock, len(c.Strategies))
	for i, build := range c.Strategies {
		c.Strategies[i] = func() (moe.Strategy, error) {
			s, err := build()
			x := &clock{Strategy: s, from: 350}
			clocks[i] = append(clocks[i], x)
			return x, err
		}
	}
	run(t, c)
	times := make([][]float64, len(clocks)) // [strategy][seed]
	for i, list := range clocks {
		for _, x := range list {
			if len(x.times) > 0 {
				mean, _, _ := metrics.MeanInterval(x.times)
				times[i] = append(times[i], mean)
			}
		}
		t.Logf("%.4f", times[i])
	}
	for seed, micro := range times[0] {
		if slower := times[1][seed]/micro - 1; !(slower > 0 && slower < 0.1) {
			t.Errorf("seed %d: a global loss is slower by %.1f %%", seed+1, 100*slower)
		}
	}
	d, low, high := metrics.PairedInterval(times[1], times[2])
	t.Logf("time won back: %.5f [%.5f, %.5f]", d, *low, *high)
	if !(*low > 0) {
		t.Errorf("a local term wins back %.4f, the interval begins at %.4f", d, *low)
	}
}

// The computation batch (numbers.md 6.7, S28): with a bias that no longer moves, MaxVio of B steps' tokens together falls as
// B^−½ while noise is all there is to it, and ends at what the bias left; without one it is at its plateau by 100 steps.
func TestMaxVioByComputationBatch(t *testing.T) {
	if testing.Short() {
		t.Skip("runs for ten seconds: run without -short")
	}
	c := configure(t, "independent", []string{"tokens=1024", "steps=4000", "evaluation_tokens=262144", "seeds=[1,2,3,4,5]"}, sim.Frozen,
		"none", "loss-free:rate=2e-4,stop=2000")
	r := run(t, c)
	curve := func(s *sim.StrategyResult, batch int) (mean float64) {
		n := 0
		for _, run := range s.Runs {
			var rest []sim.Shot
			for _, shot := range run.Shots {
				if shot.Step >= 2000 {
					rest = append(rest, shot)
				}
			}
			for ; len(rest) >= batch; rest = rest[batch:] {
				mean += pooled(rest[:batch])
				n++
			}
		}
		return mean / float64(n)
	}
	none, free := r.Strategies[0], r.Strategies[1]
	slope := math.Log(curve(free, 8)/curve(free, 1)) / math.Log(8)
	last, floor, left := curve(free, 100), metrics.SamplingFloor(64, 6, 100*1024).MaxVio, free.Metrics["maxvio_global"].Mean
	t.Logf("loss-free: slope %.3f to 8 steps; %.4f at 100, of noise alone %.4f, of 262,144 tokens %.4f", slope, last, floor, left)
	if slope < -0.52 || slope > -0.42 {
		t.Errorf("MaxVio of loss-free falls with the power %.3f of the batch, want about −½", slope)
	}
	if last < 1.2*floor {
		t.Errorf("at 100 steps MaxVio is %.4f, which is noise alone (%.4f): the bias left nothing", last, floor)
	}
	plateau := none.Metrics["maxvio_global"].Mean
	if at := curve(none, 100); math.Abs(at/plateau-1) > 0.1 {
		t.Errorf("without balancing MaxVio of 100 steps is %.3f, its plateau %.3f", at, plateau)
	}
	if at := curve(none, 1); at < plateau {
		t.Errorf("without balancing MaxVio of one step is %.3f, below its plateau %.3f", at, plateau)
	}
}

// After an abrupt shift of the domain mix a stale bias is less even than it was, and recovers. It is still better than no
// bias at all: most popularity on this stream comes from the common direction, which a shift of the mix leaves alone.
func TestShiftMakesABiasStale(t *testing.T) {
	if testing.Short() {
		t.Skip("runs for half a minute: run without -short")
	}
	c := configure(t, "shift", []string{"seeds=[1,2,3,4,5]"}, sim.Learned, "none", "loss-free")
	r := run(t, c)
	window := func(s *sim.StrategyResult, from, to int) (x []float64) {
		for _, run := range s.Runs {
			sum := 0.0
			for _, row := range run.Steps[from:to] {
				sum += row.MaxVio
			}
			x = append(x, sum/float64(to-from))
		}
		return x
	}
	none, free := r.Strategies[0], r.Strategies[1]
	_, low, _ := metrics.PairedInterval(window(free, 250, 255), window(free, 240, 250))
	if !(*low > 0) {
		t.Errorf("the shift does not make the bias stale: difference from %v up", *low)
	}
	_, _, high := metrics.PairedInterval(window(free, 450, 500), window(free, 250, 255))
	if !(*high < 0) {
		t.Errorf("the bias does not recover: difference up to %v", *high)
	}
	if m, ok := free.Metrics["recovery_steps"]; !ok || !(m.Mean > 0) {
		t.Errorf("recovery_steps is %v, reported: %v", m.Mean, ok)
	}
	mean, low, high := metrics.PairedInterval(window(free, 250, 255), window(none, 250, 255))
	t.Logf("MaxVio of loss-free less that of none over the first five steps after the shift: %.2f [%.2f, %.2f]", mean, *low, *high)
	if !(*high < 0) {
		t.Errorf("right after the shift loss-free is no longer more even than none: the interval of the difference ends at %v", *high)
	}
}
