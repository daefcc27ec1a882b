package metrics

import (
	"cmp"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
)

// normalMaximum is m_E, the mean of the maximum of E standard normals.
var normalMaximum = map[int]float64{
	8: 1.4236, 16: 1.7660, 32: 2.0697, 64: 2.3437, 128: 2.5946, 160: 2.6712, 256: 2.8269, 384: 2.9555, 512: 3.0439, 896: 3.2098,
}

// maxVioLaw is √(E/(E−1)) m_E √((E−K)/(KT)), which is low by a few per cent where loads are small.
func maxVioLaw(experts, topk, tokens int) float64 {
	e, k := float64(experts), float64(topk)
	return math.Sqrt(e/(e-1)) * normalMaximum[experts] * math.Sqrt((e-k)/(k*float64(tokens)))
}

func TestSamplingFloorExactly(t *testing.T) {
	for _, test := range []struct {
		experts, topk, tokens int
		want                  float64
	}{{2, 1, 4, 3. / 8}, {4, 1, 4, 9. / 8}, {4, 2, 2, 5. / 6}, {4, 2, 3, 35. / 54}, {8, 1, 4, 147. / 64}} {
		f := SamplingFloor(test.experts, test.topk, test.tokens)
		near(t, fmt.Sprint(test), f.MaxVio, test.want, 4*f.MaxVioSD/math.Sqrt(FloorRepetitions))
	}
}

func TestSamplingFloorOfOneToken(t *testing.T) {
	f := SamplingFloor(8, 2, 1)
	if f.MaxVio != 3 || f.MaxVioSD != 0 || f.Variance != 3 || f.Jain != 0.25 || f.Dead != 6 || f.Starved != 6 {
		t.Errorf("one token: %+v", f)
	}
}

// The published tables of mean (sd) over at least 300 batches, drawn by partial Fisher–Yates shuffles of each token.
var monteCarlo = []struct {
	experts, topk int
	mean, sd      [6]float64 // T = 128, 512, 2048, 8192, 32768, 131072
}{
	{8, 1, [6]float64{0.3697, 0.1807, 0.0899, 0.0445, 0.0222, 0.0112}, [6]float64{0.138, 0.065, 0.032, 0.0156, 0.0077, 0.0039}},
	{8, 2, [6]float64{0.2376, 0.1175, 0.0586, 0.0293, 0.0148, 0.0073}, [6]float64{0.086, 0.042, 0.021, 0.0103, 0.0052, 0.0025}},
	{16, 2, [6]float64{0.4456, 0.2192, 0.1074, 0.0537, 0.0268, 0.0134}, [6]float64{0.131, 0.062, 0.030, 0.0147, 0.0075, 0.0038}},
	{64, 6, [6]float64{0.6976, 0.3368, 0.1655, 0.0820, 0.0407, 0.0204}, [6]float64{0.144, 0.066, 0.031, 0.0154, 0.0074, 0.0041}},
	{64, 8, [6]float64{0.5872, 0.2845, 0.1406, 0.0700, 0.0348, 0.0175}, [6]float64{0.118, 0.055, 0.026, 0.0132, 0.0063, 0.0034}},
	{128, 1, [6]float64{3.372, 1.513, 0.7054, 0.3387, 0.1651, 0.0821}, [6]float64{0.745, 0.295, 0.124, 0.057, 0.027, 0.013}},
	{128, 8, [6]float64{0.9875, 0.4708, 0.2296, 0.1135, 0.0558, 0.0273}, [6]float64{0.178, 0.080, 0.038, 0.018, 0.0087, 0.0044}},
	{256, 8, [6]float64{1.637, 0.7615, 0.3649, 0.1784, 0.0887, 0.0441}, [6]float64{0.274, 0.117, 0.053, 0.025, 0.012, 0.0063}},
}

func TestSamplingFloorTable(t *testing.T) {
	for _, row := range monteCarlo {
		for i := range row.mean {
			tokens := 128 << (2 * i)
			name := fmt.Sprintf("E=%d K=%d T=%d", row.experts, row.topk, tokens)
			f := SamplingFloor(row.experts, row.topk, tokens)
			near(t, name+" mean", f.MaxVio, row.mean[i], 4*row.sd[i]*math.Sqrt(1.0/FloorRepetitions+1.0/300))
			near(t, name+" sd", f.MaxVioSD, row.sd[i], 0.2*row.sd[i])
		}
		slope := math.Log(SamplingFloor(row.experts, row.topk, 131072).MaxVio/SamplingFloor(row.experts, row.topk, 2048).MaxVio) /
			math.Log(131072./2048)
		near(t, fmt.Sprintf("E=%d K=%d slope", row.experts, row.topk), slope, -0.5, 0.02)
	}
}

func TestSamplingFloorOfPublishedSizes(t *testing.T) {
	for _, test := range []struct {
		experts, topk, tokens int
		want, half            float64 // half a unit of the printed digits
	}{
		{64, 6, 2359296, 0.00478, 0.5e-5}, {64, 6, 36864, 0.0382, 0.5e-4}, {64, 6, 73728, 0.0269, 0.5e-4},
		{64, 6, 204800, 0.0165, 0.5e-4}, {256, 8, 62_900_000, 0.0020, 0.5e-4},
	} {
		f := SamplingFloor(test.experts, test.topk, test.tokens)
		near(t, fmt.Sprint(test), f.MaxVio, test.want, test.half+4*f.MaxVioSD*math.Sqrt(1.0/FloorRepetitions+1.0/300))
		near(t, fmt.Sprint(test, " law"), f.MaxVio, maxVioLaw(test.experts, test.topk, test.tokens), 0.025*f.MaxVio)
	}
}

func TestSamplingFloorLaws(t *testing.T) {
	for _, shape := range []struct{ experts, topk int }{{64, 6}, {64, 8}, {128, 8}, {256, 8}} {
		e, k := float64(shape.experts), float64(shape.topk)
		ratio, columns := 0.0, 0.0
		for tokens := 512; tokens <= 131072; tokens *= 4 {
			f := SamplingFloor(shape.experts, shape.topk, tokens)
			name := fmt.Sprintf("%v T=%d ", shape, tokens)
			law := (e - k) / (k * float64(tokens))
			ratio += f.Variance / law
			columns++
			near(t, name+"MaxVio", f.MaxVio, maxVioLaw(shape.experts, shape.topk, tokens), 0.09*f.MaxVio)
			near(t, name+"entropy deficit", (1-f.Entropy)*math.Log(e), law/2, 0.03*law/2)
			near(t, name+"Jain", f.Jain, 1/(1+law), 0.03*law)
			if k*float64(tokens)/e > 30 {
				near(t, name+"Gini", f.Gini, f.CV/math.Sqrt(math.Pi), 0.03*f.Gini)
			}
			if f.Dead != 0 || f.Starved > 0.02 || f.Min <= 0 || f.Min >= 1 {
				t.Errorf("%s: %+v", name, f)
			}
		}
		// One column's CV² is known to √(2/(E−1)/1000), at most 0.6 %.
		ratio /= columns
		near(t, fmt.Sprint(shape, " CV²·KT/(E−K)"), ratio, 1, 0.01)
		if with := (e - 1) / (e - k); math.Abs(ratio/with-1) < 0.01 {
			t.Errorf("%v: CV² is that of choices with replacement", shape)
		}
	}
}

func TestSamplingFloorWhereAllAreChosen(t *testing.T) {
	for _, tokens := range []int{1, 7, 100000} {
		want := Floor{Entropy: 1, Jain: 1, Min: 1}
		if got := SamplingFloor(6, 6, tokens); got != want {
			t.Errorf("K = E, T = %d: %+v", tokens, got)
		}
		if v := DeviceFloor(6, 6, 3, tokens); v != 0 {
			t.Errorf("device floor of K = E is %v", v)
		}
	}
	if v := SequenceFloor(6, 6, []int{9, 10, 11, 12, 13, 14, 15, 17, 18, 19}); v != 0 {
		t.Errorf("sequence floor of K = E is %v", v)
	}
}

func TestSamplingFloorWithoutTokens(t *testing.T) {
	if f := SamplingFloor(4, 2, 0); !math.IsNaN(f.MaxVio) || !math.IsNaN(f.Entropy) || f.Dead != 4 || f.Starved != 4 {
		t.Errorf("no tokens: %+v", f)
	}
}

func TestLoadsSumToAssignments(t *testing.T) {
	for s := range map[shape]bool{{8, 1, 8, 3}: true, {64, 6, 64, 1000}: true, {16, 15, 16, 1e7}: true} {
		for n := range s.batches() {
			if sum(n) != int64(s.topk*s.tokens) {
				t.Fatalf("%+v: %v sums to %d", s, n, sum(n))
			}
			for _, v := range n {
				if v < 0 || v > int64(s.tokens) {
					t.Fatalf("%+v: load %d", s, v)
				}
			}
		}
	}
}

func TestDeviceFloor(t *testing.T) {
	// TensorRT-LLM's shape: 256 experts on 32 ranks, 1024 assignments a rank on average.
	s := shape{experts: 256, topk: 8, groups: 32, tokens: 4096}
	near(t, "imbalance", DeviceFloor(s.experts, s.topk, s.groups, s.tokens), 0.0638, 0.0015)
	variance, device := 0.0, make([]int64, s.groups)
	for n := range s.batches() {
		device = GroupLoads(n, s.groups, device)
		variance += Variance(device) / FloorRepetitions
	}
	share := 1.0 / 32
	law := 4096 * 8 * share * (1 - share) * 248 / 255
	near(t, "sd by formula", math.Sqrt(law), 31.06, 0.005)
	near(t, "sd of rank loads", math.Sqrt(variance)*1024, 31.06, 0.01*31.06)
	if one, all := DeviceFloor(16, 2, 1, 100), DeviceFloor(16, 2, 16, 100); one != 0 || all != SamplingFloor(16, 2, 100).MaxVio {
		t.Errorf("one device has %v, one for each expert %v", one, all)
	}
}

// Draws within groups, one token after another, are the judge: DeepSeek-V3's shape, one group of eight, and no limit.
func TestLimitedDeviceFloor(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	const tokens, batches = 1024, 400
	for _, s := range []struct{ experts, topk, groups, kept int }{{256, 8, 8, 4}, {64, 6, 8, 1}, {64, 6, 8, 8}, {16, 2, 8, 2}} {
		size, mean := s.experts/s.groups, 0.0
		for range batches {
			loads := make([]int64, s.groups)
			for range tokens {
				open := r.Perm(s.groups)[:s.kept]
				for _, e := range r.Perm(s.kept * size)[:s.topk] {
					loads[open[e/size]]++
				}
			}
			mean += MaxVio(loads) / batches
		}
		// The mean of 400 batches deviates by 2 % at most: MaxVio of eight devices by less than 0.4 of itself from batch to batch.
		near(t, fmt.Sprintf("imbalance of %+v", s), LimitedDeviceFloor(s.experts, s.topk, s.groups, s.kept, tokens), mean, 0.06*mean)
	}
	if a, b := LimitedDeviceFloor(64, 6, 8, 8, 1024), DeviceFloor(64, 6, 8, 1024); a != b {
		t.Errorf("without a limit the floor is %v and not %v", a, b)
	}
	if v := LimitedDeviceFloor(8, 8, 4, 4, 100); v != 0 {
		t.Errorf("with all experts chosen the floor is %v", v)
	}
}

// Replicating hot experts by their known popularity brings the imbalance of ranks from far above to at most twice the floor
// (TensorRT-LLM's measurement, 288 slots on 36 ranks: from 0.46 to 2.5 down to 0.115, at a floor of 0.065).
func TestReplicationLeavesTheDeviceFloor(t *testing.T) {
	const experts, ranks, slots, tokens, topk = 256, 36, 288, 36 * 1024 / 8, 8
	r := rand.New(rand.NewPCG(35, 1))
	popularity, sum := make([]float64, experts), 0.0
	for e := range popularity {
		popularity[e] = math.Exp(0.7 * r.NormFloat64())
		sum += popularity[e]
	}
	replicas := make([]float64, experts)
	for e := range popularity {
		popularity[e] /= sum
		replicas[e] = 1
	}
	each := func(e int) float64 { return popularity[e] / replicas[e] }
	for range slots - experts {
		hot := 0
		for e := range popularity {
			if each(e) > each(hot) {
				hot = e
			}
		}
		replicas[hot]++
	}
	var order []int // the expert of each slot, the hottest first
	for e, n := range replicas {
		for range int(n) {
			order = append(order, e)
		}
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(each(b), each(a)) })
	load, held, places := make([]float64, ranks), make([]int, ranks), make([][]int, experts)
	for _, e := range order { // to the least loaded rank that has a slot
		to := -1
		for i := range load {
			if held[i] < slots/ranks && (to < 0 || load[i] < load[to]) {
				to = i
			}
		}
		load[to], held[to], places[e] = load[to]+each(e), held[to]+1, append(places[e], to)
	}
	plain, packed := 0.0, 0.0
	const batches = 200
	for range batches {
		n, device := make([]int64, experts), make([]int64, ranks)
		for range tokens * topk {
			x, e := r.Float64(), 0
			for ; e < experts-1 && x >= popularity[e]; e++ {
				x -= popularity[e]
			}
			n[e]++
			device[places[e][r.IntN(len(places[e]))]]++
		}
		plain += MaxVio(GroupLoads(n, 32, nil)) / batches
		packed += MaxVio(device) / batches
	}
	floor := DeviceFloor(slots, topk, ranks, tokens)
	t.Logf("imbalance of 32 ranks %.3f, of 36 with replicas %.4f, floor %.4f", plain, packed, floor)
	near(t, "floor", floor, 0.0653, 0.0015)
	if plain < 0.3 || packed < floor || packed > 2*floor {
		t.Errorf("imbalance falls from %.3f to %.4f, want to 1 to 2 times the floor %.4f", plain, packed, floor)
	}
}

func TestSequenceFloor(t *testing.T) {
	a, b := SamplingFloor(16, 2, 128).MaxVio, SamplingFloor(16, 2, 100).MaxVio
	near(t, "three sequences", SequenceFloor(16, 2, []int{128, 100, 0, 128}), (2*a+b)/3, 1e-6)
	if v := SequenceFloor(16, 2, []int{0}); !math.IsNaN(v) {
		t.Errorf("floor of empty sequences is %v", v)
	}
}

func TestSequenceFloorInterpolates(t *testing.T) {
	for _, shape := range []struct{ experts, topk int }{{8, 2}, {64, 6}} {
		var lengths []int
		sum := 0.0
		for tokens := 1; tokens < 3000; tokens += 1 + tokens/5 {
			lengths = append(lengths, tokens)
			f := SamplingFloor(shape.experts, shape.topk, tokens)
			sum += f.MaxVio
			near(t, fmt.Sprint(shape, tokens), interpolatedFloor(shape.experts, shape.topk, tokens), f.MaxVio,
				0.02*f.MaxVio+5*f.MaxVioSD/math.Sqrt(FloorRepetitions))
		}
		want := sum / float64(len(lengths))
		near(t, fmt.Sprint(shape, " mean"), SequenceFloor(shape.experts, shape.topk, lengths), want, 0.01*want)
	}
}

func TestFloorsAreCachedAndConcurrent(t *testing.T) {
	s := shape{12, 3, 12, 77}
	want := simulateFloor(s)
	var all sync.WaitGroup
	for range 16 {
		all.Go(func() {
			if got := SamplingFloor(s.experts, s.topk, s.tokens); got != want {
				t.Errorf("%+v, want %+v", got, want)
			}
		})
	}
	all.Wait()
	if a := testing.AllocsPerRun(10, func() { SamplingFloor(s.experts, s.topk, s.tokens) }); a != 0 {
		t.Errorf("a cached floor allocates %v times", a)
	}
}

// binomialTable returns the probabilities of first, first+1, … successes within twelve standard deviations of the mean, by
// the recurrence p(x+1)/p(x) = (n−x)/(x+1)·p/q outwards from the mode.
func binomialTable(n, p float64) (first float64, mass []float64) {
	sd := math.Sqrt(n * p * (1 - p))
	first, last := math.Floor(max(0, n*p-12*sd-12)), math.Ceil(min(n, n*p+12*sd+12))
	mass = make([]float64, int(last-first)+1)
	mode := int(math.Floor(n*p) - first)
	mass[mode] = 1
	total := 1.0
	for i := mode + 1; i < len(mass); i++ {
		x := first + float64(i-1)
		mass[i] = mass[i-1] * (n - x) / (x + 1) * p / (1 - p)
		total += mass[i]
	}
	for i := mode - 1; i >= 0; i-- {
		x := first + float64(i)
		mass[i] = mass[i+1] * (x + 1) / (n - x) * (1 - p) / p
		total += mass[i]
	}
	for i := range mass {
		mass[i] /= total
	}
	return first, mass
}

func TestBinomial(t *testing.T) {
	const samples = 300_000
	for _, test := range []struct{ n, p float64 }{
		{1, 0.3}, {5, 0.5}, {20, 0.1}, {24, 0.9}, {25, 0.39}, {25, 0.41}, {30, 0.03}, {100, 0.0999}, {100, 0.1001}, {100, 0.5},
		{1e4, 0.1}, {1e7, 1e-8}, {1e7, 1e-5}, {1e7, 0.1}, {1e7, 0.45}, {1e7, 0.7},
	} {
		first, mass := binomialTable(test.n, test.p)
		seen := make([]float64, len(mass))
		var d draws
		d.Seed(uint64(test.n), math.Float64bits(test.p))
		for range samples {
			seen[d.binomial(int64(test.n), test.p)-int64(first)]++
		}
		chi2, cells, expected, observed := 0.0, -1.0, 0.0, 0.0
		enough := max(20, samples/100*test.p*(1-test.p))
		for i := range mass {
			expected += samples * mass[i]
			observed += seen[i]
			if expected >= enough {
				chi2 += (observed - expected) * (observed - expected) / expected
				cells++
				expected, observed = 0, 0
			}
		}
		if z := (chi2 - cells) / math.Sqrt(2*cells); z > 4 {
			t.Errorf("Binomial(%v, %v): χ² = %.1f in %v cells", test.n, test.p, chi2, cells)
		}
	}
}

func BenchmarkSamplingFloor(b *testing.B) {
	for _, s := range []shape{{64, 6, 64, 128}, {64, 6, 64, 4096}, {64, 6, 64, 2359296}, {256, 8, 256, 4096}, {256, 8, 256, 62_900_000}} {
		b.Run(fmt.Sprintf("E=%d,K=%d,T=%d", s.experts, s.topk, s.tokens), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				simulateFloor(s)
			}
		})
	}
}

func BenchmarkBinomial(b *testing.B) {
	for _, c := range []struct {
		n int64
		p float64
	}{{100, 0.03}, {10_000, 0.1}, {10_000_000, 0.45}} {
		b.Run(fmt.Sprintf("n=%d,p=%g", c.n, c.p), func(b *testing.B) {
			var d draws
			b.ReportAllocs()
			for b.Loop() {
				d.binomial(c.n, c.p)
			}
		})
	}
}
