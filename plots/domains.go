package plots

import (
	"fmt"
	"math"
	"slices"

	"evenkeel/sim"
	"gonum.org/v1/plot"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

const domainsTitle = "Who serves what: load of every expert on the tokens of each domain"

// hasDomains reports whether any strategy has its loads by domain.
func hasDomains(r *sim.Result) bool {
	return slices.ContainsFunc(r.Strategies, func(s *sim.StrategyResult) bool { return len(domainLoads(r, s)) > 0 })
}

// Domains draws the relative load of every expert on the tokens of each domain, one panel for each strategy, with one colour
// scale.
func Domains(r *sim.Result, scenario string) (Picture, error) {
	if !hasDomains(r) {
		return Picture{}, ErrNothing
	}
	order, by := expertOrder(r)
	rows := 0
	for _, s := range r.Strategies {
		rows = max(rows, len(domainLoads(r, s)))
	}
	var panels []panel
	for _, s := range r.Strategies {
		loads := domainLoads(r, s)
		if len(loads) == 0 {
			continue
		}
		p := newPlot("expert, by rank", "")
		p.Add(heat{
			columns: rankSpans(len(order)),
			rows:    rows,
			load: func(column, row int) float64 {
				if row >= len(loads) || len(loads[row]) != len(order) {
					return math.NaN()
				}
				return loads[row][order[column]]
			},
		})
		p.X.Tick.Marker = rankAxis(len(order))
		p.Y.Tick.Marker = domainTicks(r.Facts.Domains, rows)
		panels = append(panels, panel{heading(s, ""), p})
	}
	const width = pageWidth - 2*margin
	columns := min(len(panels), 2)
	g := newPanelGrid(panels, columns, width-colorBarSpace, max(60, min(260, vg.Length(rows)*17)), true)
	sorted := ""
	if by != "" {
		sorted = "In all panels experts are in the order of their mean load over the run under " + by + ", highest on the left."
	}
	hatched := ""
	if slices.ContainsFunc(r.Strategies, func(s *sim.StrategyResult) bool { return missingLoads(r, s, rows) }) {
		hatched = "Hatched: no tokens."
	}
	return sheet{
		title: domainsTitle,
		caption: caption(r, scenario, "Within a domain the mean of r is 1; "+evaluation(r)+".", firstSeed(r), sorted,
			hatched),
		height: max(g.height(), 210),
		body: func(c draw.Canvas) {
			g.draw(draw.Crop(c, 0, -colorBarSpace, c.Size().Y-g.height(), 0))
			drawLoadBar(c, scaleLabel)
		},
	}.picture(), nil
}

// domainLoads are the loads by domain of a strategy's first run.
func domainLoads(r *sim.Result, s *sim.StrategyResult) [][]float64 {
	run := firstRun(s)
	if run == nil || !slices.ContainsFunc(run.Domains, func(d []float64) bool { return len(d) == r.Layer.Experts && len(d) > 0 }) {
		return nil
	}
	return run.Domains
}

// missingLoads reports whether a strategy that has loads by domain lacks some of them.
func missingLoads(r *sim.Result, s *sim.StrategyResult, rows int) bool {
	loads := domainLoads(r, s)
	return len(loads) > 0 && (len(loads) < rows || slices.ContainsFunc(loads, func(d []float64) bool {
		return len(d) != r.Layer.Experts || slices.ContainsFunc(d, math.IsNaN)
	}))
}

// rankSpans are n columns of one expert each.
func rankSpans(n int) []span {
	spans := make([]span, n)
	for i := range spans {
		spans[i] = span{float64(i), float64(i + 1)}
	}
	return spans
}

// rankAxis marks the first, the middle and the last of n ranks from left to right.
func rankAxis(n int) plot.ConstantTicks {
	ticks := slices.Clone(rankTicks(n))
	for i := range ticks {
		ticks[i].Value = float64(n) - ticks[i].Value
	}
	return ticks
}

// domainTicks names the rows, every so many where there is no room for all.
func domainTicks(names []string, rows int) plot.ConstantTicks {
	const widest, roomFor = 90, 20
	every := (rows + roomFor - 1) / roomFor
	var ticks plot.ConstantTicks
	for row := 0; row < rows; row += every {
		name := fmt.Sprintf("domain %d", row)
		if row < len(names) {
			name = shorten(oneLine(names[row]), tickText, widest)
		}
		ticks = append(ticks, plot.Tick{Value: float64(rows-row) - 0.5, Label: name})
	}
	return ticks
}
