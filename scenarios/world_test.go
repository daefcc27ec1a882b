package scenarios

import (
	"math"
	"slices"
	"testing"

	"evenkeel/moe"
)

// batchAt loads a scenario and fills one of its batches.
func batchAt(t *testing.T, seed uint64, m moe.Moment, settings ...string) *moe.Batch {
	t.Helper()
	s, err := Load("pretraining", append([]string{"tokens=512", "sequence_length=64", "width=32", "experts=8", "topk=2"}, settings...), -1)
	if err != nil {
		t.Fatal(err)
	}
	g, b := s.Stream(seed), moe.NewBatch(s.Layer(), s.Tokens)
	g.Layout(b, m)
	for i := range b.Tiles {
		g.Fill(b, i, moe.NewScratch(b.Layer))
	}
	return b
}

// vectorOf returns a token's latent vector.
func vectorOf(b *moe.Batch, token int) []float32 {
	t, l := &b.Tiles[token/64], token%64
	x := make([]float32, b.Layer.Width)
	for k := range x {
		x[k] = t.X[k*64+l]
	}
	return x
}

func training(step int) moe.Moment { return moe.Moment{Step: step, Index: step} }

// With all energy in one part of the latent vector, tokens are alike exactly where they share that part.
func TestPartsOfTheLatentVector(t *testing.T) {
	shares := map[string][]string{
		"type":     {"synthetic.energy.type=1", "synthetic.energy.domain=0", "synthetic.energy.sequence=0", "synthetic.energy.noise=0"},
		"domain":   {"synthetic.energy.type=0", "synthetic.energy.domain=1", "synthetic.energy.sequence=0", "synthetic.energy.noise=0"},
		"sequence": {"synthetic.energy.type=0", "synthetic.energy.domain=0", "synthetic.energy.sequence=1", "synthetic.energy.noise=0"},
		"noise":    {"synthetic.energy.type=0", "synthetic.energy.domain=0", "synthetic.energy.sequence=0", "synthetic.energy.noise=1"},
	}
	for part, settings := range shares {
		b := batchAt(t, 1, training(0), append(settings, "synthetic.common_energy=0")...)
		share := func(i, j int) bool {
			a, c := &b.Tiles[i/64], &b.Tiles[j/64]
			switch part {
			case "type":
				return a.Token[i%64] == c.Token[j%64]
			case "domain":
				return a.Domain[i%64] == c.Domain[j%64]
			case "sequence":
				return i/64 == j/64
			}
			return i == j
		}
		alike := 0
		for i := 0; i < b.Tokens; i += 3 {
			for j := i + 1; j < b.Tokens; j += 7 {
				same := slices.Equal(vectorOf(b, i), vectorOf(b, j))
				if same != share(i, j) {
					t.Fatalf("%s: tokens %d and %d are alike: %v", part, i, j, same)
				}
				if same {
					alike++
				}
			}
		}
		if (alike > 0) == (part == "noise") {
			t.Errorf("%s: %d pairs are alike", part, alike)
		}
	}
}

// The common direction holds its share of the energy of the mean vector.
func TestCommonDirection(t *testing.T) {
	b := batchAt(t, 1, training(0), "synthetic.common_energy=0.5", "tokens=8192", "synthetic.zipf=0", "width=512")
	mean := make([]float64, b.Layer.Width)
	for i := range b.Tokens {
		for k, v := range vectorOf(b, i) {
			mean[k] += float64(v) / float64(b.Tokens)
		}
	}
	var energy float64
	for _, v := range mean {
		energy += v * v / float64(len(mean))
	}
	if energy < 0.44 || energy > 0.58 {
		t.Errorf("the mean vector holds %.2f of the energy, want about 0.5", energy)
	}
}

func TestSeedsAndWorlds(t *testing.T) {
	z := func(seed uint64, m moe.Moment, settings ...string) []float32 {
		return batchAt(t, seed, m, settings...).Tiles[0].Z
	}
	weights := func(seed uint64, settings ...string) []float32 {
		s, err := Load("pretraining", settings, -1)
		if err != nil {
			t.Fatal(err)
		}
		return s.Stream(seed).OracleRouter()
	}
	if slices.Equal(weights(1), weights(2)) {
		t.Error("two seeds have one world")
	}
	if !slices.Equal(weights(1, "world_seed=7"), weights(2, "world_seed=7")) {
		t.Error("one world_seed gives two worlds")
	}
	if slices.Equal(z(1, training(0), "world_seed=7"), z(2, training(0), "world_seed=7")) {
		t.Error("two seeds of one world have the same tokens")
	}
	if slices.Equal(z(1, training(3)), z(1, training(4))) {
		t.Error("two steps have the same tokens")
	}
	if slices.Equal(z(1, training(3)), z(1, moe.Moment{Step: 3, Index: 3, Purpose: moe.Evaluate})) {
		t.Error("the evaluation reuses training tokens")
	}
}

// counted returns how often each token type occurs in each domain of a large batch, and the domains' shares.
func counted(b *moe.Batch, domains int) (types []map[int32]int, shares []float64) {
	types, shares = make([]map[int32]int, domains), make([]float64, domains)
	for i := range types {
		types[i] = map[int32]int{}
	}
	for i := range b.Tokens {
		t := &b.Tiles[i/64]
		types[t.Domain[i%64]][t.Token[i%64]]++
		shares[t.Domain[i%64]] += 1 / float64(b.Tokens)
	}
	return types, shares
}

func favourite(n map[int32]int) (best int32) {
	for id := range n {
		if n[id] > n[best] {
			best = id
		}
	}
	return best
}

func TestDomains(t *testing.T) {
	types, shares := counted(batchAt(t, 1, training(0), "tokens=131072"), 4)
	for i, want := range []float64{0.45, 0.25, 0.20, 0.10} { // 2,048 sequences: standard error 0.011 at most
		if math.Abs(shares[i]-want) > 0.044 {
			t.Errorf("domain %d has a share of %.3f, want %.2f", i, shares[i], want)
		}
	}
	favourites := map[int32]bool{}
	for _, n := range types {
		favourites[favourite(n)] = true
	}
	if len(favourites) < 3 {
		t.Errorf("four domains with a tilt of 0.7 have %d favourite types", len(favourites))
	}
	types, _ = counted(batchAt(t, 1, training(0), "tokens=131072", "synthetic.domain_tilt=0"), 4)
	for i, n := range types {
		if favourite(n) != favourite(types[0]) {
			t.Errorf("without a tilt domain %d has a favourite type of its own", i)
		}
	}
}

// withEvents returns the default scenario, small, with events.
func withEvents(t *testing.T, events string) *Scenario {
	t.Helper()
	s, err := read("x.yaml", "x", []byte("{tokens: 4096, sequence_length: 32, width: 16, experts: 8, topk: 2, steps: 100, events: ["+events+"]}"), nil, -1, nil)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func fill(s *Scenario, step int) *moe.Batch {
	g, b := s.Stream(1), moe.NewBatch(s.Layer(), s.Tokens)
	g.Layout(b, training(step))
	for i := range b.Tiles {
		g.Fill(b, i, moe.NewScratch(b.Layer))
	}
	return b
}

func TestEventsOnShares(t *testing.T) {
	start := []float64{0.45, 0.25, 0.20, 0.10}
	to := []float64{0.1, 0.2, 0.3, 0.4}
	for name, c := range map[string]struct {
		events string
		at     map[int][]float64
	}{
		"shift":  {"{at: 50, kind: shift, shares: [0.1, 0.2, 0.3, 0.4]}", map[int][]float64{49: start, 50: to, 99: to}},
		"period": {"{at: 10, kind: period, until: 60, period: 20, shares: [0.1, 0.2, 0.3, 0.4]}", map[int][]float64{9: start, 10: start, 20: to, 15: {0.275, 0.225, 0.25, 0.25}, 30: start, 60: start}},
		"new":    {"{at: 50, kind: new-domain, share: 0.2, name: e}", map[int][]float64{49: {0.45, 0.25, 0.20, 0.10, 0}, 50: {0.36, 0.20, 0.16, 0.08, 0.2}}},
	} {
		s := withEvents(t, c.events)
		for step, want := range c.at {
			got := s.sharesAt(step, nil)
			if len(got) != len(want) {
				t.Fatalf("%s, step %d: shares %v, want %v", name, step, got, want)
			}
			for i := range want {
				if math.Abs(got[i]-want[i]) > 1e-12 {
					t.Errorf("%s, step %d: shares %v, want %v", name, step, got, want)
					break
				}
			}
			_, drawn := counted(fill(s, step), len(want)) // 128 sequences
			for i, p := range want {
				if se := math.Sqrt(p * (1 - p) / 128); math.Abs(drawn[i]-p) > 4*se {
					t.Errorf("%s, step %d: domain %d has %.3f of the tokens, want %.3f", name, step, i, drawn[i], p)
				}
			}
		}
	}
}

func TestBurstRepeatsOneSequence(t *testing.T) {
	s := withEvents(t, "{at: 50, kind: burst, until: 60, share: 0.5}")
	hot := func(step int) int { // sequences that hold the most frequent token row
		b := fill(s, step)
		n := map[string]int{}
		for from := 0; from < b.Tokens; from += 32 {
			ids := make([]rune, 32)
			for i := range ids {
				ids[i] = b.Tiles[(from+i)/64].Token[(from+i)%64]
			}
			n[string(ids)]++
		}
		most := 0
		for _, v := range n {
			most = max(most, v)
		}
		return most
	}
	for step, want := range map[int]bool{49: false, 50: true, 59: true, 60: false} {
		if got := hot(step); (got > 32 && got < 96) != want || !want && got > 2 {
			t.Errorf("step %d: one sequence occurs %d times in 128, burst: %v", step, got, want)
		}
	}
}

func TestPopularityIsRedrawn(t *testing.T) {
	s := withEvents(t, "{at: 50, kind: popularity}")
	means := func(step int) []float64 {
		b := fill(s, step)
		m := make([]float64, 8)
		for i := range b.Tiles {
			for j, v := range b.Tiles[i].Z {
				m[j/64] += float64(v) / float64(b.Tokens)
			}
		}
		return m
	}
	distance := func(a, b []float64) (d float64) {
		for i := range a {
			d += (a[i] - b[i]) * (a[i] - b[i]) / float64(len(a))
		}
		return math.Sqrt(d)
	}
	before, after, later := means(49), means(50), means(99)
	if same, moved := distance(after, later), distance(before, after); !(moved > 3*same) || distance(means(40), before) > moved/3 {
		t.Errorf("mean logits move by %.3f at the event and by %.3f without one", moved, same)
	}
}

// A drift turns every centroid by its angle, evenly over its steps. Directions are random, so the cosine of the turned
// centroid with where it began is the cosine of the angle within 1/√d or so.
func TestDriftTurnsCentroids(t *testing.T) {
	s := withEvents(t, "{at: 20, kind: drift, until: 60, degrees: 60}")
	const d = 4096
	start := normals(99, d)
	cosineOf := func(step int) float64 {
		c := s.centroidsAt(step, 5, start, d)
		var dot, a, b float64
		for i := range c {
			dot += float64(c[i]) * float64(start[i])
			a += float64(c[i]) * float64(c[i])
			b += float64(start[i]) * float64(start[i])
		}
		return dot / math.Sqrt(a*b)
	}
	for step, degrees := range map[int]float64{0: 0, 20: 0, 40: 30, 60: 60, 99: 60} {
		if got, want := cosineOf(step), math.Cos(degrees*math.Pi/180); math.Abs(got-want) > 0.06 {
			t.Errorf("step %d: cosine %.3f with the start, want %.3f", step, got, want)
		}
	}
}
