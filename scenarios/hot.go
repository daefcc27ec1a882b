package scenarios

import (
	"evenkeel/internal/vec"
	"evenkeel/moe"
)

// Hot describes tokens without latent vectors that want a fixed set of experts: the skewed workloads with which frameworks are
// benchmarked (Megatron-LM pull request 7488, W0 to W7; Mooncake 2607, k-hot). An expert's logit is
//
//	z_te = ξ_te + 6 where t wants e, ξ_te − 6 elsewhere,   ξ ~ N(0, 1) but never beyond 5.8,
//
// so that the top K of a token are K of the experts that it wants, evenly drawn, and where it wants fewer than K all of those and
// some others. Of each batch an exact share of the tokens, evenly spaced, wants the hot experts alone, and the rest all.
type Hot struct {
	Experts int     `json:"experts" range:"0 4096 hot experts (0: a quarter, but at least topk)"`
	Share   float64 `json:"share" range:"0 1 of the tokens"`
	Place   string  `json:"place"` // of the hot experts: block, from the first on; spread, every other one; last, the last ones; cycle, the next K for every token
	Rotate  int     `json:"rotate" range:"0 100000000 steps after which they move on by their number (0: never)"`
	Every   int     `json:"every" range:"1 100000000 steps, of which only the last one is hot"`
}

// Places of hot experts.
const (
	placeBlock  = "block"
	placeSpread = "spread"
	placeLast   = "last"
	placeCycle  = "cycle"
)

func (h *Hot) defaults() { *h = Hot{Share: 0.75, Place: placeBlock, Every: 1} }

// number is how many experts are hot.
func (h *Hot) number(l moe.Layer) int {
	switch {
	case h.Place == placeCycle:
		return l.TopK
	case h.Experts == 0:
		return max(l.TopK, l.Experts/4)
	}
	return h.Experts
}

// hotSet is n of all experts, from one on, each a stride after the one before.
type hotSet struct{ from, n, stride, experts int }

// set is the hot experts of a step, or for cycle of one token.
func (h *Hot) set(l moe.Layer, step, token int) hotSet {
	s := hotSet{n: h.number(l), stride: 1, experts: l.Experts}
	switch h.Place {
	case placeSpread:
		s.stride = 2
	case placeLast:
		s.from = l.Experts - s.n
	case placeCycle:
		s.from = token * l.TopK
	}
	if h.Rotate > 0 {
		s.from += step / h.Rotate * s.n
	}
	s.from %= l.Experts
	return s
}

// wants reports whether an expert is in the set.
func (s hotSet) wants(e int) bool {
	at := e - s.from
	if at < 0 {
		at += s.experts
	}
	return at < s.n*s.stride && at%s.stride == 0
}

type hotStream struct{ unrelated }

// Fill implements moe.Stream.
func (g *hotStream) Fill(b *moe.Batch, tile int, _ *moe.Scratch) {
	t, m, h := &b.Tiles[tile], g.moment, g.s.Hot
	vec.Normals(t.Z, g.begin(t, tile))
	if m.Step%h.Every != h.Every-1 {
		return
	}
	for l := range moe.TileTokens {
		at := t.Start + l
		if int(float64(at+1)*h.Share) == int(float64(at)*h.Share) {
			continue
		}
		hot := h.set(b.Layer, m.Step, at)
		for e := range b.Layer.Experts {
			if hot.wants(e) {
				t.Z[e*moe.TileTokens+l] += 6
			} else {
				t.Z[e*moe.TileTokens+l] -= 6
			}
		}
	}
}
