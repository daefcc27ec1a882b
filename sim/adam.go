package sim

import "math"

const (
	beta1, beta2, adamEpsilon = 0.9, 0.95, 1e-8
	decayShare                = 0.3 // of the steps, at the end, over which the rate falls to 0
)

// adam holds the moments of some parameters (Kingma and Ba 2015, arXiv 1412.6980).
type adam struct{ m, v []float32 }

func newAdam(n int) adam { return adam{make([]float32, n), make([]float32, n)} }

// move moves the parameters from the given one on by their gradient g.
func (a *adam) move(theta, g []float32, from int, p *pace) {
	theta, m, v := theta[from:from+len(g)], a.m[from:from+len(g)], a.v[from:from+len(g)]
	for i, g := range g {
		m[i] = float32(beta1*m[i]) + float32((1-beta1)*g)
		v[i] = float32(beta2*v[i]) + float32((1-beta2)*float32(g*g))
		theta[i] -= float32(p.step*m[i]) / (float32(math.Sqrt(float64(float32(v[i]*p.correct2)))) + adamEpsilon)
	}
}

// pace is how far Adam moves at a step of a run: a constant rate that falls linearly over the last 30 % of the steps, and the
// corrections for moments that began at 0.
type pace struct {
	rate           float64
	steps          int
	decay1, decay2 float64 // β₁^t, β₂^t
	step, correct2 float32 // the rate over 1−β₁^t, and 1/(1−β₂^t)
}

func newPace(rate float64, steps int) pace {
	return pace{rate: rate, steps: steps, decay1: 1, decay2: 1}
}

// next goes on to a step of the run.
func (p *pace) next(step int) {
	p.decay1 = float64(p.decay1 * beta1)
	p.decay2 = float64(p.decay2 * beta2)
	left := float64(p.steps-step) / (decayShare * float64(p.steps))
	p.step = float32(p.rate * min(1, left) / (1 - p.decay1))
	p.correct2 = float32(1 / (1 - p.decay2))
}
