package scenarios

import (
	"math"

	"evenkeel/internal/rng"
	"evenkeel/internal/vec"
	"evenkeel/moe"
)

// Synthetic describes tokens that resemble each other as tokens of real text do. The latent vector of a token is
//
//	x = √d · normalise( a_common·m + a_type·v + a_domain·c + a_sequence·q + a_noise·ε )
//
// with m, v, c, q, ε ~ N(0, I) in d dimensions: m is common to all tokens, v to a token type, c to a domain, q to a
// document, ε to one token. The squared weights a² are shares of energy: a_common² = CommonEnergy, the others divide the
// rest as Energy says. The oracle's logits are
//
//	z*_te = τ·(x_t·A_e)/√d + o_e,   A_e ~ N(0, I),   o_e ~ N(0, OffsetSpread²).
//
// The common direction alone makes some experts popular: the mean logits spread by τ·√CommonEnergy.
type Synthetic struct {
	LogitScale   float64  `json:"logit_scale" range:"0 1000 (τ, the standard deviation of logits)"`
	OffsetSpread float64  `json:"offset_spread" range:"0 1000 (standard deviation of o_e, in logits)"`
	CommonEnergy float64  `json:"common_energy" range:"0 1 of the energy"`
	Energy       Energy   `json:"energy"`
	Vocabulary   int      `json:"vocabulary" range:"1 1048576 token types"`
	Zipf         float64  `json:"zipf" range:"0 10 (exponent of the frequency of token types)"`
	DomainTilt   float64  `json:"domain_tilt" range:"0 1 of a domain's tokens drawn from its own order of types"`
	Switching    float64  `json:"switching" range:"0 1 (probability that a document ends after a token)"`
	Domains      []Domain `json:"domains"`
}

// Energy holds the shares of the energy that the common direction leaves; they sum to 1.
type Energy struct {
	Type     float64 `json:"type" range:"0 1 of the remaining energy"`
	Domain   float64 `json:"domain" range:"0 1 of the remaining energy"`
	Sequence float64 `json:"sequence" range:"0 1 of the remaining energy"`
	Noise    float64 `json:"noise" range:"0 1 of the remaining energy"`
}

// Domain is a kind of text and its share of the documents.
type Domain struct {
	Name  string  `json:"name"`
	Share float64 `json:"share" range:"0 1 of the documents"`
}

// What a world draws, as the place of its keys.
const (
	drawExperts = iota
	drawCommon
	drawTypes
	drawCentroids
	drawVocabulary
	drawOffsets
	drawTopics
)

type syntheticStream struct {
	s           *Scenario
	y           *Synthetic
	seed, world uint64

	oracle    *vec.Matrix // τA/√d
	weights   []float32   // the same, row-major
	types     []float32   // a_type·v, [vocabulary][d]
	rank      *rng.Alias
	order     [][]int32 // token type of each rank, by domain
	centroids []float32 // c at the start, [domain][d]
	offset    []float32 // o, [E]

	// state of the batch being drawn
	moment    moe.Moment
	shares    []float64
	documents []document
	common    []float32 // m
	topic     []float32 // q of one document
	base      []float32 // a_common·m + a_domain·c + a_sequence·q of each document, [document][d]
}

// document is a run of tokens of one domain and topic inside a sequence.
type document struct {
	moe.Span
	domain int
	key    uint64 // of its token ids where they are those of a hot sequence, else 0
	origin int    // token at which the sequence of a hot document begins
}

func newSyntheticStream(s *Scenario, seed, world uint64) *syntheticStream {
	y := s.Synthetic
	d := s.Width
	g := &syntheticStream{s: s, y: y, seed: seed, world: world}
	g.common, g.topic = make([]float32, padded(d)), make([]float32, padded(d))
	g.weights = normals(rng.Key(world, rng.World, drawExperts), s.Experts*d)
	scale := float32(y.LogitScale / math.Sqrt(float64(d)))
	for i := range g.weights {
		g.weights[i] *= scale
	}
	g.oracle = vec.NewMatrix(s.Experts, d)
	g.oracle.Set(g.weights)
	g.types = normals(rng.Key(world, rng.World, drawTypes), y.Vocabulary*d)
	amplitude := float32(math.Sqrt((1 - y.CommonEnergy) * y.Energy.Type))
	for i := range g.types {
		g.types[i] *= amplitude
	}
	g.rank, _ = rng.NewAlias(y.frequency()) // positive and finite, so it cannot fail
	domains := len(s.Facts().Domains)
	g.centroids = normals(rng.Key(world, rng.World, drawCentroids), domains*d)
	g.order = make([][]int32, domains)
	for i := range g.order {
		g.order[i] = make([]int32, y.Vocabulary)
		r := rng.New(rng.Key(world, rng.World, drawVocabulary, uint64(i)))
		r.Perm(g.order[i])
	}
	g.offset = make([]float32, s.Experts)
	return g
}

// frequency is how often each rank of the token types comes, in units of the first.
func (y *Synthetic) frequency() []float64 {
	f := make([]float64, y.Vocabulary)
	for v := range f {
		f[v] = vec.Exp64(-y.Zipf * vec.Log64(float64(v+1)))
	}
	return f
}

// normals draws n standard normal numbers of a key.
func normals(key uint64, n int) []float32 {
	x := make([]float32, padded(n))
	vec.Normals(x, key)
	return x[:n]
}

// padded is the least length that vec.Normals fills and that holds n numbers.
func padded(n int) int { return (n + 31) &^ 31 }

// Evaluation implements moe.Stream.
func (g *syntheticStream) Evaluation() int { return g.s.EvaluationTokens }

// OracleRouter implements moe.Stream. Where experts have offsets, no weights alone give the oracle's logits.
func (g *syntheticStream) OracleRouter() []float32 {
	if g.y.OffsetSpread > 0 {
		return nil
	}
	return g.weights
}

// Layout implements moe.Stream: it draws which documents the sequences hold, and their common parts.
func (g *syntheticStream) Layout(b *moe.Batch, m moe.Moment) {
	g.moment = m
	g.s.layout(b, g.s.tokensAt(m))
	g.shares = g.s.sharesAt(m.Step, g.shares[:0])
	g.documents = g.documents[:0]
	for i, span := range b.Sequences {
		g.drawDocuments(i, span)
	}
	g.drawBases()
}

// drawDocuments draws one sequence's documents: their lengths and domains.
func (g *syntheticStream) drawDocuments(sequence int, span moe.Span) {
	m := g.moment
	r := rng.New(rng.Key(g.seed, rng.Layout, uint64(m.Purpose), uint64(m.Index), uint64(sequence)))
	if e := g.s.activeBurst(m.Step); e != nil && r.Float64() < e.Share {
		hot := rng.New(rng.Key(g.world, rng.Event, uint64(e.At)))
		g.documents = append(g.documents, document{span, draw(&hot, g.shares), hot.Uint64() | 1, span.From})
		return
	}
	from := span.From
	for t := span.From; t < span.To; t++ {
		last := t == span.To-1
		if last || g.y.Switching > 0 && r.Float64() < g.y.Switching {
			g.documents = append(g.documents, document{moe.Span{From: from, To: t + 1}, draw(&r, g.shares), 0, 0})
			from = t + 1
		}
	}
}

// draw returns index i with probability shares[i], which sum to 1.
func draw(r *rng.Rand, shares []float64) int {
	u := r.Float64()
	for i, p := range shares {
		if u -= p; u < 0 {
			return i
		}
	}
	return len(shares) - 1
}

// drawBases adds up the parts of the latent vector that all tokens of a document share.
func (g *syntheticStream) drawBases() {
	d, y, m := g.s.Width, g.y, g.moment
	rest := 1 - y.CommonEnergy
	aCommon := float32(math.Sqrt(y.CommonEnergy))
	aDomain, aSequence := float32(math.Sqrt(rest*y.Energy.Domain)), float32(math.Sqrt(rest*y.Energy.Sequence))
	redrawn := uint64(g.s.popularityAt(m.Step))
	vec.Normals(g.common, rng.Key(g.world, rng.World, drawCommon, redrawn))
	if y.OffsetSpread > 0 {
		copy(g.offset, normals(rng.Key(g.world, rng.World, drawOffsets, redrawn), len(g.offset)))
		for i := range g.offset {
			g.offset[i] *= float32(y.OffsetSpread)
		}
	}
	centroids := g.s.centroidsAt(m.Step, g.world, g.centroids, d)
	if n := len(g.documents) * d; cap(g.base) < n {
		g.base = make([]float32, n)
	}
	g.base = g.base[:len(g.documents)*d]
	for i, doc := range g.documents {
		key := doc.key
		if key == 0 {
			key = rng.Key(g.seed, rng.Layout, uint64(m.Purpose), uint64(m.Index), drawTopics, uint64(i))
		}
		vec.Normals(g.topic, key)
		c, base := centroids[doc.domain*d:(doc.domain+1)*d], g.base[i*d:(i+1)*d]
		for k := range base {
			base[k] = float32(aCommon*g.common[k]) + float32(aDomain*c[k]) + float32(aSequence*g.topic[k])
		}
	}
}

// Fill implements moe.Stream.
func (g *syntheticStream) Fill(b *moe.Batch, tile int, w *moe.Scratch) {
	t, m := &b.Tiles[tile], g.moment
	t.Key = rng.Key(g.seed, rng.Choice, uint64(m.Purpose), uint64(m.Index), uint64(tile))
	vec.Normals(t.X, rng.Key(g.seed, rng.Noise, uint64(m.Purpose), uint64(m.Index), uint64(tile)))
	ids := rng.Key(g.seed, rng.Token, uint64(m.Purpose), uint64(m.Index))
	aNoise := float32(math.Sqrt((1 - g.y.CommonEnergy) * g.y.Energy.Noise))
	doc := 0
	for l := range moe.TileTokens {
		token := t.Start + min(l, t.Tokens-1)
		for g.documents[doc].To <= token {
			doc++
		}
		dc := &g.documents[doc]
		key, place := ids, token
		if dc.key != 0 {
			key, place = dc.key, token-dc.origin
		}
		r := rng.New(rng.Mix(key + uint64(place)*0x9e3779b97f4a7c15))
		id := int32(g.rank.Draw(r.Uint64()))
		if r.Float64() < g.y.DomainTilt {
			id = g.order[dc.domain][id]
		}
		t.Token[l], t.Domain[l] = id, int32(dc.domain)
		w.Source[l] = int32(doc)
	}
	g.assemble(t, aNoise, w)
}

// assemble makes the latent vectors and logits of a tile from the parts that w.Source and its tokens name, and from its noise.
func (g *syntheticStream) assemble(t *moe.Tile, noise float32, w *moe.Scratch) {
	d := g.s.Width
	bases, kinds, factor := w.Parts[0], w.Parts[1], &w.Rows[0]
	vec.Gather(bases, g.base, w.Source[:], d)
	vec.Gather(kinds, g.types, t.Token[:], d)
	vec.Mix(factor, t.X, bases, kinds, noise, d)
	for l, e := range factor {
		factor[l] = 0
		if l < t.Tokens {
			factor[l] = float32(math.Sqrt(float64(float32(d) / max(e, 1e-30))))
		}
	}
	vec.Scale(t.X, factor, d)
	g.oracle.Times(t.Z, t.X, w.Product)
	if g.y.OffsetSpread > 0 {
		for e, o := range g.offset {
			z := (*vec.Row)(t.Z[e*moe.TileTokens:])
			for l := range z {
				z[l] += o
			}
		}
	}
}
