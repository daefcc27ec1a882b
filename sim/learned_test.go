package sim_test

import (
	"slices"
	"testing"

	"evenkeel/metrics"
	"evenkeel/moe"
	"evenkeel/sim"
)

// paired is the interval of a metric of a less that of b, over seeds.
func paired(t *testing.T, r *sim.Result, metric, a, b string) (mean, low, high float64) {
	t.Helper()
	var x, y []float64
	for i, run := range find(t, r, a).Runs {
		x = append(x, run.Values[metric])
		y = append(y, find(t, r, b).Runs[i].Values[metric])
	}
	mean, l, h := metrics.PairedInterval(x, y)
	return mean, *l, *h
}

// Where experts learn and scores are softmax, five seeds give the papers' order of task loss: loss-free, a global loss, a loss by
// sequence (design, section 5).
func TestOrderOfTaskLoss(t *testing.T) {
	if testing.Short() {
		t.Skip("runs for half a minute: run without -short")
	}
	order := []string{"loss-free", "aux-loss:coeff=0.1", "aux-loss:coeff=0.1,scope=sequence"}
	r := run(t, configure(t, "learned-experts", nil, sim.Learned, append(order, "none")...))
	for _, s := range r.Strategies {
		t.Logf("%-34s task loss %.4f MaxVio %.3f", s.Traits.Spec, s.Metrics["task_loss"].Mean, s.Metrics["maxvio_global"].Mean)
	}
	for i := 1; i < len(order); i++ {
		if d, low, high := paired(t, r, "task_loss", order[i], order[i-1]); !(low > 0) {
			t.Errorf("task loss, %s less %s: %.4f [%.4f, %.4f]", order[i], order[i-1], d, low, high)
		}
	}
	if d, low, high := paired(t, r, "task_loss", "none", "loss-free"); !(low > 0) {
		t.Errorf("task loss, none less loss-free: %.4f [%.4f, %.4f]", d, low, high)
	}
}

// late is a strategy whose state does not move before a step.
type late struct {
	moe.Strategy
	from int
}

func (l late) Update(o *moe.Outcome) {
	if o.Step >= l.from {
		l.Strategy.Update(o)
	}
}

// S37 of the published shapes (OLMoE without a balancing loss, arXiv 2409.02060, figure 10): where the rich get richer, most of
// eight experts die, and the value of the balancing loss rises early to a peak from which it falls. A loss or a bias keeps
// experts alive, and a bias that begins to move after they died revives them.
func TestCollapseWithoutBalancing(t *testing.T) {
	if testing.Short() {
		t.Skip("runs for a quarter of a minute: run without -short")
	}
	// A loss of 1e-9 changes nothing (its figures are those of none) but shows its value.
	c := configure(t, "collapse", nil, sim.Learned, "none", "aux-loss:coeff=1e-09", "aux-loss:coeff=0.01", "loss-free",
		"loss-free:rate=0.003")
	bias := c.Strategies[4]
	const from = 300
	c.Strategies[4] = func() (moe.Strategy, error) {
		s, err := bias()
		return late{s, from}, err
	}
	r := run(t, c)
	for i, x := range find(t, r, "none").Runs {
		if dead := x.Values["experts_starved"]; dead < 5 {
			t.Errorf("seed %d: %v of 8 experts starve without balancing, want most", x.Seed, dead)
		}
		shown := find(t, r, "aux-loss:coeff=1e-09").Runs[i]
		if shown.Values["experts_starved"] != x.Values["experts_starved"] {
			t.Errorf("seed %d: a loss of 1e-9 changes who starves", x.Seed)
		}
		var value []float64
		for _, row := range shown.Steps {
			value = append(value, 1e9*row.BalanceLoss)
		}
		early := value[:30]
		peak := slices.Index(early, slices.Max(early))
		after := slices.Min(value[peak : peak+100])
		t.Logf("seed %d: loss value %.2f at first, peak %.2f at step %d, then down to %.2f; %.2f at the end", x.Seed, value[0], value[peak], peak, after, value[len(value)-1])
		if value[0] > 1.3 || value[peak] < 1.8 || after > 0.85*value[peak] {
			t.Errorf("seed %d: the loss begins at %.2f, peaks at %.2f and falls to %.2f: want below 1.3, above 1.8 and a fall by 15 %%", x.Seed, value[0], value[peak], after)
		}
		for _, spec := range []string{"aux-loss:coeff=0.01", "loss-free"} {
			if starved := find(t, r, spec).Runs[i].Values["experts_starved"]; starved > 1 {
				t.Errorf("seed %d: %v experts starve under %s", x.Seed, starved, spec)
			}
		}
		revived := r.Strategies[4].Runs[i]
		before := 0
		for _, shot := range revived.Shots {
			if shot.Step >= from-3 && shot.Step < from {
				before = starving(shot.Load)
			}
		}
		if now := revived.Values["experts_starved"]; before < 4 || now > 1 {
			t.Errorf("seed %d: %d experts starve before the bias begins to move and %v at the end: want at least 4, then at most 1", x.Seed, before, now)
		}
	}
}

// starving counts the experts with less than a tenth of their share.
func starving(load []float32) (n int) {
	for _, r := range load {
		if r < 0.1 {
			n++
		}
	}
	return n
}

// Under sigmoid scores and normalised gates nothing but the ratio of scores matters to the task, so scores sink, the bias that
// evens loads out shrinks with them, and a constant step becomes a coarse one: it does not settle. Smaller steps do, and so do
// raw gates, whose scale the task sees.
func TestWhySigmoidScoresDoNotSettle(t *testing.T) {
	if testing.Short() {
		t.Skip("runs for half a minute: run without -short")
	}
	normalised := run(t, configure(t, "learned-experts", []string{"score=sigmoid"}, sim.Learned, "loss-free", "loss-free:rate=0.0001"))
	raw := run(t, configure(t, "learned-experts", []string{"score=sigmoid", "gate=raw"}, sim.Learned, "loss-free"))
	for i, x := range raw.Strategies[0].Runs {
		coarse, fine := normalised.Strategies[0].Runs[i].Values, normalised.Strategies[1].Runs[i].Values
		t.Logf("seed %d: MaxVio %.3f at a bias spread of %.3f, rate 1e-4 %.3f; raw gates %.3f at %.3f", x.Seed, coarse["maxvio_global"],
			coarse["bias_spread"], fine["maxvio_global"], x.Values["maxvio_global"], x.Values["bias_spread"])
		if coarse["bias_spread"] > x.Values["bias_spread"]/5 || coarse["score_chosen"] > x.Values["score_chosen"]/2 {
			t.Errorf("seed %d: scores of the chosen are %.3f and the bias spreads over %.3f; with raw gates %.3f and %.3f", x.Seed,
				coarse["score_chosen"], coarse["bias_spread"], x.Values["score_chosen"], x.Values["bias_spread"])
		}
		for what, settled := range map[string]float64{"a tenth of the rate": fine["maxvio_global"], "raw gates": x.Values["maxvio_global"]} {
			if coarse["maxvio_global"] < 1.5*settled {
				t.Errorf("seed %d: MaxVio is %.3f, and %.3f with %s", x.Seed, coarse["maxvio_global"], settled, what)
			}
		}
	}
}
