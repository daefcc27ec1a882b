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

// training makes a batch one of training, in which rules that are published for training only assign.
func training(b *moe.Batch) *moe.Batch {
	for i := range b.Tiles {
		b.Tiles[i].Training = true
	}
	return b
}

// table is a training batch of given scores, one row for each token, in as many groups.
func table(groups, topk int, rows ...[]float32) *moe.Batch {
	layer := moe.Layer{Experts: len(rows[0]), TopK: topk, Groups: groups, GroupsKept: groups, Score: moe.Stored}
	b := training(batchOf(rand.New(rand.NewPCG(1, 1)), layer, len(rows)))
	for t, row := range rows {
		for e, v := range row {
			b.Tiles[0].Z[e*vec.Lanes+t] = v
		}
	}
	return b
}

// outcome is what a rule did with a batch: total score, loads, and each token's number of experts.
type outcome struct {
	mask, dropped []uint64
	total         float64
	loads         []int
	held          []int
}

func assign(t *testing.T, text string, b *moe.Batch) (o outcome) {
	t.Helper()
	s, a := routeAll(mustBuild(t, b.Layer, text), b)
	e := b.Layer.Experts
	o = outcome{mask: a.Mask, dropped: a.Dropped, loads: make([]int, e), held: make([]int, b.Tokens)}
	for i, m := range a.Mask {
		for ; m != 0; m &= m - 1 {
			l := bits.TrailingZeros64(m)
			o.total += float64(s[i*vec.Lanes+l])
			o.loads[i%e]++
			o.held[i/e*vec.Lanes+l]++
		}
	}
	return o
}

func count(masks []uint64) (n int) {
	for _, m := range masks {
		n += bits.OnesCount64(m)
	}
	return n
}

func TestAssignmentsByHand(t *testing.T) {
	steep := [][]float32{{.9, .5, .1}, {.8, .6, .2}, {.7, .4, .3}}
	for _, c := range []struct {
		text   string
		b      *moe.Batch
		want   []uint64 // by expert, bit t for token t
		denied []uint64
	}{
		// ε = 8/50 = 0.16. Round 0: experts 0 and 1 bid 8−5.5+ε and 7−3+ε for token 0, expert 2 bids 2−1+ε for token 2.
		// Round 1: expert 0 sees 8−4.16, 5 and 5.5−1.16 and bids 5−4.34+ε for token 1; the others keep theirs.
		{"base", table(1, 1, []float32{8, 7, 0}, []float32{5, 1, 1}, []float32{5.5, 3, 2}), []uint64{0b010, 0b001, 0b100}, nil},
		// Ties: both bid for the earlier tokens, the lower expert wins, and the other turns to what is free.
		{"base", table(1, 1, []float32{1, 1}, []float32{1, 1}, []float32{1, 1}, []float32{1, 1}), []uint64{0b0011, 0b1100}, nil},
		// Each expert takes its best T·K/E = 1, and 2.
		{"expert-choice", table(1, 1, steep...), []uint64{0b001, 0b010, 0b100}, nil},
		{"expert-choice", table(1, 2, steep...), []uint64{0b011, 0b011, 0b110}, nil},
		{"expert-choice:factor=0.5", table(1, 2, steep...), []uint64{0b001, 0b010, 0b100}, nil},
		// Ties go to the earlier token.
		{"expert-choice", table(1, 1, []float32{.5, .5}, []float32{.5, .5}), []uint64{0b01, 0b01}, nil},
		// C = 2. All first choices are expert 0, token 2's is lost; then 0 and 1 fill expert 1, and token 2 is admitted by
		// its next best in round 2.
		{"maxscore:coeff=0", table(1, 2, steep...), []uint64{0b011, 0b011, 0b100}, []uint64{0b100, 0, 0}},
		// C = ⌈4/3⌉.
		{"maxscore:coeff=0", table(1, 2, steep[:2]...), []uint64{0b11, 0b11, 0}, []uint64{0, 0, 0}},
		// C = 1 and one choice only.
		{"maxscore:coeff=0", table(1, 1, steep...), []uint64{0b001, 0, 0}, []uint64{0b110, 0, 0}},
		// Room for one each: token 1 prefers expert 2 to 1 and gets 1, the first with room.
		{"swipe", table(1, 1, []float32{9, 0, 0}, []float32{9, 1, 8}, []float32{9, 8, 1}), []uint64{0b001, 0b010, 0b100}, nil},
		// Room for two. k = 0: tokens 0, 1 to expert 0, token 2 to the first with room, 1. k = 1: token 0 fills expert 1,
		// token 1 is left out and token 2 has it already: both to expert 2.
		{"swipe", table(1, 2, []float32{3, 2, 1}, []float32{3, 2, 1}, []float32{3, 2, 1}), []uint64{0b011, 0b101, 0b110}, nil},
		// Room is left where token 2 is already: token 0 goes there and token 2 takes its place.
		{"swipe", table(1, 2, []float32{3, 2, 1}, []float32{2, 3, 1}, []float32{2, 1, 3}), []uint64{0b110, 0b011, 0b101}, nil},
		// Two workers of two experts, room for two each: the left out go to expert k mod 2 = 0 of worker 1.
		{"swipe", table(2, 1, []float32{1, 9, 0, 5}, []float32{1, 9, 0, 5}, []float32{1, 9, 0, 5}, []float32{1, 9, 0, 5}),
			[]uint64{0, 0b0011, 0b1100, 0}, nil},
		// The second choice of all goes to expert 1 mod 2 of worker 1 where worker 0 is full.
		{"swipe", table(2, 2, []float32{8, 9, 0, 1}, []float32{8, 9, 0, 1}), []uint64{0, 0b11, 0, 0b11}, nil},
	} {
		o := assign(t, c.text, c.b)
		if !slices.Equal(o.mask, c.want) {
			t.Errorf("%s with K = %d chooses %03b, want %03b", c.text, c.b.Layer.TopK, o.mask, c.want)
		}
		if c.denied != nil && !slices.Equal(o.dropped, c.denied) {
			t.Errorf("%s with K = %d drops %03b, want %03b", c.text, c.b.Layer.TopK, o.dropped, c.denied)
		}
	}
}

func TestAuctionCosts(t *testing.T) {
	b := table(1, 1, []float32{8, 7, 0}, []float32{5, 1, 1}, []float32{5.5, 3, 2})
	s := mustBuild(t, b.Layer, "base")
	routeAll(s, b)
	for i, want := range []float64{4.16 + 0.16, 5 - 4.34 + 0.16, 1.16 + 0.16} {
		if got := s.(*strategy).revision.(*auction).cost[i]; math.Abs(float64(got)-want) > 1e-5 {
			t.Errorf("token %d costs %v, want %v", i, got, want)
		}
	}
}

// An auction that is broken off after any round still ends evenly.
func TestAuctionBrokenOff(t *testing.T) {
	layer := moe.Layer{Experts: 8, TopK: 1, Groups: 1, GroupsKept: 1}
	b := skewed(layer, 203)
	s, a := routeAll(mustBuild(t, layer, "none"), b)
	greedy := slices.Clone(a.Mask)
	for rounds := range 4 {
		x := &auction{exact: 100}
		x.load(b, s, greedy)
		for round := range rounds {
			if x.round(round, slices.Max(x.z), 0.1) {
				t.Fatalf("it was over after round %d, so the test sees nothing", round)
			}
		}
		x.settle(b, s, a)
		var n moe.Counts
		n.Count(b, a.Mask)
		if slices.Min(n.Global) != 25 || slices.Max(n.Global) != 26 || count(a.Mask) != 203 {
			t.Errorf("after %d rounds loads are %v", rounds, n.Global)
		}
	}
}

// Of kernels (32 1; 4 2) the plan with even rows and columns is (p 1−p; 1−p p)/2 with p/(1−p) = √(32·2/(1·4)) = 4.
func TestSinkhornPlanByHand(t *testing.T) {
	ln := func(x float64) float32 { return float32(math.Log(x)) }
	b := table(1, 1, []float32{ln(32), ln(1)}, []float32{ln(4), ln(2)})
	s := mustBuild(t, b.Layer, "sinkhorn")
	_, a := routeAll(s, b)
	if !slices.Equal(a.Mask, []uint64{0b01, 0b10}) {
		t.Errorf("chose %02b, want token 0 at expert 0 and 1 at 1", a.Mask)
	}
	p := s.(*strategy).revision.(*sinkhornPlan)
	for i, want := range []float64{0.4, 0.1, 0.1, 0.4} {
		tok, e := i/2, i%2
		got := float64(p.row[0][tok]) * float64(p.kernel[e*vec.Lanes+tok]) * math.Exp(float64(p.column[e]))
		if math.Abs(got-want) > 1e-3 {
			t.Errorf("plan of token %d and expert %d is %v, want %v", tok, e, got, want)
		}
	}
	b.Tiles[0].Training = false
	if _, a := routeAll(s, b); !slices.Equal(a.Mask, []uint64{0b11, 0}) {
		t.Errorf("outside training it chose %02b, want expert 0 for both", a.Mask)
	}
}

// A plan of a large batch is even in rows and columns, whatever the scores, and its top-1 far evener than plain top-1.
func TestSinkhornPlanIsEven(t *testing.T) {
	for _, score := range []moe.Score{moe.Sigmoid, moe.Softmax, moe.SqrtSoftplus} {
		layer := moe.Layer{Experts: 12, TopK: 2, Groups: 1, GroupsKept: 1, Score: score}
		b := skewed(layer, 1000)
		s := mustBuild(t, layer, "sinkhorn")
		routeAll(s, b)
		p := s.(*strategy).revision.(*sinkhornPlan)
		column := make([]float64, layer.Experts)
		for tok := range b.Tokens {
			row := 0.0
			for e := range column {
				v := float64(p.row[tok/vec.Lanes][tok%vec.Lanes]) * float64(p.kernel[(tok/vec.Lanes*layer.Experts+e)*vec.Lanes+tok%vec.Lanes]) *
					math.Exp(float64(p.column[e]))
				row += v
				column[e] += v
			}
			if math.Abs(row*float64(b.Tokens)-1) > 2e-3 {
				t.Fatalf("%s: token %d has %v of its 1/T", score, tok, row*float64(b.Tokens))
			}
		}
		for e, v := range column {
			if math.Abs(v*float64(layer.Experts)-1) > 1e-5 {
				t.Errorf("%s: expert %d has %v of its 1/E", score, e, v*float64(layer.Experts))
			}
		}
		plain, even := assign(t, "none", b), assign(t, "sinkhorn", b)
		if slices.Max(even.loads)*2 > slices.Max(plain.loads) {
			t.Errorf("%s: largest load %d by the plan, %d without", score, slices.Max(even.loads), slices.Max(plain.loads))
		}
	}
}

// The plan is that of the logits: scores that lose a constant of each token, as softmax does, change none of its choices.
func TestSinkhornOfSoftmaxScores(t *testing.T) {
	layer := moe.Layer{Experts: 12, TopK: 3, Groups: 1, GroupsKept: 1, Score: moe.Stored}
	b := skewed(layer, 500)
	want := assign(t, "sinkhorn", b)
	b.Layer.Score = moe.Softmax
	if got := assign(t, "sinkhorn", b); !slices.Equal(got.mask, want.mask) {
		t.Error("softmax scores and logits are assigned differently")
	}
}

// skewed is a training batch in which some experts are far more popular than others.
func skewed(layer moe.Layer, lengths ...int) *moe.Batch {
	r := rand.New(rand.NewPCG(uint64(layer.Experts), uint64(lengths[0])))
	b := training(batchOf(r, layer, lengths...))
	for i := range b.Tiles {
		for j := range b.Tiles[i].Z {
			b.Tiles[i].Z[j] += float32(2 * (j / vec.Lanes % 3))
		}
	}
	return b
}

// What each rule promises of loads and experts per token, on shapes that divide and that do not. Rules that give every
// token K experts and every expert its share collect no more than the optimum; expert choice, freed of the former, no less.
func TestPromisesOfAssignments(t *testing.T) {
	for _, shape := range [][3]int{{128, 8, 2}, {130, 8, 3}, {61, 7, 1}, {200, 16, 5}, {5, 12, 1}, {3, 12, 2}, {64, 6, 5}, {1, 4, 1}, {90, 3, 1}} {
		for _, groups := range []int{1, 2} {
			tokens, experts, k := shape[0], shape[1], shape[2]
			if experts%groups != 0 {
				continue
			}
			layer := moe.Layer{Experts: experts, TopK: k, Groups: groups, GroupsKept: groups}
			b := skewed(layer, tokens)
			places := tokens * k
			optimum := assign(t, "balanced-optimum", b)
			even := func(text string, loads []int) {
				t.Helper()
				if low, high := places/len(loads), (places+len(loads)-1)/len(loads); slices.Min(loads) < low || slices.Max(loads) > high {
					t.Errorf("%s on %v has loads %v, want %d to %d", text, shape, loads, low, high)
				}
			}
			full := func(text string, o outcome) {
				t.Helper()
				if slices.Min(o.held) != k || slices.Max(o.held) != k {
					t.Errorf("%s on %v gives tokens %d to %d experts, want %d", text, shape, slices.Min(o.held), slices.Max(o.held), k)
				}
			}
			for _, text := range []string{"base", "base:rounds=1", "base:score=softmax"} {
				if k == 1 {
					o := assign(t, text, b)
					even(text, o.loads)
					full(text, o)
					if o.total > optimum.total*(1+1e-6) && text != "base:score=softmax" {
						t.Errorf("%s on %v has %v, above the optimum %v", text, shape, o.total, optimum.total)
					}
				}
			}
			o := assign(t, "swipe", b)
			full("swipe", o)
			if groups == 1 {
				even("swipe", o.loads)
				if o.total > optimum.total*(1+1e-6) {
					t.Errorf("swipe on %v has %v, above the optimum %v", shape, o.total, optimum.total)
				}
			} else {
				workers := make([]int, groups)
				for e, n := range o.loads {
					workers[e*groups/experts] += n
				}
				even("swipe by worker", workers)
			}
			o = assign(t, "maxscore:coeff=0", b)
			if c := (places + experts - 1) / experts; slices.Max(o.loads) > c {
				t.Errorf("maxscore on %v has loads %v, want at most %d", shape, o.loads, c)
			}
			if kept, lost := count(o.mask), count(o.dropped); kept+lost != places {
				t.Errorf("maxscore on %v keeps %d and drops %d of %d", shape, kept, lost, places)
			}
			if slices.Max(o.held) > k || o.total > optimum.total*(1+1e-6) && places%experts == 0 {
				t.Errorf("maxscore on %v has %v, above the optimum %v", shape, o.total, optimum.total)
			}
			full("sinkhorn", assign(t, "sinkhorn", b))
			o = assign(t, "expert-choice", b)
			want := max(1, int(math.Floor(float64(places)/float64(experts)+0.5)))
			if slices.Min(o.loads) != want || slices.Max(o.loads) != want {
				t.Errorf("expert-choice on %v has loads %v, want %d", shape, o.loads, want)
			}
			if places%experts == 0 && o.total < optimum.total*(1-1e-6) {
				t.Errorf("expert-choice on %v has %v, below the optimum %v that also gives each token %d", shape, o.total, optimum.total, k)
			}
		}
	}
}

// On the golden instances of numbers.md 6.4 no balanced rule beats the optimum, and BASE's auction comes within T·ε of it.
func TestAssignmentsOfGoldenInstances(t *testing.T) {
	for _, c := range []struct {
		tokens, experts, topk int
		best                  float64
	}{{12, 4, 1, 8.905279}, {24, 8, 2, 35.830168}} {
		rows := make([][]float32, c.tokens)
		low, high := float32(1), float32(0)
		for i := range rows {
			for j := 1; j <= c.experts; j++ {
				t := i + 1
				v := float32(float64((7919*t+104729*j+1299709*((t*j)%97))%1000003) / 1000003)
				rows[i] = append(rows[i], v)
				low, high = min(low, v), max(high, v)
			}
		}
		b := table(1, c.topk, rows...)
		for _, text := range []string{"base", "swipe", "maxscore:coeff=0"} {
			if text == "base" && c.topk > 1 {
				continue
			}
			o := assign(t, text, b)
			if o.total > c.best+1e-5 {
				t.Errorf("%s has %v, above the optimum %v", text, o.total, c.best)
			}
			if within := float64(c.tokens) * float64(high-low) / 50; text == "base" && o.total < c.best-within {
				t.Errorf("the auction has %v, more than T·ε = %v below the optimum %v", o.total, within, c.best)
			}
		}
		if o := assign(t, "expert-choice", b); o.total < c.best-1e-5 {
			t.Errorf("expert choice has %v, below %v", o.total, c.best)
		}
	}
}

// numbers.md A55: with independent scores a token gets no expert with chance (1 − c/E)^E, c = factor·K; with softmax
// scores, which couple a token's experts, far less often.
func TestExpertChoiceCoverage(t *testing.T) {
	const tokens = 1 << 14
	for _, c := range []struct {
		experts, topk int
		want          float64
	}{{8, 2, .1001}, {16, 2, .1181}, {64, 2, .1311}, {64, 6, .0018}} {
		layer := moe.Layer{Experts: c.experts, TopK: c.topk, Groups: 1, GroupsKept: 1}
		b := batchOf(rand.New(rand.NewPCG(55, uint64(c.experts))), layer, tokens)
		unserved := func(text string) (n float64) {
			for _, held := range assign(t, text, b).held {
				if held == 0 {
					n++
				}
			}
			return n / tokens
		}
		got, sd := unserved("expert-choice"), math.Sqrt(c.want*(1-c.want)/tokens)
		if math.Abs(got-c.want) > 4*sd+5e-5 {
			t.Errorf("E = %d, K = %d: %v of tokens are unserved, want %v", c.experts, c.topk, got, c.want)
		}
		if c.experts == 16 {
			if coupled := unserved("expert-choice:score=softmax"); coupled < 0.004 || coupled > 0.02 {
				t.Errorf("with softmax scores %v are unserved, want about 0.009", coupled)
			}
		}
	}
}

func TestExpertChoiceByMicroBatch(t *testing.T) {
	b := skewed(layer16, 100, 60, 200)
	s := mustBuild(t, layer16, "expert-choice:scope=micro-batch")
	if !s.Traits().MicroBatches {
		t.Error("it does not ask for micro-batches")
	}
	_, a := routeAll(s, b)
	var n moe.Counts
	n.Count(b, a.Mask)
	for i, span := range b.MicroBatches {
		want := int64(math.Floor(float64(span.Len()*3)/16 + 0.5))
		for e, v := range n.MicroBatch[i*16 : (i+1)*16] {
			if v != want {
				t.Errorf("micro-batch %d gives expert %d %d tokens, want %d", i, e, v, want)
			}
		}
	}
}

// numbers.md 1.4: E = 16 and K = 2 leak 5.6147 bits a layer, 50.53 in nine layers.
func TestLeak(t *testing.T) {
	if got := leakedBits(2, 16); math.Abs(got-5.6147) > 1e-4 || math.Abs(9*got-50.53) > 0.01 {
		t.Errorf("the bound is %v bits, want 5.6147", got)
	}
	layer := moe.Layer{Experts: 16, TopK: 2, Groups: 1, GroupsKept: 1}
	if w := strings.Join(mustBuild(t, layer, "expert-choice").Traits().Warnings, " "); !strings.Contains(w, "5.615 bits") {
		t.Errorf("warnings are %q", w)
	}
	layer.TopK = 8
	if w := strings.Join(mustBuild(t, layer, "expert-choice").Traits().Warnings, " "); strings.Contains(w, "bits") || !strings.Contains(w, "causal") {
		t.Errorf("with R = 1/2, where the bound says nothing, warnings are %q", w)
	}
}

// MaxScore's loss counts first choices, those included that find no room: w_e = E·first choices/T.
func TestMaxScorePrices(t *testing.T) {
	b := table(1, 2, []float32{.9, .5, .1}, []float32{.8, .6, .2}, []float32{.7, .4, .3}, []float32{.1, .8, .3})
	s := mustBuild(t, b.Layer, "maxscore")
	_, a := routeAll(s, b)
	var chosen, fresh moe.Counts
	chosen.Count(b, a.Mask)
	fresh.Count(b, a.Fresh)
	s.PrepareLoss(&moe.Outcome{Batch: b, Chosen: &chosen, Fresh: &fresh})
	if got := s.(*strategy).losses[0].(*balanceLoss).prices; !slices.Equal(got, []float32{2.25, 0.75, 0}) {
		t.Errorf("prices are %v, want 3·(3, 1, 0)/4", got)
	}
}

// Nobody is left without an expert that has room, and whoever got one finds all it likes better full or its own.
func TestNextBest(t *testing.T) {
	const experts, tokens = 9, 150
	b := skewed(moe.Layer{Experts: experts, TopK: 1, Groups: 1, GroupsKept: 1}, tokens)
	s := make([]float32, 0, len(b.Tiles)*experts*vec.Lanes)
	want, mask := make([]uint64, len(b.Tiles)), make([]uint64, len(b.Tiles)*experts)
	for i := range b.Tiles {
		s = append(s, b.Tiles[i].Z...)
		want[i] = b.Tiles[i].Live()
	}
	barred := make([]uint64, len(mask))
	for i := range barred {
		barred[i] = uint64(0x9249249249249249) << (i % experts % 3) & uint64(0x8421084210842108)
	}
	tried, room := slices.Clone(barred), []int{30, 0, 5, 20, 20, 1, 10, 10, 10}
	nextBest(b, s, want, tried, mask, room)
	if count(mask)+count(want) != tokens || count(want) == 0 {
		t.Fatalf("%d are served and %d are not, of %d", count(mask), count(want), tokens)
	}
	for tok := range tokens {
		i, l := tok/vec.Lanes, tok%vec.Lanes
		value, least := s[i*experts*vec.Lanes:], float32(math.Inf(-1))
		for e := range experts {
			if mask[i*experts+e]>>l&1 != 0 {
				least = value[e*vec.Lanes+l]
				if barred[i*experts+e]>>l&1 != 0 {
					t.Errorf("token %d gets expert %d, which was barred", tok, e)
				}
			}
		}
		for e := range experts {
			if value[e*vec.Lanes+l] > least && barred[i*experts+e]>>l&1 == 0 && room[e] > 0 {
				t.Errorf("token %d is not at expert %d, which has room", tok, e)
			}
		}
	}
}

// Relabelling experts relabels what rules choose that look at nothing but scores.
func TestAssignmentsOfRelabelledExperts(t *testing.T) {
	for _, text := range []string{"base", "sinkhorn", "expert-choice", "maxscore:coeff=0"} {
		layer := moe.Layer{Experts: 12, TopK: 3, Groups: 1, GroupsKept: 1}
		if text == "base" {
			layer.TopK = 1
		}
		b, p := skewed(layer, 132), skewed(layer, 132)
		perm := rand.New(rand.NewPCG(2, 2)).Perm(layer.Experts)
		for i := range b.Tiles {
			for e, to := range perm {
				copy(p.Tiles[i].Z[to*vec.Lanes:(to+1)*vec.Lanes], b.Tiles[i].Z[e*vec.Lanes:(e+1)*vec.Lanes])
			}
		}
		before, after := assign(t, text, b), assign(t, text, p)
		for i := range b.Tiles {
			for e, to := range perm {
				if before.mask[i*12+e] != after.mask[i*12+to] {
					t.Fatalf("%s: relabelling experts changes choices", text)
				}
			}
		}
	}
}

// Outside training the rules that are published for it alone leave the plain top-K, unless asked not to.
func TestEvaluateKnob(t *testing.T) {
	for name, word := range map[string]string{"base": "auction", "sinkhorn": "sinkhorn", "swipe": "swipe"} {
		layer := moe.Layer{Experts: 16, TopK: 1, Groups: 4, GroupsKept: 2}
		b := skewed(layer, 130)
		rule := assign(t, name, b)
		for i := range b.Tiles {
			b.Tiles[i].Training = false
		}
		unlimited := *b
		unlimited.Layer = free(layer)
		if plain := assign(t, "none", &unlimited); !slices.Equal(assign(t, name, b).mask, plain.mask) || slices.Equal(plain.mask, rule.mask) {
			t.Errorf("%s does not leave the plain choice in evaluation", name)
		}
		if !slices.Equal(assign(t, name+":evaluate="+word, b).mask, rule.mask) {
			t.Errorf("%s:evaluate=%s does not assign in evaluation", name, word)
		}
	}
}

func TestAssignmentTraits(t *testing.T) {
	for _, p := range Presets() {
		if p.Family != "assignment" {
			continue
		}
		traits := mustBuild(t, layersFor(t, p)[0], p.Name).Traits()
		if traits.Causal || !traits.Whole || !traits.Free {
			t.Errorf("%s says it is causal %v, sees a whole batch %v, is free of groups %v", p.Name, traits.Causal, traits.Whole, traits.Free)
		}
	}
	spec, err := Parse("base")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := spec.Build(layer16); err == nil || !strings.Contains(err.Error(), "topk is 3: --set topk=1") {
		t.Errorf("base of three experts a token gives %v", err)
	}
}

func TestLogits(t *testing.T) {
	for _, score := range []moe.Score{moe.Sigmoid, moe.SqrtSoftplus} {
		z, back := make([]float32, 4*vec.Lanes), make([]float32, 4*vec.Lanes)
		for i := range z {
			z[i] = float32(i-len(z)/2) / 16
		}
		s := make([]float32, len(z))
		score.Apply(s, z, 4)
		logits(score, back, s)
		for i := range z {
			if math.Abs(float64(back[i]-z[i])) > 3e-7*math.Exp(math.Abs(float64(z[i])))+1e-5 {
				t.Errorf("%s: logit %v comes back as %v", score, z[i], back[i])
			}
		}
		for i := range s { // a score that was rounded to the end of its range is a large logit, not an infinite one
			s[i] = float32(i % 2)
		}
		logits(score, back, s)
		for i, v := range back[:2] {
			if v < -100 || v > 100 || v != v {
				t.Errorf("%s: score %v has logit %v", score, s[i], v)
			}
		}
	}
}

// A rule's buffers are its own: after the first batch of a size nothing is allocated.
func TestAssignmentsAllocateNothing(t *testing.T) {
	for _, text := range []string{"base", "sinkhorn", "expert-choice", "maxscore", "swipe"} {
		layer := moe.Layer{Experts: 8, TopK: 1, Groups: 1, GroupsKept: 1}
		b := skewed(layer, 200)
		s := mustBuild(t, layer, text)
		scores, a := routeAll(s, b)
		if n := testing.AllocsPerRun(5, func() { s.RouteBatch(b, scores, a) }); n > 0 {
			t.Errorf("%s allocates %v times a batch", text, n)
		}
	}
}
