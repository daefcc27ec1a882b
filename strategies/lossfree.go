package strategies

import (
	"slices"

	"evenkeel/moe"
)

var lossFree = Preset{
	Name:    "loss-free",
	Family:  "biases",
	Summary: "a bias per expert, for the choice only, stepped against the load error after each batch",
	Formula: `S_t = TopK(s_t + b);  gates from s, without b
after each step:  b_e ← b_e + u·sign(n̄ − n_e),   n̄ = TK/E
proportional:     b_e ← b_e + u·v_e,   v_e = (n̄ − n_e)/n̄
rms:              b_e ← b_e + u·v_e/√(mean over experts of v²)
centre=true:      the mean of the change is taken off first; choices stay the same and b stays near 0

The step sees counts of the whole batch, and the next batch is the first to see the new b. u belongs to the scale of the
scores: 1e-3 suits sigmoid scores, and softmax scores over E experts are some E times smaller.`,
	Knobs: slices.Concat([]Knob{
		{Name: "rate", Default: "0.001", Low: 0, High: 1e6, About: "u, change of the bias per step, in units of the score (times the error for rule=proportional)"},
		ruleKnob("by the sign of the load error, in proportion to it, or in proportion with a root mean square of u"),
	}, biasKnobs(unitsRelative, "false", "0", "the largest |b|"), []Knob{scoreKnob, groupsKnob}),
	Strength: "rate",
	Needs:    "the scores of all experts; micro-batches for scope=micro-batch",
	Changes:  "which experts",
	Fails:    "oscillates by about u near balance; stale after a shift of the data; drifts as a whole unless centred, which costs low precision its digits; the step belongs to the scale of the scores; proportional to raw counts it diverges",
	Paper:    "Loss-Free Balancing (Wang et al. 2024, arXiv 2408.15664), proportional in its section 4.3; rms: J. Su 2025, kexue.fm 10757; centring: torchtitan and prime-rl, kexue.fm 10815",
	Read:     "code, notes on the paper; rms from the author's blog",
	Build: func(v Values, l moe.Layer) (*strategy, error) {
		bias, err := v.bias(v.Text("rule"), v.Number("rate"), l.Experts)
		if err != nil {
			return nil, err
		}
		return v.biased(l, v.topK(l), bias.b, bias)
	},
}
