package strategies

import (
	"math"

	"evenkeel/moe"
)

// Update rules of a bias, and the units of the error that the proportional rule multiplies.
const (
	ruleSign         = "sign"
	ruleProportional = "proportional"

	unitsRelative = "relative" // (n̄ − n_e)/n̄
	unitsFraction = "fraction" // 1/E − n_e/(TK)
	unitsCount    = "count"    // n̄ − n_e
)

// biasController is a selection bias b [E] and the rule that moves it once a step, from the counts of the whole step:
//
//	b_e ← b_e + u·sign(n̄ − n_e)   or   b_e ← b_e + u·error_e,   n̄ = TK/E
//
// (arXiv 2408.15664, algorithm 1 and section 4.3). With centring the mean of the change is taken off first, which alters
// no choice and keeps b from drifting as a whole (torchtitan). Storage in bfloat16 rounds b after every change.
type biasController struct {
	b            []float32
	rate         float64
	rule, units  string
	centre, bf16 bool
	stop         int // step from which the rate is 0; 0 for never
	change       []float64
}

func newBias(experts int) *biasController {
	return &biasController{b: make([]float32, experts), change: make([]float64, experts), rule: ruleSign}
}

func (c *biasController) declare(t *moe.Traits) {
	if c.rule == ruleSign {
		t.Rate = c.rate
	}
}

func (c *biasController) update(o *moe.Outcome) {
	n := o.Chosen
	if c.stop > 0 && o.Step >= c.stop {
		return
	}
	var total int64
	for _, v := range n.Global {
		total += v
	}
	experts := int64(len(c.b))
	var mean float64
	for e, v := range n.Global {
		c.change[e] = float64(c.rate * c.err(total-v*experts, total, experts))
		mean += c.change[e]
	}
	mean /= float64(experts)
	for e, d := range c.change {
		if c.centre {
			d -= mean
		}
		c.b[e] += float32(d)
		if c.bf16 {
			c.b[e] = toBF16(c.b[e])
		}
	}
}

// err returns the error of one expert from its lack E·(n̄ − n_e), the total TK and E.
func (c *biasController) err(lack, total, experts int64) float64 {
	switch {
	case c.rule == ruleSign && lack > 0:
		return 1
	case c.rule == ruleSign && lack < 0:
		return -1
	case c.rule == ruleSign:
		return 0
	case c.units == unitsRelative:
		return float64(lack) / float64(total)
	case c.units == unitsFraction:
		return float64(lack) / (float64(total) * float64(experts))
	}
	return float64(lack) / float64(experts)
}

// toBF16 rounds to the nearest bfloat16, ties to even.
func toBF16(x float32) float32 {
	b := math.Float32bits(x)
	b += 0x7fff + b>>16&1
	return math.Float32frombits(b &^ 0xffff)
}
