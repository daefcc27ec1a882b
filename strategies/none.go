package strategies

import "evenkeel/moe"

var none = Preset{
	Name:    "none",
	Family:  "controls",
	Summary: "plain top-K, no balancing",
	Formula: "S_t = TopK(s_t);  gates g = s over S_t, divided by their sum",
	Knobs:   []Knob{scoreKnob, groupsKnob},
	Needs:   "the scores of all experts",
	Changes: "nothing",
	Fails:   "popular experts overload; where experts learn, unused ones die",
	Paper:   "Megatron-LM's load-balancing type none",
	Read:    "code",
	Build: func(v Values, l moe.Layer) (*strategy, error) {
		score, warnings, err := v.score(l)
		if err != nil {
			return nil, err
		}
		return compose(&strategy{layer: l, score: score, selection: v.topK(l),
			traits: moe.Traits{Causal: true, Warnings: warnings}}), nil
	},
}
