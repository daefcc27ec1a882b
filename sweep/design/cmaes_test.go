package design

import (
	"strconv"
	"testing"
)

func valuesOf(t testing.TB, p Point) []float64 {
	x := make([]float64, len(p))
	for i, word := range p {
		var err error
		if x[i], err = strconv.ParseFloat(word, 64); err != nil {
			t.Fatal(err)
		}
	}
	return x
}

func TestX(t *testing.T) {
	for _, axes := range [][]string{{"x=lin:-2..3", "y=lin:-2..3"}, {"x=lin:-2..3", "y=lin:-2..3", "z=lin:-2..3", "w=lin:-2..3"}} {
		for seed := range uint64(6) {
			a, _ := ParseAxes(axes)
			for _, name := range []string{"sphere", "rosen"} {
				c, err := NewCMAES(a, CMAESOptions{Trials: 6000, Seed: seed})
				if err != nil {
					t.Fatal(err)
				}
				best := 1e9
				n := 0
				for {
					trials := c.Ask()
					if len(trials) == 0 || best < 1e-8 {
						break
					}
					var v [][]float64
					for _, tr := range trials {
						x := valuesOf(t, tr.Point)
						f := 0.0
						for i := range x {
							if name == "sphere" {
								f += (x[i] - 0.3) * (x[i] - 0.3)
							} else if i > 0 {
								f += 100*(x[i]-x[i-1]*x[i-1])*(x[i]-x[i-1]*x[i-1]) + (1-x[i-1])*(1-x[i-1])
							}
						}
						best = min(best, f)
						v = append(v, []float64{f})
						n++
					}
					if err := c.Tell(v); err != nil {
						t.Fatal(err)
					}
				}
				t.Log(len(axes), name, seed, n, best)
			}
		}
	}
}
