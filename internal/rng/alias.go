package rng

import (
	"fmt"
	"math/bits"
)

// Alias draws from a fixed discrete distribution in constant time (Walker's method in Vose's form).
type Alias struct {
	keep  []uint32
	other []int32
}

// NewAlias prepares a distribution proportional to the weights, which must be finite, not negative and not all zero.
func NewAlias(weights []float64) (*Alias, error) {
	var sum float64
	for i, w := range weights {
		if !(w >= 0) || w > 1e300 {
			return nil, fmt.Errorf("weight %d is %v: weights must be finite and not negative", i, w)
		}
		sum += w
	}
	if sum == 0 {
		return nil, fmt.Errorf("all %d weights are zero: at least one must be positive", len(weights))
	}
	n := len(weights)
	a := &Alias{make([]uint32, n), make([]int32, n)}
	share := make([]float64, n)
	var small, large []int32
	for i, w := range weights {
		share[i] = w / sum * float64(n)
		if share[i] < 1 {
			small = append(small, int32(i))
		} else {
			large = append(large, int32(i))
		}
	}
	for len(small) > 0 && len(large) > 0 {
		s, l := small[len(small)-1], large[len(large)-1]
		small = small[:len(small)-1]
		a.keep[s], a.other[s] = uint32(share[s]*(1<<32)), l
		share[l] -= 1 - share[s]
		if share[l] < 1 {
			large = large[:len(large)-1]
			small = append(small, l)
		}
	}
	for _, i := range append(small, large...) {
		a.keep[i], a.other[i] = 1<<32-1, i
	}
	return a, nil
}

// Draw maps 64 uniform bits to an index.
func (a *Alias) Draw(u uint64) int {
	i, frac := bits.Mul64(u, uint64(len(a.keep)))
	if uint32(frac>>32) < a.keep[i] {
		return int(i)
	}
	return int(a.other[i])
}
