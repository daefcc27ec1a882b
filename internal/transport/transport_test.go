package transport

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// solve runs a new solver and checks everything that holds for any scores.
func solve(t *testing.T, tokens, experts, topk int, scores []float32) *Solver {
	t.Helper()
	s, err := NewSolver(tokens, experts, topk)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Solve(scores); err != nil {
		t.Fatal(err)
	}
	check(t, s, scores)
	return s
}

// check verifies that the assignment is balanced and the certificate closed.
func check(t *testing.T, s *Solver, scores []float32) {
	t.Helper()
	loads := make([]int, s.experts)
	var total float64
	for i := range s.tokens {
		held := s.Choice()[i*s.topk:][:s.topk]
		for j, e := range held {
			if j > 0 && held[j-1] >= e {
				t.Fatalf("experts of token %d are %v, want distinct and ascending", i, held)
			}
			loads[e]++
			total += float64(scores[i*s.experts+int(e)])
		}
	}
	floor := s.tokens * s.topk / s.experts
	ceil := (s.tokens*s.topk + s.experts - 1) / s.experts
	if slices.Min(loads) < floor || slices.Max(loads) > ceil {
		t.Errorf("loads %v, want all in [%d, %d]", loads, floor, ceil)
	}
	if !slices.Equal(loads, s.Loads()) {
		t.Errorf("Loads() = %v, want %v", s.Loads(), loads)
	}
	if total != s.Total() {
		t.Errorf("Total() = %v, want %v", s.Total(), total)
	}
	if primal, dual := s.Certificate(); primal != dual {
		t.Errorf("certificate: primal %d, dual %d", primal, dual)
	}
	if d := s.DualBound(); math.Abs(d-total) > 1e-9*(1+math.Abs(total)) {
		t.Errorf("DualBound() = %v, Total() = %v", d, total)
	}
}

// dual returns D(p) in float64, apart from the code under test.
func dual(tokens, experts, topk int, scores []float32, p []float64) float64 {
	var d float64
	net := make([]float64, experts)
	for t := range tokens {
		for e := range net {
			net[e] = float64(scores[t*experts+e]) - p[e]
		}
		slices.Sort(net)
		for _, v := range net[experts-topk:] {
			d += v
		}
	}
	p = slices.Sorted(slices.Values(p))
	extra := tokens * topk % experts
	for i, v := range p {
		d += float64(tokens*topk/experts) * v
		if i >= experts-extra {
			d += v
		}
	}
	return d
}

// bruteForce returns the optimum by enumeration.
func bruteForce(tokens, experts, topk int, scores []float32) float64 {
	floor := tokens * topk / experts
	extra := tokens * topk % experts
	room, above := slices.Repeat([]int{floor}, experts), 0
	best := math.Inf(-1)
	var visit func(t, e, left int, sum float64)
	visit = func(t, e, left int, sum float64) {
		if left == 0 {
			t, e, left = t+1, 0, topk
		}
		if t == tokens {
			best = max(best, sum)
			return
		}
		if experts-e < left {
			return
		}
		visit(t, e+1, left, sum)
		if room[e] > 0 || room[e] == 0 && above < extra {
			if room[e]--; room[e] < 0 {
				above++
			}
			visit(t, e+1, left-1, sum+float64(scores[t*experts+e]))
			if room[e]++; room[e] == 0 {
				above--
			}
		}
	}
	visit(0, 0, topk, 0)
	return best
}

func TestGolden(t *testing.T) {
	for _, c := range []struct {
		tokens, experts, topk int
		want                  float64
	}{{12, 4, 1, 8.905279}, {24, 8, 2, 35.830168}} {
		scores := make([]float32, 0, c.tokens*c.experts)
		for i := 1; i <= c.tokens; i++ {
			for j := 1; j <= c.experts; j++ {
				n := (7919*i + 104729*j + 1299709*((i*j)%97)) % 1000003
				scores = append(scores, float32(float64(n)/1000003))
			}
		}
		s := solve(t, c.tokens, c.experts, c.topk, scores)
		if math.Abs(s.Total()-c.want) > 1e-6 {
			t.Errorf("T=%d E=%d K=%d: total %.7f, want %.6f", c.tokens, c.experts, c.topk, s.Total(), c.want)
		}
	}
}

func TestEightTokens(t *testing.T) {
	s := solve(t, 8, 4, 1, []float32{
		.90, .40, .30, .20,
		.85, .55, .25, .15,
		.80, .30, .35, .10,
		.70, .65, .20, .25,
		.50, .75, .40, .30,
		.45, .72, .55, .20,
		.30, .68, .61, .35,
		.25, .40, .66, .45,
	})
	if math.Abs(s.Total()-4.88) > 1e-6 {
		t.Errorf("total %v, want 4.88", s.Total())
	}
	if !slices.Equal(s.Loads(), []int{2, 2, 2, 2}) {
		t.Errorf("loads %v, want 2 each", s.Loads())
	}
}

// families of scores, from generic to degenerate.
var families = map[string]func(r *rand.Rand, t, e int) float32{
	"uniform":  func(r *rand.Rand, t, e int) float32 { return r.Float32() },
	"normal":   func(r *rand.Rand, t, e int) float32 { return float32(r.NormFloat64()) },
	"negative": func(r *rand.Rand, t, e int) float32 { return -1000 - r.Float32() },
	"equal":    func(r *rand.Rand, t, e int) float32 { return 0.25 },
	"zero":     func(r *rand.Rand, t, e int) float32 { return 0 },
	"binary":   func(r *rand.Rand, t, e int) float32 { return float32(r.IntN(2)) },
	"ternary":  func(r *rand.Rand, t, e int) float32 { return float32(r.IntN(3) - 1) },
	"column":   func(r *rand.Rand, t, e int) float32 { return float32(e) },
	"rankone":  func(r *rand.Rand, t, e int) float32 { return float32((t*37%11 - 5) * e) },
	"wide":     func(r *rand.Rand, t, e int) float32 { return float32(math.Exp(20 * r.NormFloat64())) },
	"tiny":     func(r *rand.Rand, t, e int) float32 { return math.SmallestNonzeroFloat32 * float32(r.IntN(9)) },
	"huge":     func(r *rand.Rand, t, e int) float32 { return math.MaxFloat32 * (2*r.Float32() - 1) },
}

func draw(name string, seed uint64, tokens, experts int) []float32 {
	r := rand.New(rand.NewPCG(seed, 1))
	scores := make([]float32, 0, tokens*experts)
	for t := range tokens {
		for e := range experts {
			scores = append(scores, families[name](r, t, e))
		}
	}
	return scores
}

func TestBruteForce(t *testing.T) {
	for name := range families {
		t.Run(name, func(t *testing.T) {
			for tokens := 1; tokens <= 6; tokens++ {
				for experts := 1; experts <= 4; experts++ {
					for topk := 1; topk <= experts; topk++ {
						for seed := range uint64(3) {
							scores := draw(name, seed, tokens, experts)
							s := solve(t, tokens, experts, topk, scores)
							want := bruteForce(tokens, experts, topk, scores)
							if math.Abs(s.Total()-want) > 1e-9*math.Abs(want) {
								t.Errorf("T=%d E=%d K=%d seed %d: total %v, want %v", tokens, experts, topk, seed, s.Total(), want)
							}
						}
					}
				}
			}
		})
	}
}

func TestCertificate(t *testing.T) {
	shapes := [][3]int{
		{1, 7, 3}, {5, 16, 1}, {3, 64, 2}, {100, 2, 1}, {97, 10, 3}, {256, 16, 4},
		{200, 33, 32}, {301, 24, 23}, {128, 64, 6}, {40, 100, 9}, {9, 9, 9},
	}
	for name := range families {
		t.Run(name, func(t *testing.T) {
			for _, c := range shapes {
				scores := draw(name, 5, c[0], c[1])
				s := solve(t, c[0], c[1], c[2], scores)
				d := dual(c[0], c[1], c[2], scores, s.Prices())
				if math.Abs(d-s.Total()) > 1e-8*(1+math.Abs(d)) {
					t.Errorf("shape %v: dual at Prices() %v, total %v", c, d, s.Total())
				}
			}
		})
	}
}

func TestWeakDuality(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 3))
	for _, c := range [][3]int{{64, 8, 2}, {61, 9, 4}} {
		scores := draw("normal", 2, c[0], c[1])
		s := solve(t, c[0], c[1], c[2], scores)
		for trial := range 200 {
			p := s.Prices()
			for e := range p {
				p[e] += r.NormFloat64() * math.Pow(10, float64(trial%5-4))
			}
			if d := dual(c[0], c[1], c[2], scores, p); d < s.Total()-1e-9 {
				t.Fatalf("shape %v: D(p) = %v below the total %v", c, d, s.Total())
			}
		}
	}
}

func TestPermutedExperts(t *testing.T) {
	const tokens, experts, topk = 200, 24, 3
	r := rand.New(rand.NewPCG(4, 4))
	for name := range families {
		scores := draw(name, 8, tokens, experts)
		permuted := make([]float32, len(scores))
		perm := r.Perm(experts)
		for i := range tokens {
			for e, f := range perm {
				permuted[i*experts+f] = scores[i*experts+e]
			}
		}
		a, _ := solve(t, tokens, experts, topk, scores).Certificate()
		b, _ := solve(t, tokens, experts, topk, permuted).Certificate()
		if a != b {
			t.Errorf("%s: score %d, with permuted experts %d", name, a, b)
		}
	}
}

func TestHistoryDoesNotMatter(t *testing.T) {
	const tokens, experts, topk = 150, 20, 3
	reused, err := NewSolver(tokens, experts, topk)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		for name := range families {
			scores := draw(name, 6, tokens, experts)
			if err := reused.Solve(scores); err != nil {
				t.Fatal(err)
			}
			check(t, reused, scores)
			fresh := solve(t, tokens, experts, topk, scores)
			if !slices.Equal(reused.Choice(), fresh.Choice()) || !slices.Equal(reused.Prices(), fresh.Prices()) {
				t.Errorf("%s: a used solver and a new one differ", name)
			}
		}
	}
}

func TestErrors(t *testing.T) {
	for _, c := range [][3]int{{0, 4, 1}, {-1, 4, 1}, {4, 4, 0}, {4, 4, 5}, {4, 0, 1}, {1, maxExperts + 1, 1}} {
		if _, err := NewSolver(c[0], c[1], c[2]); err == nil {
			t.Errorf("NewSolver%v: no error", c)
		}
	}
	s, err := NewSolver(3, 4, 2)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Solve(make([]float32, 11)); err == nil {
		t.Error("no error for 11 scores")
	}
	good := draw("uniform", 1, 3, 4)
	if err := s.Solve(good); err != nil {
		t.Fatal(err)
	}
	for _, v := range []float64{math.NaN(), math.Inf(1), math.Inf(-1)} {
		scores := slices.Clone(good)
		scores[2*4+1] = float32(v)
		err := s.Solve(scores)
		if err == nil || !strings.Contains(err.Error(), "token 2 for expert 1") {
			t.Errorf("score %v: error %v, want one naming token 2 and expert 1", v, err)
		}
		check(t, s, good)
	}
}

func TestAllocations(t *testing.T) {
	s, scores := skewed(t, 256, 16, 2)
	if n := testing.AllocsPerRun(5, func() { s.Solve(scores) }); n > 0 {
		t.Errorf("%v allocations per repeated solve, want 0", n)
	}
}

// skewed returns a solver and sigmoid scores of N(m[e], 1.4²), m[e] from
// N(0, 0.5²).
func skewed(tb testing.TB, tokens, experts, topk int) (*Solver, []float32) {
	s, err := NewSolver(tokens, experts, topk)
	if err != nil {
		tb.Fatal(err)
	}
	r := rand.New(rand.NewPCG(1, 7))
	mean := make([]float64, experts)
	for e := range mean {
		mean[e] = 0.5 * r.NormFloat64()
	}
	scores := make([]float32, tokens*experts)
	for i := range scores {
		x := mean[i%experts] + 1.4*r.NormFloat64()
		scores[i] = float32(1 / (1 + math.Exp(-x)))
	}
	return s, scores
}

func BenchmarkSolve(b *testing.B) {
	for _, c := range [][3]int{{2048, 64, 6}, {2048, 256, 8}} {
		b.Run(fmt.Sprintf("T=%d,E=%d,K=%d", c[0], c[1], c[2]), func(b *testing.B) {
			s, scores := skewed(b, c[0], c[1], c[2])
			b.ReportAllocs()
			for b.Loop() {
				if err := s.Solve(scores); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkDualBound(b *testing.B) {
	s, scores := skewed(b, 2048, 256, 8)
	if err := s.Solve(scores); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		s.DualBound()
	}
}
