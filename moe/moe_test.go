package moe

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"evenkeel/internal/vec"
)

func TestLayerValidate(t *testing.T) {
	good := Layer{Experts: 64, TopK: 6, Width: 64, Groups: 8, GroupsKept: 4}
	if err := good.Validate(); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*Layer){
		"one expert":                func(l *Layer) { l.Experts = 1 },
		"K > E":                     func(l *Layer) { l.TopK = 65 },
		"no choice":                 func(l *Layer) { l.TopK = 0 },
		"groups do not divide":      func(l *Layer) { l.Groups = 7 },
		"more kept than groups":     func(l *Layer) { l.GroupsKept = 9 },
		"kept groups cannot hold K": func(l *Layer) { l.Groups, l.GroupsKept = 64, 5 },
		"negative width":            func(l *Layer) { l.Width = -1 },
	} {
		l := good
		if change(&l); l.Validate() == nil {
			t.Errorf("%s is accepted", name)
		}
	}
}

func TestParseScore(t *testing.T) {
	for _, name := range ScoreNames() {
		if f, err := ParseScore(name); err != nil || f.String() != name {
			t.Errorf("%s parses as %v, %v", name, f, err)
		}
	}
	if _, err := ParseScore("stored"); err == nil {
		t.Error("a user may not ask for stored scores")
	}
}

// randomBatch has sequences of random lengths that start anywhere in a tile.
func randomBatch(r *rand.Rand, layer Layer) *Batch {
	tokens := 1 + r.IntN(400)
	b := NewBatch(layer, tokens)
	b.Resize(tokens)
	for from := 0; from < tokens; {
		to := min(tokens, from+1+r.IntN(150))
		b.Sequences = append(b.Sequences, Span{from, to})
		from = to
	}
	b.SplitMicroBatches(1 + r.IntN(6))
	return b
}

func TestCountsAgreeWithTokenByTokenCounting(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	layer := Layer{Experts: 10, TopK: 3, Groups: 5, GroupsKept: 5}
	var c Counts
	for range 100 {
		b := randomBatch(r, layer)
		a := NewAssignment(layer, b.Tokens, Traits{})
		sequence := make([]int64, len(b.Sequences)*10)
		micro := make([]int64, len(b.MicroBatches)*10)
		global := make([]int64, 10)
		sequenceTokens, microTokens, globalTokens := make([]int64, len(b.Sequences)*5), make([]int64, len(b.MicroBatches)*5), make([]int64, 5)
		for tok := range b.Tokens {
			s := slices.IndexFunc(b.Sequences, func(s Span) bool { return tok >= s.From && tok < s.To })
			m := slices.IndexFunc(b.MicroBatches, func(s Span) bool { return tok >= s.From && tok < s.To })
			for _, e := range r.Perm(10)[:3] {
				a.Tile(tok / TileTokens)[e] |= 1 << (tok % TileTokens)
				sequence[s*10+e]++
				micro[m*10+e]++
				global[e]++
				if other := a.Tile(tok / TileTokens)[e^1]; other>>(tok%TileTokens)&1 == 0 { // the first of its pair
					sequenceTokens[s*5+e/2]++
					microTokens[m*5+e/2]++
					globalTokens[e/2]++
				}
			}
		}
		c.Count(b, a.Mask)
		if !slices.Equal(c.Sequence, sequence) || !slices.Equal(c.MicroBatch, micro) || !slices.Equal(c.Global, global) {
			t.Fatalf("counts of %d tokens in %v differ", b.Tokens, b.Sequences)
		}
		if !slices.Equal(c.SequenceTokens, sequenceTokens) || !slices.Equal(c.MicroBatchTokens, microTokens) || !slices.Equal(c.GlobalTokens, globalTokens) {
			t.Fatalf("counts of the tokens of groups differ, of %d tokens in %v", b.Tokens, b.Sequences)
		}
	}
}

// Counts of choices kept and dropped add up to those of the choices before drops.
func TestCountsAdd(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 5))
	for range 20 {
		b := randomBatch(r, Layer{Experts: 10, TopK: 3, Groups: 1, GroupsKept: 1})
		kept, dropped, all := make([]uint64, len(b.Tiles)*10), make([]uint64, len(b.Tiles)*10), make([]uint64, len(b.Tiles)*10)
		for i := range all {
			all[i] = r.Uint64() & b.Tiles[i/10].Live()
			kept[i] = all[i] & r.Uint64()
			dropped[i] = all[i] &^ kept[i]
		}
		var sum, other, want Counts
		sum.Count(b, dropped)
		other.Count(b, kept)
		sum.Add(&other)
		want.Count(b, all)
		if !slices.Equal(sum.Sequence, want.Sequence) || !slices.Equal(sum.MicroBatch, want.MicroBatch) || !slices.Equal(sum.Global, want.Global) {
			t.Fatalf("counts of %d tokens do not add up", b.Tokens)
		}
	}
}

func TestMicroBatchesAreWholeSequences(t *testing.T) {
	r := rand.New(rand.NewPCG(2, 2))
	for range 200 {
		b := randomBatch(r, Layer{Experts: 2, TopK: 1, Groups: 1, GroupsKept: 1})
		n := 1 + r.IntN(8)
		b.SplitMicroBatches(n)
		if want := min(n, len(b.Sequences)); len(b.MicroBatches) != want {
			t.Fatalf("%d sequences in %d micro-batches, want %d", len(b.Sequences), len(b.MicroBatches), want)
		}
		from := 0
		for _, m := range b.MicroBatches {
			if m.From != from || m.Len() < 1 || !slices.ContainsFunc(b.Sequences, func(s Span) bool { return s.To == m.To }) {
				t.Fatalf("micro-batches %v of sequences %v", b.MicroBatches, b.Sequences)
			}
			from = m.To
		}
		if from != b.Tokens {
			t.Fatalf("micro-batches %v do not cover %d tokens", b.MicroBatches, b.Tokens)
		}
	}
}

func TestTruncate(t *testing.T) {
	r := rand.New(rand.NewPCG(4, 4))
	for range 100 {
		b := randomBatch(r, Layer{Experts: 2, TopK: 1, Groups: 1, GroupsKept: 1})
		n := 1 + r.IntN(b.Tokens)
		b.Truncate(n)
		tokens := 0
		for _, tile := range b.Tiles {
			tokens += tile.Tokens
		}
		for _, spans := range [][]Span{b.Sequences, b.MicroBatches} {
			if spans[0].From != 0 || spans[len(spans)-1].To != n || spans[len(spans)-1].Len() < 1 {
				t.Fatalf("spans %v do not cover %d tokens", spans, n)
			}
		}
		if tokens != n || b.Tokens != n {
			t.Fatalf("%d tokens in tiles, want %d", tokens, n)
		}
	}
}

// The tokens of a span that counts see are those that are found one by one, whether some are left out or each stands for many.
func TestSize(t *testing.T) {
	r := rand.New(rand.NewPCG(6, 6))
	for range 100 {
		b := randomBatch(r, Layer{Experts: 2, TopK: 1, Groups: 1, GroupsKept: 1})
		seen := make([]int64, b.Tokens)
		if r.IntN(2) == 0 {
			for i := range seen {
				if seen[i] = 1; r.IntN(3) == 0 {
					b.Throw(i, r.IntN(2) == 0)
					seen[i] = 1 - int64(b.Tiles[i/TileTokens].Unseen>>(i%TileTokens)&1)
				}
			}
		} else {
			for i := range seen {
				seen[i] = r.Int64N(1000)
			}
			b.Ranks = 3
			b.Aggregate(append(slices.Clone(seen), make([]int64, TileTokens-1)...), b.Tokens)
			if b.Ranks != 1 {
				t.Fatalf("an aggregated batch has %d ranks", b.Ranks)
			}
		}
		for range 20 {
			from := r.IntN(b.Tokens)
			span, want := Span{from, from + r.IntN(b.Tokens-from+1)}, 0
			for _, n := range seen[span.From:span.To] {
				want += int(n)
			}
			if got := b.Size(span); got != want {
				t.Fatalf("counts see %d of the tokens %v of %d, want %d", got, span, b.Tokens, want)
			}
		}
	}
}

func TestGateSum(t *testing.T) {
	if s := (Gate{Normalised: true, Scale: 2.5}).Sum(3); s != 2.5 {
		t.Errorf("DeepSeek-V3's gates sum to %v, want 2.5", s)
	}
	if s := (Gate{Scale: 1}).Sum(0.3); s != 0.3 {
		t.Errorf("raw gates sum to %v, want 0.3", s)
	}
}

// Logits undoes Apply, for a softmax up to what a token's experts share.
func TestLogitsOfScores(t *testing.T) {
	const experts = 40
	z, s, back := make([]float32, experts*vec.Lanes), make([]float32, experts*vec.Lanes), make([]float32, experts*vec.Lanes)
	for i := range z {
		z[i] = float32(i%161)*0.125 - 6 // −6 to 14
	}
	for _, f := range []Score{Sigmoid, Softmax, SqrtSoftplus} {
		f.Apply(s, z, experts)
		f.Logits(back, s, experts)
		for i, v := range z {
			shared := 0.
			if f == Softmax {
				shared = float64(back[i%vec.Lanes] - z[i%vec.Lanes])
			}
			if d := math.Abs(float64(back[i]-v) - shared); d > 1e-5+math.Exp(float64(v))*0x1p-23 { // of 1 − s
				t.Fatalf("%s: the logit %v comes back as %v", f, v, back[i])
			}
		}
	}
	clear(s) // nothing is infinite
	s[1] = 1
	for _, f := range []Score{Sigmoid, Softmax, SqrtSoftplus} {
		f.Logits(back, s, experts)
		for _, v := range back[:2] {
			if math.IsInf(float64(v), 0) || math.IsNaN(float64(v)) {
				t.Errorf("%s: a logit of %v", f, v)
			}
		}
	}
}
