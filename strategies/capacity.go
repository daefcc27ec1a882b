package strategies

import (
	"fmt"
	"math"
	"slices"

	"evenkeel/internal/rng"
	"evenkeel/internal/vec"
	"evenkeel/moe"
)

// What a capacity multiplies, how it is rounded, who claims room first, and where those go who find none.
const (
	unitChoices = "choices" // cf·TK/E
	unitTokens  = "tokens"  // cf·T/E
	unitSlots   = "slots"   // K times cf·⌈T/E⌉

	roundUp      = "ceil"
	roundNearest = "round"
	roundDown    = "int"

	orderGate     = "gate"           // the largest gate, s/Σ_{S_t} s, or s for K = 1
	orderScore    = "score"          // the largest score
	orderPosition = "position"       // the earliest token
	orderRandom   = "random"         // by lot
	orderPriority = "batch-priority" // first choices first, of them the token with the best gate
	orderChoice   = "choice"         // first choices first, of them the earliest token

	overflowDrop = "drop"
	overflowNext = "next-best"
	overflowAny  = "any"
)

// capacity is part 6: an expert, or a device, takes so many choices of a micro-batch, or of the whole step, and no more.
// Choices claim their room in an order; those that find none are dropped, or go, once all have claimed, where room is left:
// to the token's best other expert, or to the first by index. Of V2's protected sequences nothing is dropped. Ties go to
// the earlier token, and of one token to its better choice.
//
// An order by scores, by lot or by choice lets later tokens take the room of earlier ones; only by position, with overflow
// dropped, does a token's routing depend on no later one.
type capacity struct {
	layer     moe.Layer
	factor    float64
	unit      string
	rounding  string
	least     int
	order     string
	overflow  string
	bins      int     // E, or the number of devices
	batch     bool    // scope is the whole step
	protected float64 // share of the sequences
	training  bool    // evaluation drops nothing

	claims []claim
	late   []claim // those that found no room
	load   []int   // of each bin, then the room that it has left
	chosen []int   // of one token, best first
	whole  [1]moe.Span
}

// claim is one choice; smaller ones claim room first.
type claim struct {
	order        uint64
	token        int32
	rank, expert int16
}

func (c *capacity) declare(t *moe.Traits) {
	t.Drops = true
	t.Causal = t.Causal && c.order == orderPosition && c.overflow == overflowDrop
	t.Free = t.Free || c.overflow != overflowDrop
	t.MicroBatches = t.MicroBatches || !c.batch
	t.Sequences = t.Sequences || c.protected > 0
}

// size returns the capacity of one bin for so many tokens.
func (c *capacity) size(tokens int) int {
	tk := float64(tokens)
	each := tk / float64(c.bins)
	var n int
	switch c.unit {
	case unitTokens:
		n = c.round(each * c.factor)
	case unitSlots:
		n = c.layer.TopK * c.round(math.Ceil(each)*c.factor)
	default:
		n = c.round(tk * float64(c.layer.TopK) / float64(c.bins) * c.factor)
	}
	return max(n, c.least)
}

func (c *capacity) round(x float64) int {
	switch c.rounding {
	case roundUp:
		x = math.Ceil(x)
	case roundNearest:
		x = math.RoundToEven(x) // as Python's round
	}
	return int(x)
}

func (c *capacity) revise(b *moe.Batch, s, bias []float32, a *moe.Assignment) error {
	clear(a.Dropped)
	if c.training && !b.Tiles[0].Training {
		return nil
	}
	units := b.MicroBatches
	if c.batch {
		c.whole[0] = moe.Span{From: 0, To: b.Tokens}
		units = c.whole[:]
	}
	for _, unit := range units {
		c.enforce(unit, b, s, bias, a)
	}
	return nil
}

// enforce applies the capacity to one unit of the batch.
func (c *capacity) enforce(unit moe.Span, b *moe.Batch, s, bias []float32, a *moe.Assignment) {
	size := c.size(unit.Len())
	if c.load == nil {
		c.load = make([]int, c.bins)
	}
	clear(c.load)
	c.claims, c.late = c.claims[:0], c.late[:0]
	sequence, safe := -1, false
	for token := unit.From; token < unit.To; token++ {
		if c.protected > 0 && (sequence < 0 || token >= b.Sequences[sequence].To) {
			sequence, _ = slices.BinarySearchFunc(b.Sequences, token, func(s moe.Span, token int) int { return s.To - token - 1 })
			safe = c.protects(b, sequence)
		}
		c.claim(token, safe, b, s, bias, a)
	}
	full := false
	for i, n := range c.load {
		full = full || n > size
		c.load[i] = size - n
	}
	if !full {
		return
	}
	c.claims = slices.DeleteFunc(c.claims, func(x claim) bool { return c.load[c.bin(int(x.expert))] >= 0 }) // these all stay
	for i, room := range c.load {
		if room < 0 {
			c.load[i] = size
		}
	}
	slices.SortFunc(c.claims, func(x, y claim) int {
		switch {
		case x.order != y.order && x.order < y.order, x.order == y.order && x.token < y.token:
			return -1
		case x.order != y.order || x.token != y.token:
			return 1
		}
		return int(x.rank) - int(y.rank)
	})
	for _, x := range c.claims {
		room := &c.load[c.bin(int(x.expert))]
		if *room > 0 || x.order == 0 {
			*room--
			continue
		}
		mask, drop, bit := c.place(x, a)
		mask[x.expert] &^= bit
		drop[x.expert] |= bit
		c.late = append(c.late, x)
	}
	if c.overflow == overflowDrop {
		return
	}
	for _, x := range c.late {
		if e := c.other(x, s, bias, a); e >= 0 {
			mask, drop, bit := c.place(x, a)
			drop[x.expert] &^= bit
			mask[e] |= bit
			c.load[c.bin(e)]--
		}
	}
}

func (c *capacity) bin(expert int) int { return expert * c.bins / c.layer.Experts }

// place returns the masks of a claim's tile and its bit in them.
func (c *capacity) place(x claim, a *moe.Assignment) (mask, dropped []uint64, bit uint64) {
	tile, lane := int(x.token)/moe.TileTokens, int(x.token)%moe.TileTokens
	return a.Tile(tile), a.Dropped[tile*a.Experts : (tile+1)*a.Experts], 1 << lane
}

// protects reports whether a sequence is one of those of which nothing is dropped: drawn by lot, for each batch anew.
func (c *capacity) protects(b *moe.Batch, sequence int) bool {
	from := b.Sequences[sequence].From
	r := rng.New(rng.Mix(b.Tiles[from/moe.TileTokens].Key ^ uint64(from+1)))
	return r.Float64() < c.protected
}

// claim appends a token's choices and counts them. Order 0 is of those that always find room.
func (c *capacity) claim(token int, safe bool, b *moe.Batch, s, bias []float32, a *moe.Assignment) {
	tile, lane := token/moe.TileTokens, token%moe.TileTokens
	of := s[tile*c.layer.Experts*vec.Lanes+lane:]
	c.chosen = c.chosen[:0]
	var sum float32
	for e, m := range a.Tile(tile) {
		if m>>lane&1 == 0 {
			continue
		}
		sum += of[e*vec.Lanes]
		c.load[c.bin(e)]++
		i := len(c.chosen)
		c.chosen = append(c.chosen, e)
		for ; i > 0 && adjusted(of, bias, e) > adjusted(of, bias, c.chosen[i-1]); i-- {
			c.chosen[i] = c.chosen[i-1]
		}
		c.chosen[i] = e
	}
	if c.layer.TopK == 1 {
		sum = 1 // a gate divided by itself ranks nothing
	}
	lots := rng.New(rng.Mix(b.Tiles[tile].Key + uint64(lane)))
	for rank, e := range c.chosen {
		x := claim{token: int32(token), rank: int16(rank), expert: int16(e)}
		switch c.order {
		case orderGate:
			x.order = 1 + falling(share(of[e*vec.Lanes], sum))
		case orderScore:
			x.order = 1 + falling(of[e*vec.Lanes])
		case orderPriority:
			best := of[c.chosen[0]*vec.Lanes]
			for _, i := range c.chosen {
				best = max(best, of[i*vec.Lanes])
			}
			x.order = uint64(rank+1)<<32 | falling(share(best, sum))
		case orderChoice:
			x.order = uint64(rank + 1)
		case orderRandom:
			x.order = 1 + lots.Uint64()>>1
		default:
			x.order = 1
		}
		if safe {
			x.order = 0
		}
		c.claims = append(c.claims, x)
	}
}

// adjusted returns a = s + b of a token's expert, s from the token's lane on.
func adjusted(s, bias []float32, e int) float32 {
	if bias == nil {
		return s[e*vec.Lanes]
	}
	return s[e*vec.Lanes] + bias[e]
}

// share returns part/sum, and 0 of nothing.
func share(part, sum float32) float32 {
	if sum == 0 {
		return 0
	}
	return part / sum
}

// falling maps a number to 32 bits that fall as it grows.
func falling(x float32) uint64 {
	if x == 0 {
		x = 0 // and not −0
	}
	u := math.Float32bits(x)
	if u>>31 != 0 {
		return uint64(u)
	}
	return uint64(^u &^ (1 << 31))
}

// other returns where a late claim goes, or −1.
func (c *capacity) other(x claim, s, bias []float32, a *moe.Assignment) int {
	tile, lane := int(x.token)/moe.TileTokens, int(x.token)%moe.TileTokens
	of := s[tile*c.layer.Experts*vec.Lanes+lane:]
	best := -1
	for e, m := range a.Tile(tile) {
		if m>>lane&1 != 0 || c.load[c.bin(e)] <= 0 {
			continue
		}
		if c.overflow == overflowAny {
			return e
		}
		if best < 0 || adjusted(of, bias, e) > adjusted(of, bias, best) {
			best = e
		}
	}
	return best
}

// beforeDrops lets a controller see the counts as they were before choices were dropped.
type beforeDrops struct {
	controller
	outcome moe.Outcome
}

func (c *beforeDrops) declare(t *moe.Traits) {
	if p, ok := c.controller.(declarer); ok {
		p.declare(t)
	}
}

func (c *beforeDrops) update(o *moe.Outcome) {
	c.outcome = *o
	c.outcome.Chosen = o.Wanted
	c.controller.update(&c.outcome)
}

var capacityPreset = Preset{
	Name:    "capacity",
	Family:  "structure",
	Summary: "top-K with a capacity per expert; choices beyond it are dropped or go elsewhere",
	Formula: `C = ⌈cf·n̄⌉, n̄ = TK/E;  of the choices of an expert in a micro-batch the first C in the order stay, the others are dropped

Orders: gate (Megatron-LM's probs: the largest s/Σ_{S_t} s, or s for K = 1), score (V2's lowest affinity goes first), position (DeepSpeed's
cumulative sum), random (its random token selection), choice (all first choices before any second: GShard, flaxformer,
Tutel), batch-priority (the same, by the token's best gate: V-MoE). The conventions of other code, cf being what they call
so: DeepSpeed least=8; Tutel unit=slots,rounding=int; flaxformer unit=tokens,rounding=round,least=4; DeepSeek-V2
factor=1,per=device,order=score,protect=0.1,evaluation=free.

Gates of the experts that are left are divided by their sum, as the task does for every strategy (DeepSpeed too; Megatron-LM
and flaxformer leave them as they were). Loads are those after drops. A token whose choices are all dropped gets nothing.`,
	Knobs: []Knob{
		{Name: "factor", Default: "1.25", Low: 0.01, High: 1e6, About: "cf, capacity in units of the mean load n̄ (see unit)"},
		{Name: "order", Default: orderGate, Options: []string{orderGate, orderScore, orderPosition, orderRandom, orderPriority, orderChoice},
			About: "who claims room first"},
		{Name: "overflow", Default: overflowDrop, Options: []string{overflowDrop, overflowNext, overflowAny},
			About: "what finds no room is dropped, or goes where room is left: to the token's best other expert, or to the first by index"},
		{Name: "scope", Default: scopeMicroBatch, Options: []string{scopeMicroBatch, "batch"}, About: "of T: a micro-batch, as published, or the whole step"},
		{Name: "per", Default: "expert", Options: []string{"expert", "device"}, About: "who has the capacity: an expert, or a group of experts, n̄ being TK/G"},
		{Name: "unit", Default: unitChoices, Options: []string{unitChoices, unitTokens, unitSlots},
			About: "of cf: choices cf·TK/E (Megatron-LM, DeepSpeed), tokens cf·T/E (flaxformer), or slots K·(cf·⌈T/E⌉) (Tutel)"},
		{Name: "rounding", Default: roundUp, Options: []string{roundUp, roundNearest, roundDown}, About: "of the capacity (of Tutel's, before the factor K)"},
		{Name: "least", Default: "0", Whole: true, Low: 0, High: 1e9, About: "smallest capacity, in choices"},
		{Name: "protect", Default: "0", Low: 0, High: 1, About: "share of the sequences, drawn by lot, of which nothing is dropped (V2: 0.1)"},
		{Name: "evaluation", Default: "capacity", Options: []string{"capacity", "free"}, About: "whether evaluation and probe tokens meet the capacity too (V2: free)"},
		{Name: "rate", Default: "0", Low: 0, High: 1e6, About: "u of loss-free's sign bias beside the capacity; 0 for no bias"},
		{Name: "feedback", Default: "after", Options: []string{"after", "before"},
			About: "counts that the bias sees: after drops (Megatron-LM), where a saturated expert looks just full, or before"},
		scoreKnob,
	},
	Strength: "factor",
	Sweep:    [2]float64{0.7, 4},
	Needs:    "micro-batches for scope=micro-batch; sequences for protect > 0; groups for per=device",
	Changes:  "capacity: which experts",
	Fails:    "dropped tokens lose their experts; every order but position breaks causality, and position drops the tail of a batch; factors of two code bases differ by K; a bias fed after drops does not see how overloaded an expert is",
	Paper:    "GShard (Lepikhin et al. 2020, arXiv 2006.16668); Switch Transformers (2021); V-MoE (2021); DeepSeek-V2 (2024, arXiv 2405.04434)",
	Read:     "code of Megatron-LM, DeepSpeed, Tutel, flaxformer; note on V2",
	Build: func(v Values, l moe.Layer) (*strategy, error) {
		score, warnings, err := v.score(l)
		if err != nil {
			return nil, err
		}
		c := newCapacity(l, v.Number("factor"), v.Text("order"))
		c.overflow, c.unit, c.rounding, c.least = v.Text("overflow"), v.Text("unit"), v.Text("rounding"), v.Whole("least")
		c.batch, c.protected, c.training = v.Text("scope") == "batch", v.Number("protect"), v.Text("evaluation") == "free"
		if v.Text("per") == "device" {
			if l.Groups == 1 {
				return nil, fmt.Errorf("per=device needs groups of experts, and this layer has none: --set groups=8, or per=expert")
			}
			c.bins = l.Groups
		}
		r := &strategy{layer: l, score: score, selection: topK{l}, revision: c, traits: moe.Traits{Causal: true, Warnings: warnings}}
		rate, before := v.Number("rate"), v.Text("feedback") == "before"
		switch {
		case rate > 0:
			bias := newBias(l.Experts)
			bias.rate = rate
			r.bias, r.controllers = bias.b, []controller{bias}
			r.traits.Warnings = append(r.traits.Warnings, bias.warnings(score, l)...)
			if before {
				r.controllers[0] = &beforeDrops{controller: bias}
			}
		case before:
			return nil, fmt.Errorf("feedback=before is of a bias, and there is none: give it a rate, such as rate=0.001")
		}
		return compose(r), nil
	},
}

// newCapacity returns Megatron-LM's and Switch's capacity of ⌈cf·TK/E⌉ choices per expert and micro-batch, dropping the rest.
func newCapacity(l moe.Layer, factor float64, order string) *capacity {
	return &capacity{layer: l, factor: factor, unit: unitChoices, rounding: roundUp, order: order, overflow: overflowDrop, bins: l.Experts}
}
