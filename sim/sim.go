// Package sim runs comparisons: the step loop, learning routers, replicates and their results.
//
// All strategies of a comparison run in lockstep on the same tokens. The stream, the oracle's scores and its choice are
// computed once and shared, and so are the scores of strategies whose router is frozen. Within a step every strategy
// routes with the state that the step before left, then its counts are taken, then routers and biases move. Streams and
// strategies are known here through the interfaces of package moe alone.
package sim

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync/atomic"
	"time"

	"evenkeel/internal/rng"
	"evenkeel/internal/transport"
	"evenkeel/moe"
)

// solvedSteps is the largest number of steps of a seed on which the balanced optimum is solved.
const solvedSteps = 8

// worthHelp is how long a step must take before idle workers are woken for its rounds, which takes some 10 µs each time.
var worthHelp = 500 * time.Microsecond

// shots is about the largest number of steps whose loads are kept.
const shots = 250

// Compare runs a comparison and returns what it found. When ctx ends, the result covers the seeds that had finished and is
// marked incomplete; if none had, the error is ctx's.
func Compare(ctx context.Context, c *Config) (*Result, error) {
	if err := Check(c); err != nil {
		return nil, err
	}
	runs := make([][]*Run, len(c.Seeds))
	traits := make([]moe.Traits, len(c.Strategies))
	for i, build := range c.Strategies {
		s, err := build()
		if err != nil {
			return nil, err
		}
		traits[i] = s.Traits()
	}
	var done atomic.Int64
	report := func() {
		if n := done.Add(1); c.Progress != nil {
			c.Progress(int(n), c.Steps*len(c.Seeds))
		}
	}
	count := c.Workers
	if count <= 0 {
		count = runtime.GOMAXPROCS(0)
	}
	w := new(workers)
	failures := make([]error, len(c.Seeds))
	w.run(count, len(c.Seeds), c.Layer, func(i int, s *moe.Scratch) {
		if failures[i] = ctx.Err(); failures[i] != nil {
			return
		}
		r, err := newReplicate(c, c.Seeds[i], w, s)
		if err == nil {
			runs[i], err = r.run(ctx, report)
		}
		failures[i] = err
	})
	for _, err := range failures {
		if err != nil && !errors.Is(err, context.Canceled) {
			return nil, err
		}
	}
	result := summarise(c, traits, runs)
	if len(result.Seeds) == 0 {
		return nil, ctx.Err()
	}
	return result, nil
}

// Check refuses what cannot act, with the way out. Compare calls it first.
func Check(c *Config) error {
	if err := c.Layer.Validate(); err != nil {
		return err
	}
	if len(c.Strategies) == 0 {
		return errors.New("there is no strategy to run: name one, such as loss-free")
	}
	for _, build := range c.Strategies {
		s, err := build()
		if err == nil {
			err = c.Refuse(s.Traits())
		}
		if err != nil {
			return err
		}
	}
	if c.Experts.Learn && c.Facts.Aggregate {
		return errors.New("experts learn token by token, and here a token stands for many that are alike: use aggregate=false with fewer tokens")
	}
	if c.Experts.Learn && c.Layer.Width == 0 {
		return errors.New("experts cannot learn without latent vectors: use a synthetic scenario, or a trace with hidden")
	}
	if c.Router.Mode == Learned && c.Layer.Width == 0 {
		return errors.New("a router cannot learn weights without latent vectors")
	}
	return nil
}

// Refuse says why a strategy cannot act in this comparison, with the way out, or returns nil.
func (c *Config) Refuse(t moe.Traits) error {
	switch {
	case t.Oracle && c.Experts.Learn:
		return fmt.Errorf("%s chooses by the stream's true affinities, which say nothing about experts that learn: leave it out, or use --experts fixed", t.Spec)
	case c.Facts.Waste && t.Oracle:
		return fmt.Errorf("%s evens out all tokens alike, and here the output of some is thrown away: leave it out", t.Spec)
	case c.Facts.Unseen && t.Collective && !t.Aggregates:
		return fmt.Errorf("%s sees all tokens of a batch, so it cannot leave padding out of its counts: use synthetic.padding.counted=true, or a rule of counts alone such as loss-free", t.Spec)
	case c.Facts.Aggregate && (!t.Aggregates || t.Oracle):
		return fmt.Errorf("%s works token by token, and here a token stands for many that are alike: use aggregate=false with fewer tokens, or a rule of whole batches such as loss-free", t.Spec)
	case t.Loss && c.Router.Mode == Frozen && c.Layer.Score == moe.Stored:
		return fmt.Errorf("%s has a loss, which needs logits to act on, and this stream carries scores: dump logits, or use a bias such as loss-free", t.Spec)
	case t.Loss && c.Router.Mode == Frozen:
		return fmt.Errorf("%s has a loss, which does nothing to a frozen router: use --router learned, or a bias such as loss-free", t.Spec)
	case t.Weights && c.Router.Mode != Learned:
		return fmt.Errorf("%s has a loss of the router's weights, and here a router has none: use a stream with latent vectors and --router learned", t.Spec)
	case t.Transforms && c.Layer.Score == moe.Stored:
		return fmt.Errorf("%s transforms logits, and this stream carries scores: dump logits", t.Spec)
	case t.Sequences && !c.Facts.Sequences:
		return fmt.Errorf("%s looks at whole sequences, and this stream does not say where they begin: add seq_lens to the trace, or leave that out (see evenkeel strategies %s)", t.Spec, t.Name)
	case t.TokenIDs && !c.Facts.TokenIDs:
		return fmt.Errorf("%s chooses by token id, and this stream does not say which token is which: add token_id to the trace, or use a synthetic scenario", t.Spec)
	}
	if first := c.layout(c.Seeds[0]); t.MicroBatches && c.MicroBatches > 1 && len(first.MicroBatches) == 1 {
		return fmt.Errorf("%s counts by micro-batch, and a step is one: micro-batches are whole sequences, and there is one in %d tokens; use more tokens, a shorter sequence_length, or count the whole step if it can (see evenkeel strategies %s)", t.Spec, first.Tokens, t.Name)
	}
	return nil
}

// layout is the first step of a seed without its content.
func (c *Config) layout(seed uint64) *moe.Batch {
	b := moe.NewBatch(c.Layer, c.places())
	c.Stream(seed).Layout(b, moe.Moment{})
	return b
}

// replicate is one seed of a comparison.
type replicate struct {
	c           *Config
	seed        uint64
	workers     *workers
	scratch     *moe.Scratch // of the worker that runs it
	stream      moe.Stream
	batch       *moe.Batch
	oracle      *oracle
	contestants []*contestant

	// Of the present step: what is done in rounds, whether they last long enough to wake helpers, and who takes part.
	round            round
	fill             func(tile int, w *moe.Scratch)
	route            func(item int, w *moe.Scratch) // each active contestant's tiles
	whole, count     func(active int, w *moe.Scratch)
	learn            func(item int, w *moe.Scratch) // each learning contestant's chunks of tiles
	answer           func(region int, w *moe.Scratch)
	forward, teach   func(item int, w *moe.Scratch) // each learning contestant's experts
	move             func(active int, w *moe.Scratch)
	long             bool
	now              int
	active, learning []*contestant
	filled           *moe.Batch
	judge            *oracle
	training         bool

	probeBatch  *moe.Batch
	probeOracle *oracle

	solver  transport.Tiles
	optimum []uint64
}

func newReplicate(c *Config, seed uint64, w *workers, s *moe.Scratch) (*replicate, error) {
	r := &replicate{c: c, seed: seed, workers: w, scratch: s, stream: c.Stream(seed), batch: moe.NewBatch(c.Layer, c.places()),
		oracle: newOracle(c.Layer, c.places())}
	if c.Experts.Learn {
		r.oracle.task = newTask(c, c.world(seed))
	}
	r.prepareRounds()
	weights := r.stream.OracleRouter()
	if c.Router.Mode == Learned && c.Router.Oracle && weights == nil {
		return nil, errors.New("router.init is oracle, but this stream knows no oracle's router: use router.init=random")
	}
	for _, build := range c.Strategies {
		s, err := build()
		if err != nil {
			return nil, err
		}
		r.contestants = append(r.contestants, newContestant(c, s, seed, r.oracle, weights))
	}
	r.optimum = make([]uint64, len(r.oracle.mask))
	return r, nil
}

// prepareRounds makes the functions of rounds once, since making them anew in every step would allocate.
func (r *replicate) prepareRounds() {
	r.fill = func(tile int, w *moe.Scratch) {
		r.stream.Fill(r.filled, tile, w)
		r.filled.Tiles[tile].Training = r.training
		r.judge.tile(tile, &r.filled.Tiles[tile], w)
		if r.judge.task != nil {
			r.judge.task.locate(tile, &r.filled.Tiles[tile], w)
		}
	}
	r.answer = func(region int, w *moe.Scratch) { r.judge.task.answer(region, w) }
	r.forward = func(item int, w *moe.Scratch) { r.active[item%len(r.active)].experts.forward(item/len(r.active), w) }
	r.teach = func(item int, w *moe.Scratch) { r.active[item%len(r.active)].experts.learn(item/len(r.active), w) }
	r.route = func(item int, w *moe.Scratch) {
		n := len(r.active) // a tile's contestants follow each other, while it is in the cache
		r.active[item%n].routeTile(r.batch, r.oracle, item/n, w)
	}
	r.whole = func(i int, w *moe.Scratch) { r.active[i].routeWhole(r.batch, r.oracle, w) }
	r.count = func(i int, _ *moe.Scratch) { r.active[i].count(r.batch, r.oracle, r.now) }
	r.learn = func(item int, w *moe.Scratch) {
		n := len(r.learning)
		r.learning[item%n].learn(r.batch, r.oracle, r.now, item/n, w)
	}
	r.move = func(i int, _ *moe.Scratch) { r.active[i].move(r.now) }
}

// each does a round of items.
func (r *replicate) each(items int, do func(item int, w *moe.Scratch)) {
	helpers := r.workers
	if !r.long {
		helpers = nil
	}
	r.round.share(helpers, r.scratch, items, do)
}

// load draws a batch and computes what the oracle says about it.
func (r *replicate) load(b *moe.Batch, o *oracle, m moe.Moment) {
	r.stream.Layout(b, m)
	r.filled, r.judge, r.training = b, o, m.Purpose == moe.Train
	r.each(len(b.Tiles), r.fill)
	if o.task != nil {
		o.task.gather(b.Tokens)
		r.each(len(o.task.maps), r.answer)
	}
	o.finish(b)
}

func (r *replicate) run(ctx context.Context, report func()) ([]*Run, error) {
	for step := range r.c.Steps {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if err := r.step(step); err != nil {
			return nil, err
		}
		report()
	}
	if err := r.evaluate(ctx); err != nil {
		return nil, err
	}
	var runs []*Run
	for _, x := range r.contestants {
		x.finish(r.c)
		runs = append(runs, x.run)
	}
	return runs, nil
}

// step is one step of every strategy on the same tokens: route with the old state, count, then move.
func (r *replicate) step(step int) error {
	begin := time.Now()
	solved := r.c.solvable() && solvedAt(step, r.c.Steps)
	if err := r.compute(step, solved); err != nil {
		return err
	}
	best := 0.0
	if solved {
		var err error
		if best, err = r.solver.Solve(r.oracle.scores, r.batch.Tokens, r.c.Layer.Experts, r.c.Layer.TopK, r.optimum); err != nil {
			return err
		}
	}
	for _, x := range r.active {
		if best != 0 {
			x.row.RegretToOptimum = 1 - x.row.AffinityKept*r.oracle.total/best
		}
		x.record(r.batch, r.oracle, r.c.Steps)
	}
	r.each(len(r.active), r.move)
	if step >= r.c.Steps-window(r.c.Steps)-1 {
		if err := r.observe(step); err != nil {
			return err
		}
	}
	r.long = r.long || time.Since(begin) > worthHelp
	return nil
}

// compute does all of a step but moving what it moves. Bounds take part where the optimum is solved.
func (r *replicate) compute(step int, solved bool) error {
	r.load(r.batch, r.oracle, moe.Moment{Step: step, Purpose: moe.Train, Index: step})
	r.now, r.active, r.learning = step, r.active[:0], r.learning[:0]
	for _, x := range r.contestants {
		if !x.traits.Oracle || solved {
			r.active = append(r.active, x)
		}
		if x.learns(step) || x.experts != nil {
			r.learning = append(r.learning, x)
		}
	}
	if err := r.routeAll(); err != nil {
		return err
	}
	r.each(len(r.active), r.count)
	if r.oracle.task != nil {
		r.each(len(r.active)*r.c.Layer.Experts, r.forward)
	}
	r.each(len(r.learning)*gradientChunks, r.learn)
	if r.oracle.task != nil {
		for _, x := range r.active {
			x.experts.pace.next(step)
		}
		r.each(len(r.active)*r.c.Layer.Experts, r.teach)
	}
	return nil
}

// routeAll routes the batch by every active contestant.
func (r *replicate) routeAll() error {
	r.each(len(r.active)*len(r.batch.Tiles), r.route)
	r.each(len(r.active), r.whole)
	for _, x := range r.active {
		if x.err != nil {
			return fmt.Errorf("%s: %w", x.traits.Spec, x.err)
		}
	}
	return nil
}

// observe measures churn on the probe tokens, which it draws when first asked.
func (r *replicate) observe(step int) error {
	if r.probeBatch == nil {
		r.probeBatch = moe.NewBatch(r.c.Layer, r.c.places())
		r.probeOracle = newOracle(r.c.Layer, r.c.places())
		r.load(r.probeBatch, r.probeOracle, moe.Moment{Step: r.c.Steps - 1, Purpose: moe.Probe})
		if r.probeBatch.Tokens > probeTokens {
			r.probeBatch.Truncate(probeTokens)
		}
	}
	for i := range r.probeBatch.Tiles {
		r.probeBatch.Tiles[i].Key = rng.Key(r.seed, rng.Choice, uint64(moe.Probe), uint64(step), uint64(i))
	}
	for _, x := range r.contestants {
		if !x.traits.Oracle {
			if err := x.observe(r.probeBatch, r.probeOracle, r.scratch); err != nil {
				return fmt.Errorf("%s: %w", x.traits.Spec, err)
			}
		}
	}
	return nil
}

// window is the number of steps in the last quarter of a run, or all of fewer than four.
func window(steps int) int {
	if steps < 4 {
		return steps
	}
	return steps / 4
}

// solvedAt reports whether a step is one of the evenly spaced ones on which the optimum is solved.
func solvedAt(step, steps int) bool {
	n := min(solvedSteps, steps)
	return (step+1)*n/steps > step*n/steps
}
