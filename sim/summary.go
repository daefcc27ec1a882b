package sim

import (
	"cmp"
	"fmt"
	"math"
	"slices"

	"evenkeel/internal/vec"
	"evenkeel/metrics"
	"evenkeel/moe"
)

// MetricKeys lists the metrics in the order of reports. A metric that does not apply to a strategy is absent.
func MetricKeys() []string {
	return []string{
		"maxvio_batch", "maxvio_global", "maxvio_useful", "maxvio_sequence", "maxvio_device", "load_variance", "load_cv", "load_entropy",
		"load_gini", "load_jain", "load_min", "experts_dead", "experts_starved", "task_loss", "affinity_kept", "affinity_total",
		"choice_agreement", "output_error", "rank_displacement", "regret_to_optimum", "gate_sum", "score_chosen", "drop_rate",
		"experts_per_token", "tokens_unserved", "settled_step",
		"recovery_steps", "churn", "oscillation", "bias_spread", "bias_mean", "domain_information",
	}
}

// summarise turns the runs of the seeds that finished into a result.
func summarise(c *Config, traits []moe.Traits, runs [][]*Run) *Result {
	r := &Result{Layer: c.Layer, Facts: c.Facts, Steps: c.Steps, Tokens: c.Tokens, MicroBatches: c.MicroBatches,
		Ranks: c.Ranks, Router: c.Router.Mode, ExpertsLearn: c.Experts.Learn}
	for i := range traits {
		s := &StrategyResult{Traits: traits[i], Learned: c.Router.Mode, Notes: slices.Clone(traits[i].Notes), Warnings: slices.Clone(traits[i].Warnings), Metrics: map[string]Estimate{}}
		switch {
		case c.Router.Mode == Frozen || traits[i].Oracle:
			s.Learned = "nothing"
		case c.Router.Mode == Learned:
			s.Learned = "router"
		}
		for _, seed := range runs {
			if seed != nil {
				s.Runs = append(s.Runs, seed[i])
			}
		}
		r.Strategies = append(r.Strategies, s)
	}
	for i, seed := range c.Seeds {
		if runs[i] != nil {
			r.Seeds = append(r.Seeds, seed)
		}
	}
	if r.Incomplete = len(r.Seeds) < len(c.Seeds); len(r.Seeds) == 0 {
		return r
	}
	first := c.layout(r.Seeds[0])
	if r.MicroBatches = len(first.MicroBatches); r.MicroBatches < c.MicroBatches {
		r.Warnings = append(r.Warnings, fmt.Sprintf("a step has %d micro-batches, not %d: they are whole sequences, and there are only %d", r.MicroBatches, c.MicroBatches, len(first.Sequences)))
	}
	r.Evaluation = c.Stream(r.Seeds[0]).Evaluation()
	floors := floorsOf(c, r.Evaluation)
	for _, s := range r.Strategies {
		s.estimate(floors)
		s.recoveries(c)
		s.warn(c)
	}
	if r.Router == Offsets {
		r.Warnings = append(r.Warnings, "the stream has no latent vectors, so a router learns one offset per expert only: a loss can shift popularity and nothing else")
	}
	normalised := slices.ContainsFunc(r.Strategies, func(s *StrategyResult) bool { return s.Traits.Gate.Normalised && s.Learned != "nothing" })
	unlike := "the score as a share of the oracle's best"
	if c.Experts.Learn {
		unlike = "the score itself as the gate"
	}
	if c.Layer.TopK == 1 && normalised {
		r.Warnings = append(r.Warnings, "K is 1, where a normalised gate is 1 whatever the logits: a real router would get no gradient from its task (Megatron-LM forbids it after softmax), and the task here takes "+unlike+" instead")
	}
	r.Warnings = append(r.Warnings, c.Facts.Notes...)
	r.differences()
	if !r.ExpertsLearn {
		r.compare()
	}
	return r
}

// Join returns the result with the strategies of both, which must have run on the same tokens and seeds, and without
// comparisons of pairs.
func (r *Result) Join(more *Result) *Result {
	j := *r
	j.Strategies = append(slices.Clone(r.Strategies), more.Strategies...)
	j.Differences, j.Comparisons, j.Incomparable, j.Warnings = nil, nil, nil, slices.Clone(r.Warnings)
	for _, w := range more.Warnings {
		if !slices.Contains(j.Warnings, w) {
			j.Warnings = append(j.Warnings, w)
		}
	}
	return &j
}

// estimate fills the metrics from the runs.
func (s *StrategyResult) estimate(floors map[string]float64) {
	for _, key := range MetricKeys() {
		values, ok := s.values(key)
		if len(values) == 0 {
			continue
		}
		if !ok {
			s.Notes = append(s.Notes, settledNote(key, len(values), len(s.Runs)))
		}
		e := Estimate{}
		e.Mean, e.Low, e.High = metrics.MeanInterval(values)
		if f, ok := floors[key]; ok && !s.Traits.Varies {
			e.Floor = &f
		}
		if math.IsNaN(e.Mean) || math.IsInf(e.Mean, 0) {
			s.Warnings = append(s.Warnings, key+" is not finite")
		}
		s.Metrics[key] = e
	}
}

// settledNote says of how many seeds a mean is, where that is not all of them.
func settledNote(key string, of, all int) string {
	if of == 1 {
		return fmt.Sprintf("%s is that of the one seed of %d that has one: the others had not settled", key, all)
	}
	return fmt.Sprintf("%s is the mean of the %d seeds of %d that have one: the others had not settled", key, of, all)
}

// recoveries fills the recoveries from the runs.
func (s *StrategyResult) recoveries(c *Config) {
	if s.Traits.Oracle {
		return
	}
	for i, span := range eventSpans(c.Facts.Events, c.Steps) {
		at := slices.IndexFunc(c.Facts.Events, func(m moe.Mark) bool { return m.Step == span.From })
		r := Recovery{Event: c.Facts.Events[at]}
		var settled []float64
		for _, run := range s.Runs {
			if i < len(run.Recoveries) && !math.IsNaN(run.Recoveries[i]) {
				settled = append(settled, run.Recoveries[i])
			}
		}
		if r.Settled = len(settled); r.Settled > 0 {
			r.Steps.Mean, r.Steps.Low, r.Steps.High = metrics.MeanInterval(settled)
		}
		s.Recoveries = append(s.Recoveries, r)
	}
}

// values returns a metric of the seeds that have it, and whether that is every one.
func (s *StrategyResult) values(key string) (x []float64, all bool) {
	for _, run := range s.Runs {
		if v, ok := run.Values[key]; ok {
			x = append(x, v)
		}
	}
	return x, len(x) > 0 && len(x) == len(s.Runs)
}

// warn says when a run was too short for a bias that moves in steps to arrive.
func (s *StrategyResult) warn(c *Config) {
	if u := s.Traits.Until; c.Steps < u {
		s.Warnings = append(s.Warnings, fmt.Sprintf("its schedule is over at step %d, and the run ends at %d, so that it is evaluated on the way: run more steps, or shorten the schedule", u, c.Steps))
	}
	if s.Traits.Rate == 0 {
		return
	}
	var b float64
	for _, run := range s.Runs {
		b = max(b, run.biasMoved)
	}
	need := 2 * b / s.Traits.Rate
	switch way := s.Traits.Travel; {
	case way > 0 && b > way/2:
		s.Warnings = append(s.Warnings, fmt.Sprintf("its bias moved by %.3g of the %.3g that its schedule and stop allow in all, and may have been halted on the way: a later stop, a longer schedule or a larger rate would tell", b, way))
	case float64(c.Steps) < need:
		s.Warnings = append(s.Warnings, fmt.Sprintf("%d steps are short for a bias that moved by %.3g in steps of %.4g: run at least %.0f", c.Steps, b, s.Traits.Rate, math.Ceil(need)))
	}
}

// floorsOf returns what sampling noise alone gives for each metric that has such a floor.
func floorsOf(c *Config, evaluation int) map[string]float64 {
	e, k := c.Layer.Experts, c.Layer.TopK
	g := metrics.SamplingFloor(e, k, evaluation)
	f := map[string]float64{
		"maxvio_batch": metrics.SamplingFloor(e, k, c.Tokens).MaxVio, "maxvio_global": g.MaxVio,
		"load_variance": g.Variance, "load_cv": g.CV, "load_entropy": g.Entropy, "load_gini": g.Gini, "load_jain": g.Jain,
		"load_min": g.Min, "experts_dead": g.Dead, "experts_starved": g.Starved,
	}
	if c.Layer.Groups > 1 {
		f["maxvio_device"] = metrics.LimitedDeviceFloor(e, k, c.Layer.Groups, max(1, c.Layer.GroupsKept), evaluation)
	}
	if d := len(c.Facts.Domains); d > 1 {
		f["domain_information"] = metrics.DomainInformationFloor(e, k, d, evaluation)
	}
	if c.Facts.Sequences {
		b := moe.NewBatch(c.Layer, c.places())
		c.Stream(c.Seeds[0]).Layout(b, moe.Moment{Step: c.Steps - 1, Purpose: moe.Train, Index: c.Steps - 1})
		var lengths []int
		for _, s := range b.Sequences {
			lengths = append(lengths, s.Len())
		}
		f["maxvio_sequence"] = metrics.SequenceFloor(e, k, lengths)
	}
	return f
}

// differences fills in the paired differences of all pairs, first named minus later named.
func (r *Result) differences() {
	for i, a := range r.Strategies {
		for _, b := range r.Strategies[i+1:] {
			for _, key := range MetricKeys() {
				x, okA := a.values(key)
				y, okB := b.values(key)
				if !okA || !okB {
					continue
				}
				d := Difference{A: a.Traits.Spec, B: b.Traits.Spec, Metric: key}
				d.Mean, d.Low, d.High = metrics.PairedInterval(x, y)
				r.Differences = append(r.Differences, d)
			}
		}
	}
}

// compare fills in the comparisons at equal quality: every causal strategy against every family of another that was run at
// several strengths, where its kept affinity lies within theirs for every seed. What the family is at strength 0 belongs to
// it: the curve of a loss begins at none.
func (r *Result) compare() {
	var names []string
	for _, s := range r.Strategies {
		if !slices.Contains(names, s.Traits.Family) && s.Traits.Causal {
			names = append(names, s.Traits.Family)
		}
	}
	for _, name := range names {
		family := r.Family(name)
		if len(family) < 2 {
			continue
		}
		for _, s := range r.Strategies {
			if slices.Contains(family, s) || !s.Traits.Causal || s.Traits.Varies || family[0].Traits.Varies {
				continue // the affinity of more experts, or of fewer, is no measure of quality
			}
			if c, ok := AtEqualQuality(s, family); ok {
				r.Comparisons = append(r.Comparisons, c)
			} else if weakest := keptLeast(family); (s.Traits.Loss || s.Traits.Rate > 0) && s.Metrics["affinity_kept"].Mean < weakest.Metrics["affinity_kept"].Mean {
				r.Incomparable = append(r.Incomparable, fmt.Sprintf("%s keeps less affinity than %s, so %s cannot be compared with it at equal quality: add it at a greater strength",
					s.Traits.Spec, weakest.Traits.Spec, name))
			}
		}
	}
}

// keptLeast returns the strategy that keeps the least affinity.
func keptLeast(family []*StrategyResult) *StrategyResult {
	return slices.MinFunc(family, func(a, b *StrategyResult) int {
		return cmp.Compare(a.Metrics["affinity_kept"].Mean, b.Metrics["affinity_kept"].Mean)
	})
}

// Family returns the strategies that differ from each other in strength alone, strength 0 included.
func (r *Result) Family(name string) (family []*StrategyResult) {
	for _, s := range r.Strategies {
		if s.Traits.Family == name {
			family = append(family, s)
		}
	}
	if len(family) == 0 || family[0].Traits.Zero == "" {
		return family
	}
	for _, s := range r.Strategies {
		if s.Traits.Spec == family[0].Traits.Zero {
			family = append(family, s)
		}
	}
	return family
}

// AtEqualQuality compares a strategy with a family of one strategy at several strengths, seed by seed. It is not ok where
// the affinity that the strategy keeps lies outside the family's for some seed, or a MaxVio is 0 and has no logarithm.
func AtEqualQuality(s *StrategyResult, family []*StrategyResult) (EqualQuality, bool) {
	c := EqualQuality{Strategy: s.Traits.Spec, Family: family[0].Traits.Family}
	if last := family[len(family)-1].Traits; last.Family != c.Family {
		c.Zero = last.Spec
	}
	var ratios []float64
	var own, curve float64
	for i, run := range s.Runs {
		kept, vio := run.Values["affinity_kept"], run.Values["maxvio_global"]
		on, ok := interpolate(family, i, kept)
		if !ok || vio <= 0 {
			return c, false
		}
		vio = vec.Log64(vio)
		ratios = append(ratios, vio-on)
		own += vio
		curve += on
		c.Kept += kept / float64(len(s.Runs))
	}
	n := float64(len(s.Runs))
	c.MaxVio, c.OnCurve = vec.Exp64(own/n), vec.Exp64(curve/n)
	c.LogRatio, c.Low, c.High = metrics.MeanInterval(ratios)
	return c, true
}

// interpolate returns the logarithm of the family's global MaxVio on one seed at a kept affinity.
func interpolate(family []*StrategyResult, seed int, kept float64) (float64, bool) {
	type point struct{ kept, vio float64 }
	var curve []point
	for _, f := range family {
		v := f.Runs[seed].Values
		if v["maxvio_global"] <= 0 {
			return 0, false
		}
		curve = append(curve, point{v["affinity_kept"], vec.Log64(v["maxvio_global"])})
	}
	slices.SortFunc(curve, func(a, b point) int {
		switch {
		case a.kept < b.kept:
			return -1
		case a.kept > b.kept:
			return 1
		}
		return 0
	})
	for i := 1; i < len(curve); i++ {
		a, b := curve[i-1], curve[i]
		if kept < a.kept || kept > b.kept || a.kept == b.kept {
			continue
		}
		w := (kept - a.kept) / (b.kept - a.kept)
		return a.vio + float64(w*(b.vio-a.vio)), true
	}
	return 0, false
}

// LargerIsBetter says of a metric whether more or less of it is better; known is false where neither is as such.
func LargerIsBetter(key string) (larger, known bool) {
	switch key {
	case "affinity_kept", "affinity_total", "choice_agreement", "load_entropy", "load_jain", "load_min":
		return true, true
	case "gate_sum", "score_chosen", "experts_per_token", "bias_spread", "bias_mean", "domain_information":
		return false, false
	}
	return false, true
}
