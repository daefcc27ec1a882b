package strategies

import (
	"fmt"
	"math"
	"slices"

	"gonum.org/v1/gonum/stat/distuv"

	"evenkeel/internal/vec"
	"evenkeel/moe"
)

// above chooses every expert with s + b > 0, that is with s above the threshold β = −b: as many as it may be. Without a bias
// the threshold is 0.
type above struct{}

func (above) declare(t *moe.Traits) { t.Varies, t.Free = true, true }

func (above) choose(t *moe.Tile, s, bias []float32, w *moe.Scratch, mask []uint64) {
	beta, zero := w.Grad[:len(mask)], &w.Rows[0]
	clear(beta)
	for e, b := range bias {
		beta[e] = -b
	}
	*zero = vec.Row{}
	vec.Above(mask, s, beta, zero)
	live := t.Live()
	for e := range mask {
		mask[e] &= live
	}
}

// variesNote is what a reader must know of results with any number of experts.
const variesNote = "tokens have as many experts as pass: affinity is summed over all of them, and may exceed that of the oracle's K"

// freeWarnings says what becomes of a group limit that a rule does not know.
func freeWarnings(l moe.Layer) (w []string) {
	if l.Limited() {
		w = append(w, fmt.Sprintf("it ignores the group limit: tokens may touch more than %d of %d groups", l.GroupsKept, l.Groups))
	}
	return w
}

// Where thresholds start.
const (
	startNormal = "normal" // from logits N(0, σ²)
	startBatch  = "batch"  // the same, but the first step sets them outright
	startZero   = "zero"   // everything positive is chosen
)

var sigmaKnob = Knob{Name: "sigma", Default: "0", Low: 0, High: 1e3,
	About: "σ of the logits that start=normal supposes; 0: 0.02·√d, as of a router that begins to learn, and 1 without latent vectors; a frozen router's are wider, about 1.4 in pretraining"}

// initial returns the bias b = −β of thresholds over which logits N(0, σ²) put the share K/E of their scores:
// β = score(σ·Φ⁻¹(1 − K/E)), with e^z/(E·e^(σ²/2)) for softmax, whose sum is taken at its mean.
func (v Values) initial(score moe.Score, l moe.Layer) (b []float32, warnings []string) {
	b = make([]float32, l.Experts)
	if v.Text("start") == startZero || l.TopK == l.Experts {
		return b, nil
	}
	if score == moe.Stored {
		warnings = []string{"thresholds start from logits N(0, σ²), and this stream carries scores: start=batch or start=zero needs no guess"}
		if v.Text("start") == startBatch {
			warnings = nil
		}
	}
	sigma := v.Number("sigma")
	if sigma == 0 {
		sigma = 1
		if l.Width > 0 {
			sigma = 0.02 * math.Sqrt(float64(l.Width))
		}
	}
	// To 6 digits, since the last bits of the library's logarithm differ between platforms.
	z := math.Round(1e6*sigma*distuv.UnitNormal.Quantile(1-float64(l.TopK)/float64(l.Experts))) / 1e6
	var beta [vec.Lanes]float32
	if score == moe.Softmax {
		beta[0] = float32(vec.Exp64(z-float64(float64(sigma*sigma)/2)) / float64(l.Experts))
	} else {
		beta[0] = float32(z)
		score.Apply(beta[:], beta[:], 1)
	}
	for e := range b {
		b[e] = -beta[0]
	}
	return b, warnings
}

var threshold = Preset{
	Name:    "threshold",
	Family:  "quantiles",
	Summary: "every expert whose score passes its threshold, as many as there are: expert choice made causal",
	Formula: `S_t = {e : s_te > β_e}
after each step:  β_e ← λ·β_e + (1−λ)·q_e,   q_e = the 1 − K/E quantile of column s_e, the (⌊TK/E⌋+1)-th largest

Each expert takes the share K/E of the tokens on average, and a token as many experts as it passes: K on average, perhaps none.
β starts at score(σ·Φ⁻¹(1 − K/E)), right for logits N(0, σ²).`,
	Knobs: []Knob{
		{Name: "lambda", Default: "0.9", Low: 0, High: 1, About: "λ, share of the old threshold that a step keeps"},
		{Name: "start", Default: startNormal, Options: []string{startNormal, startBatch, startZero},
			About: "thresholds of the first step: for logits N(0, σ²); the same, and the first step then sets its own quantiles outright; 0, which all pass"},
		sigmaKnob,
		scoreKnob,
	},
	Needs:   "the scores of all experts, and order statistics of columns of T of them; compute that may vary by token",
	Changes: "which experts, how many",
	Fails:   "tokens without any expert; the number of experts drifts while scores do; a start at 0 selects everything; thresholds ignore a group limit",
	Paper:   "Su 2026, kexue.fm 11626; Expert Threshold Routing (2026, arXiv 2603.11535)",
	Read:    "the author's blog; the paper: notes",
	Build: func(v Values, l moe.Layer) (*strategy, error) {
		score, warnings, err := v.score(l)
		if err != nil {
			return nil, err
		}
		b, more := v.initial(score, l)
		c := newQuantile(l, false)
		c.keep, c.outright = v.Number("lambda"), v.Text("start") == startBatch
		copy(c.b, b)
		return compose(&strategy{layer: l, score: score, selection: above{}, bias: c.b, controllers: []controller{c},
			traits: moe.Traits{Causal: true, Warnings: slices.Concat(warnings, more, freeWarnings(l))}}), nil
	},
}
