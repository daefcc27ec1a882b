package strategies

import (
	"math/rand/v2"
	"testing"

	"evenkeel/internal/vec"
	"evenkeel/moe"
)

// BenchmarkRules is what each rule costs a step beside its scores: choice, counts and the moving of its state, on one core.
func BenchmarkRules(b *testing.B) {
	layer := moe.Layer{Experts: 64, TopK: 6, Groups: 1, GroupsKept: 1}
	batch := batchOf(rand.New(rand.NewPCG(1, 1)), layer, 256, 256, 256, 256, 256, 256, 256, 256)
	n := layer.Experts * vec.Lanes
	for _, p := range Presets() {
		b.Run(p.Name, func(b *testing.B) {
			spec, err := Parse(p.Name)
			if err != nil {
				b.Fatal(err)
			}
			s, err := spec.Build(layer)
			if err != nil {
				b.Skipf("not on this shape: %v", err)
			}
			scores, a := routeAll(s, batch)
			w, step := moe.NewScratch(layer), 0
			var chosen moe.Counts
			o := &moe.Outcome{Batch: batch, Scores: scores, Assigned: a, Chosen: &chosen}
			b.ReportAllocs()
			for b.Loop() {
				for i := range batch.Tiles {
					s.Route(&batch.Tiles[i], scores[i*n:(i+1)*n], w, a.Tile(i), a.FreshTile(i))
				}
				if err := s.RouteBatch(batch, scores, a); err != nil {
					b.Fatal(err)
				}
				chosen.Count(batch, a.Mask)
				o.Step = step
				s.Update(o)
				step++
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(batch.Tokens), "ns/token")
		})
	}
}
