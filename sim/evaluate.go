package sim

import (
	"context"
	"math"
	"math/bits"

	"evenkeel/internal/vec"
	"evenkeel/metrics"
	"evenkeel/moe"
)

// tally adds up what one strategy did on the evaluation's tokens.
type tally struct {
	tokens     int     // whose output is used
	load       []int64 // [E]
	useful     []int64 // [E], of tokens whose output is used
	domain     []int64 // [domain][E]
	affinity   float64 // Σ s* over the chosen
	best       float64 // Σ s* over the oracle's choice
	agreed     int64   // choices that the oracle shares
	displaced  int64   // Σ over the chosen of the number of experts with a larger s*
	error, own float64 // Σ squared layer error, of the strategy and of the oracle
	target     float64 // Σ_e ĝ², summed over tokens
	gates      float64 // Σ of gate weights
	scores     float64 // Σ s of its own router over the chosen
	chosen     int64   // choices
	routed     int     // tokens in all
	made       int64   // choices of tokens whose output is used
	unserved   int64   // tokens without any expert
	regret     float64 // on the first batch
}

// evaluate routes fresh tokens with the state as the run left it.
func (r *replicate) evaluate(ctx context.Context) error {
	e, domains := r.c.Layer.Experts, len(r.c.Facts.Domains)
	tallies := make([]tally, len(r.contestants))
	for i := range tallies {
		tallies[i].load, tallies[i].useful, tallies[i].domain = make([]int64, e), make([]int64, e), make([]int64, domains*e)
	}
	r.active = append(r.active[:0], r.contestants...)
	assign := func(i int, _ *moe.Scratch) { r.active[i].experts.assign(r.batch, r.active[i].assigned) }
	add := func(i int, w *moe.Scratch) { r.active[i].tally(&tallies[i], r.batch, r.oracle, w) }
	total := r.stream.Evaluation()
	for index, at := 0, 0; at < total; index++ {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		r.load(r.batch, r.oracle, moe.Moment{Step: r.c.Steps - 1, Purpose: moe.Evaluate, Index: index})
		at += r.batch.Total
		var best float64
		if index == 0 && r.c.solvable() {
			var err error
			if best, err = r.solver.Solve(r.oracle.scores, r.batch.Tokens, e, r.c.Layer.TopK, r.optimum); err != nil {
				return err
			}
		}
		if err := r.routeAll(); err != nil {
			return err
		}
		if r.c.Experts.Learn {
			r.each(len(r.active), assign)
			r.each(len(r.active)*e, r.forward)
		}
		r.each(len(r.active), add)
		for i := range tallies {
			if index == 0 {
				tallies[i].regret = (best - tallies[i].affinity) / best
			}
		}
	}
	for i, x := range r.contestants {
		x.conclude(&tallies[i], domains)
	}
	return nil
}

// tally adds a routed batch.
func (x *contestant) tally(y *tally, b *moe.Batch, o *oracle, w *moe.Scratch) {
	y.tokens += b.Useful
	y.routed += b.Total
	y.best += o.total
	y.own += o.own
	y.target += float64(o.target * float64(b.Useful))
	for i := range b.Tiles {
		mask, s := x.assigned.Tile(i), x.tileScores(i)
		y.affinity += x.affinity[i]
		if x.experts != nil {
			y.error += x.experts.error(b, i, 0, s, mask, x.gate(), 0, w)
		} else {
			y.error += layerError(o, &b.Tiles[i], i, s, mask, x.sized, 0, w)
		}
		y.displaced += displaced(&b.Tiles[i], o.tileScores(i), mask, o.tileMask(i), x.layer.TopK)
		var served uint64
		for e, m := range o.tileMask(i) {
			t := &b.Tiles[i]
			y.agreed += t.Count(m & mask[e] &^ t.Waste)
			u := t.Count(mask[e] &^ t.Waste)
			y.useful[e] += u
			y.made += u
			n := t.Count(mask[e])
			y.load[e] += n
			y.chosen += n
			served |= mask[e]
		}
		y.unserved += b.Tiles[i].Count(b.Tiles[i].Live() &^ served)
		y.addDomains(&b.Tiles[i], mask)
		sum := &w.Rows[0]
		vec.SumChosen(sum, s, mask)
		gates := &w.Rows[1]
		*gates = vec.Row{}
		for m := served; m != 0; m &= m - 1 {
			t := bits.TrailingZeros64(m)
			gates[t] = x.traits.Gate.Sum(sum[t])
		}
		y.gates += b.Tiles[i].Sum(gates)
		y.scores += b.Tiles[i].Sum(sum)
	}
}

// addDomains counts a tile's choices by domain.
func (y *tally) addDomains(t *moe.Tile, mask []uint64) {
	if len(y.domain) == 0 {
		return
	}
	for left := t.Live(); left != 0; {
		d := t.Domain[bits.TrailingZeros64(left)]
		var lanes uint64
		for m := left; m != 0; m &= m - 1 {
			if l := bits.TrailingZeros64(m); t.Domain[l] == d {
				lanes |= 1 << l
			}
		}
		left &^= lanes
		if d < 0 {
			continue
		}
		n := y.domain[int(d)*len(mask) : (int(d)+1)*len(mask)]
		for e, m := range mask {
			n[e] += t.Count(m & lanes)
		}
	}
}

// displaced adds up, over the chosen experts of a tile, how many experts the oracle ranks above them by its scores s, ties to the
// lower expert. Tokens that choose as the oracle does, best, have 0 + 1 + … + K−1.
func displaced(tile *moe.Tile, s []float32, mask, best []uint64, k int) (sum int64) {
	var differ uint64
	for e, m := range mask {
		differ |= m ^ best[e]
	}
	useful := tile.Live() &^ tile.Waste
	differ &= useful
	sum = tile.Count(useful&^differ) * int64(k*(k-1)/2)
	for e, m := range mask {
		for m &= differ; m != 0; m &= m - 1 {
			t := bits.TrailingZeros64(m)
			own, above := s[e*vec.Lanes+t], int64(0)
			for i := t; i < e*vec.Lanes; i += vec.Lanes {
				above += 1 - negative(s[i]-own)
			}
			for i := e*vec.Lanes + t; i < len(s); i += vec.Lanes {
				above += negative(own - s[i])
			}
			if tile.Weight != nil {
				above *= tile.Weight[t]
			}
			sum += above
		}
	}
	return sum
}

// negative is 1 for x < 0 and 0 for x ≥ +0, without a branch on chance.
func negative(x float32) int64 { return int64(math.Float32bits(x) >> 31) }

// conclude turns a tally into the metrics of the seed.
func (x *contestant) conclude(y *tally, domains int) {
	v, k, tokens := x.run.Values, float64(x.layer.TopK), float64(y.tokens)
	share := 1.0
	if x.traits.Drops && !x.traits.Varies {
		share = nominal(y.load, float64(y.routed)*k)
	}
	l := metrics.Measure(y.load[:x.real])
	v["maxvio_global"], v["load_variance"], v["load_cv"] = against(l.MaxVio, share), l.Variance*share*share, l.CV
	if y.routed > y.tokens {
		v["maxvio_useful"] = metrics.MaxVio(y.useful[:x.real])
	}
	v["load_entropy"], v["load_gini"], v["load_jain"], v["load_min"] = l.Entropy, l.Gini, l.Jain, l.Min*share
	v["experts_dead"], v["experts_starved"] = float64(l.Dead), float64(l.Starved)
	if x.layer.Groups > 1 && x.traits.Idle == 0 {
		v["maxvio_device"] = metrics.MaxVio(metrics.GroupLoads(y.load, x.layer.Groups, nil))
		if x.traits.Drops {
			v["maxvio_device"] = against(v["maxvio_device"], share)
		}
	}
	if x.experts != nil {
		v["task_loss"] = y.error / y.target
	} else {
		v["affinity_total"] = y.affinity / tokens
		v["affinity_kept"] = y.affinity / y.best
		v["choice_agreement"] = float64(y.agreed) / (tokens * k)
		v["output_error"] = (y.error - y.own) / y.target
		if x.solvable {
			v["regret_to_optimum"] = y.regret
		}
	}
	if x.traits.Drops || x.traits.Varies {
		v["experts_per_token"], v["tokens_unserved"] = float64(y.chosen)/float64(y.routed), float64(y.unserved)/float64(y.routed)
	} else if x.experts == nil {
		v["rank_displacement"] = (float64(y.displaced)/tokens - float64(k*(k-1)/2)) / k
	}
	v["gate_sum"] = y.gates / tokens
	v["score_chosen"] = y.scores / float64(y.made)
	if domains > 0 {
		v["domain_information"] = metrics.DomainInformation(y.domain, domains)
		for d := range domains {
			x.run.Domains = append(x.run.Domains, relative(y.domain[d*x.layer.Experts:(d+1)*x.layer.Experts], x.real))
		}
	}
}

// nominal is the share of the choices asked for that counts hold. Where some are dropped, relative loads are against TK/E all
// the same, so that a capacity factor bounds them.
func nominal(n []int64, asked float64) float64 {
	var kept int64
	for _, v := range n {
		kept += v
	}
	return float64(kept) / asked
}

// against turns a MaxVio against what is kept into one against what was asked for, of which so large a share is kept.
func against(vio, share float64) float64 { return float64((1+vio)*share) - 1 }

// relative turns counts into loads relative to their mean over the real experts; without any count they are NaN.
func relative(n []int64, real int) []float64 {
	var total int64
	for _, v := range n {
		total += v
	}
	r := make([]float64, len(n))
	for i, v := range n {
		r[i] = math.NaN()
		if total > 0 {
			r[i] = float64(v) * float64(real) / float64(total)
		}
	}
	return r
}
