package sim

import (
	"fmt"
	"testing"

	"evenkeel/moe"
	"evenkeel/scenarios"
	"evenkeel/strategies"
)

// replicateOf prepares one seed of a comparison and takes its first steps, after which nothing allocates.
func replicateOf(b testing.TB, settings []string, mode string, specs ...string) *replicate {
	b.Helper()
	return replicateOfScenario(b, "pretraining", settings, mode, specs...)
}

func replicateOfScenario(b testing.TB, scenario string, settings []string, mode string, specs ...string) *replicate {
	b.Helper()
	return replicateOfSeed(b, 1, scenario, settings, mode, specs...)
}

func replicateOfSeed(b testing.TB, seed uint64, scenario string, settings []string, mode string, specs ...string) *replicate {
	b.Helper()
	s, err := scenarios.Load(scenario, settings, -1)
	if err != nil {
		b.Fatal(err)
	}
	c := &Config{Layer: s.Layer(), Facts: s.Facts(), Tokens: s.Tokens, Distinct: s.Distinct(), MicroBatches: s.MicroBatches, Ranks: s.Ranks,
		Steps: 1 << 30, Seeds: []uint64{seed}, WorldSeed: s.WorldSeed, Router: RouterConfig{Mode: mode, Rate: s.Router.Rate}, Experts: expertsOf(s), Stream: s.Stream}
	for _, text := range specs {
		spec, err := strategies.Parse(text)
		if err != nil {
			b.Fatal(err)
		}
		c.Strategies = append(c.Strategies, func() (moe.Strategy, error) { return spec.Build(c.Layer) })
	}
	r, err := newReplicate(c, seed, nil, moe.NewScratch(c.Layer))
	if err != nil {
		b.Fatal(err)
	}
	return r
}

func expertsOf(s *scenarios.Scenario) ExpertsConfig {
	return ExpertsConfig{Learn: s.Task.Experts == "learned", Rate: s.Task.Rate, Hidden: s.Task.Hidden, Regions: s.Task.Regions, Shared: s.Task.Shared}
}

// once does the work of one step of one strategy without recording it.
func (r *replicate) once(step int) {
	if err := r.compute(step, false); err != nil {
		panic(err)
	}
	r.each(len(r.active), r.move)
}

// benchmark times steps after the first.
func (r *replicate) benchmark(b *testing.B) {
	r.once(0)
	b.ReportAllocs()
	step := 1
	for b.Loop() {
		r.once(step)
		step++
	}
}

var benchShapes = []struct {
	name     string
	settings []string
}{
	{"E=64,K=6", nil},
	{"E=64,K=6,experts learn", []string{"task.experts=learned"}},
	{"E=256,K=8", []string{"experts=256", "topk=8", "groups=8", "groups_kept=4"}},
}

// BenchmarkStep is a whole step: stream, oracle, routing, counting, measuring, and where it learns the gradient and Adam.
func BenchmarkStep(b *testing.B) {
	for _, shape := range benchShapes {
		for _, c := range []struct{ mode, spec string }{{Frozen, "none"}, {Frozen, "loss-free"}, {Learned, "loss-free"}, {Learned, "aux-loss"}} {
			b.Run(fmt.Sprintf("%s/%s/%s", shape.name, c.mode, c.spec), func(b *testing.B) {
				r := replicateOf(b, shape.settings, c.mode, c.spec)
				r.benchmark(b)
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(r.c.Tokens), "ns/token")
			})
		}
	}
}

// BenchmarkStages times the stages of a step alone, over one batch.
func BenchmarkStages(b *testing.B) {
	for _, shape := range benchShapes {
		r := replicateOf(b, shape.settings, Learned, "aux-loss")
		r.once(0)
		x := r.contestants[0]
		for _, stage := range []struct {
			name string
			run  func()
		}{
			{"stream", func() {
				for i := range r.batch.Tiles {
					r.stream.Fill(r.batch, i, r.scratch)
				}
			}},
			{"oracle", func() {
				for i := range r.batch.Tiles {
					r.oracle.tile(i, &r.batch.Tiles[i], r.scratch)
				}
				r.oracle.finish(r.batch)
			}},
			{"score", func() {
				for i := range r.batch.Tiles {
					x.score(&r.batch.Tiles[i], x.tileScores(i), nil, r.scratch)
				}
			}},
			{"choose", func() {
				for i := range r.batch.Tiles {
					x.strategy.Route(&r.batch.Tiles[i], x.tileScores(i), r.scratch, x.assigned.Tile(i), nil)
				}
			}},
			{"count", func() { x.count(r.batch, r.oracle, 1) }},
			{"learn", func() { r.each(gradientChunks, r.learn) }},
			{"move", func() { x.move(1) }},
		} {
			b.Run(shape.name+"/"+stage.name, func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					stage.run()
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(r.c.Tokens), "ns/token")
			})
		}
	}
}

// A step allocates nothing once its buffers are there, whatever the strategy and whether experts learn.
func TestStepAllocatesNothing(t *testing.T) {
	for _, experts := range []string{"fixed", "learned"} {
		r := replicateOf(t, []string{"tokens=256", "experts=16", "topk=3", "width=16", "task.experts=" + experts}, Learned,
			"none", "random", "round-robin", "aux-loss", "aux-loss:scope=sequence,counts=unbiased", "loss-free", "deepseek-v3")
		step := 0
		for ; step < 10; step++ {
			r.once(step)
		}
		if n := testing.AllocsPerRun(20, func() { r.once(step); step++ }); n > 0 {
			t.Errorf("%s experts: a step allocates %v times", experts, n)
		}
	}
}

// BenchmarkHugeBatch is a step of 62.9 million aggregated tokens on DeepSeek-V3's layer.
func BenchmarkHugeBatch(b *testing.B) {
	for _, c := range []struct{ mode, spec string }{{Frozen, "none"}, {Frozen, "loss-free"}, {Learned, "none"}, {Learned, "loss-free"}, {Learned, "aux-loss"}} {
		b.Run(c.mode+"/"+c.spec, func(b *testing.B) {
			r := replicateOfScenario(b, "huge-batch", nil, c.mode, c.spec)
			r.benchmark(b)
			b.ReportMetric(float64(len(r.batch.Tiles)*moe.TileTokens), "kinds")
		})
	}
}
