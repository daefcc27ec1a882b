package strategies

import "evenkeel/moe"

var frozenRouter = Preset{
	Name:    "frozen-router",
	Family:  "structure",
	Summary: "a router with the auxiliary loss that stops learning at a step, so that tokens keep their experts from then on",
	Formula: `L = α · Σ_e w_e·P_e over the step (see aux-loss) while step < freeze;  then W stays, and with it every token's choice

StableMoE distils its router into a smaller one of token embeddings before it freezes that one; here the router itself stays.`,
	Knobs: []Knob{
		{Name: "freeze", Default: "250", Whole: true, Low: 1, High: 1e9, About: "step from which the router no longer learns"},
		{Name: "coeff", Default: "0.03", Low: 0, High: 1e6, About: "α of the auxiliary loss over the step, whose value at balance is 1"},
		scoreKnob,
	},
	Strength: "coeff",
	Needs:    "a router that learns",
	Changes:  "gradient",
	Fails:    "frozen early it keeps what it had not yet learnt, and after a shift of the data it cannot follow",
	Paper:    "StableMoE (Dai et al. 2022, arXiv 2204.08396), second stage",
	Read:     "note",
	Build: func(v Values, l moe.Layer) (*strategy, error) {
		score, warnings, err := v.score(l)
		if err != nil {
			return nil, err
		}
		balance := newLoss(v.Number("coeff"), scopeGlobal)
		balance.plain = score == moe.Softmax
		return compose(&strategy{layer: l, score: score, selection: topK{l}, losses: []loss{balance},
			traits: moe.Traits{Causal: true, Freeze: v.Whole("freeze"), Warnings: warnings, Notes: []string{balance.conventions(l.TopK)}}}), nil
	},
}
