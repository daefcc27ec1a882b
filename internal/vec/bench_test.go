package vec

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

// The shapes of the benchmarks: experts, chosen, width, groups, groups kept.
var shapes = []struct{ e, k, d, g, m int }{{64, 6, 64, 1, 1}, {256, 8, 64, 8, 4}}

func benchmark(b *testing.B, f func(b *testing.B, e, k, d, g, m int) func()) {
	for _, s := range shapes {
		for _, kernel := range Kernels() {
			b.Run(fmt.Sprintf("E=%d,K=%d/%s", s.e, s.k, kernel), func(b *testing.B) {
				defer Use("auto")
				Use(kernel)
				run := f(b, s.e, s.k, s.d, s.g, s.m)
				b.ReportAllocs()
				for b.Loop() {
					run()
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/Lanes, "ns/token")
			})
		}
	}
}

func BenchmarkNormals(b *testing.B) {
	benchmark(b, func(b *testing.B, e, k, d, g, m int) func() {
		x := make([]float32, d*Lanes)
		return func() { Normals(x, 1) }
	})
}

func BenchmarkAffinities(b *testing.B) {
	benchmark(b, func(b *testing.B, e, k, d, g, m int) func() {
		r := rand.New(rand.NewPCG(1, 1))
		w, x, z, h := NewMatrix(e, d), randomTile(r, d), make([]float32, e*Lanes), NewScratch(d)
		w.Set(randomTile(r, e*d/Lanes))
		return func() { w.Times(z, x, h) }
	})
}

func BenchmarkSigmoid(b *testing.B) {
	benchmark(b, func(b *testing.B, e, k, d, g, m int) func() {
		z := randomTile(rand.New(rand.NewPCG(1, 1)), e)
		s := make([]float32, len(z))
		return func() { Sigmoid(s, z, e) }
	})
}

func BenchmarkSoftmax(b *testing.B) {
	benchmark(b, func(b *testing.B, e, k, d, g, m int) func() {
		z := randomTile(rand.New(rand.NewPCG(1, 1)), e)
		s := make([]float32, len(z))
		return func() { Softmax(s, z, e) }
	})
}

func BenchmarkTopK(b *testing.B) {
	benchmark(b, func(b *testing.B, e, k, d, g, m int) func() {
		s := randomTile(rand.New(rand.NewPCG(1, 1)), e)
		mask, allowed, q := make([]uint64, e), make([]uint64, g), NewSelector(k, g)
		return func() {
			if g > 1 {
				q.Groups(allowed, s, nil, e, m)
				q.TopK(mask, s, nil, ^uint64(0), allowed)
				return
			}
			q.TopK(mask, s, nil, ^uint64(0), nil)
		}
	})
}

func BenchmarkWeightGradient(b *testing.B) {
	benchmark(b, func(b *testing.B, e, k, d, _, m int) func() {
		r := rand.New(rand.NewPCG(1, 1))
		g, x, sum, scratch := randomTile(r, e), randomTile(r, d), NewGradient(e, d), NewScratch(d)
		return func() { sum.Add(g, x, scratch) }
	})
}
