package strategies

import (
	"fmt"
	"slices"

	"evenkeel/internal/vec"
	"evenkeel/moe"
)

// scoreBuckets is the number of equal buckets on [0, 1] in which a sequence's scores are remembered.
const scoreBuckets = 100

// movingQuantile lowers every score by λ times the threshold that the share K/E of its sequence's earlier scores passed, and
// chooses the top-K of what is left plus a bias b, which quantile balancing of the lowered scores moves.
//
// A token's own score does not enter its threshold, and the first token of a sequence has none; the source, a note, is silent
// on both. The state is a histogram for each expert and sequence whose counts fade by a factor with each token. Here, in place of
// fading, each token counts more than the one before it by the inverse factor.
type movingQuantile struct {
	layer   moe.Layer
	lambda  float64
	fade    float64
	global  *quantileController // of the lowered scores; nil for none
	scratch *moe.Scratch
	lowered []float32 // [tile][E][64]
	sketch  []sketch  // [E]
}

// sketch is one expert's histogram and the bucket that holds its quantile: above is what the buckets past it hold, at most
// the share K/E of all, and with it they hold more.
type sketch struct {
	mass   [scoreBuckets]float64
	above  float64
	bucket int
}

func (m *movingQuantile) declare(t *moe.Traits) { t.Sequences = true }

func (m *movingQuantile) revise(b *moe.Batch, s, bias []float32, a *moe.Assignment) error {
	if len(m.lowered) < len(s) {
		m.lowered = make([]float32, len(s))
	}
	size := m.layer.Experts * vec.Lanes
	var weight, total float64 // of the next token, and of those of its sequence before it
	sequence := -1
	for i := range b.Tiles {
		t, to := &b.Tiles[i], m.lowered[i*size:(i+1)*size]
		copy(to, s[i*size:(i+1)*size])
		b.Segments(i, b.Sequences, func(unit, from, until int) {
			if unit != sequence {
				sequence, weight, total = unit, 1, 0
				clear(m.sketch)
			}
			weight, total = m.lower(to, from, until, weight, total)
		})
		topK{m.layer}.choose(t, to, bias, m.scratch, a.Tile(i))
	}
	return nil
}

// lower walks lanes from to until of one sequence.
func (m *movingQuantile) lower(tile []float32, from, until int, weight, total float64) (float64, float64) {
	share, lambda := float64(m.layer.TopK)/float64(m.layer.Experts), float32(m.lambda)
	var weights, most [vec.Lanes]float64 // of each token, and what buckets past the quantile's may hold with it
	first := total == 0
	for l := from; l < until; l++ {
		total += weight
		weights[l], most[l] = weight, share*total
		weight /= m.fade
	}
	for e := range m.sketch {
		m.sketch[e].lower((*vec.Row)(tile[e*vec.Lanes:]), from, until, first, lambda, &weights, &most)
	}
	if weight > 0x1p500 {
		for e := range m.sketch {
			m.sketch[e].scale(0x1p-500)
		}
		weight, total = weight*0x1p-500, total*0x1p-500
	}
	return weight, total
}

// lower takes λ times the quantile, the middle of its bucket, off the scores of lanes from to until, unless it is the first, and
// counts each score after that; most is what the buckets past the quantile's may hold then.
func (k *sketch) lower(row *vec.Row, from, until int, first bool, lambda float32, weights, most *[vec.Lanes]float64) {
	above, at := k.above, k.bucket // in registers while the loop runs
	for l := from; l < until; l++ {
		v, weight, most := row[l], weights[l], most[l]
		if l > from || !first {
			row[l] = v - float32(lambda*((float32(at)+0.5)/scoreBuckets))
		}
		i := bucket(float32(v*scoreBuckets), scoreBuckets-1)
		k.mass[i] += weight
		if i > at {
			above += weight
		}
		for above > most && at < scoreBuckets-1 {
			at++
			above -= k.mass[at]
		}
		for at > 0 && above+k.mass[at] <= most {
			above += k.mass[at]
			at--
		}
	}
	k.above, k.bucket = above, at
}

func (k *sketch) scale(f float64) {
	k.above *= f
	for i := range k.mass {
		k.mass[i] *= f
	}
}

// update is quantile balancing of the lowered scores of the batch that revise saw last.
func (m *movingQuantile) update(o *moe.Outcome) {
	m.global.learn(o.Batch, m.lowered)
}

var movingQuantilePreset = Preset{
	Name:    "moving-quantile",
	Family:  "quantiles",
	Summary: "thresholds from the sequence so far, below a global quantile bias: balance inside sequences without a loss",
	Formula: `h_te = decay·h_{t−1,e} + (1 − decay)·onehot(bucket of s_te): a fading histogram of 100 buckets on [0, 1], from the start of the sequence
θ_te = the 1 − K/E quantile of h_{t−1,e}, the middle of its bucket; 0 for the first token
S_t = TopK(s_t − λ·θ_t + b);  gates from s;  after each step b by quantile balancing of s − λ·θ

Only earlier tokens of the same sequence matter, so a decoder can do it.`,
	Knobs: []Knob{
		{Name: "lambda", Default: "0.3", Low: 0, High: 10, About: "λ, how much of the sequence's threshold is taken off (the note: 1 balances sequences most, 0.3 costs next to nothing)"},
		{Name: "decay", Default: "0.99", Low: 0.5, High: 1, About: "what a count keeps with each token of the sequence"},
		{Name: "global", Default: "true", Options: []string{"true", "false"}, About: "quantile balancing of each step on top"},
		scoreKnob,
	},
	Strength: "lambda",
	Zero: func(v Values) string {
		zero := "none"
		if v.On("global") {
			zero = "quantile-balancing"
		}
		if v.Text("score") != "scenario" {
			zero += ":score=" + v.Text("score")
		}
		return zero
	},
	Needs:   "sequences; a state of 100 counts per expert for every sequence; scores in [0, 1]",
	Changes: "which experts",
	Fails:   "evenness inside sequences costs specialisation, as a sequence loss does; 100 buckets are coarse for softmax scores over many experts; thresholds ignore a group limit",
	Paper:   "Moving quantile balancing (Su, May 2026, kexue.fm, MoE series)",
	Read:    "note",
	Build: func(v Values, l moe.Layer) (*strategy, error) {
		score, warnings, err := v.score(l)
		if err != nil {
			return nil, err
		}
		m := &movingQuantile{layer: l, lambda: v.Number("lambda"), fade: v.Number("decay"), sketch: make([]sketch, l.Experts),
			scratch: moe.NewScratch(l)}
		r := &strategy{layer: l, score: score, revision: m}
		if v.On("global") {
			m.global = newQuantile(l, true)
			r.bias, r.controllers = m.global.b, []controller{m}
		}
		if score == moe.Softmax {
			warnings = append(warnings, fmt.Sprintf("buckets of 0.01 are coarse for softmax scores, whose mean is 1/E = %.3g", 1/float64(l.Experts)))
		}
		r.traits = moe.Traits{Causal: true, Warnings: slices.Concat(warnings, unitWarnings(score), quantileWarnings(l))}
		return compose(r), nil
	},
}
