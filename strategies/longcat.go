package strategies

import (
	"fmt"
	"slices"

	"evenkeel/moe"
)

var longCatBias = Preset{
	Name:    "longcat-bias",
	Family:  "biases",
	Summary: "LongCat-Flash's bias: evens the real experts and holds how many of them a token gets, beside zero experts",
	Formula: `S_t = TopK(s_t + b) over N real and Z zero experts;  gates s as they are, zero experts compute nothing
after each step, for real experts:  b_e ← b_e + μ·(K_e/(K·N) − n_e/(K·T));  zero experts keep b = 0

Its authors call it a PID controller; the published formula is its integral part alone. Their μ falls during
training (schedule, stop); their device-level loss, whose coefficient was not read, is left out.
Zero experts return their input, which is not part of this simulator's task; gates are raw there, and the task divides them
by their sum over the real experts, as for every strategy.`,
	Knobs: slices.Concat([]Knob{
		zeroKnob,
		{Name: "budget", Default: "0", Low: 0, High: moe.MaxExperts, About: "K_e, wanted mean number of real experts per token; 0 for 2K/3 (LongCat-Flash: 8 of 12, from memory)"},
		{Name: "rate", Default: "0.5", Low: 0, High: 1e6,
			About: "μ, in units of the score, times the error of a share of all choices; own default, near 0.01 times the relative load error of sigmoid scores; 0.05 suits softmax"},
	}, biasKnobs(unitsFraction, "false", "0", "the largest |b|"), []Knob{scoreKnob}),
	Strength: "rate",
	Zero: func(v Values) string {
		set := Spec{&nullExperts, Values{"zero": v["zero"], "score": v["score"]}}
		return set.String()
	},
	Needs:   "the scores of all experts; micro-batches for scope=micro-batch",
	Changes: "which experts, gates",
	Fails:   "one rate serves the balance and the budget; it has Z fewer experts that compute than what it is compared with; the rate belongs to the scale of the scores",
	Paper:   "LongCat-Flash (2025, arXiv 2509.01322)",
	Read:    "code of the routing; notes on the update",
	Build: func(v Values, l moe.Layer) (*strategy, error) {
		score, warnings, err := v.score(l)
		if err != nil {
			return nil, err
		}
		choose, err := v.idle(l)
		if err != nil {
			return nil, err
		}
		wanted := v.Number("budget")
		if wanted == 0 {
			wanted = 2 * float64(l.TopK) / 3
		}
		if wanted > float64(l.TopK) {
			return nil, fmt.Errorf("budget is %g: it must be at most topk, which is %d", wanted, l.TopK)
		}
		bias, err := v.bias(ruleProportional, v.Number("rate"), l.Experts)
		if err != nil {
			return nil, err
		}
		if bias.centre {
			return nil, fmt.Errorf("centre=true would take away the mean of b, by which the budget acts: say centre=false")
		}
		all := bias.b
		bias.b, bias.sum = all[:choose.real], all[:choose.real]
		bias.topK, bias.each = l.TopK, float64(l.TopK*choose.real)/wanted
		warnings = append(warnings, bias.warnings(score, l)...)
		gain, most := bias.rate, 5.0 // of errors of fractions
		if bias.units == unitsRelative {
			gain *= bias.each
		}
		if score == moe.Softmax {
			most = 0.1
		}
		if gain > most && bias.units != unitsCount {
			warnings = append(warnings, fmt.Sprintf("a rate of %g is coarse for %s scores and errors by units=%s: try rate=%.1g", bias.rate, score, bias.units, bias.rate*most/gain/2))
		}
		return compose(&strategy{layer: l, score: score, selection: choose, bias: all, controllers: []controller{bias},
			traits: moe.Traits{Causal: true, Gate: moe.Gate{Scale: 1}, Warnings: warnings,
				Notes: []string{choose.note(), fmt.Sprintf("wants %.4g real experts per token of %d chosen", wanted, l.TopK)}}}), nil
	},
}
