package strategies

import "evenkeel/moe"

var roundRobinPreset = Preset{
	Name:    "round-robin",
	Family:  "controls",
	Summary: "experts in turn: exactly even, blind to affinity",
	Formula: "S_t = { (tK + i) mod E : i < K } for token t of the batch;  gates from s.  Ignores group limits",
	Needs:   "nothing",
	Changes: "which experts",
	Fails:   "blind to affinity",
	Paper:   "torchtitan's _debug_force_load_balance",
	Read:    "code",
	Build: func(_ Values, l moe.Layer) (*strategy, error) {
		return compose(&strategy{layer: l, score: l.Score, selection: roundRobin{l}, traits: moe.Traits{Causal: true, Free: true}}), nil
	},
}
