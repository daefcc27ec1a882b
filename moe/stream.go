package moe

// Purpose says what a batch is for. Batches of one moment and another purpose have the same world and fresh tokens.
type Purpose uint64

// The purposes of a batch.
const (
	Train    Purpose = iota // a step of the run
	Evaluate                // fresh tokens for the frozen state at the end
	Probe                   // the fixed tokens on which churn is measured
)

// Moment names one batch of a stream: the world as it is at a step, and tokens drawn for a purpose.
type Moment struct {
	Step    int // the state of the world: event schedules read it
	Purpose Purpose
	Index   int // which batch of that purpose; the step itself for Train
}

// Stream yields the batches of one seed. The same moment always yields the same batch.
type Stream interface {
	// Layout begins a batch: its number of tokens, sequences and micro-batches.
	Layout(b *Batch, m Moment)
	// Fill draws the content of one tile of the batch that Layout began. Tiles may be filled in any order, and several at
	// once with a scratch each.
	Fill(b *Batch, tile int, w *Scratch)
	// Evaluation returns the number of tokens that evaluation batches hold together.
	Evaluation() int
	// OracleRouter returns weights W [E][d], row-major, with z* = x·Wᵀ, or nil where the stream knows none.
	OracleRouter() []float32
}

// Facts say what a stream carries and what a reader of results must know about it.
type Facts struct {
	Trace     bool   // replayed from a router that was really trained, not drawn
	Level     string // of a trace: scores of all experts, or choices only
	File      string // of a trace
	SHA256    string // of that file
	Layer     int    // of a trace: the slot that is replayed, of so many
	Layers    int
	Latent    bool     // tokens have latent vectors x, so that a router can learn
	Sequences bool     // sequence boundaries are known
	Aggregate bool     // a token stands for many that are alike; see Batch
	TokenIDs  bool     // token ids are known
	Domains   []string // names of the domains in the order of their ids; nil where unknown
	InSample  bool     // evaluation runs on the tokens of the run itself
	Events    []Mark
	Notes     []string
}

// Mark is a moment of a run that pictures show.
type Mark struct {
	Step  int    `json:"step"`
	Label string `json:"label"`
}
