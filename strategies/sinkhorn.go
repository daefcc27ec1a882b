package strategies

import (
	"math"

	"evenkeel/internal/vec"
	"evenkeel/moe"
)

var sinkhorn = Preset{
	Name:    "sinkhorn",
	Family:  "assignment",
	Summary: "top-K of a transport plan that is even over the batch's tokens and experts, in training; plain top-K elsewhere",
	Formula: `plan π_te = d_t·exp(z_te/τ)·d_e, scaled in turn so that rows sum to 1/T and columns to 1/E:
  d_t ← 1/(T·(Σ_e d_e·exp(z_te/τ) + 1e-8)),   d_e ← 1/(E·(Σ_t d_t·exp(z_te/τ) + 1e-8)),   until mean |Δd_e| < 1e-4
S_t = TopK(π_t) = TopK(z_t/τ + ln d): a selection bias fitted to this very batch;  gates g = s

Megatron-LM's gates are sigmoid(z) for K = 1 and softmax(z) for more, not renormalised: set score for the same. Logits are
recovered from scores; what softmax loses of them, a constant for each token, row scaling takes out anyway, and so it does
the largest logit of each token, which is subtracted against overflow. Ignores group limits.`,
	Knobs: []Knob{
		{Name: "temperature", Default: "1", Low: 1e-3, High: 1e3, About: "τ, divides the logits; small ones put a token's whole part of the plan on one expert, so that further choices are not evened"},
		{Name: "rounds", Default: "1000", Whole: true, Low: 1, High: 1e6, About: "largest number of scalings of rows and columns (Megatron-LM has no limit)"},
		evaluateKnob("sinkhorn"),
		scoreKnob,
	},
	Needs:   "the scores of all experts",
	Changes: "which experts, gates",
	Fails:   "the top-K of an even plan is itself uneven; not causal: a token's experts depend on later ones; without the batch, at inference, it is not balanced at all; exp overflows unless the largest logit is subtracted",
	Paper:   "S-BASE (Clark et al. 2022, arXiv 2202.01169); Megatron-LM's load-balancing type sinkhorn",
	Read:    "code (Megatron-LM); the paper from memory. There a plan is of one forward pass; here of the whole step",
	Build: func(v Values, l moe.Layer) (*strategy, error) {
		score, warnings, err := v.score(l)
		if err != nil {
			return nil, err
		}
		once, notes := v.trainingOnly()
		r := &sinkhornPlan{trainingOnly: once, score: score, temperature: float32(v.Number("temperature")), rounds: v.Whole("rounds"),
			column: make([]float32, l.Experts), sum: make([]float64, l.Experts), selector: vec.NewSelector(l.TopK, 1)}
		return compose(&strategy{layer: l, score: score, selection: topK{free(l)}, revision: r,
			traits: moe.Traits{Free: true, Gate: moe.Gate{Scale: 1}, Notes: notes, Warnings: append(warnings, storedWarning(l)...)}}), nil
	},
}

// sinkhornPlan is the transport plan of a batch.
type sinkhornPlan struct {
	trainingOnly
	score       moe.Score
	temperature float32
	rounds      int

	z, kernel []float32 // z/τ, and exp of it divided by its sum over experts, [tile][E][64]
	row       []vec.Row // d_t [tile][64]; 0 for dead lanes
	column    []float32 // d_e [E], and in the end its logarithm
	sum       []float64 // Σ_t d_t·kernel [E]
	all       vec.Row
	selector  *vec.Selector
}

func (p *sinkhornPlan) revise(b *moe.Batch, s, _ []float32, a *moe.Assignment) error {
	if p.greedy(b) {
		return nil
	}
	p.load(b, s)
	for range p.rounds {
		if p.scale(b) < 1e-4 {
			break
		}
	}
	for e, d := range p.column {
		p.column[e] = vec.Log(max(d, 1e-30))
	}
	n := a.Experts * vec.Lanes
	for i := range b.Tiles {
		p.selector.TopK(a.Tile(i), p.z[i*n:(i+1)*n], p.column, b.Tiles[i].Live(), nil)
	}
	return nil
}

// load begins a plan. exp(z/τ) is divided by its sum over experts, which overflows nowhere and scales rows only.
func (p *sinkhornPlan) load(b *moe.Batch, s []float32) {
	n := b.Layer.Experts * vec.Lanes
	p.z, p.kernel = resize(p.z, len(b.Tiles)*n), resize(p.kernel, len(b.Tiles)*n)
	p.row = resize(p.row, len(b.Tiles))
	for i := range b.Tiles {
		z := p.z[i*n : (i+1)*n]
		logits(p.score, z, s[i*n:(i+1)*n])
		for j := range z {
			z[j] /= p.temperature
		}
		vec.Softmax(p.kernel[i*n:(i+1)*n], z, b.Layer.Experts)
	}
	for e := range p.column {
		p.column[e] = 1
	}
}

// scale does one round, rows then columns, and returns the mean change of d_e.
func (p *sinkhornPlan) scale(b *moe.Batch) (change float64) {
	const epsilon = 1e-8
	clear(p.sum)
	n := len(p.column) * vec.Lanes
	for i := range b.Tiles {
		kernel, row := p.kernel[i*n:(i+1)*n], &p.row[i]
		vec.WeightedSum(row, &p.all, kernel, p.column)
		for t, v := range row {
			row[t] = 0
			if t < b.Tiles[i].Tokens {
				row[t] = 1 / (float32(b.Tokens) * (v + epsilon))
			}
		}
		for e := range p.sum {
			var part float32
			for t, k := range (*vec.Row)(kernel[e*vec.Lanes:]) {
				part += float32(k * row[t])
			}
			p.sum[e] += float64(part)
		}
	}
	for e, v := range p.sum {
		d := float32(1 / (float64(len(p.column)) * (v + epsilon)))
		change += math.Abs(float64(d - p.column[e]))
		p.column[e] = d
	}
	return change / float64(len(p.column))
}
