package sim

import (
	"math"
	"math/bits"

	"evenkeel/internal/vec"
	"evenkeel/metrics"
	"evenkeel/moe"
)

// contestant is one strategy with its router in one replicate.
type contestant struct {
	strategy moe.Strategy
	batch    moe.BatchStrategy // not nil if it must see whole batches
	traits   moe.Traits
	learner  *learner
	shared   bool // its scores are the oracle's
	layer    moe.Layer

	scores        []float32 // [tile][E][64]; the oracle's own where shared
	assigned      *moe.Assignment
	chosen, fresh moe.Counts
	device        []int64

	// By tile, so that sums have one order whoever computed them.
	affinity []float64 // Σ s* over the chosen
	task     []float64 // the layer's squared error
	balance  []float64 // the losses of the strategy

	probe  probe
	errors *signs
	run    *Run
	row    StepRow // of the present step
	err    error
}

func newContestant(c *Config, s moe.Strategy, seed uint64, o *oracle, weights []float32) *contestant {
	t := s.Traits()
	x := &contestant{strategy: s, traits: t, layer: c.Layer,
		assigned: moe.NewAssignment(c.Layer, c.Tokens, t.Fresh), run: &Run{Seed: seed, Values: map[string]float64{}}}
	x.batch, _ = s.(moe.BatchStrategy)
	if c.Router.Mode != Frozen && !t.Oracle {
		x.learner = newLearner(c, seed, weights)
	}
	x.shared = x.learner == nil && t.Score == c.Layer.Score
	x.scores = o.scores
	if !x.shared {
		x.scores = make([]float32, len(o.scores))
	}
	x.errors = newSigns(c.Layer.Experts)
	tiles := len(x.scores) / (c.Layer.Experts * vec.Lanes)
	x.affinity, x.task, x.balance = make([]float64, tiles), make([]float64, tiles), make([]float64, tiles)
	return x
}

func (x *contestant) tileScores(i int) []float32 {
	n := x.layer.Experts * vec.Lanes
	return x.scores[i*n : (i+1)*n]
}

// score computes one tile's scores, unless they are the oracle's.
func (x *contestant) score(t *moe.Tile, s []float32, w *moe.Scratch) {
	switch {
	case x.shared:
	case x.learner != nil:
		x.learner.logits(s, t, w)
		x.strategy.Score(s, s)
	default:
		x.strategy.Score(s, t.Z)
	}
}

// routeTile routes one tile of the batch, or with the first one the whole batch where a strategy must see it.
func (x *contestant) routeTile(b *moe.Batch, o *oracle, i int, w *moe.Scratch) {
	if x.batch == nil {
		s := x.tileScores(i)
		x.score(&b.Tiles[i], s, w)
		x.strategy.Route(&b.Tiles[i], s, w, x.assigned.Tile(i), x.assigned.FreshTile(i))
		x.affinity[i] = x.tileAffinity(o, i, w)
	} else if i == 0 {
		x.err = x.batch.RouteBatch(b, x.scores, x.assigned.Mask)
		for i := range b.Tiles {
			x.affinity[i] = x.tileAffinity(o, i, w)
		}
	}
}

// count fills the counts and measures of the step and fixes the prices of the strategy's losses.
func (x *contestant) count(b *moe.Batch, o *oracle, step int) {
	x.chosen.Count(b, x.assigned.Mask)
	if x.traits.Fresh {
		x.fresh.Count(b, x.assigned.Fresh)
	}
	x.measure(b, o, step)
	if x.learner != nil && x.traits.Loss {
		x.strategy.PrepareLoss(b, &x.chosen, &x.fresh)
	}
}

// learn adds the gradients of the task and of the strategy's losses on one chunk of the batch's tiles.
func (x *contestant) learn(b *moe.Batch, o *oracle, chunk int, w *moe.Scratch) {
	weight := float32(1 / (float64(b.Tokens) * o.target))
	from, to := chunkOf(chunk, len(b.Tiles))
	for i := from; i < to; i++ {
		s := x.tileScores(i)
		x.task[i] = layerError(o, i, s, x.assigned.Tile(i), x.layer.TopK, weight, w)
		x.balance[i] = 0
		if x.traits.Loss {
			x.balance[i] = x.strategy.AddLossGradient(b, i, s, w.Grad, w)
		}
		x.strategy.ScoreBackward(w.Grad, s)
		x.learner.accumulate(chunk, &b.Tiles[i], w)
	}
}

// sum adds up in order.
func sum(x []float64) (total float64) {
	for _, v := range x {
		total += v
	}
	return total
}

// move moves the router and the strategy's state at the end of a step.
func (x *contestant) move(step int) {
	if x.learner != nil {
		x.learner.step(step)
	}
	x.strategy.Update(step, &x.chosen)
}

// record keeps what the step showed, before anything moves.
func (x *contestant) record(b *moe.Batch, o *oracle, steps int) {
	step := x.row.Step
	if x.learner != nil {
		x.row.LayerError = sum(x.task[:len(b.Tiles)]) / (float64(b.Tokens) * o.target)
		x.row.BalanceLoss = sum(x.balance[:len(b.Tiles)])
	}
	x.run.Steps = append(x.run.Steps, x.row)
	every := (steps + shots - 1) / shots
	if x.traits.Oracle || step%every == 0 || step == steps-1 {
		x.shoot(step)
	}
	if step >= steps-window(steps) {
		x.errors.observe(x.chosen.Global)
	}
}

// measure fills the step's row with what its choices show.
func (x *contestant) measure(b *moe.Batch, o *oracle, step int) {
	n, row := &x.chosen, &x.row
	nan := math.NaN()
	*row = StepRow{Step: step, MaxVio: metrics.MaxVio(n.Global), LoadVariance: metrics.Variance(n.Global),
		MaxVioSequence: metrics.MeanMaxVio(n.Sequence, x.layer.Experts), MaxVioDevice: nan,
		AffinityKept: sum(x.affinity[:len(b.Tiles)]) / o.total, LayerError: nan, BalanceLoss: nan, RegretToOptimum: nan,
		BiasSpread: nan, BiasMean: nan}
	if x.layer.Groups > 1 {
		x.device = metrics.GroupLoads(n.Global, x.layer.Groups, x.device)
		row.MaxVioDevice = metrics.MaxVio(x.device)
	}
	if bias := x.strategy.Bias(); bias != nil {
		row.BiasSpread, row.BiasMean = spread(bias)
	}
}

// tileAffinity is Σ s* over the chosen of one tile.
func (x *contestant) tileAffinity(o *oracle, i int, w *moe.Scratch) float64 {
	row := &w.Rows[0]
	vec.SumChosen(row, o.tileScores(i), x.assigned.Tile(i))
	return vec.Total(row)
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
	for _, v := range x.chosen.Global {
		total += v
	}
	for e, v := range x.chosen.Global {
		shot.Load[e] = float32(float64(v) * float64(x.layer.Experts) / float64(total))
	}
	shot.Bias = append(shot.Bias, x.strategy.Bias()...)
	x.run.Shots = append(x.run.Shots, shot)
}

// probe measures churn: how many choices of fixed tokens change from one step to the next.
type probe struct {
	scores       []float32
	mask, before []uint64
	seen         bool
	changed      int64
	all          int64
}

const probeTokens = 256

// observe routes the probe batch with the present state and compares with the last time.
func (x *contestant) observe(b *moe.Batch, o *oracle, w *moe.Scratch) {
	p, e := &x.probe, x.layer.Experts
	if p.mask == nil {
		p.mask, p.before = make([]uint64, len(b.Tiles)*e), make([]uint64, len(b.Tiles)*e)
		if !x.shared {
			p.scores = make([]float32, e*vec.Lanes)
		}
	}
	for i := range b.Tiles {
		t := &b.Tiles[i]
		s := p.scores
		if x.shared {
			s = o.tileScores(i)
		}
		x.score(t, s, w)
		x.strategy.Route(t, s, w, p.mask[i*e:(i+1)*e], nil)
	}
	if p.seen {
		for i, m := range p.mask {
			p.all += int64(bits.OnesCount64(m))
			p.changed += int64(bits.OnesCount64(m &^ p.before[i]))
		}
	}
	p.seen = true
	p.mask, p.before = p.before, p.mask
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
