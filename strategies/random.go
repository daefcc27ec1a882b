package strategies

import "evenkeel/moe"

var randomPreset = Preset{
	Name:    "random",
	Family:  "controls",
	Summary: "K experts at random: even but for sampling noise, which is the floor of every MaxVio",
	Formula: `S_t = K distinct experts with equal chances, within M groups drawn with equal chances;  gates from s
with offsets:  S_t = TopK(ε_t + δ),  ε ~ N(0, 1) by token and expert,  δ ~ N(0, offsets²) by expert

Offsets make an imbalance to order, blind to affinity. They are drawn once, the same for every seed, as Megatron-LM caches
them for a negative spread; a group limit then ranks groups as DeepSeek-V3 does.`,
	Knobs: []Knob{{Name: "offsets", Default: "0", Low: 0, High: 1e6,
		About: "standard deviation of a constant offset per expert, in units of the random logits' own; 0 for equal chances"}},
	Needs:   "nothing",
	Changes: "which experts",
	Fails:   "blind to affinity; still uneven by sampling noise",
	Paper:   "Megatron-LM's force-balanced routing (apply_random_logits, apply_biased_logits)",
	Read:    "code",
	Build: func(v Values, l moe.Layer) (*strategy, error) {
		r := &strategy{layer: l, score: l.Score, selection: randomK{l}, traits: moe.Traits{Causal: true}}
		if spread := v.Number("offsets"); spread > 0 {
			r.selection = newOffsetK(l, float32(spread))
		}
		return compose(r), nil
	},
}
