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

// batchOf lays out a batch of random logits in sequences that begin anywhere in a tile.
func batchOf(r *rand.Rand, layer moe.Layer, lengths ...int) *moe.Batch {
	tokens := 0
	var spans []moe.Span
	for _, n := range lengths {
		spans = append(spans, moe.Span{From: tokens, To: tokens + n})
		tokens += n
	}
	b := moe.NewBatch(layer, tokens)
	b.Resize(tokens)
	b.Sequences = spans
	b.SplitMicroBatches(3)
	for i := range b.Tiles {
		t := &b.Tiles[i]
		t.Key, t.Training = r.Uint64(), true
		for e := range layer.Experts {
			for l := range t.Tokens {
				t.Z[e*vec.Lanes+l] = float32(r.NormFloat64() + 0.1*float64(e%7))
			}
		}
	}
	return b
}

// logitsOf returns a batch's logits [tile][E][64], as a learning router's.
func logitsOf(b *moe.Batch) (z []float32) {
	for _, t := range b.Tiles {
		z = append(z, t.Z...)
	}
	return z
}

func mustBuild(t *testing.T, layer moe.Layer, text string) moe.Strategy {
	t.Helper()
	spec, err := Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	s, err := spec.Build(layer)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// routeAll scores and routes a batch.
func routeAll(s moe.Strategy, b *moe.Batch) (scores []float32, a *moe.Assignment) {
	n := b.Layer.Experts * vec.Lanes
	scores = make([]float32, len(b.Tiles)*n)
	a = moe.NewAssignment(b.Layer, b.Tokens, s.Traits())
	w := moe.NewScratch(b.Layer)
	for i := range b.Tiles {
		s.Score(&b.Tiles[i], scores[i*n:(i+1)*n], b.Tiles[i].Z, w)
		s.Route(&b.Tiles[i], scores[i*n:(i+1)*n], w, a.Tile(i), a.FreshTile(i))
	}
	if err := s.RouteBatch(b, scores, a); err != nil {
		panic(err)
	}
	return scores, a
}

var layer16 = moe.Layer{Experts: 16, TopK: 3, Groups: 1, GroupsKept: 1}
var layerV3 = moe.Layer{Experts: 32, TopK: 4, Groups: 8, GroupsKept: 2}

// The contract of every strategy: each token gets as many distinct experts as it promises, within its groups, dead lanes
// get none, the same input gives the same choice, and nothing is allocated.
func TestContract(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, p := range Presets() {
		for _, layer := range layersFor(t, p) {
			b := batchOf(r, layer, 70, 30, 100)
			s := mustBuild(t, layer, p.Name)
			traits := s.Traits()
			scores, a := routeAll(s, b)
			_, again := routeAll(mustBuild(t, layer, p.Name), b)
			if !slices.Equal(a.Mask, again.Mask) {
				t.Errorf("%s: two builds choose differently", p.Name)
			}
			for tok := range len(b.Tiles) * vec.Lanes {
				chosen, groups := 0, map[int]bool{}
				for e, m := range a.Tile(tok / vec.Lanes) {
					if m>>(tok%vec.Lanes)&1 != 0 {
						chosen++
						groups[e*layer.Groups/layer.Experts] = true
					}
				}
				least, most := layer.TopK, layer.TopK
				if traits.Drops || traits.Varies {
					least = 0
				}
				if traits.Varies {
					most = layer.Experts
				}
				if tok >= b.Tokens {
					least, most = 0, 0
				}
				if chosen < least || chosen > most {
					t.Fatalf("%s: token %d of %d has %d experts, want %d to %d", p.Name, tok, b.Tokens, chosen, least, most)
				}
				if !traits.Free && len(groups) > layer.GroupsKept {
					t.Fatalf("%s: token %d touches %d groups, want %d", p.Name, tok, len(groups), layer.GroupsKept)
				}
			}
			if traits.Whole {
				continue
			}
			var counts moe.Counts
			counts.Count(b, a.Mask)
			g, w := make([]float32, layer.Experts*vec.Lanes), moe.NewScratch(layer)
			outcome := &moe.Outcome{Step: 1, Batch: b, Scores: scores, Logits: logitsOf(b), Assigned: a, Chosen: &counts, Fresh: &counts}
			step := func() {
				s.Route(&b.Tiles[0], scores[:layer.Experts*vec.Lanes], w, a.Tile(0), a.FreshTile(0))
				counts.Count(b, a.Mask)
				s.PrepareLoss(outcome)
				s.Backward(b, 0, scores[:layer.Experts*vec.Lanes], b.Tiles[0].Z, g, w)
				s.Update(outcome)
			}
			step()
			if n := testing.AllocsPerRun(10, step); n > 0 {
				t.Errorf("%s allocates %v times a step", p.Name, n)
			}
		}
	}
}

func TestRandomIsUniformOverSubsets(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 3))
	layer := moe.Layer{Experts: 6, TopK: 2, Groups: 3, GroupsKept: 2}
	count := map[uint64]float64{}
	const tokens = 60_000
	b := batchOf(r, layer, tokens)
	_, a := routeAll(mustBuild(t, layer, "random"), b)
	for tok := range tokens {
		var set uint64
		for e, m := range a.Tile(tok / vec.Lanes) {
			set |= m >> (tok % vec.Lanes) & 1 << e
		}
		count[set]++
	}
	// Two experts of one group: 3 pairs of groups hold it 2 times of 3; of two groups: once of 3; 6 subsets of each four.
	for set, n := range count {
		p := 1. / 3 / 6
		if low := bits.TrailingZeros64(set); set>>low == 3 && low%2 == 0 {
			p = 2. / 3 / 6
		}
		if sd := math.Sqrt(tokens * p * (1 - p)); math.Abs(n-tokens*p) > 4.5*sd {
			t.Errorf("subset %06b was drawn %.0f times, want %.0f", set, n, tokens*p)
		}
	}
	if len(count) != 15 {
		t.Errorf("%d subsets were drawn, want 15", len(count))
	}
}

// The three invariances of biased top-K: a constant on b, a positive factor on s and b, a relabelling of the experts.
func TestInvariances(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 5))
	b := batchOf(r, layer16, 128)
	bias := make([]float32, 16)
	for e := range bias {
		bias[e] = float32(r.IntN(64)) / 64
	}
	for i := range b.Tiles { // multiples of 2^-10, so that sums and powers of two are exact
		for j, z := range b.Tiles[i].Z {
			b.Tiles[i].Z[j] = float32(math.Round(float64(z)*1024)) / 1024
		}
	}
	choose := func(s, bias []float32) []uint64 {
		mask := make([]uint64, 16)
		topK{layer16}.choose(&b.Tiles[0], s, bias, moe.NewScratch(layer16), mask)
		return mask
	}
	s := b.Tiles[0].Z
	want := choose(s, bias)
	shifted, s4, b4 := slices.Clone(bias), slices.Clone(s), slices.Clone(bias)
	for e := range shifted {
		shifted[e] += 3
		b4[e] *= 4
	}
	for i := range s4 {
		s4[i] *= 4
	}
	if !slices.Equal(choose(s, shifted), want) {
		t.Error("adding a constant to b changes choices")
	}
	if !slices.Equal(choose(s4, b4), want) {
		t.Error("scaling s and b together changes choices")
	}
	perm := r.Perm(16)
	ps, pb := make([]float32, len(s)), make([]float32, 16)
	for e, to := range perm {
		copy(ps[to*vec.Lanes:(to+1)*vec.Lanes], s[e*vec.Lanes:(e+1)*vec.Lanes])
		pb[to] = bias[e]
		for l := range vec.Lanes { // no ties, whose winner depends on the label
			ps[to*vec.Lanes+l] += float32(e) * 1e-5
			s[e*vec.Lanes+l] += float32(e) * 1e-5
		}
	}
	before, after := choose(s, bias), choose(ps, pb)
	for e, to := range perm {
		if before[e] != after[to] {
			t.Fatal("relabelling experts changes choices")
		}
	}
}

// Score identity A31 and weak duality A32 of numbers.md 6.4, on random biases, against the balanced optimum.
func TestDualityOfBiasedRouting(t *testing.T) {
	r := rand.New(rand.NewPCG(6, 6))
	layer := moe.Layer{Experts: 8, TopK: 2, Groups: 1, GroupsKept: 1}
	b := batchOf(r, layer, 64)
	s, best := routeAll(mustBuild(t, layer, "balanced-optimum"), b)
	total := func(mask []uint64, bias []float64) (sum float64) {
		for e, m := range mask {
			for ; m != 0; m &= m - 1 {
				sum += float64(s[e*vec.Lanes+bits.TrailingZeros64(m)]) + bias[e]
			}
		}
		return sum
	}
	zero := make([]float64, 8)
	optimum := total(best.Mask, zero)
	for range 50 {
		b32, b64 := make([]float32, 8), make([]float64, 8)
		for e := range b32 {
			b32[e] = float32(r.NormFloat64() * 0.2)
			b64[e] = float64(b32[e])
		}
		mask := make([]uint64, 8)
		topK{layer}.choose(&b.Tiles[0], s, b32, moe.NewScratch(layer), mask)
		dual, drift := 0.0, 0.0
		for tok := range 64 {
			biased := make([]float64, 8)
			for e := range biased {
				biased[e] = float64(s[e*vec.Lanes+tok]) + b64[e]
			}
			slices.Sort(biased)
			dual += biased[7] + biased[6]
		}
		for e, m := range mask {
			dual -= b64[e] * 64 * 2 / 8
			drift += b64[e] * (float64(bits.OnesCount64(m)) - 64*2/8)
		}
		if got := total(mask, zero); math.Abs(got-(dual-drift)) > 1e-7*got {
			t.Fatalf("score %v, but D(b) − Σ b(n − n̄) = %v", got, dual-drift)
		}
		if dual < optimum-1e-6 {
			t.Fatalf("D(b) = %v is below the balanced optimum %v", dual, optimum)
		}
	}
}

// Every loss against central differences in float64 of its definition, with counts held fixed.
func TestLossGradients(t *testing.T) {
	for _, text := range []string{"aux-loss:coeff=0.5", "aux-loss:coeff=0.5,scope=sequence", "aux-loss:coeff=0.5,scope=micro-batch",
		"aux-loss:coeff=0.5,mode=running", "aux-loss:coeff=0.5,counts=unbiased,value=K", "deepseek-v3:coeff=0.5"} {
		for _, score := range []moe.Score{moe.Sigmoid, moe.Softmax, moe.SqrtSoftplus} {
			layer := moe.Layer{Experts: 6, TopK: 2, Groups: 3, GroupsKept: 2, Score: score}
			if strings.HasPrefix(text, "deepseek") {
				layer.Score = moe.Sigmoid
			}
			b := batchOf(rand.New(rand.NewPCG(7, 7)), layer, 50, 20, 40, 10)
			b.Ranks = 1
			s := mustBuild(t, layer, text)
			scores, a := routeAll(s, b)
			var chosen, fresh moe.Counts
			chosen.Count(b, a.Mask)
			if a.Fresh != nil {
				fresh.Count(b, a.Fresh)
			}
			s.PrepareLoss(&moe.Outcome{Batch: b, Chosen: &chosen, Fresh: &fresh})
			loss := s.(*strategy).losses[0].(*balanceLoss)
			want := 0.0
			for i := range b.Tiles {
				n := layer.Experts * vec.Lanes
				g := make([]float32, n)
				got := s.Backward(b, i, scores[i*n:(i+1)*n], b.Tiles[i].Z, g, moe.NewScratch(layer))
				want = definition(b, i, loss, layer.Score)
				if math.Abs(got-want) > 1e-6*math.Abs(want) {
					t.Errorf("%s %s: tile %d has loss %v, want %v", text, layer.Score, i, got, want)
				}
				for j := range g {
					if j%vec.Lanes >= b.Tiles[i].Tokens {
						if g[j] != 0 {
							t.Fatalf("%s: a dead lane has gradient %v", text, g[j])
						}
						continue
					}
					const h = 1.0 / 256
					z := b.Tiles[i].Z[j]
					b.Tiles[i].Z[j] = z + h
					up := definition(b, i, loss, layer.Score)
					hi := float64(b.Tiles[i].Z[j])
					b.Tiles[i].Z[j] = z - h
					diff := (up - definition(b, i, loss, layer.Score)) / (hi - float64(b.Tiles[i].Z[j]))
					b.Tiles[i].Z[j] = z
					if math.Abs(float64(g[j])-diff) > 1e-5*0.5/float64(b.Tokens)*10 {
						t.Fatalf("%s %s: gradient %v at %d, central difference %v", text, layer.Score, g[j], j, diff)
					}
				}
			}
		}
	}
}

// definition is a tile's part of α·mean over units of Σ_e w_e·P_e, in float64, straight from the formula.
func definition(b *moe.Batch, tile int, l *balanceLoss, score moe.Score) (sum float64) {
	e := b.Layer.Experts
	t := &b.Tiles[tile]
	for lane := range t.Tokens {
		token := t.Start + lane
		unit := slices.IndexFunc(l.spans, func(s moe.Span) bool { return token >= s.From && token < s.To })
		var z, dot float64
		for x := range e {
			v := float64(t.Z[x*vec.Lanes+lane])
			switch score {
			case moe.Sigmoid:
				v = 1 / (1 + math.Exp(-v))
			case moe.Softmax:
				v = math.Exp(v)
			case moe.SqrtSoftplus:
				v = math.Sqrt(math.Log1p(math.Exp(v)))
			}
			z += v
			dot += v * float64(l.prices[unit*e+x])
		}
		sum += l.coeff * dot / z / float64(len(l.spans)) / float64(l.spans[unit].Len())
	}
	return sum
}

// At uniform counts the price is 1 for all, the loss is α (or αK), and its gradient is zero.
func TestLossAtBalance(t *testing.T) {
	for text, want := range map[string]float64{"aux-loss:coeff=0.5": 0.5, "aux-loss:coeff=0.5,value=K": 1,
		"aux-loss:coeff=0.5,scope=sequence": 0.5, "aux-loss:coeff=0.5,mode=running": 0.5, "aux-loss:coeff=0.5,scope=micro-batch": 0.5,
		"aux-loss:coeff=0.5,counts=unbiased": 0.5, "deepseek-v3:coeff=0.5": 0.5} {
		layer := moe.Layer{Experts: 8, TopK: 2, Groups: 1, GroupsKept: 1}
		b := batchOf(rand.New(rand.NewPCG(8, 8)), layer, 32, 32, 64)
		s := mustBuild(t, layer, text)
		scores, own := routeAll(s, b)
		_, a := routeAll(mustBuild(t, layer, "round-robin"), b)
		var even, skewed moe.Counts
		even.Count(b, a.Mask)
		skewed.Count(b, own.Mask)
		// The counts that the loss reads are even, the others are not.
		chosen, fresh := &even, &skewed
		if s.Traits().Fresh {
			chosen, fresh = fresh, chosen
		}
		value := func() (loss, gradient float64) {
			s.PrepareLoss(&moe.Outcome{Batch: b, Chosen: chosen, Fresh: fresh})
			for i := range b.Tiles {
				n := layer.Experts * vec.Lanes
				g := make([]float32, n)
				loss += s.Backward(b, i, scores[i*n:(i+1)*n], b.Tiles[i].Z, g, moe.NewScratch(layer))
				for _, v := range g {
					gradient = max(gradient, math.Abs(float64(v)))
				}
			}
			return loss, gradient
		}
		if loss, gradient := value(); math.Abs(loss-want) > 1e-6 || gradient > 1e-8 {
			t.Errorf("%s is %v with a gradient of %v at balance, want %v and none", text, loss, gradient, want)
		}
		chosen, fresh = fresh, chosen
		if loss, gradient := value(); math.Abs(loss-want) < 1e-3 || gradient < 1e-5 {
			t.Errorf("%s is %v with a gradient of %v away from balance", text, loss, gradient)
		}
	}
}

// A fresh top-K is that of the scores alone: neither the bias nor the group limit touches it.
func TestFreshChoiceIsPlain(t *testing.T) {
	b := batchOf(rand.New(rand.NewPCG(12, 12)), layerV3, 64, 64)
	s := mustBuild(t, layerV3, "deepseek-v3:rate=0.5")
	for step := range 3 {
		_, a := routeAll(s, b)
		var n moe.Counts
		n.Count(b, a.Mask)
		s.Update(&moe.Outcome{Step: step, Chosen: &n})
	}
	free := layerV3
	free.GroupsKept = free.Groups
	_, plain := routeAll(mustBuild(t, free, "none"), b)
	_, a := routeAll(s, b)
	if !slices.Equal(a.Fresh, plain.Mask) {
		t.Error("the fresh choice is not the plain top-K")
	}
	if slices.Equal(a.Mask, plain.Mask) {
		t.Error("the bias changes nothing, so the test sees nothing")
	}
}

// Megatron-LM's running counts: the first accumulation step sees its own micro-batches, the last sees all.
func TestRunningCounts(t *testing.T) {
	layer := moe.Layer{Experts: 2, TopK: 1, Groups: 1, GroupsKept: 1}
	b := batchOf(rand.New(rand.NewPCG(9, 9)), layer, 10, 10, 10, 10)
	b.SplitMicroBatches(4)
	b.Ranks = 2
	counts := &moe.Counts{Experts: 2, Tokens: 40, MicroBatch: []int64{10, 0, 5, 5, 0, 10, 5, 5}, Global: []int64{20, 20}}
	l := newLoss(1, scopeGlobal)
	l.running = true
	l.prepare(&moe.Outcome{Batch: b, Chosen: counts})
	want := []float32{1.5, 0.5, 1.5, 0.5, 1, 1, 1, 1}
	if !slices.Equal(l.prices, want) {
		t.Errorf("prices are %v, want %v", l.prices, want)
	}
}

// countsOf returns the counts of a step in which every token chose one expert.
func countsOf(n ...int64) *moe.Counts {
	c := &moe.Counts{Experts: len(n), Global: n}
	for _, v := range n {
		c.Tokens += int(v)
	}
	return c
}

func TestBiasRules(t *testing.T) {
	layer := moe.Layer{Experts: 4, TopK: 1, Groups: 1, GroupsKept: 1}
	for _, c := range []struct {
		text string
		want []float32
	}{
		{"loss-free:rate=0.5", []float32{-0.5, 0.5, 0.5, 0}}, // overloaded goes down: the sign that a public summary inverts
		{"loss-free:rate=0.5,centre=true", []float32{-0.625, 0.375, 0.375, -0.125}},
		{"loss-free:rate=0.5,rule=proportional", []float32{-0.5, 0.25, 0.25, 0}},
		{"loss-free:rate=0.5,rule=proportional,units=fraction", []float32{-0.125, 0.0625, 0.0625, 0}},
		{"loss-free:rate=0.5,rule=proportional,units=count", []float32{-2, 1, 1, 0}},
		{"deepseek-v3:rate=0.5", []float32{-0.5, 0.5, 0.5, 0}},
	} {
		s := mustBuild(t, layer, c.text)
		s.Update(&moe.Outcome{Step: 0, Chosen: countsOf(8, 2, 2, 4)})
		if !slices.Equal(s.Bias(), c.want) {
			t.Errorf("%s: b = %v, want %v", c.text, s.Bias(), c.want)
		}
	}
	s := mustBuild(t, layer, "loss-free:rate=0.5,stop=1")
	s.Update(&moe.Outcome{Step: 0, Chosen: countsOf(8, 2, 2, 4)})
	s.Update(&moe.Outcome{Step: 1, Chosen: countsOf(8, 2, 2, 4)})
	if s.Bias()[0] != -0.5 {
		t.Errorf("the bias moves after its stop: %v", s.Bias())
	}
	s = mustBuild(t, layer, "loss-free:storage=bf16")
	for i := range 2000 {
		s.Update(&moe.Outcome{Step: i, Chosen: countsOf(8, 2, 2, 4)})
	}
	if b := s.Bias()[1]; b != 0.5 { // steps of 1e-3 are lost where bfloat16 has steps of 2^-8
		t.Errorf("a bfloat16 bias reaches %v, want it stuck at 0.5", b)
	}
}

// The two-expert law (numbers.md 6.5): with s1 − s2 uniform on (−1, 1) + 0.3 the time-mean MaxVio is 2fu = u, and never
// above 4fu.
func TestTwoExpertSignLaw(t *testing.T) {
	layer := moe.Layer{Experts: 2, TopK: 1, Groups: 1, GroupsKept: 1}
	for _, u := range []float64{0.001, 0.01, 0.05} {
		c := newBias(layer.Experts)
		c.rate = u
		const tokens = 1 << 40
		var mean float64
		steps, warm := int(4/u), int(2/u)
		for step := range steps {
			d := float64(c.b[0]) - float64(c.b[1])
			first := int64(tokens * min(1, max(0, (1.3+d)/2))) // P(s1 − s2 + d > 0)
			vio := math.Abs(2*float64(first)/tokens - 1)
			if step >= warm {
				mean += vio / float64(steps-warm)
				if vio > 4*0.5*u*1.001 {
					t.Fatalf("u = %v: MaxVio %v is above 4fu", u, vio)
				}
			}
			c.update(&moe.Outcome{Step: step, Chosen: countsOf(first, tokens-first)})
		}
		if math.Abs(mean/u-1) > 0.01 {
			t.Errorf("u = %v: mean MaxVio %v, want %v", u, mean, u)
		}
	}
}

// The golden instances of numbers.md 6.4.
func TestGoldenInstances(t *testing.T) {
	for _, c := range []struct {
		tokens, experts, topk int
		free, best            float64
		loads                 []int64
	}{
		{12, 4, 1, 9.016537, 8.905279, []int64{2, 2, 3, 5}},
		{24, 8, 2, 36.126660, 35.830168, []int64{6, 8, 6, 5, 1, 6, 10, 6}},
	} {
		layer := moe.Layer{Experts: c.experts, TopK: c.topk, Groups: 1, GroupsKept: 1, Score: moe.Stored}
		b := batchOf(rand.New(rand.NewPCG(1, 1)), layer, c.tokens)
		for i := 1; i <= c.tokens; i++ {
			for j := 1; j <= c.experts; j++ {
				b.Tiles[0].Z[(j-1)*vec.Lanes+i-1] = float32(float64((7919*i+104729*j+1299709*((i*j)%97))%1000003) / 1000003)
			}
		}
		total := func(a *moe.Assignment) (sum float64, n []int64) {
			n = make([]int64, c.experts)
			for e, m := range a.Mask {
				n[e] = int64(bits.OnesCount64(m))
				for ; m != 0; m &= m - 1 {
					sum += float64(b.Tiles[0].Z[e*vec.Lanes+bits.TrailingZeros64(m)])
				}
			}
			return sum, n
		}
		_, free := routeAll(mustBuild(t, layer, "none"), b)
		if sum, n := total(free); math.Abs(sum-c.free) > 1e-5 || !slices.Equal(n, c.loads) {
			t.Errorf("top-K has %v with loads %v, want %v with %v", sum, n, c.free, c.loads)
		}
		_, best := routeAll(mustBuild(t, layer, "balanced-optimum"), b)
		if sum, n := total(best); math.Abs(sum-c.best) > 1e-5 || slices.Max(n) != slices.Min(n) {
			t.Errorf("the optimum has %v with loads %v, want %v", sum, n, c.best)
		}
	}
}

// Sign steps are subgradient descent on the dual: with a small step the second golden instance ends exactly balanced, and so
// at the optimum; with a coarse one it never settles.
func TestSignRuleOnTheGoldenInstance(t *testing.T) {
	layer := moe.Layer{Experts: 8, TopK: 2, Groups: 1, GroupsKept: 1, Score: moe.Stored}
	b := batchOf(rand.New(rand.NewPCG(1, 1)), layer, 24)
	for i := 1; i <= 24; i++ {
		for j := 1; j <= 8; j++ {
			b.Tiles[0].Z[(j-1)*vec.Lanes+i-1] = float32(float64((7919*i+104729*j+1299709*((i*j)%97))%1000003) / 1000003)
		}
	}
	even := slices.Repeat([]int64{6}, 8)
	for rate, c := range map[string]struct {
		steps   int
		settles bool
	}{"0.001": {20000, true}, "0.01": {4000, false}} {
		s := mustBuild(t, layer, "loss-free:rate="+rate)
		w, mask := moe.NewScratch(layer), make([]uint64, 8)
		var n moe.Counts
		settled := false
		for step := range c.steps {
			s.Route(&b.Tiles[0], b.Tiles[0].Z, w, mask, nil)
			n.Count(b, mask)
			s.Update(&moe.Outcome{Step: step, Chosen: &n})
			settled = slices.Equal(n.Global, even)
		}
		if settled != c.settles {
			t.Errorf("rate %s ends with loads %v", rate, n.Global)
		}
		var sum float64
		for e, m := range mask {
			for ; m != 0; m &= m - 1 {
				sum += float64(b.Tiles[0].Z[e*vec.Lanes+bits.TrailingZeros64(m)])
			}
		}
		if c.settles && math.Abs(sum-35.830168) > 1e-5 {
			t.Errorf("rate %s ends with affinity %v, want the optimum 35.830168", rate, sum)
		}
	}
}

// A group that is not kept counts as −∞, so a negative bias does not let it through, as a mask of 0 would.
func TestGroupsNotKeptAreNeverChosen(t *testing.T) {
	layer := moe.Layer{Experts: 4, TopK: 2, Groups: 2, GroupsKept: 1}
	b := batchOf(rand.New(rand.NewPCG(1, 1)), layer, 1)
	for e, v := range []float32{0.9, 0.1, 0.6, 0.5} {
		b.Tiles[0].Z[e*vec.Lanes] = v
	}
	mask := make([]uint64, 4)
	topK{layer}.choose(&b.Tiles[0], b.Tiles[0].Z, []float32{-5, -5, -5, -5}, moe.NewScratch(layer), mask)
	if !slices.Equal(mask, []uint64{0, 0, 1, 1}) {
		t.Errorf("chose %v, want the group with the larger sum, 0.6 + 0.5", mask)
	}
}

func TestParse(t *testing.T) {
	for text, want := range map[string]string{
		"none": "none", "aux-loss": "aux-loss", "aux-loss:coeff=0.03": "aux-loss", "aux-loss:coeff=1e-1": "aux-loss:coeff=0.1",
		"loss-free:centre=true,rate=1e-3": "loss-free:centre=true", " loss-free ": "loss-free",
		"aux-loss:scope=sequence,coeff=0.010": "aux-loss:coeff=0.01,scope=sequence",
	} {
		s, err := Parse(text)
		if err != nil || s.String() != want {
			t.Errorf("%q is %q, %v, want %q", text, s, err, want)
		}
	}
	for text, want := range map[string]string{
		"lossfree": "did you mean loss-free?", "": "there is no strategy", "none:x": "no knob=value",
		"aux-loss:coef=1": "did you mean coeff?", "aux-loss:coeff=x": "must be a number", "aux-loss:coeff=-1": "must be 0 to",
		"aux-loss:coeff=NaN": "must be a number", "aux-loss:scope=globl": "did you mean global?", "loss-free:stop=1.5": "whole number",
		"aux-loss:coeff=1,coeff=2": "given twice", "round-robin:a=1": "no knobs",
	} {
		if _, err := Parse(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q gives %v, want %q", text, err, want)
		}
	}
	for _, text := range []string{"loss-free:units=count", "aux-loss:scope=sequence,mode=running", "aux-loss:scope=sequence,local=0.01"} {
		spec, err := Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := spec.Build(layer16); err == nil {
			t.Errorf("%s is built", text)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range append(Default(), "loss-free:rate=1e-3,rule=proportional", "x:y=z", ":", "aux-loss:coeff=") {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s, err := Parse(text)
		if err != nil {
			return
		}
		again, err := Parse(s.String())
		if err != nil || again.String() != s.String() {
			t.Fatalf("%q is %q, which parses as %q, %v", text, s, again, err)
		}
	})
}

// Every strategy says what it is, and its examples work.
func TestCardsAreWhole(t *testing.T) {
	for _, p := range Presets() {
		for field, text := range map[string]string{"Family": p.Family, "Summary": p.Summary, "Formula": p.Formula, "Needs": p.Needs,
			"Changes": p.Changes, "Fails": p.Fails, "Paper": p.Paper, "Read": p.Read} {
			if strings.TrimSpace(text) == "" {
				t.Errorf("%s has no %s", p.Name, field)
			}
		}
		if p.Strength != "" && !slices.ContainsFunc(p.Knobs, func(k Knob) bool { return k.Name == p.Strength }) {
			t.Errorf("%s has no knob %s, its strength", p.Name, p.Strength)
		}
	}
}
