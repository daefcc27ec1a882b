package scenarios

import (
	"evenkeel/internal/rng"
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

// set marks the hot experts of a step, or for cycle of one token.
func (h *Hot) set(hot []bool, l moe.Layer, step, token int) {
	clear(hot)
	n, from, stride := h.number(l), 0, 1
	switch h.Place {
	case placeSpread:
		stride = 2
	case placeLast:
		from = l.Experts - n
	case placeCycle:
		from = token * l.TopK % l.Experts
	}
	if h.Rotate > 0 {
		from += step / h.Rotate * n
	}
	for i := range n {
		hot[(from+i*stride)%l.Experts] = true
	}
}

type hotStream struct {
	s      *Scenario
	seed   uint64
	moment moe.Moment
}

// Evaluation implements moe.Stream.
func (g *hotStream) Evaluation() int { return g.s.EvaluationTokens }

// OracleRouter implements moe.Stream.
func (g *hotStream) OracleRouter() []float32 { return nil }

// Layout implements moe.Stream.
func (g *hotStream) Layout(b *moe.Batch, m moe.Moment) {
	g.moment = m
	g.s.layout(b, g.s.tokensAt(m))
}

// Fill implements moe.Stream.
func (g *hotStream) Fill(b *moe.Batch, tile int, _ *moe.Scratch) {
	t, m, h, layer := &b.Tiles[tile], g.moment, g.s.Hot, b.Layer
	t.Key = rng.Key(g.seed, rng.Choice, uint64(m.Purpose), uint64(m.Index), uint64(tile))
	vec.Normals(t.Z, rng.Key(g.seed, rng.Noise, uint64(m.Purpose), uint64(m.Index), uint64(tile)))
	hot := make([]bool, layer.Experts)
	if h.Place != placeCycle {
		h.set(hot, layer, m.Step, 0)
	}
	burning := m.Step%h.Every == h.Every-1
	for l := range moe.TileTokens {
		t.Token[l], t.Domain[l] = -1, -1
		at := t.Start + l
		if !burning || int(float64(at+1)*h.Share) == int(float64(at)*h.Share) {
			continue
		}
		if h.Place == placeCycle {
			h.set(hot, layer, m.Step, at)
		}
		for e, wanted := range hot {
			if wanted {
				t.Z[e*moe.TileTokens+l] += 6
			} else {
				t.Z[e*moe.TileTokens+l] -= 6
			}
		}
	}
}
