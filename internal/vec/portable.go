package vec

import (
	"math"
	"math/bits"
)

// portable is plain Go, for every platform.
var portable = kernel{
	name:    "portable",
	panel:   portablePanel,
	product: productPortable,
	outer:   outerPortable,

	outerRows: outerRowsPortable,

	topK:   topKPortable,
	groups: groupsPortable,

	normals: normalsPortable,

	sumChosen: sumChosenPortable, invert: invertPortable, total: totalPortable, sumSquares: sumSquaresPortable,
	gateError: gateErrorPortable, gateGradient: gateGradientPortable,
	weightedSum: weightedSumPortable, addPrices: addPricesPortable, lists: listsPortable,
	mix: mixPortable, scale: scalePortable, gather: gatherPortable, load: loadPortable,
	peak: peakPortable,

	sigmoid: sigmoidPortable, sigmoidBackward: sigmoidBackwardPortable,
	softmax: softmaxPortable, softmaxBackward: softmaxBackwardPortable,
	sqrtSoftplus: sqrtSoftplusPortable, sqrtSoftplusBackward: sqrtSoftplusBackwardPortable,
}

// With seven sums the compiler keeps all of them in registers, with eight it spills one.
const portablePanel = 7

func productPortable(m *Matrix, z, x, scratch []float32) {
	h := scratch[:m.cols]
	for t := range Lanes {
		for c := range h {
			h[c] = x[c*Lanes+t]
		}
		for panel := range m.panels() {
			p := m.packed[panel*m.cols:][:len(h)]
			var a0, a1, a2, a3, a4, a5, a6 float32
			for c := range p {
				w, y := &p[c], h[c]
				a0 += float32(w[0] * y)
				a1 += float32(w[1] * y)
				a2 += float32(w[2] * y)
				a3 += float32(w[3] * y)
				a4 += float32(w[4] * y)
				a5 += float32(w[5] * y)
				a6 += float32(w[6] * y)
			}
			r := m.first(panel)
			if m.rows >= portablePanel {
				o := z[r*Lanes+t : r*Lanes+t+(portablePanel-1)*Lanes+1]
				o[0], o[Lanes], o[2*Lanes], o[3*Lanes] = a0, a1, a2, a3
				o[4*Lanes], o[5*Lanes], o[6*Lanes] = a4, a5, a6
				continue
			}
			sums := [portablePanel]float32{a0, a1, a2, a3, a4, a5, a6}
			for i := range m.rows {
				z[i*Lanes+t] = sums[i]
			}
		}
	}
}

func outerRowsPortable(sum *Gradient, g, rows, scratch []float32) {
	loadPortable(scratch, rows, sum.cols)
	outerPortable(sum, g, scratch, nil)
}

func outerPortable(sum *Gradient, g, x, _ []float32) {
	for e := range sum.rows {
		gr, out := row(g, e), sum.Row(e)
		c := 0
		for ; c+4 <= len(out); c += 4 {
			x0, x1, x2, x3 := row(x, c), row(x, c+1), row(x, c+2), row(x, c+3)
			a0, a1, a2, a3 := out[c], out[c+1], out[c+2], out[c+3]
			for t, v := range gr {
				a0 += float32(v * x0[t])
				a1 += float32(v * x1[t])
				a2 += float32(v * x2[t])
				a3 += float32(v * x3[t])
			}
			out[c], out[c+1], out[c+2], out[c+3] = a0, a1, a2, a3
		}
		for ; c < len(out); c++ {
			xr, a := row(x, c), out[c]
			for t, v := range gr {
				a += float32(v * xr[t])
			}
			out[c] = a
		}
	}
}

func sigmoidPortable(s, z []float32, rows int) {
	s, z = s[:rows*Lanes], z[:rows*Lanes]
	for i, v := range z {
		s[i] = 1 / (1 + Exp(-v))
	}
}

func sigmoidBackwardPortable(g, s []float32, rows int) {
	g, s = g[:rows*Lanes], s[:rows*Lanes]
	for i, v := range s {
		g[i] = float32(g[i] * float32(v*(1-v)))
	}
}

func softmaxPortable(s, z []float32, rows int) {
	top, sum := *row(z, 0), Row{}
	for e := 1; e < rows; e++ {
		for t, v := range row(z, e) {
			if v > top[t] {
				top[t] = v
			}
		}
	}
	for e := range rows {
		zr, sr := row(z, e), row(s, e)
		for t, v := range zr {
			p := Exp(v - top[t])
			sr[t] = p
			sum[t] += p
		}
	}
	for t, v := range sum {
		sum[t] = 1 / v
	}
	for e := range rows {
		sr := row(s, e)
		for t, v := range sum {
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
		for t, m := range mean {
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
	low := float32(math.Inf(-1))
	for i := range q.ranks {
		q.ranks[i] = rankOf(low, -1)
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
		for _, r := range q.ranks[t*q.k : (t+1)*q.k] {
			if e := int32(^uint32(r)); e >= 0 {
				mask[e] |= 1 << t
			}
		}
	}
	sumChosenPortable(&q.Sum, s, mask)
}

// rankOf makes a number of a value and a row that is larger for the better of two: the larger value, of equal ones the
// lower row.
func rankOf(v float32, e int32) uint64 {
	key := math.Float32bits(v + 0) // −0 is 0
	key ^= uint32(int32(key)>>31) | 1<<31
	return uint64(key)<<32 | uint64(^uint32(e))
}

// insert puts row e into the list of token t. Which place it takes depends on chance, so that no branch may.
func (q *Selector) insert(t int, v float32, e int32) {
	r, list := rankOf(v, e), q.ranks[t*q.k:(t+1)*q.k]
	for i, other := range list {
		list[i], r = max(other, r), min(other, r)
	}
	key := uint32(list[len(list)-1] >> 32)
	q.least[t] = math.Float32frombits(key ^ (^uint32(int32(key)>>31) | 1<<31))
}

func groupsPortable(q *Selector, allowed []uint64, s, bias []float32, rows, kept int) {
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
	for t := range Lanes {
		if t >= len(source) {
			for c := from; c < width; c++ {
				tile[c*Lanes+t] = 0
			}
			continue
		}
		line := table[int(source[t])*width : (int(source[t])+1)*width]
		for c := from; c < width; c++ {
			tile[c*Lanes+t] = line[c]
		}
	}
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
