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

// stored lays out a batch whose scores are given, [token][expert].
func stored(layer moe.Layer, scores ...[]float32) *moe.Batch {
	b := batchOf(rand.New(rand.NewPCG(1, 1)), layer, len(scores))
	for t, row := range scores {
		for e, v := range row {
			b.Tiles[0].Z[e*vec.Lanes+t] = v
		}
	}
	return b
}

// uniform fills a batch with independent scores, U(0, 1).
func uniform(r *rand.Rand, b *moe.Batch) {
	for i := range b.Tiles {
		for j := range b.Tiles[i].Z {
			b.Tiles[i].Z[j] = r.Float32()
		}
	}
}

// tokensOf lists the tokens of each expert in the first tile.
func tokensOf(mask []uint64) [][]int {
	lists := make([][]int, len(mask))
	for e, m := range mask {
		lists[e] = []int{}
		for ; m != 0; m &= m - 1 {
			lists[e] = append(lists[e], bits.TrailingZeros64(m))
		}
	}
	return lists
}

func same(a, b [][]int) bool { return slices.EqualFunc(a, b, slices.Equal) }

// refusal returns why a spec is not built for a layer, or nothing.
func refusal(t *testing.T, layer moe.Layer, text string) string {
	t.Helper()
	spec, err := Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	if _, err = spec.Build(layer); err == nil {
		return ""
	}
	return err.Error()
}

// Trap 3: three rules, three groups. Their bests are .9, .6, .5, sums of two 1.0, 1.2, 1.0, of K/M = three 1.1, 1.2, 1.5.
func TestGroupRulesDiffer(t *testing.T) {
	layer := moe.Layer{Experts: 12, TopK: 3, Groups: 3, GroupsKept: 1, Score: moe.Stored}
	b := stored(layer, []float32{.9, .1, .1, .1, .6, .6, 0, 0, .5, .5, .5, 0})
	for rule, want := range map[string][]int{"v2": {0, 1, 2}, "v3": {4, 5, 6}, "megatron": {8, 9, 10}} {
		for _, preset := range []string{"none", "loss-free", "aux-loss"} {
			s := mustBuild(t, layer, preset+":groups="+rule)
			// A bias that no group's rank may show: trap 2, closed groups are −∞ and not 0.
			for e := range s.Bias() {
				s.Bias()[e] = -5
			}
			_, a := routeAll(s, b)
			var got []int
			for e, m := range a.Mask {
				if m != 0 {
					got = append(got, e)
				}
			}
			if !slices.Equal(got, want) {
				t.Errorf("%s ranking by %s chooses %v, want %v", preset, rule, got, want)
			}
		}
	}
	// V2 ranks by scores, Megatron-LM by biased scores.
	for rule, want := range map[string]int{"v2": 0, "megatron": 4} {
		s := mustBuild(t, layer, "loss-free:groups="+rule)
		for e := 4; e < 8; e++ {
			s.Bias()[e] = 2
		}
		if _, a := routeAll(s, b); a.Mask[want] == 0 {
			t.Errorf("%s with a bias on the second group does not choose expert %d", rule, want)
		}
	}
	free := layer
	free.GroupsKept = 3
	if w := mustBuild(t, free, "none:groups=v2").Traits().Warnings; len(w) != 1 {
		t.Errorf("a rule for groups without a limit warns %q", w)
	}
}

// With K/M = 2 Megatron-LM's rule is DeepSeek-V3's.
func TestMegatronGroupsAreV3sForTwo(t *testing.T) {
	r := rand.New(rand.NewPCG(21, 1))
	for _, layer := range []moe.Layer{{Experts: 32, TopK: 8, Groups: 8, GroupsKept: 4}, {Experts: 12, TopK: 4, Groups: 12, GroupsKept: 5},
		{Experts: 40, TopK: 5, Groups: 8, GroupsKept: 2}} {
		b := batchOf(r, layer, 300)
		v3, megatron := mustBuild(t, layer, "loss-free"), mustBuild(t, layer, "loss-free:groups=megatron")
		for e := range v3.Bias() {
			v3.Bias()[e] = float32(r.NormFloat64())
			megatron.Bias()[e] = v3.Bias()[e]
		}
		_, a := routeAll(v3, b)
		if _, m := routeAll(megatron, b); !slices.Equal(a.Mask, m.Mask) {
			t.Errorf("%+v: the choices differ", layer)
		}
	}
}

// Figures A50 to A52 of numbers.md 6.8, on independent scores: groups touched, overlap with free top-K and score kept. The
// tolerance 0.005 is that of its section 7 (S34).
func TestGroupLimitedOverlaps(t *testing.T) {
	r := rand.New(rand.NewPCG(22, 1))
	for _, c := range []struct {
		rule                         string
		experts, topk, kept          int
		overlap, ratio, used, scales float64
	}{
		{"v3", 256, 8, 4, .817, .9967, 3.96, 5.2947},
		{"megatron", 256, 8, 4, .817, .9967, 3.96, 5.2947},
		{"v2", 160, 6, 1, .267, .889, 1, 4.4586},
		{"v2", 160, 6, 2, .511, .969, 0, 4.4586},
		{"v2", 160, 6, 3, .728, .991, 0, 4.4586},
	} {
		layer := moe.Layer{Experts: c.experts, TopK: c.topk, Groups: 8, GroupsKept: c.kept, Score: moe.Stored}
		b := batchOf(r, layer, 1<<15)
		uniform(r, b)
		s, a := routeAll(mustBuild(t, layer, "none:groups="+c.rule), b)
		layer.GroupsKept = 8
		_, free := routeAll(mustBuild(t, layer, "none"), b)
		var shared, chosen, best, used, touched float64
		for i := range b.Tiles {
			for g := range 8 {
				var own, all uint64
				for e := g * c.experts / 8; e < (g+1)*c.experts/8; e++ {
					m, f := a.Tile(i)[e], free.Tile(i)[e]
					own, all = own|m, all|f
					shared += float64(bits.OnesCount64(m & f))
					for lane := range vec.Lanes {
						v := float64(s[(i*c.experts+e)*vec.Lanes+lane])
						chosen += v * float64(m>>lane&1)
						best += v * float64(f>>lane&1)
					}
				}
				used += float64(bits.OnesCount64(own))
				touched += float64(bits.OnesCount64(all))
			}
		}
		n := float64(b.Tokens)
		for name, x := range map[string][2]float64{"overlap": {shared / n / float64(c.topk), c.overlap}, "score ratio": {chosen / best, c.ratio},
			"groups touched freely": {touched / n / 2, c.scales / 2}, "groups used": {used / n / 2, c.used / 2}} {
			if x[1] != 0 && math.Abs(x[0]-x[1]) > 0.005 {
				t.Errorf("%s %d of %d, M = %d: %s is %.4f, want %.4f", c.rule, c.topk, c.experts, c.kept, name, x[0], x[1])
			}
		}
	}
}

func TestMoGE(t *testing.T) {
	layer := moe.Layer{Experts: 6, TopK: 4, Groups: 2, GroupsKept: 2, Score: moe.Stored}
	b := stored(layer, []float32{.9, .8, .7, .1, .3, .2}, []float32{.1, .1, .1, .5, .5, .6})
	_, a := routeAll(mustBuild(t, layer, "moge"), b)
	if got, want := tokensOf(a.Mask), [][]int{{0, 1}, {0, 1}, {}, {1}, {0}, {0, 1}}; !same(got, want) {
		t.Errorf("experts get tokens %v, want %v", got, want)
	}
	r := rand.New(rand.NewPCG(23, 1))
	for _, layer := range []moe.Layer{{Experts: 64, TopK: 8, Groups: 8, GroupsKept: 8}, {Experts: 64, TopK: 8, Groups: 8, GroupsKept: 3}, {Experts: 30, TopK: 6, Groups: 3, GroupsKept: 3}} {
		b := batchOf(r, layer, 70, 200)
		s, a := routeAll(mustBuild(t, layer, "moge"), b)
		size := layer.Experts / layer.Groups
		for tok := range b.Tokens {
			at := func(e int) float32 { return s[(tok/vec.Lanes*layer.Experts+e)*vec.Lanes+tok%vec.Lanes] }
			for g := range layer.Groups {
				chosen, least, other := 0, float32(2), float32(0)
				for e := g * size; e < (g+1)*size; e++ {
					if a.Tile(tok / vec.Lanes)[e]>>(tok%vec.Lanes)&1 != 0 {
						chosen, least = chosen+1, min(least, at(e))
					} else {
						other = max(other, at(e))
					}
				}
				if chosen != layer.TopK/layer.Groups || least < other {
					t.Fatalf("%+v: token %d has %d experts of group %d, the least %v, beside %v", layer, tok, chosen, g, least, other)
				}
			}
		}
	}
	for text, want := range map[string]string{"moge:groups=3": "must divide topk, which is 4", "moge:groups=4": "and experts, which is 6", "moge:groups=2": ""} {
		if got := refusal(t, layer, text); !strings.Contains(got, want) || (want == "") != (got == "") {
			t.Errorf("%s is refused by %q, want %q", text, got, want)
		}
	}
	// Groups that cannot share K evenly are joined, and said so.
	if w := mustBuild(t, layerV3, "moge").Traits().Warnings; !slices.ContainsFunc(w, func(s string) bool { return strings.Contains(s, "cannot be shared evenly by 8 groups, so 4") }) {
		t.Errorf("K = 4 over 8 groups warns %q", w)
	}
	// One group is plain top-K.
	b = batchOf(r, layer16, 100)
	_, one := routeAll(mustBuild(t, layer16, "moge:groups=1"), b)
	if _, plain := routeAll(mustBuild(t, layer16, "none:score=softmax"), b); !slices.Equal(one.Mask, plain.Mask) {
		t.Error("MoGE of one group is not top-K")
	}
}

// Of two experts, the first is chosen with chance Φ((δ₁ − δ₂)/√2).
func TestRandomOffsets(t *testing.T) {
	layer := moe.Layer{Experts: 2, TopK: 1, Groups: 1, GroupsKept: 1}
	const tokens = 64_000
	b := batchOf(rand.New(rand.NewPCG(24, 1)), layer, tokens)
	for _, text := range []string{"random:offsets=0.1", "random:offsets=1"} {
		s := mustBuild(t, layer, text)
		_, a := routeAll(s, b)
		var n moe.Counts
		n.Count(b, a.Mask)
		o := s.(*strategy).selection.(offsetK).offsets
		p := math.Erfc(float64(o[1]-o[0])/2) / 2
		if sd := math.Sqrt(tokens * p * (1 - p)); math.Abs(float64(n.Global[0])-tokens*p) > 4*sd || p == 0.5 {
			t.Errorf("%s: the first expert has %d tokens, want %.0f ± %.0f", text, n.Global[0], tokens*p, sd)
		}
	}
	small, large := newOffsetK(layer, 1), newOffsetK(layer, 2)
	if large.offsets[1] != 2*small.offsets[1] || small.offsets[1] == 0 {
		t.Errorf("offsets %v of spread 1 and %v of spread 2", small.offsets, large.offsets)
	}
}

// named gives the tokens of a batch ids.
func named(b *moe.Batch, id func(token int) int32) {
	for token := range b.Tokens {
		b.Tiles[token/vec.Lanes].Token[token%vec.Lanes] = id(token)
	}
}

// expertsOf lists the experts of a token.
func expertsOf(a *moe.Assignment, token int) (list []int) {
	for e, m := range a.Tile(token / vec.Lanes) {
		if m>>(token%vec.Lanes)&1 != 0 {
			list = append(list, e)
		}
	}
	return list
}

// Every id has K distinct experts wherever it occurs, and ids spread evenly.
func TestHashTable(t *testing.T) {
	layer := moe.Layer{Experts: 16, TopK: 3, Groups: 4, GroupsKept: 1}
	b := batchOf(rand.New(rand.NewPCG(25, 1)), layer, 40_000)
	named(b, func(token int) int32 { return int32(token * 7 % 20_000) })
	s := mustBuild(t, layer, "hash")
	if tr := s.Traits(); !tr.TokenIDs || !tr.Causal || !tr.Free || tr.Sequences {
		t.Errorf("traits are %+v", tr)
	}
	_, a := routeAll(s, b)
	load := make([]float64, 16)
	for token := range 20_000 {
		list := expertsOf(a, token)
		if len(list) != 3 || !slices.Equal(list, expertsOf(a, token+20_000)) {
			t.Fatalf("id %d has experts %v and %v", token*7%20_000, list, expertsOf(a, token+20_000))
		}
		for _, e := range list {
			load[e]++
		}
	}
	mean, p := 20_000*3./16, 3./16
	for e, n := range load {
		if math.Abs(n-mean) > 4*math.Sqrt(20_000*p*(1-p)) {
			t.Errorf("expert %d has %.0f ids, want %.0f", e, n, mean)
		}
	}
}

// The greedy table by hand: E = 3, K = 2, ids 5, 2, 9, 1 with 6, 5, 3, 3 tokens. Id 5 takes experts 0 and 1 (loads 6 6 0),
// 2 takes 2 and 0 (11 6 5), 1, the lower of equals, takes 2 and 1 (11 9 8), 9 takes 2 and 1.
func TestBalancedTable(t *testing.T) {
	layer := moe.Layer{Experts: 3, TopK: 2, Groups: 1, GroupsKept: 1}
	ids := []int32{5, 5, 5, 5, 5, 5, 2, 2, 2, 2, 2, 9, 9, 9, 1, 1, 1}
	b := batchOf(rand.New(rand.NewPCG(26, 1)), layer, len(ids)+1)
	named(b, func(token int) int32 {
		if token == len(ids) {
			return -1
		}
		return ids[token]
	})
	s := mustBuild(t, layer, "hash:table=balanced,fit=2")
	_, random := routeAll(mustBuild(t, layer, "hash"), b)
	for step := range 2 {
		if _, a := routeAll(s, b); !slices.Equal(a.Mask, random.Mask) {
			t.Errorf("step %d is not routed by the random table", step)
		}
		s.Update(&moe.Outcome{Step: step, Batch: b})
	}
	_, a := routeAll(s, b)
	for token, want := range map[int][]int{0: {0, 1}, 6: {0, 2}, 11: {1, 2}, 14: {1, 2}, 17: expertsOf(random, 17)} {
		if got := expertsOf(a, token); !slices.Equal(got, want) {
			t.Errorf("token %d has experts %v, want %v", token, got, want)
		}
	}
	// Frozen; an id that it has not seen keeps the random table.
	named(b, func(int) int32 { return 4 })
	for step := range 3 {
		s.Update(&moe.Outcome{Step: step + 2, Batch: b})
	}
	_, a = routeAll(s, b)
	_, random = routeAll(mustBuild(t, layer, "hash"), b)
	if !slices.Equal(a.Mask, random.Mask) {
		t.Error("an unseen id does not keep the random table")
	}
	if got := refusal(t, layer, "hash:fit=3"); !strings.Contains(got, "belongs to table=balanced") {
		t.Errorf("fit without a table to fit is refused by %q", got)
	}
}

// On Zipfian ids that the fit has seen, the greedy table is far more even than the random one.
func TestBalancedTableEvensZipf(t *testing.T) {
	layer := moe.Layer{Experts: 16, TopK: 2, Groups: 1, GroupsKept: 1}
	r := rand.New(rand.NewPCG(27, 1))
	zipf := rand.NewZipf(r, 1.15, 20, 999) // the most frequent id has some 2 % of the tokens, less than K/E
	b := batchOf(r, layer, 20_000)
	named(b, func(int) int32 { return int32(zipf.Uint64()) })
	vio := func(s moe.Strategy) float64 {
		_, a := routeAll(s, b)
		var n moe.Counts
		n.Count(b, a.Mask)
		return float64(slices.Max(n.Global))/(20_000*2./16) - 1
	}
	s := mustBuild(t, layer, "hash:table=balanced,fit=1")
	s.Update(&moe.Outcome{Batch: b})
	if random, fitted := vio(mustBuild(t, layer, "hash")), vio(s); fitted > 0.002 || random < 0.1 {
		t.Errorf("MaxVio is %.4f of the greedy table and %.4f of the random one", fitted, random)
	}
}

// The n-gram hash by hand, over a tile boundary and at the start of a sequence. 2^20+7, +13 and +25 are prime.
func TestNgram(t *testing.T) {
	if p := primesAbove(1<<20, 3); !slices.Equal(p, []uint64{1048583, 1048589, 1048601}) {
		t.Errorf("primes above 2^20 are %v", p)
	}
	if p := primesAbove(2, 5); !slices.Equal(p, []uint64{3, 5, 7, 11, 13}) {
		t.Errorf("primes above 2 are %v", p)
	}
	layer := moe.Layer{Experts: 10, TopK: 3, Groups: 1, GroupsKept: 1}
	b := batchOf(rand.New(rand.NewPCG(28, 1)), layer, 71, 29)
	named(b, func(token int) int32 { return int32((token + 3) % 9) })
	s := mustBuild(t, layer, "hash:table=ngram")
	if tr := s.Traits(); !tr.Causal || !tr.Sequences || !tr.TokenIDs {
		t.Errorf("traits are %+v", tr)
	}
	_, a := routeAll(s, b)
	// For id b after a the slots are 3a + b, 9a + b and a + b mod 10.
	for token, want := range map[int][]int{
		0:  {3, 4, 5}, // 3 after nothing: three times 3, so the next free ones
		1:  {1, 3, 7}, // 4 after 3: 13, 31, 7
		3:  {1, 2, 3}, // 6 after 5: 21, 51, 11
		5:  {1, 5, 9}, // 8 after 7: 29, 71, 15
		64: {1, 3, 7}, // 4 after 3, which lies in the tile before
		71: {2, 3, 4}, // 2 at the start of a sequence, where after 1 it would have 5, 1, 3
	} {
		if got := expertsOf(a, token); !slices.Equal(got, want) {
			t.Errorf("token %d has experts %v, want %v", token, got, want)
		}
	}
}

// Trap 13: what a factor of 1.1 or 1.25 means in each code base, for K = 6, E = 64, T = 1000: n̄ = 93.75, T/E = 15.625.
func TestCapacityConventions(t *testing.T) {
	layer := moe.Layer{Experts: 64, TopK: 6, Groups: 8, GroupsKept: 8}
	for text, want := range map[string]int{
		"capacity":                                               118, // Megatron-LM, DeepSpeed: ⌈117.19⌉
		"capacity:rounding=int":                                  117,
		"capacity:rounding=round":                                117,
		"capacity:least=200":                                     200, // DeepSpeed's min_capacity
		"capacity:unit=slots,rounding=int":                       120, // Tutel: 6·int(1.25·16)
		"capacity:unit=tokens,rounding=round":                    20,  // flaxformer: round(19.53), without the factor K
		"capacity:factor=0.1,unit=tokens,rounding=round,least=4": 4,
		"capacity:factor=1,per=device":                           750, // V2: TK/G
		"capacity:factor=1.1":                                    104, // ⌈103.125⌉
	} {
		c := mustBuild(t, layer, text).(*strategy).revision.(*capacity)
		if got := c.size(1000); got != want {
			t.Errorf("%s: capacity is %d, want %d", text, got, want)
		}
	}
	if got := refusal(t, layer16, "capacity:per=device"); !strings.Contains(got, "needs groups") {
		t.Errorf("per=device without devices is refused by %q", got)
	}
}

// excess returns the mean and variance of (n − c)+ for n ~ Binomial(t, p).
func excess(t int, p float64, c int) (mean, variance float64) {
	logFactorial := func(n int) float64 { v, _ := math.Lgamma(float64(n + 1)); return v }
	for n := c + 1; n <= t; n++ {
		x := math.Exp(logFactorial(t) - logFactorial(n) - logFactorial(t-n) + float64(n)*math.Log(p) + float64(t-n)*math.Log1p(-p))
		mean += x * float64(n-c)
		variance += x * float64(n-c) * float64(n-c)
	}
	return mean, variance - mean*mean
}

// The binomial law of dropping (numbers.md 6.2, A10): random routing loses E·Exp[(n − C)+]/(TK) of its choices, whatever the
// order. The loads are negatively associated, so the variance of the sum over experts is at most E times one expert's.
func TestDropLaw(t *testing.T) {
	r := rand.New(rand.NewPCG(29, 1))
	for i, c := range []struct {
		experts, topk, tokens int
		factor, table         float64
	}{
		{8, 2, 512, 1, .03052}, {8, 2, 512, 1.05, .01080}, {8, 2, 512, 1.1, .00342}, {64, 6, 2048, 1, .02740}, {64, 6, 2048, 1.1, .00207},
		{128, 1, 8192, 1, .04961}, {128, 1, 8192, 1.25, .00131}, {256, 8, 2048, 1, .04903}, {64, 6, 4096, 1, .0194},
	} {
		layer := moe.Layer{Experts: c.experts, TopK: c.topk, Groups: 1, GroupsKept: 1}
		part := newCapacity(layer, c.factor, []string{orderGate, orderPosition, orderRandom}[i%3])
		part.batch = true
		s := compose(&strategy{layer: layer, selection: randomK{layer}, revision: part})
		all := c.tokens * c.topk
		mean, variance := excess(c.tokens, float64(c.topk)/float64(c.experts), part.size(c.tokens))
		want := float64(c.experts) * mean / float64(all)
		if math.Abs(want-c.table) > 6e-5 { // half a unit of the last digit printed, and Monte-Carlo where it is that
			t.Errorf("%+v: the law gives %.5f", c, want)
		}
		batches, dropped := 1<<19/all+1, 0
		for range batches {
			b := batchOf(r, layer, c.tokens)
			_, a := routeAll(s, b)
			for _, m := range a.Dropped {
				dropped += bits.OnesCount64(m)
			}
		}
		got := float64(dropped) / float64(all*batches)
		if sd := math.Sqrt(float64(c.experts)*variance/float64(batches)) / float64(all); math.Abs(got-want) > 4*sd {
			t.Errorf("%+v: drop rate %.5f, want %.5f ± %.5f", c, got, want, sd)
		}
	}
}

// Four tokens all of whose two choices are experts 0 and 1, which take two each. Gates are (.333 .667), (.556 .444), (.8 .2),
// (.514 .486); token 0 alone prefers expert 1.
func TestCapacityOrders(t *testing.T) {
	rows := [][]float32{{.30, .60, .05, .1}, {.50, .40, .05, .1}, {.80, .20, .05, .1}, {.90, .85, .05, .1}}
	layer := moe.Layer{Experts: 4, TopK: 2, Groups: 2, GroupsKept: 2, Score: moe.Stored}
	b := stored(layer, rows...)
	b.Tiles[0].Training = false
	for text, want := range map[string][][]int{
		"order=position":                  {{0, 1}, {0, 1}, {}, {}},
		"order=gate":                      {{1, 2}, {0, 3}, {}, {}},
		"order=score":                     {{2, 3}, {0, 3}, {}, {}},
		"order=choice":                    {{1, 2}, {0, 1}, {}, {}},
		"order=batch-priority":            {{1, 2}, {0, 2}, {}, {}},
		"order=score,per=device":          {{2, 3}, {0, 3}, {}, {}}, // one device has room for four, of .9 .85 .8 .6 .5 .4 .3 .2
		"order=position,per=device":       {{0, 1}, {0, 1}, {}, {}},
		"order=score,protect=1":           {{0, 1, 2, 3}, {0, 1, 2, 3}, {}, {}},
		"order=score,evaluation=free":     {{0, 1, 2, 3}, {0, 1, 2, 3}, {}, {}},
		"order=gate,overflow=next-best":   {{1, 2}, {0, 3}, {0, 2}, {1, 3}}, // late are 3, 1, 0, 2 in order
		"order=gate,overflow=any":         {{1, 2}, {0, 3}, {1, 3}, {0, 2}},
		"order=choice,overflow=next-best": {{1, 2}, {0, 1}, {2, 3}, {0, 3}}, // late are token 3 of expert 0, then 0, 2, 3 as second choices
	} {
		s := mustBuild(t, layer, "capacity:factor=1,scope=batch,"+text)
		_, a := routeAll(s, b)
		if got := tokensOf(a.Mask); !same(got, want) {
			t.Errorf("%s: experts keep tokens %v, want %v", text, got, want)
		}
		for e := range 2 {
			if !strings.Contains(text, "overflow") && a.Mask[e]|a.Dropped[e] != 0xf || a.Mask[e]&a.Dropped[e] != 0 {
				t.Errorf("%s: expert %d keeps %b and drops %b", text, e, a.Mask[e], a.Dropped[e])
			}
		}
	}
	b.Tiles[0].Training = true
	if _, a := routeAll(mustBuild(t, layer, "capacity:factor=1,scope=batch,evaluation=free"), b); a.Dropped[0] == 0 {
		t.Error("evaluation=free drops nothing in training")
	}
	// With K = 1 a gate is the score, not 1.
	one := moe.Layer{Experts: 2, TopK: 1, Groups: 1, GroupsKept: 1, Score: moe.Stored}
	_, a := routeAll(mustBuild(t, one, "capacity:factor=1,scope=batch"), stored(one, []float32{.5, .1}, []float32{.9, .1}, []float32{.7, .1}, []float32{.6, .1}))
	if got, want := tokensOf(a.Mask), [][]int{{1, 2}, {}}; !same(got, want) {
		t.Errorf("with K = 1 experts keep tokens %v, want %v", got, want)
	}
	// By lot every token keeps a place half of the time.
	kept, trials := [4]int{}, 4000
	s := mustBuild(t, layer, "capacity:factor=1,scope=batch,order=random")
	r := rand.New(rand.NewPCG(30, 1))
	for range trials {
		b.Tiles[0].Key = r.Uint64()
		_, a := routeAll(s, b)
		for token := range kept {
			kept[token] += int(a.Mask[0] >> token & 1)
		}
	}
	for token, n := range kept {
		if math.Abs(float64(n)-float64(trials)/2) > 4*math.Sqrt(float64(trials))/2 {
			t.Errorf("by lot token %d is kept %d times of %d", token, n, trials)
		}
	}
}

// What every capacity promises on random shapes: no unit's expert (device) above C; what is dropped found its expert full;
// without rerouting kept and dropped together are the choice; with it nothing is dropped where the token could go.
func TestCapacityPromises(t *testing.T) {
	r := rand.New(rand.NewPCG(31, 1))
	for range 60 {
		size := 1 + r.IntN(4)
		layer := moe.Layer{Groups: 2 + r.IntN(4)}
		layer.Experts, layer.GroupsKept = layer.Groups*size, layer.Groups
		layer.TopK = 1 + r.IntN(layer.Experts-1)
		b := batchOf(r, layer, 1+r.IntN(100), 1+r.IntN(100), 1+r.IntN(100))
		_, plain := routeAll(mustBuild(t, layer, "none"), b)
		for _, order := range []string{"gate", "score", "position", "random", "choice", "batch-priority"} {
			for _, overflow := range []string{"drop", "next-best", "any"} {
				text := "capacity:order=" + order + ",overflow=" + overflow + ",factor=0.9,per=" + []string{"expert", "device"}[r.IntN(2)]
				s := mustBuild(t, layer, text)
				c := s.(*strategy).revision.(*capacity)
				_, a := routeAll(s, b)
				if order == "gate" && overflow == "drop" && slices.Equal(a.Mask, plain.Mask) {
					t.Fatalf("%s drops nothing, so the test sees nothing", text)
				}
				for i := range a.Mask {
					if a.Mask[i]&a.Dropped[i] != 0 || overflow == "drop" && a.Mask[i]|a.Dropped[i] != plain.Mask[i] || a.Dropped[i]&^plain.Mask[i] != 0 {
						t.Fatalf("%s: keeps %x and drops %x of %x", text, a.Mask[i], a.Dropped[i], plain.Mask[i])
					}
				}
				for _, unit := range b.MicroBatches {
					load := make([]int, c.bins)
					for token := unit.From; token < unit.To; token++ {
						for _, e := range expertsOf(a, token) {
							load[e*c.bins/layer.Experts]++
						}
					}
					for token := unit.From; token < unit.To; token++ {
						for e, m := range a.Dropped[token/vec.Lanes*layer.Experts : (token/vec.Lanes+1)*layer.Experts] {
							if m>>(token%vec.Lanes)&1 == 0 {
								continue
							}
							if load[c.bin(e)] != c.size(unit.Len()) {
								t.Fatalf("%s: token %d is dropped by expert %d, which has room: %d of %d", text, token, e, load[c.bin(e)], c.size(unit.Len()))
							}
							for other := range layer.Experts {
								if overflow != "drop" && load[c.bin(other)] < c.size(unit.Len()) && a.Tile(token / vec.Lanes)[other]>>(token%vec.Lanes)&1 == 0 {
									t.Fatalf("%s: token %d is dropped, and expert %d has room", text, token, other)
								}
							}
						}
					}
					if slices.Max(load) > c.size(unit.Len()) {
						t.Fatalf("%s: loads %v above %d", text, load, c.size(unit.Len()))
					}
				}
			}
		}
	}
}

// Trap 14: by position a token keeps its experts whatever comes after it; by score, lot or choice it does not.
func TestPositionOrderIsCausal(t *testing.T) {
	r := rand.New(rand.NewPCG(32, 1))
	for order, causal := range map[string]bool{"position": true, "gate": false, "score": false, "batch-priority": false, "choice": false} {
		s := mustBuild(t, layer16, "capacity:factor=1,scope=batch,order="+order)
		if s.Traits().Causal != causal {
			t.Errorf("order %s says causal %v", order, s.Traits().Causal)
		}
		b := batchOf(r, layer16, 90, 100)
		_, before := routeAll(s, b)
		const cut = 75
		for token := cut; token < b.Tokens; token++ {
			for e := range layer16.Experts {
				b.Tiles[token/vec.Lanes].Z[e*vec.Lanes+token%vec.Lanes] = float32(r.NormFloat64() * 2)
			}
		}
		_, after := routeAll(s, b)
		same := true
		for token := range cut {
			same = same && slices.Equal(expertsOf(before, token), expertsOf(after, token))
		}
		if same != causal {
			t.Errorf("order %s: earlier tokens keep their experts: %v", order, same)
		}
	}
	if mustBuild(t, layer16, "capacity:order=position,overflow=next-best").Traits().Causal {
		t.Error("overflow is served once all have claimed, which is not causal")
	}
}

// About a share of the sequences is protected, and nothing of them is dropped.
func TestProtectedSequences(t *testing.T) {
	r := rand.New(rand.NewPCG(33, 1))
	s := mustBuild(t, layer16, "capacity:factor=0.5,protect=0.25,order=score")
	whole, all := 0, 0
	for range 100 {
		b := batchOf(r, layer16, 40, 50, 30, 70, 20, 60)
		_, a := routeAll(s, b)
		for _, span := range b.Sequences {
			kept := 0
			for token := span.From; token < span.To; token++ {
				kept += len(expertsOf(a, token))
			}
			all++
			if kept == span.Len()*layer16.TopK {
				whole++
			}
		}
	}
	if sd := math.Sqrt(float64(all) * .25 * .75); math.Abs(float64(whole)-float64(all)/4) > 4*sd {
		t.Errorf("%d of %d sequences are whole", whole, all)
	}
}

// Trap 8: where an expert is full, counts after drops hide how overloaded it is.
func TestBiasFeedbackOfDrops(t *testing.T) {
	layer := moe.Layer{Experts: 2, TopK: 1, Groups: 1, GroupsKept: 1}
	for text, want := range map[string][]float32{"after": {0, 0}, "before": {-0.5, 0.5}} {
		s := mustBuild(t, layer, "capacity:rate=0.5,feedback="+text)
		if s.Traits().Rate != 0.5 {
			t.Errorf("feedback %s: the rate is %v", text, s.Traits().Rate)
		}
		s.Update(&moe.Outcome{Chosen: countsOf(5, 5), Wanted: countsOf(15, 5)})
		if !slices.Equal(s.Bias(), want) {
			t.Errorf("counts %s drops give b = %v, want %v", text, s.Bias(), want)
		}
	}
	if got := refusal(t, layer, "capacity:feedback=before"); !strings.Contains(got, "give it a rate") {
		t.Errorf("feedback without a bias is refused by %q", got)
	}
}

// A token that chooses zero experts has as many fewer, and the others are those of top-K.
func TestZeroExperts(t *testing.T) {
	layer := moe.Layer{Experts: 5, TopK: 2, Groups: 1, GroupsKept: 1, Score: moe.Stored}
	b := stored(layer, []float32{.9, .8, .1, .2, .3}, []float32{.9, .1, .2, .8, .3}, []float32{.1, .2, .3, .8, .9})
	s := mustBuild(t, layer, "null-experts:zero=2")
	if tr := s.Traits(); tr.Idle != 2 || !tr.Varies {
		t.Errorf("traits are %+v", tr)
	}
	_, a := routeAll(s, b)
	if got, want := tokensOf(a.Mask), [][]int{{0, 1}, {0}, {}, {}, {}}; !same(got, want) {
		t.Errorf("experts get tokens %v, want %v", got, want)
	}
	for _, text := range []string{"null-experts:zero=4", "longcat-bias:zero=4"} {
		if got := refusal(t, layer, text); !strings.Contains(got, "zero=3 or fewer") {
			t.Errorf("%s is refused by %q", text, got)
		}
	}
}

// LongCat-Flash's update by hand: N = 3, Z = 1, K = 2, K_e = 1.5, so each share is wanted at 0.25; 10 tokens.
func TestLongCatBudget(t *testing.T) {
	layer := moe.Layer{Experts: 4, TopK: 2, Groups: 1, GroupsKept: 1}
	s := mustBuild(t, layer, "longcat-bias:zero=1,budget=1.5,rate=0.5")
	s.Update(&moe.Outcome{Chosen: &moe.Counts{Experts: 4, Tokens: 10, Global: []int64{10, 5, 0, 0}}})
	if want := []float32{-0.125, 0, 0.125, 0}; !slices.Equal(s.Bias(), want) {
		t.Errorf("b = %v, want %v", s.Bias(), want)
	}
	if got := refusal(t, layer, "longcat-bias:budget=3"); !strings.Contains(got, "at most topk") {
		t.Errorf("a budget above K is refused by %q", got)
	}
	// On one batch it arrives at even loads and at the budget.
	layer = moe.Layer{Experts: 12, TopK: 3, Groups: 1, GroupsKept: 1}
	b := batchOf(rand.New(rand.NewPCG(34, 1)), layer, 4096)
	s = mustBuild(t, layer, "longcat-bias:zero=4,budget=2,rate=0.2")
	var n moe.Counts
	for step := range 600 {
		_, a := routeAll(s, b)
		n.Count(b, a.Mask)
		s.Update(&moe.Outcome{Step: step, Chosen: &n})
	}
	for e, v := range n.Global {
		want := 4096 * 2. / 8
		if e >= 8 {
			want = 0
		}
		if math.Abs(float64(v)-want) > 0.01*4096*2/8 {
			t.Errorf("expert %d has %d tokens, want %.0f", e, v, want)
		}
	}
	for _, b := range s.Bias()[8:] {
		if b != 0 {
			t.Errorf("a zero expert has the bias %v", b)
		}
	}
}

// Relabelling groups and the experts inside each relabels the choices: nothing depends on an index but ties.
func TestRelabelling(t *testing.T) {
	r := rand.New(rand.NewPCG(35, 1))
	layer := moe.Layer{Experts: 32, TopK: 8, Groups: 8, GroupsKept: 4}
	for _, text := range []string{"none:groups=v2", "none:groups=megatron", "moge", "capacity:factor=0.8", "capacity:factor=0.8,per=device,order=score",
		"capacity:factor=0.9,overflow=next-best", "capacity:factor=0.9,order=batch-priority,overflow=next-best"} {
		b := batchOf(r, layer, 100, 60, 70)
		to, size := make([]int, layer.Experts), layer.Experts/layer.Groups
		for g, other := range r.Perm(layer.Groups) {
			for i, j := range r.Perm(size) {
				to[g*size+i] = other*size + j
			}
		}
		s := mustBuild(t, layer, text)
		_, before := routeAll(s, b)
		for i := range b.Tiles {
			z := slices.Clone(b.Tiles[i].Z)
			for e := range to {
				copy(b.Tiles[i].Z[to[e]*vec.Lanes:], z[e*vec.Lanes:(e+1)*vec.Lanes])
			}
		}
		_, after := routeAll(s, b)
		for i := range b.Tiles {
			for e := range to {
				if before.Tile(i)[e] != after.Tile(i)[to[e]] {
					t.Fatalf("%s: expert %d has %x as %d and %x as %d", text, e, before.Tile(i)[e], e, after.Tile(i)[to[e]], to[e])
				}
			}
		}
	}
}

// Revisions of whole batches allocate nothing once they have seen one.
func TestRevisionsDoNotAllocate(t *testing.T) {
	for _, text := range []string{"capacity:factor=0.9,protect=0.2", "capacity:factor=0.9,order=random,overflow=next-best", "hash:table=ngram"} {
		b := batchOf(rand.New(rand.NewPCG(36, 1)), layer16, 70, 30, 100)
		s := mustBuild(t, layer16, text)
		scores, a := routeAll(s, b)
		w := moe.NewScratch(layer16)
		if n := testing.AllocsPerRun(10, func() {
			for i := range b.Tiles {
				s.Route(&b.Tiles[i], scores[i*16*vec.Lanes:(i+1)*16*vec.Lanes], w, a.Tile(i), nil)
			}
			if err := s.RouteBatch(b, scores, a); err != nil {
				t.Fatal(err)
			}
		}); n > 0 {
			t.Errorf("%s allocates %v times a batch", text, n)
		}
	}
}

// A loss counts choices before drops, as Megatron-LM does: after them a saturated expert would look just full.
func TestLossesCountBeforeDrops(t *testing.T) {
	layer := moe.Layer{Experts: 2, TopK: 1, Groups: 1, GroupsKept: 1}
	b := batchOf(rand.New(rand.NewPCG(1, 1)), layer, 64)
	l := newLoss(1, scopeGlobal)
	wanted, kept := countsOf(60, 4), countsOf(40, 4)
	l.prepare(&moe.Outcome{Batch: b, Chosen: kept, Wanted: wanted})
	if !slices.Equal(l.prices, []float32{1.875, 0.125}) {
		t.Errorf("prices are %v, want 2·60/64 and 2·4/64", l.prices)
	}
}

// LongCat's bias by hand: a share of 1/4 too much for one of two real experts, then half the rate, a clamp, and a stop.
func TestLongCatBudgetByHand(t *testing.T) {
	layer := moe.Layer{Experts: 3, TopK: 1, Groups: 1, GroupsKept: 1}
	s := mustBuild(t, layer, "longcat-bias:zero=1,budget=0.5,rate=0.8,schedule=halving,over=1,clamp=0.25,stop=3").(*strategy)
	step := func(n int) {
		counts := countsOf(4, 0, 4)
		counts.Tokens = 8
		s.Update(&moe.Outcome{Step: n, Chosen: counts})
	}
	if got := refusal(t, layer, "longcat-bias:zero=1,centre=true"); !strings.Contains(got, "centre=false") {
		t.Errorf("centring a budget away is refused by %q", got)
	}
	if w := mustBuild(t, layer, "longcat-bias:zero=1,units=relative,rate=5").Traits().Warnings; len(w) != 1 || !strings.Contains(w[0], "coarse") {
		t.Errorf("a large gain of relative errors warns %q", w)
	}
	nobody := mustBuild(t, layer, "longcat-bias:zero=1,budget=0.5,rate=0.5").(*strategy)
	none := countsOf(0, 0, 0)
	none.Tokens = 8
	if nobody.Update(&moe.Outcome{Chosen: none}); !slices.Equal(nobody.bias, []float32{0.125, 0.125, 0}) {
		t.Errorf("where all choose experts that compute nothing b is %v", nobody.bias)
	}
	for i, want := range [][]float32{{-0.2, 0.2, 0}, {-0.25, 0.25, 0}, {-0.25, 0.25, 0}, {-0.25, 0.25, 0}} {
		if step(i); !slices.Equal(s.bias, want) {
			t.Errorf("after step %d b is %v, want %v", i, s.bias, want)
		}
	}
}
