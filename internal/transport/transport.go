// Package transport finds the best exactly balanced assignment of tokens to
// experts.
//
// Given scores s[t][e] of T tokens for E experts, it chooses K distinct
// experts for each token so as to
//
//	maximise    Σ_t Σ_e s[t][e] x[t][e],   x[t][e] ∈ {0, 1}
//	subject to  Σ_e x[t][e] = K                     for every token t
//	            ⌊TK/E⌋ ≤ Σ_t x[t][e] ≤ ⌈TK/E⌉       for every expert e.
//
// No router that keeps its loads within one of each other can collect more
// score on the same batch, so the optimum bounds every balancing method from
// above, as Belady's algorithm bounds every cache.
//
// The problem is a transportation problem. Its dual is
//
//	D(p) = Σ_t top_K(s[t] - p) + ⌊TK/E⌋ Σ_e p[e] + Σ_{R largest} p[e],
//
// where top_K sums the K largest entries, R = TK - E⌊TK/E⌋, and D(p) is no
// less than the score of any balanced assignment, for every price vector p.
// At the returned prices the two are equal: each solution carries its own
// proof of optimality, see [Solver.Certificate].
package transport

import (
	"fmt"
	"math"
	"math/bits"
	"slices"

	"evenkeel/internal/order"
)

const (
	// scoreBits is the magnitude, in bits, of the largest fixed-point score.
	scoreBits = 40

	// heldMark is subtracted from the fixed-point score of every chosen pair.
	// A move to an expert that the token already holds then costs about
	// heldMark, which no genuine path reaches, without a separate test.
	heldMark = 1 << 60

	// unreachable is the least cost that stands for a missing arc.
	unreachable = 1 << 59

	// maxExperts keeps the longest path cost, 2·E·2^scoreBits, well under
	// unreachable.
	maxExperts = 1 << 15
)

// Solver finds optimal balanced assignments for batches of one shape. Its
// buffers are reused: after the first calls of [Solver.Solve] it allocates next to
// nothing. A Solver is not safe for concurrent use.
type Solver struct {
	tokens, experts, topk int

	floor int // least load, ⌊TK/E⌋
	extra int // number of experts that carry floor+1, R

	scale  float64 // fixed-point units per unit of score
	primal int64   // fixed-point score of the choice
	total  float64

	score   []int64 // [T][E] fixed point, less heldMark where chosen
	byExp   []int64 // [E][T] fixed point
	choice  []int32 // [T][K]
	price   []int64 // [E+1], the last the price μ of one unit of extra load
	loads   []int
	members [][]int32 // tokens that hold each expert

	warm warmStart
	net  network
}

// NewSolver returns a solver for batches of the given number of tokens T,
// experts E and distinct experts per token K = topk. It returns an error
// unless T ≥ 1, 1 ≤ K ≤ E ≤ 32768 and TK < 2^40.
func NewSolver(tokens, experts, topk int) (*Solver, error) {
	switch {
	case tokens < 1:
		return nil, fmt.Errorf("transport: %d tokens, want at least 1", tokens)
	case topk < 1:
		return nil, fmt.Errorf("transport: %d experts per token, want at least 1", topk)
	case topk > experts:
		return nil, fmt.Errorf("transport: %d experts per token, but only %d experts", topk, experts)
	case experts > maxExperts:
		return nil, fmt.Errorf("transport: %d experts, want at most %d", experts, maxExperts)
	case int64(tokens) > math.MaxInt32 || int64(tokens)*int64(topk) >= 1<<40:
		return nil, fmt.Errorf("transport: %d tokens with %d experts each are too many", tokens, topk)
	}
	s := &Solver{
		tokens:  tokens,
		experts: experts,
		topk:    topk,
		floor:   tokens * topk / experts,
		extra:   tokens * topk % experts,
		score:   make([]int64, tokens*experts),
		byExp:   make([]int64, tokens*experts),
		choice:  make([]int32, tokens*topk),
		price:   make([]int64, experts+1),
		loads:   make([]int, experts),
		members: make([][]int32, experts),
	}
	s.warm.init(tokens, experts, topk)
	s.net.init(experts)
	return s, nil
}

// Solve finds an optimal balanced assignment for scores, row-major [T][E], in
// any unit. It returns an error, and keeps the previous result, when the
// length is not TE or a score is NaN or infinite.
//
// Scores are rounded to multiples of a power of two δ with
// 2^39 ≤ max|s|/δ < 2^40, coarser only from TK = 2^22 on, and the assignment
// is exactly optimal for the rounded scores. A float32 of at least max|s|/2^16
// is not changed by the rounding; the score lost is at most
// TKδ ≤ TK·max|s|/2^39.
// All later arithmetic is on integers, so the result is the same on every
// platform. It depends on scores alone, not on earlier calls.
func (s *Solver) Solve(scores []float32) error {
	if err := s.quantise(scores); err != nil {
		return err
	}
	if s.topk < s.experts {
		s.startPrices()
		s.startChoice()
		s.balance()
	} else {
		s.holdAll()
	}
	s.finish(scores)
	return nil
}

// quantise stores scores in fixed point, both token-major and expert-major.
func (s *Solver) quantise(scores []float32) error {
	if len(scores) != len(s.score) {
		return fmt.Errorf("transport: %d scores, want %d tokens × %d experts", len(scores), s.tokens, s.experts)
	}
	var largest float32
	for i, v := range scores {
		a := max(v, -v)
		if !(a <= math.MaxFloat32) {
			return fmt.Errorf("transport: score of token %d for expert %d is %v", i/s.experts, i%s.experts, v)
		}
		largest = max(largest, a)
	}
	_, exp := math.Frexp(float64(largest))
	width := min(scoreBits, 62-bits.Len(uint(s.tokens*s.topk)))
	s.scale = math.Ldexp(1, width-exp)
	for t := range s.tokens {
		row := s.row(t)
		for e, v := range scores[t*s.experts:][:s.experts] {
			row[e] = int64(math.RoundToEven(float64(v) * s.scale))
		}
	}
	s.transpose()
	return nil
}

// transpose fills byExp from score, in blocks that share cache lines.
func (s *Solver) transpose() {
	const block = 16
	for t0 := 0; t0 < s.tokens; t0 += block {
		t1 := min(t0+block, s.tokens)
		for e := range s.experts {
			col := s.byExp[e*s.tokens:][:s.tokens]
			for t := t0; t < t1; t++ {
				col[t] = s.score[t*s.experts+e]
			}
		}
	}
}

// row returns the fixed-point scores of token t.
func (s *Solver) row(t int) []int64 {
	return s.score[t*s.experts:][:s.experts:s.experts]
}

// held returns the experts of token t.
func (s *Solver) held(t int) []int32 {
	return s.choice[t*s.topk:][:s.topk:s.topk]
}

// startChoice gives each token its K best experts at the current prices,
// which is optimal for the loads it happens to produce.
func (s *Solver) startChoice() {
	for e := range s.members {
		s.members[e] = s.members[e][:0]
	}
	for t := range s.tokens {
		row, held := s.row(t), s.held(t)
		copy(held, s.warm.best(t))
		for _, e := range held {
			row[e] -= heldMark
			s.members[e] = append(s.members[e], int32(t))
		}
	}
}

// holdAll is the only assignment when every token takes every expert.
func (s *Solver) holdAll() {
	clear(s.price)
	for t := range s.tokens {
		for e := range s.experts {
			s.choice[t*s.topk+e] = int32(e)
		}
	}
	for i := range s.score {
		s.score[i] -= heldMark
	}
}

// finish sorts the choices, sums their scores and shifts the least price to
// zero, which changes no choice.
func (s *Solver) finish(scores []float32) {
	clear(s.loads)
	s.total, s.primal = 0, 0
	for t := range s.tokens {
		held := s.held(t)
		slices.Sort(held)
		for _, e := range held {
			i := t*s.experts + int(e)
			s.total += float64(scores[i])
			s.primal += s.score[i] + heldMark
			s.loads[e]++
		}
	}
	least := slices.Min(s.price[:s.experts])
	for e := range s.price {
		s.price[e] -= least
	}
}

// Choice returns the experts of each token, row-major [T][K] and ascending
// within a token. The slice is overwritten by the next Solve.
func (s *Solver) Choice() []int32 { return s.choice }

// Loads returns the number of tokens of each expert, [E]. The slice is
// overwritten by the next Solve.
func (s *Solver) Loads() []int { return s.loads }

// Total returns the score of the assignment, Σ_t Σ_{e chosen} s[t][e], summed
// in float64 over tokens and then experts in ascending order.
func (s *Solver) Total() float64 { return s.total }

// Prices returns optimal expert prices, [E], in units of score, the least of
// them zero: each token's experts are K of its best by s[t][e] - p[e]. The
// slice is the caller's.
func (s *Solver) Prices() []float64 {
	p := make([]float64, s.experts)
	for e := range p {
		p[e] = float64(s.price[e]) / s.scale
	}
	return p
}

// DualBound returns D(p) of the rounded scores at the prices found, in units
// of score: an upper bound on the score of every balanced assignment, up to
// the rounding described at [Solver.Solve].
func (s *Solver) DualBound() float64 {
	_, dual := s.Certificate()
	return float64(dual) / s.scale
}

// Certificate returns the score of the assignment and the dual value D(p),
// both as integers in the fixed point of [Solver.Solve]. The dual value is
// computed afresh from scores and prices; equality proves the assignment
// optimal.
func (s *Solver) Certificate() (primal, dual int64) {
	net := s.warm.next
	for t := range s.tokens {
		for e, v := range s.row(t) {
			if v < -unreachable {
				v += heldMark
			}
			net[e] = v - s.price[e]
		}
		dual += sumLargest(net, s.topk)
	}
	copy(net, s.price)
	for _, p := range s.price[:s.experts] {
		dual += int64(s.floor) * p
	}
	return s.primal, dual + sumLargest(net, s.extra)
}

// sumLargest returns the sum of the n largest entries of a and reorders a.
func sumLargest(a []int64, n int) (sum int64) {
	if n == 0 {
		return 0
	}
	order.Nth(a, len(a)-n)
	for _, v := range a[len(a)-n:] {
		sum += v
	}
	return sum
}
