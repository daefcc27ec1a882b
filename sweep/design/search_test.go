package design

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// searches makes one of each, anew.
func searches(t testing.TB, seed uint64) map[string]Search {
	axes := parse(t, "x=lin:-2..3", "y=lin:-2..3", "n=int:1..9")
	points, err := Design{Kind: Halton, Points: 40, Seed: seed}.Sample(axes)
	if err != nil {
		t.Fatal(err)
	}
	halving, err1 := NewHalving(slices.Collect(points), HalvingOptions{Min: Budget{10, 1}, Max: Budget{100, 3}})
	cma, err2 := NewCMAES(axes, CMAESOptions{Trials: 100, Seed: seed})
	nsga, err3 := NewNSGA2(axes, NSGA2Options{Population: 10, Generations: 6, Seed: seed})
	if err1 != nil || err2 != nil || err3 != nil {
		t.Fatal(err1, err2, err3)
	}
	return map[string]Search{"halving": halving, "cma-es": cma, "nsga-ii": nsga}
}

// advance runs a search to its end, or for the given generations; every seventh trial fails.
func advance(t testing.TB, s Search, generations int) (history []Generation) {
	t.Helper()
	objectives := 1
	if _, ok := s.(*NSGA2); ok {
		objectives = 2
	}
	for len(history) < generations && len(s.Ask()) > 0 {
		g := Generation{Trials: s.Ask()}
		if !cmp.Equal(g.Trials, s.Ask()) {
			t.Error("it asks for other trials when asked again")
		}
		for i, trial := range g.Trials {
			x := valuesOf(t, trial.Point)
			row := []float64{rosenbrock(x), sphere(x)}[:objectives]
			if i%7 == 6 {
				row = nil
			}
			g.Values = append(g.Values, row)
		}
		if err := s.Tell(g.Values); err != nil {
			t.Fatal(err)
		}
		history = append(history, g)
	}
	return history
}

// A search that is told its history, as a file keeps it, asks for what the undisturbed one asks for.
func TestReplay(t *testing.T) {
	for name, s := range searches(t, 4) {
		whole := advance(t, s, math.MaxInt)
		if len(whole) < 3 {
			t.Errorf("%s: only %d generations", name, len(whole))
		}
		for cut := range len(whole) + 1 {
			text, err := json.Marshal(whole[:cut])
			if err != nil {
				t.Fatal(err)
			}
			var history []Generation
			if err := json.Unmarshal(text, &history); err != nil {
				t.Fatal(err)
			}
			again := searches(t, 4)[name]
			if err := replay(again, history); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			rest := advance(t, again, math.MaxInt)
			if diff := cmp.Diff(whole[cut:], rest, cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("%s, resumed after %d generations: %s", name, cut, diff)
			}
		}
		if err := replay(searches(t, 5)[name], whole); err == nil || !strings.Contains(err.Error(), "generation 0 of the search asks for other trials") {
			t.Errorf("%s: the history of another seed passes: %v", name, err)
		}
		if err := replay(searches(t, 4)[name], append(whole, whole[0])); err == nil {
			t.Errorf("%s: a history that is too long passes", name)
		}
	}
}

func TestTellRefusals(t *testing.T) {
	for name, s := range searches(t, 4) {
		n := len(s.Ask())
		values := make([][]float64, n)
		if err := s.Tell(values[1:]); err == nil || !strings.Contains(err.Error(), "was told the values of") {
			t.Errorf("%s: %v", name, err)
		}
		values[2] = []float64{1, 2, 3}
		if err := s.Tell(values); err == nil || !strings.Contains(err.Error(), "trial 2 has 3 values") {
			t.Errorf("%s: %v", name, err)
		}
		values[2] = []float64{math.Inf(-1), 0}
		if name != "nsga-ii" {
			values[2] = values[2][:1]
		}
		if err := s.Tell(values); err == nil || !strings.Contains(err.Error(), "trial 2 has the value -Inf") {
			t.Errorf("%s: %v", name, err)
		}
		if len(s.Ask()) != n {
			t.Errorf("%s: what was refused has moved it", name)
		}
	}
}

// replay tells a new search what one with the same arguments was told. It fails where they ask for different trials.
func replay(s Search, history []Generation) error {
	for i, g := range history {
		same := slices.EqualFunc(s.Ask(), g.Trials, func(a, b Trial) bool {
			return a.Budget == b.Budget && slices.Equal(a.Point, b.Point)
		})
		if !same {
			return fmt.Errorf("generation %d of the search asks for other trials than its history holds", i)
		}
		if err := s.Tell(g.Values); err != nil {
			return fmt.Errorf("generation %d of the search's history: %w", i, err)
		}
	}
	return nil
}
