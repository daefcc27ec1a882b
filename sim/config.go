package sim

import "evenkeel/moe"

// Config describes one comparison. Streams and strategies come in as functions, since every seed has its own.
type Config struct {
	Layer        moe.Layer
	Facts        moe.Facts
	Tokens       int // T, tokens a step
	MicroBatches int
	Ranks        int
	Steps        int
	Seeds        []uint64
	Router       RouterConfig
	Stream       func(seed uint64) moe.Stream
	Strategies   []func() (moe.Strategy, error)
	Workers      int                   // they take seeds, and when none is left help with the steps of others; 0 for one per processor
	Progress     func(done, total int) // called now and then with steps of all seeds; may be nil
}

// Memory estimates the bytes that a run holds at once: for every replicate that runs, two batches with their scores, and
// for every strategy its choices and, unless it shares the oracle's, its scores.
func (c *Config) Memory() int64 {
	tokens, e, d := int64(c.Tokens), int64(c.Layer.Experts), int64(c.Layer.Width)
	replicate := tokens * (2*(4*d+4*e+4*e) + int64(len(c.Strategies))*(4*e+e/8+e/8))
	return replicate * int64(min(max(1, c.Workers), len(c.Seeds)))
}

// RouterConfig says how routers learn.
type RouterConfig struct {
	Mode   string  // Frozen, Learned or Offsets
	Rate   float64 // of Adam
	Oracle bool    // start at the oracle's weights, not at random ones
}
