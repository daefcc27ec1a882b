package sim_test

import (
	"context"
	"testing"
	"time"

	"evenkeel/moe"
	"evenkeel/scenarios"
	"evenkeel/sim"
	"evenkeel/strategies"
)

// configure puts a scenario and strategies together as the compare command does.
func configure(t testing.TB, scenario string, settings []string, mode string, specs ...string) *sim.Config {
	t.Helper()
	s, err := scenarios.Load(scenario, settings, -1)
	if err != nil {
		t.Fatal(err)
	}
	s.SettleSteps(mode == sim.Frozen)
	c := &sim.Config{Layer: s.Layer(), Facts: s.Facts(), Tokens: s.Tokens, MicroBatches: s.MicroBatches, Ranks: s.Ranks,
		Steps: s.Steps, Seeds: s.Seeds, Router: sim.RouterConfig{Mode: mode, Rate: s.Router.Rate}, Stream: s.Stream}
	for _, text := range specs {
		spec, err := strategies.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		c.Strategies = append(c.Strategies, func() (moe.Strategy, error) { return spec.Build(c.Layer) })
	}
	return c
}

func run(t testing.TB, c *sim.Config) *sim.Result {
	t.Helper()
	r, err := sim.Compare(context.Background(), c)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestPrototypeTable(t *testing.T) {
	c := configure(t, "pretraining", []string{"seeds=[1]"}, sim.Learned, "none", "loss-free", "aux-loss:coeff=0.01", "aux-loss", "aux-loss:coeff=0.1", "aux-loss:coeff=0.3", "aux-loss:coeff=0.1,scope=sequence", "balanced-optimum")
	begin := time.Now()
	r := run(t, c)
	t.Log(time.Since(begin))
	for _, s := range r.Strategies {
		t.Logf("%-36s global %.3f batch %.3f kept %.4f err %.4f regret %.4f settled %v churn %.3f osc %.2f", s.Traits.Spec, s.Metrics["maxvio_global"].Mean, s.Metrics["maxvio_batch"].Mean,
			s.Metrics["affinity_kept"].Mean, s.Metrics["output_error"].Mean, s.Metrics["regret_to_optimum"].Mean, s.Metrics["settled_step"].Mean, s.Metrics["churn"].Mean, s.Metrics["oscillation"].Mean)
	}
}
