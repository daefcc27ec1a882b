package plots

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// swept is how the samples name their sweep.
var swept = Sweep{
	About: "Scenario pretraining: E = 64 experts, K = 6 chosen, T = 2,048 tokens a step, 500 steps; 4 strategies, 13 rates, " +
		"8 seeds, 416 cells.",
	Interval: "95 % bootstrap interval of the mean",
}

// logValues are n values from low to high in equal ratios.
func logValues(low, high float64, n int) (v []string) {
	for i := range n {
		x := low * math.Pow(high/low, float64(i)/float64(n-1))
		v = append(v, strconv.FormatFloat(x, 'g', 4, 64))
	}
	return v
}

// valley is a response with an optimum: too slow left of it, restless right of it.
func valley(name string, x []string, best, least, floor float64, seeds int) Series {
	r := rand.New(rand.NewPCG(uint64(len(name)), uint64(name[0])))
	s := Series{Name: name}
	for i, text := range x {
		v, err := strconv.ParseFloat(text, 64)
		if err != nil {
			v = best * math.Pow(3, float64(i)-1)
		}
		d := math.Log10(v / best)
		mean := least * math.Exp(0.9*d*d) * (1 + 0.05*r.NormFloat64())
		half := mean * (0.05 + 0.06*r.Float64())
		y := Sample{Mean: mean, Low: mean - half, High: mean + 1.2*half, Floor: floor, N: seeds}
		if seeds == 1 {
			y.Low, y.High = math.NaN(), math.NaN()
		}
		s.Y = append(s.Y, y)
	}
	return s
}

func evenBound(n int) Series {
	s := Series{Name: "balanced-optimum", Bound: true}
	for range n {
		s.Y = append(s.Y, Sample{N: 8})
	}
	return s
}

var rates = Parameter{"rate", logValues(1e-4, 0.1, 13)}

// responses are the cases that the figure must cope with.
func responses() map[string]Response {
	usual := func() Response {
		return Response{Sweep: swept, X: rates, Metric: MetricOf("maxvio_global"), Series: []Series{
			valley("loss-free", rates.Values, 2e-3, 0.09, 0.031, 8), valley("loss-free:mode=proportional", rates.Values, 8e-3, 0.07, 0.031, 8),
			valley("momentum", rates.Values, 1e-3, 0.13, 0.031, 8), evenBound(13),
		}}
	}
	with := func(change func(*Response)) Response {
		r := usual()
		change(&r)
		return r
	}
	along := func(x Parameter, seeds int) func(*Response) {
		return func(r *Response) {
			r.X = x
			r.Series = []Series{valley("loss-free", x.Values, 2e-3, 0.09, 0.031, seeds), valley("aux-loss:coeff=0.01", x.Values, 5e-3, 0.2, 0.031, seeds)}
		}
	}
	return map[string]Response{
		"usual":     usual(),
		"one value": with(along(Parameter{"rate", []string{"0.001"}}, 8)),
		"one seed":  with(along(rates, 1)),
		"names":     with(along(Parameter{"scope", []string{"sequence", "micro-batch", "global batch"}}, 8)),
		"long names": with(along(Parameter{"schedule of the rate", []string{"linear-decay-to-nothing-over-all-steps", "cosine <&>", "constant", "warm-up-then-constant",
			"warm-up-then-linear-decay", "none at all, of any kind"}}, 8)),
		"zero": with(along(Parameter{"rate", []string{"0", "0.0001", "0.001", "0.01"}}, 8)),
		"tokens": with(func(r *Response) {
			r.X = Parameter{"tokens", []string{"1024", "4096", "16384", "65536"}}
			r.Metric = MetricOf("maxvio_batch")
			a, b := valley("loss-free", r.X.Values, 2e5, 0.3, 0.1, 8), valley("quantile", r.X.Values, 1e5, 0.2, 0.1, 8)
			for _, s := range []Series{a, b} {
				for i := range s.Y {
					s.Y[i].Floor = 8 / math.Sqrt(1024*math.Pow(4, float64(i)))
				}
			}
			r.Series = []Series{a, b}
		}),
		"gaps": with(func(r *Response) {
			r.Series[0].Y[3], r.Series[0].Y[4].Mean, r.Series[1].Y[12] = Sample{}, math.NaN(), Sample{}
			r.Series[1].Y[0] = Sample{Mean: 0.2, Low: -0.4, High: 90, N: 2, Without: 6}
			r.Series[2].Y[2].Mean = 0
		}),
		"thirty": with(func(r *Response) {
			r.Series = nil
			for i := range 30 {
				r.Series = append(r.Series, valley(fmt.Sprintf("bias-of-many-words:rate=%d,target=uniform,scope=sequence,mode=running", i), rates.Values, 1e-3*float64(1+i%7), 0.05*float64(1+i), 0.031, 5))
			}
		}),
		"negative": with(func(r *Response) {
			for i := range r.Series[0].Y {
				y := &r.Series[0].Y[i]
				y.Mean, y.Low, y.High = y.Mean-0.2, y.Low-0.2, y.High-0.2
			}
		}),
		"all equal": with(func(r *Response) {
			for i := range r.Series {
				for j := range r.Series[i].Y {
					r.Series[i].Y[j] = Sample{Mean: 0.25, Low: 0.25, High: 0.25, N: 8}
				}
			}
		}),
		"huge range": with(func(r *Response) {
			r.X.Values = logValues(1e-12, 1e15, 13)
			for j := range r.Series[0].Y {
				m := math.Pow(10, float64(8*j-60))
				r.Series[0].Y[j] = Sample{Mean: m, Low: m / 2, High: m * 3, N: 8}
			}
		}),
		"affinity": with(func(r *Response) {
			r.Metric = MetricOf("affinity_kept")
			for i := range r.Series {
				for j := range r.Series[i].Y {
					kept := 0.98 - 0.002*float64(j) - 0.004*float64(i)
					r.Series[i].Y[j] = Sample{Mean: kept, Low: kept - 0.003, High: kept + 0.002, N: 5 + i}
				}
			}
		}),
		"many values": with(along(Parameter{"rate", logValues(1e-4, 0.1, 200)}, 4)),
		"many names": with(func(r *Response) {
			r.X = Parameter{Name: "preset"}
			for i := range 24 {
				r.X.Values = append(r.X.Values, fmt.Sprintf("preset-number-%d", i))
			}
			r.Series = []Series{valley("loss-free", r.X.Values, 2e5, 0.3, 0.1, 8)}
			for i := range r.Series[0].Y {
				r.Series[0].Y[i].Mean = 0.3 + 0.01*float64(i%5)
				r.Series[0].Y[i].Low, r.Series[0].Y[i].High = 0.28, 0.37
			}
		}),
	}
}

// checkPicture is what every picture of a sweep must keep to: a document that is whole, the same bytes twice, and a layout in
// which nothing meets.
func checkPicture(t *testing.T, folder, name string, draw func() (Picture, error)) Picture {
	t.Helper()
	p, err := draw()
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	again, _ := draw()
	svg, err := p.SVG()
	if err != nil {
		t.Fatal(err)
	}
	if other, _ := again.SVG(); !bytes.Equal(svg, other) {
		t.Errorf("%s differs from run to run", name)
	}
	checkSVG(t, name, svg)
	checkLayout(t, name, p)
	if *preview != "" {
		writePreview(t, filepath.Join(*preview, folder), strings.ReplaceAll(name, " ", "-"), p)
	}
	return p
}

func TestResponse(t *testing.T) {
	pictures := map[string]Picture{}
	for name, r := range responses() {
		pictures[name] = checkPicture(t, "response", name, r.Picture)
	}
	says(t, "usual", pictures["usual"], "MaxVio global along rate", "loss-free:mode=", "sampling floor", "over the evaluation (log scale)", "rate (log scale)",
		"n = 8", "95 % bootstrap interval", "0 throughout, by construction: balanced-optimum (bound)")
	says(t, "one seed", pictures["one seed"], "one seed each")
	says(t, "gaps", pictures["gaps"], "1 cell run without a value", "2 cells not run", "goes on beyond it", "1 value left out", "Runs without a value are left out of the means.")
	says(t, "negative", pictures["negative"], "Linear scale, since a log scale has no place for values below 0")
	says(t, "long names", pictures["long names"], "2 = cosine <&>")
	says(t, "affinity", pictures["affinity"], "affinity lost, % of the oracle's", "n = 5 to 8")
}

func TestResponseRefusesNonsense(t *testing.T) {
	good := responses()["usual"]
	for want, change := range map[string]func(*Response){
		"no name":        func(r *Response) { r.X.Name = " " },
		"no values":      func(r *Response) { r.X.Values = nil },
		"twice":          func(r *Response) { r.X.Values = append([]string{"0.1"}, r.X.Values[1:]...) },
		"stands for two": func(r *Response) { r.Series = append(r.Series[:3:3], r.Series[0]) },
		"12 samples":     func(r *Response) { r.Series = []Series{{Name: "a", Y: r.Series[0].Y[:12]}} },
		"down to": func(r *Response) {
			r.Series = []Series{valley("a", r.X.Values, 1, 1, 1, 2)}
			r.Series[0].Y[2].Low = 1e9
		},
		"of -1 seeds":     func(r *Response) { r.Series = []Series{valley("a", r.X.Values, 1, 1, 1, 2)}; r.Series[0].Y[2].N = -1 },
		"nothing to draw": func(r *Response) { r.Series = nil },
	} {
		r := good
		change(&r)
		if _, err := r.Picture(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q, got %v", want, err)
		}
	}
	r := good
	r.Series = []Series{{Name: "a", Y: make([]Sample, 13)}}
	if _, err := r.Picture(); !errors.Is(err, ErrNothing) {
		t.Errorf("nothing measured: %v", err)
	}
}

// multiples are panels of responses by the number of them.
func multiples(panels int) Multiples {
	m := Multiples{Sweep: swept, X: rates, Over: Parameter{Name: "tokens"}, Metric: MetricOf("maxvio_global")}
	for i := range panels {
		m.Over.Values = append(m.Over.Values, strconv.Itoa(1024<<i))
		floor := 0.2 / math.Sqrt(float64(i+1))
		m.Panels = append(m.Panels, []Series{
			valley("loss-free", rates.Values, 2e-3, 0.3/float64(1+i), floor, 8), valley("quantile", rates.Values, 1e-2, 0.25, floor, 8),
			valley("aux-loss:coeff=0.01", rates.Values, 5e-4, 0.4, floor, 8), evenBound(13)})
	}
	return m
}

func TestMultiples(t *testing.T) {
	for _, n := range []int{1, 2, 4, 7, 12} {
		p := checkPicture(t, "multiples", fmt.Sprint(n), multiples(n).Picture)
		says(t, "multiples", p, "tokens = 1024", "sampling floor", "quantile")
	}
	gap := multiples(5)
	gap.Panels[2] = []Series{{Name: "loss-free", Y: make([]Sample, 13)}}
	gap.Panels[3] = nil
	checkPicture(t, "multiples", "gap", gap.Picture)
	scopes := Parameter{"scope", []string{"sequence", "micro-batch", "global batch"}}
	named := Multiples{Sweep: swept, X: scopes, Over: scopes, Metric: MetricOf("task_loss")}
	for range 3 {
		named.Panels = append(named.Panels, []Series{valley("loss-free", scopes.Values, 1, 0.5, 0, 3), valley("none", scopes.Values, 1, 0.9, 0, 3)})
	}
	checkPicture(t, "multiples", "names", named.Picture)
	if _, err := multiples(49).Picture(); err == nil || !strings.Contains(err.Error(), "at most 48") {
		t.Errorf("49 panels: %v", err)
	}
}
