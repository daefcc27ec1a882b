package strategies

import (
	"fmt"
	"math"
	"math/bits"
	"slices"

	"evenkeel/internal/order"
	"evenkeel/internal/vec"
	"evenkeel/moe"
)

var base = Preset{
	Name:    "base",
	Family:  "assignment",
	Summary: "BASE layers: an auction gives every expert T/E tokens in training; plain top-1 elsewhere; K = 1 only",
	Formula: `experts bid for tokens, on logits z, until every token has exactly one bid; each round, with costs c_t from 0:
  values z_te − c_t, and the largest z for a token that e holds;  e bids for its T/E best (value − the next best value + ε)
  and ε for what it holds;  the highest bid holds the token;  c_t ← c_t + that bid
ε = (max z − min z)/50, at least 1e-4.  From round 100 on a held token counts as z_te and is bid for as any other, which
settles soon and is further from the best.

Where E does not divide T, experts take ⌊T/E⌋ or ⌈T/E⌉, the latter those that are first choice of more tokens. The published
layer mixes y = g·f(x) + (1−g)·x with g = sigmoid(z); a gate here multiplies experts' outputs and keeps no share of x.
Its auctions are each worker's, of tokens shuffled among workers; here one auction covers the step. Ignores group limits.`,
	Knobs: []Knob{
		evaluateKnob("auction"),
		{Name: "rounds", Default: "100", Whole: true, Low: 1, High: 1e4, About: "rounds of the auction before its approximate finish"},
		scoreKnob,
	},
	Needs:    "the scores of all experts; K = 1",
	Scenario: "pretraining --set topk=1",
	Changes:  "which experts, gates",
	Fails:    "trained with the batch and used without it: balance is not learnt, so inference is uneven; not causal: leaks other tokens; one NaN breaks the auction; slow",
	Paper:    "BASE layers (Lewis et al. 2021, arXiv 2103.16716); fairseq's balanced_assignment.cpp",
	Read:     "code",
	Build: func(v Values, l moe.Layer) (*strategy, error) {
		if l.TopK != 1 {
			return nil, fmt.Errorf("it sends each token to one expert, and here topk is %d: --set topk=1, or use sinkhorn, maxscore or balanced-optimum, which take any K", l.TopK)
		}
		score, warnings, err := v.score(l)
		if err != nil {
			return nil, err
		}
		once, notes := v.trainingOnly()
		notes = append(notes, "the published layer passes on 1 − g of its input beside g of the expert's output; output error here knows the latter only")
		return compose(&strategy{layer: l, score: score, selection: topK{free(l)},
			revision: &auction{trainingOnly: once, score: score, exact: v.Whole("rounds")},
			traits:   moe.Traits{Free: true, Gate: moe.Gate{Scale: 1}, Notes: notes, Warnings: append(warnings, storedWarning(l)...)}}), nil
	},
}

// auction is BASE's assignment of tokens to experts.
type auction struct {
	trainingOnly
	score moe.Score
	exact int // rounds before the approximate finish

	tokens, experts int
	z               []float32 // logits, [E][T]
	tile            []float32
	wanted          []int     // tokens that each expert is to have, [E]
	cost            []float32 // [T]
	holder          []int32   // the last highest bidder, [T]; −1 while nobody has bid
	bid             []float32 // the highest of the round, [T]
	bidder          []int32   // and whose it is, [T]
	keys            []int64
	demand          []int
	want, tried     []uint64
}

// finish bounds the approximate rounds, which have always come to an end in far fewer; the rest then goes to the next best.
const finish = 2000

func (x *auction) revise(b *moe.Batch, s, _ []float32, a *moe.Assignment) error {
	if x.greedy(b) {
		return nil
	}
	x.load(b, s, a.Mask)
	low, high := slices.Min(x.z), slices.Max(x.z)
	epsilon := max((high-low)/50, 1e-4)
	for round := range x.exact + finish {
		if x.round(round, high, epsilon) {
			break
		}
	}
	x.settle(b, s, a)
	return nil
}

// load takes over a batch: its logits by expert, and how many tokens each expert is to have. greedy holds the top-1 choice.
func (x *auction) load(b *moe.Batch, s []float32, greedy []uint64) {
	x.tokens, x.experts = b.Tokens, b.Layer.Experts
	n := x.experts * vec.Lanes
	x.tile, x.z = resize(x.tile, n), resize(x.z, x.experts*x.tokens)
	x.demand, x.wanted = resize(x.demand, x.experts), resize(x.wanted, x.experts)
	clear(x.demand)
	for i := range b.Tiles {
		t := &b.Tiles[i]
		logits(x.score, x.tile, s[i*n:(i+1)*n])
		for e := range x.experts {
			copy(x.z[e*x.tokens+t.Start:], x.tile[e*vec.Lanes:e*vec.Lanes+t.Tokens])
			x.demand[e] += bits.OnesCount64(greedy[i*x.experts+e])
		}
	}
	for e := range x.wanted {
		x.wanted[e] = x.tokens / x.experts
	}
	for range x.tokens % x.experts {
		most := 0
		for e, n := range x.demand {
			if n > x.demand[most] {
				most = e
			}
		}
		x.wanted[most]++
		x.demand[most] = -1
	}
	x.cost, x.bid = resize(x.cost, x.tokens), resize(x.bid, x.tokens)
	x.holder, x.bidder = resize(x.holder, x.tokens), resize(x.bidder, x.tokens)
	x.keys = resize(x.keys, x.tokens)
	clear(x.cost)
	for t := range x.holder {
		x.holder[t] = -1
	}
}

// round lets every expert bid once and reports whether every token got a bid.
func (x *auction) round(round int, high, epsilon float32) bool {
	clear(x.bid)
	for e := range x.experts {
		x.bidFor(e, round, high, epsilon)
	}
	all := true
	for t, v := range x.bid {
		if v == 0 {
			all = false
			continue
		}
		x.cost[t] += v
		x.holder[t] = x.bidder[t]
	}
	return all
}

// bidFor places the bids of one expert: for its best tokens how much more they are worth than the first it does without.
func (x *auction) bidFor(e, round int, high, epsilon float32) {
	n := x.wanted[e]
	if n == 0 {
		return
	}
	z := x.z[e*x.tokens : (e+1)*x.tokens]
	value := func(t int) float32 {
		switch {
		case int(x.holder[t]) != e:
			return z[t] - x.cost[t]
		case round <= x.exact:
			return high
		}
		return z[t]
	}
	for t := range z {
		x.keys[t] = rankKey(value(t), t)
	}
	last := order.Nth(x.keys, max(0, x.tokens-n-1)) // the first token that e does without; of all, the worst
	without := value(math.MaxInt32 - int(uint32(last)))
	for t := range z {
		v := value(t)
		var bid float32
		switch retained := int(x.holder[t]) == e && round < x.exact; {
		case retained:
			bid = epsilon
		case rankKey(v, t) > last || n == x.tokens:
			bid = v - without + epsilon
		}
		if bid > x.bid[t] {
			x.bid[t], x.bidder[t] = bid, int32(e)
		}
	}
}

// settle marks the outcome. Bids that are one for each token are an assignment; should they not be, because rounds ran out,
// every expert keeps its first and the other tokens go to their next best with room.
func (x *auction) settle(b *moe.Batch, s []float32, a *moe.Assignment) {
	clear(a.Mask)
	x.want, x.tried = resize(x.want, len(b.Tiles)), resize(x.tried, len(a.Mask))
	clear(x.tried)
	for i := range b.Tiles {
		x.want[i] = b.Tiles[i].Live()
	}
	for t, e := range x.bidder {
		if x.bid[t] > 0 && x.wanted[e] > 0 {
			x.wanted[e]--
			i, bit := t/vec.Lanes, uint64(1)<<(t%vec.Lanes)
			a.Mask[i*x.experts+int(e)] |= bit
			x.want[i] &^= bit
		}
	}
	nextBest(b, s, x.want, x.tried, a.Mask, x.wanted)
}
