package sim

import (
	"math"
	"math/bits"
	"slices"

	"evenkeel/internal/vec"
	"evenkeel/metrics"
	"evenkeel/moe"
)

// contestant is one strategy with its router in one replicate.
type contestant struct {
	strategy moe.Strategy
	traits   moe.Traits
	learner  *learner
	experts  *experts // where they learn
	noise    *learner // sets the strength of noise, where the strategy has one that learns
	shared   bool     // its scores are the oracle's
	solvable bool     // the optimum is known
	sized    bool     // the task takes its gates as they are, undivided
	layer    moe.Layer
	real     int   // experts that compute, the first ones of the layer
	shots    []int // Config.Shots

	scores        []float32 // [tile][E][64]; the oracle's own where shared
	logits        []float32 // the same of logits, where the strategy asks for them and its router learns
	noiseLogits   []float32 // the same of the noise's router
	assigned      *moe.Assignment
	chosen, fresh moe.Counts
	wanted        moe.Counts // before drops, where there are any
	device        []int64
	share         float64 // of the choices asked for that the step kept, where loads are against all of them; else 1

	// By tile, so that sums have one order whoever computed them.
	affinity []float64 // Σ s* over the chosen
	task     []float64 // the layer's squared error
	balance  []float64 // the losses of the strategy

	weightGradient []float32 // ∂L/∂W of its losses of weights; nil where it has none
	weightLoss     float64

	start   []float32 // bias before the first step
	probe   probe
	errors  *signs
	run     *Run
	row     StepRow // of the present step
	outcome moe.Outcome
	err     error
}

func newContestant(c *Config, s moe.Strategy, seed uint64, o *oracle, weights []float32) *contestant {
	t := s.Traits()
	x := &contestant{strategy: s, traits: t, layer: c.Layer, real: c.Layer.Experts - t.Idle, shots: c.Shots,
		assigned: moe.NewAssignment(c.Layer, c.places(), t), run: &Run{Seed: seed, Values: map[string]float64{}}}
	x.start = append(x.start, s.Bias()...)
	if c.Router.Mode != Frozen && !t.Oracle {
		x.learner = newLearner(c, seed, weights)
	}
	if o.task != nil {
		x.experts = newExperts(c, o.task, seed)
	}
	x.solvable = c.solvable()
	x.sized = t.Sized || c.Layer.TopK == 1
	x.shared = x.learner == nil && t.Score == c.Layer.Score && !t.Transforms
	x.scores = o.scores
	if !x.shared {
		x.scores = make([]float32, len(o.scores))
	}
	if x.learner != nil && t.Logits {
		x.logits = make([]float32, len(o.scores))
	}
	if x.learner != nil && t.Noise && c.Router.Mode == Learned {
		x.noise, x.noiseLogits = zeroLearner(c), make([]float32, len(o.scores))
	}
	if x.learner != nil && t.Weights {
		x.weightGradient = make([]float32, len(x.learner.theta))
	}
	x.errors = newSigns(x.real)
	tiles := len(x.scores) / (c.Layer.Experts * vec.Lanes)
	x.affinity, x.task, x.balance = make([]float64, tiles), make([]float64, tiles), make([]float64, tiles)
	return x
}

func (x *contestant) tileScores(i int) []float32 { return x.tileOf(x.scores, i) }

// tileOf returns one tile of scores or logits, or nil where there are none.
func (x *contestant) tileOf(all []float32, i int) []float32 {
	if all == nil {
		return nil
	}
	n := x.layer.Experts * vec.Lanes
	return all[i*n : (i+1)*n]
}

// score computes one tile's scores s, unless they are the oracle's. z, if not nil, receives the logits of a router that learns.
func (x *contestant) score(t *moe.Tile, s, z []float32, w *moe.Scratch) {
	switch {
	case x.shared:
	case x.learner != nil:
		if z == nil {
			z = s
		}
		x.learner.logits(z, t, w)
		x.strategy.Score(t, s, z, w)
	default:
		x.strategy.Score(t, s, t.Z, w)
	}
}

// routeTile routes one tile of the batch.
func (x *contestant) routeTile(b *moe.Batch, o *oracle, i int, w *moe.Scratch) {
	s := x.tileScores(i)
	if w.Noise = x.tileOf(x.noiseLogits, i); w.Noise != nil {
		x.noise.logits(w.Noise, &b.Tiles[i], w)
	}
	x.score(&b.Tiles[i], s, x.tileOf(x.logits, i), w)
	x.strategy.Route(&b.Tiles[i], s, w, x.assigned.Tile(i), x.assigned.FreshTile(i))
	if !x.traits.Whole {
		x.affinity[i] = x.tileAffinity(b, o, i, w)
	}
}

// routeWhole does what a strategy does once all tiles of a batch are routed.
func (x *contestant) routeWhole(b *moe.Batch, o *oracle, w *moe.Scratch) {
	if !x.traits.Whole {
		return
	}
	x.err = x.strategy.RouteBatch(b, x.scores, x.assigned)
	for i := range b.Tiles {
		x.affinity[i] = x.tileAffinity(b, o, i, w)
	}
}

// count fills the counts and measures of the step and fixes the prices of the strategy's losses.
func (x *contestant) count(b *moe.Batch, o *oracle, step int) {
	x.chosen.Count(b, x.assigned.Mask)
	if x.traits.Fresh {
		x.fresh.Count(b, x.assigned.Fresh)
	}
	if x.traits.Drops {
		x.wanted.Count(b, x.assigned.Dropped)
		x.wanted.Add(&x.chosen)
	}
	if x.experts != nil {
		x.experts.assign(b, x.assigned)
	}
	x.measure(b, o, step)
	x.outcome = moe.Outcome{Step: step, Batch: b, Scores: x.scores, Logits: x.logits, Noise: x.noiseLogits, Assigned: x.assigned,
		Chosen: &x.chosen, Fresh: &x.fresh, Wanted: &x.chosen}
	if x.traits.Drops {
		x.outcome.Wanted = &x.wanted
	}
	if x.learner != nil && x.traits.Loss {
		x.strategy.PrepareLoss(&x.outcome)
	}
	if x.weightGradient != nil {
		clear(x.weightGradient)
		x.weightLoss = x.strategy.AddWeightGradient(x.learner.theta, x.weightGradient)
	}
}

// learn adds the gradients of the task and of the strategy's losses on one chunk of the batch's tiles.
func (x *contestant) learn(b *moe.Batch, o *oracle, step, chunk int, w *moe.Scratch) {
	weight := float32(1 / (float64(b.Useful) * o.target))
	from, to := chunkOf(chunk, len(b.Tiles))
	for i := from; i < to; i++ {
		s := x.tileScores(i)
		if x.experts != nil {
			x.task[i] = x.experts.error(b, i, chunk, s, x.assigned.Tile(i), x.gate(), weight, w)
		} else {
			x.task[i] = layerError(o, &b.Tiles[i], i, s, x.assigned.Tile(i), x.sized, weight, w)
		}
		if !x.learns(step) {
			continue
		}
		if w.Noise = x.tileOf(x.noiseLogits, i); w.Noise != nil {
			clear(w.NoiseGrad)
		}
		x.balance[i] = x.strategy.Backward(b, i, s, x.tileOf(x.logits, i), w.Grad, w)
		x.learner.accumulate(chunk, &b.Tiles[i], w.Grad, w)
		if x.noise != nil {
			x.noise.accumulate(chunk, &b.Tiles[i], w.NoiseGrad, w)
		}
	}
}

// gate is how experts that learn are weighed. Where K is 1 a normalised gate would be 1 whatever the scores, and teach nothing.
func (x *contestant) gate() moe.Gate {
	g := x.traits.Gate
	g.Normalised = g.Normalised && !x.sized
	return g
}

// sum adds up in order.
func sum(x []float64) (total float64) {
	for _, v := range x {
		total += v
	}
	return total
}

// learns reports whether its router learns in a step.
func (x *contestant) learns(step int) bool {
	return x.learner != nil && (x.traits.Freeze == 0 || step < x.traits.Freeze)
}

// move moves the router and the strategy's state at the end of a step.
func (x *contestant) move(step int) {
	if x.learns(step) {
		x.learner.step(step, x.weightGradient)
		if x.noise != nil {
			x.noise.step(step, nil)
		}
	}
	if x.experts != nil && x.experts.shared != nil {
		x.experts.shared.step(step, nil)
	}
	x.strategy.Update(&x.outcome)
}

// record keeps what the step showed, before anything moves.
func (x *contestant) record(b *moe.Batch, o *oracle, steps int) {
	step := x.row.Step
	if x.learns(step) || x.experts != nil {
		x.row.LayerError = sum(x.task[:len(b.Tiles)]) / (float64(b.Useful) * o.target)
	}
	if x.learns(step) {
		x.row.BalanceLoss = sum(x.balance[:len(b.Tiles)]) + x.weightLoss
	}
	x.run.Steps = append(x.run.Steps, x.row)
	every := (steps + shots - 1) / shots
	_, asked := slices.BinarySearch(x.shots, step)
	if asked || x.traits.Oracle || step%every == 0 || step == steps-1 {
		x.shoot(step)
	}
	if step >= steps-window(steps) {
		x.errors.observe(x.chosen.All[:x.real])
	}
}

// measure fills the step's row with what its choices show.
func (x *contestant) measure(b *moe.Batch, o *oracle, step int) {
	n, row := &x.chosen, &x.row
	nan := math.NaN()
	*row = StepRow{Step: step, MaxVio: metrics.MaxVio(n.All[:x.real]), LoadVariance: metrics.Variance(n.All[:x.real]),
		MaxVioSequence: metrics.MeanMaxVio(n.Sequence, x.layer.Experts, x.real), MaxVioDevice: nan,
		AffinityKept: sum(x.affinity[:len(b.Tiles)]) / o.total, LayerError: nan, BalanceLoss: nan, RegretToOptimum: nan,
		BiasSpread: nan, BiasMean: nan, DropRate: nan}
	if x.experts != nil {
		row.AffinityKept = nan // they have no part in the oracle's affinities
	}
	if x.layer.Groups > 1 && x.traits.Idle == 0 {
		x.device = metrics.GroupLoads(n.All, x.layer.Groups, x.device)
		row.MaxVioDevice = metrics.MaxVio(x.device)
	}
	x.share = 1
	if x.traits.Drops {
		row.DropRate = dropRate(x.assigned, len(b.Tiles))
		if !x.traits.Varies {
			x.share = nominal(n.All, float64(b.Total)*float64(x.layer.TopK))
			row.MaxVio, row.MaxVioDevice = against(row.MaxVio, x.share), against(row.MaxVioDevice, x.share)
			row.LoadVariance *= x.share * x.share
		}
	}
	if bias := x.strategy.Bias(); bias != nil {
		row.BiasSpread, row.BiasMean = spread(bias)
	}
}

// dropRate is the share of a batch's choices that capacity left out.
func dropRate(a *moe.Assignment, tiles int) float64 {
	var kept, dropped int
	for i, m := range a.Mask[:tiles*a.Experts] {
		kept += bits.OnesCount64(m)
		dropped += bits.OnesCount64(a.Dropped[i])
	}
	return float64(dropped) / float64(kept+dropped)
}

// tileAffinity is Σ s* over the chosen of one tile.
func (x *contestant) tileAffinity(b *moe.Batch, o *oracle, i int, w *moe.Scratch) float64 {
	row := &w.Rows[0]
	vec.SumChosen(row, o.tileScores(i), x.assigned.Tile(i))
	return b.Tiles[i].Sum(row)
}

// spread returns max b − min b and the mean of b.
func spread(b []float32) (width, mean float64) {
	low, high := b[0], b[0]
	for _, v := range b {
		low, high = min(low, v), max(high, v)
		mean += float64(v)
	}
	return float64(high) - float64(low), mean / float64(len(b))
}

// shoot records the loads and biases of a step.
func (x *contestant) shoot(step int) {
	shot := Shot{Step: step, Load: make([]float32, x.layer.Experts)}
	var total int64
	for _, v := range x.chosen.All {
		total += v
	}
	if total > 0 {
		for e, v := range x.chosen.All {
			shot.Load[e] = float32(float64(v) * float64(x.real) / float64(total) * x.share)
		}
	}
	shot.Bias = append(shot.Bias, x.strategy.Bias()...)
	x.run.Shots = append(x.run.Shots, shot)
}

// probe measures churn: how many choices of fixed tokens change from one step to the next.
type probe struct {
	scores      []float32
	now, before *moe.Assignment
	seen        bool
	changed     int64
	all         int64
}

const probeTokens = 256

// observe routes the probe batch with the present state and compares with the last time.
func (x *contestant) observe(b *moe.Batch, o *oracle, w *moe.Scratch) error {
	p := &x.probe
	if p.now == nil {
		p.now, p.before = moe.NewAssignment(x.layer, b.Tokens, x.traits), moe.NewAssignment(x.layer, b.Tokens, x.traits)
		p.scores = o.scores
		if !x.shared {
			p.scores = make([]float32, len(b.Tiles)*x.layer.Experts*vec.Lanes)
		}
	}
	for i := range b.Tiles {
		s := x.tileOf(p.scores, i)
		x.score(&b.Tiles[i], s, nil, w)
		x.strategy.Route(&b.Tiles[i], s, w, p.now.Tile(i), p.now.FreshTile(i))
	}
	if x.traits.Whole {
		if err := x.strategy.RouteBatch(b, p.scores, p.now); err != nil {
			return err
		}
	}
	if p.seen {
		for i, m := range p.now.Mask {
			t := &b.Tiles[i/x.layer.Experts]
			p.all += t.Count(m)
			p.changed += t.Count(m &^ p.before.Mask[i])
		}
	}
	p.seen = true
	p.now, p.before = p.before, p.now
	return nil
}

// signs counts how often the load error n̄ − n_e of an expert changes sign from step to step.
type signs struct {
	last       []int8
	seen       bool
	flips, all int64
}

func newSigns(experts int) *signs { return &signs{last: make([]int8, experts)} }

func (s *signs) observe(n []int64) {
	var total int64
	for _, v := range n {
		total += v
	}
	for e, v := range n {
		sign := int8(0)
		if d := total - v*int64(len(n)); d > 0 {
			sign = 1
		} else if d < 0 {
			sign = -1
		}
		if s.seen {
			s.all++
			if sign*s.last[e] < 0 {
				s.flips++
			}
		}
		if sign != 0 || !s.seen {
			s.last[e] = sign
		}
	}
	s.seen = true
}
