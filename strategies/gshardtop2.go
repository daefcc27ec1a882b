package strategies

import (
	"fmt"

	"evenkeel/internal/rng"
	"evenkeel/moe"
)

// Rules for GShard's second expert.
const (
	secondRandom = "random"
	secondGumbel = "gumbel"
	secondAlways = "always"
)

// topTwo chooses the best expert and, by a rule, a second one: the next best, kept with probability min(1, 2·g₂), where g₂ is
// its score divided by the sum of both (GShard, 2020, arXiv 2006.16668, algorithm 1); the best of the others by z plus Gumbel
// noise (DeepSpeed); or the next best always.
type topTwo struct {
	topK
	second   string
	training bool // second choices are random in training only
	score    moe.Score
}

func (k topTwo) choose(t *moe.Tile, s, bias []float32, w *moe.Scratch, mask []uint64) {
	clear(mask)
	allowed := k.allowed(s, bias, w)
	random := t.Training || !k.training
	var first, second picks
	first.add(mask, s, bias, allowed, t.Live())
	by := s
	if random && k.second == secondGumbel {
		by = w.Room
		race(t, s, by, k.layer.Experts, k.score)
		bias = nil
	}
	second.add(mask, by, bias, allowed, t.Live())
	if !random || k.second != secondRandom {
		return
	}
	for l, e := range second.expert[:t.Tokens] {
		if e < 0 {
			continue
		}
		r := rng.New(rng.Mix(t.Key + uint64(l)))
		if g := second.score[l] / (first.score[l] + second.score[l]); 2*g < chance(&r) {
			mask[e] &^= 1 << l
		}
	}
}

func (k topTwo) declare(t *moe.Traits) { t.Varies = t.Varies || k.second == secondRandom }

var gshardTop2 = Preset{
	Name:    "gshard-top2",
	Family:  "losses",
	Summary: "GShard: the best expert, a second one by chance, and a loss that counts first choices",
	Formula: `S_t = {first, second} by s;  the second is kept with probability min(1, 2·g₂),  g₂ = s₂/(s₁ + s₂)
L = α · mean_e(c_e/T · m_e) · E² = α · Σ_e w_e·m_e,   w_e = E·c_e/T,   c_e: first choices,   m_e = mean of softmax(z)_e

Counts are of a micro-batch. second=gumbel is DeepSpeed's: the second is the best of the others by z + G, G Gumbel noise,
and is always kept. Where a second is not kept, the gates here are normalised over what is. Nothing is dropped here.`,
	Knobs: []Knob{
		{Name: "coeff", Default: "0.01", Low: 0, High: 1e6, About: "α, coefficient of the loss, whose value at balance is 1, relative to the task's; as Switch's, since the original's was not read"},
		{Name: "second", Default: secondRandom, Options: []string{secondRandom, secondGumbel, secondAlways}, About: "rule for the second expert: GShard's, DeepSpeed's, or the next best"},
		{Name: "evaluation", Default: "random", Options: []string{"random", "best"}, About: "second choices of evaluation: by the same rule (FastMoE, DeepSpeed), or the next best, always"},
		publishedScore(moe.Softmax),
	},
	Scenario: "pretraining --set topk=2",
	Needs:    "K = 2; a router that learns",
	Changes:  "which experts, gradient",
	Fails:    "second choices carry load that the loss does not see; FastMoE multiplies by the local number of experts squared, so its α shrinks with the number of workers",
	Paper:    "GShard (Lepikhin et al. 2020, arXiv 2006.16668)",
	Read:     "code (FastMoE, DeepSpeed)",
	Build: func(v Values, l moe.Layer) (*strategy, error) {
		if l.TopK != 2 {
			return nil, fmt.Errorf("it chooses a first and a second expert, and here K is %d: --set topk=2", l.TopK)
		}
		score, warnings, err := v.score(l)
		if err != nil {
			return nil, err
		}
		balance := newLoss(v.Number("coeff"), scopeMicroBatch)
		balance.plain, balance.fresh, balance.first = score == moe.Softmax, true, true
		choice := topTwo{topK: topK{l}, second: v.Text("second"), training: v.Text("evaluation") == "best", score: score}
		return compose(&strategy{layer: l, score: score, selection: choice, counted: firstChoice{topK{l}}, losses: []loss{balance},
			traits: moe.Traits{Causal: true, Gate: moe.Gate{Normalised: true, Scale: 1}, Warnings: warnings, Notes: []string{balance.conventions(1) + "; counts of first choices"}}}), nil
	},
}
