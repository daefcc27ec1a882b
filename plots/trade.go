package plots

import (
	"math"

	"evenkeel/sim"
	"gonum.org/v1/plot/plotter"
)

// trade is what one strategy gives for what.
type trade struct {
	label              string
	spec, family, zero string
	look               look
	bound              bool
	x, y               measured // global MaxVio; affinity lost in percent
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
	if s.Traits.Varies {
		return t, false // the affinity of more experts, or of fewer, is no quality to compare
	}
	if t.bound && !hasX {
		t.x, hasX = measured{0, math.NaN(), math.NaN()}, true
	}
	if t.x.mean < exactlyEven {
		t.x = measured{0, math.NaN(), math.NaN()}
		t.label = heading(s, "MaxVio 0")
	}
	return t, hasX && hasY && drawable(t.x.mean, false) && drawable(t.y.mean, false)
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
