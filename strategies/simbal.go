package strategies

import (
	"fmt"
	"math"

	"evenkeel/moe"
)

// gramLoss pulls the rows of the router's weights W [E][d] towards an orthonormal set (SimBal, 2025, arXiv 2506.14038):
//
//	L = c · ‖W·Wᵀ − I‖₁ = c · Σ_ij |(W·Wᵀ − I)_ij|,   ∂L/∂W = 2c · sign(W·Wᵀ − I)·W.
//
// It reads no batch. With unit rows W is W̃/‖W̃‖ row by row, and the gradient loses its part along each row and is divided
// by the row's length.
type gramLoss struct {
	scoreless
	coeff float64
	unit  bool

	rows, grad []float32 // W and ∂L/∂W [E][d] where rows are normalised
	lengths    []float32
}

func (*gramLoss) prepare(*moe.Outcome) {}

func (l *gramLoss) addWeightGradient(weights, g []float32, experts int) float64 {
	if !l.unit {
		return l.add(weights, g, experts)
	}
	if l.rows == nil {
		l.rows, l.grad, l.lengths = make([]float32, len(weights)), make([]float32, len(weights)), make([]float32, experts)
	}
	width := len(weights) / experts
	clear(l.grad)
	for e := range experts {
		from, to := weights[e*width:(e+1)*width], l.rows[e*width:(e+1)*width]
		l.lengths[e] = max(1e-12, float32(math.Sqrt(float64(dot(from, from)))))
		for i, v := range from {
			to[i] = v / l.lengths[e]
		}
	}
	loss := l.add(l.rows, l.grad, experts)
	for e := range experts {
		w, d, to := l.rows[e*width:(e+1)*width], l.grad[e*width:(e+1)*width], g[e*width:(e+1)*width]
		along := dot(w, d)
		for i, v := range d {
			to[i] += (v - float32(along*w[i])) / l.lengths[e]
		}
	}
	return loss
}

func (l *gramLoss) add(weights, g []float32, experts int) (loss float64) {
	width := len(weights) / experts
	for i := range experts {
		a, to := weights[i*width:(i+1)*width], g[i*width:(i+1)*width]
		for j := range experts {
			b := weights[j*width : (j+1)*width]
			d := dot(a, b)
			if i == j {
				d--
			}
			step := float32(2 * l.coeff)
			switch {
			case d < 0:
				step = -step
			case d == 0:
				continue
			}
			loss += math.Abs(float64(d))
			for c, v := range b {
				to[c] += float32(step * v)
			}
		}
	}
	return l.coeff * loss
}

// dot returns Σ_c a_c·b_c, in order.
func dot(a, b []float32) (sum float32) {
	for c, v := range a {
		sum += float32(v * b[c])
	}
	return sum
}

var simBal = Preset{
	Name:    "simbal",
	Family:  "losses",
	Summary: "a loss that pulls the router's rows towards an orthonormal set; it sees no loads",
	Formula: `L = c · ‖W·Wᵀ − I‖₁, entry by entry;   ∂L/∂W = 2c · sign(W·Wᵀ − I)·W

Independent of the batch: that like tokens find like experts, and the loads even themselves, is a hope and no constraint.
The paper starts from orthogonal rows; here W starts as the scenario's router does (router.init).`,
	Knobs: []Knob{
		{Name: "coeff", Default: "0.1", Low: 0, High: 1e6, About: "c, coefficient of the loss relative to the task's; the loss sums over E×E entries"},
		{Name: "rows", Default: "raw", Options: []string{"raw", "unit"}, About: "of W as they are, or normalised first (a variant)"},
		scoreKnob,
	},
	Strength: "coeff",
	Zero:     unbalanced,
	Needs:    "a router that learns its weights, on a stream with latent vectors",
	Changes:  "gradient",
	Fails:    "nothing in it knows of loads; E ≤ d is needed for orthonormal rows; a sum over E² entries outweighs a task whose best router is not orthonormal, as the oracle's here is not",
	Paper:    "SimBal (2025, arXiv 2506.14038)",
	Read:     "note, confirmed by two implementations' documentation",
	Build: func(v Values, l moe.Layer) (*strategy, error) {
		score, warnings, err := v.score(l)
		if err != nil {
			return nil, err
		}
		if l.Width > 0 && l.Experts > l.Width {
			warnings = append(warnings, fmt.Sprintf("%d rows of width %d cannot be orthonormal: simbal wants experts ≤ width", l.Experts, l.Width))
		}
		return compose(&strategy{layer: l, score: score, selection: topK{l},
			losses: []loss{&gramLoss{coeff: v.Number("coeff"), unit: v.Text("rows") == "unit"}},
			traits: moe.Traits{Causal: true, Warnings: warnings}}), nil
	},
}
