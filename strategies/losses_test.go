package strategies

import (
	"math"
	"math/bits"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"evenkeel/internal/rng"
	"evenkeel/internal/vec"
	"evenkeel/moe"
)

// tokens64 is a routed batch token by token in float64, for definitions straight from the papers.
type tokens64 struct {
	b             *moe.Batch
	chosen, fresh [][]bool    // [token][E]
	z, noise      [][]float64 // logits, and the noise on them that the strategy drew
}

// view64 reads a batch whose choice is a and whose noise, if not nil, draw draws.
func view64(b *moe.Batch, a *moe.Assignment, draw func(t *moe.Tile, n []float32)) *tokens64 {
	v := &tokens64{b: b}
	n := make([]float32, b.Layer.Experts*vec.Lanes)
	for i := range b.Tiles {
		t := &b.Tiles[i]
		clear(n)
		if draw != nil && t.Training {
			draw(t, n)
		}
		for l := range t.Tokens {
			row := func(f func(e int) float64) (r []float64) {
				for e := range b.Layer.Experts {
					r = append(r, f(e))
				}
				return r
			}
			has := func(mask []uint64) (r []bool) {
				for _, m := range mask {
					r = append(r, m>>l&1 != 0)
				}
				return r
			}
			v.z = append(v.z, row(func(e int) float64 { return float64(t.Z[e*vec.Lanes+l]) }))
			v.noise = append(v.noise, row(func(e int) float64 { return float64(n[e*vec.Lanes+l]) }))
			v.chosen = append(v.chosen, has(a.Tile(i)))
			if a.Fresh != nil {
				v.fresh = append(v.fresh, has(a.FreshTile(i)))
			}
		}
	}
	return v
}

func (v *tokens64) disturbed(t int) []float64 {
	return map64(v.z[t], func(e int, z float64) float64 { return z + v.noise[t][e] })
}

func map64(x []float64, f func(i int, v float64) float64) []float64 {
	y := make([]float64, len(x))
	for i, v := range x {
		y[i] = f(i, v)
	}
	return y
}

func sum64(x []float64) (sum float64) {
	for _, v := range x {
		sum += v
	}
	return sum
}

func score64(f moe.Score, z []float64) []float64 {
	var norm float64
	for _, v := range z {
		norm += math.Exp(v)
	}
	return map64(z, func(_ int, v float64) float64 {
		switch f {
		case moe.Softmax:
			return math.Exp(v) / norm
		case moe.SqrtSoftplus:
			return math.Sqrt(math.Log1p(math.Exp(v)))
		case moe.ReLU:
			return max(v, 0)
		}
		return 1 / (1 + math.Exp(-v))
	})
}

func normalised64(s []float64) []float64 {
	sum := sum64(s)
	return map64(s, func(_ int, v float64) float64 { return v / sum })
}

// counts64 returns n_e of a unit.
func counts64(choice [][]bool, u moe.Span) []float64 {
	n := make([]float64, len(choice[0]))
	for _, c := range choice[u.From:u.To] {
		for e, chosen := range c {
			if chosen {
				n[e]++
			}
		}
	}
	return n
}

// price is Σ over units of Σ_e w_e·mean q_te, over their number, for the price w of a unit and the q of a token's logits.
func (v *tokens64) price(units []moe.Span, w func(u moe.Span) []float64, q func(t int) []float64) (sum float64) {
	for _, u := range units {
		prices := w(u)
		for t := u.From; t < u.To; t++ {
			for e, x := range q(t) {
				sum += prices[e] * x / float64(u.Len()) / float64(len(units))
			}
		}
	}
	return sum
}

func cv64(x []float64, over float64) float64 {
	mean, sum := sum64(x)/float64(len(x)), 0.0
	for _, v := range x {
		sum += (v - mean) * (v - mean)
	}
	return sum / over / (mean * mean)
}

// shares is E·n/(KT).
func (v *tokens64) shares(u moe.Span) []float64 {
	l := v.b.Layer
	return map64(counts64(v.chosen, u), func(_ int, n float64) float64 {
		return n * float64(l.Experts) / float64(l.TopK*u.Len())
	})
}

// Every loss of this family against central differences in float64 of its definition, all of it detached that should be.
func TestGradientsOfOtherLosses(t *testing.T) {
	plain := moe.Layer{Experts: 6, TopK: 2, Groups: 1, GroupsKept: 1}
	grouped := moe.Layer{Experts: 6, TopK: 2, Groups: 3, GroupsKept: 2}
	whole := func(v *tokens64) []moe.Span { return []moe.Span{{From: 0, To: v.b.Tokens}} }
	logSumExp := func(z []float64) float64 {
		return math.Log(sum64(map64(z, func(_ int, v float64) float64 { return math.Exp(v) })))
	}
	zloss := func(v *tokens64, _ moe.Score) (sum float64) {
		for _, z := range v.z {
			sum += logSumExp(z) * logSumExp(z) / float64(len(v.z))
		}
		return sum
	}
	// Shazeer's two losses, by the definitions of the paper.
	importance := func(units []moe.Span, v *tokens64, f moe.Score, all bool, over float64) (sum float64) {
		for _, u := range units {
			load := make([]float64, 6)
			for t := u.From; t < u.To; t++ {
				s := map64(score64(f, v.disturbed(t)), func(e int, s float64) float64 {
					if all || v.chosen[t][e] {
						return s
					}
					return 0
				})
				for e, g := range normalised64(s) {
					load[e] += g
				}
			}
			sum += cv64(load, over) / float64(len(units))
		}
		return sum
	}
	smooth := func(units []moe.Span, v *tokens64, sigma, over float64) (sum float64) {
		for _, u := range units {
			load := make([]float64, 6)
			for t := u.From; t < u.To; t++ {
				for e := range load {
					others := slices.Clone(v.disturbed(t))
					others = slices.Delete(others, e, e+1)
					slices.Sort(others)
					thr := others[len(others)-2] // the K-th of the others, K = 2
					load[e] += 0.5 * math.Erfc(-(v.z[t][e]-thr)/sigma/math.Sqrt2)
				}
			}
			sum += cv64(load, over) / float64(len(units))
		}
		return sum
	}
	for _, c := range []struct {
		text  string
		layer moe.Layer
		want  func(v *tokens64, f moe.Score) float64
	}{
		{"z-loss:coeff=0.5,score=scenario", plain, func(v *tokens64, f moe.Score) float64 { return 0.5 * zloss(v, f) }},
		{"aux-loss:coeff=0.5,z=0.25", plain, func(v *tokens64, f moe.Score) float64 {
			return 0.25*zloss(v, f) + 0.5*v.price(whole(v), v.shares, func(t int) []float64 { return normalised64(score64(f, v.z[t])) })
		}},
		{"aux-loss:coeff=0.5,local=0.25", plain, func(v *tokens64, f moe.Score) float64 {
			q := func(t int) []float64 { return normalised64(score64(f, v.z[t])) }
			return 0.5*v.price(whole(v), v.shares, q) + 0.125*v.price(v.b.MicroBatches, v.shares, q)
		}},
		{"switch-loss:coeff=0.5,score=scenario", plain, func(v *tokens64, f moe.Score) float64 {
			return 0.5 * v.price(v.b.MicroBatches, v.shares, func(t int) []float64 { return normalised64(score64(f, v.z[t])) })
		}},
		{"gshard-top2:coeff=0.5,score=scenario", grouped, func(v *tokens64, f moe.Score) (sum float64) {
			for _, u := range v.b.MicroBatches { // mean_e(c_e/T · m_e)·E²
				c, m := make([]float64, 6), make([]float64, 6)
				for t := u.From; t < u.To; t++ {
					q := normalised64(score64(f, v.z[t]))
					for e, x := range q {
						m[e] += x / float64(u.Len())
						if v.fresh[t][e] {
							c[e]++
						}
					}
				}
				for e := range c {
					sum += 0.5 * c[e] / float64(u.Len()) * m[e] / 6 * 36 / float64(len(v.b.MicroBatches))
				}
			}
			return sum
		}},
		{"deepseek-v2-loss:expert=0,communication=0,device=0.5,score=scenario", grouped, func(v *tokens64, f moe.Score) (sum float64) {
			for _, u := range v.b.Sequences { // Σ_d f'_d·P'_d
				n, p := v.shares(u), make([]float64, 6)
				for t := u.From; t < u.To; t++ {
					for e, x := range normalised64(score64(f, v.z[t])) {
						p[e] += x / float64(u.Len())
					}
				}
				for d := range 3 {
					sum += 0.5 * (n[2*d] + n[2*d+1]) / 2 * (p[2*d] + p[2*d+1]) / float64(len(v.b.Sequences))
				}
			}
			return sum
		}},
		{"deepseek-v2-loss:expert=0,device=0,communication=0.5,scope=micro-batch,score=scenario", grouped, func(v *tokens64, f moe.Score) (sum float64) {
			for _, u := range v.b.MicroBatches { // f''_d = D/(MT)·tokens that touch d
				touch, p := make([]float64, 3), make([]float64, 3)
				for t := u.From; t < u.To; t++ {
					q := normalised64(score64(f, v.z[t]))
					for d := range 3 {
						p[d] += (q[2*d] + q[2*d+1]) / float64(u.Len())
						if v.chosen[t][2*d] || v.chosen[t][2*d+1] {
							touch[d]++
						}
					}
				}
				for d := range 3 {
					sum += 0.5 * 3 / (2 * float64(u.Len())) * touch[d] * p[d] / float64(len(v.b.MicroBatches))
				}
			}
			return sum
		}},
		{"skywork-loss:coeff=0.5,lambda=2,score=scenario", plain, func(v *tokens64, f moe.Score) float64 {
			return 0.5 * v.price(v.b.MicroBatches, v.shares, func(t int) []float64 {
				mean := sum64(v.z[t]) / 6
				sd := math.Sqrt(sum64(map64(v.z[t], func(_ int, z float64) float64 { return (z - mean) * (z - mean) })) / 6)
				return normalised64(score64(f, map64(v.z[t], func(_ int, z float64) float64 { return 2 * (z - mean) / sd })))
			})
		}},
		{"remoe:start=0.5", plain, func(v *tokens64, _ moe.Score) float64 {
			return 0.5 * v.price(v.b.MicroBatches, v.shares, func(t int) []float64 { return score64(moe.ReLU, v.z[t]) })
		}},
		{"variance-loss:coeff=0,variance=0.5,scope=sequence", plain, func(v *tokens64, f moe.Score) (sum float64) {
			for _, u := range v.b.Sequences {
				for e := range 6 {
					var s, squares float64
					for t := u.From; t < u.To; t++ {
						x := score64(f, v.z[t])[e]
						s, squares = s+x/float64(u.Len()), squares+x*x/float64(u.Len())
					}
					sum -= 0.5 * (squares - s*s) / 6 / float64(len(v.b.Sequences))
				}
			}
			return sum
		}},
		{"noisy-topk:coeff=0.5,noise=4,score=scenario", plain, func(v *tokens64, f moe.Score) float64 {
			u := v.b.MicroBatches
			return 0.5 * (importance(u, v, f, false, 6) + smooth(u, v, 4./6, 6))
		}},
		{"noisy-topk:coeff=0.5,noise=4,importance=all,variance=sample,scope=global,score=scenario", plain, func(v *tokens64, f moe.Score) float64 {
			return 0.5 * (importance(whole(v), v, f, true, 5) + smooth(whole(v), v, 4./6, 5))
		}},
		{"temperature", plain, func(v *tokens64, f moe.Score) float64 {
			return 0.5 * v.price(whole(v), v.shares, func(t int) []float64 {
				return normalised64(score64(f, map64(v.z[t], func(_ int, z float64) float64 { return z / 0.7 })))
			})
		}},
		{"entropy", plain, func(v *tokens64, f moe.Score) (sum float64) {
			for t := range v.z {
				for _, q := range normalised64(score64(f, v.z[t])) {
					sum -= 0.5 * q * math.Log(q) / float64(len(v.z))
				}
			}
			return sum
		}},
	} {
		for _, score := range []moe.Score{moe.Sigmoid, moe.Softmax, moe.SqrtSoftplus} {
			layer := c.layer
			layer.Score = score
			b := batchOf(rand.New(rand.NewPCG(7, 7)), layer, 30, 24, 16)
			for i := range b.Tiles {
				b.Tiles[i].Training = true
			}
			var s moe.Strategy
			switch c.text { // parts that no preset has yet
			case "entropy":
				s = compose(&strategy{layer: layer, score: score, selection: topK{layer}, losses: []loss{entropyLoss{coeff: 0.5}}})
			case "temperature":
				balance := newLoss(0.5, scopeGlobal)
				balance.plain = score == moe.Softmax
				s = compose(&strategy{layer: layer, score: score, transform: temperature{6, 0.7}, selection: topK{layer}, losses: []loss{balance}})
			default:
				s = mustBuild(t, layer, c.text)
			}
			scores, a := routeAll(s, b)
			prepareLosses(s, b, scores, a)
			var draw func(t *moe.Tile, n []float32)
			if d, ok := s.(*strategy).transform.(gatingNoise); ok {
				sigma := make([]float32, layer.Experts*vec.Lanes)
				d.sigmas(sigma, nil)
				draw = func(t *moe.Tile, n []float32) { d.draw(t, n, sigma) }
			}
			v := view64(b, a, draw)
			checkGradients(t, c.text+" "+score.String(), s, b, scores, v, func() float64 { return c.want(v, score) })
		}
	}
}

// prepareLosses counts and prepares as the engine does.
func prepareLosses(s moe.Strategy, b *moe.Batch, scores []float32, a *moe.Assignment) {
	var chosen, fresh moe.Counts
	chosen.Count(b, a.Mask)
	if a.Fresh != nil {
		fresh.Count(b, a.Fresh)
	}
	s.PrepareLoss(&moe.Outcome{Batch: b, Scores: scores, Logits: logitsOf(b), Assigned: a, Chosen: &chosen, Fresh: &fresh})
}

// checkGradients compares the value and the gradient of all losses of a strategy with a definition that reads v.z.
func checkGradients(t *testing.T, name string, s moe.Strategy, b *moe.Batch, scores []float32, v *tokens64, want func() float64) {
	t.Helper()
	n := b.Layer.Experts * vec.Lanes
	var got float64
	var gradients [][]float32
	for i := range b.Tiles {
		g := make([]float32, n)
		got += s.Backward(b, i, scores[i*n:(i+1)*n], b.Tiles[i].Z, g, moe.NewScratch(b.Layer))
		for j, x := range g {
			if j%vec.Lanes >= b.Tiles[i].Tokens && x != 0 {
				t.Fatalf("%s: a dead lane has gradient %v", name, x)
			}
		}
		gradients = append(gradients, g)
	}
	if w := want(); math.Abs(got-w) > 2e-6*math.Abs(w) {
		t.Errorf("%s is %v, want %v", name, got, w)
	}
	diffs, largest := make([]float64, 0, len(v.z)*b.Layer.Experts), 0.0
	for tok := range v.z {
		for e, z := range v.z[tok] {
			const h = 1e-5
			v.z[tok][e] = z + h
			up := want()
			v.z[tok][e] = z - h
			diffs = append(diffs, (up-want())/(2*h))
			v.z[tok][e] = z
			largest = max(largest, math.Abs(diffs[len(diffs)-1]))
		}
	}
	if largest < 1e-5 {
		t.Errorf("%s: the definition has no gradient", name)
	}
	for i, d := range diffs {
		tok, e := i/b.Layer.Experts, i%b.Layer.Experts
		if g := float64(gradients[tok/vec.Lanes][e*vec.Lanes+tok%vec.Lanes]); math.Abs(g-d) > 1e-5*largest {
			t.Fatalf("%s: gradient %v at token %d and expert %d, central difference %v", name, g, tok, e, d)
		}
	}
}

// Noisy top-K with a learned σ against central differences in float64 of its losses, over logits c and noise logits r, with the
// draws ε held.
func TestGradientsOfLearnedNoise(t *testing.T) {
	layer := moe.Layer{Experts: 6, TopK: 2, Groups: 1, GroupsKept: 1, Score: moe.Softmax}
	s := mustBuild(t, layer, "noisy-topk:coeff=0.5,scope=global").(*strategy)
	if !s.Traits().Noise {
		t.Error("it does not ask for a router of its noise")
	}
	b := batchOf(rand.New(rand.NewPCG(7, 7)), layer, 50)
	w, n := moe.NewScratch(layer), layer.Experts*vec.Lanes
	raw, scores, epsilon := make([]float32, n), make([]float32, n), make([]float32, n)
	vec.Normals(raw, 5)
	s.transform.(gatingNoise).normals(&b.Tiles[0], epsilon)
	a := moe.NewAssignment(layer, b.Tokens, s.Traits())
	w.Noise = raw
	s.Score(&b.Tiles[0], scores, b.Tiles[0].Z, w)
	s.Route(&b.Tiles[0], scores, w, a.Tile(0), nil)
	var chosen moe.Counts
	chosen.Count(b, a.Mask)
	s.PrepareLoss(&moe.Outcome{Batch: b, Scores: scores, Logits: b.Tiles[0].Z, Noise: raw, Assigned: a, Chosen: &chosen})
	g := make([]float32, n)
	clear(w.NoiseGrad)
	got := s.Backward(b, 0, scores, b.Tiles[0].Z, g, w)

	at := func(x []float32) (y [][]float64) { // [token][E]
		for tok := range b.Tokens {
			y = append(y, make([]float64, layer.Experts))
			for e := range y[tok] {
				y[tok][e] = float64(x[e*vec.Lanes+tok])
			}
		}
		return y
	}
	c, r, eps := at(b.Tiles[0].Z), at(raw), at(epsilon)
	value := func() float64 {
		importance, load := make([]float64, layer.Experts), make([]float64, layer.Experts)
		for tok := range c {
			sigma := map64(r[tok], func(_ int, v float64) float64 { return math.Log1p(math.Exp(v)) + 0.01 })
			z := map64(c[tok], func(e int, v float64) float64 { return v + sigma[e]*eps[tok][e] })
			gates := normalised64(map64(score64(moe.Softmax, z), func(e int, v float64) float64 {
				if a.Tile(0)[e]>>tok&1 == 0 {
					return 0
				}
				return v
			}))
			for e := range z {
				importance[e] += gates[e]
				others := slices.Delete(slices.Clone(z), e, e+1)
				slices.Sort(others)
				thr := others[len(others)-layer.TopK]
				load[e] += 0.5 * math.Erfc(-(c[tok][e]-thr)/sigma[e]/math.Sqrt2)
			}
		}
		return 0.5 * (cv64(importance, 6) + cv64(load, 6))
	}
	if want := value(); math.Abs(got-want) > 1e-6*want {
		t.Errorf("the losses are %v, want %v", got, want)
	}
	check := func(name string, x [][]float64, g []float32) {
		if largest := slices.Max(g); largest < 1e-4 {
			t.Errorf("the gradient of %s is at most %v", name, largest)
		}
		for tok := range x {
			for e, v := range x[tok] {
				const h = 1e-6
				x[tok][e] = v + h
				up := value()
				x[tok][e] = v - h
				want := (up - value()) / (2 * h)
				x[tok][e] = v
				if d := float64(g[e*vec.Lanes+tok]) - want; math.Abs(d) > 2e-7 {
					t.Fatalf("%s of token %d, expert %d: gradient %v, want %v", name, tok, e, g[e*vec.Lanes+tok], want)
				}
			}
		}
	}
	check("c", c, g)
	check("r", r, w.NoiseGrad)
}

// SimBal against central differences over W, and at an orthonormal W.
func TestGramLoss(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 1))
	const experts, width = 5, 4
	w := make([]float32, experts*width)
	for i := range w {
		w[i] = float32(r.NormFloat64())
	}
	for _, unit := range []bool{false, true} {
		x := make([]float64, len(w))
		for i, v := range w {
			x[i] = float64(v)
		}
		want := func() (sum float64) {
			for i := range experts {
				for j := range experts {
					var d, a, b float64
					for c := range width {
						d += x[i*width+c] * x[j*width+c]
						a += x[i*width+c] * x[i*width+c]
						b += x[j*width+c] * x[j*width+c]
					}
					if unit {
						d /= math.Sqrt(a * b)
					}
					if i == j {
						d--
					}
					sum += 0.5 * math.Abs(d)
				}
			}
			return sum
		}
		l := &gramLoss{coeff: 0.5, unit: unit}
		g := make([]float32, len(w))
		if got := l.addWeightGradient(w, g, experts); math.Abs(got-want()) > 1e-5*want() {
			t.Errorf("unit=%v: loss is %v, want %v", unit, got, want())
		}
		for i := range x {
			const h = 1e-6
			old := x[i]
			x[i] = old + h
			up := want()
			x[i] = old - h
			d := (up - want()) / (2 * h)
			x[i] = old
			if math.Abs(float64(g[i])-d) > 1e-5*(1+math.Abs(d)) {
				t.Errorf("unit=%v: gradient %v of weight %d, central difference %v", unit, g[i], i, d)
			}
		}
	}
	l, g := &gramLoss{coeff: 1}, make([]float32, 4)
	if loss := l.addWeightGradient([]float32{0, 1, -1, 0}, g, 2); loss != 0 || !slices.Equal(g, make([]float32, 4)) {
		t.Errorf("an orthonormal W has loss %v and gradient %v", loss, g)
	}
	// By hand: W = (1, 1; 0, 2) has W·Wᵀ − I = (1, 2; 2, 3), L = 8, and 2·sign·W = 2·(1, 3; 1, 3).
	if loss := l.addWeightGradient([]float32{1, 1, 0, 2}, g, 2); loss != 8 || !slices.Equal(g, []float32{2, 6, 2, 6}) {
		t.Errorf("by hand: loss %v and gradient %v, want 8 and [2 6 2 6]", loss, g)
	}
}

// The degenerate plateau (catalogue, section 1): scaling logits down changes no choice, and the loss falls to what it is at
// perfect balance. Normalised logits are not to be had that way.
func TestPlateau(t *testing.T) {
	layer := moe.Layer{Experts: 16, TopK: 2, Groups: 1, GroupsKept: 1, Score: moe.Softmax}
	b := batchOf(rand.New(rand.NewPCG(1, 9)), layer, 128, 128)
	for i := range b.Tiles {
		for e := range layer.Experts {
			for l := range vec.Lanes {
				b.Tiles[i].Z[e*vec.Lanes+l] += float32(e%4) * 0.3 // popular experts
			}
		}
	}
	// value is the loss of logits scaled by gamma, and then normalised if lambda is positive.
	value := func(lambda, gamma float32) (float64, []uint64) {
		balance := newLoss(1, scopeGlobal)
		balance.plain = true
		scaled, scaling := *b, temperature{layer.Experts, 1 / gamma}
		scaled.Tiles = slices.Clone(b.Tiles)
		for i := range scaled.Tiles {
			scaled.Tiles[i].Z = make([]float32, len(b.Tiles[i].Z))
			scaling.apply(nil, scaled.Tiles[i].Z, b.Tiles[i].Z, nil)
		}
		s := &strategy{layer: layer, score: moe.Softmax, selection: topK{layer}, losses: []loss{balance}}
		if lambda > 0 {
			s.transform = zScore{layer.Experts, lambda}
		}
		scores, a := routeAll(compose(s), &scaled)
		prepareLosses(s, &scaled, scores, a)
		return sumLoss(s, &scaled, scores), a.Mask
	}
	last, first := math.Inf(1), []uint64(nil)
	for _, gamma := range []float32{1, 0.5, 0.25, 0.0625, 1. / 1024} {
		loss, mask := value(0, gamma)
		if first == nil {
			first = mask
			if loss < 1.05 {
				t.Fatalf("the unscaled loss is %v, so there is nothing to see", loss)
			}
		}
		if !slices.Equal(mask, first) {
			t.Fatalf("scaling by %v changes choices", gamma)
		}
		if loss >= last || loss < 1 {
			t.Errorf("scaled by %v the loss is %v after %v", gamma, loss, last)
		}
		last = loss
	}
	if last > 1.001 {
		t.Errorf("the loss ends at %v, want 1", last)
	}
	one, _ := value(1, 1)
	small, mask := value(1, 0.0625)
	if math.Abs(one-small) > 1e-6 || !slices.Equal(mask, first) {
		t.Errorf("normalised logits have loss %v, and %v scaled down", one, small)
	}
}

func sumLoss(s moe.Strategy, b *moe.Batch, scores []float32) (loss float64) {
	n := b.Layer.Experts * vec.Lanes
	for i := range b.Tiles {
		loss += s.Backward(b, i, scores[i*n:(i+1)*n], b.Tiles[i].Z, make([]float32, n), moe.NewScratch(b.Layer))
	}
	return loss
}

// At perfectly even counts a price is 1 for all, and the loss its coefficient, by whatever it counts and groups.
func TestOtherLossesAtBalance(t *testing.T) {
	layer := moe.Layer{Experts: 8, TopK: 2, Groups: 4, GroupsKept: 2, Score: moe.Softmax}
	for text, touched := range map[string]int{
		"switch-loss:coeff=0.5": 2, "gshard-top2:coeff=0.5": 2,
		"deepseek-v2-loss:expert=0.5,device=0,communication=0": 2, "deepseek-v2-loss:expert=0,device=0.5,communication=0": 2,
		"deepseek-v2-loss:expert=0,device=0,communication=0.5": 2, "deepseek-v2-loss:expert=0,communication=0.5,device=0": 1,
		"variance-loss:coeff=0.5,variance=0": 2, "progressive-k:coeff=0.5,until=0": 2,
	} {
		b := batchOf(rand.New(rand.NewPCG(8, 8)), layer, 32, 32, 64)
		s := mustBuild(t, layer, text)
		scores, a := routeAll(s, b)
		clear(a.Mask)
		clear(a.Fresh)
		for tok := range b.Tokens { // token t has experts t and t + 4, of two groups, or both of one
			tile, lane := a.Tile(tok/vec.Lanes), tok%vec.Lanes
			pair := [2]int{tok % 8, (tok + 4) % 8}
			if touched == 1 {
				pair = [2]int{tok % 4 * 2, tok%4*2 + 1}
			}
			tile[pair[0]] |= 1 << lane
			tile[pair[1]] |= 1 << lane
			if a.Fresh != nil {
				a.FreshTile(tok / vec.Lanes)[pair[0]] |= 1 << lane
			}
		}
		prepareLosses(s, b, scores, a)
		want := 0.5 * float64(touched) / 2 // a token that touches one of two allowed groups costs half
		if got := sumLoss(s, b, scores); math.Abs(got-want) > 1e-6 {
			t.Errorf("%s is %v with even counts, want %v", text, got, want)
		}
	}
}

// What a loss counts: the chosen set, a fresh plain top-K, or first choices (section 9, trap 4).
func TestWhatLossesCount(t *testing.T) {
	layer := moe.Layer{Experts: 8, TopK: 2, Groups: 4, GroupsKept: 1, Score: moe.Softmax}
	b := batchOf(rand.New(rand.NewPCG(4, 8)), layer, 100)
	s := mustBuild(t, layer, "gshard-top2")
	scores, a := routeAll(s, b)
	for tok := range b.Tokens {
		best, at := float32(-1), -1
		for e, m := range a.Tile(tok / vec.Lanes) {
			if v := scores[tok/vec.Lanes*8*vec.Lanes+e*vec.Lanes+tok%vec.Lanes]; m>>(tok%vec.Lanes)&1 != 0 && v > best {
				best, at = v, e
			}
		}
		for e, m := range a.FreshTile(tok / vec.Lanes) {
			if first := m>>(tok%vec.Lanes)&1 != 0; first != (e == at) {
				t.Fatalf("token %d: expert %d counts as first choice: %v, and the best of the chosen is %d", tok, e, first, at)
			}
		}
	}
	// Two tokens to experts 0 and 1, of which 0 is first: w = E·c/T counts one of them.
	l := newLoss(1, scopeGlobal)
	l.first = true
	w := make([]float32, 4)
	l.setPrices(w, []int64{2, 0, 0, 0}, moe.Layer{Experts: 4, TopK: 2, Groups: 1, GroupsKept: 1}, 2)
	if !slices.Equal(w, []float32{4, 0, 0, 0}) {
		t.Errorf("prices of first choices are %v", w)
	}
}

// Communication counts tokens that touch a device, once each, and not their choices there.
func TestTouchedDevices(t *testing.T) {
	layer := moe.Layer{Experts: 4, TopK: 2, Groups: 2, GroupsKept: 2, Score: moe.Softmax}
	b := batchOf(rand.New(rand.NewPCG(1, 1)), layer, 3, 1)
	b.SplitMicroBatches(2)
	var c moe.Counts
	// Tokens 0 and 1 take both experts of device 0, token 2 one of each, token 3 (a sequence of its own) both of device 1.
	c.Count(b, []uint64{0b0111, 0b0011, 0b1100, 0b1000})
	for name, x := range map[string][2][]int64{
		"sequence":    {c.SequenceTokens, {3, 1, 0, 1}},
		"micro-batch": {c.MicroBatchTokens, {3, 1, 0, 1}},
		"global":      {c.GlobalTokens, {3, 2}},
	} {
		if !slices.Equal(x[0], x[1]) {
			t.Errorf("tokens by %s and device are %v, want %v", name, x[0], x[1])
		}
	}
	for by, want := range map[grouping][]float32{
		byExpert:  {1.5, 1, 1, 0.5}, // 4·n/(2·4) of n = 3, 2, 2, 1
		byDevice:  {1.25, 1.25, 0.75, 0.75},
		byTouched: {0.75, 0.75, 0.5, 0.5}, // 2/(2·4) of 3 and 2
	} {
		l := newLoss(1, scopeGlobal)
		l.grouping = by
		l.prepare(&moe.Outcome{Batch: b, Chosen: &c})
		if !slices.Equal(l.prices, want) {
			t.Errorf("grouping %v has prices %v, want %v", by, l.prices, want)
		}
	}
}

// Where a token touches one device only, devices receive tokens in proportion to their load, and both losses of devices agree.
func TestDeviceLossesAgreeWithOneDevice(t *testing.T) {
	layer := moe.Layer{Experts: 16, TopK: 3, Groups: 4, GroupsKept: 1, Score: moe.Softmax}
	b := batchOf(rand.New(rand.NewPCG(5, 1)), layer, 70, 30, 90)
	var prices [2][]float32
	for i, text := range []string{"deepseek-v2-loss:expert=0,communication=0,device=1", "deepseek-v2-loss:expert=0,communication=1,device=0"} {
		s := mustBuild(t, layer, text)
		scores, a := routeAll(s, b)
		prepareLosses(s, b, scores, a)
		prices[i] = s.(*strategy).losses[1+i].(*balanceLoss).prices
	}
	for i, v := range prices[0] {
		if math.Abs(float64(v-prices[1][i])) > 1e-6 {
			t.Fatalf("prices are %v by load and %v by tokens", prices[0], prices[1])
		}
	}
}

// Relabelling the experts relabels choices.
func TestRelabelledExperts(t *testing.T) {
	layer := moe.Layer{Experts: 16, TopK: 2, Groups: 1, GroupsKept: 1, Score: moe.Softmax}
	r := rand.New(rand.NewPCG(5, 5))
	for _, text := range []string{"gshard-top2", "skywork-loss", "remoe", "progressive-k"} {
		b := batchOf(r, layer, 128)
		s := mustBuild(t, layer, text)
		_, before := routeAll(s, b)
		perm := r.Perm(16)
		for i := range b.Tiles {
			z := slices.Clone(b.Tiles[i].Z)
			for e, to := range perm {
				copy(b.Tiles[i].Z[to*vec.Lanes:(to+1)*vec.Lanes], z[e*vec.Lanes:(e+1)*vec.Lanes])
			}
		}
		_, after := routeAll(s, b)
		for i := range b.Tiles {
			for e, to := range perm {
				if before.Tile(i)[e] != after.Tile(i)[to] {
					t.Fatalf("%s: relabelling experts changes choices", text)
				}
			}
		}
	}
}

// The smooth load by hand: E = 2, K = 1, σ = 1, logits (1, 0) without noise, so both thresholds are the other's logit.
func TestSmoothLoadByHand(t *testing.T) {
	layer := moe.Layer{Experts: 2, TopK: 1, Groups: 1, GroupsKept: 1, Score: moe.Softmax}
	b := batchOf(rand.New(rand.NewPCG(1, 1)), layer, 1)
	b.Tiles[0].Z[0], b.Tiles[0].Z[vec.Lanes], b.Tiles[0].Training = 1, 0, false
	l := &loadLoss{squaredCV: squaredCV{units: units{scope: scopeGlobal}, coeff: 1}, noise: gatingNoise{2, 1}}
	l.prepare(&moe.Outcome{Batch: b, Logits: logitsOf(b), Assigned: &moe.Assignment{Experts: 2, Mask: []uint64{1, 0}}})
	const phi = 0.841344746 // Φ(1): the loads are Φ(1) and 1 − Φ(1), whose mean is ½
	if want := math.Pow(2*phi-1, 2); math.Abs(l.value-want) > 1e-8 {
		t.Errorf("CV² is %v, want %v", l.value, want)
	}
	for _, x := range []float64{-8, -6.5, -3, -1, -0.1, 0, 0.3, 1, 2.5, 6.9, 7.5} {
		got, density := normal(x)
		if d := math.Exp(-x*x/2) / math.Sqrt(2*math.Pi); math.Abs(density-d) > 1e-11 {
			t.Errorf("φ(%v) = %v, want %v", x, density, d)
		}
		if want := 0.5 * math.Erfc(-x/math.Sqrt2); math.Abs(got-want) > 1e-11 {
			t.Errorf("Φ(%v) is %v, want %v", x, got, want)
		}
	}
}

// Noise acts in training only, has the spread it says, and does not depend on who asks for it.
func TestNoise(t *testing.T) {
	r := rand.New(rand.NewPCG(2, 2))
	layer := moe.Layer{Experts: 64, TopK: 2, Groups: 1, GroupsKept: 1}
	b := batchOf(r, layer, 64*40)
	w := moe.NewScratch(layer)
	z := make([]float32, 64*vec.Lanes)
	for _, kind := range []string{noiseNormal, noiseInput, noiseAdd} {
		d := noise{64, kind, 0.3}
		var sum, squares, n float64
		for i := range b.Tiles {
			tile := &b.Tiles[i]
			tile.Training = false
			if d.apply(tile, z, tile.Z, w); !slices.Equal(z, tile.Z) {
				t.Fatalf("%s: an evaluation is disturbed", kind)
			}
			tile.Training = true
			d.apply(tile, z, tile.Z, w)
			var scale [64]float64 // the standard deviation of a lane's noise
			for l := range scale {
				scale[l] = 0.3
				if kind == noiseAdd {
					scale[l] /= math.Sqrt(3)
				}
				if kind == noiseInput {
					var mean float64
					for e := range 64 {
						mean += float64(tile.Z[e*64+l]) * float64(tile.Z[e*64+l]) / 64
					}
					scale[l] *= math.Sqrt(mean / 3)
				}
			}
			for j, v := range z {
				x := (float64(v) - float64(tile.Z[j])) / scale[j%64]
				sum, squares, n = sum+x, squares+x*x, n+1
				if kind == noiseAdd && math.Abs(x) > math.Sqrt(3)+1e-5 {
					t.Fatalf("uniform noise of ±0.3 is %v", x*scale[j%64])
				}
			}
			again := slices.Clone(z)
			if d.apply(tile, again, slices.Clone(tile.Z), moe.NewScratch(layer)); !slices.Equal(z, again) {
				t.Fatalf("%s: two draws of a tile differ", kind)
			}
			if i > 0 && again[0]-tile.Z[0] == b.Tiles[0].Z[0] {
				t.Fatal("tiles share their noise")
			}
		}
		if mean := sum / n; math.Abs(mean) > 4.5/math.Sqrt(n) {
			t.Errorf("%s: noise has mean %v", kind, mean)
		}
		if v := squares / n; math.Abs(v-1) > 4.5*math.Sqrt(2/n) {
			t.Errorf("%s: noise has %v of its variance", kind, v)
		}
	}
}

// Multiplying jitter is relative to the logits, adding it is not: doubled logits meet doubled noise or the same (trap 7).
func TestJitterMultiplies(t *testing.T) {
	layer := moe.Layer{Experts: 8, TopK: 2, Groups: 1, GroupsKept: 1}
	b := batchOf(rand.New(rand.NewPCG(2, 5)), layer, 64)
	tile := &b.Tiles[0]
	tile.Training = true
	double := make([]float32, len(tile.Z))
	for i, v := range tile.Z {
		double[i] = 2 * v
	}
	w := moe.NewScratch(layer)
	for kind, factor := range map[string]float32{noiseInput: 2, noiseAdd: 1, noiseNormal: 1} {
		d := noise{8, kind, 0.25}
		one, two := make([]float32, len(tile.Z)), make([]float32, len(tile.Z))
		d.draw(tile, one, tile.Z)
		d.draw(tile, two, double)
		for i := range one {
			if two[i] != factor*one[i] {
				t.Fatalf("%s: noise %v becomes %v where logits double", kind, one[i], two[i])
			}
		}
		// A constant on all logits moves no choice of additive noise: FastMoE's 1 cancels.
		shifted := noisyChoice(t, d, tile, tile.Z, 0, w)
		if same := slices.Equal(shifted, noisyChoice(t, d, tile, tile.Z, 4, w)); same != (kind != noiseInput) {
			t.Errorf("%s: a constant on all logits leaves choices alone: %v", kind, same)
		}
	}
}

// noisyChoice is the top-K of a tile's logits plus a constant, with noise.
func noisyChoice(t *testing.T, d noise, tile *moe.Tile, z []float32, constant float32, w *moe.Scratch) []uint64 {
	t.Helper()
	layer := moe.Layer{Experts: 8, TopK: 2, Groups: 1, GroupsKept: 1}
	x := make([]float32, len(z))
	for i, v := range z {
		x[i] = v + constant
	}
	d.apply(tile, x, x, w)
	m := make([]uint64, 8)
	topK{layer}.choose(tile, x, nil, w, m)
	return m
}

// Gumbel noise draws an expert with chances softmax(z), whatever the score function, in training only; gates are clean.
func TestGumbelDrawsBySoftmax(t *testing.T) {
	for _, score := range []moe.Score{moe.Softmax, moe.Sigmoid, moe.SqrtSoftplus} {
		layer := moe.Layer{Experts: 4, TopK: 1, Groups: 1, GroupsKept: 1, Score: score}
		const tokens = 64 * 1500
		b := batchOf(rand.New(rand.NewPCG(6, 2)), layer, tokens)
		logits := []float64{0.5, -1, 0, 1.2}
		for i := range b.Tiles {
			b.Tiles[i].Training = true
			for e, z := range logits {
				for l := range vec.Lanes {
					b.Tiles[i].Z[e*vec.Lanes+l] = float32(z)
				}
			}
		}
		s := mustBuild(t, layer, "jitter:kind=gumbel")
		_, a := routeAll(s, b)
		n := make([]float64, 4)
		for i, m := range a.Mask {
			n[i%4] += float64(bits.OnesCount64(m))
		}
		for e, p := range score64(moe.Softmax, logits) {
			if sd := math.Sqrt(tokens * p * (1 - p)); math.Abs(n[e]-tokens*p) > 4.5*sd {
				t.Errorf("%s: expert %d is drawn %v times, want %v", score, e, n[e], tokens*p)
			}
		}
		for i := range b.Tiles {
			b.Tiles[i].Training = false
		}
		if _, a = routeAll(s, b); bits.OnesCount64(a.Tile(0)[3]) != 64 {
			t.Errorf("%s: an evaluation is drawn by chance", score)
		}
	}
}

// GShard's second expert is kept with probability min(1, 2g₂), the first always.
func TestSecondExpertByChance(t *testing.T) {
	layer := moe.Layer{Experts: 3, TopK: 2, Groups: 1, GroupsKept: 1, Score: moe.Softmax}
	const tokens = 64 * 1000
	for _, g2 := range []float64{0.1, 0.4, 0.499} {
		b := batchOf(rand.New(rand.NewPCG(6, 2)), layer, tokens)
		for i := range b.Tiles {
			b.Tiles[i].Training = true
			for l := range vec.Lanes {
				z := b.Tiles[i].Z
				z[l], z[vec.Lanes+l], z[2*vec.Lanes+l] = -5, float32(math.Log(g2)), float32(math.Log(1-g2))
			}
		}
		count := func(text string) (n [3]float64) {
			_, a := routeAll(mustBuild(t, layer, text), b)
			for i, m := range a.Mask {
				n[i%3] += float64(bits.OnesCount64(m))
			}
			return n
		}
		p := min(1, 2*g2)
		if n := count("gshard-top2"); n[2] != tokens || n[0] != 0 || math.Abs(n[1]-tokens*p) > 4.5*math.Sqrt(tokens*p*(1-p)) {
			t.Errorf("g₂ = %v: loads %v, want %v of the second", g2, n, tokens*p)
		}
		if n := count("gshard-top2:second=always"); n != [3]float64{0, tokens, tokens} {
			t.Errorf("g₂ = %v: loads %v where the second is always kept", g2, n)
		}
		// DeepSpeed's: the second of the others in proportion to e^z.
		q := g2 / (g2 + math.Exp(-5))
		if n := count("gshard-top2:second=gumbel"); n[2] != tokens || math.Abs(n[1]-tokens*q) > 4.5*math.Sqrt(tokens*q*(1-q)) {
			t.Errorf("g₂ = %v: loads %v with a Gumbel second, want %v", g2, n, tokens*q)
		}
		for i := range b.Tiles {
			b.Tiles[i].Training = false
		}
		if n := count("gshard-top2:evaluation=best"); n != [3]float64{0, tokens, tokens} {
			t.Errorf("g₂ = %v: loads %v of an evaluation without chance", g2, n)
		}
		if n := count("gshard-top2"); n[1] == tokens {
			t.Errorf("g₂ = %v: evaluation=random keeps every second expert", g2)
		}
	}
	spec, err := Parse("gshard-top2")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := spec.Build(layer16); err == nil || !strings.Contains(err.Error(), "--set topk=2") {
		t.Errorf("K = 3 gives %v", err)
	}
}

// The z-score by hand: (1, 2, 3) has μ = 2 and σ² = 2/3; and equal logits have no direction.
func TestZScoreByHand(t *testing.T) {
	layer := moe.Layer{Experts: 3, TopK: 1, Groups: 1, GroupsKept: 1}
	w := moe.NewScratch(layer)
	z := make([]float32, 3*vec.Lanes)
	for e := range 3 {
		z[e*vec.Lanes], z[e*vec.Lanes+1] = float32(e+1), 5
	}
	got := slices.Clone(z)
	zScore{3, 2}.apply(nil, got, got, w)
	for e, want := range []float64{-2 / math.Sqrt(2./3), 0, 2 / math.Sqrt(2./3)} {
		if math.Abs(float64(got[e*vec.Lanes])-want) > 1e-6 || got[e*vec.Lanes+1] != 0 {
			t.Errorf("expert %d: %v and %v, want %v and 0", e, got[e*vec.Lanes], got[e*vec.Lanes+1], want)
		}
	}
	g := slices.Repeat([]float32{1, 2, 3, 4}, 3*vec.Lanes/4)
	zScore{3, 2}.backward(nil, g, z, w)
	if g[1] != 0 || g[vec.Lanes+1] != 0 {
		t.Error("equal logits have a gradient")
	}
}

// Skywork-MoE's coefficient by hand: d from drops, or from what is above capacity.
func TestDropController(t *testing.T) {
	alpha := 0.01
	c := &dropController{coeff: &alpha, xi: 0.2, most: 0.01, memory: 0.75, capacity: 1}
	steps := []struct {
		o    moe.Outcome
		want float64
	}{
		{moe.Outcome{Chosen: countsOf(4, 4, 4, 4)}, 0.0075},                  // nothing above: 0.75·0.01
		{moe.Outcome{Chosen: countsOf(5, 3, 4, 4)}, 0.75*0.0075 + 0.25*0.01}, // d = 1/16, ξd = 0.0125 is above α_max
		{moe.Outcome{Chosen: countsOf(65, 63, 64, 64)}, 0.75*(0.75*0.0075+0.25*0.01) + 0.25*0.2/256},
		{moe.Outcome{Chosen: countsOf(31, 32, 32, 32), Batch: &moe.Batch{Tiles: make([]moe.Tile, 1)},
			Assigned: &moe.Assignment{Experts: 4, Dropped: []uint64{1, 0, 0, 0}}},
			0.75*(0.75*(0.75*0.0075+0.25*0.01)+0.25*0.2/256) + 0.25*0.2/128},
	}
	for i, s := range steps {
		if c.update(&s.o); math.Abs(alpha-s.want) > 1e-15 {
			t.Errorf("step %d: α = %v, want %v", i, alpha, s.want)
		}
	}
	if s := mustBuild(t, layer16, "skywork-loss"); s != nil {
		s.Update(&moe.Outcome{Chosen: countsOf(slices.Repeat([]int64{4}, 16)...)})
		if got := s.(*strategy).losses[0].(*balanceLoss).coeff; math.Abs(got-0.0099) > 1e-15 {
			t.Errorf("the preset's α is %v after an even step, want 0.0099", got)
		}
	}
}

// ReMoE by hand: which experts, and λ up where more than K are active, down where not.
func TestReMoE(t *testing.T) {
	layer := moe.Layer{Experts: 4, TopK: 2, Groups: 1, GroupsKept: 1}
	b := batchOf(rand.New(rand.NewPCG(1, 1)), layer, 3)
	for e, row := range [][]float32{{1, -1, 0}, {2, -2, 0}, {-1, -3, 0.5}, {3, -1, 0}} {
		copy(b.Tiles[0].Z[e*vec.Lanes:], row)
	}
	s := mustBuild(t, layer, "remoe")
	scores, a := routeAll(s, b)
	if !slices.Equal(a.Mask, []uint64{1, 1, 4, 1}) {
		t.Errorf("chose %v: token 0 has three positive logits, token 1 none, token 2 one", a.Mask)
	}
	if g := s.Traits().Gate.Sum(6); g != 6 || scores[0] != 1 || scores[1] != 0 {
		t.Errorf("gates sum to %v of 6, scores are %v", g, scores[:2])
	}
	loss := s.(*strategy).losses[0].(*balanceLoss)
	lambda := 1e-8
	for i, n := range []struct {
		active int64
		up     bool
	}{{7, true}, {6, false}, {5, false}, {12, true}} { // K·T = 6
		s.Update(&moe.Outcome{Chosen: &moe.Counts{Experts: 4, Tokens: 3, Global: []int64{n.active, 0, 0, 0}}})
		if n.up {
			lambda *= 1.2
		} else {
			lambda /= 1.2
		}
		if math.Abs(loss.coeff/lambda-1) > 1e-12 {
			t.Errorf("update %d with %d active: λ = %v, want %v", i, n.active, loss.coeff, lambda)
		}
	}
}

// Progressive K: the schedule, and that its larger K is the plain top-K of that many.
func TestProgressiveK(t *testing.T) {
	for shape, want := range map[string][]int{"step": {6, 6, 6, 6, 3, 3}, "linear": {6, 6, 5, 4, 3, 3}} {
		b := batchOf(rand.New(rand.NewPCG(1, 3)), layer16, 100)
		p := mustBuild(t, layer16, "progressive-k:start=2,until=4,shape="+shape)
		for step, k := range want {
			_, a := routeAll(p, b)
			layer := layer16
			layer.TopK = k
			same := *b
			same.Layer = layer
			_, plain := routeAll(mustBuild(t, layer, "none"), &same)
			if !slices.Equal(a.Mask, plain.Mask) {
				t.Errorf("%s: step %d does not choose the %d best", shape, step, k)
			}
			var n moe.Counts
			n.Count(b, a.Mask)
			p.Update(&moe.Outcome{Step: step, Chosen: &n})
		}
	}
}

// More than K by a bias and within groups is the plain top-K of that many, too.
func TestMoreThanKWithBias(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 4))
	few, many := layerV3, layerV3
	many.TopK = 7
	b := batchOf(r, few, 64)
	bias := make([]float32, few.Experts)
	for e := range bias {
		bias[e] = float32(r.NormFloat64())
	}
	got, want := make([]uint64, few.Experts), make([]uint64, few.Experts)
	(&progressiveK{topK: topK{few}, k: 7}).choose(&b.Tiles[0], b.Tiles[0].Z, bias, moe.NewScratch(few), got)
	topK{many}.choose(&b.Tiles[0], b.Tiles[0].Z, bias, moe.NewScratch(many), want)
	if !slices.Equal(got, want) {
		t.Errorf("chose %x, want %x", got, want)
	}
}

// Softmax then top-K, top-K then softmax with K = 1, and sigmoid over its sum differ in gates and in what they teach (trap 18).
func TestGatesOfOne(t *testing.T) {
	one := moe.Layer{Experts: 8, TopK: 1, Groups: 1, GroupsKept: 1, Score: moe.Softmax}
	b := batchOf(rand.New(rand.NewPCG(4, 2)), one, 100)
	gradient := func(text string) (largest float64) {
		s := mustBuild(t, one, text)
		scores, a := routeAll(s, b)
		prepareLosses(s, b, scores, a)
		n := one.Experts * vec.Lanes
		g := make([]float32, n)
		s.(*strategy).losses[0].addGradient(b, 0, scores[:n], g, moe.NewScratch(one))
		s.(*strategy).score.Backward(g, scores[:n], one.Experts)
		for _, v := range g {
			largest = max(largest, math.Abs(float64(v)))
		}
		return largest
	}
	if g := gradient("noisy-topk"); g > 1e-9 {
		t.Errorf("importance of gates that are always 1 has gradient %v", g)
	}
	if g := gradient("noisy-topk:importance=all"); g < 1e-6 {
		t.Errorf("importance over all experts has gradient %v", g)
	}
	for text, c := range map[string]struct {
		sum  float32
		warn bool
	}{"switch-loss": {0.3, false}, "switch-loss:gate=normalised": {1, true}, "noisy-topk": {1, true}, "noisy-topk:importance=all": {1, false}} {
		traits := mustBuild(t, one, text).Traits()
		if got := traits.Gate.Sum(0.3); got != c.sum {
			t.Errorf("%s: the gate of a score of 0.3 is %v, want %v", text, got, c.sum)
		}
		if warned := strings.Contains(strings.Join(traits.Warnings, " "), "Megatron-LM forbids"); warned != c.warn {
			t.Errorf("%s: warned is %v", text, warned)
		}
	}
}

// A key for each purpose: the second choice of a lane and the noise of a tile do not share draws.
func TestDrawsAreSeparate(t *testing.T) {
	seen := map[uint64]bool{}
	for i := range uint64(gumbelDraws + 8) {
		seen[rng.Mix(12345+i)] = true
	}
	if len(seen) != gumbelDraws+8 || noiseDraws < moe.TileTokens || gumbelDraws <= noiseDraws {
		t.Errorf("draws share keys: %d of %d, noise %d, Gumbel %d", len(seen), gumbelDraws+8, noiseDraws, gumbelDraws)
	}
}

// A token's experts depend on nothing that comes after it, and in a tile on no other token.
func TestNoiseIsCausal(t *testing.T) {
	layer := moe.Layer{Experts: 16, TopK: 2, Groups: 4, GroupsKept: 2, Score: moe.Softmax}
	for _, text := range []string{"noisy-topk", "switch-loss:jitter=0.5", "switch-loss:jitter=0.5,jitter_kind=add", "gshard-top2", "gshard-top2:second=gumbel",
		"skywork-loss", "jitter:size=0.5", "jitter:kind=gumbel", "remoe", "progressive-k"} {
		s := mustBuild(t, layer, text)
		if !s.Traits().Causal {
			t.Errorf("%s does not say that it is causal", text)
		}
		b := batchOf(rand.New(rand.NewPCG(9, 1)), layer, 100)
		for i := range b.Tiles {
			b.Tiles[i].Training = true
		}
		_, all := routeAll(s, b)
		for e := range layer.Experts { // other tokens after the 20th of the second tile
			for l := 20; l < 36; l++ {
				b.Tiles[1].Z[e*vec.Lanes+l] = float32(e+l) / 10
			}
		}
		b.Truncate(90)
		_, some := routeAll(s, b)
		for i, m := range some.Mask {
			if first := ^uint64(0) >> 44; i >= layer.Experts && m&first != all.Mask[i]&first || i < layer.Experts && m != all.Mask[i] {
				t.Fatalf("%s: later tokens change the choice of earlier ones", text)
			}
		}
	}
}
