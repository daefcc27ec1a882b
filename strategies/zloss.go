package strategies

import (
	"evenkeel/internal/vec"
	"evenkeel/moe"
)

// zLoss is ST-MoE's router z-loss (2022, arXiv 2202.08906, equation 5) over the T tokens of the step,
//
//	L = c/T · Σ_t lse_t²,   lse_t = ln Σ_e e^z_te,   ∂L/∂z_tj = 2c/T · lse_t·p_tj,   p = softmax(z).
//
// It keeps logits small and balances nothing.
type zLoss struct {
	scoreless
	coeff float64
}

func (zLoss) prepare(*moe.Outcome) {}

func (l zLoss) addLogitGradient(b *moe.Batch, tile int, z, g []float32, w *moe.Scratch) (loss float64) {
	e, p := b.Layer.Experts, w.Room
	vec.Softmax(p, z, e)
	top, best, scale := &w.Rows[0], &w.Rows[1], &w.Rows[2] // the largest logit and its p
	*top, *best = *row(z, 0), *row(p, 0)
	for i := 1; i < e; i++ {
		q := row(p, i)
		for t, v := range row(z, i) {
			if v > top[t] {
				top[t], best[t] = v, q[t]
			}
		}
	}
	*scale = vec.Row{}
	tokens := &b.Tiles[tile]
	one := l.coeff / float64(b.Total)
	for t := range tokens.Tokens {
		share := one
		if tokens.Weight != nil {
			share = float64(one * float64(tokens.Weight[t]))
		}
		lse := top[t] - vec.Log(best[t])
		loss += float64(share * float64(float32(lse*lse)))
		scale[t] = float32(2*share) * lse
	}
	for i := range e {
		q, to := row(p, i), row(g, i)
		for t, v := range scale {
			to[t] += float32(v * q[t])
		}
	}
	return loss
}

var zLossPreset = Preset{
	Name:    "z-loss",
	Family:  "losses",
	Summary: "top-K with the router z-loss: keeps logits small, balances nothing",
	Formula: `L = c · mean over t of (ln Σ_e exp z_te)²;   ∂L/∂z_tj = 2c/T · lse_t·p_tj

A stabiliser, not a balancing rule: it flattens gates, and since it shrinks logits it moves an auxiliary loss towards its
value at balance without a change of any choice. aux-loss has it beside its own loss as the knob z.`,
	Knobs: []Knob{
		{Name: "coeff", Default: "0.001", Low: 0, High: 1e6, About: "c, coefficient of the loss relative to the task's (1e-3: OLMoE, ST-MoE 32B; 1e-4: ST-MoE base in flaxformer)"},
		scoreKnob,
	},
	Strength: "coeff",
	Zero:     unbalanced,
	Needs:    "a router that learns",
	Changes:  "gradient",
	Fails:    "no pressure on loads; with scores other than softmax it also shifts all logits down by about ln E; pushes towards the plateau on which an auxiliary loss looks balanced",
	Paper:    "ST-MoE (Zoph et al. 2022, arXiv 2202.08906)",
	Read:     "code",
	Build: func(v Values, l moe.Layer) (*strategy, error) {
		score, warnings, err := v.score(l)
		if err != nil {
			return nil, err
		}
		return compose(&strategy{layer: l, score: score, selection: topK{l}, losses: []loss{zLoss{coeff: v.Number("coeff")}},
			traits: moe.Traits{Causal: true, Warnings: warnings}}), nil
	},
}
