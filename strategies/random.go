package strategies

import "evenkeel/moe"

var randomPreset = Preset{
	Name:    "random",
	Family:  "controls",
	Summary: "K experts at random: even but for sampling noise, which is the floor of every MaxVio",
	Formula: "S_t = K distinct experts with equal chances, within M groups drawn with equal chances;  gates from s",
	Needs:   "nothing",
	Changes: "which experts",
	Fails:   "blind to affinity; still uneven by sampling noise",
	Paper:   "Megatron-LM's force-balanced routing (apply_random_logits)",
	Read:    "code",
	Build: func(_ Values, l moe.Layer) (*strategy, error) {
		return compose(&strategy{layer: l, score: l.Score, selection: randomK{l}, traits: moe.Traits{Causal: true}}), nil
	},
}
