package metrics

import (
	"iter"
	"math"
	"slices"

	"evenkeel/internal/rng"
	"evenkeel/internal/vec"
)

// Choices are the experts that the tokens of one layer chose, in the order of their trace.
type Choices struct {
	Experts, TopK int
	IDs           []int32 // [T][K], −1 where a token chose fewer
}

// Tokens returns the number of tokens T.
func (c Choices) Tokens() int { return len(c.IDs) / c.TopK }

// Of returns the experts of one token [K].
func (c Choices) Of(token int) []int32 { return c.IDs[token*c.TopK : (token+1)*c.TopK] }

// Loads returns the assignments n [E].
func (c Choices) Loads() []int64 { return c.count(make([]int64, c.Experts), 0, c.Tokens()) }

// count sets n [E] to the assignments of the tokens from..to−1.
func (c Choices) count(n []int64, from, to int) []int64 {
	clear(n)
	for _, e := range c.IDs[from*c.TopK : to*c.TopK] {
		if e >= 0 {
			n[e]++
		}
	}
	return n
}

// Pick returns a copy of the choices of some tokens, in the order given.
func (c Choices) Pick(tokens []int32) Choices {
	ids := make([]int32, 0, len(tokens)*c.TopK)
	for _, t := range tokens {
		ids = append(ids, c.Of(int(t))...)
	}
	return Choices{c.Experts, c.TopK, ids}
}

// Shuffled returns the same tokens in a random order that depends on their number alone. Its batches are what batches of
// independent tokens would be: all that sequences and domains have in common is gone.
func (c Choices) Shuffled() Choices {
	order := make([]int32, c.Tokens())
	r := rng.New(rng.Key(0, rng.Replay, uint64(len(order))))
	r.Perm(order)
	return c.Pick(order)
}

// BatchLoads yields the assignments n [E] of each whole batch of size consecutive tokens, in the same storage; the tokens
// that are left over at the end are in none.
func (c Choices) BatchLoads(size int) iter.Seq[[]int64] {
	return func(yield func(n []int64) bool) {
		n := make([]int64, c.Experts)
		for from := 0; from+size <= c.Tokens(); from += size {
			if !yield(c.count(n, from, from+size)) {
				return
			}
		}
	}
}

// BatchMaxVio returns the [MeanLoadMaxVio] of the whole batches of size consecutive tokens.
func (c Choices) BatchMaxVio(size int) float64 { return MeanLoadMaxVio(c.BatchLoads(size)) }

// MeanLoadMaxVio returns the mean [MaxVio] of the assignments n [E] of batches, those without any left out; NaN if there is
// no other.
func MeanLoadMaxVio(batches iter.Seq[[]int64]) float64 {
	sum, count := 0.0, 0
	for n := range batches {
		if v := MaxVio(n); !math.IsNaN(v) {
			sum += v
			count++
		}
	}
	return sum / float64(count)
}

// BatchSizes are the sizes at which a trace of some tokens is measured: 64, 256, 1,024, … below their number, and all.
func BatchSizes(tokens int) (sizes []int) {
	for size := 64; size < tokens; size *= 4 {
		sizes = append(sizes, size)
	}
	return append(sizes, tokens)
}

// LogSlope returns the slope of the straight line that fits ln y against ln x best in least squares, such as −1/2 for
// the noise of independent tokens against their number. It is NaN with fewer than two values or if one is not positive.
func LogSlope(x []int, y []float64) float64 {
	u, v := make([]float64, len(x)), make([]float64, len(x))
	for i := range x {
		if x[i] <= 0 || !(y[i] > 0) {
			return math.NaN()
		}
		u[i], v[i] = vec.Log64(float64(x[i])), vec.Log64(y[i])
	}
	centreU, centreV, both, squares := orderedMean(u), orderedMean(v), 0.0, 0.0
	for i := range u {
		both += float64((u[i] - centreU) * (v[i] - centreV))
		squares += float64((u[i] - centreU) * (u[i] - centreU))
	}
	return both / squares
}

// CapacityFactors are those at which overflow is measured.
var CapacityFactors = [...]float64{1, 1.25, 1.5, 2, 4}

// Overflow is the share of the assignments that find no room at each of [CapacityFactors].
type Overflow [len(CapacityFactors)]float64

// Overflow returns the [MeanOverflow] of the whole batches of size consecutive tokens.
func (c Choices) Overflow(size int) Overflow { return MeanOverflow(c.BatchLoads(size)) }

// MeanOverflow returns the shares of the assignments beyond the capacity ⌈f N / E⌉ of their expert, as Megatron-LM rounds
// it, N being the assignments of a batch; mean over batches of assignments n [E], those without any left out, NaN if there
// is no other.
func MeanOverflow(batches iter.Seq[[]int64]) (o Overflow) {
	count := 0
	for n := range batches {
		if o.add(n) {
			count++
		}
	}
	for i := range o {
		o[i] /= float64(count)
	}
	return o
}

// add adds the overflow of the loads n [E] of one batch, and reports whether it held any assignment.
func (o *Overflow) add(n []int64) bool {
	total, most := sumMax(n)
	if total == 0 {
		return false
	}
	for i, factor := range CapacityFactors {
		capacity := int64(math.Ceil(float64(factor*float64(total)) / float64(len(n))))
		if most <= capacity {
			break // nor at any larger factor
		}
		var over int64
		for _, v := range n {
			over += max(0, v-capacity)
		}
		o[i] += float64(over) / float64(total)
	}
	return true
}

// OverflowFloor returns the overflow of batches of T tokens that choose K of E experts at random, from the batches that
// [SamplingFloor] draws. It is cached and rounded like SamplingFloor, and panics as it does.
func OverflowFloor(experts, topk, tokens int) Overflow {
	checkShape(experts, topk, tokens)
	return overflowFloors.get(shape{experts, topk, experts, tokens}, func(s shape) (o Overflow) {
		for n := range s.batches() {
			o.add(n)
		}
		for i := range o {
			o[i] = Round6(o[i] / FloorRepetitions)
		}
		return o
	})
}

var overflowFloors cache[Overflow]

// Quantile returns the value below which the share p of x lies, interpolated linearly between order statistics (type 7 of
// Hyndman and Fan 1996, the default of NumPy). Values that are NaN are left out; without others it is NaN.
func Quantile(x []float64, p float64) float64 {
	ascending := slices.DeleteFunc(slices.Clone(x), math.IsNaN)
	if len(ascending) == 0 {
		return math.NaN()
	}
	slices.Sort(ascending)
	at := float64(p * float64(len(ascending)-1))
	i := min(int(at), len(ascending)-1)
	if i == len(ascending)-1 {
		return ascending[i]
	}
	return ascending[i] + float64((at-float64(i))*(ascending[i+1]-ascending[i]))
}
