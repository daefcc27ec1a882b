package transport

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"evenkeel/internal/vec"
	"evenkeel/moe"
	"evenkeel/scenarios"
)

// batches are the shapes that must be solved exactly in well under a second and under ten.
var batches = [][3]int{{4096, 64, 6}, {16384, 256, 8}}

// drawn returns the affinities of one step of a scenario, row-major [T][E].
func drawn(tb testing.TB, scenario string, tokens, experts, topk int, seed uint64) []float32 {
	tb.Helper()
	s, err := scenarios.Load(scenario, []string{fmt.Sprintf("tokens=%d", tokens), fmt.Sprintf("experts=%d", experts), fmt.Sprintf("topk=%d", topk)}, -1)
	if err != nil {
		tb.Fatal(err)
	}
	layer := s.Layer()
	b, stream, w := moe.NewBatch(layer, tokens), s.Stream(seed), moe.NewScratch(layer)
	stream.Layout(b, moe.Moment{})
	scores, tile := make([]float32, tokens*experts), make([]float32, experts*vec.Lanes)
	for i := range b.Tiles {
		t := &b.Tiles[i]
		stream.Fill(b, i, w)
		layer.Score.Apply(tile, t.Z, experts)
		for l := range t.Tokens {
			for e := range experts {
				scores[(t.Start+l)*experts+e] = tile[e*vec.Lanes+l]
			}
		}
	}
	return scores
}

// Large batches of the default scenario carry their own proof: the dual, computed afresh in float64, equals the total. No
// other prices give a smaller one, and no other balanced assignment a larger total.
func TestLargeBatches(t *testing.T) {
	r := rand.New(rand.NewPCG(9, 9))
	for _, c := range batches {
		tokens, experts, topk := c[0], c[1], c[2]
		scores := drawn(t, "pretraining", tokens, experts, topk, 1)
		s := solve(t, tokens, experts, topk, scores)
		if d := dual(tokens, experts, topk, scores, s.Prices()); math.Abs(d-s.Total()) > 1e-6*s.Total() {
			t.Errorf("shape %v: dual %v, total %v", c, d, s.Total())
		}
		for trial := range 2 {
			p := s.Prices()
			for e := range p {
				p[e] += r.NormFloat64() * math.Pow(10, float64(-trial-1))
			}
			if d := dual(tokens, experts, topk, scores, p); d < s.Total() {
				t.Errorf("shape %v: D(p) = %v below the total %v", c, d, s.Total())
			}
		}
		// Exchanges of two tokens keep the balance, and so cannot gain.
		choice := s.Choice()
		held := func(token int, e int32) bool {
			for _, x := range choice[token*topk : (token+1)*topk] {
				if x == e {
					return true
				}
			}
			return false
		}
		for range 200_000 {
			i, j := r.IntN(len(choice)), r.IntN(len(choice))
			a, b := i/topk, j/topk
			e, f := choice[i], choice[j]
			if held(a, f) || held(b, e) {
				continue
			}
			at := func(token int, e int32) float64 { return float64(scores[token*experts+int(e)]) }
			if gain := at(a, f) + at(b, e) - at(a, e) - at(b, f); gain > 1e-9 {
				t.Fatalf("shape %v: tokens %d and %d gain %v by exchanging experts %d and %d", c, a, b, gain, e, f)
			}
		}
	}
}

func BenchmarkScenario(b *testing.B) {
	for _, scenario := range []string{"pretraining", "independent"} {
		for _, c := range batches {
			b.Run(fmt.Sprintf("%s/T=%d,E=%d,K=%d", scenario, c[0], c[1], c[2]), func(b *testing.B) {
				scores := drawn(b, scenario, c[0], c[1], c[2], 1)
				s, err := NewSolver(c[0], c[1], c[2])
				if err != nil {
					b.Fatal(err)
				}
				for b.Loop() {
					if err := s.Solve(scores); err != nil {
						b.Fatal(err)
					}
				}
				if primal, dual := s.Certificate(); primal != dual {
					b.Fatalf("primal %d, dual %d", primal, dual)
				}
			})
		}
	}
}
