package bench

import (
	"math"
	"slices"
	"testing"

	"evenkeel/internal/npz"
)

// What PyTorch chose on the inputs that record.py drew: the same experts for every token but where scores tie exactly,
// which it settles as its algorithm happens to, and we for the lower expert. Gates, loads and gradients follow.
func TestChoicesArePyTorchs(t *testing.T) {
	f, err := npz.Open("testdata/torch.npz")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, shape := range Shapes() {
		floats := func(name string) []float32 {
			h, _ := f.Header(shape.Name + name)
			x, err := f.Float32s(shape.Name+name, 0, h.Len())
			if err != nil {
				t.Fatal(err)
			}
			return x
		}
		in := Inputs{Hidden: floats("_hidden"), Router: floats("_router"), Bias: floats("_bias")}
		shape.Tokens = len(in.Hidden) / shape.Width
		s, err := NewStep(shape, in)
		if err != nil {
			t.Fatal(err)
		}
		s.Route()
		k := shape.TopK
		chosen, err := f.Int32s(shape.Name+"_chosen", 0, shape.Tokens*k)
		if err != nil {
			t.Fatal(err)
		}
		gates, ties, moved := floats("_gates"), 0, make([]int64, shape.Experts)
		for token := range shape.Tokens {
			ours, theirs := s.Chosen[token*k:(token+1)*k], chosen[token*k:(token+1)*k]
			for i, e := range theirs {
				if j := slices.Index(ours, e); j < 0 {
					ties++
					moved[e]--
					if e != 5 || slices.Contains(theirs, 2) || !slices.Contains(ours, 2) || shape.Name != "C" {
						t.Errorf("shape %s: token %d chooses %v, in PyTorch %v", shape.Name, token, ours, theirs)
					}
				} else if d := math.Abs(float64(s.Gates[token*k+j] - gates[token*k+i])); d > 1e-6 {
					t.Errorf("shape %s: gate %d of token %d differs by %.1e", shape.Name, i, token, d)
				}
			}
			for _, e := range ours {
				if !slices.Contains(theirs, e) {
					moved[e]++
				}
			}
		}
		t.Logf("shape %s: %d of %d choices differ, all exact ties", shape.Name, ties, len(chosen))
		for e, load := range floats("_load") {
			if s.Load[e] != int64(load)+moved[e] {
				t.Errorf("shape %s: load %d of expert %d, in PyTorch %v", shape.Name, s.Load[e], e, load)
			}
		}
		if ties > 0 {
			continue // the loads, and so the gradient, are of other choices
		}
		s.Train()
		var largest, apart float64
		for i, want := range floats("_gradient") {
			got := s.Gradient(i / shape.Width)[i%shape.Width]
			largest, apart = max(largest, math.Abs(float64(want))), max(apart, math.Abs(float64(got-want)))
		}
		if apart > 1e-5*largest {
			t.Errorf("shape %s: gradients differ by %.1e of the largest", shape.Name, apart/largest)
		}
	}
}
