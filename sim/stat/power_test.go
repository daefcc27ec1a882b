package stat

import (
	"math"
	"testing"
)

func TestLeastSeeds(t *testing.T) {
	for _, row := range []struct {
		alpha float64
		pairs int
		want  int
	}{
		{0.05, 1, 6}, {0.05, 2, 7}, {0.05, 3, 7}, {0.05, 4, 8}, {0.05, 10, 9}, {0.01, 1, 8}, {0.0625, 1, 5}, {0.06, 1, 6},
		{1, 1, 0}, {0, 1, 0}, {0.05, 0, 0}, {math.NaN(), 1, 0},
	} {
		if got := LeastSeeds(row.alpha, row.pairs); got != row.want {
			t.Errorf("α = %v, %d pairs: %d, want %d", row.alpha, row.pairs, got, row.want)
		}
	}
}

// TestLeastSeedsIsTheTests holds LeastSeeds to the test itself: the clearest sample is significant from there on only.
func TestLeastSeedsIsTheTests(t *testing.T) {
	for pairs := 1; pairs <= 12; pairs++ {
		for n := 1; n <= 14; n++ {
			p := make([]float64, pairs)
			for i := range p {
				p[i] = Wilcoxon(ranksWith(n, 0)).P
			}
			if got, want := Holm(p)[0] <= 0.05, n >= LeastSeeds(0.05, pairs); got != want {
				t.Errorf("%d pairs, %d seeds: significant %v, want %v", pairs, n, got, want)
			}
		}
	}
}

// The first three are G*Power's published ones for two dependent means and those of R 4.2.2's power.t.test (33.37, 14.30 and
// 198.15 before rounding up); all, and the powers at n and n − 1, are of scipy 1.10.1's noncentral t.
func TestSeedsNeededPublished(t *testing.T) {
	for _, row := range []struct {
		dz, alpha, power float64
		n                int
		at, before       float64
	}{
		{0.5, 0.05, 0.8, 34, 0.8077775012792737, 0.7953658414875044},
		{0.8, 0.05, 0.8, 15, 0.8213105387243314, 0.7900877506596767},
		{0.2, 0.05, 0.8, 199, 0.8016910240377381, 0.7996983729009147},
		{0.5, 0.05, 0.95, 54, 0.9502120367230473, 0.9465273425146032},
		{0.3, 0.01, 0.9, 169, 0.9006991654900989, 0.8986460299358919},
		{1, 0.05, 0.8, 10, 0.8030968566475513, 0.7480170922787446},
		{-1.5, 0.05, 0.9, 7, 0.9076630825855859, 0.8325292796543193},
		{3, 0.05, 0.8, 4, 0.9670006399114621, 0.7452680069825895},
		{0.05, 0.05, 0.8, 3142, 0.8000667584554338, 0.7999418500794451},
		{0.5, 0.05 / 3, 0.8, 45, 0.8023581591411153, 0.791408214617914},
	} {
		if n, ok := SeedsNeeded(row.dz, row.alpha, row.power); n != row.n || !ok {
			t.Errorf("d_z = %v at α = %v and power %v: %d, want %d", row.dz, row.alpha, row.power, n, row.n)
		}
		near(t, "power", Power(row.dz, row.n, row.alpha), row.at, 1e-9)
		near(t, "power before", Power(row.dz, row.n-1, row.alpha), row.before, 1e-9)
	}
}

func TestSeedsNeededWithout(t *testing.T) {
	for _, row := range [][3]float64{
		{0, 0.05, 0.8}, {0.001, 0.05, 0.8}, {math.NaN(), 0.05, 0.8}, {1, 0, 0.8}, {1, 1, 0.8}, {1, 0.05, 1}, {1, 0.05, 0},
	} {
		if n, ok := SeedsNeeded(row[0], row[1], row[2]); ok || n != 0 {
			t.Errorf("%v: %d, %v", row, n, ok)
		}
	}
	if n, ok := SeedsNeeded(math.Inf(-1), 0.05, 0.8); n != 2 || !ok {
		t.Errorf("infinite d_z: %d, %v", n, ok)
	}
	near(t, "power of no effect", Power(0, 12, 0.05), 0.05, 1e-9)
	if !math.IsNaN(Power(1, 1, 0.05)) || !math.IsNaN(LeastEffect(1, 0.05, 0.8)) || !math.IsNaN(LeastEffect(9, 0.05, 1)) {
		t.Error("one seed has a power, or 1 is a power that can be reached")
	}
}

func TestLeastEffectTurnsPowerRound(t *testing.T) {
	for n := 2; n <= 40; n++ {
		dz := LeastEffect(n, 0.05, 0.8)
		near(t, "power of the least effect", Power(dz, n, 0.05), 0.8, 1e-9)
		if needed, ok := SeedsNeeded(dz*1.0001, 0.05, 0.8); needed != n || !ok {
			t.Errorf("least effect %v of %d seeds needs %d", dz, n, needed)
		}
	}
}
