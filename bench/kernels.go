package bench

import (
	"slices"
	"time"

	"evenkeel/internal/vec"
	"evenkeel/moe"
)

// Timing is how long one thing takes.
type Timing struct {
	Name     string  `json:"name"`
	NsToken  float64 `json:"ns_per_token"` // median
	Best     float64 `json:"ns_per_token_best"`
	GFlops   float64 `json:"gflops,omitempty"` // for products, at the median
	PeakPart float64 `json:"share_of_peak,omitempty"`
}

// Measure times what handles the given number of tokens, in rounds of about d/20 for about d.
func Measure(name string, tokens int, d time.Duration, run func()) Timing {
	run()
	at := time.Now()
	run()
	each := max(1, int(d/20/max(time.Nanosecond, time.Since(at))))
	var rounds []float64
	for begin := time.Now(); time.Since(begin) < d || len(rounds) < 3; {
		at := time.Now()
		for range each {
			run()
		}
		rounds = append(rounds, float64(time.Since(at).Nanoseconds())/float64(each*tokens))
	}
	slices.Sort(rounds)
	return Timing{Name: name, NsToken: rounds[len(rounds)/2], Best: rounds[0]}
}

// Kernels times every kernel alone on one tile of a shape, which stays in cache.
func Kernels(s *Step, peak float64, d time.Duration) []Timing {
	e, k := s.Experts, s.TopK
	z, g, weights := make([]float32, e*vec.Lanes), make([]float32, e*vec.Lanes), make([]float32, e)
	other := make([]float32, s.Width*vec.Lanes)
	grad := vec.NewGradient(e, s.Width)
	live := s.load(0)
	s.matrix.Times(z, s.x, s.tile)
	s.choose(s.s, live)
	s.list(0, s.s)
	copy(s.oracle, s.mask)
	var rows [4]vec.Row
	q := vec.NewSelector(k, s.Groups)
	products := 2 * float64(e) * float64(s.Width)
	var list []Timing
	add := func(name string, flops float64, run func()) {
		t := Measure(name, vec.Lanes, d, run)
		if flops > 0 && peak > 0 {
			t.GFlops = flops / t.NsToken
			t.PeakPart = t.GFlops / peak
		}
		list = append(list, t)
	}
	add("draw latent vectors", 0, func() { vec.Normals(other, 1) })
	add("bring tokens into a tile", 0, func() { s.load(0) })
	add("affinities (product)", products, func() { s.matrix.Times(z, s.x, s.tile) })
	for _, f := range []moe.Score{moe.Softmax, moe.Sigmoid, moe.SqrtSoftplus} {
		add(f.String(), 0, func() { f.Apply(g, z, e) })
	}
	if s.allowed != nil {
		add("best groups", 0, func() { q.Groups(s.allowed, s.s, s.in.Bias, e, s.GroupsKept) })
	}
	add("biased top-K", 0, func() { q.TopK(s.mask, s.s, s.in.Bias, live, s.allowed) })
	add("lists and gates", 0, func() { s.list(0, s.s) })
	add("loads and agreement", 0, func() { s.count() })
	add("sum of chosen scores", 0, func() { vec.SumChosen(&rows[0], s.s, s.mask) })
	add("gates against targets", 0, func() { vec.GateError(&rows[1], &rows[2], g, s.s, s.s, s.mask, &rows[0], &rows[0], 1) })
	add("price gradient", 0, func() {
		clear(g)
		vec.WeightedSum(&rows[1], &rows[2], s.s, weights)
		vec.AddPrices(g, weights, &rows[1], &rows[2])
	})
	add("score derivative", 0, func() { s.Score.Backward(g, s.s, e) })
	add("weight gradient (product)", products, func() { grad.Add(g, s.x, s.tile) })
	return list
}
