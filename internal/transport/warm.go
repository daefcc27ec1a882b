package transport

import (
	"slices"

	"evenkeel/internal/order"
)

const (
	maxSweeps = 32

	// maxStart bounds the starting prices far above any useful price and far
	// below unreachable.
	maxStart = 1 << 52

	// slowInertia is the share of its previous step, in eighths, that a price
	// keeps once sweeps gain less than a quarter. Larger values gain more on
	// chains of similar experts but overshoot elsewhere.
	slowInertia = 3
)

// warmStart holds the buffers of the search for starting prices.
type warmStart struct {
	width  int     // K+1
	rank   []int32 // [T][K+1] best experts of each token, best first
	value  []int64 // [K+1] their score less price
	inside []int64 // [T] K-th best score less price
	beyond []int64 // [T] (K+1)-th best
	bid    []int64 // [T] highest price at which each token takes an expert
	next   []int64 // [E] prices under construction
	prev   []int64 // [E] prices one sweep earlier
	kept   []int64 // [E] best prices so far
	load   []int   // [E]
}

func (w *warmStart) init(tokens, experts, topk int) {
	w.width = min(topk+1, experts)
	w.rank = make([]int32, tokens*w.width)
	w.value = make([]int64, w.width)
	w.inside = make([]int64, tokens)
	w.beyond = make([]int64, tokens)
	w.bid = make([]int64, tokens)
	w.next = make([]int64, experts)
	w.prev = make([]int64, experts)
	w.kept = make([]int64, experts)
	w.load = make([]int, experts)
}

// best returns the K best experts of token t at the latest ranking.
func (w *warmStart) best(t int) []int32 {
	return w.rank[t*w.width:][:w.width-1]
}

// startPrices sets prices that nearly balance the loads and ranks the experts
// of every token at them. It sweeps as long as sweeps pay: one costs about as
// much as the paths for T/32 misplaced places.
func (s *Solver) startPrices() {
	w := &s.warm
	w.reset()
	clear(s.price)
	least := s.rank()
	misplaced, inertia := least, int64(0)
	copy(w.kept, s.price)
	copy(w.prev, s.price)
	for range maxSweeps {
		s.sweep(inertia)
		misplaced = s.rank()
		saved := least - misplaced
		if saved < least/4 {
			inertia = slowInertia
		}
		if saved > 0 {
			least = misplaced
			copy(w.kept, s.price)
		}
		if saved <= s.tokens/32 {
			break
		}
	}
	if misplaced > least {
		copy(s.price, w.kept)
		s.rank()
	}
	s.priceExtra()
}

// reset starts the ranking with the first K+1 experts.
func (w *warmStart) reset() {
	for i := range w.rank {
		w.rank[i] = int32(i % w.width)
	}
}

// rank finds the K+1 best experts of every token at the current prices, ties
// to the lowest index, and returns the number of places to be moved.
func (s *Solver) rank() int {
	w := &s.warm
	clear(w.load)
	for t := range s.tokens {
		rank := w.rank[t*w.width:][:w.width]
		s.rankToken(s.row(t), rank)
		w.inside[t], w.beyond[t] = w.value[w.width-2], w.value[w.width-1]
		for _, e := range rank[:w.width-1] {
			w.load[e]++
		}
	}
	over, under := 0, 0
	for _, n := range w.load {
		over += max(0, n-s.floor-min(1, s.extra))
		under += max(0, s.floor-n)
	}
	return max(over, under)
}

// rankToken replaces rank by the best experts of one token and w.value by
// their score less price. The old ranking bounds the new one from below, so
// that most experts are passed over at one comparison.
func (s *Solver) rankToken(row []int64, rank []int32) {
	price, value := s.price[:len(row)], s.warm.value[:len(rank)]
	bound := int64(unreachable)
	for _, e := range rank {
		bound = min(bound, row[e]-price[e])
	}
	bound--
	for i := range value {
		value[i] = bound
	}
	last := len(value) - 1
	for e, v := range row {
		v -= price[e]
		if v <= bound {
			continue
		}
		i := last
		for i > 0 && value[i-1] < v {
			value[i], rank[i] = value[i-1], rank[i-1]
			i--
		}
		value[i], rank[i] = v, int32(e)
		bound = value[last]
	}
}

// sweep moves every price to where its expert alone would be balanced, the
// others fixed: between the bids of the last token it should keep and the
// first it should lose. A token's bid for an expert is the price at which it
// becomes indifferent to it,
//
//	bid[t][e] = s[t][e] - (K-th largest of s[t][f] - p[f] over f ≠ e).
//
// To the step it adds the given number of eighths of the step before.
func (s *Solver) sweep(inertia int64) {
	w := &s.warm
	for e := range s.experts {
		p := s.price[e]
		col := s.byExp[e*s.tokens:][:s.tokens]
		inside, beyond, bid := w.inside[:len(col)], w.beyond[:len(col)], w.bid[:len(col)]
		for t, v := range col {
			rival := inside[t]
			if v-p >= rival {
				rival = beyond[t]
			}
			bid[t] = v - rival
		}
		step := s.balancedPrice(bid, p) - p
		// The others move at the same time, so a full step overshoots: among E
		// equal experts by 1/(E-1) of it.
		step -= step / int64(s.experts)
		step += (p - w.prev[e]) / 8 * inertia
		w.next[e] = min(max(p+step, -maxStart), maxStart)
	}
	copy(w.prev, s.price)
	copy(s.price, w.next)
}

// balancedPrice returns the middle of the prices at which floor or ceil of
// the bids are won, or the one nearest to p when they have no lower or no
// upper end. It reorders bids.
func (s *Solver) balancedPrice(bids []int64, p int64) int64 {
	n, floor, ceil := len(bids), s.floor, s.floor+min(1, s.extra)
	switch {
	case floor == 0 && ceil >= n:
		return p
	case ceil >= n:
		return min(p, order.Nth(bids, n-floor))
	}
	low := order.Nth(bids, n-ceil-1)
	if floor == 0 {
		return max(p, low)
	}
	high := order.Nth(bids[n-ceil:], ceil-floor)
	return low + (high-low)/2
}

// priceExtra sets μ between the prices of the experts that should and should
// not carry extra load.
func (s *Solver) priceExtra() {
	if s.extra == 0 {
		s.price[s.experts] = 0
		return
	}
	p := s.warm.next
	copy(p, s.price)
	slices.Sort(p)
	i := s.experts - s.extra
	s.price[s.experts] = p[i-1] + (p[i]-p[i-1])/2
}
