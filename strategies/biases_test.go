package strategies

import (
	"math"
	"math/bits"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"evenkeel/internal/vec"
	"evenkeel/moe"
)

// nearBias reports whether two biases agree within a few units in the last place of numbers about 1.
func nearBias(a, b []float32) bool {
	for i := range a {
		if !(math.Abs(float64(a[i]-b[i])) <= 5e-7*max(1, math.Abs(float64(b[i])))) {
			return false
		}
	}
	return len(a) == len(b)
}

// Every rule by hand. Counts (3, 1) have n̄ = 2 and relative errors (−½, ½); counts (8, 2, 2, 4) have n̄ = 4, errors
// (−1, ½, ½, 0) and a root mean square error of √(3/8). One set of counts is one step.
func TestBiasRulesByHand(t *testing.T) {
	tanh1, tanh2 := 0.76159415595576489, 0.96402758007581688 // tanh 1, tanh 2
	mean := (2*tanh1 - tanh2) / 4                            // of tanh 2v over (8, 2, 2, 4)
	rms := math.Sqrt(3. / 8)
	skewed, even, turned, four := []int64{3, 1}, []int64{2, 2}, []int64{1, 3}, []int64{8, 2, 2, 4}
	for _, c := range []struct {
		text   string
		counts [][]int64
		want   []float64
	}{
		{"loss-free:rate=0.5,rule=rms", [][]int64{skewed}, []float64{-0.5, 0.5}},
		{"loss-free:rate=0.5,rule=rms", [][]int64{even}, []float64{0, 0}},
		{"loss-free:rate=0.5,rule=rms", [][]int64{four}, []float64{-0.5 / rms, 0.25 / rms, 0.25 / rms, 0}},
		{"loss-free:rate=0.5,clamp=0.75", [][]int64{skewed, skewed, skewed, turned}, []float64{-0.25, 0.25}},
		{"loss-free:rate=0.5,schedule=halving,over=2", [][]int64{skewed, skewed, skewed, skewed, skewed}, []float64{-1.625, 1.625}},
		{"loss-free:rate=0.5,schedule=linear,over=2", [][]int64{skewed, skewed, skewed, skewed}, []float64{-0.75, 0.75}},
		{"loss-free:rate=0.5,schedule=cosine,over=3", [][]int64{skewed, skewed, skewed, skewed, skewed}, []float64{-1, 1}}, // 1 + 3/4 + 1/4
		{"loss-free:rate=0.5,schedule=inverse-root,over=1", [][]int64{skewed, skewed, skewed}, []float64{-0.5 * (1 + 1/math.Sqrt2 + 1/math.Sqrt(3)), 0.5 * (1 + 1/math.Sqrt2 + 1/math.Sqrt(3))}},
		{"loss-free:rate=0.5,schedule=linear,over=100,stop=1", [][]int64{skewed, skewed}, []float64{-0.5, 0.5}},
		{"multiplicative-bias:rate=0.25", [][]int64{skewed}, []float64{0.75, 1.25}},
		{"multiplicative-bias:rate=0.25,rule=proportional", [][]int64{skewed}, []float64{0.875, 1.125}},
		{"multiplicative-bias:rate=0.25,rule=rms", [][]int64{four}, []float64{1 - 0.25/rms, 1 + 0.125/rms, 1 + 0.125/rms, 1}},
		{"multiplicative-bias:rate=0.4,floor=0.125", [][]int64{skewed, skewed, skewed}, []float64{0.125, 2.2}},
		{"multiplicative-bias:rate=0.25,centre=true", [][]int64{four}, []float64{1 - 0.3125, 1 + 0.1875, 1 + 0.1875, 1 - 0.0625}},
		{"multiplicative-bias:rate=0.5,clamp=1.25", [][]int64{skewed}, []float64{0.5, 1.25}},
		{"smebu:rate=1,kappa=1,units=count", [][]int64{skewed}, []float64{-tanh1 / 2, tanh1 / 2}},
		{"smebu:rate=1", [][]int64{skewed}, []float64{-tanh1 / 2, tanh1 / 2}},
		// The second change is half the first and half the new one: m = ¾d, b = 1¼d.
		{"smebu:rate=1", [][]int64{skewed, skewed}, []float64{-1.25 * tanh1, 1.25 * tanh1}},
		// Momentum goes on when the loads are even: m = ½d, then ¼d.
		{"smebu:rate=1", [][]int64{skewed, even}, []float64{-0.75 * tanh1, 0.75 * tanh1}},
		{"smebu:rate=1,momentum=0,centre=false", [][]int64{four}, []float64{-tanh2, tanh1, tanh1, 0}},
		{"smebu:rate=1,momentum=0", [][]int64{four}, []float64{-tanh2 - mean, tanh1 - mean, tanh1 - mean, -mean}},
		{"pid-bias:ki=1,kp=10,kd=100", [][]int64{skewed}, []float64{-0.5 - 5, 0.5 + 5}}, // no derivative in the first step
		{"pid-bias:ki=1,kp=10,kd=100", [][]int64{skewed, even}, []float64{-0.5 + 50, 0.5 - 50}},
		{"pid-bias:ki=1,kp=10,kd=100,units=count", [][]int64{skewed}, []float64{-1 - 10, 1 + 10}},
		{"pid-bias:ki=1,kp=10,kd=0,units=fraction", [][]int64{skewed}, []float64{-0.25 - 2.5, 0.25 + 2.5}},
		// The running mean of the error is (−½, ½), then half of that.
		{"pid-bias:ki=1,kp=10,kd=0,smooth=0.5", [][]int64{skewed, even}, []float64{-0.75 - 2.5, 0.75 + 2.5}},
		// Against windup: the integral turns around at once.
		{"pid-bias:ki=1,kp=0,clamp=0.75", [][]int64{skewed, skewed, skewed, skewed, turned}, []float64{-0.25, 0.25}},
		{"pid-bias:ki=1,kp=2,clamp=0.75", [][]int64{skewed, skewed, skewed, skewed, turned}, []float64{-0.25 + 1, 0.25 - 1}},
	} {
		layer := moe.Layer{Experts: len(c.want), TopK: 1, Groups: 1, GroupsKept: 1}
		s := mustBuild(t, layer, c.text)
		for i, n := range c.counts {
			s.Update(&moe.Outcome{Step: i, Chosen: countsOf(n...)})
		}
		want := make([]float32, len(c.want))
		for e, v := range c.want {
			want[e] = float32(v)
		}
		if !nearBias(s.Bias(), want) {
			t.Errorf("%s after %v: b = %v, want %v", c.text, c.counts, s.Bias(), want)
		}
	}
}

// Counts by micro-batch are as many steps as there are micro-batches, in their order.
func TestBiasByMicroBatch(t *testing.T) {
	layer := moe.Layer{Experts: 2, TopK: 1, Groups: 1, GroupsKept: 1}
	for _, text := range []string{"loss-free:rate=0.5", "loss-free:rule=proportional", "multiplicative-bias", "smebu", "pid-bias", "budget-bias"} {
		colon := ":"
		if strings.Contains(text, ":") {
			colon = ","
		}
		s, one := mustBuild(t, layer, text+colon+"scope=micro-batch"), mustBuild(t, layer, text)
		if !s.Traits().MicroBatches || one.Traits().MicroBatches {
			t.Errorf("%s does not say what it counts", text)
		}
		batch := &moe.Batch{MicroBatches: []moe.Span{{From: 0, To: 4}, {From: 4, To: 8}, {From: 8, To: 16}}}
		s.Update(&moe.Outcome{Batch: batch, Chosen: &moe.Counts{Experts: 2, Tokens: 16, Global: []int64{7, 9}, MicroBatch: []int64{3, 1, 3, 1, 1, 7}}})
		for _, n := range [][]int64{{3, 1}, {3, 1}, {1, 7}} {
			one.Update(&moe.Outcome{Chosen: countsOf(n...)})
		}
		if !slices.Equal(s.Bias(), one.Bias()) {
			t.Errorf("%s: %v by micro-batch, %v one after the other", text, s.Bias(), one.Bias())
		}
	}
}

// A bias that moves by at most u says so, since its way to balance takes as many steps; the others, and one that steps more
// than once, do not.
func TestRateOfABias(t *testing.T) {
	for text, want := range map[string]float64{"loss-free": 1e-3, "multiplicative-bias": 1e-3, "smebu": 5e-4, "deepseek-v3": 1e-3,
		"loss-free:rule=proportional": 0, "loss-free:rule=rms": 0, "pid-bias": 0, "bip": 0, "loss-free:scope=micro-batch": 0, "budget-bias": 2e-3} {
		if got := mustBuild(t, layer16, text).Traits().Rate; got != want {
			t.Errorf("%s has the rate %v, want %v", text, got, want)
		}
	}
}

// Integral action alone is the proportional rule, bit for bit; stop and half act on every controller.
func TestSpecialCases(t *testing.T) {
	r := rand.New(rand.NewPCG(41, 1))
	same := func(a, b string) {
		x, y := mustBuild(t, layer16, a), mustBuild(t, layer16, b)
		for step := range 30 {
			n := make([]int64, 16)
			for e := range n {
				n[e] = r.Int64N(100)
			}
			x.Update(&moe.Outcome{Step: step, Chosen: countsOf(n...)})
			y.Update(&moe.Outcome{Step: step, Chosen: countsOf(n...)})
		}
		if !slices.Equal(x.Bias(), y.Bias()) {
			t.Errorf("%s ends at %v, %s at %v", a, x.Bias(), b, y.Bias())
		}
	}
	same("pid-bias:kp=0,clamp=0", "loss-free:rule=proportional,rate=0.01")
	same("smebu:momentum=0,kappa=1000000", "loss-free:centre=true,rate=0.0005") // a steep clamp is the sign
	for _, text := range []string{"multiplicative-bias", "smebu", "pid-bias"} {
		s := mustBuild(t, layer16, text+":stop=1")
		n := countsOf(slices.Concat([]int64{900}, slices.Repeat([]int64{20}, 15))...)
		s.Update(&moe.Outcome{Step: 0, Chosen: n})
		before := slices.Clone(s.Bias())
		s.Update(&moe.Outcome{Step: 1, Chosen: n})
		if !slices.Equal(before, s.Bias()) || before[0] == before[1] {
			t.Errorf("%s: b moves from %v to %v at its stop", text, before, s.Bias())
		}
	}
}

// Trap 11 of strategies.md: centring alters no choice and keeps the mean of b at 0, while without it the mean drifts, by no
// more than u a step (A35 of numbers.md).
func TestCentringAltersNoChoice(t *testing.T) {
	b := batchOf(rand.New(rand.NewPCG(42, 1)), layer16, 100, 92)
	for i := range b.Tiles { // multiples of 2^-12 of size 1, so that sums are exact
		for j, z := range b.Tiles[i].Z {
			b.Tiles[i].Z[j] = float32(math.Round(float64(z)*1024)) / 4096
		}
	}
	layer := layer16
	layer.Score = moe.Stored
	mean := func(b []float32) (sum float64) {
		for _, v := range b {
			sum += float64(v) / float64(len(b))
		}
		return sum
	}
	plain := mustBuild(t, layer, "loss-free:rate=0.00390625")
	centred := mustBuild(t, layer, "loss-free:rate=0.00390625,centre=true")
	const steps = 100
	for step := range steps {
		_, x := routeAll(plain, b)
		_, y := routeAll(centred, b)
		if !slices.Equal(x.Mask, y.Mask) {
			t.Fatalf("choices differ at step %d", step)
		}
		var n moe.Counts
		n.Count(b, x.Mask)
		plain.Update(&moe.Outcome{Step: step, Chosen: &n})
		centred.Update(&moe.Outcome{Step: step, Chosen: &n})
	}
	if m := mean(plain.Bias()); m == 0 || math.Abs(m) > steps/256. {
		t.Errorf("without centring the mean of b drifts to %v", m)
	}
	if m := mean(centred.Bias()); m != 0 {
		t.Errorf("with centring the mean of b is %v", m)
	}
}

// The published case of trap 11: GLM-5.2's biases lie in [6.817, 7.063], and a cast to bfloat16 left 8 of 238 values. There
// are at most 9 numbers of bfloat16 in that range, 2^-5 apart; around 0 there is one for each.
func TestDriftCostsPrecision(t *testing.T) {
	distinct := func(offset float32) int {
		seen := map[float32]bool{}
		for i := range 238 {
			seen[toBF16(6.817-offset+0.246*float32(i)/237)] = true
		}
		return len(seen)
	}
	if n := distinct(0); n != 9 {
		t.Errorf("%d values are left of drifted biases, want 9", n)
	}
	if n := distinct(6.94); n != 238 {
		t.Errorf("%d values are left of centred biases, want 238", n)
	}
	// Half precision has three more digits.
	s := mustBuild(t, moe.Layer{Experts: 4, TopK: 1, Groups: 1, GroupsKept: 1}, "loss-free:storage=fp16")
	for i := range 5000 {
		s.Update(&moe.Outcome{Step: i, Chosen: countsOf(8, 2, 2, 4)})
	}
	if b := s.Bias()[1]; b != 4 {
		t.Errorf("a half-precision bias reaches %v, want it stuck at 4, where steps are 2^-8", b)
	}
}

// Half precision against the list of all its numbers.
func TestFP16(t *testing.T) {
	var all []float64
	for h := range 0x7c00 {
		exponent, fraction := h>>10, float64(h&0x3ff)
		if exponent == 0 {
			all = append(all, math.Ldexp(fraction, -24))
		} else {
			all = append(all, math.Ldexp(1024+fraction, exponent-25))
		}
	}
	r := rand.New(rand.NewPCG(43, 1))
	for i := range 200_000 {
		x := float32(math.Ldexp(1+r.Float64(), r.IntN(44)-28))
		at := r.IntN(len(all) - 1)
		switch i % 4 {
		case 1:
			x = float32(all[at])
		case 2:
			x = float32((all[at] + all[at+1]) / 2) // a tie, which goes to the even number
		}
		k, found := slices.BinarySearch(all, float64(x))
		want := all[min(k, len(all)-1)]
		if !found && k > 0 && k < len(all) {
			low, high := float64(x)-all[k-1], all[k]-float64(x)
			if low < high || low == high && k%2 == 1 {
				want = all[k-1]
			}
		}
		if got := toFP16(x); float64(got) != want || toFP16(-x) != -got {
			t.Fatalf("%v becomes %v, want %v", x, got, want)
		}
	}
}

// Trap 9 of strategies.md: a proportional rule of raw counts diverges at the step that suits relative errors. The catalogue
// measured a MaxVio of 7 to 9 and 50 of 64 experts dead at T = 8,192.
func TestRawCountsDiverge(t *testing.T) {
	layer := moe.Layer{Experts: 64, TopK: 6, Groups: 1, GroupsKept: 1}
	r := rand.New(rand.NewPCG(44, 1))
	b := batchOf(r, layer, 8192)
	for e := range layer.Experts {
		m := float32(0.5 * r.NormFloat64())
		for i := range b.Tiles {
			for l := range vec.Lanes {
				b.Tiles[i].Z[e*vec.Lanes+l] += m
			}
		}
	}
	vio := func(text string) (maxVio float64, dead int) {
		s := mustBuild(t, layer, text)
		var n moe.Counts
		for step := range 150 {
			_, a := routeAll(s, b)
			n.Count(b, a.Mask)
			s.Update(&moe.Outcome{Step: step, Batch: b, Chosen: &n})
		}
		for _, v := range n.Global {
			if v == 0 {
				dead++
			}
		}
		return float64(slices.Max(n.Global))/(8192*6/64) - 1, dead
	}
	if v, dead := vio("loss-free:rule=proportional,units=count"); v < 5 || dead < 40 {
		t.Errorf("raw counts end at MaxVio %.2f with %d dead experts", v, dead)
	}
	for _, text := range []string{"loss-free:rule=proportional,rate=0.01", "pid-bias"} {
		if v, dead := vio(text); v > 0.05 || dead > 0 {
			t.Errorf("%s ends at MaxVio %.2f with %d dead experts", text, v, dead)
		}
	}
	for _, units := range []string{"count", "relative"} {
		warned := mustBuild(t, layer, "loss-free:rule=proportional,units="+units).Traits().Warnings != nil
		if warned != (units == "count") {
			t.Errorf("units=%s: warned is %v", units, warned)
		}
	}
}

// Two experts whose scores differ by a number uniform on (−1, 1) + 0.3, T without bound: near balance the loop is linear.
// With d = b₁ − b₂, f = ½ and y = d + 0.3 the errors differ by −4f·y, so a PID controller obeys
//
//	a ← a − 4f·k_i·y,   y = a + 0.3 − 4f·(k_p·y₋₁ + k_d·(y₋₁ − y₋₂))
//
// and the proportional rule contracts by 1 − 4fu a step (numbers.md 6.5). The soft clamp comes to rest too, where sign steps
// would go on.
func TestTwoExpertLaws(t *testing.T) {
	layer := moe.Layer{Experts: 2, TopK: 1, Groups: 1, GroupsKept: 1}
	const tokens = 1 << 40
	follow := func(text string, steps int, see func(step int, y float64)) {
		s := mustBuild(t, layer, text)
		for step := range steps {
			y := float64(s.Bias()[0]) - float64(s.Bias()[1]) + 0.3
			see(step, y)
			first := int64(tokens * min(1, max(0, (1+y)/2)))
			s.Update(&moe.Outcome{Step: step, Chosen: countsOf(first, tokens-first)})
		}
	}
	for _, u := range []string{"0.01", "0.25", "0.75", "1.1"} {
		rate := map[string]float64{"0.01": 0.01, "0.25": 0.25, "0.75": 0.75, "1.1": 1.1}[u]
		want := 0.3
		follow("loss-free:rule=proportional,rate="+u, 6, func(_ int, y float64) {
			if math.Abs(y-want) > 1e-5 {
				t.Errorf("u = %s: y = %v, want %v", u, y, want)
			}
			want *= 1 - 2*rate
		})
	}
	a, y1, y2 := 0.0, 0.0, 0.0
	follow("pid-bias:ki=0.1,kp=0.2,kd=0.05", 60, func(step int, y float64) {
		want := 0.3
		if step > 0 {
			a -= 2 * 0.1 * y1
			want += a - 2*0.2*y1
		}
		if step > 1 {
			want -= 2 * 0.05 * (y1 - y2)
		}
		if math.Abs(y-want) > 1e-5 {
			t.Fatalf("PID at step %d: y = %v, want %v", step, y, want)
		}
		y1, y2 = want, y1
	})
	follow("smebu", 10000, func(step int, y float64) {
		if step > 9900 && math.Abs(y) > 1e-4 {
			t.Fatalf("SMEBU at step %d: MaxVio %v, want it at rest", step, math.Abs(y))
		}
	})
}

// Selection by s·b against sorting every token's products, and what the state of such a rule must obey.
func TestSelectionByProducts(t *testing.T) {
	r := rand.New(rand.NewPCG(45, 1))
	for range 20 {
		layer := moe.Layer{Experts: 2 + r.IntN(40), Groups: 1, GroupsKept: 1}
		layer.TopK = 1 + r.IntN(layer.Experts)
		b := batchOf(r, layer, 1+r.IntN(150))
		s := mustBuild(t, layer, "multiplicative-bias:rate=0.3,rule=proportional")
		for range 3 {
			n := make([]int64, layer.Experts)
			for e := range n {
				n[e] = r.Int64N(50)
			}
			s.Update(&moe.Outcome{Chosen: countsOf(n...)})
		}
		if slices.Min(s.Bias()) <= 0 {
			t.Fatalf("b = %v", s.Bias())
		}
		scores, a := routeAll(s, b)
		for tok := range b.Tokens {
			at := func(e int) float32 {
				return scores[(tok/vec.Lanes*layer.Experts+e)*vec.Lanes+tok%vec.Lanes] * s.Bias()[e]
			}
			order := make([]int, layer.Experts)
			for e := range order {
				order[e] = e
			}
			slices.SortStableFunc(order, func(x, y int) int {
				switch {
				case at(x) > at(y):
					return -1
				case at(x) < at(y):
					return 1
				}
				return 0
			})
			for i, e := range order {
				if chosen := a.Tile(tok / vec.Lanes)[e]>>(tok%vec.Lanes)&1 != 0; chosen != (i < layer.TopK) {
					t.Fatalf("token %d: expert %d is the %dth of products, chosen is %v", tok, e, i+1, chosen)
				}
			}
		}
	}
}

// BIP's first round on the catalogue's 8 by 4 example. Without clipping it is the first step of quantile balancing, whose
// published b = (−0.2575, −0.0275, 0.0425, 0.2425) is centred: the prices before are (0.3, 0.07, 0, −0.2), by hand the third
// largest of every column less the second largest of its row. Clipped, they rob the rich and lift nobody.
func TestBIPByHand(t *testing.T) {
	layer := moe.Layer{Experts: 4, TopK: 1, Groups: 1, GroupsKept: 1, Score: moe.Stored}
	b := batchOf(rand.New(rand.NewPCG(1, 1)), layer, 8)
	for i, row := range [][]float32{{.90, .40, .30, .20}, {.85, .55, .25, .15}, {.80, .30, .35, .10}, {.70, .65, .20, .25},
		{.50, .75, .40, .30}, {.45, .72, .55, .20}, {.30, .68, .61, .35}, {.25, .40, .66, .45}} {
		for e, v := range row {
			b.Tiles[0].Z[e*vec.Lanes+i] = v
		}
	}
	s := mustBuild(t, layer, "bip:rounds=1")
	scores, first := routeAll(s, b)
	loads := func(a *moe.Assignment) (n []int) {
		for _, m := range a.Mask {
			n = append(n, bits.OnesCount64(m))
		}
		return n
	}
	if n := loads(first); !slices.Equal(n, []int{4, 3, 1, 0}) {
		t.Errorf("free loads are %v", n)
	}
	s.Update(&moe.Outcome{Batch: b, Scores: scores})
	if !nearBias(s.Bias(), []float32{-0.3, -0.07, 0, 0}) {
		t.Errorf("b = %v, want the prices (0.3, 0.07, 0, 0)", s.Bias())
	}
	for _, c := range []struct {
		text  string
		steps []int
		want  []float32
	}{
		{"rate=0.5", []int{0}, []float32{-0.15, -0.035, 0, 0}},
		{"rate=0.5,schedule=linear,over=2", []int{0, 2}, []float32{-0.15, -0.035, 0, 0}},
		{"stop=1", []int{0, 1}, []float32{-0.3, -0.07, 0, 0}},
		{"clamp=0.25", []int{0}, []float32{-0.25, -0.07, 0, 0}},
		{"centre=true", []int{0}, []float32{-0.2075, 0.0225, 0.0925, 0.0925}},
	} {
		s := mustBuild(t, layer, "bip:rounds=1,"+c.text)
		for _, step := range c.steps {
			s.Update(&moe.Outcome{Step: step, Batch: b, Scores: scores})
		}
		if !nearBias(s.Bias(), c.want) {
			t.Errorf("%s: b = %v, want %v", c.text, s.Bias(), c.want)
		}
	}
}

// Prices that have climbed keep their differences in low precision if b is centred, since the prices themselves keep fp32.
func TestBIPCentredKeepsItsDigits(t *testing.T) {
	distinct := func(text string) int {
		s := mustBuild(t, layer16, text)
		for step := range 60 {
			b := batchOf(rand.New(rand.NewPCG(48, uint64(step))), layer16, 200)
			scores, _ := routeAll(s, b)
			for i := range scores {
				scores[i] += 30 // as if they had climbed
			}
			s.Update(&moe.Outcome{Step: step, Batch: b, Scores: scores})
		}
		seen := map[float32]bool{}
		for _, v := range s.Bias() {
			seen[v] = true
		}
		return len(seen)
	}
	plain, centred := distinct("bip:storage=bf16"), distinct("bip:storage=bf16,centre=true")
	t.Logf("%d biases differ, centred %d", plain, centred)
	if centred < 14 || plain > 12 {
		t.Errorf("%d biases of 16 differ, centred %d", plain, centred)
	}
}

// A bias whose rate ends says how far it can get.
func TestTravelOfABias(t *testing.T) {
	for text, want := range map[string]moe.Traits{
		"loss-free": {}, "loss-free:stop=50": {Travel: 0.05}, "loss-free:schedule=linear,over=100": {Travel: 0.05, Until: 100},
		"loss-free:schedule=halving,over=10": {Travel: 0.02}, "loss-free:schedule=cosine,over=100,stop=20": {Travel: 0.02, Until: 100},
		"loss-free:schedule=inverse-root,over=10": {}, "loss-free:rule=proportional,schedule=linear,over=30": {Until: 30},
	} {
		got := mustBuild(t, layer16, text).Traits()
		if math.Abs(got.Travel-want.Travel) > 1e-12 || got.Until != want.Until {
			t.Errorf("%s travels %v until %d, want %v and %d", text, got.Travel, got.Until, want.Travel, want.Until)
		}
	}
}

// Prices of micro-batches in turn are those of as many batches; a micro-batch may begin within a tile.
func TestBIPByMicroBatch(t *testing.T) {
	layer := moe.Layer{Experts: 8, TopK: 2, Groups: 1, GroupsKept: 1, Score: moe.Stored}
	whole := batchOf(rand.New(rand.NewPCG(47, 1)), layer, 40, 60)
	whole.MicroBatches = whole.Sequences
	s, one := mustBuild(t, layer, "bip:scope=micro-batch"), mustBuild(t, layer, "bip")
	scores, _ := routeAll(s, whole)
	s.Update(&moe.Outcome{Batch: whole, Scores: scores})
	for _, span := range whole.Sequences {
		part := batchOf(rand.New(rand.NewPCG(47, 2)), layer, span.Len())
		for e := range layer.Experts {
			for l := range span.Len() {
				from := span.From + l
				part.Tiles[l/vec.Lanes].Z[e*vec.Lanes+l%vec.Lanes] = whole.Tiles[from/vec.Lanes].Z[e*vec.Lanes+from%vec.Lanes]
			}
		}
		scores, _ := routeAll(one, part)
		one.Update(&moe.Outcome{Batch: part, Scores: scores})
	}
	if !slices.Equal(s.Bias(), one.Bias()) {
		t.Errorf("b = %v by micro-batch, %v one after the other", s.Bias(), one.Bias())
	}
}

// BIP against its formula with sorted columns, over several batches, on shapes where TK/E is no integer.
func TestBIPAgainstItsFormula(t *testing.T) {
	r := rand.New(rand.NewPCG(46, 1))
	for range 30 {
		layer := moe.Layer{Experts: 2 + r.IntN(30), Groups: 1, GroupsKept: 1}
		layer.TopK = 1 + r.IntN(layer.Experts)
		rounds := 1 + r.IntN(3)
		s := mustBuild(t, layer, "bip")
		s.(*strategy).controllers[0].(*dual).rounds = rounds
		q := make([]float32, layer.Experts)
		for range 3 {
			b := batchOf(r, layer, 1+r.IntN(120), 1+r.IntN(60))
			scores, _ := routeAll(s, b)
			s.Update(&moe.Outcome{Batch: b, Scores: scores})
			for range rounds {
				p := make([]float32, b.Tokens)
				at := func(tok, e int) float32 { return scores[(tok/vec.Lanes*layer.Experts+e)*vec.Lanes+tok%vec.Lanes] }
				descending := func(n int, f func(i int) float32) []float32 {
					x := make([]float32, n)
					for i := range x {
						x[i] = f(i)
					}
					slices.Sort(x)
					slices.Reverse(x)
					return x
				}
				if layer.TopK < layer.Experts {
					for tok := range p {
						p[tok] = max(0, descending(layer.Experts, func(e int) float32 { return at(tok, e) - q[e] })[layer.TopK])
					}
				}
				if room := b.Tokens * layer.TopK / layer.Experts; room < b.Tokens {
					for e := range q {
						q[e] = max(0, descending(b.Tokens, func(tok int) float32 { return at(tok, e) - p[tok] })[room])
					}
				}
			}
			for e, v := range s.Bias() {
				if v != -q[e] {
					t.Fatalf("E = %d, K = %d, T = %d: q = %v, want %v", layer.Experts, layer.TopK, b.Tokens, -v, q[e])
				}
			}
		}
	}
}

// The synthetic demo of numbers.md 6.9, s = U(0,1) of token and expert + U(0,1) of the expert, E = 256, K = 8, on fewer
// tokens: clipping at 0 leaves, after 5 rounds on one batch, MaxVio 1.092, the smallest load at −1 and a mean |violation| of
// 0.980. Those figures are one draw's, so they must lie where a ninth draw of ours would, at 95 %.
func TestBIPStarves(t *testing.T) {
	if testing.Short() {
		t.Skip("routes eight batches of 16,384 tokens and 256 experts: run without -short")
	}
	const tokens, draws = 16384, 8
	const even = tokens * 8 / 256.
	layer := moe.Layer{Experts: 256, TopK: 8, Groups: 1, GroupsKept: 1, Score: moe.Stored}
	b := batchOf(rand.New(rand.NewPCG(1, 1)), layer, tokens)
	var most, mean [draws]float64
	for draw := range draws {
		r := rand.New(rand.NewPCG(47, uint64(draw)))
		for e := range layer.Experts {
			m := r.Float32()
			for i := range b.Tiles {
				for l := range vec.Lanes {
					b.Tiles[i].Z[e*vec.Lanes+l] = m + r.Float32()
				}
			}
		}
		s := mustBuild(t, layer, "bip")
		scores, _ := routeAll(s, b)
		s.Update(&moe.Outcome{Batch: b, Scores: scores})
		_, a := routeAll(s, b)
		var n moe.Counts
		n.Count(b, a.Mask)
		for _, v := range n.Global {
			mean[draw] += math.Abs(float64(v)/even-1) / 256
		}
		most[draw] = float64(slices.Max(n.Global))/even - 1
		if slices.Min(n.Global) != 0 {
			t.Errorf("draw %d: every expert is used", draw)
		}
	}
	for _, c := range []struct {
		name string
		x    [draws]float64
		want float64
	}{{"MaxVio", most, 1.092}, {"mean |violation|", mean, 0.980}} {
		var sum, square float64
		for _, v := range c.x {
			sum += v / draws
		}
		for _, v := range c.x {
			square += (v - sum) * (v - sum) / (draws - 1)
		}
		if half := 2.365 * math.Sqrt(square*(1+1./draws)); math.Abs(sum-c.want) > half { // Student's t, 7 degrees of freedom
			t.Errorf("%s is %.3f ± %.3f, reference %.3f", c.name, sum, half, c.want)
		}
	}
}

func TestBiasWarnings(t *testing.T) {
	layer := moe.Layer{Experts: 64, TopK: 6, Groups: 1, GroupsKept: 1, Score: moe.Softmax}
	for text, want := range map[string]string{
		"loss-free": "coarse for softmax", "loss-free:rule=rms": "a rms step of 0.001 is coarse", "loss-free:rate=0.0001": "",
		"loss-free:rule=proportional": "", "loss-free:rule=proportional,rate=0.01": "a gain of 0.01 is coarse",
		"pid-bias": "a gain of 0.02", "pid-bias:ki=0.001,kp=0.001": "", "smebu": "", "multiplicative-bias": "", "bip": "",
		"multiplicative-bias:storage=bf16": "never moves", "multiplicative-bias:storage=fp16": "",
		"multiplicative-bias:storage=bf16,rate=0.01": "",
		"pid-bias:ki=0.001,kp=0.001,units=count":     "usually diverges",
	} {
		got := strings.Join(mustBuild(t, layer, text).Traits().Warnings, "; ")
		if want == "" && got != "" || !strings.Contains(got, want) {
			t.Errorf("%s warns %q, want %q", text, got, want)
		}
	}
	if w := mustBuild(t, layerV3, "bip").Traits().Warnings; len(w) != 1 || !strings.Contains(w[0], "limits groups") {
		t.Errorf("bip under a group limit warns %q", w)
	}
	for _, text := range []string{"loss-free:rule=rms,units=count", "multiplicative-bias:units=fraction"} {
		spec, err := Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := spec.Build(layer); err == nil {
			t.Errorf("%s is built", text)
		}
	}
}

// Figures tell a bias that is a factor from one that is a term.
func TestFactorsAreDeclared(t *testing.T) {
	layer := moe.Layer{Experts: 8, TopK: 2, Groups: 1, GroupsKept: 1, Score: moe.Sigmoid}
	for spec, want := range map[string]bool{"multiplicative-bias": true, "loss-free": false, "none": false} {
		if got := mustBuild(t, layer, spec).Traits().Factor; got != want {
			t.Errorf("%s: a factor is %v", spec, got)
		}
	}
}
