// Package scenarios yields streams of tokens: synthetic ones described by YAML files, and traces of real routers.
//
// A Scenario is such a file, decoded and checked. Its Stream draws the batches of one seed: latent vectors, the oracle's
// logits, token ids, domains, sequences. How a token then chooses experts, and what is measured, lives elsewhere.
package scenarios

import (
	"fmt"
	"slices"

	"evenkeel/moe"
)

// Scenario describes a stream of tokens, the layer that it meets and the length of a run. Field comments give units.
// The json names are the keys of a scenario file; a range tag gives the smallest and largest value and the unit.
type Scenario struct {
	Name  string `json:"name"`
	About string `json:"about"`

	Experts    int     `json:"experts" range:"2 4096 experts"`
	TopK       int     `json:"topk" range:"1 4096 experts per token"`
	Groups     int     `json:"groups" range:"1 4096 groups of experts"`
	GroupsKept int     `json:"groups_kept" range:"1 4096 groups per token"`
	Score      string  `json:"score"`
	Gate       string  `json:"gate"`
	GateScale  float64 `json:"gate_scale" range:"1e-6 1e6 times the gate"`
	Width      int     `json:"width" range:"1 65536 numbers in a latent vector"`

	Tokens           int      `json:"tokens" range:"1 1000000000 tokens a step"`
	Aggregate        bool     `json:"aggregate"` // tokens that are alike are routed once, and counted as often as they come
	SequenceLength   int      `json:"sequence_length" range:"1 16777216 tokens"`
	MicroBatches     int      `json:"micro_batches" range:"1 65536 micro-batches a step"`
	Ranks            int      `json:"ranks" range:"1 65536 data-parallel ranks"`
	Steps            int      `json:"steps" range:"1 100000000 steps"`
	Seeds            []uint64 `json:"seeds"`
	WorldSeed        uint64   `json:"world_seed"` // 0: every seed draws its own world
	EvaluationTokens int      `json:"evaluation_tokens" range:"1 1000000000 tokens"`

	Router Router `json:"router"`
	Task   Task   `json:"task"`

	Synthetic   *Synthetic   `json:"synthetic,omitempty"`
	Independent *Independent `json:"independent,omitempty"`
	Hot         *Hot         `json:"hot,omitempty"`
	Trace       *Trace       `json:"trace,omitempty"`
	Events      []Event      `json:"events,omitempty"`

	file  string // where it was read, for messages
	lines map[string]int
}

// Kinds of a gate.
const (
	gateNormalised = "normalised" // divided by their sum over the chosen
	gateRaw        = "raw"        // as the scores are
)

// Router says how a router learns; see package sim.
type Router struct {
	Mode string  `json:"mode"`                        // auto, frozen or learned
	Rate float64 `json:"rate" range:"0 1000 of Adam"` // learning rate
	Init string  `json:"init"`                        // random or oracle
}

// Task says what the layer is to do, and whether its experts learn it; see package sim.
type Task struct {
	Experts string  `json:"experts"`                     // fixed or learned
	Rate    float64 `json:"rate" range:"0 1000 of Adam"` // learning rate of experts, and of the router with them
	Hidden  int     `json:"hidden" range:"1 65536 numbers between an expert's two layers"`
	Regions int     `json:"regions" range:"1 65536 regions of the latent space"`
	Shared  bool    `json:"shared"` // a linear expert that all tokens have
}

// Layer returns the shape of the scenario's layer. The scenario is valid.
func (s *Scenario) Layer() moe.Layer {
	score, _ := moe.ParseScore(s.Score)
	l := moe.Layer{Experts: s.Experts, TopK: s.TopK, Groups: s.Groups, GroupsKept: s.GroupsKept, Score: score,
		Gate: moe.Gate{Normalised: s.Gate != gateRaw, Scale: float32(s.GateScale)}}
	switch {
	case s.Synthetic != nil:
		l.Width = s.Width
	case s.Independent != nil && s.Independent.Draws == "scores":
		l.Score = moe.Stored
	case s.Trace != nil:
		l.Width = s.Width
		if s.Trace.data != nil && s.Trace.data.stored {
			l.Score = moe.Stored
		}
	}
	return l
}

// Facts returns what the scenario's streams carry.
func (s *Scenario) Facts() moe.Facts {
	f := moe.Facts{Sequences: !s.Aggregate, Aggregate: s.Aggregate}
	switch {
	case s.Synthetic != nil:
		f.Latent, f.TokenIDs = true, true
		f.Waste = s.Synthetic.Padding != nil || s.Synthetic.Drafts != nil
		if p := s.Synthetic.Padding; p != nil {
			f.Unseen = !p.Counted && p.Share > 0
			counts := "losses and biases count it"
			if f.Unseen {
				counts = "losses and biases do not count it"
			}
			f.Notes = append(f.Notes, fmt.Sprintf("%.3g %% of the tokens are padding: it loads experts, %s, and quality leaves it out", 100*p.Share, counts))
		}
		if d := s.Synthetic.Drafts; d != nil {
			f.Notes = append(f.Notes, fmt.Sprintf("%.3g %% of the tokens are drafts that are rejected: they load experts, losses and biases count them, and quality leaves them out", 100*(1-d.accepted())))
		}
		for _, d := range s.Synthetic.Domains {
			f.Domains = append(f.Domains, d.Name)
		}
	case s.Independent != nil, s.Hot != nil:
		f.Notes = append(f.Notes, "tokens are independent: effects of sequences and micro-batches are absent by construction")
		if s.given("width") {
			f.Notes = append(f.Notes, "width has no effect: this stream has no latent vectors")
		}
	case s.Trace != nil:
		f = s.Trace.facts()
		f.Sequences, f.Aggregate = f.Sequences && !s.Aggregate, s.Aggregate
	}
	if s.Aggregate {
		if most := s.mostFrequent() * float64(s.Experts) / float64(s.TopK); most > 1 {
			f.Notes = append(slices.Clone(f.Notes), fmt.Sprintf("%.2g %% of the tokens are of one kind, which all choose the same experts: no choice by scores and a bias has a MaxVio below %.2f", 100*s.mostFrequent(), most-1))
		}
		f.Notes = append(slices.Clone(f.Notes), fmt.Sprintf("tokens are aggregated: a batch is a multinomial draw of how many are of each of %d kinds, so tokens are independent, and effects of sequences and micro-batches are absent", s.Distinct()))
	}
	for _, e := range s.Events {
		f.Events = append(f.Events, e.mark())
		if e.Kind == newDomain && len(f.Domains) > 0 {
			f.Domains = append(f.Domains, e.Name)
		}
	}
	return f
}

// Stream returns the stream of one seed.
func (s *Scenario) Stream(seed uint64) moe.Stream {
	world := seed
	if s.WorldSeed != 0 {
		world = s.WorldSeed
	}
	switch {
	case s.Independent != nil:
		return newIndependentStream(s, seed, world)
	case s.Hot != nil:
		return &hotStream{unrelated{s: s, seed: seed}}
	case s.Trace != nil && s.Aggregate:
		return newAggregatedTrace(newTraceStream(s, seed))
	case s.Trace != nil:
		return newTraceStream(s, seed)
	case s.Aggregate:
		return newAggregatedTypes(newSyntheticStream(s, seed, world))
	}
	return newSyntheticStream(s, seed, world)
}

// mostFrequent is the share of the most frequent kind of aggregated tokens at the start.
func (s *Scenario) mostFrequent() float64 {
	switch {
	case s.Trace != nil && s.Trace.data != nil:
		return 1 / float64(s.Trace.data.Tokens)
	case s.Synthetic == nil:
		return 0
	}
	most, frequency := 0.0, s.Synthetic.frequency()
	var all float64
	for _, f := range frequency {
		all += f
	}
	for _, d := range s.Synthetic.Domains {
		most = max(most, d.Share*(1-s.Synthetic.DomainTilt)*frequency[0]/all, d.Share*s.Synthetic.DomainTilt*frequency[0]/all)
	}
	return most
}

// Distinct is the number of tokens that a batch holds at most where they are aggregated, and 0 where they are not.
func (s *Scenario) Distinct() int {
	switch {
	case !s.Aggregate:
		return 0
	case s.Trace != nil && s.Trace.data != nil:
		return min(s.Trace.data.Tokens, max(s.Tokens, s.EvaluationTokens))
	case s.Synthetic != nil:
		domains := len(s.Synthetic.Domains)
		for _, e := range s.Events {
			if e.Kind == newDomain {
				domains++
			}
		}
		return min(domains*s.Synthetic.Vocabulary, max(s.Tokens, s.EvaluationTokens))
	}
	return 0
}

// layout lays out a batch of equal sequences, the last one cut where the batch ends.
func (s *Scenario) layout(b *moe.Batch, tokens int) {
	b.Resize(tokens)
	b.Sequences = b.Sequences[:0]
	for from := 0; from < tokens; from += s.SequenceLength {
		b.Sequences = append(b.Sequences, moe.Span{From: from, To: min(tokens, from+s.SequenceLength)})
	}
	s.split(b)
}

// split groups the sequences of a batch into micro-batches. A batch with too few sequences has fewer of them.
func (s *Scenario) split(b *moe.Batch) {
	b.SplitMicroBatches(s.MicroBatches)
	b.Ranks = s.Ranks
}

// tokensAt returns the size of a batch: a step's, or what is left of the evaluation.
func (s *Scenario) tokensAt(m moe.Moment) int {
	if m.Purpose == moe.Evaluate {
		return min(s.Tokens, s.EvaluationTokens-m.Index*s.Tokens)
	}
	return s.Tokens
}

// Replicate returns the scenario for one seed alone. The receiver stays as it is.
func (s *Scenario) Replicate(seed uint64) *Scenario {
	one := *s
	one.Seeds = []uint64{seed}
	return &one
}
