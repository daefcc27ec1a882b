package strategies

import (
	"fmt"
	"math"

	"evenkeel/internal/vec"
)

// Shapes of a schedule, in steps t of the run with the knob over = N. Linear and cosine reach 0 at N and stay there.
const (
	constant      = "constant"     // u
	halving       = "halving"      // u·2^−⌊t/N⌋
	linearDecay   = "linear"       // u·max(0, 1 − t/N)
	cosineDecay   = "cosine"       // u·(1 + cos(π·min(1, t/N)))/2
	inverseSquare = "inverse-root" // u/√(1 + t/N)
)

// schedule is a rate u and how it falls, step by step; from the step stop on, if that is not 0, it is 0.
type schedule struct {
	rate  float64
	shape string // "" is constant
	over  int
	stop  int
}

func (s schedule) at(step int) float64 {
	if s.stop > 0 && step >= s.stop {
		return 0
	}
	x := float64(step) / float64(max(1, s.over))
	switch s.shape {
	case halving:
		return math.Ldexp(s.rate, -step/max(1, s.over))
	case linearDecay:
		return s.rate * max(0, 1-x)
	case cosineDecay:
		return s.rate * (1 + vec.Cos64(math.Pi*min(1, x))) / 2
	case inverseSquare:
		return s.rate / math.Sqrt(1+x)
	}
	return s.rate
}

// travel is Σ u over all steps of a schedule that ends, and 0 of one that does not.
func (s schedule) travel() float64 {
	n := math.Inf(1)
	switch s.shape {
	case halving:
		n = 2 * float64(s.over)
	case linearDecay, cosineDecay:
		n = float64(s.over) / 2
	}
	if s.stop > 0 {
		n = min(n, float64(s.stop))
	}
	if math.IsInf(n, 1) {
		return 0
	}
	return s.rate * n
}

// until is the step at which a schedule is over, and 0 of one that never is.
func (s schedule) until() int {
	if s.shape == linearDecay || s.shape == cosineDecay {
		return s.over
	}
	return 0
}

var scheduleKnobs = []Knob{
	{Name: "schedule", Default: constant, Options: []string{constant, halving, linearDecay, cosineDecay, inverseSquare},
		About: "of the rate: halved every N steps, down to 0 at step N along a line or a half cosine, or u/√(1 + t/N)"},
	{Name: "over", Default: "0", Whole: true, Low: 0, High: 1e9, About: "N, steps of the schedule"},
	{Name: "stop", Default: "0", Whole: true, Low: 0, High: 1e9, About: "step from which the rate is 0 (DeepSeek-V3: the last 3 % of training); 0 for never"},
}

// schedule makes the schedule of a rate that the knobs of a preset describe.
func (v Values) schedule(rate float64) (schedule, error) {
	s := schedule{rate: rate, shape: v.Text("schedule"), over: v.Whole("over"), stop: v.Whole("stop")}
	switch {
	case s.shape == constant && s.over > 0:
		return s, fmt.Errorf("over=%d is of a schedule, and a constant rate has none: add schedule=linear, or leave it out", s.over)
	case s.shape != constant && s.over == 0:
		return s, fmt.Errorf("schedule=%s needs the number of steps that it is meant for: add over=1000", s.shape)
	}
	return s, nil
}
