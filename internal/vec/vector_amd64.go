package vec

import (
	"math/bits"

	"golang.org/x/sys/cpu"
)

func init() {
	if cpu.X86.HasAVX2 && cpu.X86.HasBMI1 {
		offer(avx2.kernel("avx2"))
	}
	if cpu.X86.HasBMI1 && cpu.X86.HasAVX512F && cpu.X86.HasAVX512BW && cpu.X86.HasAVX512DQ && cpu.X86.HasAVX512VL {
		offer(avx512.kernel("avx512"))
	}
}

// assembly is one tier of generated functions. They know neither bounds nor odd shapes; the methods here do.
type assembly struct {
	lanes           int // numbers in a vector
	product         func(z, w, x *float32, panels, cols int)
	outer, outerRow func(sum, grad, tokens *float32, panels, cols int)
	transpose       func(out, x *float32, blocks, cols int)

	sigmoid, softmax, sqrtSoftplus                         func(s, z *float32, rows int)
	sigmoidBackward, softmaxBackward, sqrtSoftplusBackward func(g, s *float32, rows int)

	// of 2^i rows; the positive and, without a bias, the plain form are right where no key of a list is negative
	best, positive, plain [6]best

	choose func(mask *uint64, sum *float32, list *int32, s, bias *float32, allowed *uint64, groups, size, k int) (ties, negative int)
	settle func(mask *uint64, list *int32, s, bias *float32, allowed *uint64, groups, size, k int)
	groups func(allowed *uint64, rank, s, bias *float32, groups, size, kept int)

	normals func(dst []float32, key uint64)

	sumChosen    func(sum, s *float32, mask *uint64, rows int)
	invert       func(x *float32)
	total        func(x *Row) [8]float64
	sumSquares   func(sum, s *float32, rows int)
	gateError    func(err, mean, grad, s, ideal *float32, mask *uint64, inverse, invIdeal *float32, weight float32, rows int)
	gateGradient func(grad, mean, inverse *float32, mask *uint64, rows int)
	weighted     func(sum, all, s, weights *float32, rows int)
	addPrices    func(grad, weights, offset, scale *float32, rows int)
	above        func(mask *uint64, s, offset, least *float32, rows int)
	lists        func(ids *int32, gates *float32, mask *uint64, s, inverse *float32, rows, k, places int)

	mix    func(energy, x, a, b *float32, noise float32, rows int)
	scale  func(x, factor *float32, rows int)
	gather func(out, table *float32, source *int32, blocks, width int)
	load   func(out, table *float32, blocks, width, ahead int)

	peak func(n int)
}

type best func(list *int32, s, bias *float32, allowed *uint64, groups, size int)

var (
	avx512 = assembly{16, productAVX512, outerAVX512, outerRowAVX512, transposeAVX512,
		sigmoidAVX512, softmaxAVX512, sqrtSoftplusAVX512, sigmoidBackwardAVX512, softmaxBackwardAVX512, sqrtSoftplusBackwardAVX512,
		[6]best{best2AVX512, best2AVX512, best4AVX512, best8AVX512, best16AVX512, best32AVX512}, [6]best{best2PositiveAVX512, best2PositiveAVX512, best4PositiveAVX512, best8PositiveAVX512},
		[6]best{best2PlainAVX512, best2PlainAVX512, best4PlainAVX512, best8PlainAVX512}, chooseAVX512, settleAVX512, groupsAVX512, drawAVX512,
		sumChosenAVX512, invertAVX512, totalsAVX512, sumSquaresAVX512, gateErrorAVX512, gateGradientAVX512, weightedAVX512, addPricesAVX512, aboveAVX512, listsAVX512,
		mixAVX512, scaleAVX512, gatherAVX512, loadAVX512, peakAVX512}
	avx2 = assembly{8, productAVX2, outerAVX2, outerRowAVX2, transposeAVX2,
		sigmoidAVX2, softmaxAVX2, sqrtSoftplusAVX2, sigmoidBackwardAVX2, softmaxBackwardAVX2, sqrtSoftplusBackwardAVX2,
		[6]best{best2AVX2, best2AVX2, best4AVX2, best8AVX2, best16AVX2, best32AVX2}, [6]best{best2PositiveAVX2, best2PositiveAVX2, best4PositiveAVX2, best8PositiveAVX2},
		[6]best{best2PlainAVX2, best2PlainAVX2, best4PlainAVX2, best8PlainAVX2}, chooseAVX2, settleAVX2, groupsAVX2, drawAVX2,
		sumChosenAVX2, invertAVX2, totalsAVX2, sumSquaresAVX2, gateErrorAVX2, gateGradientAVX2, weightedAVX2, addPricesAVX2, aboveAVX2, listsAVX2,
		mixAVX2, scaleAVX2, gatherAVX2, loadAVX2, peakAVX2}
)

func (a *assembly) kernel(name string) *kernel {
	return &kernel{name: name, panels: panelsOf8, product: a.times, outer: a.addOuter, outerRows: a.addRows,
		sigmoid: a.scoring(a.sigmoid), softmax: a.scoring(a.softmax), sqrtSoftplus: a.scoring(a.sqrtSoftplus),
		sigmoidBackward: a.scoring(a.sigmoidBackward), softmaxBackward: a.scoring(a.softmaxBackward),
		sqrtSoftplusBackward: a.scoring(a.sqrtSoftplusBackward),
		topK:                 a.topK, groups: a.bestGroups, normals: a.normals,
		sumChosen: a.chosenSums, invert: a.inverted, total: a.total, sumSquares: a.squareSums, gateError: a.gateErrors, gateGradient: a.gateGradients,
		weightedSum: a.weightedSums, addPrices: a.pricesAdded, above: a.allAbove, lists: a.listed, mix: a.mixed, scale: a.scaled, gather: a.gathered, load: a.loaded, unload: a.unloaded, peak: a.floatingPoint}
}

func (*assembly) scoring(f func(to, from *float32, rows int)) scoring {
	return func(to, from []float32, rows int) {
		to, from = to[:rows*Lanes], from[:rows*Lanes]
		f(&to[0], &from[0], rows)
	}
}

// panelsOf8 divides at least 8 rows. The last panel reaches back into the one before so that it is full.
func panelsOf8(rows int) (panels []panel) {
	for r := 0; r < rows && rows >= 8; r += 8 {
		panels = append(panels, panel{min(r, rows-8), 8})
	}
	return panels
}

func (a *assembly) times(m *Matrix, z, x, _ []float32) {
	full := m.rows / 8
	a.product(&z[0], &m.packed[0][0], &x[0], full, m.cols)
	if last := len(m.panels) - 1; last == full {
		a.product(&z[m.panels[last].first*Lanes], &m.packed[last*m.cols][0], &x[0], 1, m.cols)
	}
}

func (a *assembly) addOuter(sum *Gradient, g, x, scratch []float32) {
	tokens := scratch[:Lanes*sum.stride]
	a.toRows(tokens, x, sum.cols, sum.stride)
	a.addTokens(sum, g, tokens)
}

// toRows writes a tile of the given width to rows of the given stride.
func (a *assembly) toRows(table, tile []float32, width, stride int) {
	whole := width / a.lanes
	if whole > 0 {
		a.transpose(&table[0], &tile[0], whole, stride)
	}
	for c := whole * a.lanes; c < width; c++ {
		for t, v := range row(tile, c) {
			table[t*stride+c] = v
		}
	}
}

func (a *assembly) unloaded(table, tile []float32, width int) { a.toRows(table, tile, width, width) }

func (a *assembly) addRows(sum *Gradient, g, rows, scratch []float32) {
	tokens := rows
	if sum.stride != sum.cols {
		tokens = scratch[:Lanes*sum.stride]
		for t := range Lanes {
			copy(tokens[t*sum.stride:], rows[t*sum.cols:(t+1)*sum.cols])
		}
	}
	a.addTokens(sum, g, tokens)
}

// addTokens adds the outer products of tokens in rows of the gradient's stride.
func (a *assembly) addTokens(sum *Gradient, g, tokens []float32) {
	panels := sum.rows / 8
	if panels > 0 {
		a.outer(&sum.sum[0], &g[0], &tokens[0], panels, sum.stride)
	}
	if rest := sum.rows % 8; rest > 0 {
		a.outerRow(&sum.sum[panels*8*sum.stride], &g[panels*8*Lanes], &tokens[0], rest, sum.stride)
	}
}

func (a *assembly) topK(q *Selector, mask []uint64, s, bias []float32, live uint64, allowed []uint64) {
	n := bits.Len(uint(q.k - 1))
	if n >= len(a.best) {
		topKPortable(q, mask, s, bias, live, allowed)
		return
	}
	size := len(mask)
	words := q.allowed[:max(1, len(allowed))]
	words[0] = live
	for g, w := range allowed {
		words[g] = w & live
		size = len(mask) / len(allowed)
	}
	b := q.withoutNegativeZeros(bias, len(mask))
	best := &a.positive
	if bias == nil {
		best = &a.plain
	}
	if q.signed > 0 || best[n] == nil {
		q.signed = max(0, q.signed-1)
		best = &a.best
	}
	ties, negative := a.listAndChoose(best[n], q, mask, s, b, words, size)
	if negative && best != &a.best {
		q.signed = 64
		ties, _ = a.listAndChoose(a.best[n], q, mask, s, b, words, size)
	}
	if ties {
		a.settle(&mask[0], &q.list[0], &s[0], &b[0], &words[0], len(words), size, q.k)
		a.chosenSums(&q.Sum, s, mask)
	}
}

func (a *assembly) listAndChoose(best best, q *Selector, mask []uint64, s, bias []float32, words []uint64, size int) (ties, negative bool) {
	best(&q.list[0], &s[0], &bias[0], &words[0], len(words), size)
	more, below := a.choose(&mask[0], &q.Sum[0], &q.list[0], &s[0], &bias[0], &words[0], len(words), size, q.k)
	return more != 0, below != 0
}

func (a *assembly) bestGroups(q *Selector, allowed []uint64, s, bias []float32, rows, kept int) {
	b := q.withoutNegativeZeros(bias, rows)
	a.groups(&allowed[0], &q.group[0][0], &s[0], &b[0], len(allowed), rows/len(allowed), kept)
}

// withoutNegativeZeros returns a bias that, added to a number, never gives −0, whose key is not that of 0: x + 0 is 0 for
// x = −0. A bias that is nil counts as 0.
func (q *Selector) withoutNegativeZeros(bias []float32, rows int) []float32 {
	if len(q.bias) < rows {
		q.bias, q.zeros = make([]float32, rows), make([]float32, rows)
	}
	if bias == nil {
		return q.zeros[:rows]
	}
	for e, v := range bias[:rows] {
		q.bias[e] = v + 0 // 0 for −0
	}
	return q.bias[:rows]
}

// Called by name, the generated functions let the state stay on the stack.

func drawAVX512(dst []float32, key uint64) {
	if s := seeded(key); len(dst) > 0 {
		normalsAVX512(&dst[0], &s, len(dst)/(2*streams))
	}
}

func totalsAVX512(x *Row) (part [8]float64) {
	totalAVX512(&part, &x[0])
	return part
}

func totalsAVX2(x *Row) (part [8]float64) {
	totalAVX2(&part, &x[0])
	return part
}

func drawAVX2(dst []float32, key uint64) {
	if s := seeded(key); len(dst) > 0 {
		normalsAVX2(&dst[0], &s, len(dst)/(2*streams))
	}
}

func (a *assembly) chosenSums(sum *Row, s []float32, mask []uint64) {
	a.sumChosen(&sum[0], &s[0], &mask[0], len(mask))
}

func (a *assembly) inverted(x *Row) { a.invert(&x[0]) }

func (a *assembly) squareSums(sum *Row, s []float32, rows int) { a.sumSquares(&sum[0], &s[0], rows) }

func (a *assembly) gateErrors(err, mean *Row, g, s, ideal []float32, mask []uint64, inverse, invIdeal *Row, weight float32) {
	a.gateError(&err[0], &mean[0], &g[0], &s[0], &ideal[0], &mask[0], &inverse[0], &invIdeal[0], weight, len(mask))
}

func (a *assembly) gateGradients(g []float32, mean, inverse *Row, mask []uint64) {
	a.gateGradient(&g[0], &mean[0], &inverse[0], &mask[0], len(mask))
}

func (a *assembly) weightedSums(sum, all *Row, s, weights []float32) {
	a.weighted(&sum[0], &all[0], &s[0], &weights[0], len(weights))
}

func (a *assembly) pricesAdded(g, weights []float32, offset, scale *Row) {
	a.addPrices(&g[0], &weights[0], &offset[0], &scale[0], len(weights))
}

func (a *assembly) allAbove(mask []uint64, s, least []float32, offset *Row) {
	a.above(&mask[0], &s[0], &offset[0], &least[0], len(mask))
}

func (a *assembly) listed(ids []int32, gates []float32, mask []uint64, s []float32, inverse *Row, k int) {
	a.lists(&ids[0], &gates[0], &mask[0], &s[0], &inverse[0], len(mask), k, len(ids))
}

func (a *assembly) mixed(energy *Row, x, from, with []float32, noise float32, rows int) {
	a.mix(&energy[0], &x[0], &from[0], &with[0], noise, rows)
}

func (a *assembly) scaled(x []float32, factor *Row, rows int) { a.scale(&x[0], &factor[0], rows) }

func (a *assembly) floatingPoint(n int) float64 {
	const chains = 12 // as the generator has it
	for left := n; left > 0; left -= 1 << 16 {
		a.peak(min(left, 1<<16)) // assembly cannot be interrupted, so in short calls
	}
	return float64(2 * chains * a.lanes * n)
}

// nearBytes is what a table may hold to be found in a processor's own cache without being fetched ahead.
const nearBytes = 1 << 20

func (a *assembly) loaded(tile, table []float32, width int) {
	whole, ahead := width/a.lanes, 0
	if size := 4 * Lanes * width; 4*len(table) > max(nearBytes, size) {
		ahead = size
	}
	if whole > 0 {
		a.load(&tile[0], &table[0], whole, width, ahead)
	}
	if whole*a.lanes < width {
		gatherColumns(tile, table, identity[:], width, whole*a.lanes)
	}
}

func (a *assembly) gathered(tile, table []float32, source []int32, width int) {
	whole := width / a.lanes
	if len(source) < Lanes || whole == 0 {
		gatherPortable(tile, table, source, width)
		return
	}
	least, most := source[0], source[0]
	for _, i := range source[:Lanes] {
		least, most = min(least, i), max(most, i)
	}
	_, _ = table[int(least)*width], table[(int(most)+1)*width-1]
	a.gather(&tile[0], &table[0], &source[0], whole, width)
	if whole*a.lanes < width {
		gatherColumns(tile, table, source, width, whole*a.lanes)
	}
}
