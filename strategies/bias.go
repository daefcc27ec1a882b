package strategies

import (
	"fmt"
	"math"

	"evenkeel/internal/vec"
	"evenkeel/moe"
)

// Update rules: what a bias makes of the load errors v of its experts.
const (
	ruleSign         = "sign"         // sign(v)
	ruleProportional = "proportional" // v
	ruleRMS          = "rms"          // v/√(mean v²)
	ruleTanh         = "tanh"         // tanh(κv)
)

// Units of the load error v.
const (
	unitsRelative = "relative" // (n̄ − n_e)/n̄
	unitsFraction = "fraction" // 1/E − n_e/(TK)
	unitsCount    = "count"    // n̄ − n_e
)

// biasController is a selection bias b and the rule that moves it by the counts of the whole step, or of its micro-batches one
// after the other. With v the error of the loads, n̄ = TK/E,
//
//	v ← γ·v_before + (1−γ)·v;   d = u·rule(v);   d ← d − mean d;   d ← d + u·sign(K − N);   m ← β·m + (1−β)·d
//	a ← keep(clamp(a + m));   b = a,  or  b = keep(a + k_p·v + k_d·(v − v_before))
//
// where every option may be left out. The rules are of arXiv 2408.15664 (sign, proportional: algorithm 1, section 4.3), of
// J. Su's article kexue.fm 10757 (RMS) and of Arcee Trinity Large, arXiv 2602.17004 (tanh with momentum); centring, which
// keeps b from drifting as a whole and alters no choice, is torchtitan's. With the gains k_p and k_d it is a PID controller
// and the clamp of a is its anti-windup. The term in N, the mean number of experts that tokens chose, is Su's budget (kexue.fm
// 10815), which top-K does not see but a threshold does. LongCat-Flash (arXiv 2509.01322) budgets by n̄ itself: its real experts, the
// first ones of the layer, shall each have the share K_e/(K·N) of all TK choices, whoever takes the others.
type biasController struct {
	b           []float32 // of the experts that it moves, the first of the layer
	experts     int       // E of the layer
	rule, units string
	schedule           // of u
	scope       string // of the counts
	centre      bool
	low, high   float32 // clamp
	storage     string  // precision of a and b

	kappa, momentum, smooth  float64 // κ of tanh, β, γ
	proportional, derivative float64 // k_p, k_d
	product                  bool    // b multiplies the scores, and 1 is none
	budget                   bool    // the term in N
	topK                     int     // K of the budget and of all choices
	each                     float64 // all choices, in units of those that an expert shall have: E, or K·N/K_e of TK

	sum           []float32 // a, which is b where there are no other gains
	v, move, last []float64 // the error, d, and m
	seen          bool      // an error before
}

func newBias(experts int) *biasController {
	b := make([]float32, experts)
	return &biasController{b: b, sum: b, experts: experts, each: float64(experts), rule: ruleSign, low: float32(math.Inf(-1)), high: float32(math.Inf(1)),
		v: make([]float64, experts), move: make([]float64, experts), last: make([]float64, experts)}
}

func (c *biasController) declare(t *moe.Traits) {
	if (c.rule == ruleSign || c.rule == ruleTanh) && c.scope != scopeMicroBatch {
		t.Rate, t.Travel = c.rate, c.travel() // no error makes it step further
		if c.budget {
			t.Rate, t.Travel = 2*t.Rate, 2*t.Travel // both of its errors
		}
	}
	t.Until = max(t.Until, c.until())
	t.MicroBatches = t.MicroBatches || c.scope == scopeMicroBatch
}

// gains reports whether b is more than its integral a.
func (c *biasController) gains() bool { return c.proportional != 0 || c.derivative != 0 }

func (c *biasController) update(o *moe.Outcome) {
	if c.stop > 0 && o.Step >= c.stop {
		return
	}
	if c.scope != scopeMicroBatch {
		c.step(o.Chosen.Global, o.Chosen.Tokens, o.Step)
		return
	}
	for i, m := range o.Batch.MicroBatches {
		c.step(o.Chosen.MicroBatch[i*c.experts:(i+1)*c.experts], o.Batch.Size(m), o.Step)
	}
}

// step moves b by the counts of all experts over some tokens of a step of the run.
func (c *biasController) step(n []int64, tokens, step int) {
	var total int64
	for _, v := range n {
		total += v
	}
	all := int64(tokens) * int64(c.topK)
	rate, level := c.at(step), 0.0
	if lack := all - total; c.budget && lack != 0 {
		level = math.Copysign(rate, float64(lack))
	}
	if len(c.b) < c.experts {
		total = all
	}
	if total == 0 && level == 0 {
		return
	}
	pid := c.gains()
	var square, mean float64
	for e := range c.b {
		v := c.err(n[e], total)
		change := 0.0
		if c.seen {
			v = float64(c.smooth*c.v[e]) + float64((1-c.smooth)*v)
			change = v - c.v[e]
		}
		c.v[e] = v
		square += float64(v * v)
		if pid {
			c.b[e] = float32(float64(c.proportional*v) + float64(c.derivative*change))
		}
	}
	c.seen = true
	rms := math.Sqrt(square / float64(len(c.b)))
	for e := range c.b {
		c.move[e] = float64(rate * c.shaped(c.v[e], rms))
		mean += c.move[e]
	}
	mean /= float64(len(c.b))
	for e := range c.b {
		d := c.move[e]
		if c.centre {
			d -= mean
		}
		d += level
		c.last[e] = float64(c.momentum*c.last[e]) + float64((1-c.momentum)*d)
		c.sum[e] = rounded(min(max(c.sum[e]+float32(c.last[e]), c.low), c.high), c.storage)
		if pid {
			c.b[e] = rounded(c.sum[e]+c.b[e], c.storage)
		}
	}
}

// err returns the error of one expert's n of all choices.
func (c *biasController) err(n, total int64) float64 {
	if total == 0 {
		return 0
	}
	lack := float64(total) - float64(float64(n)*c.each) // of n̄ − n, c.each times
	switch c.units {
	case unitsFraction:
		return lack / (float64(total) * c.each)
	case unitsCount:
		return lack / c.each
	}
	return lack / float64(total)
}

// shaped is the rule; rms is that of all errors.
func (c *biasController) shaped(v, rms float64) float64 {
	switch {
	case c.rule == ruleTanh:
		return tanh(float64(c.kappa * v))
	case v == 0 || c.rule == ruleProportional:
		return v
	case c.rule == ruleRMS:
		return v / rms
	}
	return math.Copysign(1, v)
}

func tanh(x float64) float64 {
	return math.Copysign(1-2/(vec.Exp64(2*min(math.Abs(x), 20))+1), x)
}

// biasKnobs are those of every bias that moves by an error of loads, with the defaults that differ and what the clamp is of. What a
// preset makes of its error by more than one rule has the knob rule besides.
func biasKnobs(units, centre, clamp, clamped string) []Knob {
	return append([]Knob{
		{Name: "units", Default: units, Options: []string{unitsRelative, unitsFraction, unitsCount},
			About: "of the error that a rule other than sign or rms sees: (n̄−n)/n̄, n̄/(TK) − n/(TK), or n̄−n assignments"},
		{Name: "centre", Default: centre, Options: []string{"false", "true"}, About: "take the mean off every change (torchtitan)"},
		{Name: "scope", Default: scopeGlobal, Options: []string{scopeGlobal, scopeMicroBatch},
			About: "step once by the counts of the whole step, or once by those of each micro-batch in turn"},
		{Name: "clamp", Default: clamp, Low: 0, High: 1e6, About: clamped + "; 0 for any"},
		storageKnob,
	}, scheduleKnobs...)
}

var storageKnob = Knob{Name: "storage", Default: fp32, Options: []string{fp32, bf16, fp16}, About: "precision in which the bias is kept"}

func ruleKnob(about string) Knob {
	return Knob{Name: "rule", Default: ruleSign, Options: []string{ruleSign, ruleProportional, ruleRMS}, About: about}
}

// bias makes the controller that the knobs of a preset describe.
func (v Values) bias(rule string, rate float64, experts int) (c *biasController, err error) {
	c = newBias(experts)
	c.rule, c.units, c.scope, c.centre, c.storage = rule, v.Text("units"), v.Text("scope"), v.On("centre"), v.Text("storage")
	if clamp := v.Number("clamp"); clamp > 0 {
		c.low, c.high = float32(-clamp), float32(clamp)
	}
	if c.units != unitsRelative {
		switch rule {
		case ruleSign:
			return nil, fmt.Errorf("units=%s belongs to rule=proportional: the sign rule sees no size of an error", c.units)
		case ruleRMS:
			return nil, fmt.Errorf("units=%s belongs to rule=proportional: the RMS rule divides the unit out", c.units)
		}
	}
	c.schedule, err = v.schedule(rate)
	return c, err
}

// biased is top-K by an additive bias, or by another selection that uses it, and a controller of that bias.
func (v Values) biased(l moe.Layer, choose selection, b []float32, c controller) (*strategy, error) {
	score, warnings, err := v.score(l)
	if err != nil {
		return nil, err
	}
	if c, ok := c.(*biasController); ok {
		warnings = append(warnings, c.warnings(score, l)...)
	}
	return compose(&strategy{layer: l, score: score, selection: choose, bias: b, controllers: []controller{c},
		traits: moe.Traits{Causal: true, Warnings: warnings}}), nil
}

// warnings says which settings are likely mistakes. The bounds for softmax scores are where runs of the scenario
// independent begin to oscillate; a soft clamp comes to rest as the proportional rule does.
func (c *biasController) warnings(score moe.Score, l moe.Layer) (w []string) {
	experts := float64(l.Experts)
	coarse, advice := "", ""
	switch gain := c.rate + c.proportional + 2*c.derivative; {
	case score != moe.Softmax || c.product:
	case (c.rule == ruleSign || c.rule == ruleRMS) && c.rate*experts > 0.03:
		coarse, advice = fmt.Sprintf("a %s step of %g", c.rule, c.rate), fmt.Sprintf("rate=%.1g or rule=proportional", 0.01/experts)
	case c.rule == ruleTanh && c.rate*c.kappa*experts > 0.3:
		coarse, advice = fmt.Sprintf("a slope of %g", c.rate*c.kappa), fmt.Sprintf("rate=%.1g", 0.1/(experts*c.kappa))
	case c.rule == ruleProportional && c.units == unitsRelative && gain*experts > 0.3:
		coarse, advice = fmt.Sprintf("a gain of %g", gain), fmt.Sprintf("%.1g", 0.1/experts)
	}
	if coarse != "" {
		w = append(w, fmt.Sprintf("%s is coarse for softmax scores, whose mean is 1/E = %.3g: try %s", coarse, 1/experts, advice))
	}
	if c.rule == ruleProportional && c.units == unitsCount && max(c.rate, c.proportional) > 1e-5 {
		w = append(w, "errors counted in assignments grow with the batch: at this rate the loop usually diverges")
	}
	if c.rule == ruleTanh && c.units != unitsRelative {
		w = append(w, fmt.Sprintf("κ is meant for relative errors: tanh hardly moves by fractions, and is the sign of counts; with units=%s choose another kappa", c.units))
	}
	stuck := rounded(float32(1-c.rate), c.storage) == 1 && rounded(float32(1+c.rate), c.storage) == 1
	if c.product && c.rule == ruleSign && c.rate > 0 && stuck {
		w = append(w, fmt.Sprintf("%s keeps no step of %g beside a bias of 1, which never moves: use a larger rate or storage=fp32",
			c.storage, c.rate))
	}
	return w
}
