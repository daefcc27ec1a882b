package strategies

import (
	"evenkeel/internal/vec"
	"evenkeel/moe"
)

// varianceLoss rewards experts whose scores differ from token to token (2025, arXiv 2505.22323). Over the units U of its scope
//
//	L = −γ · mean_{u∈U} mean_{t∈u} mean_e (s_te − s̄_e^u)²,   s̄_e^u = mean_{t∈u} s_te
//	∂L/∂s_te = −2γ/(|U|·T_u·E) · (s_te − s̄_e^u);   through s̄ there is nothing, since deviations sum to 0.
type varianceLoss struct {
	units
	coeff float64

	means []float32 // s̄ [unit][E]
	sums  []float64
}

func (l *varianceLoss) prepare(o *moe.Outcome) {
	l.split(o.Batch)
	e := o.Batch.Layer.Experts
	if n := len(l.spans) * e; cap(l.sums) < n {
		l.sums, l.means = make([]float64, n), make([]float32, n)
	}
	l.sums, l.means = l.sums[:len(l.spans)*e], l.means[:len(l.spans)*e]
	clear(l.sums)
	for i := range o.Batch.Tiles {
		s := o.Scores[i*e*vec.Lanes:]
		o.Batch.Segments(i, l.spans, func(unit, from, to int) {
			for x := range e {
				for _, v := range row(s, x)[from:to] {
					l.sums[unit*e+x] += float64(v)
				}
			}
		})
	}
	for i, v := range l.sums {
		l.means[i] = float32(v / float64(l.spans[i/e].Len()))
	}
}

func (l *varianceLoss) addGradient(b *moe.Batch, tile int, s, g []float32, _ *moe.Scratch) (loss float64) {
	e := b.Layer.Experts
	b.Segments(tile, l.spans, func(unit, from, to int) {
		share := l.share(b, l.coeff, unit) / float64(e)
		for x := range e {
			s, g, mean := row(s, x), row(g, x), l.means[unit*e+x]
			for t := from; t < to; t++ {
				d := s[t] - mean
				loss -= float64(share * float64(float32(d*d)))
				g[t] -= float32(float32(2*share) * d)
			}
		}
	})
	return loss
}

var varianceLossPreset = Preset{
	Name:    "variance-loss",
	Family:  "losses",
	Summary: "an auxiliary loss beside a reward for scores that tell tokens apart",
	Formula: `L = α · Σ_e w_e·P_e − γ · mean over t and e of (s_te − s̄_e)²,   w_e = E·n_e/(K·T),  s̄_e = mean over t of s_te

The first term is aux-loss; means are over the units of the scope. The paper's other loss, orthogonality of the outputs of
experts, needs experts that compute and is left out.`,
	Knobs: []Knob{
		{Name: "coeff", Default: "0.03", Low: 0, High: 1e6, About: "α of the auxiliary loss, whose value at balance is 1; as aux-loss, since the paper's was not read"},
		{Name: "variance", Default: "0.03", Low: 0, High: 1e6, About: "γ, reward of the variance of scores, in units of the task's loss per squared score; as α, since the paper's was not read"},
		{Name: "scope", Default: scopeGlobal, Options: []string{scopeSequence, scopeMicroBatch, scopeGlobal}, About: "where both count"},
		scoreKnob,
	},
	Strength: "coeff",
	Needs:    "a router that learns; sequences for scope=sequence",
	Changes:  "gradient",
	Fails:    "the reward is largest where scores are extreme: it saturates sigmoids and hardens gates, and says nothing of loads",
	Paper:    "Advancing Expert Specialization for Better MoE (2025, arXiv 2505.22323)",
	Read:     "note",
	Build: func(v Values, l moe.Layer) (*strategy, error) {
		score, warnings, err := v.score(l)
		if err != nil {
			return nil, err
		}
		balance := newLoss(v.Number("coeff"), v.Text("scope"))
		balance.plain = score == moe.Softmax
		spread := &varianceLoss{units: units{scope: balance.scope}, coeff: v.Number("variance")}
		return compose(&strategy{layer: l, score: score, selection: topK{l}, losses: []loss{balance, spread},
			traits: moe.Traits{Causal: true, Warnings: warnings, Notes: []string{balance.conventions(l.TopK)}}}), nil
	},
}
