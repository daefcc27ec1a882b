package strategies

import (
	"fmt"

	"evenkeel/moe"
)

var auxLoss = Preset{
	Name:    "aux-loss",
	Family:  "losses",
	Summary: "top-K with an auxiliary load-balancing loss",
	Formula: `L = α · mean over units u of Σ_e w_e·P_e,   w_e = E·n_e/(K·T_u),   P_e = mean over t in u of q_te

A unit is a sequence, a micro-batch, or the whole step (scope). q is the score normalised over all experts, w is detached.
The gradient reaches the router only, so it acts on a router that learns. L/α is 1 at perfect balance (Megatron-LM,
DeepSpeed) or K (Hugging Face): a coefficient of one convention is K times that of the other. 1 is no lower bound.`,
	Knobs: []Knob{
		{Name: "coeff", Default: "0.03", Low: 0, High: 1e6, About: "α, coefficient of the loss relative to the task's"},
		{Name: "scope", Default: scopeGlobal, Options: []string{scopeSequence, scopeMicroBatch, scopeGlobal}, About: "where the loss counts"},
		{Name: "counts", Default: "chosen", Options: []string{"chosen", "unbiased"},
			About: "counts of the chosen set, or of a fresh top-K of the scores without bias and group limit (Megatron-LM; DeepSeek-V3 from memory)"},
		{Name: "mode", Default: "step", Options: []string{"step", "running"},
			About: "with scope=global: counts of the whole step, or Megatron-LM's running mean over accumulated micro-batches"},
		{Name: "value", Default: "1", Options: []string{"1", "K"}, About: "the loss at perfect balance for α = 1: 1 (Megatron-LM) or K (Hugging Face)"},
		{Name: "local", Default: "0", Low: 0, High: 1, About: "with scope=global: a second loss by micro-batch with this share of α (Qiu et al.: 0.01, for the sake of ranks' loads); 0 for none"},
		{Name: "z", Default: "0", Low: 0, High: 1e6, About: "c of a z-loss beside it (see z-loss); 0 for none"},
		scoreKnob, groupsKnob,
	},
	Strength: "coeff",
	Zero: func(v Values) string {
		if v.Number("z") > 0 {
			return ""
		}
		return unbalanced(v)
	},
	Needs:   "a router that learns; sequences for scope=sequence",
	Changes: "gradient",
	Fails:   "shrinking logits lower the loss without changing a choice; a small scope forces evenness inside sequences and costs specialisation; its value at balance is 1 or K by convention",
	Paper:   "Switch Transformers (Fedus et al. 2021, arXiv 2101.03961); global scope: Qiu et al. 2025, arXiv 2501.11873; sequence scope: DeepSeek-V2, arXiv 2405.04434",
	Read:    "code (Megatron-LM and others); the paper of the global scope from a note",
	Build: func(v Values, l moe.Layer) (*strategy, error) {
		balance := newLoss(v.Number("coeff"), v.Text("scope"))
		balance.fresh = v.Text("counts") == "unbiased"
		balance.running = v.Text("mode") == "running"
		balance.valueK = v.Text("value") == "K"
		if balance.running && balance.scope != scopeGlobal {
			return nil, fmt.Errorf("mode=running accumulates over the step: it needs scope=global, not scope=%s", balance.scope)
		}
		score, warnings, err := v.score(l)
		if err != nil {
			return nil, err
		}
		balance.plain = score == moe.Softmax
		losses := []loss{balance}
		if local := v.Number("local"); local > 0 {
			if balance.scope != scopeGlobal {
				return nil, fmt.Errorf("local=%g stands beside the loss of the whole step: it needs scope=global, not scope=%s", local, balance.scope)
			}
			near := *balance
			near.coeff, near.units, near.running = float64(local*balance.coeff), units{scope: scopeMicroBatch}, false
			losses = append(losses, &near)
		}
		if z := v.Number("z"); z > 0 {
			losses = append(losses, zLoss{coeff: z})
		}
		return compose(&strategy{layer: l, score: score, selection: v.topK(l), losses: losses,
			traits: moe.Traits{Causal: true, Warnings: warnings, Notes: []string{balance.conventions(l.TopK)}}}), nil
	},
}

// unbalanced is the spec of plain top-K by the score of a strategy's score knob.
func unbalanced(v Values) string {
	if v.Text("score") == "scenario" {
		return "none"
	}
	return "none:score=" + v.Text("score")
}

func newLoss(coeff float64, scope string) *balanceLoss {
	return &balanceLoss{coeff: coeff, units: units{scope: scope}}
}

// conventions says what the coefficient is in both conventions of the loss's value at balance.
func (l *balanceLoss) conventions(k int) string {
	one := l.coeff
	if l.valueK {
		one *= float64(k)
	}
	return fmt.Sprintf("scope %s, α = %.4g where the loss at balance is 1 (Megatron-LM) = %.4g where it is K = %d (Hugging Face)",
		l.scope, one, one/float64(k), k)
}
