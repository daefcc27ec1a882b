package metrics

import (
	"cmp"
	"math"
	"slices"
)

// MinOccurrences is the number of times that a token id must occur for its favourite experts to be counted.
const MinOccurrences = 16

// TokenDependence says how much of the choices the vocabulary id of a token explains. Shares are of the assignments of
// tokens whose id occurs at least [MinOccurrences] times; they are NaN if there are none.
type TokenDependence struct {
	IDs, Tokens int // ids that occur often enough, and their occurrences
	// Favourites is the share that goes to the K experts which the token's own id chooses most (as in Muennighoff et al.
	// 2024, OLMoE, who count one expert). It flatters rare ids, whose favourites are counted on the same choices.
	Favourites float64
	// HeldBack is the same with the favourites counted on every other occurrence of the id and the share on the rest, both
	// ways round: what the id tells about choices that were not seen.
	HeldBack float64
	// Popular is the share of the K busiest experts of all these tokens: what loads alone give, whatever the id.
	Popular float64
	// Uniform is K/E, the share under a uniform router.
	Uniform float64
}

// TokenDependence measures how far the ids of the tokens [T] decide their experts. Negative ids are unknown and left out.
func (c Choices) TokenDependence(ids []int32) TokenDependence {
	d := TokenDependence{Uniform: float64(c.TopK) / float64(c.Experts)}
	order := make([]int32, 0, len(ids))
	for t, id := range ids {
		if id >= 0 {
			order = append(order, int32(t))
		}
	}
	slices.SortStableFunc(order, func(a, b int32) int { return cmp.Compare(ids[a], ids[b]) })
	all := make([]int64, c.Experts)
	both, half := make([]int64, c.Experts), [2][]int64{make([]int64, c.Experts), make([]int64, c.Experts)}
	var total, favourite, heldBack int64
	for len(order) > 0 {
		n := 1
		for n < len(order) && ids[order[n]] == ids[order[0]] {
			n++
		}
		if n >= MinOccurrences {
			d.IDs++
			d.Tokens += n
			for i, t := range order[:n] {
				for _, e := range c.Of(int(t)) {
					if e >= 0 {
						half[i%2][e]++
					}
				}
			}
			for e := range both {
				both[e] = half[0][e] + half[1][e]
				all[e] += both[e]
			}
			favourite += servedBy(both, both, c.TopK)
			heldBack += servedBy(half[0], half[1], c.TopK) + servedBy(half[1], half[0], c.TopK)
			total += sum(both)
			clear(half[0])
			clear(half[1])
		}
		order = order[n:]
	}
	d.Favourites = float64(favourite) / float64(total)
	d.HeldBack = float64(heldBack) / float64(total)
	d.Popular = float64(servedBy(all, all, c.TopK)) / float64(total)
	if total == 0 {
		d.Favourites, d.HeldBack, d.Popular = math.NaN(), math.NaN(), math.NaN()
	}
	return d
}

// servedBy sums the assignments n over the k experts that have most by another count; of equal ones the first.
func servedBy(n, by []int64, k int) (served int64) {
	var room [64]int
	best := room[:0]
	for e, v := range by {
		if len(best) == k && v <= by[best[k-1]] {
			continue
		}
		at := len(best)
		for at > 0 && v > by[best[at-1]] {
			at--
		}
		if len(best) == k {
			best = best[:k-1]
		}
		best = slices.Insert(best, at, e)
	}
	for _, e := range best {
		served += n[e]
	}
	return served
}
