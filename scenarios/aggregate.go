package scenarios

import (
	"evenkeel/internal/rng"
	"evenkeel/moe"
)

// Aggregated batches. Where tokens without a sequence are of finitely many kinds, a batch of any number of tokens is the
// multinomial draw of how many are of each kind: what is routed are the kinds that came up, each standing for its tokens.

// aggregatedTypes draws synthetic tokens whose kind is a domain and a token type: those of a stream without parts of sequence and
// of noise, each of which has a domain of its own.
type aggregatedTypes struct {
	*syntheticStream
	types  []*weights // of the token types of each domain
	counts []int64    // tokens of each kind [domain][vocabulary]
	kind   []int32    // of each token of the batch
	weight []int64
}

func newAggregatedTypes(g *syntheticStream) *aggregatedTypes {
	v := g.y.Vocabulary
	a := &aggregatedTypes{syntheticStream: g, counts: make([]int64, len(g.order)*v)}
	frequency := g.y.frequency()
	var all float64
	for _, p := range frequency {
		all += p
	}
	for _, order := range g.order {
		p := make([]float64, v)
		for id, f := range frequency {
			p[id] += float64((1 - g.y.DomainTilt) * (f / all))
			p[order[id]] += float64(g.y.DomainTilt * (f / all))
		}
		a.types = append(a.types, newWeights(p))
	}
	for d := range g.order {
		g.documents = append(g.documents, document{domain: d})
	}
	return a
}

// Layout implements moe.Stream.
func (a *aggregatedTypes) Layout(b *moe.Batch, m moe.Moment) {
	a.moment = m
	a.shares = a.s.sharesAt(m.Step, a.shares[:0])
	a.drawBases()
	r := rng.New(rng.Key(a.seed, rng.Layout, uint64(m.Purpose), uint64(m.Index)))
	clear(a.counts)
	v := a.y.Vocabulary
	domains := make([]int64, len(a.types))
	newWeights(a.shares).draw(&r, int64(a.s.tokensAt(m)), domains[:len(a.shares)])
	for d, n := range domains {
		a.types[d].draw(&r, n, a.counts[d*v:(d+1)*v])
	}
	a.kind, a.weight = compact(a.counts, a.kind[:0], a.weight[:0])
	b.Aggregate(a.weight, len(a.kind))
}

// compact lists the kinds that came up and how often, the latter with room for the last tile.
func compact(counts []int64, kind []int32, weight []int64) ([]int32, []int64) {
	for i, n := range counts {
		if n > 0 {
			kind, weight = append(kind, int32(i)), append(weight, n)
		}
	}
	for range moe.TileTokens - 1 {
		weight = append(weight, 0)
	}
	return kind, weight
}

// Fill implements moe.Stream.
func (a *aggregatedTypes) Fill(b *moe.Batch, tile int, w *moe.Scratch) {
	t, m := &b.Tiles[tile], a.moment
	t.Key = rng.Key(a.seed, rng.Choice, uint64(m.Purpose), uint64(m.Index), uint64(tile))
	clear(t.X)
	for l := range moe.TileTokens {
		kind := a.kind[t.Start+min(l, t.Tokens-1)]
		d := kind / int32(a.y.Vocabulary)
		t.Token[l], t.Domain[l], w.Source[l] = kind%int32(a.y.Vocabulary), d, d
	}
	a.assemble(t, 0, w)
}

// aggregatedTrace draws tokens from those of a trace, with replacement: a trace's token is a kind.
type aggregatedTrace struct {
	*traceStream
	tokens *weights
	counts []int64
	weight []int64
}

func newAggregatedTrace(g *traceStream) *aggregatedTrace {
	p := make([]float64, g.d.Tokens)
	for i := range p {
		p[i] = 1
	}
	return &aggregatedTrace{traceStream: g, tokens: newWeights(p), counts: make([]int64, len(p))}
}

// Evaluation implements moe.Stream.
func (a *aggregatedTrace) Evaluation() int { return a.s.EvaluationTokens }

// Layout implements moe.Stream.
func (a *aggregatedTrace) Layout(b *moe.Batch, m moe.Moment) {
	a.moment = m
	r := rng.New(rng.Key(a.seed, rng.Replay, uint64(m.Purpose), uint64(m.Index)))
	clear(a.counts)
	a.tokens.draw(&r, int64(a.s.tokensAt(m)), a.counts)
	a.source, a.weight = compact(a.counts, a.source[:0], a.weight[:0])
	b.Aggregate(a.weight, len(a.source))
}
