package rng

import (
	"math"
	"testing"
)

func TestKeySeparatesEveryPart(t *testing.T) {
	seen := map[uint64][3]uint64{}
	for seed := range uint64(8) {
		for p := World; p <= Floor; p++ {
			for place := range uint64(50) {
				k := Key(seed, p, place)
				if old, ok := seen[k]; ok {
					t.Fatalf("key of %v equals key of %v", [3]uint64{seed, uint64(p), place}, old)
				}
				seen[k] = [3]uint64{seed, uint64(p), place}
			}
		}
	}
	if Key(1, World, 2, 3) == Key(1, World, 3, 2) {
		t.Error("the order of a place's numbers does not matter, and it must")
	}
}

func TestIntNIsUniform(t *testing.T) {
	const n, draws = 7, 70_000
	var count [n]float64
	r := New(1)
	for range draws {
		count[r.IntN(n)]++
	}
	var chi2 float64
	for _, c := range count {
		chi2 += (c - draws/n) * (c - draws/n) / (draws / n)
	}
	if chi2 > 22.5 { // 0.999 quantile, 6 degrees of freedom
		t.Errorf("chi-squared %.1f with 6 degrees of freedom", chi2)
	}
}

func TestPermIsAPermutation(t *testing.T) {
	p := make([]int32, 100)
	r := New(2)
	r.Perm(p)
	seen := make([]bool, len(p))
	for _, v := range p {
		if seen[v] {
			t.Fatalf("%d occurs twice", v)
		}
		seen[v] = true
	}
}

func TestAliasFollowsItsWeights(t *testing.T) {
	w := []float64{5, 0, 1, 3, 1}
	a, err := NewAlias(w)
	if err != nil {
		t.Fatal(err)
	}
	const draws = 200_000
	count := make([]float64, len(w))
	r := New(3)
	for range draws {
		count[a.Draw(r.Uint64())]++
	}
	for i, c := range count {
		p := w[i] / 10
		if sd := math.Sqrt(draws * p * (1 - p)); math.Abs(c-draws*p) > 4*sd {
			t.Errorf("index %d drawn %.0f times, want %.0f", i, c, draws*p)
		}
	}
	for _, bad := range [][]float64{{}, {0, 0}, {1, -1}, {math.NaN()}, {math.Inf(1)}} {
		if _, err := NewAlias(bad); err == nil {
			t.Errorf("weights %v are accepted", bad)
		}
	}
}
