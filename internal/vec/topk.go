package vec

import "math"

// Selector finds the best K rows of every token of a tile. It is scratch that one worker owns.
type Selector struct {
	k     int
	value []float32 // [64][k], best first
	index []int32   // [64][k]
	least Row       // value of the k-th best so far
	group []Row     // rank value of each group
}

// NewSelector returns a selector of the k best rows out of at most the given number of groups.
func NewSelector(k, groups int) *Selector {
	return &Selector{k: k, value: make([]float32, Lanes*k), index: make([]int32, Lanes*k), group: make([]Row, groups)}
}

// TopK marks the k best rows of every live token: bit t of mask[e] is set when row e is among the k largest of
// a[e][t] = s[e][t] + bias[e]. Ties go to the lower row; −Inf is never chosen. mask and bias hold one entry for each row,
// bias may be nil, and live has a bit for every token of the tile. allowed, if not nil, has one word for each of its
// equal groups of rows, as Groups fills it: other groups count as −Inf.
func (q *Selector) TopK(mask []uint64, s, bias []float32, live uint64, allowed []uint64) {
	low := float32(math.Inf(-1))
	for i := range q.value {
		q.value[i], q.index[i] = low, -1
	}
	for t := range q.least {
		q.least[t] = low
	}
	group, size := ^uint64(0), len(mask)
	if allowed != nil {
		size = len(mask) / len(allowed)
	}
	for e := range mask {
		if allowed != nil {
			group = allowed[e/size]
		}
		var b float32
		if bias != nil {
			b = bias[e]
		}
		for t, v := range row(s, e) {
			if v += b; v > q.least[t] && group>>t&1 != 0 {
				q.insert(t, v, int32(e))
			}
		}
	}
	clear(mask)
	for t := range Lanes {
		if live>>t&1 == 0 {
			continue
		}
		for _, e := range q.index[t*q.k : (t+1)*q.k] {
			if e >= 0 {
				mask[e] |= 1 << t
			}
		}
	}
}

// insert puts row e into the list of token t, behind equal values, so that the lower row stays ahead.
func (q *Selector) insert(t int, v float32, e int32) {
	value, index := q.value[t*q.k:(t+1)*q.k], q.index[t*q.k:(t+1)*q.k]
	i := len(value) - 1
	for ; i > 0 && value[i-1] < v; i-- {
		value[i], index[i] = value[i-1], index[i-1]
	}
	value[i], index[i] = v, e
	q.least[t] = value[len(value)-1]
}

// Groups finds the groups of rows that each token may touch, by DeepSeek-V3's rule: a group's rank value is the sum of its
// two best a = s + bias (of its only one, where it has one row), and the kept best groups stay, ties to the lower one.
// Bit t of allowed[g] is set when token t may use group g. The rows divide evenly into len(allowed) groups.
func (q *Selector) Groups(allowed []uint64, s, bias []float32, rows, kept int) {
	size := rows / len(allowed)
	low := float32(math.Inf(-1))
	for g := range allowed {
		var first, second Row
		for t := range first {
			first[t], second[t] = low, low
		}
		for e := g * size; e < (g+1)*size; e++ {
			var b float32
			if bias != nil {
				b = bias[e]
			}
			for t, v := range row(s, e) {
				v += b
				second[t] = max(second[t], min(first[t], v))
				first[t] = max(first[t], v)
			}
		}
		q.group[g] = first
		if size > 1 {
			for t, v := range second {
				q.group[g][t] += v
			}
		}
	}
	for g := range allowed {
		allowed[g] = 0
		for t, v := range q.group[g] {
			better := 0
			for h := range allowed {
				if w := q.group[h][t]; w > v || w == v && h < g {
					better++
				}
			}
			if better < kept {
				allowed[g] |= 1 << t
			}
		}
	}
}
