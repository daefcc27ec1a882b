package plots

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
)

// search is a random search over parameters: rate and coeff matter, the others do not.
func search(cells int, parameters ...Parameter) Parallel {
	p := Parallel{Sweep: swept, Parameters: parameters, Metric: MetricOf("maxvio_global")}
	r := rand.New(rand.NewPCG(9, uint64(cells)))
	for range cells {
		s := Setting{}
		m := 0.06
		for i, x := range parameters {
			v := r.IntN(len(x.Values))
			s.At = append(s.At, int32(v))
			if i < 2 {
				d := float64(v)/float64(len(x.Values)) - 0.6
				m *= math.Exp(7 * d * d)
			}
		}
		m *= math.Exp(0.2 * r.NormFloat64())
		s.Y = Sample{Mean: m, Low: 0.9 * m, High: 1.1 * m, Floor: 0.031, N: 8}
		p.Cells = append(p.Cells, s)
	}
	return p
}

func parallels() map[string]Parallel {
	var (
		rate     = Parameter{"loss-free.rate", logValues(1e-4, 0.1, 13)}
		coeff    = Parameter{"aux-loss.coeff", logValues(1e-3, 1, 64)}
		tokens   = Parameter{"tokens", []string{"1024", "4096", "16384"}}
		experts  = Parameter{"experts", []string{"32", "64", "128", "256"}}
		scope    = Parameter{"scope", []string{"sequence", "micro-batch", "global batch"}}
		momentum = Parameter{"momentum", []string{"0", "0.5", "0.9", "0.99"}}
		clip     = Parameter{"clip", []string{"0.1", "0.2", "0.3"}}
	)
	broken := search(60, rate, coeff, scope)
	broken.Cells[3].Y, broken.Cells[4].Y.Mean, broken.Cells[5].Y.Mean = Sample{}, math.NaN(), 0
	broken.Cells[6].Y.Without = 2
	higher := search(200, rate, coeff, tokens)
	higher.Metric = MetricOf("choice_agreement")
	neither := search(50, rate, tokens)
	neither.Metric = MetricOf("gate_sum")
	var many []Parameter
	for i := range 10 {
		many = append(many, Parameter{fmt.Sprintf("strategy-of-many-words.parameter-number-%d", i), []string{"a value with a long name <&>", "another one", "b"}})
	}
	return map[string]Parallel{
		"usual": search(400, rate, coeff, tokens, experts, scope, momentum), "two": search(120, rate, coeff), "one cell": search(1, rate, clip), "broken": broken,
		"higher is better": higher, "neither": neither, "ten": search(300, many...), "many": search(50_000, rate, coeff, tokens, clip),
		"one value": search(20, Parameter{"rate", []string{"0.1"}}, Parameter{"coeff", []string{"-3"}}),
	}
}

func TestParallel(t *testing.T) {
	pictures := map[string]Picture{}
	for name, p := range parallels() {
		pictures[name] = checkPicture(t, "parallel", name, p.Picture)
	}
	says(t, "usual", pictures["usual"], "MaxVio global over 6 parameters", "loss-free.rate", "loss-free.rate (log)", "Lines: 400 cells", "best tenth, 40 cells", "the lowest is", "n = 8",
		"The sampling floor is 0.031", "the luckiest")
	says(t, "broken", pictures["broken"], "1 cell not run, 1 cell run without a value", "1 value left out", "sequence", "Runs without a value are left out")
	says(t, "higher is better", pictures["higher is better"], "the highest is")
	says(t, "many", pictures["many"], "50,000 cells", "Drawn are 500 bold and 1,185 others")
	says(t, "ten", pictures["ten"], "1 = a value with a long name <&>", "10 = strategy-of-many-words.parameter-number-9")
}

func TestParallelRefusesNonsense(t *testing.T) {
	for want, change := range map[string]func(*Parallel){
		"0 parameters":    func(p *Parallel) { p.Parameters = nil },
		"11 parameters":   func(p *Parallel) { p.Parameters = make([]Parameter, 11) },
		"no name":         func(p *Parallel) { p.Parameters[1].Name = "" },
		"5 values for 6":  func(p *Parallel) { p.Cells[2].At = p.Cells[2].At[1:] },
		"value 13 of":     func(p *Parallel) { p.Cells[2].At[0] = 13 },
		"cell 7":          func(p *Parallel) { p.Cells[7].Y.Low = 1e9 },
		"nothing to draw": func(p *Parallel) { p.Cells = nil },
	} {
		p := parallels()["usual"]
		change(&p)
		if _, err := p.Picture(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q, got %v", want, err)
		}
	}
}
