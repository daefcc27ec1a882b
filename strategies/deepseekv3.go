package strategies

import (
	"fmt"

	"evenkeel/moe"
)

var deepSeekV3 = Preset{
	Name:    "deepseek-v3",
	Family:  "systems",
	Summary: "DeepSeek-V3's recipe: sigmoid, node-limited top-K, sign bias, a tiny sequence loss, gates scaled 2.5",
	Formula: `s = sigmoid(z);  a = s + b;  keep the M groups with the largest sum of their two best a, others −∞;  S_t = TopK(a)
g = 2.5 · s / Σ_{S_t} s
after each step:  b_e ← b_e + u·sign(n̄ − n_e),  u = 1e-3
L = α · mean over sequences of Σ_e w_e·P_e,  α = 1e-4, w from a fresh top-K of the unbiased scores

Groups come from the scenario (groups, groups_kept). Nothing is dropped.`,
	Knobs: []Knob{
		{Name: "rate", Default: "0.001", Low: 0, High: 1e6, About: "u, change of the bias per step, in units of the score"},
		{Name: "coeff", Default: "0.0001", Low: 0, High: 1e6, About: "α of the sequence loss, whose value at balance is 1"},
		{Name: "scale", Default: "2.5", Low: 1e-6, High: 1e6, About: "factor on the normalised gates"},
		{Name: "stop", Default: "0", Whole: true, Low: 0, High: 1e9, About: "step from which the rate is 0; 0 for never"},
	},
	Strength: "rate",
	Model:    &Model{256, 8, 8, 4, "sigmoid", "normalised", 2.5},
	Needs:    "a router that learns, for its loss (coeff=0 does without); sequences",
	Changes:  "which experts, gates, gradient",
	Fails:    "as loss-free; masking closed groups with 0 in place of −∞ lets a negative bias through",
	Paper:    "DeepSeek-V3 technical report (2024, arXiv 2412.19437), sections 2.1.2 and 4.2; released inference code",
	Read:     "code (routing); rates from notes, the counts of its sequence loss from memory",
	Build: func(v Values, l moe.Layer) (*strategy, error) {
		bias := newBias(l.Experts)
		bias.rate, bias.stop = v.Number("rate"), v.Whole("stop")
		r := &strategy{layer: l, score: moe.Sigmoid, selection: topK{l}, bias: bias.b, controllers: []controller{bias}}
		r.traits = moe.Traits{Causal: true, Gate: moe.Gate{Normalised: true, Scale: float32(v.Number("scale"))}}
		if l.Score == moe.Stored {
			r.score = l.Score
		}
		if r.score != l.Score {
			r.traits.Warnings = append(r.traits.Warnings, fmt.Sprintf("its router scores by sigmoid, while the scenario's affinities are %s", l.Score))
		}
		if !l.Limited() {
			r.traits.Warnings = append(r.traits.Warnings, "the scenario has no group limit, so it routes without one: --set groups=8 --set groups_kept=4")
		}
		if alpha := v.Number("coeff"); alpha > 0 {
			balance := newLoss(alpha, scopeSequence)
			balance.fresh = true
			r.losses = []loss{balance}
			r.traits.Notes = []string{balance.conventions(l.TopK)}
		}
		return compose(r), nil
	},
}
