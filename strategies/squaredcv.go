package strategies

import (
	"math"
	"math/bits"

	"evenkeel/internal/vec"
	"evenkeel/moe"
)

// Losses of noisy top-K gating (Shazeer et al. 2017, arXiv 1701.06538, section 4 and appendix A) are squared coefficients of
// variation over the experts of a sum I_e over the tokens of a unit, mean over units:
//
//	L = α·mean_u CV²(I^u),   CV² = v/m²,   m = mean_e I_e,   v = Σ_e (I_e − m)²/E
//	∂CV²/∂I_e = 2/(E·m²)·(I_e − m·(1 + CV²))
//
// FastMoE and Tutel divide by E−1 in v, which multiplies both by E/(E−1).
type squaredCV struct {
	units
	coeff  float64
	sample bool // E−1

	experts int
	sums    []float64 // I [unit][E], then α/|U|·∂CV²/∂I_e
	value   float64
}

// begin clears the sums of a batch's units.
func (l *squaredCV) begin(b *moe.Batch) {
	l.split(b)
	l.experts = b.Layer.Experts
	n := len(l.spans) * l.experts
	if cap(l.sums) < n {
		l.sums = make([]float64, n)
	}
	l.sums = l.sums[:n]
	clear(l.sums)
}

func (l *squaredCV) of(unit int) []float64 { return l.sums[unit*l.experts : (unit+1)*l.experts] }

// finish turns the sums into their prices, and fixes L.
func (l *squaredCV) finish() {
	n := float64(l.experts)
	share := l.coeff / float64(len(l.spans))
	if l.sample {
		share *= n / (n - 1)
	}
	l.value = 0
	for unit := range l.spans {
		sums := l.of(unit)
		var mean, variance float64
		for _, v := range sums {
			mean += v
		}
		if mean /= n; mean == 0 {
			continue
		}
		for _, v := range sums {
			variance += float64((v - mean) * (v - mean))
		}
		cv2 := variance / (n * float64(mean*mean))
		l.value += float64(share * cv2)
		for e, v := range sums {
			sums[e] = share * 2 / (n * float64(mean*mean)) * (v - float64(mean*(1+cv2)))
		}
	}
}

// part is the tile's part of L: all of it belongs to the first.
func (l *squaredCV) part(tile int) float64 {
	if tile > 0 {
		return 0
	}
	return l.value
}

// importanceLoss is the squared CV of importance, I_e = Σ_t g_te with the gates g normalised over the chosen experts, as
// a softmax over them is, or over all experts (Tutel). With v_e = ∂L/∂I_e, for e among the experts that g runs over,
//
//	∂L/∂s_te = (v_e − Σ_i v_i·g_ti)/Σ_i s_ti.
type importanceLoss struct {
	squaredCV
	all bool

	assigned *moe.Assignment
	every    []uint64
	inverse  vec.Row // of the tile that prepare is at
}

// over returns the masks of the experts over which a tile's gates run.
func (l *importanceLoss) over(tile int) []uint64 {
	if l.all {
		return l.every
	}
	return l.assigned.Tile(tile)
}

func (l *importanceLoss) prepare(o *moe.Outcome) {
	l.begin(o.Batch)
	l.assigned = o.Assigned
	if l.every == nil {
		l.every = make([]uint64, l.experts)
		for e := range l.every {
			l.every[e] = ^uint64(0)
		}
	}
	size := l.experts * vec.Lanes
	for i := range o.Batch.Tiles {
		s, mask := o.Scores[i*size:(i+1)*size], l.over(i)
		vec.SumChosen(&l.inverse, s, mask)
		vec.Invert(&l.inverse)
		o.Batch.Segments(i, l.spans, func(unit, from, to int) {
			sums, lanes := l.of(unit), moe.LaneMask(from, to)
			for e, m := range mask {
				for m &= lanes; m != 0; m &= m - 1 {
					t := bits.TrailingZeros64(m)
					sums[e] += float64(float32(row(s, e)[t] * l.inverse[t]))
				}
			}
		})
	}
	l.finish()
}

func (l *importanceLoss) addGradient(b *moe.Batch, tile int, s, g []float32, w *moe.Scratch) float64 {
	mask, inverse, mean := l.over(tile), &w.Rows[0], &w.Rows[1]
	vec.SumChosen(inverse, s, mask)
	vec.Invert(inverse)
	*mean = vec.Row{}
	b.Segments(tile, l.spans, func(unit, from, to int) {
		price, lanes := l.of(unit), moe.LaneMask(from, to)
		for e, m := range mask {
			v, s := float32(price[e]), row(s, e)
			for m &= lanes; m != 0; m &= m - 1 {
				t := bits.TrailingZeros64(m)
				mean[t] += float32(v * float32(s[t]*inverse[t]))
			}
		}
		for e, m := range mask {
			v, g := float32(price[e]), row(g, e)
			for m &= lanes; m != 0; m &= m - 1 {
				t := bits.TrailingZeros64(m)
				g[t] += float32((v - mean[t]) * inverse[t])
			}
		}
	})
	return l.part(tile)
}

// loadLoss is the squared CV of the smooth load, Load_e = Σ_t P_te, where P_te is the chance that expert e would be among
// the K best of token t if its noise alone were drawn again:
//
//	P_te = Φ(u_te),   u_te = (c_te − thr_te)/σ_te,
//
// c being logits without noise and thr the K-th largest logit with noise c_tj + σ_tj·ε_tj, of the other experts: for the chosen
// ones that is the (K+1)-th of all. With v_e = ∂L/∂Load_e and d = v_e·φ(u_te)/σ_te the gradient is d at c_te and −d at the
// threshold's c_tj, and of a σ that learns −d·u_te at σ_te and −d·ε_tj at σ_tj. Thresholds are taken over all experts, whatever
// the group limit.
type loadLoss struct {
	squaredCV
	scoreless
	noise gatingNoise

	raw        []float32 // r of the learned noise, [tile][E][64]; nil where it does not learn
	sigma      []float32 // of the tile that prepare is at
	assigned   *moe.Assignment
	last, next []cutoff  // by token: the least of the chosen and the best of the others
	disturbed  []float32 // logits with noise of the tile that prepare is at
	density    []float32 // φ(u) [tile][E][64], 0 where an expert has no threshold
}

// cutoff is a threshold: a logit with noise and its expert, −1 where there is none.
type cutoff struct {
	logit  float32
	expert int32
}

func (l *loadLoss) prepare(o *moe.Outcome) {
	b := o.Batch
	l.begin(b)
	l.assigned, l.raw = o.Assigned, o.Noise
	size, tokens := l.experts*vec.Lanes, len(b.Tiles)*vec.Lanes
	if cap(l.last) < tokens {
		l.last, l.next, l.disturbed, l.sigma = make([]cutoff, tokens), make([]cutoff, tokens), make([]float32, size), make([]float32, size)
	}
	if cap(l.density) < tokens*l.experts {
		l.density = make([]float32, tokens*l.experts)
	}
	l.last, l.next, l.density = l.last[:tokens], l.next[:tokens], l.density[:tokens*l.experts]
	for i := range b.Tiles {
		z, mask := o.Logits[i*size:(i+1)*size], o.Assigned.Tile(i)
		l.noise.sigmas(l.sigma, l.tileOf(i))
		l.findThresholds(i, &b.Tiles[i], z, mask)
		b.Segments(i, l.spans, func(unit, from, to int) {
			sums := l.of(unit)
			for e, m := range mask {
				c, sigma, density := row(z, e), row(l.sigma, e), row(l.density[i*size:], e)
				for t := from; t < to; t++ {
					p, d := normal(l.distance(c[t], sigma[t], l.cutoffOf(m>>t&1 != 0, i*vec.Lanes+t)))
					sums[e] += p
					density[t] = float32(d)
				}
			}
		})
	}
	l.finish()
}

// tileOf returns r of a tile, or nil.
func (l *loadLoss) tileOf(tile int) []float32 {
	if l.raw == nil {
		return nil
	}
	return l.raw[tile*l.experts*vec.Lanes : (tile+1)*l.experts*vec.Lanes]
}

// findThresholds finds both thresholds of every token of a tile.
func (l *loadLoss) findThresholds(tile int, t *moe.Tile, z []float32, mask []uint64) {
	clear(l.disturbed)
	if t.Training {
		l.noise.draw(t, l.disturbed, l.sigma)
	}
	last, next := l.last[tile*vec.Lanes:(tile+1)*vec.Lanes], l.next[tile*vec.Lanes:(tile+1)*vec.Lanes]
	for i := range last {
		last[i].expert, next[i].expert = -1, -1
	}
	for e, m := range mask {
		extra := row(l.disturbed, e)
		for i, v := range row(z, e)[:t.Tokens] {
			v += extra[i]
			if m>>i&1 != 0 {
				if last[i].expert < 0 || v < last[i].logit {
					last[i] = cutoff{v, int32(e)}
				}
			} else if next[i].expert < 0 || v > next[i].logit {
				next[i] = cutoff{v, int32(e)}
			}
		}
	}
}

// distance returns u of an expert, or +∞ where it has no threshold.
func (l *loadLoss) distance(c, sigma float32, at *cutoff) float64 {
	if at.expert < 0 {
		return math.Inf(1)
	}
	return float64(c-at.logit) / float64(sigma)
}

// cutoffOf is the threshold of a token's experts that are chosen, or of those that are not.
func (l *loadLoss) cutoffOf(chosen bool, token int) *cutoff {
	if chosen {
		return &l.next[token]
	}
	return &l.last[token]
}

func (l *loadLoss) addLogitGradient(b *moe.Batch, tile int, z, g []float32, w *moe.Scratch) float64 {
	mask, sigmas, slopes := l.assigned.Tile(tile), w.Adjusted, w.Room
	raw := l.tileOf(tile)
	l.noise.sigmas(sigmas, raw)
	if raw != nil {
		l.noise.slopes(slopes, raw)
	}
	b.Segments(tile, l.spans, func(unit, from, to int) {
		price := l.of(unit)
		for e, m := range mask {
			c, own, sigma, density := row(z, e), row(g, e), row(sigmas, e), row(l.density[tile*len(mask)*vec.Lanes:], e)
			for t := from; t < to; t++ {
				if density[t] == 0 {
					continue
				}
				at := l.cutoffOf(m>>t&1 != 0, tile*vec.Lanes+t)
				j := int(at.expert)
				d := float32(price[e]*float64(density[t])) / sigma[t]
				own[t] += d
				row(g, j)[t] -= d
				if raw != nil {
					u, epsilon := (c[t]-at.logit)/sigma[t], (at.logit-row(z, j)[t])/row(sigmas, j)[t]
					row(w.NoiseGrad, e)[t] -= float32(float32(d*u) * row(slopes, e)[t])
					row(w.NoiseGrad, j)[t] -= float32(float32(d*epsilon) * row(slopes, j)[t])
				}
			}
		}
	})
	return l.part(tile)
}

// normal returns Φ(x) with an error below 1e-14, by a ratio of polynomials (Hart 1968, as West 2005 gives it), and φ(x). Beyond
// 7 from 0 they are 0 or 1, and 0.
func normal(x float64) (cumulated, density float64) {
	a := math.Abs(x)
	var tail float64
	if a < 7 {
		p, q := 3.52624965998911e-2, 8.83883476483184e-2
		for i := range hartP {
			p = float64(p*a) + hartP[i]
			q = float64(q*a) + hartQ[i]
		}
		power := vec.Exp64(-a * a / 2)
		tail, density = power*p/(float64(q*a)+hartEnd), power/math.Sqrt(2*math.Pi)
	}
	if x > 0 {
		return 1 - tail, density
	}
	return tail, density
}

var (
	hartP = [...]float64{.700383064443688, 6.37396220353165, 33.912866078383, 112.079291497871, 221.213596169931, 220.206867912376}
	hartQ = [...]float64{1.75566716318264, 16.064177579207, 86.7807322029461, 296.564248779674, 637.333633378831, 793.826512519948}
)

const hartEnd = 440.413735824752
