package sim

import (
	"math"
	"math/rand/v2"
	"reflect"
	"testing"

	"evenkeel/internal/rng"
	"evenkeel/internal/vec"
	"evenkeel/moe"
)

// taught is a batch of random tokens with a task, experts and a random choice; some experts have no token, one has most. The
// output of some tokens of every tile may be thrown away.
func taught(r *rand.Rand, c *Config, waste uint64) (*moe.Batch, *task, *experts, *moe.Assignment, []float32) {
	b := moe.NewBatch(c.Layer, c.Tokens)
	b.Resize(c.Tokens)
	b.Sequences = []moe.Span{{From: 0, To: c.Tokens}}
	w, k := moe.NewScratch(c.Layer), newTask(c, 1)
	a := moe.NewAssignment(c.Layer, c.Tokens, moe.Traits{})
	s := make([]float32, len(b.Tiles)*c.Layer.Experts*vec.Lanes)
	for i := range s {
		s[i] = 0.1 + r.Float32()
	}
	for i := range b.Tiles {
		t := &b.Tiles[i]
		t.Waste = waste & t.Live()
		for j := range t.X {
			if j%vec.Lanes < t.Tokens {
				t.X[j] = float32(r.NormFloat64())
			}
		}
		k.locate(i, t, w)
		for l := range t.Tokens {
			m := a.Tile(i)
			m[1] |= 1 << l
			for _, e := range r.Perm(c.Layer.Experts - 3)[:c.Layer.TopK-1] {
				m[e+2] |= 1 << l // none goes to the first and the last expert
			}
		}
	}
	k.gather(c.Tokens)
	for r := range k.maps {
		k.answer(r, w)
	}
	x := newExperts(c, k, 1)
	if x.shared != nil {
		for i := range x.shared.theta {
			x.shared.theta[i] = float32(r.NormFloat64()) / 4
		}
		x.shared.pack()
	}
	x.assign(b, a)
	for e := range c.Layer.Experts {
		x.forward(e, w)
	}
	return b, k, x, a, s
}

// model is the layer by its definition, in float64.
type model struct{ in, out, shared, s []float64 }

func (m *model) loss(b *moe.Batch, k *task, a *moe.Assignment, hidden int, g moe.Gate) (sum float64) {
	d, n := b.Layer.Width, b.Layer.Experts
	for i, t := range b.Tiles {
		for l := range t.Tokens {
			if t.Waste>>l&1 != 0 {
				continue
			}
			y := make([]float64, d)
			for c := range d {
				y[c] = -float64(k.target[(t.Start+l)*d+c])
				for j := range d {
					if m.shared != nil {
						y[c] += m.shared[c*d+j] * float64(t.X[j*vec.Lanes+l])
					}
				}
			}
			total := 1.0
			if g.Normalised {
				total = 0
				for e := range n {
					if a.Tile(i)[e]>>l&1 != 0 {
						total += m.s[(i*n+e)*vec.Lanes+l]
					}
				}
			}
			for e := range n {
				if a.Tile(i)[e]>>l&1 == 0 {
					continue
				}
				gate := float64(g.Scale) * m.s[(i*n+e)*vec.Lanes+l] / total
				for h := range hidden {
					u := 0.0
					for j := range d {
						u += m.in[(e*hidden+h)*d+j] * float64(t.X[j*vec.Lanes+l])
					}
					u *= gate / (1 + math.Exp(-1.702*u))
					for c := range d {
						y[c] += u * m.out[(e*hidden+h)*d+c]
					}
				}
			}
			for _, v := range y {
				sum += v * v
			}
		}
	}
	return sum
}

// Gradients with respect to experts, the shared expert and the scores, through gates, against central differences of the
// layer's definition; on tiles that are full and one that is not, on experts of more than one tile of tokens and of none, and where
// the output of some tokens, such as padding, is thrown away.
func TestExpertGradientsMatchCentralDifferences(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 7))
	for _, g := range []moe.Gate{{Normalised: true, Scale: 1}, {Normalised: true, Scale: 2.5}, {Scale: 0.5}} {
		for _, of := range []struct {
			shared bool
			waste  uint64
		}{{true, 0}, {false, 0}, {true, 0x8000_0f00_1234_0003}} {
			c := &Config{Layer: moe.Layer{Experts: 7, TopK: 3, Width: 5, Groups: 1, GroupsKept: 1}, Tokens: 150, Steps: 1,
				Experts: ExpertsConfig{Learn: true, Hidden: 3, Regions: 4, Shared: of.shared}}
			b, k, x, a, s := taught(r, c, of.waste)
			const weight = 0.25
			w := moe.NewScratch(c.Layer)
			got := 0.0
			scoreGradient := make([]float32, len(s))
			n := c.Layer.Experts * vec.Lanes
			for i := range b.Tiles {
				got += x.error(b, i, i%gradientChunks, s[i*n:], a.Tile(i), g, weight, w)
				copy(scoreGradient[i*n:], w.Grad)
			}
			for e := range c.Layer.Experts {
				x.backward(e, w)
			}

			m := &model{s: make([]float64, len(s))}
			for i, v := range s {
				m.s[i] = float64(v)
			}
			for e := range c.Layer.Experts {
				for i, v := range x.of(e) {
					if i < 3*5 {
						m.in = append(m.in, float64(v))
					} else {
						m.out = append(m.out, float64(v))
					}
				}
			}
			if of.shared {
				m.shared = make([]float64, 25)
				for i, v := range x.shared.theta {
					m.shared[i] = float64(v)
				}
			}
			loss := func() float64 { return m.loss(b, k, a, 3, g) }
			if want := loss(); math.Abs(got-want) > 1e-5*want {
				t.Errorf("%+v: squared error is %v, want %v", g, got, want)
			}
			check := func(what string, at int, p *float64, got float32) {
				t.Helper()
				const h = 1e-5
				old := *p
				*p = old + h
				up := loss()
				*p = old - h
				want := weight * (up - loss()) / (2 * h)
				*p = old
				if math.Abs(float64(got)-want) > 2e-4*(1+math.Abs(want)) {
					t.Errorf("%+v: gradient of %s %d is %v, want %v", g, what, at, got, want)
				}
			}
			for i := range m.in {
				check("W", i, &m.in[i], x.gradIn[i/15].Row(i % 15 / 5)[i%5])
				check("V", i, &m.out[i], x.gradOut[i/15].Row(i % 15 / 5)[i%5])
			}
			for i := range m.shared {
				var sum float32
				for _, chunk := range x.shared.grad {
					sum += chunk.Row(i / 5)[i%5]
				}
				check("S", i, &m.shared[i], sum)
			}
			for range 60 {
				i := r.IntN(len(s))
				if tile := i / n; i%vec.Lanes < b.Tiles[tile].Tokens {
					check("score", i, &m.s[i], scoreGradient[i])
				}
			}
		}
	}
}

// Two seeds of one world have one task, so that their losses differ by tokens and beginnings alone; otherwise each has its own.
func TestWorldSeedFixesTheTask(t *testing.T) {
	settings := []string{"tokens=128", "experts=8", "topk=2", "width=16", "task.experts=learned", "task.regions=5"}
	of := func(seed uint64, more ...string) *task {
		return replicateOfSeed(t, seed, "pretraining", append(settings, more...), Learned, "none").oracle.task
	}
	same := func(a, b *task) bool {
		return reflect.DeepEqual(a.maps, b.maps) && reflect.DeepEqual(a.centres, b.centres)
	}
	if same(of(1), of(2)) {
		t.Error("two seeds have one task")
	}
	if !same(of(1, "world_seed=7"), of(2, "world_seed=7")) {
		t.Error("two seeds of one world have two tasks")
	}
	if !same(of(7), of(2, "world_seed=7")) {
		t.Error("the task of a world is not that of its seed")
	}
}

// Targets are B_r·x of the region whose centre is nearest, and on average as large as the tokens.
func TestTaskIsLinearWithinRegions(t *testing.T) {
	c := &Config{Layer: moe.Layer{Experts: 7, TopK: 3, Width: 16, Groups: 1, GroupsKept: 1}, Tokens: 640, Steps: 1,
		Experts: ExpertsConfig{Learn: true, Hidden: 3, Regions: 9}}
	_, k, _, _, _ := taught(rand.New(rand.NewPCG(8, 8)), c, 0)
	seen := map[int32]bool{}
	for i := range c.Tokens {
		seen[k.region[i]] = true
	}
	if len(seen) != 9 {
		t.Errorf("640 tokens lie in %d of 9 regions", len(seen))
	}
	var squareX, squareY float64
	for i := range c.Tokens * 16 {
		squareX += float64(k.rows[i]) * float64(k.rows[i])
		squareY += float64(k.target[i]) * float64(k.target[i])
	}
	if ratio := squareY / squareX; math.Abs(ratio-1) > 0.2 {
		t.Errorf("targets have %v of the tokens' energy, want 1 within the chance of nine maps", ratio)
	}
	if got := sum(k.energy); math.Abs(got-squareY) > 1e-9*squareY {
		t.Errorf("energy is %v, want %v", got, squareY)
	}
	// A centre is its own nearest one, at any length.
	w := moe.NewScratch(c.Layer)
	centres := normals(rng.Key(1, rng.Task, drawRegions), 9*16, 3)
	tile := moe.Tile{X: make([]float32, 16*vec.Lanes), Tokens: 9}
	for i, v := range centres {
		tile.X[i%16*vec.Lanes+i/16] = v
	}
	k.locate(0, &tile, w)
	for r, got := range k.region[:9] {
		if got != int32(r) {
			t.Errorf("centre %d lies in region %d", r, got)
		}
	}
	for _, token := range []int{77, 639} {
		x, z := make([]float32, 16*vec.Lanes), make([]float32, 16*vec.Lanes)
		for c := range 16 {
			x[c*vec.Lanes] = k.rows[token*16+c]
		}
		k.maps[k.region[token]].Times(z, x, vec.NewScratch(16))
		for c := range 16 {
			if got, want := k.target[token*16+c], z[c*vec.Lanes]; got != want {
				t.Errorf("token %d: target %d is %v, want %v", token, c, got, want)
			}
		}
	}
}
