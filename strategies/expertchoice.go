package strategies

import (
	"fmt"
	"math"

	"evenkeel/internal/order"
	"evenkeel/internal/vec"
	"evenkeel/moe"
)

var expertChoice = Preset{
	Name:    "expert-choice",
	Family:  "assignment",
	Summary: "each expert takes its best tokens: exactly even, but tokens get more or fewer experts, and the future decides",
	Formula: `every expert e takes the C tokens with the largest s_te of the scope,  C = factor · T·K/E rounded, at least 1;  gates g = s

factor 1 spends as many assignments as top-K. The paper's and flaxformer's capacity factor, C = cf·T/E, is K times this one.
A token may get up to E experts, or none. Where scores are independent, a token gets none with probability (1 − factor·K/E)^E.
The choice depends on later tokens, which leaks more than k·log2((1−R)/R) bits per token and layer, k = factor·K, R = k/E.
Ignores group limits.`,
	Knobs: []Knob{
		{Name: "factor", Default: "1", Low: 1e-3, High: 1e3, About: "capacity of an expert in multiples of the mean load TK/E"},
		{Name: "scope", Default: scopeGlobal, Options: []string{scopeMicroBatch, scopeGlobal},
			About: "tokens that an expert chooses among: of each micro-batch (flaxformer's token groups) or of the whole step (the paper)"},
		scoreKnob,
	},
	Needs:   "the scores of all experts",
	Changes: "which experts, how many of them for each token, gates",
	Fails:   "not causal: sees future tokens, so that a decoder learns to cheat (flaxformer warns of it); tokens without any expert; at inference a token's experts depend on the batch",
	Paper:   "Expert Choice (Zhou et al. 2022, arXiv 2202.09368); flaxformer's ExpertsChooseMaskedRouter",
	Read:    "code, note on the leak",
	Build: func(v Values, l moe.Layer) (*strategy, error) {
		score, warnings, err := v.score(l)
		if err != nil {
			return nil, err
		}
		c := &expertTop{factor: v.Number("factor"), micro: v.Text("scope") == scopeMicroBatch}
		notes := []string{fmt.Sprintf("every expert takes %.4g·TK/E tokens, which is a capacity factor of %.4g in the paper's and flaxformer's unit T/E",
			c.factor, c.factor*float64(l.TopK))}
		if score != moe.Softmax && score != moe.Stored {
			notes = append(notes, fmt.Sprintf("published with softmax scores, for which a token's experts compete: with %s scores more tokens go unserved (score=softmax)", score))
		}
		return compose(&strategy{layer: l, score: score, revision: c, traits: moe.Traits{Free: true, Varies: true,
			Gate: moe.Gate{Scale: 1}, Warnings: append(warnings, leak(l, c.factor)), Notes: notes}}), nil
	},
}

// leak warns of what expert choice tells a causal model of the future.
func leak(l moe.Layer, factor float64) string {
	text := "each expert's choice depends on later tokens, so it cheats where tokens are a causal stream, as text for a decoder is"
	if bits := leakedBits(float64(factor*float64(l.TopK)), float64(l.Experts)); bits > 0 {
		text += fmt.Sprintf(": more than %.4g bits of the future per token and layer", bits)
	}
	return text
}

// leakedBits bounds from below what each token's experts say of the batch, k·log2((1−R)/R) bits for k of E experts on
// average and R = k/E (arXiv 2408.15664). It says nothing where it is not positive.
func leakedBits(k, experts float64) float64 {
	if k >= experts/2 {
		return 0
	}
	return float64(k*vec.Log64((experts-k)/k)) / math.Ln2
}

// expertTop lets every expert take its best tokens of each scope, ties to the earlier token.
type expertTop struct {
	factor float64
	micro  bool

	whole [1]moe.Span
	keys  []int64
}

func (c *expertTop) declare(t *moe.Traits) { t.MicroBatches = t.MicroBatches || c.micro }

func (c *expertTop) revise(b *moe.Batch, s, _ []float32, a *moe.Assignment) error {
	clear(a.Mask)
	c.whole[0] = moe.Span{From: 0, To: b.Tokens}
	scopes := c.whole[:]
	if c.micro {
		scopes = b.MicroBatches
	}
	for _, span := range scopes {
		n := c.capacity(span.Len(), b.Layer)
		for e := range b.Layer.Experts {
			c.take(n, e, span, s, a)
		}
	}
	return nil
}

// capacity is C for a number of tokens.
func (c *expertTop) capacity(tokens int, l moe.Layer) int {
	n := math.Floor(float64(c.factor*float64(tokens*l.TopK))/float64(l.Experts) + 0.5)
	return int(min(max(n, 1), float64(tokens)))
}

// take marks the n best tokens of a span for expert e.
func (c *expertTop) take(n, e int, span moe.Span, s []float32, a *moe.Assignment) {
	at := func(token int) int { return (token/vec.Lanes*a.Experts+e)*vec.Lanes + token%vec.Lanes }
	c.keys = resize(c.keys, span.Len())
	for i := range c.keys {
		c.keys[i] = rankKey(s[at(span.From+i)], i)
	}
	least := order.Nth(c.keys, len(c.keys)-n)
	for i := range span.Len() {
		if token := span.From + i; rankKey(s[at(token)], i) >= least {
			a.Mask[token/vec.Lanes*a.Experts+e] |= 1 << (token % vec.Lanes)
		}
	}
}
