package scenarios

import (
	"fmt"
	"strings"

	"evenkeel/internal/rng"
	"evenkeel/internal/vec"
	"evenkeel/moe"
)

// Trace describes the replay of a file that a real router left: see Dump. Training steps take the trace's sequences in an
// order that is shuffled anew for every pass, without a gap between passes; sequences keep their tokens' order. Where
// the end of a step cuts a sequence, each part counts as a sequence; where sequences are unknown, micro-batches are even cuts. The evaluation is the whole trace once, in an order of
// its own.
type Trace struct {
	File    string   `json:"file"` // of any format that is known, a folder of one, or embedded:NAME.npz
	Layer   int      `json:"layer" range:"0 65535 (slot of L, from 0)"`
	Domains []string `json:"domains,omitempty"` // names of the domain ids, in order
	SHA256  string   `json:"sha256,omitempty"`  // checksum of the file; checked if given

	Map      []string `json:"map,omitempty"`   // name=column, where the file names its columns, arrays or tensors otherwise
	Where    []string `json:"where,omitempty"` // column=value: only such rows
	Layers   int      `json:"layers,omitempty" range:"0 4096 layers of routed experts in base64, which do not say"`
	Padding  int      `json:"padding,omitempty" range:"0 2147483647 (an id that stands for no expert)"`
	Complete string   `json:"complete,omitempty"`                                              // none, flat or popularity: the unseen scores of choices with weights
	Mass     float64  `json:"mass,omitempty" range:"0 1 of the softmax that is on the chosen"` // where weights were renormalised

	data *Dump
}

// Weighted reports whether the trace holds the weights of its choices, so that Complete can complete it.
func (t *Trace) Weighted() bool { return t.data != nil && t.data.Weights != nil }

// Embedded reports whether the program carries the trace.
func (t *Trace) Embedded() bool { return strings.HasPrefix(t.File, embedded) }

func (t *Trace) facts() moe.Facts {
	f := moe.Facts{Trace: true, InSample: true}
	d := t.data
	if d == nil {
		return f
	}
	f.Level, f.Latent = d.Level, d.Hidden != nil
	f.File, f.SHA256, f.Layer, f.Layers = t.File, t.SHA256, t.Layer, d.Layers
	f.Sequences, f.TokenIDs = d.Sequences != nil, d.Token != nil
	f.Notes = d.Notes
	for i := range d.Domains() {
		name := fmt.Sprintf("domain %d", i)
		if i < len(t.Domains) {
			name = t.Domains[i]
		}
		f.Domains = append(f.Domains, name)
	}
	return f
}

type traceStream struct {
	s         *Scenario
	d         *Dump
	seed      uint64
	sequences []moe.Span
	order     []int32 // of the sequences in the pass that order holds
	pass      uint64
	moment    moe.Moment
	source    []int32 // token of the trace that each token of the batch is
}

func newTraceStream(s *Scenario, seed uint64) *traceStream {
	g := &traceStream{s: s, d: s.Trace.data, seed: seed, sequences: s.Trace.data.Sequences, pass: ^uint64(0)}
	if g.sequences == nil {
		g.sequences = []moe.Span{{From: 0, To: g.d.Tokens}}
	}
	g.order = make([]int32, len(g.sequences))
	g.source = make([]int32, 0, s.Tokens)
	return g
}

// Evaluation implements moe.Stream.
func (g *traceStream) Evaluation() int { return g.d.Tokens }

// OracleRouter implements moe.Stream.
func (g *traceStream) OracleRouter() []float32 { return g.d.Router }

// Layout implements moe.Stream.
func (g *traceStream) Layout(b *moe.Batch, m moe.Moment) {
	g.moment = m
	g.source = g.source[:0]
	b.Sequences = b.Sequences[:0]
	tokens := g.s.Tokens
	if m.Purpose == moe.Evaluate {
		tokens = min(tokens, g.d.Tokens-m.Index*tokens)
	}
	g.replay(b, m.Index*g.s.Tokens, tokens, m.Purpose)
	b.Resize(len(g.source))
	if g.d.Sequences == nil {
		b.Sequences = evenSpans(b.Sequences[:0], b.Tokens, g.s.MicroBatches)
	}
	g.s.split(b)
}

// evenSpans cuts a batch whose sequences are unknown, so that micro-batches can be made of it.
func evenSpans(into []moe.Span, tokens, n int) []moe.Span {
	n = min(n, tokens)
	for i := range n {
		into = append(into, moe.Span{From: i * tokens / n, To: (i + 1) * tokens / n})
	}
	return into
}

// replay takes a stretch of the endless row of shuffled passes, from token start on.
func (g *traceStream) replay(b *moe.Batch, start, tokens int, purpose moe.Purpose) {
	for tokens > 0 {
		pass, from := uint64(start/g.d.Tokens)<<2|uint64(purpose), start%g.d.Tokens
		if pass != g.pass {
			r := rng.New(rng.Key(g.seed, rng.Replay, pass))
			r.Perm(g.order)
			g.pass = pass
		}
		to := min(g.d.Tokens, from+tokens)
		g.take(b, from, to, func(i int) moe.Span { return g.sequences[g.order[i]] })
		start += to - from
		tokens -= to - from
	}
}

// take appends the tokens from..to−1 of the sequences in the order of next, and their spans in the batch.
func (g *traceStream) take(b *moe.Batch, from, to int, next func(i int) moe.Span) {
	at := 0
	for i := 0; at < to; i++ {
		s := next(i)
		low, high := max(from, at)-at+s.From, min(to, at+s.Len())-at+s.From
		at += s.Len()
		if low >= high {
			continue
		}
		begin := len(g.source)
		for t := low; t < high; t++ {
			g.source = append(g.source, int32(t))
		}
		b.Sequences = append(b.Sequences, moe.Span{From: begin, To: len(g.source)})
	}
}

// Fill implements moe.Stream.
func (g *traceStream) Fill(b *moe.Batch, tile int, _ *moe.Scratch) {
	t, m, d := &b.Tiles[tile], g.moment, g.d
	t.Key = rng.Key(g.seed, rng.Choice, uint64(m.Purpose), uint64(m.Index), uint64(tile))
	source := g.source[t.Start : t.Start+t.Tokens]
	for l := range t.Token {
		t.Token[l], t.Domain[l] = -1, -1
		if l >= t.Tokens {
			continue
		}
		if d.Token != nil {
			t.Token[l] = d.Token[source[l]]
		}
		if d.Domain != nil {
			t.Domain[l] = d.Domain[source[l]]
		}
	}
	vec.Gather(t.Z, d.Scores, source, d.Experts)
	if d.Hidden != nil {
		vec.Gather(t.X, d.Hidden, source, d.Width)
	}
}
