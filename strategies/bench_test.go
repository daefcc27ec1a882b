package strategies

import (
	"math/rand/v2"
	"testing"

	"evenkeel/internal/vec"
	"evenkeel/moe"
)

// BenchmarkRules is what routing by each rule costs a step on one core: affinities, scores, choice, counts and the moving of its
// state, and how many times that of plain top-K, which comes first.
func BenchmarkRules(b *testing.B) {
	layer := moe.Layer{Experts: 64, TopK: 6, Groups: 1, GroupsKept: 1}
	batch := batchOf(rand.New(rand.NewPCG(1, 1)), layer, 256, 256, 256, 256, 256, 256, 256, 256)
	const width = 64
	n := layer.Experts * vec.Lanes
	r := rand.New(rand.NewPCG(2, 1))
	random := func(n int) []float32 {
		x := make([]float32, n)
		for i := range x {
			x[i] = float32(r.NormFloat64() / 8)
		}
		return x
	}
	router, x, z, scratch := vec.NewMatrix(layer.Experts, width), random(width*vec.Lanes), make([]float32, n), vec.NewScratch(width)
	router.Set(random(layer.Experts * width))
	var plain float64
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
					router.Times(z, x, scratch)
					s.Score(&batch.Tiles[i], scores[i*n:(i+1)*n], batch.Tiles[i].Z, w)
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
			each := float64(b.Elapsed().Nanoseconds()) / float64(b.N) / float64(batch.Tokens)
			if plain == 0 {
				plain = each
			}
			b.ReportMetric(each, "ns/token")
			b.ReportMetric(each/plain, "×plain")
		})
	}
}
