package strategies

import (
	"fmt"

	"evenkeel/moe"
)

var quantileBalancing = Preset{
	Name:    "quantile-balancing",
	Family:  "quantiles",
	Summary: "a threshold per expert, set after each batch to the quantile that would have balanced it",
	Formula: `S_t = TopK(s_t − β);  gates from s, without β;  b = −β
after each step, from its scores:
  α_t = the (K+1)-th largest of s_t − β,    β_e = the (⌊TK/E⌋+1)-th largest of column s_e − α,    β ← β − mean β

One step of coordinate descent on the dual of the balanced assignment, of which the sign rule is a subgradient: no step size.
Where E does not divide TK, ⌊TK/E⌋ tokens lie above the quantile (Megatron-LM refuses; no other value solves the dual).
on=logits takes the scores' logits z in place of s, in choice and quantiles, as Megatron-LM does, which also averages the
quantiles of micro-batches. With softmax scores that is another rule, with a bias that multiplies them.
Kimi K3 counts α − s in 1000 bins over [min b − 1, max b + 1]; β is the middle of the bin (not said at the source).`,
	Knobs: []Knob{
		{Name: "estimate", Default: estimateExact, Options: []string{estimateExact, estimateMicroBatch, estimateHistogram},
			About: "quantile of the whole step; mean of the micro-batches' quantiles (Megatron-LM); from integer counts in bins (Kimi K3)"},
		{Name: "on", Default: "scores", Options: []string{"scores", "logits"}, About: "what β is taken off and quantiles are of (Megatron-LM: logits)"},
		{Name: "ema", Default: "0", Low: 0, High: 1, About: "share of the old β that a step keeps (Megatron-LM: 0; elsewhere called damping, 1 − ema)"},
		{Name: "midpoint", Default: "false", Options: []string{"false", "true"},
			About: "α and β in the middle of the values that solve the dual, not at their lower ends, where small batches can stall"},
		{Name: "iterations", Default: "1", Whole: true, Low: 1, High: 1000, About: "sweeps of α and β over the same step"},
		{Name: "bins", Default: "1000", Whole: true, Low: 2, High: 1e6, About: "bins per expert for estimate=histogram (Kimi K3: 1000)"},
		scoreKnob,
	},
	Needs:   "the scores of all experts, and order statistics of columns of T of them",
	Changes: "which experts",
	Fails:   "carries each batch's own noise into the next, and where a step is few sequences that is much: more choices change from step to step than under slow rules (ema trades that for speed); on small batches the published order statistics can stall away from balance (midpoint does not); a mean of shards' quantiles is another quantity than the quantile",
	Paper:   "Quantile balancing (Su, February 2026, kexue.fm 11619); Megatron-LM quantile_balancing; Kimi K3 (2026)",
	Read:    "the author's blog, Megatron-LM's code; Kimi K3: notes",
	Build: func(v Values, l moe.Layer) (*strategy, error) {
		score, warnings, err := v.score(l)
		if err != nil {
			return nil, err
		}
		c := newQuantile(l, true)
		c.estimate, c.keep, c.midpoint = v.Text("estimate"), v.Number("ema"), v.On("midpoint")
		c.iterations, c.bins = v.Whole("iterations"), v.Whole("bins")
		if c.estimate == estimateHistogram {
			if c.midpoint {
				return nil, fmt.Errorf("midpoint=true is finer than estimate=histogram can see: use estimate=exact, or midpoint=false")
			}
			warnings = append(warnings, unitWarnings(score)...)
		}
		var choose selection = topK{l}
		if v.Text("on") == "logits" {
			if c.of = score; score == moe.Stored {
				return nil, fmt.Errorf("on=logits needs logits, and this stream carries scores, which are used as they are: say on=scores")
			}
			if c.estimate == estimateHistogram {
				return nil, fmt.Errorf("on=logits leaves the range of estimate=histogram, whose bins are for scores in [0, 1]: use estimate=exact or micro-batch")
			}
			choose = byLogits{topK{l}, score}
		}
		return compose(&strategy{layer: l, score: score, selection: choose, bias: c.b, controllers: []controller{c},
			traits: moe.Traits{Causal: true, Warnings: append(warnings, quantileWarnings(l)...)}}), nil
	},
}

// byLogits chooses by a = z + b in place of s + b.
type byLogits struct {
	topK
	of moe.Score
}

func (k byLogits) choose(t *moe.Tile, s, bias []float32, w *moe.Scratch, mask []uint64) {
	k.of.Logits(w.Adjusted, s, len(mask))
	k.topK.choose(t, w.Adjusted, bias, w, mask)
}

// quantileWarnings says for which layers quantile balancing was not meant.
func quantileWarnings(l moe.Layer) (w []string) {
	if l.Limited() {
		w = append(w, "α ignores the group limit, so quantiles count tokens that the limit keeps from an expert and balance suffers (Megatron-LM refuses groups)")
	}
	if l.TopK == l.Experts {
		w = append(w, "topk is experts: every token goes everywhere, and there is nothing to balance")
	}
	return w
}

// unitWarnings says which scores leave the range that bins were made for.
func unitWarnings(score moe.Score) (w []string) {
	if score == moe.SqrtSoftplus || score == moe.Stored {
		w = append(w, fmt.Sprintf("its bins suppose scores in [0, 1], which %s scores may leave: what lies outside counts at the ends", score))
	}
	return w
}
