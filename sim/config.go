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
	Workers      int                   // seeds that run side by side; 0 for one per processor
	Progress     func(done, total int) // called now and then with steps of all seeds; may be nil
}

// RouterConfig says how routers learn.
type RouterConfig struct {
	Mode   string  // Frozen, Learned or Offsets
	Rate   float64 // of Adam
	Oracle bool    // start at the oracle's weights, not at random ones
}
