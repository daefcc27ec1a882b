package stat

import (
	"math"
	"slices"
	"testing"

	"evenkeel/internal/rng"
)

// R 4.2.2: p.adjust(p, "holm").
func TestHolmPublished(t *testing.T) {
	for _, row := range []struct{ p, want []float64 }{
		{[]float64{0.01, 0.04, 0.03, 0.005}, []float64{0.03, 0.06, 0.06, 0.02}},
		{[]float64{0.0121, 0.0142, 0.1986, 0.0382, 0.5, 0.0142, 0.9}, []float64{0.0847, 0.0852, 0.5958, 0.1528, 1, 0.0852, 1}},
		{[]float64{0.2}, []float64{0.2}},
		{nil, nil},
	} {
		got := Holm(row.p)
		if len(got) != len(row.want) {
			t.Fatalf("%v: %v", row.p, got)
		}
		for i := range got {
			near(t, "adjusted p", got[i], row.want[i], 1e-14)
		}
	}
	got := Holm([]float64{0.01, math.NaN(), 0.02})
	if got[0] != 0.03 || !math.IsNaN(got[1]) || got[2] != 0.04 {
		t.Errorf("with a NaN: %v, want 0.03, NaN, 0.04", got)
	}
}

func TestHolmProperties(t *testing.T) {
	for key := range uint64(100) {
		r := rng.New(key)
		p := make([]float64, 1+key%9)
		for i := range p {
			p[i] = float64(r.IntN(20)) / 40
		}
		adjusted := Holm(p)
		for i := range p {
			if adjusted[i] < p[i] || adjusted[i] > min(1, float64(len(p))*p[i]) {
				t.Errorf("%v of %v lies outside p and Bonferroni's m p", adjusted[i], p)
			}
			for j := range p {
				if p[i] <= p[j] && adjusted[i] > adjusted[j] {
					t.Errorf("%v becomes %v: the order turns", p, adjusted)
				}
			}
		}
		slices.Reverse(p)
		slices.Reverse(adjusted)
		if again := Holm(p); !slices.Equal(again, adjusted) {
			t.Errorf("%v reversed becomes %v, want %v", p, again, adjusted)
		}
	}
}
