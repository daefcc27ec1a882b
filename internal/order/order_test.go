package order

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

func TestNth(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 500 {
		a := make([]int64, 1+r.IntN(40))
		for i := range a {
			a[i] = int64(r.IntN(1 + r.IntN(30)))
		}
		want, n := slices.Sorted(slices.Values(a)), r.IntN(len(a))
		if got := Nth(a, n); got != want[n] || a[n] != got {
			t.Fatalf("Nth(%d) = %d, want %d of %v", n, got, want[n], want)
		}
		if slices.Max(a[:n+1]) > a[n] || slices.Min(a[n:]) < a[n] {
			t.Fatalf("not parted at %d: %v", n, a)
		}
	}
}

// Lists in order are selected from in linear time as well: a quadratic selection would take many seconds here.
func TestNthOfOrderedLists(t *testing.T) {
	const n = 1 << 18
	for name, at := range map[string]func(i int) int64{
		"ascending": func(i int) int64 { return int64(i) }, "descending": func(i int) int64 { return int64(n - i) },
		"up and down": func(i int) int64 { return int64(min(2*i, 2*(n-i)-1)) },
	} {
		a := make([]int64, n)
		for i := range a {
			a[i] = at(i)
		}
		begin := time.Now()
		Nth(a, n-n/64)
		if d := time.Since(begin); d > 2*time.Second {
			t.Errorf("%s: %v", name, d)
		}
	}
}

func TestKeysKeepOrder(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	inf := float32(math.Inf(1))
	x := []float32{-inf, -math.MaxFloat32, -1, -math.SmallestNonzeroFloat32, 0, math.SmallestNonzeroFloat32, 1, math.MaxFloat32, inf}
	for range 1000 {
		x = append(x, float32(r.NormFloat64()))
	}
	slices.Sort(x)
	for i, v := range x {
		if back := Value(Key(math.Float32bits(v))); back != v {
			t.Fatalf("%v comes back as %v", v, back)
		}
		if i > 0 && x[i-1] < v && Key(math.Float32bits(x[i-1])) >= Key(math.Float32bits(v)) {
			t.Fatalf("keys of %v and %v are not in order", x[i-1], v)
		}
	}
}
