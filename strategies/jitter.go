package strategies

import (
	"fmt"

	"evenkeel/moe"
)

const kindGumbel = "gumbel"

var jitter = Preset{
	Name:    "jitter",
	Family:  "losses",
	Summary: "plain top-K with noise in training: jitter of the router's input, noise on logits, or Gumbel noise for the choice",
	Formula: `input:   z = W·(x∘u),  u ~ U(1−η, 1+η) for every coordinate  (Switch, Megatron-LM, DeepSpeed's Jitter)
add:     z + u,  u ~ U(1−η, 1+η) for every expert, of which ±η is left  (FastMoE)
normal:  z + η·N(0, 1)
gumbel:  S_t = TopK(z + G), G standard Gumbel; gates without it  (DeepSpeed's RSample, there for K = 1)

Evaluation is undisturbed. input is approximated by normal noise on the logits of variance η²/3 · mean_e z²: the exact one,
η²/3 · Σ_i (W_ei·x_i)², needs W.`,
	Knobs: []Knob{
		{Name: "kind", Default: noiseInput, Options: []string{noiseInput, noiseAdd, noiseNormal, kindGumbel}, About: "where the noise goes in"},
		{Name: "size", Default: "0.01", Low: 0, High: 1e3, About: "η: half width of a factor (input), half width (add) or standard deviation (normal) in units of logits; gumbel has none"},
		scoreKnob,
	},
	Needs:   "logits",
	Changes: "which experts, gates; kind=gumbel: which experts",
	Fails:   "no pressure on loads: it explores; training and evaluation route differently; adding where one meant to multiply makes the noise depend on the scale of logits",
	Paper:   "Switch Transformers (Fedus et al. 2021, arXiv 2101.03961); DeepSpeed's RSample; Megatron-LM's input jitter",
	Read:    "code; the default size from memory",
	Build: func(v Values, l moe.Layer) (*strategy, error) {
		score, warnings, err := v.score(l)
		if err != nil {
			return nil, err
		}
		r := &strategy{layer: l, score: score, selection: topK{l}}
		kind := v.Text("kind")
		switch {
		case kind != kindGumbel:
			r.transform = noise{l.Experts, kind, float32(v.Number("size"))}
		case score == moe.Stored:
			return nil, fmt.Errorf("kind=%s needs logits, and this stream carries scores: dump logits", kind)
		default:
			r.selection = gumbelTopK{topK{l}, score}
		}
		r.traits = moe.Traits{Causal: true, Warnings: warnings,
			Notes: []string{"noise acts in training only: batch MaxVio has it, evaluation has not"}}
		return compose(r), nil
	},
}
