package plots

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
)

// descent is a search that comes closer to the optimum, with the noise of its seeds.
func descent(trials, generation int) Search {
	s := Search{Sweep: swept, Metric: MetricOf("maxvio_global")}
	r := rand.New(rand.NewPCG(4, uint64(trials)))
	for i := range trials {
		m := (0.07 + 1.5*math.Exp(-4*float64(i)/float64(trials))*r.Float64()) * math.Exp(0.1*r.NormFloat64())
		s.Trials = append(s.Trials, Trial{Cells: 4 * (i + 1), Generation: i / generation, Y: Sample{Mean: m, Low: 0.88 * m, High: 1.15 * m, Floor: 0.031, N: 4}})
	}
	return s
}

func searches() map[string]Search {
	gaps := descent(48, 12)
	gaps.Trials[3].Y, gaps.Trials[30].Y.Mean, gaps.Trials[9].Y.Mean = Sample{}, math.NaN(), 0
	seed := descent(20, 5)
	for i := range seed.Trials {
		seed.Trials[i].Y.N, seed.Trials[i].Y.Floor = 1, 0
	}
	higher := descent(40, 10)
	higher.Metric = MetricOf("choice_agreement")
	for i := range higher.Trials {
		higher.Trials[i].Y = Sample{Mean: 0.9 - higher.Trials[i].Y.Mean/10, Low: 0.6, High: 0.95, N: 3}
	}
	return map[string]Search{"usual": descent(160, 16), "gaps": gaps, "one seed": seed, "one trial": descent(1, 1), "many": descent(30_000, 100), "higher is better": higher}
}

func TestSearch(t *testing.T) {
	pictures := map[string]Picture{}
	for name, s := range searches() {
		pictures[name] = checkPicture(t, "search", name, s.Picture)
	}
	says(t, "usual", pictures["usual"], "best so far", "sampling floor", "cells run so far", "160 trials of 640 cells", "was found after", "keeps the luckiest", "generations", "n = 4")
	says(t, "gaps", pictures["gaps"], "2 trials without a value", "1 value left out")
	says(t, "many", pictures["many"], "Of the dots")
	says(t, "higher is better", pictures["higher is better"], "The search for the highest choice agreement")
	s := descent(9, 3)
	s.Trials[4].Cells = 1
	if _, err := s.Picture(); err == nil || !strings.Contains(err.Error(), "trial 4 is at 1 cells") {
		t.Errorf("cells that grow fewer: %v", err)
	}
	s = descent(9, 3)
	s.Metric = MetricOf("bias_mean")
	if _, err := s.Picture(); err == nil || !strings.Contains(err.Error(), "no better side") {
		t.Errorf("no objective: %v", err)
	}
	if _, err := (Search{Metric: MetricOf("churn")}).Picture(); err != ErrNothing {
		t.Errorf("no trials: %v", err)
	}
}

// What is drawn as the best so far is the best of all trials up to there.
func TestBestSoFar(t *testing.T) {
	for _, key := range []string{"maxvio_global", "choice_agreement"} {
		s := descent(80, 8)
		s.Metric = MetricOf(key)
		f := newSearchFigure(s)
		best := f.drawn[0].Y.Mean
		for _, trial := range f.drawn {
			if s.Metric.cost(trial.Y.Mean) < s.Metric.cost(best) {
				best = trial.Y.Mean
			}
			var shown float64
			for _, v := range f.steps() {
				if v.X <= float64(trial.Cells) {
					shown = v.Y
				}
			}
			if shown != best {
				t.Fatalf("%s after %d cells: %v, want %v", key, trial.Cells, shown, best)
			}
		}
	}
}

func evolution(generations int) Generations {
	g := Generations{Sweep: swept, X: MetricOf("maxvio_global"), Y: MetricOf("affinity_kept"), Bounds: []Cloud{boundCloud}}
	for i := range generations {
		c := cloud("nsga", 24, 0.3+2/float64(i+1), 4)
		g.Fronts = append(g.Fronts, Generation{5 * i, c.X, c.Y})
	}
	return g
}

func TestGenerations(t *testing.T) {
	for _, n := range []int{1, 2, 7, 40} {
		p := checkPicture(t, "generations", fmt.Sprint(n), evolution(n).Picture)
		says(t, "generations", p, "generation 0", fmt.Sprintf("generation %d", 5*(n-1)), "balanced-optimum (bound)", "Better is left and down", "a bound")
		if n > maxFronts {
			says(t, "generations", p, "of 40 generations")
		}
	}
	g := evolution(3)
	g.Fronts[1].Number = 99
	if _, err := g.Picture(); err == nil || !strings.Contains(err.Error(), "must be in order") {
		t.Errorf("generations out of order: %v", err)
	}
	g = evolution(0)
	if _, err := g.Picture(); err != ErrNothing {
		t.Errorf("no generation: %v", err)
	}
}

// halving is a successive halving by three.
func halving(entrants, rungs int) Rungs {
	r := Rungs{Sweep: swept, Budget: Parameter{Name: "steps"}, Metric: MetricOf("maxvio_global")}
	random := rand.New(rand.NewPCG(5, 5))
	for i := range rungs {
		r.Budget.Values = append(r.Budget.Values, fmt.Sprint(50*int(math.Pow(3, float64(i)))))
	}
	for i := range entrants {
		s := Series{Name: fmt.Sprintf("loss-free:rate=%.6g", 0.0001*math.Pow(1000, float64(i)/float64(entrants)))}
		for rung := range rungs {
			y := Sample{}
			if i%int(math.Pow(3, float64(rung))) == 0 {
				m := (0.06 + 0.9*float64(1+i%9)/float64(1+rung*rung)/9) * math.Exp(0.1*random.NormFloat64())
				y = Sample{Mean: m, Low: 0.85 * m, High: 1.2 * m, Floor: 0.031, N: 2 + 2*rung}
			}
			s.Y = append(s.Y, y)
		}
		r.Entrants = append(r.Entrants, s)
	}
	return r
}

func TestRungs(t *testing.T) {
	pictures := map[string]Picture{}
	gap := halving(27, 3)
	gap.Entrants[9].Y[1].Mean = math.NaN()
	for name, r := range map[string]Rungs{"usual": halving(81, 4), "one": halving(1, 1), "one rung": halving(30, 1), "many": halving(6000, 6), "gap": gap} {
		pictures[name] = checkPicture(t, "rungs", name, r.Picture)
	}
	says(t, "usual", pictures["usual"], "81", "27", "9", "3", "loss-free:rate=0.0001", "sampling floor", "steps of the rung", "n = 2 to 8", "not of equal runs")
	says(t, "one rung", pictures["one rung"], "Named are the best 14 of the 30")
	says(t, "many", pictures["many"], "6,000", "Of the grey lines")
	says(t, "gap", pictures["gap"], "1 run without a value")
	r := halving(9, 3)
	r.Entrants[0].Y[1] = Sample{}
	if _, err := r.Picture(); err == nil || !strings.Contains(err.Error(), "without all rungs before") {
		t.Errorf("a rung left out: %v", err)
	}
	if _, err := (Rungs{Budget: rates, Metric: MetricOf("churn")}).Picture(); err != ErrNothing {
		t.Errorf("no entrants: %v", err)
	}
}
