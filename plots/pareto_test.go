package plots

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
)

// cloud is a strategy's cells along its strength, with those that spend it badly above them.
func cloud(name string, cells int, price float64, seeds int) Cloud {
	r := rand.New(rand.NewPCG(uint64(len(name)), uint64(cells)))
	c := Cloud{Name: name}
	for range cells {
		x := 0.04 * math.Exp(4*r.Float64())
		y := price / (x + 0.1) * (1 + r.ExpFloat64()/2)
		kept := 1 - y/100
		c.X = append(c.X, Sample{Mean: x, Low: x * 0.9, High: x * 1.15, Floor: 0.031, N: seeds})
		c.Y = append(c.Y, Sample{Mean: kept, Low: kept - 0.002 - y/2000, High: kept + 0.002, N: seeds})
	}
	return c
}

var boundCloud = Cloud{"balanced-optimum", []Sample{{Mean: 0, N: 8}}, []Sample{{Mean: 0.972, Low: 0.969, High: 0.976, N: 8}}, true}

func paretos() map[string]Pareto {
	of := func(clouds ...Cloud) Pareto {
		return Pareto{Sweep: swept, X: MetricOf("maxvio_global"), Y: MetricOf("affinity_kept"), Clouds: clouds}
	}
	broken := of(cloud("loss-free", 40, 0.3, 8), cloud("aux-loss", 40, 0.8, 8), Cloud{"never ran", []Sample{{}}, []Sample{{}}, false})
	broken.Clouds[0].X[3].Mean, broken.Clouds[0].Y[4], broken.Clouds[1].X[5].Mean = math.NaN(), Sample{}, -0.4
	broken.Clouds[1].X[6].N, broken.Clouds[1].X[6].Without = 5, 3
	floors := of(cloud("loss-free", 40, 0.3, 8))
	for i := range floors.Clouds[0].X {
		floors.Clouds[0].X[i].Floor = 0.02 * float64(1+i%3)
	}
	var thirty []Cloud
	for i := range 30 {
		thirty = append(thirty, cloud(fmt.Sprintf("bias-of-many-words:rate=%d,target=uniform,scope=sequence", i), 20, 0.2+0.1*float64(i%9), 4))
	}
	up := of(cloud("loss-free", 60, 0.3, 8), cloud("aux-loss", 60, 0.8, 8))
	up.Y = MetricOf("choice_agreement")
	return map[string]Pareto{
		"usual":    of(cloud("loss-free", 104, 0.3, 8), cloud("aux-loss", 104, 0.8, 8), cloud("momentum", 60, 0.35, 8), boundCloud),
		"one cell": of(cloud("loss-free", 1, 0.3, 8)), "one seed": of(cloud("loss-free", 30, 0.3, 1), boundCloud), "broken": broken, "floors": floors,
		"thirty": of(thirty...), "higher is better": up, "bound alone": of(boundCloud),
		"many": of(cloud("loss-free", 60_000, 0.3, 8), cloud("aux-loss", 60_000, 0.8, 8)),
	}
}

func TestPareto(t *testing.T) {
	pictures := map[string]Picture{}
	for name, f := range paretos() {
		pictures[name] = checkPicture(t, "pareto", name, f.Picture)
	}
	says(t, "usual", pictures["usual"], "Affinity lost against MaxVio global", "sampling floor", "front of all", "balanced-optimum (bound)", "269 cells",
		"95 % bootstrap interval", "Better is left and down", "confirm its points with fresh seeds", "Hollow star and dotted line: a bound")
	says(t, "broken", pictures["broken"], "3 cells without one of the metrics", "Linear scale", "n = 5 to 8", "Runs without a value are left out of the means.")
	says(t, "one seed", pictures["one seed"], "n = 1 to 8")
	says(t, "many", pictures["many"], "120,000 cells", "Of the dots")
	says(t, "higher is better", pictures["higher is better"], "Better is left and up")
}

// No cell may beat one of a front, and every other cell must be beaten by, or equal to, one of it.
func TestFrontIsWhatNothingBeats(t *testing.T) {
	for _, y := range []string{"affinity_kept", "choice_agreement"} {
		g := &paretoFigure{Pareto: Pareto{X: MetricOf("maxvio_global"), Y: MetricOf(y)}}
		r := rand.New(rand.NewPCG(3, 3))
		for range 50 {
			var cells []cellPoint
			for range 1 + r.IntN(40) {
				cells = append(cells, cellPoint{Sample{Mean: float64(r.IntN(12)), N: 1}, Sample{Mean: float64(r.IntN(12)), N: 1}})
			}
			front := g.front(cells)
			covers := func(a, b cellPoint) bool { // a is at least as good in both
				return a.x.Mean <= b.x.Mean && g.Y.cost(a.y.Mean) <= g.Y.cost(b.y.Mean)
			}
			for _, c := range cells {
				covered := false
				for _, f := range front {
					covered = covered || covers(f, c)
					if covers(c, f) && c != f {
						t.Fatalf("%v beats %v of the front", c, f)
					}
				}
				if !covered {
					t.Fatalf("%v is not behind the front %v", c, front)
				}
			}
		}
	}
}

func TestParetoRefusesNonsense(t *testing.T) {
	for want, change := range map[string]func(*Pareto){
		"no better side":  func(f *Pareto) { f.Y = MetricOf("gate_sum") },
		"has no name":     func(f *Pareto) { f.Clouds[0].Name = "" },
		"stands for two":  func(f *Pareto) { f.Clouds[1].Name = f.Clouds[0].Name },
		"103 of":          func(f *Pareto) { f.Clouds[0].Y = f.Clouds[0].Y[1:] },
		"has an interval": func(f *Pareto) { f.Clouds[0].Y[9].Low = 2 },
		"nothing to draw": func(f *Pareto) { f.Clouds = nil },
	} {
		f := paretos()["usual"]
		change(&f)
		if _, err := f.Picture(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q, got %v", want, err)
		}
	}
}
