package strategies

import (
	"slices"

	"evenkeel/moe"
)

var budgetBias = Preset{
	Name:    "budget-bias",
	Family:  "quantiles",
	Summary: "every expert with s + b > 0; one bias holds both the balance and the mean number of experts",
	Formula: `S_t = {e : s_te + b_e > 0}
after each step:  b_e ← b_e − γ·[sign(n_e − n̄) − mean over experts of it] − γ·sign(N − K)
n̄ = Σ_e n_e/E,   N = Σ_e n_e/T, the mean number of experts per token

Two controllers on one actuator: balance moves differences of b, the budget its mean, which balance leaves alone.
Its source starts b at 0, where positive scores choose every expert; here b starts as threshold does.`,
	Knobs: slices.Concat([]Knob{
		{Name: "rate", Default: "0.001", Low: 0, High: 1e6, About: "γ, change of the bias per step, in units of the score, by either controller"},
		{Name: "start", Default: startNormal, Options: []string{startNormal, startZero}, About: "b of the first step: right for logits N(0, σ²), or 0"},
		sigmaKnob,
		ruleKnob("of the balance, as of loss-free; the budget's is always the sign"),
	}, biasKnobs(unitsRelative, "true", "0", "the largest distance of b from its start"), []Knob{scoreKnob}),
	Strength: "rate",
	Needs:    "the scores of all experts; compute that may vary by token; micro-batches for scope=micro-batch",
	Changes:  "which experts, how many",
	Fails:    "tokens without any expert; far from its budget it takes many steps of γ to arrive; oscillates by about γ; ignores a group limit",
	Paper:    "Su 2025, kexue.fm 10815, part 4 of the MoE series",
	Read:     "the author's blog; its start: not said",
	Build: func(v Values, l moe.Layer) (*strategy, error) {
		score, warnings, err := v.score(l)
		if err != nil {
			return nil, err
		}
		b, more := v.initial(score, l)
		bias, err := v.bias(v.Text("rule"), v.Number("rate"), l.Experts)
		if err != nil {
			return nil, err
		}
		bias.budget, bias.topK = true, l.TopK
		copy(bias.b, b)
		bias.low, bias.high = bias.low+b[0], bias.high+b[0] // all begin alike
		warnings = slices.Concat(warnings, more, bias.warnings(score, l), freeWarnings(l))
		return compose(&strategy{layer: l, score: score, selection: above{}, bias: bias.b, controllers: []controller{bias}, traits: moe.Traits{Causal: true, Warnings: warnings, Notes: []string{variesNote}}}), nil
	},
}
