package strategies

import (
	"fmt"

	"evenkeel/moe"
)

// biasKnobs are the knobs of every bias that a sign or proportional rule moves.
var biasKnobs = []Knob{
	{Name: "rate", Default: "0.001", Low: 0, High: 1e6, About: "u, change of the bias per step, in units of the score (times the error for rule=proportional)"},
	{Name: "rule", Default: ruleSign, Options: []string{ruleSign, ruleProportional}, About: "by the sign of the load error, or in proportion to it"},
	{Name: "units", Default: unitsRelative, Options: []string{unitsRelative, unitsFraction, unitsCount},
		About: "of the error for rule=proportional: (n̄−n)/n̄, 1/E − n/(TK), or n̄−n assignments"},
	{Name: "centre", Default: "false", Options: []string{"false", "true"}, About: "take the mean off every change (torchtitan)"},
	{Name: "stop", Default: "0", Whole: true, Low: 0, High: 1e9, About: "step from which the rate is 0 (DeepSeek-V3: the last 3 % of training); 0 for never"},
	{Name: "storage", Default: "fp32", Options: []string{"fp32", "bf16"}, About: "precision in which the bias is kept"},
}

var lossFree = Preset{
	Name:    "loss-free",
	Family:  "biases",
	Summary: "a bias per expert, for the choice only, stepped against the load error after each batch",
	Formula: `S_t = TopK(s_t + b);  gates from s, without b
after each step:  b_e ← b_e + u·sign(n̄ − n_e),   n̄ = TK/E;   proportional: b_e ← b_e + u·error_e

The step sees counts of the whole batch, and the next batch is the first to see the new b. u belongs to the scale of the
scores: 1e-3 suits sigmoid scores, and softmax scores over E experts are some E times smaller.`,
	Knobs:    append(append([]Knob(nil), biasKnobs...), scoreKnob),
	Strength: "rate",
	Needs:    "the scores of all experts",
	Changes:  "which experts",
	Fails:    "oscillates by about u near balance; stale after a shift of the data; drifts as a whole unless centred, which costs low precision its digits; the step belongs to the scale of the scores",
	Paper:    "Loss-Free Balancing (Wang et al. 2024, arXiv 2408.15664); centring: torchtitan",
	Read:     "code, notes on the paper",
	Build: func(v Values, l moe.Layer) (*strategy, error) {
		score, warnings, err := v.score(l)
		if err != nil {
			return nil, err
		}
		bias, err := v.bias(l.Experts)
		if err != nil {
			return nil, err
		}
		return compose(&strategy{layer: l, score: score, selection: topK{l}, bias: bias.b, controllers: []controller{bias},
			traits: moe.Traits{Causal: true, Warnings: append(warnings, bias.warnings(score, l)...)}}), nil
	},
}

// bias makes the controller that the knobs describe.
func (v Values) bias(experts int) (*biasController, error) {
	c := newBias(experts)
	c.rate, c.rule, c.units = v.Number("rate"), v.Text("rule"), v.Text("units")
	c.centre, c.stop, c.bf16 = v.On("centre"), v.Whole("stop"), v.Text("storage") == "bf16"
	if c.rule == ruleSign && c.units != unitsRelative {
		return nil, fmt.Errorf("units=%s belongs to rule=proportional: the sign rule sees no size of an error", c.units)
	}
	return c, nil
}

// warnings says which settings are likely mistakes.
func (c *biasController) warnings(score moe.Score, l moe.Layer) (w []string) {
	if score == moe.Softmax && c.rule == ruleSign && c.rate*float64(l.Experts) > 0.03 {
		w = append(w, fmt.Sprintf("a sign step of %g is coarse for softmax scores, whose mean is 1/E = %.3g: try rate=%.1g or rule=proportional",
			c.rate, 1/float64(l.Experts), 0.01/float64(l.Experts)))
	}
	if c.rule == ruleProportional && c.units == unitsCount && c.rate > 1e-5 {
		w = append(w, "errors counted in assignments grow with the batch: at this rate the loop usually diverges")
	}
	return w
}
