package strategies

import (
	"slices"

	"evenkeel/moe"
)

var pidBias = Preset{
	Name:    "pid-bias",
	Family:  "biases",
	Summary: "a bias per expert from a PID controller of the load error, with a clamp against windup",
	Formula: `S_t = TopK(s_t + b);  gates from s, without b
after each step:  v_e ← γ·v_e + (1−γ)·(n̄ − n_e)/n̄
                  a_e ← clamp(a_e + k_i·v_e);   b_e = a_e + k_p·v_e + k_d·(v_e − v_e of the step before)

a is the integral and what remains at balance. Loss-free's rules are integral action
alone: k_p = k_d = 0 is loss-free:rule=proportional. The first step knows no step before: γ and k_d begin with the second.`,
	Knobs: slices.Concat([]Knob{
		{Name: "ki", Default: "0.01", Low: 0, High: 1e6, About: "k_i, integral gain: change of the bias per step and relative error, in units of the score"},
		{Name: "kp", Default: "0.01", Low: 0, High: 1e6, About: "k_p, proportional gain"},
		{Name: "kd", Default: "0", Low: 0, High: 1e6, About: "k_d, derivative gain"},
		{Name: "smooth", Default: "0", Low: 0, High: 0.9999, About: "γ, running mean of the error"},
	}, biasKnobs(unitsRelative, "false", "1", "the largest |a|"), []Knob{scoreKnob}),
	Strength: "ki",
	Needs:    "the scores of all experts; micro-batches for scope=micro-batch",
	Changes:  "which experts",
	Fails:    "the loop diverges where gains are large for the density of scores at the cut; k_p and k_d pass the noise of small batches on to the choice; stale after a shift of the data",
	Paper:    "the general form of bias controllers; LongCat-Flash (2025, arXiv 2509.01322) names a PID controller whose published formula is integral action alone",
	Read:     "own derivation: no published gains were found, the defaults are ours",
	Build: func(v Values, l moe.Layer) (*strategy, error) {
		bias, err := v.bias(ruleProportional, v.Number("ki"), l.Experts)
		if err != nil {
			return nil, err
		}
		bias.smooth = v.Number("smooth")
		bias.proportional, bias.derivative = v.Number("kp"), v.Number("kd")
		if bias.gains() {
			bias.sum = make([]float32, l.Experts)
		}
		return v.biased(l, topK{l}, bias.b, bias)
	},
}
