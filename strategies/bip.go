package strategies

import (
	"math/bits"

	"evenkeel/internal/vec"
	"evenkeel/moe"
)

var bip = Preset{
	Name:    "bip",
	Family:  "biases",
	Summary: "prices of experts, never below 0, from the balanced assignment's dual; used from the next batch",
	Formula: `S_t = TopK(s_t − q);  gates from s, without q
after each step, some rounds over its scores:
  p_t = max(0, (K+1)-th largest of s_t − q);   q_e = max(0, (TK/E + 1)-th largest over t of s_te − p_t)

The prices of maximising Σ s_te over assignments with at most K experts a token and at most TK/E tokens an expert. The paper
routes a batch by the q made from it, which leaks later tokens into earlier choices; here the next batch is the first to
see it. A price above 0 drives tokens off a hot expert; nothing below 0 calls them to a cold one.`,
	Knobs: []Knob{
		{Name: "rounds", Default: "5", Whole: true, Low: 1, High: 100, About: "rounds over p and q per step; each goes on from the last q"},
		stopKnob, storageKnob, scoreKnob,
	},
	Needs:   "the scores of all experts",
	Changes: "which experts",
	Fails: "starved experts return only as all prices rise together, batch by batch: nothing centres them, and they climb until token prices are 0 and q is the 1 − K/E " +
		"quantile of every expert's scores; noisy prices from small batches; it sees no group limit; the published order of update and choice is not causal",
	Paper: "BIP-Based Balancing (Sun 2025, arXiv 2502.15451)",
	Read:  "by its description in J. Su's article kexue.fm 11619",
	Build: func(v Values, l moe.Layer) (*strategy, error) {
		c := newDual(l)
		c.rounds, c.stop, c.storage = v.Whole("rounds"), v.Whole("stop"), v.Text("storage")
		r, err := v.biased(l, topK{l}, c.b, c)
		if err != nil {
			return nil, err
		}
		r.traits.Notes = []string{"causal form: each batch is routed by the prices of the one before, where the paper routes it by its own"}
		if l.Limited() {
			r.traits.Warnings = append(r.traits.Warnings, "its prices are those of a free choice, while the scenario limits groups")
		}
		return r, nil
	},
}

// dual finds the prices q of experts by alternating between both sides of the dual of the balanced assignment, clipped at
// 0 as its constraints are inequalities. Its bias is b = −q.
type dual struct {
	layer        moe.Layer
	b            []float32
	rounds, stop int
	storage      string

	best    *vec.Selector // of K+1
	mask    []uint64
	columns columns // of s_te − p_t, with p as their α
}

func newDual(l moe.Layer) *dual {
	return &dual{layer: l, b: make([]float32, l.Experts), best: vec.NewSelector(l.TopK+1, 1), mask: make([]uint64, l.Experts),
		columns: newColumns(l)}
}

func (c *dual) update(o *moe.Outcome) {
	if c.stop > 0 && o.Step >= c.stop {
		return
	}
	c.columns.resize(len(o.Batch.Tiles))
	for range c.rounds {
		for i := range o.Batch.Tiles {
			c.priceTokens(&o.Batch.Tiles[i], c.tile(o.Scores, i), (*vec.Row)(c.columns.alpha[i*vec.Lanes:]))
		}
		c.priceExperts(o)
	}
	for e := range c.b {
		c.b[e] = rounded(c.b[e], c.storage)
	}
}

func (c *dual) tile(scores []float32, i int) []float32 {
	n := c.layer.Experts * vec.Lanes
	return scores[i*n : (i+1)*n]
}

// priceTokens finds p of a tile: max(0, (K+1)-th largest of s + b). Where K = E no expert is left out, and p is 0.
func (c *dual) priceTokens(t *moe.Tile, s []float32, p *vec.Row) {
	*p = vec.Row{}
	if c.layer.TopK == c.layer.Experts {
		return
	}
	c.best.TopK(c.mask, s, c.b, t.Live(), nil)
	for lane := range p {
		p[lane] = float32(1 << 62)
	}
	for e, m := range c.mask {
		row := s[e*vec.Lanes:]
		for ; m != 0; m &= m - 1 {
			lane := bits.TrailingZeros64(m)
			p[lane] = min(p[lane], row[lane]+c.b[e])
		}
	}
	for lane, v := range p {
		p[lane] = max(0, v)
	}
}

// priceExperts finds q of every expert: max(0, (⌊TK/E⌋+1)-th largest over tokens of s − p).
func (c *dual) priceExperts(o *moe.Outcome) {
	tokens := o.Batch.Tokens
	room := tokens * c.layer.TopK / c.layer.Experts
	if room >= tokens {
		return
	}
	c.columns.sift(o.Batch, o.Scores)
	for e := range c.b {
		q := c.columns.quantile(o.Scores, e, moe.Span{From: 0, To: tokens}, false)
		c.columns.guess[e] = q
		c.b[e] = -max(0, q)
	}
}
