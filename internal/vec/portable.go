package vec

import (
	"math"
	"math/bits"
)

// portable is plain Go, for every platform.
var portable = kernel{
	name:    "portable",
	panels:  portablePanels,
	product: productPortable,
	outer:   outerPortable,

	outerRows: outerRowsPortable,

	topK:   topKPortable,
	groups: groupsPortable,

	normals: normalsPortable,

	sumChosen: sumChosenPortable, invert: invertPortable, total: totalPortable, sumSquares: sumSquaresPortable,
	gateError: gateErrorPortable, gateGradient: gateGradientPortable,
	weightedSum: weightedSumPortable, addPrices: addPricesPortable, above: abovePortable, lists: listsPortable,
	mix: mixPortable, scale: scalePortable, gather: gatherPortable, load: loadPortable, unload: unloadPortable,
	peak: peakPortable,

	sigmoid: sigmoidPortable, sigmoidBackward: sigmoidBackwardPortable,
	softmax: softmaxPortable, softmaxBackward: softmaxBackwardPortable,
	sqrtSoftplus: sqrtSoftplusPortable, sqrtSoftplusBackward: sqrtSoftplusBackwardPortable,
}

// portableWidth is how many of the rows that are left one pass of a product takes: 7 or 4, for which the compiler keeps all
// sums and products in registers, as it does not for 8. Twice 4 is 1 more than 7, so that 2n mod 7 passes of 4 leave a
// multiple of 7 out of n rows; few rows are not enough for that, and the last ones go one by one.
func portableWidth(left int) int {
	fours := 2 * left % 7
	switch {
	case left >= 7 && (fours == 0 || 4*fours > left):
		return 7
	case left >= 4:
		return 4
	}
	return 1
}

func portablePanels(rows int) (panels []panel) {
	for r := 0; r < rows; r += panels[len(panels)-1].rows {
		panels = append(panels, panel{r, portableWidth(rows - r)})
	}
	return panels
}

func productPortable(m *Matrix, z, x, scratch []float32) {
	tokens := scratch[:m.cols*Lanes]
	unloadPortable(tokens, x, m.cols)
	for i, p := range m.panels {
		w, o := m.packed[i*m.cols:(i+1)*m.cols], z[p.first*Lanes:(p.first+p.rows)*Lanes]
		for t := range Lanes {
			h, o := tokens[t*m.cols:(t+1)*m.cols], o[t:]
			switch p.rows {
			case 7:
				o := o[:6*Lanes+1]
				o[0], o[Lanes], o[2*Lanes], o[3*Lanes], o[4*Lanes], o[5*Lanes], o[6*Lanes] = dots7(w, h, 0, 0, 0, 0, 0, 0, 0)
			case 4:
				o := o[:3*Lanes+1]
				o[0], o[Lanes], o[2*Lanes], o[3*Lanes] = dots4(w, h, 0, 0, 0, 0)
			case 1:
				o[0] = dot(w, h, 0)
			}
		}
	}
}

// dots7 adds Σ_c w[c][i]·x[c] to the i-th of the numbers, c in order. Two columns at a time cost fewer instructions.
func dots7(w [][8]float32, x []float32, a0, a1, a2, a3, a4, a5, a6 float32) (_, _, _, _, _, _, _ float32) {
	x = x[:len(w)]
	for c := 1; c < len(w); c += 2 {
		v, y := &w[c-1], x[c-1]
		a0 += float32(v[0] * y)
		a1 += float32(v[1] * y)
		a2 += float32(v[2] * y)
		a3 += float32(v[3] * y)
		a4 += float32(v[4] * y)
		a5 += float32(v[5] * y)
		a6 += float32(v[6] * y)
		v, y = &w[c], x[c]
		a0 += float32(v[0] * y)
		a1 += float32(v[1] * y)
		a2 += float32(v[2] * y)
		a3 += float32(v[3] * y)
		a4 += float32(v[4] * y)
		a5 += float32(v[5] * y)
		a6 += float32(v[6] * y)
	}
	if last := len(w) - 1; last&1 == 0 {
		v, y := &w[last], x[last]
		a0 += float32(v[0] * y)
		a1 += float32(v[1] * y)
		a2 += float32(v[2] * y)
		a3 += float32(v[3] * y)
		a4 += float32(v[4] * y)
		a5 += float32(v[5] * y)
		a6 += float32(v[6] * y)
	}
	return a0, a1, a2, a3, a4, a5, a6
}

func dots4(w [][8]float32, x []float32, a0, a1, a2, a3 float32) (_, _, _, _ float32) {
	x = x[:len(w)]
	for c := range w {
		w, x := &w[c], x[c]
		a0 += float32(w[0] * x)
		a1 += float32(w[1] * x)
		a2 += float32(w[2] * x)
		a3 += float32(w[3] * x)
	}
	return a0, a1, a2, a3
}

func dot(w [][8]float32, x []float32, a float32) float32 {
	x = x[:len(w)]
	for c := range w {
		a += float32(w[c][0] * x[c])
	}
	return a
}

// unloadPortable is the inverse of loadPortable: it makes a row of every token of a tile.
func unloadPortable(table, tile []float32, width int) {
	for t := 0; t < Lanes; t += 8 {
		lines, columns := table[t*width:(t+8)*width], tile[t:]
		l0 := lines[:width]
		l1, l2, l3 := lines[width:][:len(l0)], lines[2*width:][:len(l0)], lines[3*width:][:len(l0)]
		l4, l5, l6, l7 := lines[4*width:][:len(l0)], lines[5*width:][:len(l0)], lines[6*width:][:len(l0)], lines[7*width:][:len(l0)]
		for c := range l0 {
			y := (*[8]float32)(columns[c*Lanes:])
			l0[c], l1[c], l2[c], l3[c] = y[0], y[1], y[2], y[3]
			l4[c], l5[c], l6[c], l7[c] = y[4], y[5], y[6], y[7]
		}
	}
}

func outerPortable(sum *Gradient, g, x, _ []float32) { addOuter(sum, g, x, nil) }

func outerRowsPortable(sum *Gradient, g, rows, _ []float32) { addOuter(sum, g, nil, rows) }

// addOuter adds the tokens of a tile or, if there is none, of rows.
func addOuter(sum *Gradient, g, tile, rows []float32) {
	var tokens [Lanes][8]float32
	width := 0
	for c := 0; c < sum.cols; c += width {
		width = portableWidth(sum.cols - c)
		if tile != nil {
			packTile(&tokens, tile[c*Lanes:(c+width)*Lanes], width)
		} else {
			packRows(&tokens, rows[c:], width, sum.cols)
		}
		for e := range sum.rows {
			gr, o := row(g, e)[:], sum.Row(e)[c:c+width]
			switch width {
			case 7:
				o[0], o[1], o[2], o[3], o[4], o[5], o[6] = dots7(tokens[:], gr, o[0], o[1], o[2], o[3], o[4], o[5], o[6])
			case 4:
				o[0], o[1], o[2], o[3] = dots4(tokens[:], gr, o[0], o[1], o[2], o[3])
			case 1:
				o[0] = dot(tokens[:], gr, o[0])
			}
		}
	}
}

func packTile(tokens *[Lanes][8]float32, x []float32, width int) {
	last := width - 1 // stands for the columns past it, which nobody reads
	x0, x1, x2, x3 := row(x, 0), row(x, min(1, last)), row(x, min(2, last)), row(x, min(3, last))
	x4, x5, x6 := row(x, min(4, last)), row(x, min(5, last)), row(x, last)
	for t := range tokens {
		to := &tokens[t]
		to[0], to[1], to[2], to[3], to[4], to[5], to[6] = x0[t], x1[t], x2[t], x3[t], x4[t], x5[t], x6[t]
	}
}

func packRows(tokens *[Lanes][8]float32, x []float32, width, cols int) {
	for t := range tokens {
		to, from := &tokens[t], x[t*cols:][:width]
		if width < 4 {
			to[0] = from[0]
			continue
		}
		*(*[4]float32)(to[:]) = *(*[4]float32)(from) // the first four and the last four make up seven
		*(*[4]float32)(to[width-4:]) = *(*[4]float32)(from[width-4:])
	}
}

func sigmoidPortable(s, z []float32, rows int) {
	for e := range rows {
		zr, sr := row(z, e), row(s, e)
		for t := 0; t < Lanes; t += 2 { // two exponentials share the loads of constants
			n0, r0 := reduced(-zr[t])
			n1, r1 := reduced(-zr[t+1])
			sr[t], sr[t+1] = 1/(1+scaled(n0, r0)), 1/(1+scaled(n1, r1))
		}
	}
}

func sigmoidBackwardPortable(g, s []float32, rows int) {
	g, s = g[:rows*Lanes], s[:rows*Lanes]
	for i, v := range s {
		g[i] = float32(g[i] * float32(v*(1-v)))
	}
}

func softmaxPortable(s, z []float32, rows int) {
	var key [Lanes]uint32
	for e := range rows {
		for t, v := range row(z, e) {
			key[t] = max(key[t], keyOf(v))
		}
	}
	var top, sum Row
	for t, k := range &key {
		top[t] = valueOf(k)
	}
	for e := range rows {
		zr, sr := row(z, e), row(s, e)
		for t := 0; t < Lanes; t += 2 { // as in sigmoidPortable
			n0, r0 := reduced(zr[t] - top[t])
			n1, r1 := reduced(zr[t+1] - top[t+1])
			p0, p1 := scaled(n0, r0), scaled(n1, r1)
			sr[t], sr[t+1] = p0, p1
			sum[t] += p0
			sum[t+1] += p1
		}
	}
	for t, v := range &sum {
		sum[t] = 1 / v
	}
	for e := range rows {
		sr := row(s, e)
		for t, v := range &sum { // of sum itself, a copy for each row would cost more than the products
			sr[t] *= v
		}
	}
}

func softmaxBackwardPortable(g, s []float32, rows int) {
	var mean Row
	for e := range rows {
		gr, sr := row(g, e), row(s, e)
		for t, v := range gr {
			mean[t] += float32(v * sr[t])
		}
	}
	for e := range rows {
		gr, sr := row(g, e), row(s, e)
		for t, m := range &mean {
			gr[t] = float32(sr[t] * (gr[t] - m))
		}
	}
}

func sqrtSoftplusPortable(s, z []float32, rows int) {
	s, z = s[:rows*Lanes], z[:rows*Lanes]
	for i, v := range z {
		s[i] = float32(math.Sqrt(float64(softplus(v))))
	}
}

// softplus returns ln(1+e^z) = max(z, 0) + ln(1+u) with u = e^−|z|, which is not added to 1 while it is small.
func softplus(z float32) float32 {
	u := Exp(-max(z, -z))
	if u < math.Sqrt2-1 {
		return max(z, 0) + log1pUnit(u)
	}
	return max(z, 0) + (math.Ln2 + log1pUnit(float32((u-1)/2)))
}

func sqrtSoftplusBackwardPortable(g, s []float32, rows int) {
	g, s = g[:rows*Lanes], s[:rows*Lanes]
	for i, v := range s {
		g[i] = float32(g[i]*oneMinusExp(float32(v*v))) / float32(2*v)
	}
}

// oneMinusExp returns 1 − e^(−x) for x > 0, by its series while e^(−x) is close to 1.
func oneMinusExp(x float32) float32 {
	if x > 0.25 {
		return 1 - Exp(-x)
	}
	p := 1 - float32(x*(1./6))
	p = 1 - float32(float32(x*(1./5))*p)
	p = 1 - float32(float32(x*(1./4))*p)
	p = 1 - float32(float32(x*(1./3))*p)
	p = 1 - float32(float32(x*(1./2))*p)
	return float32(x * p)
}

func topKPortable(q *Selector, mask []uint64, s, bias []float32, live uint64, allowed []uint64) {
	low, ranks := float32(math.Inf(-1)), q.ranks[:q.k*Lanes]
	for i := range ranks {
		ranks[i] = rankOf(low, -1)
	}
	for t := range q.least {
		q.least[t] = low
	}
	group, size := live, len(mask)
	if allowed != nil {
		size = len(mask) / len(allowed)
	}
	for e := range mask {
		if allowed != nil {
			group = allowed[e/size] & live
		}
		var b float32
		if bias != nil {
			b = bias[e]
		}
		sr := row(s, e)
		q.insert(above(sr, b, &q.least)&group, sr, b, int32(e))
	}
	clear(mask)
	for i, r := range ranks {
		if e := int32(^uint32(r)); e >= 0 { // there was a live token, and a row for it
			mask[e] |= 1 << (i % Lanes)
		}
	}
	sumChosenPortable(&q.Sum, s, mask)
}

// above has a bit for each token with v + b > least. It takes no branch, which chance would decide. Where this is inlined, the
// compiler keeps the words in memory.
//
//go:noinline
func above(v *Row, b float32, least *Row) uint64 {
	var low, high uint64
	for t := Lanes/2 - 1; t >= 0; t-- {
		var l, h uint64
		if v[t]+b > least[t] {
			l = 1
		}
		if v[t+Lanes/2]+b > least[t+Lanes/2] {
			h = 1
		}
		low, high = 2*low+l, 2*high+h
	}
	return high<<32 | low
}

// keyOf gives larger numbers larger keys (and −0 a smaller one than 0), valueOf is its inverse. Which of two numbers is larger
// depends on chance, and of integers the compiler finds that without a branch.
func keyOf(v float32) uint32 {
	b := math.Float32bits(v)
	return b ^ (uint32(int32(b)>>31) | 1<<31)
}

func valueOf(key uint32) float32 {
	return math.Float32frombits(key ^ (^uint32(int32(key)>>31) | 1<<31))
}

// rankOf makes a number of a value and a row that is larger for the better of two: the larger value, of equal ones the
// lower row.
func rankOf(v float32, e int32) uint64 {
	return uint64(keyOf(v+0))<<32 | uint64(^uint32(e)) // −0 + 0 is 0
}

// insert puts row e into the lists of some tokens. Which place it takes depends on chance, so that no branch may.
func (q *Selector) insert(tokens uint64, v *Row, b float32, e int32) {
	ranks := q.ranks[:q.k*Lanes]
	for ; tokens != 0; tokens &= tokens - 1 {
		t := bits.TrailingZeros64(tokens) & (Lanes - 1)
		r, kept := rankOf(v[t]+b, e), uint64(0)
		for i := t; i < len(ranks); i += Lanes {
			other := ranks[i]
			kept = max(other, r)
			ranks[i], r = kept, min(other, r)
		}
		q.least[t] = valueOf(uint32(kept >> 32))
	}
}

func groupsPortable(q *Selector, allowed []uint64, s, bias []float32, rows, kept int) {
	size := rows / len(allowed)
	for g := range allowed {
		var first, second [Lanes]uint32
		for e := g * size; e < (g+1)*size; e++ {
			var b float32
			if bias != nil {
				b = bias[e]
			}
			topTwo(&first, &second, row(s, e), b)
		}
		value := &q.group[g]
		for t := range value {
			value[t] = valueOf(first[t])
			if size > 1 {
				value[t] += valueOf(second[t])
			}
		}
	}
	for g := range allowed {
		var better [Lanes]uint32
		for h := range allowed {
			if h < g { // unless g is larger
				countLarger(&better, &q.group[g], &q.group[h], 1)
			} else {
				countLarger(&better, &q.group[h], &q.group[g], 0)
			}
		}
		allowed[g] = 0
		for t, n := range &better {
			var bit uint64
			if int(n) < kept {
				bit = 1
			}
			allowed[g] |= bit << t
		}
	}
}

// topTwo takes the keys of v + b among the two largest.
func topTwo(first, second *[Lanes]uint32, v *Row, b float32) {
	for t, v := range v {
		k, other := keyOf(v+b), first[t]
		first[t] = max(other, k)
		second[t] = max(second[t], min(other, k))
	}
}

// countLarger adds 1 where x > y, or where it is not if unless is 1.
func countLarger(n *[Lanes]uint32, x, y *Row, unless uint32) {
	for t, v := range x {
		var bit uint32
		if v > y[t] {
			bit = 1
		}
		n[t] += bit ^ unless
	}
}

func normalsPortable(dst []float32, key uint64) {
	s := seeded(key)
	next := func(l int) uint32 {
		a, b, c, d := s[0][l], s[1][l], s[2][l], s[3][l]
		out := bits.RotateLeft32(a+d, 7) + a
		t := b << 9
		c ^= a
		d ^= b
		b ^= c
		a ^= d
		c ^= t
		s[0][l], s[1][l], s[2][l], s[3][l] = a, b, c, bits.RotateLeft32(d, 11)
		return out
	}
	for ; len(dst) >= 2*streams; dst = dst[2*streams:] {
		for l := range streams {
			u1 := next(l)
			u2 := next(l)
			dst[l], dst[streams+l] = boxMuller(u1, u2)
		}
	}
}

// boxMuller turns two uniform words into two independent standard normal numbers: the radius √(−2 ln u1) and an angle of
// which the polynomials cover one quarter turn; two bits of u2 choose the quadrant.
func boxMuller(u1, u2 uint32) (float32, float32) {
	x := 2 - math.Float32frombits(u1>>9|0x3f800000) // (0, 1]
	r := float32(math.Sqrt(float64(-2 * Log(x))))
	a := math.Float32frombits(u2<<2>>9|0x3f800000) - 1.5
	a *= float32(math.Pi / 2)
	z := float32(a * a)
	const s0, s1, s2, s3 = 0.999999997, -0.166666507, 0.00833203688, -0.00019504022
	const c0, c1, c2, c3 = 0.999999972, -0.499998567, 0.0416550269, -0.00135859085
	square := float32(z * z)
	sn, cs := float32(s3*z)+s2, float32(c3*z)+c2
	sn = float32(sn*square) + (float32(s1*z) + s0)
	cs = float32(cs*square) + (float32(c1*z) + c0)
	sn = float32(float32(sn*a) * r)
	cs *= r
	sign := u2 & 0x80000000
	turn := u2 << 1
	g0, g1 := cs, sn
	if turn&0x80000000 != 0 {
		g0, g1 = sn, cs
	}
	return math.Float32frombits(math.Float32bits(g0) ^ sign),
		math.Float32frombits(math.Float32bits(g1) ^ (turn&0x80000000 ^ sign))
}

func sumChosenPortable(sum *Row, s []float32, mask []uint64) {
	*sum = Row{}
	for e, m := range mask {
		for ; m != 0; m &= m - 1 {
			t := bits.TrailingZeros64(m)
			sum[t] += s[e*Lanes+t]
		}
	}
}

func invertPortable(x *Row) {
	for t, v := range x {
		if v != 0 {
			x[t] = 1 / v
		}
	}
}

func totalPortable(x *Row) (part [8]float64) {
	for t := 0; t < Lanes; t += len(part) {
		for i := range part {
			part[i] += float64(x[t+i])
		}
	}
	return part
}

func sumSquaresPortable(sum *Row, s []float32, rows int) {
	*sum = Row{}
	for e := range rows {
		for t, v := range row(s, e) {
			sum[t] += float32(v * v)
		}
	}
}

func gateErrorPortable(err, mean *Row, g, s, ideal []float32, mask []uint64, inverse, invIdeal *Row, weight float32) {
	*err, *mean = Row{}, Row{}
	clear(g)
	for e, m := range mask {
		for ; m != 0; m &= m - 1 {
			t := bits.TrailingZeros64(m)
			i := e*Lanes + t
			gate := float32(s[i] * inverse[t])
			target := float32(ideal[i] * invIdeal[t])
			r := gate - target
			err[t] += float32(r*r) - float32(target*target)
			r = float32(r * weight)
			g[i] = r
			mean[t] += float32(r * gate)
		}
	}
}

func gateGradientPortable(g []float32, mean, inverse *Row, mask []uint64) {
	for e, m := range mask {
		for ; m != 0; m &= m - 1 {
			t := bits.TrailingZeros64(m)
			i := e*Lanes + t
			g[i] = float32((g[i] - mean[t]) * inverse[t])
		}
	}
}

func weightedSumPortable(sum, all *Row, s, weights []float32) {
	*sum, *all = Row{}, Row{}
	for e, w := range weights {
		for t, v := range row(s, e) {
			sum[t] += float32(w * v)
			all[t] += v
		}
	}
}

func addPricesPortable(g, weights []float32, offset, scale *Row) {
	for e, w := range weights {
		gr := row(g, e)
		for t := range gr {
			gr[t] += float32(scale[t] * (w - offset[t]))
		}
	}
}

func abovePortable(mask []uint64, s, least []float32, offset *Row) {
	for e, bound := range least {
		var word uint64
		for t, v := range row(s, e) {
			var bit uint64
			if v-offset[t] > bound {
				bit = 1
			}
			word = word>>1 | bit<<(Lanes-1)
		}
		mask[e] = word
	}
}

func listsPortable(ids []int32, gates []float32, mask []uint64, s []float32, inverse *Row, k int) {
	var next [Lanes]int
	for t := range next {
		next[t] = t * k
	}
	for e, m := range mask {
		scores := row(s, e)
		for ; m != 0; m &= m - 1 {
			t := bits.TrailingZeros64(m) & (Lanes - 1)
			if i := next[t]; i < len(ids) { // a token with more than k rows
				next[t] = i + 1
				ids[i], gates[i] = int32(e), float32(scores[t]*inverse[t])
			}
		}
	}
}

func mixPortable(energy *Row, x, a, b []float32, noise float32, rows int) {
	*energy = Row{}
	for k := range rows {
		xr, ar, br := row(x, k), row(a, k), row(b, k)
		for t, v := range xr {
			v = (ar[t] + br[t]) + float32(noise*v)
			xr[t] = v
			energy[t] += float32(v * v)
		}
	}
}

func scalePortable(x []float32, factor *Row, rows int) {
	for k := range rows {
		xr := row(x, k)
		for t, f := range factor {
			xr[t] *= f
		}
	}
}

func gatherPortable(tile, table []float32, source []int32, width int) {
	gatherColumns(tile, table, source, width, 0)
}

func loadPortable(tile, table []float32, width int) {
	gatherColumns(tile, table, identity[:], width, 0)
}

var identity = func() (source [Lanes]int32) {
	for t := range source {
		source[t] = int32(t)
	}
	return source
}()

// gatherColumns gathers the columns of the table from one on.
func gatherColumns(tile, table []float32, source []int32, width, from int) {
	t := 0
	for ; t+8 <= len(source); t += 8 {
		s, columns := source[t:t+8], tile[t:]
		l0 := line(table, s[0], width)
		l1, l2, l3 := line(table, s[1], width)[:len(l0)], line(table, s[2], width)[:len(l0)], line(table, s[3], width)[:len(l0)]
		l4, l5 := line(table, s[4], width)[:len(l0)], line(table, s[5], width)[:len(l0)]
		l6, l7 := line(table, s[6], width)[:len(l0)], line(table, s[7], width)[:len(l0)]
		for c := from; c < len(l0); c++ {
			y := (*[8]float32)(columns[c*Lanes:])
			y[0], y[1], y[2], y[3] = l0[c], l1[c], l2[c], l3[c]
			y[4], y[5], y[6], y[7] = l4[c], l5[c], l6[c], l7[c]
		}
	}
	for ; t < Lanes; t++ {
		for c := from; c < width; c++ {
			tile[c*Lanes+t] = 0
			if t < len(source) {
				tile[c*Lanes+t] = line(table, source[t], width)[c]
			}
		}
	}
}

// line is one row of a table.
func line(table []float32, i int32, width int) []float32 {
	return table[int(i)*width : (int(i)+1)*width]
}

func peakPortable(n int) float64 {
	var a0, a1, a2, a3, a4, a5, a6 float32
	x := sink
	for range n {
		a0 += float32(a0 * x)
		a1 += float32(a1 * x)
		a2 += float32(a2 * x)
		a3 += float32(a3 * x)
		a4 += float32(a4 * x)
		a5 += float32(a5 * x)
		a6 += float32(a6 * x)
	}
	sink = a0 + a1 + a2 + a3 + a4 + a5 + a6
	return 14 * float64(n)
}

// sink keeps the compiler from leaving out what peakPortable computes.
var sink float32
