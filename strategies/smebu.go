package strategies

import (
	"slices"

	"evenkeel/moe"
)

var smebu = Preset{
	Name:    "smebu",
	Family:  "biases",
	Summary: "soft-clamped momentum expert bias updates: tanh of the load error, centred, with momentum",
	Formula: `S_t = TopK(s_t + b);  gates from s, without b
after each step:  v_e = (n̄ − n_e)/n̄;   d_e = λ·tanh(κ·v_e);   d ← d − mean(d)
                  m_e ← β·m_e + (1−β)·d_e;   b_e ← b_e + m_e

Near balance the step shrinks with the error, so b comes to rest where sign steps go on; far from it the step is λ.`,
	Knobs: slices.Concat([]Knob{
		{Name: "rate", Default: "0.0005", Low: 0, High: 1e6, About: "λ, the largest change of the bias per step, in units of the score"},
		{Name: "kappa", Default: "2", Low: 0, High: 1e6, About: "κ, slope of the soft clamp at error 0"},
		{Name: "momentum", Default: "0.5", Low: 0, High: 0.9999, About: "β, share of the change that is the one before"},
	}, biasKnobs(unitsRelative, "true", "0", "the largest |b|"), []Knob{scoreKnob}),
	Strength: "rate",
	Needs:    "the scores of all experts; micro-batches for scope=micro-batch",
	Changes:  "which experts",
	Fails:    "slow to arrive, and to recover after a shift, at its published rate; the step belongs to the scale of the scores",
	Paper:    "Arcee Trinity Large technical report (2026, arXiv 2602.17004)",
	Read:     "two notes that agree; a third describes another rule",
	Build: func(v Values, l moe.Layer) (*strategy, error) {
		bias, err := v.bias(ruleTanh, v.Number("rate"), l.Experts)
		if err != nil {
			return nil, err
		}
		bias.kappa, bias.momentum = v.Number("kappa"), v.Number("momentum")
		return v.biased(l, topK{l}, bias.b, bias)
	},
}
