package strategies

import (
	"fmt"
	"slices"

	"evenkeel/internal/rng"
	"evenkeel/moe"
)

// Kinds of hash.
const (
	tableRandom   = "random"
	tableBalanced = "balanced"
	tableNgram    = "ngram"
)

var hash = Preset{
	Name:    "hash",
	Family:  "structure",
	Summary: "a token's id names its experts, by a table that never learns",
	Formula: `S_t = table[id_t];  gates from the learned s
random:    K distinct experts by a fixed hash of the id, the same for every seed
balanced:  ids by falling frequency p, each to the K experts with the least load so far, which grows by p/K for each
ngram:     slot i has expert (a·q_i + b) mod E for the id b and the id a before it in its sequence (0 at its start), q_i the
           K smallest primes above 2^20; a slot whose expert is taken takes the next one

A balanced table needs frequencies, which no one has in advance: it is fitted on the ids of the first steps, during which
the random table routes, then frozen; ids that it has not seen keep the random table. Group limits do not apply.`,
	Knobs: []Knob{
		{Name: "table", Default: tableRandom, Options: []string{tableRandom, tableBalanced, tableNgram}, About: "how experts follow from ids"},
		{Name: "fit", Default: "50", Whole: true, Low: 1, High: 1e9, About: "steps whose ids fit the balanced table"},
	},
	Needs:   "token ids; sequences for table=ngram",
	Changes: "which experts",
	Fails:   "blind to context; ids are Zipfian, so a random table is uneven, and no table evens an id more frequent than K/E; a fitted table goes stale as the data drift",
	Paper:   "Hash Layers (Roller et al. 2021, arXiv 2106.04426); first layers of DeepSeek-V4; greedy and n-gram tables: J. Su, kexue.fm 11681",
	Read:    "code of the table lookup; the author's blog for the tables, which DeepSeek has not published; Roller et al. from memory",
	Build: func(v Values, l moe.Layer) (*strategy, error) {
		r := &strategy{layer: l, score: l.Score, traits: moe.Traits{Causal: true}}
		switch table := v.Text("table"); {
		case table != tableBalanced && v.Whole("fit") != 50:
			return nil, fmt.Errorf("fit belongs to table=balanced: table=%s has nothing to fit", table)
		case table == tableNgram:
			r.revision = &ngram{layer: l, primes: primesAbove(1<<20, l.TopK)}
		case table == tableBalanced:
			h := &balancedTable{idTable: idTable{l}, fit: v.Whole("fit")}
			r.selection, r.controllers = h, []controller{h}
		default:
			r.selection = idTable{l}
		}
		return compose(r), nil
	},
}

// idTable gives every token id K distinct experts, by a fixed hash.
type idTable struct{ layer moe.Layer }

func (h idTable) declare(t *moe.Traits) { t.TokenIDs, t.Free = true, true }

func (h idTable) choose(t *moe.Tile, _, _ []float32, _ *moe.Scratch, mask []uint64) {
	clear(mask)
	for lane := range t.Tokens {
		h.mark(t.Token[lane], mask, lane)
	}
}

func (h idTable) mark(id int32, mask []uint64, lane int) {
	r := rng.New(rng.Key(0, rng.Choice, uint64(uint32(id))))
	subset(&r, h.layer.Experts, h.layer.TopK, mask, lane)
}

// balancedTable is the greedy table, fitted on the ids of the first steps.
type balancedTable struct {
	idTable
	fit    int
	counts []int64  // by id, up to fittedIDs
	slots  []uint16 // [id][K]; nil until fitted
}

// fittedIDs bounds the memory of a table: ids beyond keep the random table.
const fittedIDs = 1 << 20

func (h *balancedTable) choose(t *moe.Tile, _, _ []float32, _ *moe.Scratch, mask []uint64) {
	clear(mask)
	k := h.layer.TopK
	for lane, id := range t.Token[:t.Tokens] {
		if h.slots == nil || id < 0 || int(id) >= len(h.counts) || h.counts[id] == 0 {
			h.mark(id, mask, lane)
			continue
		}
		for _, e := range h.slots[int(id)*k : (int(id)+1)*k] {
			mask[e] |= 1 << lane
		}
	}
}

// update counts a step's ids and, after the last step of the fit, makes the table.
func (h *balancedTable) update(o *moe.Outcome) {
	if h.slots != nil {
		return
	}
	for i := range o.Batch.Tiles {
		t := &o.Batch.Tiles[i]
		for _, id := range t.Token[:t.Tokens] {
			if id < 0 || id >= fittedIDs {
				continue
			}
			if n := int(id) + 1 - len(h.counts); n > 0 {
				h.counts = append(h.counts, make([]int64, n)...)
			}
			h.counts[id]++
		}
	}
	if o.Step == h.fit-1 {
		h.make()
	}
}

// make builds the table by falling frequency, ties to the lower id and the lower expert.
func (h *balancedTable) make() {
	k := h.layer.TopK
	h.slots = make([]uint16, len(h.counts)*k)
	var ids []int
	for id, n := range h.counts {
		if n > 0 {
			ids = append(ids, id)
		}
	}
	slices.SortStableFunc(ids, func(a, b int) int { return int(h.counts[b] - h.counts[a]) })
	load, taken := make([]int64, h.layer.Experts), make([]int, h.layer.Experts)
	for i, id := range ids {
		for slot := range k {
			least := -1
			for e, n := range load {
				if taken[e] <= i && (least < 0 || n < load[least]) {
					least = e
				}
			}
			taken[least] = i + 1
			load[least] += h.counts[id]
			h.slots[id*k+slot] = uint16(least)
		}
	}
}

// ngram hashes an id and the one before it. It routes whole batches, since the token before may lie in another tile.
type ngram struct {
	layer  moe.Layer
	primes []uint64
}

func (h *ngram) declare(t *moe.Traits) { t.TokenIDs, t.Sequences, t.Free = true, true, true }

func (h *ngram) revise(b *moe.Batch, _, _ []float32, a *moe.Assignment) error {
	for i := range b.Tiles {
		clear(a.Tile(i))
	}
	experts := uint64(h.layer.Experts)
	for _, s := range b.Sequences {
		before := uint64(0)
		for token := s.From; token < s.To; token++ {
			tile, lane := token/moe.TileTokens, token%moe.TileTokens
			mask, id := a.Tile(tile), uint64(uint32(b.Tiles[tile].Token[lane]))
			for _, q := range h.primes {
				e := (before*q + id) % experts
				for mask[e]>>lane&1 != 0 {
					e = (e + 1) % experts
				}
				mask[e] |= 1 << lane
			}
			before = id
		}
	}
	return nil
}

// primesAbove returns the n smallest primes greater than x, which is at least 2.
func primesAbove(x uint64, n int) (primes []uint64) {
	for x++; len(primes) < n; x++ {
		d := uint64(2)
		for d*d <= x && x%d != 0 {
			d++
		}
		if d*d > x {
			primes = append(primes, x)
		}
	}
	return primes
}
