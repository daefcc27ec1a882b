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
	GFlops   float64 `json:"gflops,omitempty"`        // for products, at the median
	PeakPart float64 `json:"share_of_peak,omitempty"` // in turn with the peak
}

// Measure times what handles the given number of tokens, in rounds of about d/20 for about d.
func Measure(name string, tokens int, d time.Duration, run func()) Timing {
	each := fit(d/20, run)
	var rounds []float64
	for begin := time.Now(); time.Since(begin) < d || len(rounds) < 3; {
		rounds = append(rounds, timed(each, run)/float64(tokens))
	}
	slices.Sort(rounds)
	return Timing{Name: name, NsToken: rounds[len(rounds)/2], Best: rounds[0]}
}

// fit returns how many calls fit into d, at least one.
func fit(d time.Duration, run func()) int {
	run()
	return max(1, int(float64(d.Nanoseconds())/max(1, timed(1, run))))
}

// timed returns the nanoseconds of one of n calls.
func timed(n int, run func()) float64 {
	at := time.Now()
	for range n {
		run()
	}
	return float64(time.Since(at).Nanoseconds()) / float64(n)
}

// share is the part of the processor's peak that run reaches with the given number of floating operations: the median of
// rounds in which the two take turns, since the clock of a shared machine moves.
func share(flops float64, d time.Duration, run func()) float64 {
	const most = 1 << 12
	peak := func() { vec.FloatingPoint(most) }
	each, eachPeak := fit(d/100, run), fit(d/100, peak)
	var parts []float64
	for begin := time.Now(); time.Since(begin) < d || len(parts) < 3; {
		parts = append(parts, flops/timed(each, run)*timed(eachPeak, peak)/vec.FloatingPoint(most))
	}
	slices.Sort(parts)
	return parts[len(parts)/2]
}

// Kernels times every kernel alone on one tile of a shape, which stays in cache.
func Kernels(s *Step, d time.Duration) []Timing {
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
		if flops > 0 {
			t.GFlops, t.PeakPart = flops/t.NsToken, share(flops*vec.Lanes, d, run)
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
