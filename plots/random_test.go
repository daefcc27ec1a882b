package plots

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
)

// odd makes what no sweep should hold, but a picture must survive: vast and tiny values, gaps, intervals beside their means,
// names of any length.
type odd struct{ *rand.Rand }

func (o odd) value() float64 {
	switch o.IntN(12) {
	case 0:
		return 0
	case 1:
		return math.NaN()
	case 2:
		return math.Inf(1)
	case 3:
		return -o.Float64()
	case 4:
		return math.Exp(200 * o.NormFloat64())
	case 5:
		return math.SmallestNonzeroFloat64
	default:
		return math.Exp(2 * o.NormFloat64())
	}
}

func (o odd) sample() Sample {
	a, b := o.value(), o.value()
	return Sample{Mean: o.value(), Low: min(a, b), High: max(a, b), Floor: o.value(), N: o.IntN(4)}
}

func (o odd) samples(n int) (s []Sample) {
	for range n {
		s = append(s, o.sample())
	}
	return s
}

func (o odd) name(i int) string {
	return fmt.Sprint(i, strings.Repeat([]string{"a", "loss-free", "ü<&> ", "w,", "MMMM "}[o.IntN(5)], 1+o.IntN(9)))
}

func (o odd) parameter(i int) Parameter {
	p := Parameter{Name: o.name(i)}
	form := []func(float64) string{
		func(v float64) string { return fmt.Sprint(v*v - 3) }, func(v float64) string { return o.name(int(v)) },
		func(v float64) string { return fmt.Sprint(math.Pow(10, 20*v-100)) }, func(v float64) string { return fmt.Sprint(0.137 * v) },
	}[o.IntN(4)]
	for v := range 1 + o.IntN(12) {
		p.Values = append(p.Values, form(float64(v)))
	}
	return p
}

func (o odd) series(n int) (s []Series) {
	for i := range 1 + o.IntN(8) {
		s = append(s, Series{Name: o.name(i), Y: o.samples(n), Bound: o.IntN(5) == 0})
	}
	return s
}

func (o odd) metric() Metric {
	return MetricOf([]string{"maxvio_global", "affinity_kept", "choice_agreement", "task_loss"}[o.IntN(4)])
}

// pictures are one of each kind.
func (o odd) pictures() map[string]func() (Picture, error) {
	x, y := o.parameter(0), o.parameter(1)
	n := len(x.Values)
	multiples := Multiples{X: x, Over: y, Metric: o.metric()}
	for range y.Values {
		multiples.Panels = append(multiples.Panels, o.series(n))
	}
	heat := HeatMap{X: x, Y: y, Metric: o.metric()}
	pareto := Pareto{X: o.metric(), Y: o.metric()}
	generations := Generations{X: pareto.X, Y: pareto.Y}
	for i := range 1 + o.IntN(4) {
		p := HeatPanel{Name: o.name(i), Bound: o.IntN(3) == 0}
		for range y.Values {
			p.Cells = append(p.Cells, o.samples(n))
		}
		heat.Panels = append(heat.Panels, p)
		k := o.IntN(30)
		c := Cloud{Name: o.name(i), X: o.samples(k), Y: o.samples(k), Bound: o.IntN(3) == 0}
		pareto.Clouds = append(pareto.Clouds, c)
		generations.Fronts = append(generations.Fronts, Generation{i, c.X, c.Y})
	}
	parallel := Parallel{Metric: o.metric()}
	for i := range 1 + o.IntN(maxAxes) {
		parallel.Parameters = append(parallel.Parameters, o.parameter(i))
	}
	search := Search{Metric: o.metric()}
	rungs := Rungs{Metric: o.metric(), Budget: x}
	effects := Effects{Metric: o.metric(), Residual: Effect{Share: o.Float64()}}
	for i := range o.IntN(40) {
		s := Setting{Y: o.sample()}
		for _, p := range parallel.Parameters {
			s.At = append(s.At, int32(o.IntN(len(p.Values))))
		}
		parallel.Cells = append(parallel.Cells, s)
		search.Trials = append(search.Trials, Trial{1 + i*i, i / 5, o.sample()})
		e := Series{Name: o.name(i), Y: o.samples(n)}
		reached := o.IntN(n + 1)
		for j := range e.Y {
			if e.Y[j].N = 2; j >= reached {
				e.Y[j] = Sample{}
			}
		}
		rungs.Entrants = append(rungs.Entrants, e)
		share := o.Float64() - 0.2
		effects.Terms = append(effects.Terms, Effect{o.name(i), 1 + i%3, share, share - 0.3*o.Float64(), share + 0.3*o.Float64()})
	}
	return map[string]func() (Picture, error){
		"response": Response{X: x, Metric: o.metric(), Series: o.series(n)}.Picture, "multiples": multiples.Picture, "heat map": heat.Picture,
		"pareto": pareto.Picture, "generations": generations.Picture, "parallel": parallel.Picture, "search": search.Picture, "rungs": rungs.Picture,
		"effects": effects.Picture,
	}
}

func TestOddSweepsAreDrawn(t *testing.T) {
	for seed := range uint64(12) {
		for name, draw := range (odd{rand.New(rand.NewPCG(seed, 77))}).pictures() {
			name = fmt.Sprintf("%s %d", name, seed)
			p, err := draw()
			if errors.Is(err, ErrNothing) {
				continue
			}
			if err != nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			svg, err := p.SVG()
			if err != nil {
				t.Fatal(err)
			}
			checkSVG(t, name, svg)
			checkLayout(t, name, p)
		}
	}
}
