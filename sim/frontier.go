package sim

import (
	"cmp"
	"math"
	"slices"

	"evenkeel/internal/vec"
	"evenkeel/metrics"
)

// Curve is one strategy at several strengths, all else the same: what it can trade balance for. A strategy without a
// strength is a curve of one point.
type Curve struct {
	Family string            // spec without the strength
	Points []*StrategyResult // in the order of their strengths, the weakest first
}

// Kind is that of the strategy, not of what it is at strength 0; see [moe.Traits.Kind].
func (c *Curve) Kind() string { return c.Points[len(c.Points)-1].Traits.Kind() }

// place is a point of a curve on one seed: ln MaxVio of the evaluation and a quality there.
type place struct{ vio, quality float64 }

// front is the part of the curve on one seed that a user would choose from: the points that no other beats in both balance
// and quality, the most even first. sign is 1 where more of the metric is better and −1 where less is.
func (c *Curve) front(seed int, metric string, sign float64) []place {
	var all []place
	for _, p := range c.Points {
		v := p.Runs[seed].Values
		all = append(all, place{vec.Log64(max(v["maxvio_global"], exactlyEven)), v[metric]})
	}
	slices.SortFunc(all, func(a, b place) int {
		return cmp.Or(cmp.Compare(a.vio, b.vio), cmp.Compare(sign*b.quality, sign*a.quality))
	})
	var front []place
	for _, p := range all {
		if len(front) == 0 || sign*p.quality > sign*front[len(front)-1].quality {
			front = append(front, p)
		}
	}
	return front
}

// exactlyEven stands for a MaxVio of 0, which has no logarithm.
const exactlyEven = 1e-6

// at is the best quality that a front allows at an imbalance: between two of its points linear in ln MaxVio, and beyond the
// last that one's, since who may be less even need not be. It is not ok where no point is even enough.
func at(front []place, vio float64) (float64, bool) {
	if vio < front[0].vio {
		return 0, false
	}
	for i, p := range front[1:] {
		if q := front[i]; vio < p.vio {
			w := (vio - q.vio) / (p.vio - q.vio)
			return q.quality + float64(w*(p.quality-q.quality)), true
		}
	}
	return front[len(front)-1].quality, true
}

// EqualBalance compares the quality that two curves allow at one imbalance: a − b, paired by seed.
type EqualBalance struct {
	A, B      string  // families
	MaxVio    float64 // global; the geometric mean over seeds where a curve has one point
	Requested bool    // the imbalance is one that the user named
	Apart     bool    // nothing can be compared: see Reached, and Range where the imbalance was not named
	Affinity  Estimate
	Error     Estimate
	Reached   [2]int        // seeds on which A and B are as even as that
	Range     [2][2]float64 // global MaxVio of A and B, from the most to the least even point; the mean over seeds of each end
}

// CompareCurves compares two curves at the imbalances given, or without any at the geometric middle of what both cover on every
// seed. Where a curve has one point, the comparison is at the least imbalance that both reach.
func CompareCurves(a, b *Curve, levels []float64) []EqualBalance {
	seeds := len(a.Points[0].Runs)
	curves := [2]*Curve{a, b}
	base := EqualBalance{A: a.Family, B: b.Family}
	low, high := math.Inf(-1), math.Inf(1)
	for i, c := range curves {
		for seed := range seeds {
			from, to := c.span(seed)
			low, high = max(low, from), min(high, to)
			base.Range[i][0] += vec.Exp64(from) / float64(seeds)
			base.Range[i][1] += vec.Exp64(to) / float64(seeds)
		}
	}
	switch {
	case len(a.Points) == 1 || len(b.Points) == 1:
		base.measure(curves, func(seed int) float64 {
			lowA, _ := a.span(seed)
			lowB, _ := b.span(seed)
			return max(lowA, lowB)
		})
	case len(levels) > 0:
		var list []EqualBalance
		for _, level := range levels {
			e := base
			e.Requested = true
			e.measure(curves, func(int) float64 { return vec.Log64(level) })
			list = append(list, e)
		}
		return list
	case low > high:
		base.Apart = true
	default:
		base.measure(curves, func(int) float64 { return (low + high) / 2 })
	}
	return []EqualBalance{base}
}

// measure fills in the differences at an imbalance, given as ln MaxVio of each seed.
func (e *EqualBalance) measure(curves [2]*Curve, level func(seed int) float64) {
	var affinity, errors [2][]float64
	seeds := len(curves[0].Points[0].Runs)
	sum := 0.0
	for seed := range seeds {
		vio := level(seed)
		sum += vio
		for i, c := range curves {
			kept, ok := at(c.front(seed, "affinity_kept", 1), vio)
			if !ok {
				continue
			}
			e.Reached[i]++
			wrong, _ := at(c.front(seed, "output_error", -1), vio) // begins at the same, most even point
			affinity[i], errors[i] = append(affinity[i], kept), append(errors[i], wrong)
		}
	}
	e.MaxVio = vec.Exp64(sum / float64(seeds))
	if e.Apart = e.Reached != [2]int{seeds, seeds}; e.Apart {
		return
	}
	e.Affinity.Mean, e.Affinity.Low, e.Affinity.High = metrics.PairedInterval(affinity[0], affinity[1])
	e.Error.Mean, e.Error.Low, e.Error.High = metrics.PairedInterval(errors[0], errors[1])
}

// span returns ln MaxVio of the most and the least even point on one seed.
func (c *Curve) span(seed int) (low, high float64) {
	low, high = math.Inf(1), math.Inf(-1)
	for _, p := range c.Points {
		vio := vec.Log64(max(p.Runs[seed].Values["maxvio_global"], exactlyEven))
		low, high = min(low, vio), max(high, vio)
	}
	return low, high
}

// Bends returns the places of the curve where a further point would tell most: indices i of the n segments from point i to
// point i+1 beside which the curve of means turns most, in the plane of ln MaxVio and affinity kept, each scaled to its
// range over the curve. Segments whose ends are alike are left alone.
func (c *Curve) Bends(n int) []int {
	var p []place
	for _, s := range c.Points {
		p = append(p, place{vec.Log64(max(s.Metrics["maxvio_global"].Mean, exactlyEven)), s.Metrics["affinity_kept"].Mean})
	}
	low, high := p[0], p[0]
	for _, q := range p {
		low, high = place{min(low.vio, q.vio), min(low.quality, q.quality)}, place{max(high.vio, q.vio), max(high.quality, q.quality)}
	}
	scaled := func(q place) (x, y float64) {
		return (q.vio - low.vio) / max(high.vio-low.vio, 1e-9), (q.quality - low.quality) / max(high.quality-low.quality, 1e-9)
	}
	length := func(i int) float64 {
		x0, y0 := scaled(p[i])
		x1, y1 := scaled(p[i+1])
		return math.Sqrt(float64((x1-x0)*(x1-x0)) + float64((y1-y0)*(y1-y0)))
	}
	turn := func(i int) float64 { // twice the area of the triangle at an inner point
		if i < 1 || i+1 >= len(p) {
			return 0
		}
		x0, y0 := scaled(p[i-1])
		x1, y1 := scaled(p[i])
		x2, y2 := scaled(p[i+1])
		return math.Abs(float64((x1-x0)*(y2-y0)) - float64((x2-x0)*(y1-y0)))
	}
	var segments []int
	for i := range len(p) - 1 {
		if length(i) > 0.02 {
			segments = append(segments, i)
		}
	}
	weight := func(i int) float64 { return turn(i) + turn(i+1) + float64(0.05*length(i)) }
	slices.SortStableFunc(segments, func(i, j int) int { return cmp.Compare(weight(j), weight(i)) })
	segments = segments[:min(n, len(segments))]
	slices.Sort(segments)
	return segments
}
