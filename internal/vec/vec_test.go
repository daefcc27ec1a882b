package vec

import (
	"math"
	"math/rand/v2"
	"slices"
	"sort"
	"testing"
)

func TestExpAndLogAreClose(t *testing.T) {
	ulp := func(x float64) float64 {
		f := float32(x)
		return float64(math.Nextafter32(f, math.MaxFloat32)) - float64(f)
	}
	var worst float64
	for x := float32(-86.9); x < 87.9; x += 0.00137 {
		want := math.Exp(float64(x))
		worst = max(worst, math.Abs(float64(Exp(x))-want)/ulp(want))
	}
	if worst > 1.4 {
		t.Errorf("Exp is off by %.2f units in the last place", worst)
	}
	worst = 0
	for x := float32(1e-30); x < 1e30; x *= 1.00173 {
		want := math.Log(float64(x))
		worst = max(worst, math.Abs(float64(Log(x))-want)/max(math.Abs(want), 0.25))
	}
	if worst > 4e-7 {
		t.Errorf("Log is off by %.2g", worst)
	}
	if Log(1) != 0 || Exp(0) != 1 || Exp(-1e9) != Exp(-87) || Exp(1e9) != Exp(88) {
		t.Error("Log(1), Exp(0) or the clamps are wrong")
	}
	for x := -600.0; x < 600; x += 0.317 {
		if e := math.Abs(Exp64(x)/math.Exp(x) - 1); e > 1e-15 {
			t.Fatalf("Exp64(%v) is off by %.2g", x, e)
		}
	}
	for x := -50.0; x < 50; x += 0.0317 {
		if e := math.Abs(Cos64(x) - math.Cos(x)); e > 1e-15*(1+math.Abs(x)) {
			t.Fatalf("Cos64(%v) is off by %.2g", x, e)
		}
	}
	for x := 1e-200; x < 1e200; x *= 1.37 {
		if want := math.Log(x); math.Abs(Log64(x)-want) > 1e-15*max(1, math.Abs(want)) {
			t.Fatalf("Log64(%v) = %v, want %v", x, Log64(x), want)
		}
	}
}

func TestNormalsHaveTheSameBits(t *testing.T) {
	t.Cleanup(func() { Use("auto") })
	for _, n := range []int{0, 32, 64, 4096, 1 << 20} {
		want := make([]float32, n)
		Use("portable")
		Normals(want, uint64(n))
		for _, kernel := range Kernels() {
			Use(kernel)
			got := guarded(t, n)
			Normals(got, uint64(n))
			for i := range got {
				if math.Float32bits(got[i]) != math.Float32bits(want[i]) {
					t.Fatalf("%s: number %d of %d is %x, portable %x", kernel, i, n, got[i], want[i])
				}
			}
		}
	}
}

func TestNormalsHaveTheirMoments(t *testing.T) {
	const n = 1 << 20
	x := make([]float32, n)
	Normals(x, 42)
	var m [5]float64
	for _, v := range x {
		p := 1.0
		for i := range m {
			m[i] += p / n
			p *= float64(v)
		}
	}
	for i, want := range []float64{1, 0, 1, 0, 3} {
		sd := []float64{0, 1, math.Sqrt2, math.Sqrt(15), math.Sqrt(96)}[i] / math.Sqrt(n)
		if math.Abs(m[i]-want) > 4*sd+1e-9 {
			t.Errorf("moment %d is %.5f, want %.0f within %.5f", i, m[i], want, 4*sd)
		}
	}
	var cross float64 // the two numbers of a pair are 16 places apart
	for i := 0; i+16 < n; i++ {
		cross += float64(x[i]) * float64(x[i+16]) / n
	}
	if math.Abs(cross) > 4/math.Sqrt(n) {
		t.Errorf("numbers 16 apart correlate by %.5f", cross)
	}
	y := make([]float32, 64)
	Normals(y, 42)
	if !slices.Equal(y, x[:64]) {
		t.Error("the same key gives other numbers for another length")
	}
}

func randomTile(r *rand.Rand, rows int) []float32 {
	x := make([]float32, rows*Lanes)
	for i := range x {
		x[i] = float32(r.NormFloat64())
	}
	return x
}

// eachKernel runs a test with every kernel that this machine has.
func eachKernel(t *testing.T, test func(t *testing.T)) {
	t.Cleanup(func() { Use("auto") })
	for _, name := range Kernels() {
		if err := Use(name); err != nil {
			t.Fatal(err)
		}
		t.Run(name, test)
	}
}

// guarded returns a slice of n numbers with canaries on both sides, and a check that they live.
func guarded(t *testing.T, n int) []float32 {
	const width, canary = 64, 12345.5
	all := make([]float32, n+2*width)
	for i := range all {
		all[i] = canary
	}
	clear(all[width : width+n])
	t.Cleanup(func() {
		for i := range width {
			if all[i] != canary || all[width+n+i] != canary {
				t.Fatal("a kernel wrote outside its buffer")
			}
		}
	})
	return all[width : width+n : width+n]
}

func TestProductsMatchPlainSums(t *testing.T) {
	eachKernel(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(1, 2))
		shapes := [][2]int{{1, 1}, {7, 3}, {8, 32}, {64, 64}, {13, 5}, {9, 33}, {256, 128}}
		for range 40 {
			shapes = append(shapes, [2]int{1 + r.IntN(40), 1 + r.IntN(100)})
		}
		for _, shape := range shapes {
			rows, cols := shape[0], shape[1]
			w := make([]float32, rows*cols)
			for i := range w {
				w[i] = float32(r.NormFloat64())
			}
			x, z := randomTile(r, cols), guarded(t, rows*Lanes)
			m := NewMatrix(rows, cols)
			m.Set(w)
			m.Times(z, x, NewScratch(cols))
			g, sum := randomTile(r, rows), NewGradient(rows, cols)
			sum.sum = guarded(t, len(sum.sum))
			scratch := guarded(t, len(NewScratch(cols)))
			sum.Add(g, x, scratch)
			table := make([]float32, len(x))
			for c := range cols {
				for tok := range Lanes {
					table[tok*cols+c] = x[c*Lanes+tok]
				}
			}
			sum.AddRows(g, table, scratch)
			for e := range rows {
				for tok := range Lanes {
					var v float32
					for c := range cols {
						v += float32(w[e*cols+c] * x[c*Lanes+tok])
					}
					if z[e*Lanes+tok] != v {
						t.Fatalf("%v: z[%d][%d] = %v, want %v", shape, e, tok, z[e*Lanes+tok], v)
					}
				}
				for c := range cols {
					var v float32
					for range 2 {
						for tok := range Lanes {
							v += float32(g[e*Lanes+tok] * x[c*Lanes+tok])
						}
					}
					if sum.Row(e)[c] != v {
						t.Fatalf("%v: gradient [%d][%d] = %v, want %v", shape, e, c, sum.Row(e)[c], v)
					}
				}
			}
		}
	})
}

// Every score and its derivative against float64 and central differences of Σ u_e·s_e.
func TestScoresAndTheirDerivatives(t *testing.T) {
	const rows = 9
	type score struct {
		name     string
		forward  func(s, z []float32, rows int)
		backward func(g, s []float32, rows int)
		exact    func(z []float64) []float64
	}
	each := func(f func(float64) float64) func([]float64) []float64 {
		return func(z []float64) []float64 {
			s := make([]float64, len(z))
			for i, v := range z {
				s[i] = f(v)
			}
			return s
		}
	}
	for _, sc := range []score{
		{"sigmoid", Sigmoid, SigmoidBackward, each(func(z float64) float64 { return 1 / (1 + math.Exp(-z)) })},
		{"sqrt-softplus", SqrtSoftplus, SqrtSoftplusBackward, each(func(z float64) float64 { return math.Sqrt(math.Log1p(math.Exp(z))) })},
		{"softmax", Softmax, SoftmaxBackward, func(z []float64) []float64 {
			var sum float64
			s := make([]float64, len(z))
			for i, v := range z {
				s[i] = math.Exp(v)
				sum += s[i]
			}
			for i := range s {
				s[i] /= sum
			}
			return s
		}},
	} {
		r := rand.New(rand.NewPCG(3, 4))
		z, u := randomTile(r, rows), randomTile(r, rows)
		for i := range z {
			z[i] *= 4
		}
		s, g := make([]float32, len(z)), slices.Clone(u)
		sc.forward(s, z, rows)
		sc.backward(g, s, rows)
		for tok := range Lanes {
			column := make([]float64, rows)
			for e := range rows {
				column[e] = float64(z[e*Lanes+tok])
			}
			want := sc.exact(column)
			value := func() (v float64) {
				for e, p := range sc.exact(column) {
					v += float64(u[e*Lanes+tok]) * p
				}
				return v
			}
			top := slices.Max(column)
			for e := range rows {
				// The largest logit is taken from all of a softmax, which rounds them.
				if d := math.Abs(float64(s[e*Lanes+tok])-want[e]) / want[e]; d > 6e-7+(top-column[e])*0x1p-24 {
					t.Fatalf("%s(%v) is off by %.2g", sc.name, z[e*Lanes+tok], d)
				}
				const h = 1e-5
				old := column[e]
				column[e] = old + h
				up := value()
				column[e] = old - h
				diff := (up - value()) / (2 * h)
				column[e] = old
				if d := math.Abs(float64(g[e*Lanes+tok]) - diff); d > 3e-6 {
					t.Fatalf("%s: derivative at %v is %v, want %v", sc.name, old, g[e*Lanes+tok], diff)
				}
			}
		}
	}
}

// Scores and their derivatives have the portable kernel's bits, at ordinary values and at extreme ones.
func TestScoresHaveTheSameBits(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	functions := map[string]func(to, from []float32, rows int){"sigmoid": Sigmoid, "softmax": Softmax, "sqrt-softplus": SqrtSoftplus,
		"sigmoid backward": SigmoidBackward, "softmax backward": SoftmaxBackward, "sqrt-softplus backward": SqrtSoftplusBackward}
	extreme := []float32{0, float32(math.Copysign(0, -1)), 1e-40, -1e-40, 87, -87.5, 88.5, -1e30, 1e30, 0.25, -0.25, 0.5, 1e-20}
	for range 50 {
		rows := 1 + r.IntN(30)
		from, to := randomTile(r, rows), randomTile(r, rows)
		scale := float32(math.Exp(4*r.NormFloat64() - 2))
		for i := range from {
			from[i] *= scale
			if r.IntN(20) == 0 {
				from[i] = extreme[r.IntN(len(extreme))]
			}
		}
		for name, f := range functions {
			want, got := slices.Clone(to), guarded(t, len(to))
			Use("portable")
			f(want, from, rows)
			for _, kernel := range Kernels() {
				Use(kernel)
				copy(got, to)
				f(got, from, rows)
				for i := range got {
					if math.Float32bits(got[i]) != math.Float32bits(want[i]) && got[i] == got[i] {
						t.Fatalf("%s of %s: %v from %v gives %x, portable %x", name, kernel, to[i], from[i], got[i], want[i])
					}
				}
			}
		}
	}
	Use("auto")
}

// Every kernel of tallies and streams has the portable kernel's bits, and writes nothing outside its buffers.
func TestTalliesHaveTheSameBits(t *testing.T) {
	t.Cleanup(func() { Use("auto") })
	r := rand.New(rand.NewPCG(9, 10))
	for range 60 {
		rows, width := 1+r.IntN(40), 1+r.IntN(70)
		s, ideal, a, b := randomTile(r, rows), randomTile(r, rows), randomTile(r, rows), randomTile(r, rows)
		mask, weights := make([]uint64, rows), randomTile(r, 1)[:min(rows, Lanes)]
		for e := range mask {
			mask[e] = r.Uint64() & r.Uint64()
		}
		rowOf := func() *Row { return (*Row)(randomTile(r, 1)) }
		inverse, invIdeal, offset, scale := rowOf(), rowOf(), rowOf(), rowOf()
		table, source := randomTile(r, width), make([]int32, Lanes-r.IntN(2)*r.IntN(Lanes)) // [64][width]
		for i := range source {
			source[i] = int32(r.IntN(Lanes))
		}
		// Each computes into two rows and a tile.
		computations := map[string]func(one, two *Row, tile []float32){
			"SumChosen": func(one, _ *Row, _ []float32) { SumChosen(one, s, mask) },
			"Invert": func(one, _ *Row, _ []float32) {
				SumChosen(one, s, mask)
				Invert(one)
			},
			"Total": func(one, _ *Row, tile []float32) { tile[0] = float32(Total(inverse)) },
			"Load":  func(_, _ *Row, tile []float32) { Load(tile, table, width) },
			"Unload": func(_, _ *Row, tile []float32) {
				there := make([]float32, width*Lanes)
				Load(there, table, width)
				Unload(tile, there, width)
				if !slices.Equal(tile, table[:width*Lanes]) {
					t.Errorf("%s: unloading a loaded table of width %d gives another one", Kernel(), width)
				}
			},
			"SumSquares": func(one, _ *Row, _ []float32) { SumSquares(one, s, rows) },
			"GateError":  func(one, two *Row, tile []float32) { GateError(one, two, tile, s, ideal, mask, inverse, invIdeal, 0.3) },
			"GateGradient": func(one, two *Row, tile []float32) {
				GateError(one, two, tile, s, ideal, mask, inverse, invIdeal, 0.3)
				GateGradient(tile, two, inverse, mask)
			},
			"WeightedSum": func(one, two *Row, _ []float32) { WeightedSum(one, two, s, weights) },
			"AddPrices":   func(_, _ *Row, tile []float32) { AddPrices(tile, weights, offset, scale) },
			"Mix":         func(one, _ *Row, tile []float32) { Mix(one, tile, a, b, 0.7, rows) },
			"Scale":       func(_, _ *Row, tile []float32) { Scale(tile, scale, rows) },
			"Gather":      func(_, _ *Row, tile []float32) { Gather(tile, table, source, width) },
		}
		start := randomTile(r, max(rows, width))
		for name, compute := range computations {
			n := rows
			if name == "Gather" || name == "Load" || name == "Unload" {
				n = width
			}
			var want []float32
			for _, kernel := range slices.Backward(Kernels()) { // portable first
				Use(kernel)
				one, two, tile := guarded(t, Lanes), guarded(t, Lanes), guarded(t, n*Lanes)
				copy(tile, start)
				compute((*Row)(one), (*Row)(two), tile)
				got := slices.Concat(one, two, tile)
				if want == nil {
					want = got
				}
				for i := range got {
					if math.Float32bits(got[i]) != math.Float32bits(want[i]) {
						t.Fatalf("%s of %s, %d rows, width %d: number %d is %x, portable %x", name, kernel, rows, width, i, got[i], want[i])
					}
				}
			}
		}
	}
}

func TestAbove(t *testing.T) {
	eachKernel(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(13, 14))
		odd := []float32{0, float32(math.Copysign(0, -1)), float32(math.NaN()), float32(math.Inf(1)), float32(math.Inf(-1)), 1e-45, -1e-45}
		draw := func() float32 { // ties are as frequent as not
			if r.IntN(8) == 0 {
				return odd[r.IntN(len(odd))]
			}
			return float32(r.IntN(5)-2) / 4
		}
		for range 100 {
			rows := 1 + r.IntN(70)
			s, least, offset := make([]float32, rows*Lanes), make([]float32, rows), new(Row)
			for _, x := range [][]float32{s, least, offset[:]} {
				for i := range x {
					x[i] = draw()
				}
			}
			mask := make([]uint64, rows+1)
			for e := range mask {
				mask[e] = r.Uint64()
			}
			last := mask[rows]
			Above(mask[:rows], s, least, offset)
			if mask[rows] != last {
				t.Fatal("wrote past the end")
			}
			for i, v := range s {
				e, tok := i/Lanes, i%Lanes
				if got, want := mask[e]>>tok&1 != 0, v-offset[tok] > least[e]; got != want {
					t.Fatalf("%v − %v > %v is %v", v, offset[tok], least[e], got)
				}
			}
		}
	})
}

func TestListsMatchPlainOnes(t *testing.T) {
	eachKernel(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(11, 12))
		for range 100 {
			rows, tokens := 1+r.IntN(70), 1+r.IntN(Lanes)
			k := 1 + r.IntN(rows)
			s, inverse, mask := randomTile(r, rows), (*Row)(randomTile(r, 1)), make([]uint64, rows)
			want := make([]float32, tokens*k) // −1 where a token chose fewer
			gates, got := guarded(t, len(want)), make([]int32, len(want))
			for i := range want {
				want[i], got[i] = -1, -1
			}
			for tok := range tokens {
				chosen := r.Perm(rows)[:r.IntN(k+1)]
				slices.Sort(chosen)
				for i, e := range chosen {
					mask[e] |= 1 << tok
					want[tok*k+i] = float32(e)
				}
			}
			Lists(got, gates, mask, s, inverse, k)
			for i, e := range want {
				if float32(got[i]) != e {
					t.Fatalf("%d rows, k = %d: place %d is row %d, want %v", rows, k, i, got[i], e)
				}
				if tok := i / k; e >= 0 && gates[i] != float32(s[int(e)*Lanes+tok]*inverse[tok]) || e < 0 && gates[i] != 0 {
					t.Fatalf("%d rows, k = %d: gate %d is %v", rows, k, i, gates[i])
				}
			}
		}
	})
}

// A token with more rows than the last place holds must not write past the end.
func TestListsStayInside(t *testing.T) {
	eachKernel(t, func(t *testing.T) {
		const k = 2
		mask := []uint64{1 << 63, 1 << 63, 1 << 63, 1 << 63}
		ids, gates := make([]int32, Lanes*k), guarded(t, Lanes*k)
		Lists(ids, gates, mask, make([]float32, len(mask)*Lanes), new(Row), k)
		if got := ids[63*k:]; !slices.Equal(got, []int32{0, 1}) {
			t.Errorf("the last token's list is %v, want the first two rows", got)
		}
	})
}

// referenceChoice is the plain form of a group-limited, biased top-K for one token.
func referenceChoice(a []float32, k, groups, kept int) []int {
	size := len(a) / groups
	rank := make([]float32, groups)
	for g := range rank {
		s := slices.Clone(a[g*size : (g+1)*size])
		slices.Sort(s)
		rank[g] = s[size-1]
		if size > 1 {
			rank[g] += s[size-2]
		}
	}
	order := make([]int, groups)
	for i := range order {
		order[i] = i
	}
	sort.SliceStable(order, func(i, j int) bool { return rank[order[i]] > rank[order[j]] })
	var pool []int
	for _, g := range order[:kept] {
		for e := g * size; e < (g+1)*size; e++ {
			pool = append(pool, e)
		}
	}
	slices.Sort(pool)
	sort.SliceStable(pool, func(i, j int) bool { return a[pool[i]] > a[pool[j]] })
	chosen := pool[:k]
	slices.Sort(chosen)
	return chosen
}

func TestTopKMatchesSorting(t *testing.T) { eachKernel(t, topKMatchesSorting) }

func topKMatchesSorting(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	for range 500 {
		groups := 1 << r.IntN(4)
		size := 1 + r.IntN(20)
		kept := 1 + r.IntN(groups)
		rows := groups * size
		k := 1 + r.IntN(min(40, kept*size))
		q := NewSelector(k, groups) // at first for scores that are not negative, as routers give them
		s := randomTile(r, rows)
		for i := range s {
			s[i] = float32(math.Abs(float64(s[i])))
		}
		topKMatches(t, q, s, nil, groups, kept, r.Uint64())
		s, bias := randomTile(r, rows), make([]float32, rows)
		for e := range bias {
			bias[e] = float32(r.NormFloat64())
		}
		if r.IntN(2) == 0 { // many ties, zeros of both signs
			for i := range s {
				s[i] = float32(r.IntN(3)) - 1
				if s[i] == 0 && r.IntN(2) == 0 {
					s[i] = float32(math.Copysign(0, -1))
				}
			}
			if clear(bias); r.IntN(2) == 0 {
				bias = nil
			}
		}
		if r.IntN(3) == 0 {
			for i := range s {
				if r.IntN(3) == 0 {
					s[i] = float32(math.Inf(-1))
				}
			}
		}
		topKMatches(t, q, s, bias, groups, kept, r.Uint64())
	}
}

func topKMatches(t *testing.T, q *Selector, s, bias []float32, groups, kept int, live uint64) {
	t.Helper()
	rows, k := len(s)/Lanes, q.k
	mask, allowed := make([]uint64, rows), make([]uint64, groups)
	q.Groups(allowed, s, bias, rows, kept)
	if groups == 1 {
		allowed = nil
	}
	q.TopK(mask, s, bias, live, allowed)
	var sum Row
	sumChosenPortable(&sum, s, mask)
	for tok := range Lanes {
		if math.Float32bits(q.Sum[tok]) != math.Float32bits(sum[tok]) {
			t.Fatalf("the chosen of token %d sum to %v, want %v", tok, q.Sum[tok], sum[tok])
		}
		a := make([]float32, rows)
		var got []int
		for e := range a {
			if a[e] = s[e*Lanes+tok]; bias != nil {
				a[e] += bias[e]
			}
			if mask[e]>>tok&1 != 0 {
				got = append(got, e)
			}
		}
		want := slices.DeleteFunc(referenceChoice(a, k, groups, kept), func(e int) bool { return math.IsInf(float64(a[e]), -1) })
		if live>>tok&1 == 0 {
			want = nil
		}
		if !slices.Equal(got, want) {
			t.Fatalf("k=%d groups=%d kept=%d scores %v: chose %v, want %v", k, groups, kept, a, got, want)
		}
	}
}

// A selector for more rows finds the best few as one of its own for so few does.
func TestBestMatchesTopK(t *testing.T) {
	eachKernel(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(9, 6))
		for range 100 {
			rows := 1 + r.IntN(40)
			own := 1 + r.IntN(rows)
			k := 1 + r.IntN(own)
			s, bias, live := randomTile(r, rows), make([]float32, rows), r.Uint64()
			for e := range bias {
				bias[e] = float32(r.NormFloat64())
			}
			large, small := NewSelector(own, 1), NewSelector(k, 1)
			got, want, whole := make([]uint64, rows), make([]uint64, rows), make([]uint64, rows)
			large.Best(k, got, s, bias, live)
			small.TopK(want, s, bias, live, nil)
			if !slices.Equal(got, want) || large.Sum != small.Sum {
				t.Fatalf("the best %d of %d rows by a selector of %d differ", k, rows, own)
			}
			large.TopK(whole, s, bias, live, nil)
			NewSelector(own, 1).TopK(want, s, bias, live, nil)
			if !slices.Equal(whole, want) {
				t.Fatalf("TopK of %d after Best of %d differs", own, k)
			}
		}
	})
}
