package strategies

import (
	"errors"
	"fmt"

	"evenkeel/moe"
)

var remoe = Preset{
	Name:    "remoe",
	Family:  "losses",
	Summary: "ReMoE: every expert with a positive logit, and an L1 loss that finds the sparsity",
	Formula: `s = ReLU(z) = g;   S_t = {e : z_te > 0}
L = λ · Σ_e w_e · mean over t of s_te,   w_e = E·n_e/(KT);   ∂L/∂z_tj = (λ/T)·w_j where z_tj > 0
after each step:  λ ← λ·q if tokens have more than K experts on average (sparsity below 1 − K/E), else λ/q

K is what the number of experts per token is steered to, not what it is. Gates are raw, and so is their size in the task here,
where other rules' gates are divided by their sum: L1 shrinks what the task wants large.`,
	Knobs: []Knob{
		{Name: "start", Default: "1e-8", Low: 1e-30, High: 1e6, About: "λ at the start"},
		{Name: "factor", Default: "1.2", Low: 1, High: 100, About: "q, factor on λ in a step"},
		{Name: "scope", Default: scopeMicroBatch, Options: []string{scopeSequence, scopeMicroBatch, scopeGlobal}, About: "where the loss counts"},
	},
	Needs:   "a router that learns; logits",
	Changes: "which experts, how many, gates, gradient",
	Fails:   "starts dense, with half of all experts at random weights; λ rings and never settles; an expert whose logits are all negative gets no gradient and is dead; tokens may end up without any",
	Paper:   "ReMoE (Wang et al. 2024, arXiv 2412.14711)",
	Read:    "code",
	Build: func(v Values, l moe.Layer) (*strategy, error) {
		if l.Score == moe.Stored {
			return nil, errors.New("it chooses by the sign of logits, and this stream carries scores: dump logits")
		}
		price := newLoss(v.Number("start"), v.Text("scope"))
		price.plain = true
		return compose(&strategy{layer: l, score: moe.ReLU, selection: positive{}, losses: []loss{price},
			controllers: []controller{&sparsityController{coeff: &price.coeff, factor: v.Number("factor"), topK: l.TopK}},
			traits: moe.Traits{Causal: true, Sized: true, Gate: moe.Gate{Scale: 1},
				Notes: []string{fmt.Sprintf("its router scores by ReLU, while the scenario's affinities are %s: kept affinity sums over as many experts as it takes", l.Score)}}}), nil
	},
}
