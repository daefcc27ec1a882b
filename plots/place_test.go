package plots

import (
	"math"
	"math/rand/v2"
	"testing"

	"gonum.org/v1/plot/vg"
)

func TestSpread(t *testing.T) {
	// Two that meet at 10 give way by 5 each; one far away stays where it is.
	got := spread([]float64{10, 60, 10}, []float64{10, 10, 10}, 0, 100)
	if got[0] != 5 || got[1] != 60 || got[2] != 15 {
		t.Errorf("spread to %v", got)
	}
	r := rand.New(rand.NewPCG(1, 1))
	for range 200 {
		want, size := make([]float64, 8), make([]float64, 8)
		for i := range want {
			want[i], size[i] = 120*r.Float64()-10, 2+8*r.Float64()
		}
		got := spread(want, size, 0, 100)
		for i := range got {
			if got[i]-size[i]/2 < -1e-9 || got[i]+size[i]/2 > 100+1e-9 {
				t.Fatalf("%v of %v leaves 0 to 100", got[i], size[i])
			}
			for j := range i {
				if math.Abs(got[i]-got[j]) < (size[i]+size[j])/2-1e-9 {
					t.Fatalf("%v and %v overlap", got[i], got[j])
				}
				if want[i] < want[j] && got[i] > got[j] {
					t.Fatalf("%v and %v have changed places", want[i], want[j])
				}
			}
		}
	}
}

func TestTagsKeepApart(t *testing.T) {
	r := rand.New(rand.NewPCG(2, 2))
	frame := vg.Rectangle{Max: vg.Point{X: 700, Y: 400}}
	for range 20 {
		var tags []tag
		var points []vg.Rectangle
		for range 12 {
			at := vg.Point{X: vg.Length(700 * r.Float64()), Y: vg.Length(400 * r.Float64())}
			tags = append(tags, tag{at, 90, 14})
			points = append(points, around(at, 14, 14))
		}
		placed := placeTags(tags, frame, points, nil)
		for i, a := range placed {
			if outside(a, frame) > 0 {
				t.Errorf("%v leaves the frame", a)
			}
			for _, b := range placed[:i] {
				if overlap(a, b) > 0 {
					t.Errorf("%v and %v overlap", a, b)
				}
			}
		}
	}
}

func TestCovered(t *testing.T) {
	r := vg.Rectangle{Max: vg.Point{X: 10, Y: 10}}
	for _, c := range []struct {
		from, to vg.Point
		want     float64
	}{
		{vg.Point{X: -5, Y: 5}, vg.Point{X: 15, Y: 5}, 10},
		{vg.Point{X: -5, Y: 12}, vg.Point{X: 15, Y: 12}, 0},
		{vg.Point{X: 0, Y: 0}, vg.Point{X: 3, Y: 4}, 5},
		{vg.Point{X: 20, Y: 20}, vg.Point{X: 30, Y: 30}, 0},
	} {
		if got := covered(r, stroke{c.from, c.to, 1}); math.Abs(got-c.want) > 1e-12 {
			t.Errorf("%v to %v: %v, want %v", c.from, c.to, got, c.want)
		}
	}
}

func TestSimplifyStaysClose(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 3))
	line := make([]vg.Point, 500)
	for i := range line {
		line[i] = vg.Point{X: vg.Length(i), Y: vg.Length(20*math.Sin(float64(i)/40) + 0.02*r.Float64())}
	}
	short := simplify(line)
	if len(short) > 100 || short[0] != line[0] || short[len(short)-1] != line[499] {
		t.Fatalf("%d points, from %v to %v", len(short), short[0], short[len(short)-1])
	}
	next := 0
	for _, p := range line {
		for short[next+1].X < p.X {
			next++
		}
		a, b := short[next], short[next+1]
		if y := a.Y + (b.Y-a.Y)*(p.X-a.X)/(b.X-a.X); math.Abs(float64(y-p.Y)) > 0.3 {
			t.Fatalf("%v is now at %v", p, y)
		}
	}
}

func TestLoadScale(t *testing.T) {
	if one := loadScale.at(0.5); one != loadScale[len(loadScale)/2] {
		t.Errorf("balance is drawn in %v", one)
	}
	for r, want := range map[float64]uint8{0: 1, 1.0 / 8: 1, 1: 1 + shades/2, 8: shades, 900: shades, math.NaN(): 0, math.Inf(1): shades} {
		if got := loadShade(r); got != want {
			t.Errorf("load %v has shade %d, want %d", r, got, want)
		}
	}
}

func TestLooksDiffer(t *testing.T) {
	type key struct {
		color  any
		dashes int
		glyph  any
	}
	seen := map[key]bool{}
	for i := range 280 {
		l := lookOf(i)
		k := key{l.color, i % len(lookDashes), l.glyph}
		if seen[k] {
			t.Fatalf("strategy %d looks like an earlier one", i)
		}
		seen[k] = true
	}
}
