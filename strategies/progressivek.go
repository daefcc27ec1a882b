package strategies

import "evenkeel/moe"

// progressiveK is top-K whose K begins larger and steps down to the layer's as the run goes on: at once at a step, or by
// one expert at a time on a straight line.
type progressiveK struct {
	topK
	start, until int
	linear       bool

	k int // of the present step
}

// at returns K of a step.
func (p *progressiveK) at(step int) int {
	k := p.layer.TopK
	switch {
	case step >= p.until:
		return k
	case p.linear:
		return k + ((p.start-k)*(p.until-step)+p.until-1)/p.until
	}
	return p.start
}

func (p *progressiveK) choose(t *moe.Tile, s, bias []float32, w *moe.Scratch, mask []uint64) {
	allowed := p.allowed(s, bias, w)
	if allowed == nil && p.k <= moe.WideK {
		w.Wide.Best(p.k, mask, s, bias, t.Live())
		return
	}
	w.Select.TopK(mask, s, bias, t.Live(), allowed)
	var more picks
	for range p.k - p.layer.TopK {
		more.add(mask, s, bias, allowed, t.Live())
	}
}

func (p *progressiveK) update(o *moe.Outcome) { p.k = p.at(o.Step + 1) }

func (p *progressiveK) declare(t *moe.Traits) {
	t.Varies = t.Varies || p.start > p.layer.TopK && p.until > 0
	t.Until = p.until
}

var progressiveKPreset = Preset{
	Name:    "progressive-k",
	Family:  "losses",
	Summary: "more experts per token at first, then K, with the auxiliary loss",
	Formula: `K(step) = K_start for step < until, then K          (shape=step)
K(step) = K + ⌈(K_start − K)·(1 − step/until)⌉, then K   (shape=linear)
L = α · Σ_e w_e·P_e,   w_e = E·n_e/(KT), n of the experts chosen

Published for the lowest layers of a model with K = 1 of E = 96, where loss and bias both fail early in training. While more
than K are chosen, the loss grows in proportion.`,
	Knobs: []Knob{
		{Name: "start", Default: "2", Low: 1, High: 4096, About: "K_start in multiples of K; the paper's schedule was not read"},
		{Name: "until", Default: "250", Whole: true, Low: 0, High: 1e9, About: "step from which K experts are chosen"},
		{Name: "shape", Default: "step", Options: []string{"step", "linear"}, About: "of the way down"},
		{Name: "coeff", Default: "0.03", Low: 0, High: 1e6, About: "α of the auxiliary loss over the step, whose value at balance is 1"},
		scoreKnob,
	},
	Strength: "coeff",
	Needs:    "a router that learns, for its loss (coeff=0 does without)",
	Changes:  "which experts, how many, gradient",
	Fails:    "costs the compute of K_start until it steps down; then loads may jump; a run that ends before has more than K",
	Paper:    "Sigma-MoE-Tiny (2025, arXiv 2512.16248)",
	Read:     "note",
	Build: func(v Values, l moe.Layer) (*strategy, error) {
		score, warnings, err := v.score(l)
		if err != nil {
			return nil, err
		}
		most := l.GroupsKept * l.Experts / l.Groups
		p := &progressiveK{topK: topK{l}, until: v.Whole("until"), linear: v.Text("shape") == "linear",
			start: min(int(v.Number("start")*float64(l.TopK)), most)}
		p.k = p.at(0)
		r := &strategy{layer: l, score: score, selection: p, controllers: []controller{p}}
		r.traits = moe.Traits{Causal: true, Warnings: warnings}
		if alpha := v.Number("coeff"); alpha > 0 {
			balance := newLoss(alpha, scopeGlobal)
			balance.plain = score == moe.Softmax
			r.losses, r.traits.Notes = []loss{balance}, []string{balance.conventions(l.TopK)}
		}
		return compose(r), nil
	},
}
