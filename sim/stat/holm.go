package stat

import (
	"cmp"
	"math"
	"slices"
)

// Holm returns the p-values of m hypotheses, in the order given, adjusted so that rejecting those at or below α falsely
// rejects any with probability at most α, however they depend on each other: with p₍₁₎ ≤ ... ≤ p₍ₘ₎
//
//	p̃₍ᵢ₎ = max over j ≤ i of min(1, (m − j + 1) p₍ⱼ₎)
//
// (Holm 1979, Scandinavian Journal of Statistics 6, 65). A NaN stays, and counts among the m.
func Holm(p []float64) []float64 {
	order := make([]int, len(p))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(i, j int) int {
		if math.IsNaN(p[i]) || math.IsNaN(p[j]) {
			return -cmp.Compare(p[i], p[j]) // NaN is the least to Compare and comes last here
		}
		return cmp.Compare(p[i], p[j])
	})
	adjusted := make([]float64, len(p))
	var least float64
	for rank, i := range order {
		if math.IsNaN(p[i]) {
			adjusted[i] = p[i]
			continue
		}
		least = max(least, min(1, float64(len(p)-rank)*p[i]))
		adjusted[i] = least
	}
	return adjusted
}
