package plots

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"evenkeel/sim"
	"gonum.org/v1/plot/plotter"
)

// trade is what one strategy gives for what.
type trade struct {
	label              string
	spec, family, zero string
	look               look
	bound              bool
	below              bool     // its MaxVio is less than 0, where it is drawn
	x, y               measured // global MaxVio; quality lost
}

// quality is what a trade gives for balance.
type quality struct {
	title, axis string
	least       float64 // the height of an empty axis
	zero        bool    // the axis begins at 0
}

// qualityOf returns how the result measures quality.
func qualityOf(r *sim.Result) quality {
	if r.ExpertsLearn {
		return quality{"task loss", "task loss minus that of " + oneLine(r.Strategies[0].Traits.Spec) + ", paired by seed", 0.002, false}
	}
	return quality{"affinity lost", "affinity lost, % of the oracle's", 0.05, true}
}

// measured is a mean with its interval, which is NaN where there is none.
type measured struct{ mean, low, high float64 }

func (m measured) ranged() bool { return !math.IsNaN(m.low) && !math.IsNaN(m.high) }

// tradesOf returns the trades of all strategies that have both figures.
func tradesOf(r *sim.Result) []trade {
	var trades []trade
	for i, s := range r.Strategies {
		if t, ok := tradeOf(s); ok {
			t.look = lookOf(i)
			if r.ExpertsLearn {
				t.y = beyondFirst(r, i)
			}
			trades = append(trades, t)
		}
	}
	return trades
}

func tradeOf(s *sim.StrategyResult) (trade, bool) {
	x, hasX := s.Metrics["maxvio_global"]
	y, hasY := s.Metrics["affinity_kept"]
	t := trade{spec: s.Traits.Spec, family: s.Traits.Family, zero: s.Traits.Zero, label: heading(s, ""), bound: s.Traits.Bound, x: measuredOf(x)}
	kept := measuredOf(y)
	t.y = measured{100 * (1 - kept.mean), 100 * (1 - kept.high), 100 * (1 - kept.low)}
	if loss, ok := s.Metrics["task_loss"]; ok {
		t.y, hasY = measuredOf(loss), true
	}
	if s.Traits.Varies {
		return t, false // the affinity of more experts, or of fewer, is no quality to compare
	}
	if t.bound && !hasX {
		t.x, hasX = measured{0, math.NaN(), math.NaN()}, true
	}
	if t.x.mean < exactlyEven {
		remark := "MaxVio 0"
		if t.below = t.x.mean <= -exactlyEven; t.below {
			remark = fmt.Sprintf("MaxVio −%.2g", -t.x.mean)
		}
		t.x = measured{0, math.NaN(), math.NaN()}
		t.label = heading(s, remark)
	}
	return t, hasX && hasY && drawable(t.x.mean, false) && drawable(t.y.mean, false)
}

// beyondFirst is the task loss of a strategy minus that of the first one. Seeds differ more in how hard their task is than
// strategies do in how well they learn it, so only the paired difference has an interval worth drawing.
func beyondFirst(r *sim.Result, i int) measured {
	m := measured{0, math.NaN(), math.NaN()}
	for _, d := range r.Differences {
		if d.Metric == "task_loss" && d.A == r.Strategies[0].Traits.Spec && d.B == r.Strategies[i].Traits.Spec {
			m.mean = -d.Mean
			if d.Low != nil {
				m.low, m.high = -*d.High, -*d.Low
			}
		}
	}
	return m
}

// tradeGaps are sentences on what is not drawn, or not where it belongs.
func tradeGaps(trades []trade, absent []string) (notes []string) {
	if slices.ContainsFunc(trades, func(t trade) bool { return t.below }) {
		notes = append(notes, "A MaxVio below 0, which a capacity below the even share gives, is drawn at 0.")
	}
	if len(absent) > 0 {
		notes = append(notes, "Not drawn, because not measured or with another number of experts per token than K: "+strings.Join(absent, ", ")+".")
	}
	return notes
}

// exactlyEven is the MaxVio below which a strategy is drawn at 0.
const exactlyEven = 1e-3

func measuredOf(e sim.Estimate) measured {
	m := measured{e.Mean, math.NaN(), math.NaN()}
	if e.Low != nil && e.High != nil && drawable(*e.Low, false) && drawable(*e.High, false) {
		m.low, m.high = *e.Low, *e.High
	}
	return m
}

// families are the lines through strategies that differ in strength alone, from strength 0 where that is drawn too.
func families(trades []trade) []plotter.XYs {
	var lines []plotter.XYs
	done := map[string]bool{}
	for _, t := range trades {
		if done[t.family] {
			continue
		}
		done[t.family] = true
		var line plotter.XYs
		for _, u := range trades {
			if u.spec == t.zero && t.zero != "" {
				line = append(line, plotter.XY{X: u.x.mean, Y: u.y.mean})
			}
		}
		for _, u := range trades {
			if u.family == t.family && !u.bound {
				line = append(line, plotter.XY{X: u.x.mean, Y: u.y.mean})
			}
		}
		if len(line) > 1 {
			lines = append(lines, line)
		}
	}
	return lines
}
