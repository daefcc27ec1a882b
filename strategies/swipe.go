package strategies

import (
	"fmt"

	"evenkeel/internal/vec"
	"evenkeel/moe"
)

var swipe = Preset{
	Name:    "swipe",
	Family:  "assignment",
	Summary: "overflow goes to whoever has room, affinity ignored: balance at any price, in training; plain top-K elsewhere",
	Formula: `workers are the scenario's groups, of n experts each; without groups every expert is a worker. Each has room for TK/workers.
For k = 0..K−1:  the k-th best experts of all tokens, in token order: taken while their worker has room;
  then the tokens left out, in order: expert k mod n of the first worker with room.  Gates g = s

Where rooms differ by one, the first workers have the larger. A token's experts are distinct here: it takes the worker's next
expert where it has that one, passes over a worker all of whose experts it has, and if only such have room, trades with the
first token so reassigned (FastMoE lets a token have an expert twice). Workers are exactly even; experts of a worker
need not be. Gates in FastMoE are a softmax over the chosen logits: score=softmax, normalised. Ignores group limits.`,
	Knobs:   []Knob{evaluateKnob("swipe"), scoreKnob},
	Needs:   "the scores of all experts",
	Changes: "which experts",
	Fails:   "reassigned tokens go to experts without regard to affinity, the lowest first; not causal: a token keeps its expert if earlier ones leave room, and gets another by what later ones leave",
	Paper:   "FastMoE's SWIPE gate: fmoe/gates/swipe_gate.py and cuda/balancing.cu (release of 2024)",
	Read:    "code (FastMoE), where a forward pass is evened; here the whole step",
	Build: func(v Values, l moe.Layer) (*strategy, error) {
		score, warnings, err := v.score(l)
		if err != nil {
			return nil, err
		}
		once, notes := v.trainingOnly()
		workers := l.Groups
		if workers == 1 {
			workers = l.Experts
		} else {
			notes = append(notes, fmt.Sprintf("even over %d workers, not over the %d experts of each: what is reassigned goes to the first %d of them",
				workers, l.Experts/workers, min(l.TopK, l.Experts/workers)))
		}
		return compose(&strategy{layer: l, score: score, selection: topK{free(l)},
			revision: &blind{trainingOnly: once, size: l.Experts / workers, room: make([]int, workers)},
			traits:   moe.Traits{Free: true, Notes: notes, Warnings: warnings}}), nil
	},
}

// blind is SWIPE's reassignment.
type blind struct {
	trainingOnly
	size int   // experts of a worker
	room []int // places left at each worker

	tried []uint64 // choices considered so far, [tile·E]
	moved []uint64 // places that were given blindly, [tile·E]
	want  []uint64
}

func (w *blind) revise(b *moe.Batch, s, _ []float32, a *moe.Assignment) error {
	if w.greedy(b) {
		return nil
	}
	w.want, w.tried, w.moved = resize(w.want, len(b.Tiles)), resize(w.tried, len(a.Mask)), resize(w.moved, len(a.Mask))
	clear(a.Mask)
	clear(w.tried)
	clear(w.moved)
	places := b.Tokens * b.Layer.TopK
	for x := range w.room {
		w.room[x] = places / len(w.room)
		if x < places%len(w.room) {
			w.room[x]++
		}
	}
	for k := range b.Layer.TopK {
		w.admit(b, s, a)
		for i, lanes := range w.want {
			for ; lanes != 0; lanes &= lanes - 1 {
				w.place(a, i, lanes&-lanes, k)
			}
		}
	}
	return nil
}

// admit gives every token its next own choice where the worker has room, and leaves the others in want.
func (w *blind) admit(b *moe.Batch, s []float32, a *moe.Assignment) {
	e := a.Experts
	var best [moe.TileTokens]int32
	for i := range b.Tiles {
		w.want[i] = 0
		favourites(&best, s[i*e*vec.Lanes:(i+1)*e*vec.Lanes], w.tried[i*e:(i+1)*e], b.Tiles[i].Live())
		for t, x := range best[:b.Tiles[i].Tokens] {
			at, bit := i*e+int(x), uint64(1)<<t
			w.tried[at] |= bit
			if worker := int(x) / w.size; w.room[worker] > 0 && a.Mask[at]&bit == 0 {
				w.room[worker]--
				a.Mask[at] |= bit
			} else {
				w.want[i] |= bit
			}
		}
	}
}

// place gives the token at a tile's bit an expert of the first worker that has room and an expert for it.
func (w *blind) place(a *moe.Assignment, tile int, bit uint64, k int) {
	for worker, room := range w.room {
		if room == 0 {
			continue
		}
		if x := w.lacks(a.Tile(tile), worker, bit, k); x >= 0 {
			w.room[worker]--
			w.give(a, tile, x, bit)
			return
		}
	}
	for worker, room := range w.room {
		if room > 0 && (w.trade(a, w.moved, worker, tile, bit, k) || w.trade(a, a.Mask, worker, tile, bit, k)) {
			return
		}
	}
}

// lacks returns the expert of a worker that a token is to get: the k-th, or the next that it does not have, or −1.
func (w *blind) lacks(mask []uint64, worker int, bit uint64, k int) int {
	for i := range w.size {
		if x := worker*w.size + (k+i)%w.size; mask[x]&bit == 0 {
			return x
		}
	}
	return -1
}

// trade gives a token the place of the first other one among the givers that can go to a worker with room instead.
func (w *blind) trade(a *moe.Assignment, givers []uint64, worker, tile int, bit uint64, k int) bool {
	e := a.Experts
	for i := range w.want {
		mask := a.Tile(i)
		full := ^uint64(0) // lanes that have all of the worker's experts
		for _, m := range mask[worker*w.size : (worker+1)*w.size] {
			full &= m
		}
		for x, m := range givers[i*e : (i+1)*e] {
			if x/w.size == worker || a.Tile(tile)[x]&bit != 0 || m&^full == 0 {
				continue
			}
			other := m &^ full & -(m &^ full)
			w.room[worker]--
			mask[x] &^= other
			w.moved[i*e+x] &^= other
			w.give(a, i, w.lacks(mask, worker, other, k), other)
			w.give(a, tile, x, bit)
			return true
		}
	}
	return false
}

// give marks a place that a token got blindly.
func (w *blind) give(a *moe.Assignment, tile, expert int, bit uint64) {
	a.Tile(tile)[expert] |= bit
	w.moved[tile*a.Experts+expert] |= bit
}
