package scenarios

import (
	"math"
	"slices"
	"testing"

	"evenkeel/internal/vec"
	"evenkeel/moe"
)

// topKLoads are the relative loads that the top K of a stream's own scores give, over the batches of some steps.
func topKLoads(t *testing.T, reference string, settings []string, steps ...int) []float64 {
	t.Helper()
	s, err := Load(reference, append(settings, "tokens=6400"), -1)
	if err != nil {
		t.Fatal(err)
	}
	layer := s.Layer()
	b, w, g := moe.NewBatch(layer, s.Tokens), moe.NewScratch(layer), s.Stream(1)
	n, mask := make([]float64, layer.Experts), make([]uint64, layer.Experts)
	for _, step := range steps {
		g.Layout(b, moe.Moment{Step: step, Index: step})
		for i := range b.Tiles {
			g.Fill(b, i, w)
			scores := make([]float32, layer.Experts*vec.Lanes)
			layer.Score.Apply(scores, b.Tiles[i].Z, layer.Experts)
			w.Select.TopK(mask, scores, nil, b.Tiles[i].Live(), nil)
			for e, m := range mask {
				n[e] += float64(b.Tiles[i].Count(m)) * float64(layer.Experts) / float64(layer.TopK*s.Tokens*len(steps))
			}
		}
	}
	return n
}

// The workloads have the loads that their construction says, at five standard errors of an even draw from the hot experts.
func TestHotLoads(t *testing.T) {
	of := func(hot int, r, other float64, at func(e int) bool) []float64 {
		want := make([]float64, 64)
		for e := range want {
			if want[e] = other; at(e) {
				want[e] = r
				hot--
			}
		}
		if hot != 0 {
			t.Fatalf("the test has %d hot experts too few", hot)
		}
		return want
	}
	first := func(n int) func(int) bool { return func(e int) bool { return e < n } }
	for _, c := range []struct {
		reference string
		steps     []int
		want      []float64
	}{
		{"w0-balanced", []int{0}, of(64, 1, 0, first(64))},
		{"w1-hot-set", []int{0, 7}, of(16, 3.25, 0.25, first(16))},
		{"w3-spread", []int{0}, of(32, 1.75, 0.25, func(e int) bool { return e%2 == 0 })},
		{"w4-ragged", []int{0}, of(64, 1, 1, first(64))},
		{"w5-idle-half", []int{0}, of(32, 2, 0, func(e int) bool { return e >= 32 })},
		{"w6-rotating", []int{0, 1, 2}, of(16, 3.25, 0.25, first(16))},
		{"w6-rotating", []int{3, 4, 5}, of(16, 3.25, 0.25, func(e int) bool { return e/16 == 1 })},
		{"w6-rotating", []int{12}, of(16, 3.25, 0.25, first(16))},
		{"w7-burst", []int{0, 1, 2}, of(64, 1, 1, first(64))},
		{"w7-burst", []int{3}, of(16, 2.5, 0.5, first(16))},
		// All tokens of the 80 % take the 4 and 2 of the other 60; of the rest each takes any 6.
		{"hot:80:4", []int{0}, of(4, 0.8*64/6+0.2, 0.8*2*64/(60*6.)+0.2, first(4))},
	} {
		got := topKLoads(t, c.reference, nil, c.steps...)
		for e, want := range c.want {
			if tolerance := 5 * math.Sqrt(want*64/(6*6400*float64(len(c.steps)))); math.Abs(got[e]-want) > tolerance {
				t.Errorf("%s at %v: expert %d has %.3f times its share, want %.3f ± %.3f", c.reference, c.steps, e, got[e], want, tolerance)
			}
		}
		if c.reference == "w0-balanced" && slices.Max(got)-slices.Min(got) > 1e-9 {
			t.Errorf("w0-balanced is not exactly even: %v", got)
		}
	}
}

// A set wants exactly the experts that one finds by walking through it, past the last expert too.
func TestHotSets(t *testing.T) {
	for _, experts := range []int{7, 64} {
		for _, h := range []Hot{{Place: placeBlock, Experts: 3, Rotate: 1}, {Place: placeBlock, Experts: experts, Rotate: 1}, {Place: placeSpread, Experts: (experts + 1) / 2, Rotate: 1},
			{Place: placeSpread, Experts: 2, Rotate: 2}, {Place: placeLast, Experts: 3, Rotate: 1}, {Place: placeCycle}, {Place: placeBlock, Experts: 0}} {
			for at := range 3 * experts {
				s := h.set(moe.Layer{Experts: experts, TopK: 3}, at, at)
				want := map[int]bool{}
				for i := range s.n {
					want[(s.from+i*s.stride)%experts] = true
				}
				for e := range experts {
					if s.wants(e) != want[e] {
						t.Fatalf("%+v of %d experts, step or token %d: expert %d is wanted: %v", h, experts, at, e, s.wants(e))
					}
				}
			}
		}
	}
}

func TestHotRefuses(t *testing.T) {
	for _, reference := range []string{"hot:", "hot:80", "hot:x:4", "hot:101:4", "hot:80:0", "hot:80:65", "hot:80:4:1", "hot:NaN:4"} {
		if _, err := Load(reference, nil, -1); err == nil {
			t.Errorf("%s is accepted", reference)
		}
	}
	if _, err := Load("w3-spread", []string{"hot.experts=33"}, -1); err == nil {
		t.Error("33 of 64 experts are every other one")
	}
}
