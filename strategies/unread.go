package strategies

// Unread are published rules that are not here, because no source was read that gives the rule itself: better none than a
// guess under their names.
func Unread() []struct{ Name, Source string } {
	return []struct{ Name, Source string }{
		{"phi-balancing", "arXiv 2605.15403: abstract and third-party code only"},
		{"latent prototype routing", "arXiv 2506.21328: a note only"},
		{"DTop-p", "arXiv 2512.13996: from memory only"},
		{"Selective Sinkhorn", "arXiv 2511.08972: not read"},
		{"Causal Routing Bias", "not read"},
		{"ERC coupling, output orthogonality", "arXiv 2512.23447, 2505.22323: notes only, and they need what experts compute"},
		{"ERNIE's router orthogonalisation", "absent from the released code (PaddlePaddle/ERNIE issue 963)"},
	}
}

// Absent are published rules that are not here for other reasons.
func Absent() []struct{ Name, Why string } {
	return []struct{ Name, Why string }{
		{"fixed random projection, oracle domain", "controls of a router by something else than its scores; hash is the one that is here"},
		{"FasterMoE's topology gate, LASER", "they need the traffic between nodes; swipe is the blind reassignment that is here"},
		{"gating dropout, expert dropout, SeqTopK, Mixture-of-Depths", "other goals than the balance of a router's choices"},
		{"cosine routers (X-MoE)", "another geometry of the logits, which a router of this simulator does not learn"},
		{"StableMoE's distillation", "it needs what experts compute; frozen-router is its second stage"},
		{"MaxScore by minimum-cost flow", "maxscore is the released iterative version; balanced-optimum solves the flow"},
		{"dropless", "what every rule is without capacity"},
	}
}
