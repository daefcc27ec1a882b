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
	w.Select.TopK(mask, s, bias, t.Live(), k.allowed(s, bias, w))
}

// allowed returns the groups that each token may touch, or nil where all.
func (k topK) allowed(s, bias []float32, w *moe.Scratch) []uint64 {
	if !k.layer.Limited() {
		return nil
	}
	w.Select.Groups(w.Allowed, s, bias, k.layer.Experts, k.layer.GroupsKept)
	return w.Allowed
}

// firstChoice marks the best expert alone, of those that topK may choose from: what GShard's loss counts.
type firstChoice struct{ topK }

func (k firstChoice) choose(t *moe.Tile, s, bias []float32, w *moe.Scratch, mask []uint64) {
	clear(mask)
	var best picks
	best.add(mask, s, bias, k.allowed(s, bias, w), t.Live())
}

// positive chooses every expert with a positive score, however many (ReMoE). Group limits do not bind it.
type positive struct{ above }

func (p positive) choose(t *moe.Tile, s, _ []float32, w *moe.Scratch, mask []uint64) {
	p.above.choose(t, s, nil, w, mask)
}

// picks are one expert for each token of a tile and its score; dead lanes and tokens without any left have expert −1.
type picks struct {
	expert [moe.TileTokens]int32
	score  vec.Row
}

// add finds every live token's best expert by s + bias that is allowed and not yet in its mask, ties to the lowest, and adds it.
func (p *picks) add(mask []uint64, s, bias []float32, allowed []uint64, live uint64) {
	var best vec.Row
	for l := range p.expert {
		p.expert[l] = -1
	}
	size := len(mask) / max(1, len(allowed))
	for e, m := range mask {
		open := live &^ m
		if allowed != nil {
			open &= allowed[e/size]
		}
		var b float32
		if bias != nil {
			b = bias[e]
		}
		for l, v := range row(s, e) {
			if open>>l&1 != 0 && (p.expert[l] < 0 || v+b > best[l]) {
				p.expert[l], p.score[l], best[l] = int32(e), v, v+b
			}
		}
	}
	for l, e := range p.expert {
		if e >= 0 {
			mask[e] |= 1 << l
		}
	}
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
