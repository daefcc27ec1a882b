package sim_test

import (
	"math"
	"testing"

	"evenkeel/moe"
	"evenkeel/sim"
)

func TestSameBitsWithDropsTablesAndZeroExperts(t *testing.T) {
	settings := []string{"tokens=300", "steps=12", "seeds=[1,2,3,4]", "evaluation_tokens=1000", "experts=24", "width=24", "groups=8", "groups_kept=4"}
	sameBits(t, configure(t, "pretraining", settings, sim.Learned, "capacity", "capacity:order=random,overflow=next-best,rate=0.001",
		"capacity:order=score,per=device,protect=0.3,evaluation=free", "hash", "hash:table=balanced,fit=5", "hash:table=ngram", "moge:coeff=0.1",
		"null-experts", "longcat-bias", "random:offsets=0.5", "none:groups=v2", "loss-free:groups=megatron"))
}

// witness sees what a strategy is shown.
type witness struct {
	moe.Strategy
	see func(o *moe.Outcome)
}

func (w witness) Update(o *moe.Outcome) {
	w.see(o)
	w.Strategy.Update(o)
}

// A strategy that drops is shown the counts before drops, too: TK choices in all.
func TestCountsBeforeDrops(t *testing.T) {
	for _, spec := range []string{"capacity:factor=1", "none"} {
		c := configure(t, "pretraining", []string{"tokens=500", "steps=3", "seeds=[1]", "evaluation_tokens=500"}, sim.Frozen, spec)
		build := c.Strategies[0]
		steps := 0
		c.Strategies[0] = func() (moe.Strategy, error) {
			s, err := build()
			return witness{s, func(o *moe.Outcome) {
				steps++
				var wanted, kept int64
				for e, n := range o.Wanted.Global {
					wanted, kept = wanted+n, kept+o.Chosen.Global[e]
					if n < o.Chosen.Global[e] {
						t.Errorf("%s: expert %d keeps %d of %d choices", spec, e, o.Chosen.Global[e], n)
					}
				}
				if wanted != 500*6 || (kept < wanted) != (spec != "none") {
					t.Errorf("%s: %d choices wanted and %d kept", spec, wanted, kept)
				}
			}}, err
		}
		if run(t, c); steps != 3 {
			t.Errorf("%s: %d updates", spec, steps)
		}
	}
}

// On tokens without any preference the drop rate is the binomial law's, 0.0274 (numbers.md 6.2: 64, 6, 2048). By that law an
// expert's excess deviates by 0.58·√(TK/E·(1−K/E)) = 7.7, so a step's rate by at most √64·7.7/(TK) = 0.0050; the mean of 100
// steps is within four of its own deviations.
func TestDropRateOfUniformTokens(t *testing.T) {
	c := configure(t, "uniform", []string{"tokens=2048", "experts=64", "topk=6", "steps=400", "seeds=[1]"}, sim.Frozen, "capacity:factor=1,scope=batch")
	v := run(t, c).Strategies[0].Runs[0].Values
	if got := v["drop_rate"]; math.Abs(got-0.0274) > 4*0.0050/10 {
		t.Errorf("drop rate %.4f, want 0.0274", got)
	}
	if got := v["experts_per_token"]; math.Abs(got-6*(1-v["drop_rate"])) > 0.01 {
		t.Errorf("%.4f experts per token with a drop rate of %.4f", got, v["drop_rate"])
	}
	// Trap 12: gates that are left are divided by their sum, and a token without any has none.
	if got, want := v["gate_sum"], 1-v["tokens_unserved"]; math.Abs(got-want) > 1e-9 {
		t.Errorf("gates sum to %v, want %v", got, want)
	}
}

// What steps and shots show of one step agrees, and a capacity of a multiple of TK/E bounds it.
func TestLoadsOfRulesThatDropAreAgainstAllChoices(t *testing.T) {
	c := configure(t, "pretraining", []string{"tokens=1024", "steps=12", "seeds=[1]", "evaluation_tokens=1024", "groups=8"}, sim.Frozen,
		"capacity:factor=1", "capacity:factor=1,per=device", "none")
	for i, s := range run(t, c).Strategies {
		x := s.Runs[0]
		for j, shot := range x.Shots {
			row, sum, largest, variance := x.Steps[j], 0.0, 0.0, 0.0
			for _, r := range shot.Load {
				sum, largest = sum+float64(r), max(largest, float64(r))
			}
			n := float64(len(shot.Load))
			for _, r := range shot.Load {
				variance += (float64(r) - sum/n) * (float64(r) - sum/n) / n
			}
			kept := 1 - row.DropRate
			if !s.Traits.Drops {
				kept = 1
			}
			if math.Abs(sum/n-kept) > 1e-6 || math.Abs(largest-1-row.MaxVio) > 1e-6 || math.Abs(variance-row.LoadVariance) > 1e-6 {
				t.Errorf("%s, step %d: loads have mean %.4f, maximum %.4f and variance %.4f; the step keeps %.4f, MaxVio %.4f, variance %.4f",
					s.Traits.Spec, row.Step, sum/n, largest, variance, kept, row.MaxVio, row.LoadVariance)
			}
			if i == 1 && row.MaxVioDevice > 1e-9 {
				t.Errorf("step %d: a device has %.4f more than its capacity", row.Step, row.MaxVioDevice)
			}
		}
	}
}

// Loads are those of the experts that compute: alike here, where zero experts counted too would leave MaxVio at E/N − 1.
func TestLoadsLeaveOutZeroExperts(t *testing.T) {
	c := configure(t, "uniform", []string{"tokens=2048", "experts=48", "topk=6", "steps=8", "seeds=[1]"}, sim.Frozen, "null-experts:zero=16")
	r := run(t, c).Strategies[0].Runs[0]
	v := r.Values
	if v["maxvio_global"] > 0.1 || v["maxvio_batch"] > 0.3 || v["experts_dead"] != 0 || v["load_min"] < 0.9 {
		t.Errorf("MaxVio is %.3f and %.3f a batch, %v experts are dead, the least load is %.3f", v["maxvio_global"], v["maxvio_batch"], v["experts_dead"], v["load_min"])
	}
	if got := v["experts_per_token"]; math.Abs(got-4) > 0.03 {
		t.Errorf("%.3f real experts per token, want 6·32/48", got)
	}
	var sum float32
	for _, l := range r.Shots[0].Load {
		sum += l
	}
	if math.Abs(float64(sum)-32) > 1e-3 {
		t.Errorf("relative loads sum to %v, want the 32 real experts", sum)
	}
}
