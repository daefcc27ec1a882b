package metrics

import (
	"math"
	"slices"

	"evenkeel/internal/rng"
	"evenkeel/internal/vec"
)

// CoActivation says which experts are chosen together, over all pairs of experts of a token.
type CoActivation struct {
	Experts int
	Count   []int32 // [E][E] tokens that chose both, symmetric, 0 on the diagonal
	// Factor holds a [E], where a_i a_j tokens would have chosen both i ≠ j if the experts of a pair were independent given
	// the loads: the quasi-independence model, whose margins are those of Count (Bishop, Fienberg and Holland 1975,
	// Discrete Multivariate Analysis, chapter 5). A dead expert has 0.
	Factor []float64
	// Information is Σ_{i<j} p_ij log₂(p_ij / q_ij) in bits, with p the shares of the pairs and q those under
	// independence: 0 if loads explain all pairs.
	Information float64
	// Floor is the Information of the same tokens after random exchanges of experts between tokens, which keep every load
	// and every token's number of experts and destroy the rest (Gotelli 2000, Null model analysis of species
	// co-occurrence patterns): what finite samples, and loads that differ, show of themselves.
	Floor float64
}

// CoActivation counts the pairs. Information and Floor are NaN if no token chose two experts.
func (c Choices) CoActivation() *CoActivation {
	a := &CoActivation{Experts: c.Experts, Count: c.pairs()}
	a.Factor = quasiIndependence(a.Count, c.Experts)
	a.Information = a.information()
	null := &CoActivation{Experts: c.Experts, Count: c.exchanged().pairs(), Factor: a.Factor}
	a.Floor = Round6(null.information())
	return a
}

// Expected returns how many tokens would have chosen both i and j if the experts of a pair were independent.
func (a *CoActivation) Expected(i, j int) float64 { return a.Factor[i] * a.Factor[j] }

// Ratio returns how many times as often as under independence i and j were chosen together, NaN if either is dead or i = j.
func (a *CoActivation) Ratio(i, j int) float64 {
	if i == j {
		return math.NaN()
	}
	return float64(a.Count[i*a.Experts+j]) / a.Expected(i, j) // 0/0 where one is dead
}

// Pair is two experts, A < B.
type Pair struct {
	A, B     int
	Count    int64   // tokens that chose both
	Expected float64 // tokens, if they were independent given the loads
	Ratio    float64 // Count / Expected
}

// Strongest returns the n pairs that are chosen together more often than expected with most evidence, which is the deviance
// c ln(c/e) − (c − e) of a count c against the expected e: it does not favour pairs that are expected hardly ever.
func (a *CoActivation) Strongest(n int) (pairs []Pair) {
	evidence := func(p Pair) float64 {
		return float64(float64(p.Count)*vec.Log64(p.Ratio)) - (float64(p.Count) - p.Expected)
	}
	var strength []float64 // evidence of the pairs, descending
	for i := range a.Experts {
		for j := i + 1; j < a.Experts; j++ {
			p := Pair{i, j, int64(a.Count[i*a.Experts+j]), a.Expected(i, j), a.Ratio(i, j)}
			if !(p.Ratio > 1) {
				continue
			}
			v := evidence(p)
			at, _ := slices.BinarySearchFunc(strength, v, func(x, v float64) int {
				if x >= v { // of equal ones the first
					return -1
				}
				return 1
			})
			if at < n {
				strength, pairs = slices.Insert(strength, at, v), slices.Insert(pairs, at, p)
				strength, pairs = strength[:min(n, len(strength))], pairs[:min(n, len(pairs))]
			}
		}
	}
	return pairs
}

// pairs counts for all pairs of experts [E][E] the tokens that chose both.
func (c Choices) pairs() []int32 {
	n := make([]int32, c.Experts*c.Experts)
	for t := range c.Tokens() {
		chosen := c.Of(t)
		for i, a := range chosen {
			for _, b := range chosen[:i] {
				if a >= 0 && b >= 0 {
					n[int(a)*c.Experts+int(b)]++
					n[int(b)*c.Experts+int(a)]++
				}
			}
		}
	}
	return n
}

// quasiIndependence fits a so that Σ_{j≠i} a_i a_j is the sum of each row of the symmetric counts [E][E], one factor after
// the other, which climbs the likelihood.
func quasiIndependence(count []int32, experts int) []float64 {
	const sweeps, exact = 1000, 1e-12
	margin, a := make([]float64, experts), make([]float64, experts)
	total, all := 0.0, 0.0
	for i, v := range count {
		margin[i/experts] += float64(v)
		total += float64(v)
	}
	for i, m := range margin {
		if m > 0 {
			a[i] = m / math.Sqrt(total)
			all += a[i]
		}
	}
	for range sweeps {
		moved := 0.0
		for i, m := range margin {
			if m == 0 {
				continue
			}
			others := all - a[i]
			next := m / others
			moved = max(moved, math.Abs(next-a[i])/next)
			a[i], all = next, others+next
		}
		if moved < exact {
			break
		}
	}
	return a
}

func (a *CoActivation) information() float64 {
	total, nats := 0.0, 0.0
	for i := range a.Experts {
		for j := range i {
			v := float64(a.Count[i*a.Experts+j])
			if v > 0 {
				total += v
				nats += float64(v * vec.Log64(v/a.Expected(i, j)))
			}
		}
	}
	return max(0, nats/total/math.Ln2)
}

// exchanged returns the choices, in another order, after random exchanges of experts between tokens that leave no token with
// an expert twice. They are made within blocks of a random order, which fit a processor's cache and differ by chance alone.
func (c Choices) exchanged() Choices {
	const (
		sweeps = 8 // attempts for every choice
		block  = 4096
	)
	x := c.Shuffled()
	r := rng.New(rng.Key(0, rng.Replay, uint64(len(x.IDs)), uint64(c.TopK)))
	blocks := max(1, x.Tokens()/block)
	for b := range blocks {
		from, to := b*x.Tokens()/blocks, (b+1)*x.Tokens()/blocks
		part := Choices{c.Experts, c.TopK, x.IDs[from*c.TopK : to*c.TopK]}
		for range sweeps {
			part.exchange(&r)
		}
	}
	return x
}

// exchange offers every choice one exchange with another.
func (c Choices) exchange(r *rng.Rand) {
	for i, a := range c.IDs {
		j := r.IntN(len(c.IDs))
		b := c.IDs[j]
		if a >= 0 && b >= 0 && !slices.Contains(c.Of(i/c.TopK), b) && !slices.Contains(c.Of(j/c.TopK), a) {
			c.IDs[i], c.IDs[j] = b, a
		}
	}
}
