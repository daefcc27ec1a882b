package metrics

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

func near(t *testing.T, what string, got, want, tolerance float64) {
	t.Helper()
	if !(math.Abs(got-want) <= tolerance) {
		t.Errorf("%s = %v, want %v ± %v", what, got, want, tolerance)
	}
}

func TestMeasureByHand(t *testing.T) {
	half := math.Log(2) / math.Log(4)
	for _, test := range []struct {
		n    []int64
		want Load
	}{
		{[]int64{5, 5, 5, 5}, Load{Entropy: 1, Jain: 1, Min: 1}},
		{[]int64{0, 8, 0, 0}, Load{3, 3, math.Sqrt(3), 0, 0.75, 0.25, 0, 3, 3}},
		{[]int64{4, 0, 4, 0}, Load{1, 1, 1, half, 0.5, 0.5, 0, 2, 2}},
		// r = 2/5, 4/5, 6/5, 8/5; l = .1, .2, .3, .4.
		{[]int64{3, 1, 4, 2}, Load{0.6, 0.2, math.Sqrt(0.2), 1.2798542258336676 / math.Log(4), 0.25, 100.0 / 120, 0.4, 0, 0}},
		{[]int64{1, 99}, Load{0.98, 0.9604, 0.98, 0.056001534354847345 / math.Ln2, 0.49, 10000.0 / 19604, 0.02, 0, 1}},
		{[]int64{7}, Load{Entropy: 1, Jain: 1, Min: 1}},
	} {
		got := Measure(test.n)
		name := fmt.Sprint(test.n)
		near(t, name+" MaxVio", got.MaxVio, test.want.MaxVio, 1e-15)
		near(t, name+" Variance", got.Variance, test.want.Variance, 1e-15)
		near(t, name+" CV", got.CV, test.want.CV, 1e-15)
		near(t, name+" Entropy", got.Entropy, test.want.Entropy, 2e-15)
		near(t, name+" Gini", got.Gini, test.want.Gini, 1e-15)
		near(t, name+" Jain", got.Jain, test.want.Jain, 1e-15)
		near(t, name+" Min", got.Min, test.want.Min, 1e-15)
		if got.Dead != test.want.Dead || got.Starved != test.want.Starved {
			t.Errorf("%v: %d dead and %d starved, want %d and %d", test.n, got.Dead, got.Starved, test.want.Dead, test.want.Starved)
		}
	}
}

func TestStarvedIsStrict(t *testing.T) {
	// The first expert has exactly r = 5·4/400 = 0.05, then just less.
	if l := Measure([]int64{5, 100, 100, 195}); l.Starved != 0 {
		t.Errorf("r = 0.05 is starved: %+v", l)
	}
	if l := Measure([]int64{49, 1000, 1000, 1951}); l.Starved != 1 || l.Dead != 0 {
		t.Errorf("r = 0.049 is not starved: %+v", l)
	}
}

func TestMeasureOfNothing(t *testing.T) {
	for _, n := range [][]int64{{0, 0, 0}, {}} {
		l := Measure(n)
		for i, v := range []float64{l.MaxVio, l.Variance, l.CV, l.Entropy, l.Gini, l.Jain, l.Min, MaxVio(n), Variance(n)} {
			if !math.IsNaN(v) {
				t.Errorf("figure %d of no assignments is %v, want NaN", i, v)
			}
		}
		if l.Dead != len(n) || l.Starved != len(n) {
			t.Errorf("no assignments: %d dead and %d starved of %d", l.Dead, l.Starved, len(n))
		}
	}
}

func randomLoads(r *rand.Rand, experts int, most int64) []int64 {
	n := make([]int64, experts)
	for i := range n {
		n[i] = r.Int64N(most)
	}
	n[0]++
	return n
}

func TestMeasureIdentities(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 500 {
		n := randomLoads(r, 2+r.IntN(300), 1+r.Int64N(1<<30))
		l := Measure(n)
		near(t, "Jain − 1/(1+CV²)", l.Jain, 1/(1+l.Variance), 1e-12)
		if l.MaxVio != MaxVio(n) || l.Variance != Variance(n) {
			t.Fatalf("the fast forms differ from Measure: %v %v, %+v", MaxVio(n), Variance(n), l)
		}
		twice := slices.Clone(n)
		for i := range twice {
			twice[i] *= 2
		}
		if Measure(twice) != l {
			t.Fatalf("twice the load measures %+v, not %+v", Measure(twice), l)
		}
		if l.Entropy < 0 || l.Entropy > 1 || l.Gini < 0 || l.Gini >= 1 || l.Min > 1 || l.MaxVio < 0 {
			t.Fatalf("out of range: %+v", l)
		}
		slices.Reverse(n)
		near(t, "reversed Entropy", Measure(n).Entropy, l.Entropy, 1e-12)
		if Measure(n).Gini != l.Gini {
			t.Fatal("Gini depends on order")
		}
	}
}

func TestMeasureIsExactAtBalance(t *testing.T) {
	want := Load{Entropy: 1, Jain: 1, Min: 1}
	for _, experts := range []int{1, 3, 49, 64, 160, 256} {
		n := make([]int64, experts)
		for _, each := range []int64{1, 3, 49, 1e6 + 3, 1e9 + 7, 1e12 + 39} {
			for i := range n {
				n[i] = each
			}
			if got := Measure(n); got != want {
				t.Errorf("%d experts with %d each: %+v", experts, each, got)
			}
		}
	}
}

func TestMeanMaxVio(t *testing.T) {
	near(t, "mean", MeanMaxVio([]int64{3, 1, 0, 0, 2, 2, 4, 0}, 2, 2), (0.5+0+1)/3, 1e-15)
	near(t, "mean without idle columns", MeanMaxVio([]int64{3, 1, 0, 2, 2, 0}, 3, 2), (0.5+0)/2, 1e-15)
	if v := MeanMaxVio([]int64{0, 0}, 2, 2); !math.IsNaN(v) {
		t.Errorf("mean of empty rows is %v", v)
	}
	if v := MeanMaxVio(nil, 2, 2); !math.IsNaN(v) {
		t.Errorf("mean of no rows is %v", v)
	}
}

func TestGroupLoads(t *testing.T) {
	n := []int64{1, 2, 3, 4, 5, 6}
	if got := GroupLoads(n, 3, nil); !slices.Equal(got, []int64{3, 7, 11}) {
		t.Errorf("three groups: %v", got)
	}
	into := []int64{9, 9, 9, 9}
	got := GroupLoads(n, 2, into)
	if !slices.Equal(got, []int64{6, 15}) || &got[0] != &into[0] {
		t.Errorf("two groups: %v", got)
	}
}

func TestRaggedShapesPanic(t *testing.T) {
	for name, f := range map[string]func(){
		"GroupLoads":        func() { GroupLoads(make([]int64, 6), 4, nil) },
		"MeanMaxVio":        func() { MeanMaxVio(make([]int64, 6), 4, 4) },
		"DomainInformation": func() { DomainInformation(make([]int64, 6), 4) },
		"SamplingFloor":     func() { SamplingFloor(4, 5, 1) },
		"DeviceFloor":       func() { DeviceFloor(6, 2, 4, 1) },
		"PairedInterval":    func() { PairedInterval([]float64{1}, nil) },
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if recover() == nil {
					t.Error("no panic")
				}
			}()
			f()
		})
	}
}

func TestDomainInformation(t *testing.T) {
	for _, test := range []struct {
		n       []int64
		domains int
		want    float64
	}{
		{[]int64{1, 2, 3, 10, 20, 30}, 2, 0},
		{[]int64{5, 0, 0, 5}, 2, 1},
		{[]int64{5, 0, 0, 0, 0, 5, 0, 0, 0, 0, 5, 0, 0, 0, 0, 5}, 4, 2},
		{[]int64{3, 1, 1, 3}, 2, 1 - 0.8112781244591328}, // 1 bit − H(1/4)
		{[]int64{4, 0, 0, 0}, 2, 0},                      // one domain has no tokens
	} {
		near(t, fmt.Sprint(test.n), DomainInformation(test.n, test.domains), test.want, 1e-15)
	}
	if v := DomainInformation(make([]int64, 4), 2); !math.IsNaN(v) {
		t.Errorf("information of nothing is %v", v)
	}
}

func TestDomainInformationFloor(t *testing.T) {
	const experts, topk, domains, tokens, repetitions = 32, 4, 4, 4000, 300
	var d draws
	d.Seed(5, 6)
	n, left := make([]int64, domains*experts), make([]int64, topk+1)
	mean := 0.0
	for range repetitions {
		for i := range domains {
			d.loads(n[i*experts:(i+1)*experts], left, tokens*(i+1)/10)
		}
		mean += DomainInformation(n, domains) / repetitions
	}
	want := DomainInformationFloor(experts, topk, domains, tokens)
	near(t, "floor by formula", want, 28.0*3/(2*4000*4*math.Ln2), 1e-18)
	// The 93 cells make a χ², so one estimate is off by √(2/93) of itself and the mean by 0.85 %.
	near(t, "information of noise", mean, want, 0.03*want)
	if wrong := want * (experts - 1) / (experts - topk); math.Abs(mean-wrong) < 0.07*wrong {
		t.Errorf("%v is the bias with replacement", mean)
	}
	if v := DomainInformationFloor(experts, topk, domains, 0); !math.IsNaN(v) {
		t.Errorf("floor without tokens is %v", v)
	}
}

func TestMeasuringDoesNotAllocate(t *testing.T) {
	n := randomLoads(rand.New(rand.NewPCG(3, 4)), 256, 1000)
	into := make([]int64, 8)
	for name, f := range map[string]func(){
		"MaxVio":     func() { MaxVio(n) },
		"Variance":   func() { Variance(n) },
		"MeanMaxVio": func() { MeanMaxVio(n, 64, 64) },
		"GroupLoads": func() { GroupLoads(n, 8, into) },
		"Measure":    func() { Measure(n) },
	} {
		if a := testing.AllocsPerRun(100, f); a != 0 {
			t.Errorf("%s allocates %v times", name, a)
		}
	}
}

func BenchmarkLoad(b *testing.B) {
	n := randomLoads(rand.New(rand.NewPCG(3, 4)), 256, 1000)
	for _, bench := range []struct {
		name string
		f    func()
	}{{"MaxVio", func() { MaxVio(n) }}, {"Variance", func() { Variance(n) }}, {"Measure", func() { Measure(n) }}} {
		b.Run(bench.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				bench.f()
			}
		})
	}
}
