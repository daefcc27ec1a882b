package plots

import (
	"cmp"
	"math"
	"slices"

	"evenkeel/sim"
	"gonum.org/v1/plot"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

const loadHeatmapTitle = "Load of every expert over the run"

// hasLoads reports whether any strategy has loads of the experts over the steps.
func hasLoads(r *sim.Result) bool {
	return slices.ContainsFunc(r.Strategies, func(s *sim.StrategyResult) bool { return len(loadShots(r, s)) > 0 })
}

// LoadHeatmap draws the relative load of every expert over the steps, one panel for each strategy, with one colour scale.
func LoadHeatmap(r *sim.Result, scenario string) (Picture, error) {
	if !hasLoads(r) {
		return Picture{}, ErrNothing
	}
	order, by := expertOrder(r)
	low, high, unit := shotRange(r)
	var panels []panel
	bounds := ""
	for _, s := range r.Strategies {
		shots := loadShots(r, s)
		if len(shots) == 0 {
			continue
		}
		if s.Traits.Bound {
			bounds = specOf(s) + " is even by construction and not drawn."
			continue
		}
		p := newPlot("step", "expert, by rank")
		p.Add(heat{
			columns: columnSpans(shots, max(unit, (high-low)/100)),
			rows:    len(order),
			load:    func(column, row int) float64 { return float64(shots[column].Load[order[row]]) },
		})
		p.X.Min, p.X.Max = low, high
		p.X.Tick.Marker = roundTicks{Count: 4, Whole: true}
		p.Y.Tick.Marker = rankTicks(len(order))
		panels = append(panels, panel{heading(s, ""), p})
	}
	const width = pageWidth - 2*margin
	g := newPanelGrid(panels, gridColumns(len(panels)), width-colorBarSpace, heatHeight(len(order), len(panels)), true)
	g.events = layEvents(r.Facts.Events, low, high, g.panelWidth(), 2)
	return sheet{
		title: loadHeatmapTitle,
		caption: caption(r, scenario, "Loads are of single steps, over all T tokens.", firstSeed(r),
			"In all panels experts are in the order of their mean load under "+by+", highest on top.", bounds, g.events.legend),
		height: g.height(),
		body: func(c draw.Canvas) {
			g.draw(draw.Crop(c, 0, -colorBarSpace, 0, 0))
			drawLoadBar(c, scaleLabel)
		},
	}.picture(), nil
}

// firstRun is a strategy's run on the first seed, or nil.
func firstRun(s *sim.StrategyResult) *sim.Run {
	if len(s.Runs) == 0 {
		return nil
	}
	return s.Runs[0]
}

// loadShots are the shots of a strategy's first run that carry loads, in order.
func loadShots(r *sim.Result, s *sim.StrategyResult) []sim.Shot {
	return shotsWith(s, func(x sim.Shot) bool { return len(x.Load) == r.Layer.Experts && len(x.Load) > 0 })
}

func shotsWith(s *sim.StrategyResult, has func(sim.Shot) bool) []sim.Shot {
	run := firstRun(s)
	if run == nil {
		return nil
	}
	shots := slices.DeleteFunc(slices.Clone(run.Shots), func(x sim.Shot) bool { return !has(x) })
	slices.SortStableFunc(shots, func(a, b sim.Shot) int { return a.Step - b.Step })
	return shots
}

// expertOrder sorts the experts by their mean load under the first strategy that has loads, highest first, and returns the
// spec of that strategy too.
func expertOrder(r *sim.Result) (order []int, by string) {
	order = make([]int, r.Layer.Experts)
	for e := range order {
		order[e] = e
	}
	for _, s := range r.Strategies {
		shots := loadShots(r, s)
		if len(shots) == 0 {
			continue
		}
		total := make([]float64, r.Layer.Experts)
		for _, x := range shots {
			for e, load := range x.Load {
				if v := float64(load); !math.IsNaN(v) {
					total[e] += v
				}
			}
		}
		slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(total[b], total[a]) })
		return order, specOf(s)
	}
	return order, ""
}

// shotRange is the range of steps that the shots of all strategies cover, and the least distance between two of them.
func shotRange(r *sim.Result) (low, high, unit float64) {
	low, high, unit = math.Inf(1), math.Inf(-1), math.Inf(1)
	for _, s := range r.Strategies {
		shots := loadShots(r, s)
		for i, x := range shots {
			low, high = min(low, float64(x.Step)), max(high, float64(x.Step))
			if i > 0 && x.Step > shots[i-1].Step {
				unit = min(unit, float64(x.Step-shots[i-1].Step))
			}
		}
	}
	if math.IsInf(unit, 1) {
		unit = 1
	}
	return low - unit/2, high + unit/2, unit
}

// columnSpans gives every shot the steps up to half way to its neighbours, but no more than widest on either side: where
// shots are rare the picture must not pretend to know what lay between.
func columnSpans(shots []sim.Shot, widest float64) []span {
	spans := make([]span, len(shots))
	for i, x := range shots {
		before, after := widest/2, widest/2
		if i > 0 {
			before = min(widest, float64(x.Step-shots[i-1].Step)/2)
		}
		if i+1 < len(shots) {
			after = min(widest, float64(shots[i+1].Step-x.Step)/2)
		}
		spans[i] = span{float64(x.Step) - before, float64(x.Step) + after}
	}
	return spans
}

// rankTicks marks the first, the middle and the last of n ranks, the first at the top.
func rankTicks(n int) plot.ConstantTicks {
	var ticks plot.ConstantTicks
	for _, rank := range slices.Compact([]int{1, (n + 1) / 2, n}) {
		ticks = append(ticks, plot.Tick{Value: float64(n-rank) + 0.5, Label: count(rank)})
	}
	return ticks
}

// heatHeight is the height of a panel of that many rows: more for many, and more where the panel stands alone.
func heatHeight(rows, panels int) vg.Length {
	least, most := vg.Length(110), vg.Length(200)
	if panels <= 2 {
		least, most = 200, 300
	}
	return max(least, min(most, vg.Length(rows)*2))
}
