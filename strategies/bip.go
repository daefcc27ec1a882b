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

	best   *vec.Selector // of K+1
	mask   []uint64
	price  []vec.Row // p [tile][64]
	column []float32 // s_te − p_t of one expert
}

func newDual(l moe.Layer) *dual {
	return &dual{layer: l, b: make([]float32, l.Experts), best: vec.NewSelector(l.TopK+1, 1), mask: make([]uint64, l.Experts)}
}

func (c *dual) update(o *moe.Outcome) {
	if c.stop > 0 && o.Step >= c.stop {
		return
	}
	tiles := len(o.Batch.Tiles)
	if tiles > len(c.price) {
		c.price, c.column = make([]vec.Row, tiles), make([]float32, tiles*vec.Lanes)
	}
	for range c.rounds {
		for i := range o.Batch.Tiles {
			c.priceTokens(&o.Batch.Tiles[i], c.tile(o.Scores, i), &c.price[i])
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
	for e := range c.b {
		n := 0 // of the numbers above 0, which alone can make a price
		for i := range o.Batch.Tiles {
			price, live := &c.price[i], o.Batch.Tiles[i].Tokens
			for lane, v := range c.tile(o.Scores, i)[e*vec.Lanes:][:live] {
				v -= price[lane]
				c.column[n] = v
				if v > 0 {
					n++
				}
			}
		}
		c.b[e] = 0
		if n > room {
			c.b[e] = -nthLargest(c.column[:n], room)
		}
	}
}

// nthLargest returns the number that n others precede in descending order. It reorders x.
func nthLargest(x []float32, n int) float32 {
	for len(x) > 1 {
		a, b, c := x[0], x[len(x)/2], x[len(x)-1]
		pivot := max(min(a, b), min(max(a, b), c))
		i, j := 0, len(x)-1
		for i <= j {
			for x[i] > pivot {
				i++
			}
			for x[j] < pivot {
				j--
			}
			if i <= j {
				x[i], x[j] = x[j], x[i]
				i++
				j--
			}
		}
		switch {
		case n <= j:
			x = x[:j+1]
		case n >= i:
			x, n = x[i:], n-i
		default:
			return pivot
		}
	}
	return x[0]
}
