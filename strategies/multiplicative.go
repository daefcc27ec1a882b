package strategies

import (
	"fmt"
	"slices"

	"evenkeel/internal/vec"
	"evenkeel/moe"
)

var multiplicativeBias = Preset{
	Name:    "multiplicative-bias",
	Family:  "biases",
	Summary: "loss-free with a factor on the scores in place of a term",
	Formula: `S_t = TopK(s_t · b),  b = 1 at the start;  gates from s, without b
after each step:  b_e ← max(floor, b_e + u·sign(n̄ − n_e)),   n̄ = TK/E

Scores and b must stay above 0: an expert with b ≤ 0 would lose every comparison, or win it with its worst tokens. u is
relative to the scores; softmax scores, whose ratios are larger than those of sigmoid scores, need larger factors and so
more steps. Centring holds the sum of b, which is not neutral for a factor.`,
	Knobs: slices.Concat([]Knob{
		{Name: "rate", Default: "0.001", Low: 0, High: 1e6, About: "u, change of the factor per step (times the error for rule=proportional)"},
		ruleKnob("as of loss-free"),
		{Name: "floor", Default: "0.01", Low: 1e-6, High: 1, About: "the least b; the paper gives none, this one is ours"},
	}, biasKnobs(unitsRelative, "false", "0", "the largest b"), []Knob{scoreKnob}),
	Strength: "rate",
	Needs:    "positive scores of all experts; micro-batches for scope=micro-batch",
	Changes:  "which experts",
	Fails:    "as loss-free; a factor moves high scores more than low ones; slow for softmax scores at the published rate; near 1 a low precision loses small steps",
	Paper:    "Loss-Free Balancing (Wang et al. 2024, arXiv 2408.15664), table 4",
	Read:     "notes on the paper, which leave the step open: taken as loss-free's, on b itself",
	Build: func(v Values, l moe.Layer) (*strategy, error) {
		bias, err := v.bias(v.Text("rule"), v.Number("rate"), l.Experts)
		if err != nil {
			return nil, err
		}
		bias.product, bias.low = true, float32(v.Number("floor"))
		if bias.high < 1 {
			return nil, fmt.Errorf("clamp is %s: the largest factor must be at least 1, at which factors begin, or 0 for any", v.Text("clamp"))
		}
		for e := range bias.b {
			bias.b[e] = 1
		}
		r, err := v.biased(l, product{topK{l}}, bias.b, bias)
		if err == nil && r.score == moe.Stored {
			r.traits.Warnings = append(r.traits.Warnings, "a factor on a score below 0 turns its order around: the stream's scores must be positive")
		}
		return r, err
	},
}

// product chooses by a = s·b in place of s + b.
type product struct{ topK }

func (product) declare(t *moe.Traits) { t.Factor = true }

func (p product) choose(t *moe.Tile, s, bias []float32, w *moe.Scratch, mask []uint64) {
	for e, b := range bias {
		to, from := (*vec.Row)(w.Adjusted[e*vec.Lanes:]), (*vec.Row)(s[e*vec.Lanes:])
		for i, v := range from {
			to[i] = v * b
		}
	}
	p.topK.choose(t, w.Adjusted, nil, w, mask)
}
