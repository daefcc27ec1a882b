package strategies

import "evenkeel/moe"

var skyworkLoss = Preset{
	Name:    "skywork-loss",
	Family:  "losses",
	Summary: "Skywork-MoE: z-scored logits, and an auxiliary loss whose coefficient follows the drop rate",
	Formula: `z̃ = λ·(z − mean)/σ over experts (population σ);  s = softmax(z̃)
L = α · Σ_e w_e·P_e in each micro-batch,   w_e = E·n_e/(KT)
after each step:  α ← β·α + (1−β)·min(ξ·d, α_max),   d: the share of choices dropped

Nothing is dropped here, so d is what a capacity of cf·n̄ for the step would have dropped. 1/(1−β) is the time constant in steps.`,
	Knobs: []Knob{
		{Name: "coeff", Default: "0.01", Low: 0, High: 1e6, About: "α at the start, of a loss whose value at balance is 1"},
		{Name: "most", Default: "0.01", Low: 0, High: 1e6, About: "α_max"},
		{Name: "xi", Default: "0.2", Low: 0, High: 1e6, About: "ξ, coefficient per share of choices dropped"},
		{Name: "beta", Default: "0.99", Low: 0, High: 1, About: "β, what a step keeps of α"},
		{Name: "capacity", Default: "1", Low: 0, High: 1e6, About: "cf, capacity of an expert in units of n̄ above which choices count as dropped; the report's was not read"},
		{Name: "lambda", Default: "1", Low: 0, High: 1e6, About: "λ, standard deviation of the normalised logits; 0 for logits as they are"},
		publishedScore(moe.Softmax),
	},
	Needs:   "a router that learns",
	Changes: "gates, gradient",
	Fails:   "follows the drop rate slowly; a fixed spread of logits bounds how sharp a gate can be, the softer the fewer experts there are",
	Paper:   "Skywork-MoE (2024, arXiv 2406.06563), sections 4.1 and 4.2",
	Read:    "paper",
	Build: func(v Values, l moe.Layer) (*strategy, error) {
		score, warnings, err := v.score(l)
		if err != nil {
			return nil, err
		}
		balance := newLoss(v.Number("coeff"), scopeMicroBatch)
		balance.plain = score == moe.Softmax
		r := &strategy{layer: l, score: score, selection: topK{l}, losses: []loss{balance},
			controllers: []controller{&dropController{coeff: &balance.coeff, xi: v.Number("xi"), most: v.Number("most"),
				memory: v.Number("beta"), capacity: v.Number("capacity")}}}
		if lambda := v.Number("lambda"); lambda > 0 {
			r.transform = zScore{l.Experts, float32(lambda)}
		}
		r.traits = moe.Traits{Causal: true, Warnings: warnings, Notes: []string{"at the start: " + balance.conventions(l.TopK)}}
		return compose(r), nil
	},
}
