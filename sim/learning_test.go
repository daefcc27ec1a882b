package sim

import (
	"math"
	"math/rand/v2"
	"testing"

	"evenkeel/internal/vec"
	"evenkeel/moe"
)

// oneTile is a tile of random tokens with its oracle, and a random choice of K experts for each token.
func oneTile(r *rand.Rand, layer moe.Layer, tokens int) (*moe.Batch, *oracle, []uint64) {
	b := moe.NewBatch(layer, tokens)
	b.Resize(tokens)
	t := &b.Tiles[0]
	for i := range t.X {
		if i%vec.Lanes < tokens {
			t.X[i] = float32(r.NormFloat64())
		}
	}
	for i := range t.Z {
		t.Z[i] = float32(r.NormFloat64())
	}
	o := newOracle(layer, tokens)
	o.tile(0, t, moe.NewScratch(layer))
	o.finish(b)
	mask := make([]uint64, layer.Experts)
	for tok := range tokens {
		for _, e := range r.Perm(layer.Experts)[:layer.TopK] {
			mask[e] |= 1 << tok
		}
	}
	return b, o, mask
}

// taskError is the layer's squared error summed over a tile, in float64 and by its definition: gates of the chosen against
// the ideal gates of all.
func taskError(s func(tok, e int) float64, b *moe.Batch, o *oracle, mask []uint64, sized bool) (sum float64) {
	n := b.Layer.Experts
	ideal := func(tok, e int) float64 { return float64(o.scores[e*vec.Lanes+tok]) }
	for tok := range b.Tokens {
		var chosen, best float64
		for e := range n {
			if mask[e]>>tok&1 != 0 {
				chosen += s(tok, e)
			}
			if o.mask[e]>>tok&1 != 0 {
				best += ideal(tok, e)
			}
		}
		if sized {
			chosen = best
		}
		for e := range n {
			gate := 0.0
			if mask[e]>>tok&1 != 0 {
				gate = s(tok, e) / chosen
			}
			sum += (gate - ideal(tok, e)/best) * (gate - ideal(tok, e)/best)
		}
	}
	return sum
}

// ∂L/∂W of the task, through gates, scores and weights, against central differences of its definition.
func TestWeightGradientMatchesCentralDifferences(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, score := range []moe.Score{moe.Sigmoid, moe.Softmax, moe.SqrtSoftplus} {
		for _, c := range []struct {
			k     int
			sized bool
		}{{1, true}, {3, false}, {3, true}} {
			k := c.k
			layer := moe.Layer{Experts: 9, TopK: k, Width: 5, Groups: 1, GroupsKept: 1, Score: score}
			const tokens, weight = 50, 0.25
			b, o, mask := oneTile(r, layer, tokens)
			l := newLearner(&Config{Layer: layer, Steps: 1, Router: RouterConfig{Mode: Learned}}, 1, nil)
			for i := range l.theta {
				l.theta[i] = float32(r.NormFloat64()) / 2
			}
			l.pack()
			scratch := moe.NewScratch(layer)
			s, g := make([]float32, 9*vec.Lanes), scratch.Grad
			l.logits(s, &b.Tiles[0], scratch)
			score.Apply(s, s, 9)
			got := layerError(o, &b.Tiles[0], 0, s, mask, c.sized, weight, scratch)
			score.Backward(g, s, 9)
			l.accumulate(0, &b.Tiles[0], scratch.Grad, scratch)

			w := make([]float64, len(l.theta))
			for i, v := range l.theta {
				w[i] = float64(v)
			}
			loss := func() float64 {
				return taskError(func(tok, e int) float64 {
					z := make([]float64, 9)
					var norm float64
					for j := range z {
						for c := range layer.Width {
							z[j] += w[j*layer.Width+c] * float64(b.Tiles[0].X[c*vec.Lanes+tok])
						}
						norm += math.Exp(z[j])
					}
					switch score {
					case moe.Softmax:
						return math.Exp(z[e]) / norm
					case moe.SqrtSoftplus:
						return math.Sqrt(math.Log1p(math.Exp(z[e])))
					}
					return 1 / (1 + math.Exp(-z[e]))
				}, b, o, mask, c.sized)
			}
			if want := loss(); math.Abs(got-want) > 1e-5*want {
				t.Errorf("%v K=%d sized=%v: task is %v, want %v", score, k, c.sized, got, want)
			}
			for i := range w {
				const h = 1e-5
				old := w[i]
				w[i] = old + h
				up := loss()
				w[i] = old - h
				want := weight * (up - loss()) / (2 * h)
				w[i] = old
				if v := float64(l.grad[0].Row(i / layer.Width)[i%layer.Width]); math.Abs(v-want) > 1e-5*(1+math.Abs(want)) {
					t.Errorf("%v K=%d sized=%v: gradient of weight %d is %v, want %v", score, k, c.sized, i, v, want)
				}
			}
		}
	}
}

// The oracle's own choice by the oracle's own gates leaves what oracle.own says, and nothing to learn within the chosen.
func TestTaskOfTheOracle(t *testing.T) {
	layer := moe.Layer{Experts: 12, TopK: 4, Width: 3, Groups: 1, GroupsKept: 1}
	b, o, _ := oneTile(rand.New(rand.NewPCG(3, 4)), layer, 64)
	scratch := moe.NewScratch(layer)
	if got := layerError(o, &b.Tiles[0], 0, o.scores, o.mask, false, 1, scratch); math.Abs(got-o.own) > 1e-5*o.own {
		t.Errorf("the oracle's choice leaves %v, want %v", got, o.own)
	}
	for i, v := range scratch.Grad {
		if math.Abs(float64(v)) > 1e-6 {
			t.Fatalf("gradient %d is %v at the oracle's own gates", i, v)
		}
	}
	want := taskError(func(tok, e int) float64 { return float64(o.scores[e*vec.Lanes+tok]) }, b, o, o.mask, false)
	if math.Abs(o.own-want) > 1e-5*want {
		t.Errorf("oracle.own is %v, want %v", o.own, want)
	}
}

// Adam by hand: a first step of size rate whatever the gradient's scale, then m = 0.9·0.1g + 0.1g', v likewise, both
// corrected; the rate falls over the last 30 % of the steps.
func TestAdam(t *testing.T) {
	layer := moe.Layer{Experts: 2, TopK: 1, Groups: 1, GroupsKept: 1}
	l := newLearner(&Config{Layer: layer, Steps: 10, Router: RouterConfig{Mode: Offsets, Rate: 0.01}}, 1, nil)
	step := func(n int, g0, g1 float32) {
		l.grad[0].Row(0)[0], l.grad[5].Row(1)[0] = g0, g1
		l.step(n, nil)
	}
	check := func(when string, want ...float64) {
		t.Helper()
		for i, v := range want {
			if math.Abs(float64(l.theta[i])-v) > 1e-8 {
				t.Errorf("%s: θ_%d = %v, want %v", when, i, l.theta[i], v)
			}
		}
	}
	step(0, 3, -1e-3)
	check("first step", -0.01, 0.01*1e-3/(1e-3+1e-8))
	step(1, -1, 0)
	m0, v0 := (0.9*0.1*3-0.1)/(1-0.81), (0.95*0.05*9+0.05)/(1-0.95*0.95)
	m1, v1 := (-0.9*0.1*1e-3)/(1-0.81), (0.95*0.05*1e-6)/(1-0.95*0.95)
	want := []float64{-0.01 - 0.01*m0/(math.Sqrt(v0)+1e-8), 0.01*1e-3/(1e-3+1e-8) - 0.01*m1/(math.Sqrt(v1)+1e-8)}
	check("second step", want...)

	before := l.theta[0]
	l.adam.m[0], l.adam.v[0], l.pace.decay1, l.pace.decay2 = 0, 0, 1, 1
	step(9, 1, 0)
	if d := float64(before - l.theta[0]); math.Abs(d-0.01/3) > 1e-6 {
		t.Errorf("the last of ten steps moves by %v, want a third of the rate", d)
	}
}
