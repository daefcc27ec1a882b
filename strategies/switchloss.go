package strategies

import (
	"fmt"

	"evenkeel/moe"
)

var switchLoss = Preset{
	Name:    "switch-loss",
	Family:  "losses",
	Summary: "Switch Transformers' loss: α = 0.01 in each micro-batch, raw softmax gates, made for K = 1",
	Formula: `L = α · E · Σ_e f_e·P_e,   f_e = n_e/T of the micro-batch,   P_e = mean of softmax(z)_e;   g = softmax(z), not normalised

For K > 1 f is n_e/(KT), as in Megatron-LM, so that the loss at balance stays α. With jitter the router reads x∘u, u ~ U(1−η, 1+η),
approximated here by noise on logits. FastMoE adds u to the logits instead: its 1 cancels, and ±η is left. Nothing is dropped here.`,
	Knobs: []Knob{
		{Name: "coeff", Default: "0.01", Low: 0, High: 1e6, About: "α, coefficient of the loss, whose value at balance is 1, relative to the task's"},
		{Name: "jitter", Default: "0", Low: 0, High: 1, About: "η, half width of the factor on the router's input in training (the paper's 0.01 from memory; off in T5X)"},
		{Name: "jitter_kind", Default: noiseInput, Options: []string{noiseInput, noiseAdd}, About: "factor on the input, or FastMoE's sum with logits"},
		{Name: "gate", Default: "raw", Options: []string{"raw", "normalised"}, About: "raw softmax, or divided by its sum over the chosen"},
		publishedScore(moe.Softmax),
	},
	Strength: "coeff",
	Zero: func(v Values) string {
		if v.Number("jitter") > 0 {
			return ""
		}
		return unbalanced(v)
	},
	Scenario: "pretraining --set topk=1",
	Needs:    "a router that learns",
	Changes:  "gradient; which experts and gates with jitter",
	Fails:    "shrinking logits lower the loss without changing a choice; the micro-batch scope asks for evenness inside each; raw gates above K = 1 sum to less than 1",
	Paper:    "Switch Transformers (Fedus et al. 2021, arXiv 2101.03961), equation 4",
	Read:     "code (flaxformer, Megatron-LM, FastMoE)",
	Build: func(v Values, l moe.Layer) (*strategy, error) {
		score, warnings, err := v.score(l)
		if err != nil {
			return nil, err
		}
		balance := newLoss(v.Number("coeff"), scopeMicroBatch)
		balance.plain = score == moe.Softmax
		r := &strategy{layer: l, score: score, selection: topK{l}, losses: []loss{balance}}
		gate := moe.Gate{Normalised: v.Text("gate") == "normalised", Scale: 1}
		if l.TopK > 1 {
			warnings = append(warnings, fmt.Sprintf("Switch routes each token to one expert, and here K is %d: --set topk=1", l.TopK))
		} else if gate.Normalised {
			warnings = append(warnings, "K is 1: a normalised gate is 1 whatever the logits, so a real router would get no gradient from "+
				"its task (Megatron-LM forbids it): use gate=raw")
		}
		if eta := v.Number("jitter"); eta > 0 {
			r.transform = noise{l.Experts, v.Text("jitter_kind"), float32(eta)}
		}
		r.traits = moe.Traits{Causal: true, Gate: gate, Warnings: warnings, Notes: []string{balance.conventions(l.TopK)}}
		return compose(r), nil
	},
}
