package bench

import (
	"cmp"
	"math"
	"slices"
	"testing"

	"evenkeel/internal/vec"
	"evenkeel/moe"
)

// plain scores and routes one token in float64, from the definition.
func plain(s *Step, token int, bias bool) (chosen []int32, scores []float64) {
	e, d := s.Experts, s.Width
	scores = make([]float64, e)
	var norm float64
	for x := range e {
		for c := range d {
			scores[x] += float64(s.in.Router[x*d+c]) * float64(s.in.Hidden[token*d+c])
		}
		norm += math.Exp(scores[x])
	}
	for x, z := range scores {
		if scores[x] = 1 / (1 + math.Exp(-z)); s.Score == moe.Softmax {
			scores[x] = math.Exp(z) / norm
		}
	}
	a := slices.Clone(scores)
	if bias {
		for x := range a {
			a[x] += float64(s.in.Bias[x])
		}
		closeGroups(a, s.Layer)
	}
	order := make([]int32, e)
	for x := range order {
		order[x] = int32(x)
	}
	slices.SortStableFunc(order, func(i, j int32) int { return cmp.Compare(a[j], a[i]) })
	chosen = order[:s.TopK]
	slices.Sort(chosen)
	return chosen, scores
}

// closeGroups sets all to −Inf that is not in one of the kept groups with the largest sum of two.
func closeGroups(a []float64, l moe.Layer) {
	size := l.Experts / l.Groups
	rank, order := make([]float64, l.Groups), make([]int, l.Groups)
	for g := range rank {
		members := slices.Clone(a[g*size : (g+1)*size])
		slices.Sort(members)
		order[g], rank[g] = g, members[size-1]
		if size > 1 {
			rank[g] += members[size-2]
		}
	}
	slices.SortStableFunc(order, func(i, j int) int { return cmp.Compare(rank[j], rank[i]) })
	for _, g := range order[l.GroupsKept:] {
		for x := g * size; x < (g+1)*size; x++ {
			a[x] = math.Inf(-1)
		}
	}
}

// A step's lists, gates, loads and measures against float64, on odd shapes and with a tile that is not full.
func TestStepMatchesTheDefinition(t *testing.T) {
	for _, shape := range []Shape{
		{"", 200, moe.Layer{Experts: 20, TopK: 3, Width: 17, Groups: 1, GroupsKept: 1, Score: moe.Softmax}},
		{"", 130, moe.Layer{Experts: 24, TopK: 4, Width: 8, Groups: 4, GroupsKept: 2, Score: moe.Sigmoid}},
		{"", 64, moe.Layer{Experts: 5, TopK: 5, Width: 3, Groups: 1, GroupsKept: 1, Score: moe.Sigmoid}},
	} {
		s, err := NewStep(shape, shape.Draw(3))
		if err != nil {
			t.Fatal(err)
		}
		s.Route()
		load := make([]int64, s.Experts)
		var hits int
		var mass, best float64
		for token := range s.Tokens {
			chosen, scores := plain(s, token, true)
			oracle, _ := plain(s, token, false)
			if got := s.Chosen[token*s.TopK : (token+1)*s.TopK]; !slices.Equal(got, chosen) {
				t.Fatalf("token %d chooses %v, want %v", token, got, chosen)
			}
			var sum float64
			for _, e := range chosen {
				load[e]++
				sum += scores[e]
				if slices.Contains(oracle, e) {
					hits++
				}
			}
			mass += sum
			for _, e := range oracle {
				best += scores[e]
			}
			for i, e := range chosen {
				if g := float64(s.Gates[token*s.TopK+i]); math.Abs(g-scores[e]/sum) > 1e-6 {
					t.Fatalf("gate %v of token %d, want %v", g, token, scores[e]/sum)
				}
			}
		}
		if !slices.Equal(load, s.Load) {
			t.Errorf("loads %v, want %v", s.Load, load)
		}
		if math.Abs(s.Hit-float64(hits)/float64(s.Tokens*s.TopK)) > 1e-12 || math.Abs(s.Mass-mass/best) > 1e-6 {
			t.Errorf("hit rate %v and mass %v, want %v and %v", s.Hit, s.Mass, float64(hits)/float64(s.Tokens*s.TopK), mass/best)
		}
	}
}

// The gradient against central differences of E/(T²K)·Σ_e n_e·Σ_t q_te with the loads held.
func TestTrainMatchesCentralDifferences(t *testing.T) {
	for _, score := range []moe.Score{moe.Softmax, moe.Sigmoid} {
		shape := Shape{"", 100, moe.Layer{Experts: 9, TopK: 2, Width: 5, Groups: 1, GroupsKept: 1, Score: score}}
		s, err := NewStep(shape, shape.Draw(5))
		if err != nil {
			t.Fatal(err)
		}
		s.Train()
		load := slices.Clone(s.Load)
		loss := func() (sum float64) {
			for token := range s.Tokens {
				_, scores := plain(s, token, false)
				var norm, priced float64
				for e, v := range scores {
					norm += v
					priced += float64(load[e]) * v
				}
				if score == moe.Softmax {
					norm = 1
				}
				sum += priced / norm
			}
			return sum * float64(s.Experts) / (float64(s.Tokens) * float64(s.Tokens) * float64(s.TopK))
		}
		for e := range s.Experts {
			for c, got := range s.Gradient(e) {
				w := &s.in.Router[e*s.Width+c]
				old := *w
				*w = old + 1./512
				up, hi := loss(), float64(*w)
				*w = old - 1./512
				want := (up - loss()) / (hi - float64(*w))
				*w = old
				if math.Abs(float64(got)-want) > 1e-6 {
					t.Fatalf("%v: gradient %v of weight %d, %d, want %v", score, got, e, c, want)
				}
			}
		}
	}
}

func TestStepsAllocateNothing(t *testing.T) {
	shape := Shape{"", 300, moe.Layer{Experts: 40, TopK: 5, Width: 20, Groups: 1, GroupsKept: 1, Score: moe.Sigmoid}}
	s, err := NewStep(shape, shape.Draw(1))
	if err != nil {
		t.Fatal(err)
	}
	for name, run := range map[string]func(){"route": s.Route, "train": s.Train, "generate": s.Generate} {
		if n := testing.AllocsPerRun(5, run); n > 0 {
			t.Errorf("%s allocates %v times", name, n)
		}
	}
}

func TestStepsHaveTheSameBits(t *testing.T) {
	t.Cleanup(func() { vec.Use("auto") })
	for _, shape := range Shapes() {
		shape.Tokens = 300
		var want []float32
		for _, kernel := range vec.Kernels() {
			if err := vec.Use(kernel); err != nil {
				t.Fatal(err)
			}
			s, err := NewStep(shape, shape.Draw(2))
			if err != nil {
				t.Fatal(err)
			}
			s.Generate()
			got := append(slices.Clone(s.Gates), float32(s.Mass))
			s.Train()
			for e := range s.Experts {
				got = append(got, s.Gradient(e)...)
			}
			if want == nil {
				want = got
			}
			if !slices.Equal(got, want) {
				t.Errorf("shape %s: %s gives other bits than %s", shape.Name, kernel, vec.Kernels()[0])
			}
		}
	}
}
