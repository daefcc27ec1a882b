package scenarios

import (
	"math"

	"gonum.org/v1/gonum/stat/distuv"

	"evenkeel/internal/rng"
	"evenkeel/internal/vec"
	"evenkeel/moe"
)

// Independent describes a stream without latent vectors: each expert's logit, or score, is drawn on its own,
//
//	z_te = m_e + Scale·ξ_te,   ξ ~ N(0, 1) or U(0, 1),
//
// so tokens, experts and steps know nothing of each other but the means m_e.
type Independent struct {
	Draws        string  `json:"draws"`        // logits or scores
	Distribution string  `json:"distribution"` // of ξ: normal or uniform on [0, 1)
	Scale        float64 `json:"scale" range:"0 1000 (standard deviation of a normal, width of a uniform)"`
	Means        string  `json:"means"` // quantiles: m_e = Spread·Φ⁻¹((e+½)/E); normal: Spread·N(0,1); uniform: Spread·U(0,1)
	Spread       float64 `json:"spread" range:"0 1000 (scale of the means)"`
}

// unrelated is what streams share whose tokens have no latent vectors and know nothing of each other.
type unrelated struct {
	s      *Scenario
	seed   uint64
	moment moe.Moment
}

// Evaluation implements moe.Stream.
func (g *unrelated) Evaluation() int { return g.s.EvaluationTokens }

// OracleRouter implements moe.Stream.
func (g *unrelated) OracleRouter() []float32 { return nil }

// Layout implements moe.Stream.
func (g *unrelated) Layout(b *moe.Batch, m moe.Moment) {
	g.moment = m
	g.s.layout(b, g.s.tokensAt(m))
}

// begin fills in of a tile all but its logits, and returns the key of their noise.
func (g *unrelated) begin(t *moe.Tile, tile int) (noise uint64) {
	m := g.moment
	t.Key = rng.Key(g.seed, rng.Choice, uint64(m.Purpose), uint64(m.Index), uint64(tile))
	for l := range t.Token {
		t.Token[l], t.Domain[l] = -1, -1
	}
	return rng.Key(g.seed, rng.Noise, uint64(m.Purpose), uint64(m.Index), uint64(tile))
}

type independentStream struct {
	unrelated
	mean []float32
}

func newIndependentStream(s *Scenario, seed, world uint64) *independentStream {
	g := &independentStream{unrelated: unrelated{s: s, seed: seed}, mean: make([]float32, s.Experts)}
	y := s.Independent
	r := rng.New(rng.Key(world, rng.World, drawOffsets))
	normal := normals(rng.Key(world, rng.World, drawOffsets), s.Experts)
	for e := range g.mean {
		var m float64
		switch y.Means {
		case "quantiles":
			// To 6 digits, since the last bits of the library's logarithm differ between platforms.
			m = math.Round(1e6*distuv.UnitNormal.Quantile((float64(e)+0.5)/float64(s.Experts))) / 1e6
		case "normal":
			m = float64(normal[e])
		case "uniform":
			m = r.Float64()
		}
		g.mean[e] = float32(y.Spread * m)
	}
	return g
}

// Fill implements moe.Stream.
func (g *independentStream) Fill(b *moe.Batch, tile int, _ *moe.Scratch) {
	t := &b.Tiles[tile]
	key := g.begin(t, tile)
	if g.s.Independent.Distribution == "normal" {
		vec.Normals(t.Z, key)
	} else {
		r := rng.New(key)
		for i := range t.Z {
			t.Z[i] = float32(r.Uint64()>>40) * 0x1p-24
		}
	}
	scale := float32(g.s.Independent.Scale)
	for e, mean := range g.mean {
		z := (*vec.Row)(t.Z[e*moe.TileTokens:])
		for l, v := range z {
			z[l] = float32(scale*v) + mean
		}
	}
}
