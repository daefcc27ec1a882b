package strategies

import (
	"evenkeel/internal/rng"
	"evenkeel/internal/vec"
	"evenkeel/moe"
)

// topK chooses the K largest a = s + b of every token, ties to the lowest expert. Where a token may touch only M of G
// groups, groups are ranked by the sum of their two best a and the others count as −∞ (DeepSeek-V3, arXiv 2412.19437,
// section 2.1.2; its released code masks with −inf, not with 0, which a negative bias would let through). groups.go has the
// other rules.
type topK struct{ layer moe.Layer }

func (k topK) choose(t *moe.Tile, s, bias []float32, w *moe.Scratch, mask []uint64) {
	var allowed []uint64
	if k.layer.Limited() {
		allowed = w.Allowed
		w.Select.Groups(allowed, s, bias, k.layer.Experts, k.layer.GroupsKept)
	}
	w.Select.TopK(mask, s, bias, t.Live(), allowed)
}

// randomK chooses K distinct experts with equal chances, within M groups drawn with equal chances.
type randomK struct{ layer moe.Layer }

func (k randomK) choose(t *moe.Tile, _, _ []float32, w *moe.Scratch, mask []uint64) {
	clear(mask)
	l := k.layer
	size := l.Experts / l.Groups
	for lane := range t.Tokens {
		r := rng.New(rng.Mix(t.Key + uint64(lane)))
		clear(w.Allowed)
		subset(&r, l.Groups, l.GroupsKept, w.Allowed, 0)
		subset(&r, l.GroupsKept*size, l.TopK, mask, lane)
		if l.Limited() {
			spread(mask, w.Allowed, size, lane)
		}
	}
}

// subset sets bit lane of k words, a uniform subset of the first n (Floyd's method).
func subset(r *rng.Rand, n, k int, words []uint64, lane int) {
	bit := uint64(1) << lane
	for j := n - k; j < n; j++ {
		i := r.IntN(j + 1)
		if words[i]&bit != 0 {
			i = j
		}
		words[i] |= bit
	}
}

// spread moves a lane's choices among the first M·size experts to the same places of the M groups allowed.
func spread(mask, allowed []uint64, size, lane int) {
	kept := 0
	for g := range allowed {
		if allowed[g]&1 != 0 {
			kept++
		}
	}
	for g := len(allowed) - 1; g >= 0; g-- { // from the back, so that no choice is moved twice
		if allowed[g]&1 == 0 {
			continue
		}
		kept--
		if g == kept {
			break
		}
		for i := range size {
			bit := mask[kept*size+i] & (1 << lane)
			mask[kept*size+i] &^= bit
			mask[g*size+i] |= bit
		}
	}
}

// offsetK chooses the K largest of standard normal numbers plus an offset per expert.
type offsetK struct {
	layer   moe.Layer
	offsets []float32
}

func newOffsetK(l moe.Layer, spread float32) offsetK {
	offsets := make([]float32, (l.Experts+31)&^31)
	vec.Normals(offsets, rng.Key(0, rng.Choice))
	for e := range offsets {
		offsets[e] *= spread
	}
	return offsetK{l, offsets[:l.Experts]}
}

func (k offsetK) choose(t *moe.Tile, _, _ []float32, w *moe.Scratch, mask []uint64) {
	vec.Normals(w.Grad, rng.Mix(t.Key))
	topK{k.layer}.choose(t, w.Grad, k.offsets, w, mask)
}

// roundRobin sends token t of a batch to experts (tK+i) mod E, i < K.
type roundRobin struct{ layer moe.Layer }

func (k roundRobin) choose(t *moe.Tile, _, _ []float32, _ *moe.Scratch, mask []uint64) {
	clear(mask)
	for lane := range t.Tokens {
		for i := range k.layer.TopK {
			mask[((t.Start+lane)*k.layer.TopK+i)%k.layer.Experts] |= 1 << lane
		}
	}
}
