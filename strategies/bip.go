package strategies

import (
	"math"
	"math/bits"
	"slices"

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
and, unless ρ = 1, from the q before the rounds:  q ← q_before + ρ·(q − q_before)

The prices of maximising Σ s_te over assignments with at most K experts a token and at most TK/E tokens an expert. The paper
routes a batch by the q made from it, which leaks later tokens into earlier choices; here the next batch is the first to
see it. A price above 0 drives tokens off a hot expert; nothing below 0 calls them to a cold one.
A price follows from scores and not from an error of loads, so there is no unit of one to choose.`,
	Knobs: slices.Concat([]Knob{
		{Name: "rounds", Default: "5", Whole: true, Low: 1, High: 100, About: "rounds over p and q per step; each goes on from the last q"},
		{Name: "rate", Default: "1", Low: 0, High: 1, About: "ρ, share of the way to the new prices that a step goes; the published rule goes all of it"},
		{Name: "centre", Default: "false", Options: []string{"false", "true"}, About: "choose by q less its mean, which alters no choice and spares low precision the climb"},
		{Name: "scope", Default: scopeGlobal, Options: []string{scopeGlobal, scopeMicroBatch}, About: "price the whole step, or its micro-batches one after the other"},
		{Name: "clamp", Default: "0", Low: 0, High: 1e6, About: "the largest q; 0 for any"},
		storageKnob,
	}, scheduleKnobs, []Knob{scoreKnob}),
	Needs:   "the scores of all experts; micro-batches for scope=micro-batch",
	Changes: "which experts",
	Fails: "starved experts return only as all prices rise together, batch by batch: nothing centres them, and they climb until token prices are 0 and q is the 1 − K/E " +
		"quantile of every expert's scores; noisy prices from small batches; it sees no group limit; the published order of update and choice is not causal",
	Paper: "BIP-Based Balancing (Sun 2025, arXiv 2502.15451)",
	Read:  "by its description in J. Su's article kexue.fm 11619",
	Build: func(v Values, l moe.Layer) (*strategy, error) {
		schedule, err := v.schedule(v.Number("rate"))
		if err != nil {
			return nil, err
		}
		c := newDual(l)
		c.rounds, c.schedule, c.storage, c.scope, c.centre = v.Whole("rounds"), schedule, v.Text("storage"), v.Text("scope"), v.On("centre")
		if clamp := v.Number("clamp"); clamp > 0 {
			c.high = float32(clamp)
		}
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
// 0 as its constraints are inequalities. Its bias is b = −q, or that less its mean.
type dual struct {
	layer    moe.Layer
	b        []float32
	rounds   int
	schedule // of ρ
	scope    string
	centre   bool
	high     float32 // clamp
	storage  string

	prices, before []float32     // [E], −q, which keeps fp32, and −q before a step
	best           *vec.Selector // of K+1
	mask           []uint64
	columns        columns // of s_te − p_t, with p as their α
}

func newDual(l moe.Layer) *dual {
	return &dual{layer: l, b: make([]float32, l.Experts), schedule: schedule{rate: 1}, high: float32(math.Inf(1)),
		prices: make([]float32, l.Experts), before: make([]float32, l.Experts),
		best: vec.NewSelector(l.TopK+1, 1), mask: make([]uint64, l.Experts), columns: newColumns(l)}
}

func (c *dual) declare(t *moe.Traits) {
	t.MicroBatches = t.MicroBatches || c.scope == scopeMicroBatch
}

func (c *dual) update(o *moe.Outcome) {
	if c.stop > 0 && o.Step >= c.stop {
		return
	}
	c.columns.resize(len(o.Batch.Tiles))
	if c.scope != scopeMicroBatch {
		c.price(o, moe.Span{From: 0, To: o.Batch.Tokens})
	} else {
		for _, m := range o.Batch.MicroBatches {
			c.price(o, m)
		}
	}
	var mean float64
	for _, v := range c.prices {
		mean += float64(v)
	}
	mean /= float64(len(c.prices))
	if !c.centre {
		mean = 0
	}
	for e, v := range c.prices {
		c.b[e] = rounded(v-float32(mean), c.storage)
	}
}

// price moves the prices by the scores of a span of tokens.
func (c *dual) price(o *moe.Outcome, span moe.Span) {
	copy(c.before, c.prices)
	first, last := span.From/moe.TileTokens, (span.To-1)/moe.TileTokens
	for range c.rounds {
		for i := first; i <= last; i++ {
			c.priceTokens(&o.Batch.Tiles[i], c.tile(o.Scores, i), (*vec.Row)(c.columns.alpha[i*vec.Lanes:]))
		}
		c.priceExperts(o, span)
	}
	rate := float32(c.at(o.Step))
	for e, v := range c.prices {
		if rate != 1 {
			v = c.before[e] + float32(rate*(v-c.before[e]))
		}
		c.prices[e] = max(v, -c.high)
	}
}

func (c *dual) tile(scores []float32, i int) []float32 {
	n := c.layer.Experts * vec.Lanes
	return scores[i*n : (i+1)*n]
}

// priceTokens finds p of a tile: max(0, (K+1)-th largest of s − q). Where K = E no expert is left out, and p is 0.
func (c *dual) priceTokens(t *moe.Tile, s []float32, p *vec.Row) {
	*p = vec.Row{}
	if c.layer.TopK == c.layer.Experts {
		return
	}
	c.best.TopK(c.mask, s, c.prices, t.Live(), nil)
	for lane := range p {
		p[lane] = float32(1 << 62)
	}
	for e, m := range c.mask {
		row := s[e*vec.Lanes:]
		for ; m != 0; m &= m - 1 {
			lane := bits.TrailingZeros64(m)
			p[lane] = min(p[lane], row[lane]+c.prices[e])
		}
	}
	for lane, v := range p {
		p[lane] = max(0, v)
	}
}

// priceExperts finds q of every expert: max(0, (⌊TK/E⌋+1)-th largest over the span's T tokens of s − p).
func (c *dual) priceExperts(o *moe.Outcome, span moe.Span) {
	if span.Len()*c.layer.TopK/c.layer.Experts >= span.Len() {
		return
	}
	c.columns.sift(o.Scores, span)
	for e := range c.prices {
		q := c.columns.quantile(o.Scores, e, span, false)
		c.columns.guess[e] = q
		c.prices[e] = -max(0, q)
	}
}
