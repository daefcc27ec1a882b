package plots

import (
	"cmp"
	"math"
	"slices"

	"gonum.org/v1/plot/vg"
)

// spread moves intervals of the given sizes from where their centres want to be, as little as least squares allow, until
// none overlap and all lie within low to high; it returns the centres. Intervals that do not fit start at low.
func spread(want, size []float64, low, high float64) []float64 {
	order := make([]int, len(want))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(want[a], want[b]) })

	// Less what lies before them, centres must not fall: isotonic regression by pooling neighbours that do.
	type pool struct {
		sum float64
		n   int
	}
	var pools []pool
	before := 0.0
	for _, i := range order {
		pools = append(pools, pool{want[i] - before - size[i]/2, 1})
		before += size[i]
		for n := len(pools); n > 1 && pools[n-2].sum/float64(pools[n-2].n) > pools[n-1].sum/float64(pools[n-1].n); n-- {
			pools[n-2].sum += pools[n-1].sum
			pools[n-2].n += pools[n-1].n
			pools = pools[:n-1]
		}
	}
	centre := make([]float64, len(want))
	k, room := 0, high-before
	before = 0
	for _, p := range pools {
		for range p.n {
			i := order[k]
			centre[i] = max(low, min(p.sum/float64(p.n), room)) + before + size[i]/2
			before += size[i]
			k++
		}
	}
	return centre
}

// tag is a label that wants to stand near a point.
type tag struct {
	at            vg.Point
	width, height vg.Length
}

// stroke is a line that a tag should not cover, the less the weightier it is.
type stroke struct {
	from, to vg.Point
	weight   float64
}

// The weights of strokes: what was measured, and what it is to be compared with.
const (
	dataWeight  = 4
	guideWeight = 1
)

// placeTags finds for every tag a rectangle near its point that lies within the frame and covers as little as possible of
// the obstacles, of the lines and of the other tags. It improves one tag at a time, in order, for a few rounds.
func placeTags(tags []tag, frame vg.Rectangle, obstacles []vg.Rectangle, lines []stroke) []vg.Rectangle {
	const rounds = 4
	placed := make([]vg.Rectangle, len(tags))
	for round := range rounds {
		for i, t := range tags {
			best := math.Inf(1)
			for _, r := range t.candidates() {
				cost := t.distance(r) + 1000*outside(r, frame)
				for _, o := range obstacles {
					cost += 5 * overlap(r, o)
				}
				for _, l := range lines {
					cost += l.weight * covered(r, l)
				}
				for j, other := range placed {
					if j != i && (round > 0 || j < i) {
						cost += 10 * overlap(r, other)
					}
				}
				if cost < best {
					best, placed[i] = cost, r
				}
			}
		}
	}
	return placed
}

// candidates are the rectangles around the tag's point at growing distances, the right side first.
func (t tag) candidates() []vg.Rectangle {
	var c []vg.Rectangle
	for _, far := range []vg.Length{6, 10, 16, 24, 34, 46, 60, 80} {
		for step := range 24 {
			sin, cos := math.Sincos(float64(step) * math.Pi / 12)
			centre := vg.Point{X: t.at.X + vg.Length(cos)*(t.width/2+far), Y: t.at.Y + vg.Length(sin)*(t.height/2+far)}
			c = append(c, around(centre, t.width, t.height))
		}
	}
	return c
}

// distance is the cost of a tag's being away from its point, a little higher where it stands left of it or below.
func (t tag) distance(r vg.Rectangle) float64 {
	at := nearestIn(r, t.at)
	d := math.Hypot(float64(at.X-t.at.X), float64(at.Y-t.at.Y))
	if r.Max.X < t.at.X {
		d += 2
	}
	if r.Max.Y < t.at.Y {
		d++
	}
	return d
}

func around(centre vg.Point, width, height vg.Length) vg.Rectangle {
	half := vg.Point{X: width / 2, Y: height / 2}
	return vg.Rectangle{Min: centre.Sub(half), Max: centre.Add(half)}
}

// nearestIn is the point of a rectangle nearest to a point.
func nearestIn(r vg.Rectangle, p vg.Point) vg.Point {
	return vg.Point{X: max(r.Min.X, min(p.X, r.Max.X)), Y: max(r.Min.Y, min(p.Y, r.Max.Y))}
}

// outside is how far a rectangle sticks out of a frame.
func outside(r, frame vg.Rectangle) float64 {
	return float64(max(0, frame.Min.X-r.Min.X) + max(0, r.Max.X-frame.Max.X) + max(0, frame.Min.Y-r.Min.Y) + max(0, r.Max.Y-frame.Max.Y))
}

// overlap is the root of the area that two rectangles share.
func overlap(a, b vg.Rectangle) float64 {
	w := min(a.Max.X, b.Max.X) - max(a.Min.X, b.Min.X)
	h := min(a.Max.Y, b.Max.Y) - max(a.Min.Y, b.Min.Y)
	if w <= 0 || h <= 0 {
		return 0
	}
	return math.Sqrt(float64(w * h))
}

// covered is the length of a line within a rectangle (Liang and Barsky 1984).
func covered(r vg.Rectangle, l stroke) float64 {
	from, to := 0.0, 1.0
	d := l.to.Sub(l.from)
	for _, side := range [][2]vg.Length{
		{-d.X, l.from.X - r.Min.X}, {d.X, r.Max.X - l.from.X}, {-d.Y, l.from.Y - r.Min.Y}, {d.Y, r.Max.Y - l.from.Y},
	} {
		speed, room := float64(side[0]), float64(side[1])
		switch {
		case speed == 0 && room < 0:
			return 0
		case speed < 0:
			from = max(from, room/speed)
		case speed > 0:
			to = min(to, room/speed)
		}
	}
	return max(0, to-from) * math.Hypot(float64(d.X), float64(d.Y))
}
