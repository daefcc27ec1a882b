package sim

import "evenkeel/moe"

// Config describes one comparison. Streams and strategies come in as functions, since every seed has its own.
type Config struct {
	Layer        moe.Layer
	Facts        moe.Facts
	Tokens       int // T, tokens a step
	Distinct     int // tokens that a batch holds at most where they are aggregated; 0 where each stands for itself
	MicroBatches int
	Ranks        int
	Steps        int
	Shots        []int // rising; steps whose loads are kept beside the evenly spaced ones
	Seeds        []uint64
	WorldSeed    uint64 // draws the task of experts that learn, for all seeds; 0: each seed draws its own
	Router       RouterConfig
	Experts      ExpertsConfig
	Stream       func(seed uint64) moe.Stream
	Strategies   []func() (moe.Strategy, error)
	Workers      int                   // they take seeds, and when none is left help with the steps of others; 0 for one per processor
	Progress     func(done, total int) // called now and then with steps of all seeds; may be nil
}

// Memory estimates the bytes that a run holds at once: for every replicate that runs, two batches with their scores, and
// for every strategy its choices and, unless it shares the oracle's, its scores. Where experts learn, also the parameters of
// all, each with its gradient, Adam's moments and what products need, and what they made of every choice.
func (c *Config) Memory() int64 {
	tokens, e, d := int64(c.places()), int64(c.Layer.Experts), int64(c.Layer.Width)
	n := int64(len(c.Strategies))
	replicate := tokens * (2*(4*d+4*e+4*e) + n*(4*e+e/8+e/8))
	if x := c.Experts; x.Learn {
		h := int64(x.Hidden)
		replicate += 4*int64(x.Regions)*d*d + 8*tokens*d
		replicate += n * 4 * (14*e*h*d + tokens*d + (tokens*int64(c.Layer.TopK)+64*e)*(d+h+2))
	}
	return replicate * int64(min(max(1, c.Workers), len(c.Seeds)))
}

// solvable reports whether the balanced optimum is that of the layer's own tokens: one by one, all of use, by fixed experts.
func (c *Config) solvable() bool { return !c.Experts.Learn && !c.Facts.Aggregate && !c.Facts.Waste }

// world is what draws the task of a seed.
func (c *Config) world(seed uint64) uint64 {
	if c.WorldSeed != 0 {
		return c.WorldSeed
	}
	return seed
}

// places is how many tokens a batch must have room for.
func (c *Config) places() int {
	if c.Distinct > 0 {
		return c.Distinct
	}
	return c.Tokens
}

// ExpertsConfig says how experts learn, if they do. Where they do not, their outputs are fixed, and useful to a token by its
// true affinity; see layerError.
type ExpertsConfig struct {
	Learn   bool
	Rate    float64 // of Adam
	Hidden  int     // h, width between an expert's two layers
	Regions int     // R, of the task
	Shared  bool    // a linear expert that all tokens have
}

// RouterConfig says how routers learn.
type RouterConfig struct {
	Mode   string  // Frozen, Learned or Offsets
	Rate   float64 // of Adam
	Oracle bool    // start at the oracle's weights, not at random ones
}
