package metrics

import (
	"compress/gzip"
	"encoding/csv"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"
)

// independent draws T tokens that choose K experts one after the other by weight, independently of one another.
func independent(tokens, topk int, weight []float64) Choices {
	r := rand.New(rand.NewPCG(1, uint64(tokens)))
	c := Choices{Experts: len(weight), TopK: topk}
	for range tokens {
		key := make([]float64, len(weight))
		order := make([]int32, len(weight))
		for e := range key {
			key[e], order[e] = math.Log(weight[e])-math.Log(r.ExpFloat64()), int32(e) // Gumbel
		}
		slices.SortFunc(order, func(a, b int32) int { return int(math.Copysign(1, key[b]-key[a])) })
		c.IDs = append(c.IDs, order[:topk]...)
	}
	return c
}

func even(experts int) []float64 { return slices.Repeat([]float64{1}, experts) }

func skewed(experts int) []float64 {
	r := rand.New(rand.NewPCG(2, 0))
	w := make([]float64, experts)
	for e := range w {
		w[e] = math.Exp(r.NormFloat64())
	}
	return w
}

func TestBatchesByHand(t *testing.T) {
	// Tokens choose 0 1 | 0 2 | 0 3 | 0 1 | 2 3 of four experts.
	c := Choices{4, 2, []int32{0, 1, 0, 2, 0, 3, 0, 1, 2, 3}}
	near(t, "pairs of tokens", c.BatchMaxVio(2), 1, 0)                // 2 1 1 0 and 2 1 0 1: 2/1 − 1 each
	near(t, "all", c.BatchMaxVio(5), 4/2.5-1, 1e-15)                  // 4 2 2 2
	near(t, "one leftover of four", c.BatchMaxVio(4), 4.0/2-1, 1e-15) // 4 2 1 1
	near(t, "overflow at 1", c.Overflow(4)[0], 2.0/8, 0)              // capacity 2
	near(t, "overflow at 1.25", c.Overflow(4)[1], 1.0/8, 0)           // capacity ⌈2.5⌉ = 3
	near(t, "overflow at 2", c.Overflow(4)[3], 0, 0)                  // capacity 4
	near(t, "mean overflow of two", c.Overflow(2)[0], 1.0/4, 0)       // 1 of 4 in both
	if v := c.BatchMaxVio(6); !math.IsNaN(v) {
		t.Errorf("no whole batch has a MaxVio of %v", v)
	}
	padded := Choices{4, 2, []int32{0, -1, -1, -1}}
	if n := padded.Loads(); !slices.Equal(n, []int64{1, 0, 0, 0}) {
		t.Errorf("with padding the loads are %v", n)
	}
	if got := c.Pick([]int32{4, 0}).IDs; !slices.Equal(got, []int32{2, 3, 0, 1}) {
		t.Errorf("picked %v", got)
	}
	s := c.Shuffled()
	if !slices.Equal(s.Loads(), c.Loads()) || slices.Equal(s.IDs, c.IDs) {
		t.Errorf("shuffled to %v", s.IDs)
	}
	if sizes := BatchSizes(1024); !slices.Equal(sizes, []int{64, 256, 1024}) {
		t.Errorf("sizes %v", sizes)
	}
	if sizes := BatchSizes(40); !slices.Equal(sizes, []int{40}) {
		t.Errorf("sizes %v", sizes)
	}
}

func TestLogSlope(t *testing.T) {
	x, y := []int{64, 256, 1024}, []float64{8, 4, 2}
	near(t, "slope", LogSlope(x, y), -0.5, 1e-15)
	if v := LogSlope(x, []float64{1, 0, 1}); !math.IsNaN(v) {
		t.Errorf("slope through zero is %v", v)
	}
	if v := LogSlope(x[:1], y[:1]); !math.IsNaN(v) {
		t.Errorf("slope of a point is %v", v)
	}
}

// Independent tokens fall as noise does and end at the floor; popularity that differs flattens them.
func TestSlopeTellsNoiseFromStructure(t *testing.T) {
	slope := func(c Choices) float64 {
		sizes := BatchSizes(c.Tokens())
		y := make([]float64, len(sizes))
		for i, size := range sizes {
			y[i] = c.BatchMaxVio(size)
		}
		return LogSlope(sizes, y)
	}
	near(t, "independent", slope(independent(16384, 6, even(64))), -0.5, 0.06)
	near(t, "popular experts", slope(independent(16384, 6, skewed(64))), -0.05, 0.05)
}

func TestOverflowFloor(t *testing.T) {
	c := independent(1024*40, 6, even(64))
	got, floor := c.Overflow(1024), OverflowFloor(64, 6, 1024)
	near(t, "at 1", got[0], floor[0], 0.001)
	near(t, "at 1.25", got[1], floor[1], 0.0003)
	if floor[4] != 0 {
		t.Errorf("floor at 4 is %v", floor[4])
	}
}

func TestQuantile(t *testing.T) {
	x := []float64{4, 1, math.NaN(), 2, 3}
	near(t, "median", Quantile(x, 0.5), 2.5, 0)
	near(t, "p95", Quantile(x, 0.95), 3.85, 1e-15)
	near(t, "p100", Quantile(x, 1), 4, 0)
	if !math.IsNaN(Quantile(nil, 0.5)) {
		t.Error("nothing has a median")
	}
}

func TestServedBy(t *testing.T) {
	if v := servedBy([]int64{1, 20, 300, 4000}, []int64{5, 7, 5, 9}, 3); v != 4021 { // of equal ones the first
		t.Errorf("served %d", v)
	}
}

func TestTokenDependence(t *testing.T) {
	uniform := independent(64*200, 6, even(64))
	ids, own := make([]int32, 64*200), independent(64*200, 6, even(64))
	for i := range ids {
		ids[i] = int32(i % 200)
		if i >= 200 && i%2 == 0 { // half of the tokens repeat what their id did first
			copy(own.Of(i), own.Of(i%200))
		}
	}
	d := uniform.TokenDependence(ids)
	if d.IDs != 200 || d.Tokens != len(ids) || d.Uniform != 6.0/64 {
		t.Errorf("found %+v", d)
	}
	near(t, "held back, uniform", d.HeldBack, 6.0/64, 0.005)
	if d.Favourites < 0.15 {
		t.Errorf("favourites counted on themselves have %v: no more than held back", d.Favourites)
	}
	near(t, "popular, uniform", d.Popular, 6.0/64, 0.005)
	if d = own.TokenDependence(ids); !(d.HeldBack > 0.25) {
		t.Errorf("with favourites %+v", d)
	}
	if d := uniform.TokenDependence(slices.Repeat([]int32{-1}, len(ids))); d.IDs != 0 || !math.IsNaN(d.HeldBack) {
		t.Errorf("without ids %+v", d)
	}
}

// By hand: tokens choose 01, 01, 23, 02 of four experts, so that the margins are 3 2 2 1.
func TestCoActivationByHand(t *testing.T) {
	c := Choices{4, 2, []int32{0, 1, 1, 0, 2, 3, 0, 2}}
	a := c.CoActivation()
	if got := a.Count; !slices.Equal(got, []int32{0, 2, 1, 0, 2, 0, 0, 0, 1, 0, 0, 1, 0, 0, 1, 0}) {
		t.Errorf("counts %v", got)
	}
	for i, margin := range []float64{3, 2, 2, 1} {
		s := 0.0
		for j := range 4 {
			if i != j {
				s += a.Expected(i, j)
			}
		}
		near(t, "margin "+strconv.Itoa(i), s, margin, 1e-9)
	}
	if best := a.Strongest(1)[0]; best.A != 2 || best.B != 3 || best.Count != 1 || math.Abs(best.Ratio*best.Expected-1) > 1e-12 {
		t.Errorf("strongest %+v", best)
	}
}

// Independent choices show the floor and no more, with even loads and with skewed ones; with even loads it is
//
//	E(E − K)(E − K − 1) / (2(E − 2)) / (T K (K − 1) ln 2),
//
// the bias df / (2N ln 2) of E(E − 3)/2 free pairs from N = TK(K − 1)/2 of them, times the factor (E − K)(E − K − 1) /
// ((E − 2)(E − 3)) by which the pairs of one token, which share experts, vary less than independent ones (the eigenvalue
// of their covariance on the interactions of the Johnson scheme).
func TestCoActivationFloor(t *testing.T) {
	const tokens, e, k = 8192, 32.0, 4.0
	a := independent(tokens, int(k), even(int(e))).CoActivation()
	theory := e * (e - k) * (e - k - 1) / (2 * (e - 2)) / (tokens * k * (k - 1) * math.Ln2)
	near(t, "information, even", a.Information, theory, 0.15*theory)
	near(t, "floor, even", a.Floor, theory, 0.15*theory)
	a = independent(tokens, int(k), skewed(int(e))).CoActivation()
	near(t, "information, skewed", a.Information, a.Floor, 0.25*a.Floor)
	a = independent(10*tokens, int(k), skewed(int(e))).CoActivation()
	near(t, "information, skewed, of many", a.Information, a.Floor, 0.25*a.Floor)

	c := independent(tokens, int(k), even(int(e)))
	for i := 0; i < tokens; i += 4 {
		copy(c.Of(i), []int32{3, 17, 20, 30})
	}
	a = c.CoActivation()
	if !(a.Information > 10*a.Floor) {
		t.Errorf("a quarter of the tokens chooses alike, and the information is %v with a floor of %v", a.Information, a.Floor)
	}
	if best := a.Strongest(6); best[5].A != 3 && best[5].A != 17 && best[5].A != 20 {
		t.Errorf("strongest %+v", best)
	}
}

func TestExchangesKeepTheMargins(t *testing.T) {
	c := independent(500, 5, skewed(16))
	c.IDs[7] = -1
	x := c.exchanged()
	if !slices.Equal(x.Loads(), c.Loads()) || slices.Equal(x.IDs, c.Shuffled().IDs) || slices.Index(x.IDs, -1) != slices.Index(c.Shuffled().IDs, -1) {
		t.Error("exchanges changed the loads")
	}
	for i := range x.Tokens() {
		chosen := slices.Sorted(slices.Values(x.Of(i)))
		if len(slices.Compact(chosen)) != 5 {
			t.Errorf("token %d has an expert twice: %v", i, x.Of(i))
		}
	}
}

// OLMoE's favourites by token id, which its repository publishes as counts by layer, expert and id: 0.54 to 0.58 in the
// first of the logged layers, 0.62 to 0.77 in the later ones, over all its domains.
func TestFavouritesOfOLMoE(t *testing.T) {
	f, err := os.Open("../../shared/data/olmoe/eid2token__olmoe__github.csv.gz")
	if err != nil {
		t.Skipf("SKIPPED, real routers were NOT read: %v", err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	rows, err := csv.NewReader(z).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	type key struct{ slot, id int }
	counts := map[key][]int64{}
	for _, row := range rows[1:] {
		var x [4]int
		for i := range x {
			x[i], _ = strconv.Atoi(row[i])
		}
		k := key{x[0], x[2]}
		if counts[k] == nil {
			counts[k] = make([]int64, 64)
		}
		counts[k][x[1]] += int64(x[3])
	}
	var favourite, total [3]int64
	for k, n := range counts {
		if sum(n) >= 8*MinOccurrences {
			favourite[k.slot] += servedBy(n, n, 8)
			total[k.slot] += sum(n)
		}
	}
	for slot, want := range [][2]float64{{0.54, 0.58}, {0.62, 0.77}, {0.62, 0.77}} {
		share := float64(favourite[slot]) / float64(total[slot])
		t.Logf("slot %d: %.3f", slot, share)
		if share < want[0]-0.005 || share > want[1]+0.005 {
			t.Errorf("slot %d: the 8 favourites of an id have %.3f of its choices, published %v", slot, share, want)
		}
	}
}
