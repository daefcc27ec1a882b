package sim

import "evenkeel/moe"

// Result is what a comparison found: every strategy on the same tokens, for every seed.
type Result struct {
	Layer        moe.Layer
	Facts        moe.Facts
	Steps        int
	Tokens       int // T, tokens a step
	MicroBatches int
	Ranks        int
	Evaluation   int // tokens of the evaluation
	Seeds        []uint64
	Router       string // what moved: frozen, learned, offsets
	ExpertsLearn bool   // so that quality is a task loss, and no oracle knows which expert suits a token
	Incomplete   bool   // interrupted: figures cover the seeds that finished
	Strategies   []*StrategyResult
	Differences  []Difference
	Comparisons  []EqualQuality
	Incomparable []string // why strategies could not be compared at equal quality
	Warnings     []string // of the whole comparison
}

// StrategyResult is what one strategy did.
type StrategyResult struct {
	Traits   moe.Traits
	Learned  string // router, offsets or nothing
	Notes    []string
	Warnings []string // what a reader of the figures must not miss
	Runs     []*Run   // one for each seed, in order
	Metrics  map[string]Estimate

	Recoveries []Recovery // one for each event after the beginning
}

// Recovery is how many steps after an event of the scenario MaxVio of the step's tokens had settled again, before the next one.
type Recovery struct {
	Event   moe.Mark
	Settled int // seeds in which it did, of which the estimate is
	Steps   Estimate
}

// Estimate is the mean of a metric over the seeds with its 95 % t-interval, and its sampling floor.
type Estimate struct {
	Mean      float64
	Low, High *float64 // nil with one seed
	Floor     *float64 // nil where there is none
}

// Excess returns the mean above the floor, or nil where there is no floor.
func (e Estimate) Excess() *float64 {
	if e.Floor == nil {
		return nil
	}
	x := e.Mean - *e.Floor
	return &x
}

// Difference is a paired difference a − b of a metric over the seeds, with its 95 % t-interval.
type Difference struct {
	A, B      string // specs
	Metric    string
	Mean      float64
	Low, High *float64
}

// Run is one strategy on one seed.
type Run struct {
	Seed    uint64
	Steps   []StepRow          // every step (the solved ones of a bound)
	Shots   []Shot             // loads and biases at evenly spaced steps
	Domains [][]float64        // [domain][E] relative load on the evaluation's tokens of a domain; nil where unknown
	Values  map[string]float64 // the metrics of this seed

	Recoveries []float64 // steps to settle after each event, NaN where nothing settled

	biasMoved float64 // max |b| at the end, b counted from its start
}

// StepRow is what one step of the run showed. Fields that a strategy does not have are NaN.
type StepRow struct {
	Step                 int
	MaxVio               float64 // of the step's T tokens
	MaxVioSequence       float64 // mean over the step's sequences
	MaxVioDevice         float64 // over groups
	LoadVariance         float64 // of r
	DropRate             float64 // share of the choices that found no room
	AffinityKept         float64
	LayerError           float64 // L_task, of the batch
	BalanceLoss          float64 // Σ α·loss
	RegretToOptimum      float64 // on the steps where the optimum was solved
	BiasSpread, BiasMean float64
}

// Shot is the state at one step.
type Shot struct {
	Step int
	Load []float32 // relative load r_e, against TK/E where choices are dropped
	Bias []float32 // b_e, nil where there is none
}

// EqualQuality compares a strategy with a family (one strategy at several strengths) at equal quality: the family's
// MaxVio is interpolated, in its logarithm, at the affinity that the strategy keeps.
type EqualQuality struct {
	Strategy  string // spec
	Family    string // spec without the strength
	Zero      string // spec of the family's strength 0, if it is on the curve
	Kept      float64
	MaxVio    float64 // of the strategy, global, geometric mean over seeds
	OnCurve   float64 // of the family at that affinity
	LogRatio  float64 // mean over seeds of ln(MaxVio of the strategy / MaxVio on the curve)
	Low, High *float64
}
