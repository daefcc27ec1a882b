package stat

import (
	"math"
	"slices"
	"testing"

	"evenkeel/internal/rng"
)

func repeated(batches ...float64) (x []float64) {
	for _, b := range batches {
		x = append(x, b-2, b-1, b, b+1, b+2)
	}
	return x
}

func TestMSER5ByHand(t *testing.T) {
	// Batch means 9, 1, 2, 1, 2, 1, 2, 1: MSER(0) = 52.875/64, MSER(1) = (12/7)/49 = 0.035, MSER(2) = 1.5/36 = 0.042.
	if first, err := MSER5(repeated(9, 1, 2, 1, 2, 1, 2, 1)); err != nil || first != 5 {
		t.Errorf("%d, %v; want 5", first, err)
	}
	// Nothing to cut: MSER(0) = 2/64 = 0.031, and every later one is larger.
	if first, err := MSER5(repeated(1, 2, 1, 2, 1, 2, 1, 2)); err != nil || first != 0 {
		t.Errorf("%d, %v; want 0", first, err)
	}
	// Equal values: 0 everywhere, and the smallest counts. Three more observations fill no batch.
	if first, err := MSER5(append(make([]float64, 20), 7, 7, 7)); err != nil || first != 0 {
		t.Errorf("%d, %v; want 0", first, err)
	}
}

func TestMSER5Fails(t *testing.T) {
	var rising []float64
	for i := range 100 {
		rising = append(rising, float64(i))
	}
	for what, x := range map[string][]float64{
		"a trend that never ends": rising, "a jump at the middle": repeated(9, 9, 9, 9, 1, 2, 1, 2), "nine": make([]float64, 9),
		"none": nil, "a NaN": append(make([]float64, 20), math.NaN()),
	} {
		if first, err := MSER5(x); err == nil {
			t.Errorf("%s: %d", what, first)
		}
	}
}

// The minimum found by numpy 1.24.2 over the batch means of 100 exp(−k/15), rounded, + 37k mod 11; the last batches, which may
// not be cut, have smaller ones.
func TestMSER5OfADecay(t *testing.T) {
	var x []float64
	for k := range 203 {
		x = append(x, math.Round(100*math.Exp(-float64(k)/15))+float64(k*37%11))
	}
	if first, err := MSER5(x); err != nil || first != 75 {
		t.Errorf("%d, %v; want 75", first, err)
	}
}

func TestMSER5Properties(t *testing.T) {
	for key := range uint64(50) {
		// A step down after 20 to 100 observations of 400, twelve standard deviations high.
		x := normals(rng.Key(key, rng.Resample), 400)
		warm := 20 + 5*int(key%17)
		for i := range warm {
			x[i] += 12
		}
		first, err := MSER5(x)
		if err != nil || first < warm {
			t.Errorf("a warm-up of %d ends at %d, %v", warm, first, err)
		}
		if again, _ := MSER5(scaled(x, -4)); again != first {
			t.Errorf("the end moves from %d to %d with the unit", first, again)
		}
		tail := slices.Concat(x, []float64{1e6, 1e6})
		if again, _ := MSER5(tail); again != first {
			t.Errorf("observations that fill no batch move the end from %d to %d", first, again)
		}
	}
}
