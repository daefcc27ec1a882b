package sweep

import (
	"context"
	"math"
	"slices"
	"testing"
)

// TestLoadsAreThoseOfTheirStep checks the loads of a long run, of which sim keeps those of every third step by itself, against the
// step's MaxVio, which is the largest load less 1.
func TestLoadsAreThoseOfTheirStep(t *testing.T) {
	b := small(t, "none", "loss-free", "balanced-optimum")
	b.Settings = append(b.Settings, "steps=600")
	b.Seeds, b.Steps, b.Loads = []uint64{1}, 8, true
	p, err := New(b, nil, "one", slices.Values([]Point{{}}))
	if err != nil {
		t.Fatal(err)
	}
	records, err := NewComputer(p).Compute(context.Background(), p.Of(p.Units()[0]))
	if err != nil {
		t.Fatal(err)
	}
	for i, r := range records {
		if r.Failed != "" || len(r.Steps) != 8 {
			t.Fatalf("%s: %d steps, %s", p.Spec(i), len(r.Steps), r.Failed)
		}
		for _, s := range r.Steps {
			if len(s.Loads) == 0 {
				t.Fatalf("%s: step %d has no loads", p.Spec(i), s.Step)
			}
			if got := float64(slices.Max(s.Loads)) - 1; math.Abs(got-s.Values["maxvio"]) > 1e-6 {
				t.Errorf("%s: step %d: the loads say MaxVio %v, and it is %v", p.Spec(i), s.Step, got, s.Values["maxvio"])
			}
		}
	}
}
