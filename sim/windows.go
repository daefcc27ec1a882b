package sim

import (
	"math"

	"evenkeel/moe"
)

// finish adds the metrics that the steps of a run show: means over the last quarter, and times to settle and recover.
func (x *contestant) finish(c *Config) {
	v, rows := x.run.Values, x.run.Steps
	from := c.Steps - window(c.Steps)
	v["maxvio_batch"] = meanOf(rows, from, func(r *StepRow) float64 { return r.MaxVio })
	if c.Facts.Sequences {
		v["maxvio_sequence"] = meanOf(rows, from, func(r *StepRow) float64 { return r.MaxVioSequence })
	}
	if x.traits.Drops {
		v["drop_rate"] = meanOf(rows, from, func(r *StepRow) float64 { return r.DropRate })
	}
	if bias := x.strategy.Bias(); bias != nil {
		v["bias_spread"], v["bias_mean"] = spread(bias)
		x.run.biasMoved = largest(bias, x.start)
	}
	if x.traits.Oracle {
		return
	}
	if x.probe.all > 0 {
		v["churn"] = float64(x.probe.changed) / float64(x.probe.all)
	}
	if x.errors.all > 0 {
		v["oscillation"] = float64(x.errors.flips) / float64(x.errors.all)
	}
	if s, ok := settled(rows); ok {
		v["settled_step"] = float64(s)
	}
	x.run.Recoveries = recoveries(rows, c.Facts.Events)
	if s, ok := recovery(x.run.Recoveries); ok {
		v["recovery_steps"] = s
	}
}

// largest returns max |b − start|.
func largest(b, start []float32) float64 {
	var m float64
	for e, v := range b {
		m = max(m, math.Abs(float64(v)-float64(start[e])))
	}
	return m
}

// meanOf is the mean of a field over the rows from a step on.
func meanOf(rows []StepRow, from int, field func(*StepRow) float64) float64 {
	sum, n := 0.0, 0
	for i := range rows {
		if rows[i].Step >= from {
			sum += field(&rows[i])
			n++
		}
	}
	return sum / float64(n)
}

// settled returns how many rows pass until the running mean of the batch's MaxVio (factor 0.9) stays to the end at or
// below 1.5 times the mean of its last quarter. It is not ok if the halves of that quarter differ by more than 20 %: then
// nothing has settled.
func settled(rows []StepRow) (int, bool) {
	n := len(rows)
	if n < 8 {
		return 0, false
	}
	quarter := rows[n-n/4:]
	field := func(r *StepRow) float64 { return r.MaxVio }
	half := len(quarter) / 2
	first, second := meanOf(quarter[:half], 0, field), meanOf(quarter[half:], 0, field)
	mean := meanOf(quarter, 0, field)
	if math.Abs(first-second) > 0.2*mean {
		return 0, false
	}
	at, running := 0, rows[0].MaxVio
	for i := range rows {
		if i > 0 {
			running = float64(0.9*running) + float64(0.1*rows[i].MaxVio)
		}
		if running > 1.5*mean {
			at = i + 1
		}
	}
	return at, at < n
}

// recoveries are the times to settle between each event and the next one, in the order of their steps; NaN is of one after
// which nothing settled. Events at one step count once, and those at the beginning are none.
func recoveries(rows []StepRow, events []moe.Mark) (all []float64) {
	for i, span := range eventSpans(events, len(rows)) {
		all = append(all, math.NaN())
		if s, ok := settled(rows[span.From:span.To]); ok {
			all[i] = float64(s)
		}
	}
	return all
}

// eventSpans are the steps from each event to the next one, or to the end.
func eventSpans(events []moe.Mark, steps int) (spans []moe.Span) {
	for i, e := range events {
		to := steps
		if i+1 < len(events) {
			to = min(to, events[i+1].Step)
		}
		if e.Step >= 1 && e.Step < to {
			spans = append(spans, moe.Span{From: e.Step, To: to})
		}
	}
	return spans
}

// recovery is the mean over all events, if each was followed by settling.
func recovery(all []float64) (float64, bool) {
	sum := 0.0
	for _, s := range all {
		sum += s
	}
	mean := sum / float64(len(all))
	return mean, !math.IsNaN(mean)
}
