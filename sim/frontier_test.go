package sim

import (
	"math"
	"testing"

	"evenkeel/moe"
)

// curveOf makes a curve of points (MaxVio, affinity kept), the same on every seed but for a shift of the affinity.
func curveOf(family string, shifts []float64, points ...[2]float64) *Curve {
	c := &Curve{Family: family}
	for _, p := range points {
		s := &StrategyResult{Traits: moe.Traits{Family: family}, Metrics: map[string]Estimate{"maxvio_global": {Mean: p[0]}, "affinity_kept": {Mean: p[1]}}}
		for _, shift := range shifts {
			s.Runs = append(s.Runs, &Run{Values: map[string]float64{"maxvio_global": p[0], "affinity_kept": p[1] + shift, "output_error": 1 - p[1] - shift}})
		}
		c.Points = append(c.Points, s)
	}
	return c
}

func near(x, y float64) bool { return math.Abs(x-y) < 1e-12 }

func TestComparisonAtEqualBalance(t *testing.T) {
	// Dominated points, (0.2, 0.90) and (0.9, 0.985), are nobody's choice.
	a := curveOf("a", []float64{0, 0.01}, [2]float64{0.1, 0.95}, [2]float64{0.2, 0.90}, [2]float64{0.4, 0.99}, [2]float64{0.9, 0.985})
	b := curveOf("b", []float64{0, 0}, [2]float64{0.1, 0.91}, [2]float64{0.4, 0.97})
	e := CompareCurves(a, b, []float64{0.2, 0.05, 3})
	if e[0].Apart || !near(e[0].Affinity.Mean, 0.97+0.005-0.94) || !near(e[0].Error.Mean, -e[0].Affinity.Mean) {
		t.Errorf("at 0.2, halfway in the logarithm: %+v", e[0])
	}
	if e[0].Affinity.Low == nil || *e[0].Affinity.High-*e[0].Affinity.Low <= 0 {
		t.Error("two seeds that differ give no interval")
	}
	if !e[1].Apart || e[1].Reached != [2]int{} {
		t.Errorf("at 0.05, where neither is: %+v", e[1])
	}
	if e[2].Apart || !near(e[2].Affinity.Mean, 0.99+0.005-0.97) {
		t.Errorf("at 3, where each may be as even as it likes: %+v", e[2])
	}
	if e := CompareCurves(a, b, nil); len(e) != 1 || e[0].Apart || !near(e[0].MaxVio, 0.2) {
		t.Errorf("the middle of 0.1 to 0.4 is %+v", e)
	}
	far := curveOf("far", []float64{0, 0}, [2]float64{2, 0.99}, [2]float64{3, 1})
	if e := CompareCurves(b, far, nil); !e[0].Apart || !near(e[0].Range[0][1], 0.4) || !near(e[0].Range[1][0], 2) {
		t.Errorf("ranges that do not overlap: %+v", e[0])
	}
	point := curveOf("point", []float64{0, 0}, [2]float64{0, 0.5})
	if e := CompareCurves(a, point, nil); e[0].Apart || !near(e[0].MaxVio, 0.1) || !near(e[0].Affinity.Mean, 0.955-0.5) {
		t.Errorf("a point more even than the curve: %+v", e[0])
	}
}

func TestBendsFindTheCorner(t *testing.T) {
	// In ln MaxVio the points are even; the corner is the third.
	c := curveOf("c", []float64{0}, [2]float64{1, 1}, [2]float64{math.Exp(-1), 1}, [2]float64{math.Exp(-2), 1}, [2]float64{math.Exp(-3), 0.5}, [2]float64{math.Exp(-4), 0})
	if got := c.Bends(2); len(got) != 2 || got[0] != 1 || got[1] != 2 {
		t.Errorf("segments %v turn most, want those beside the third point: 1 and 2", got)
	}
	if got := c.Bends(10); len(got) != 4 {
		t.Errorf("of four segments %v are left", got)
	}
	flat := curveOf("flat", []float64{0}, [2]float64{1, 1}, [2]float64{1, 1}, [2]float64{0.5, 0.5})
	if got := flat.Bends(3); len(got) != 1 || got[0] != 1 {
		t.Errorf("segments %v, want 1 alone: the ends of 0 are alike", got)
	}
}
