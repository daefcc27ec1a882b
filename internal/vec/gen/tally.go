package main

import (
	"math/bits"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// greater is the comparison of a vector with a bound that it must exceed; what is no number does not.
const greater = 0x1e

// where keeps x where the lanes' bits are set, and makes it 0 elsewhere. lanes is what allowedOf returned.
func (t tier) where(lanes Register, x VecVirtual) {
	if t.wide {
		VMOVAPS_Z(x, lanes, x)
	} else {
		VANDPS(lanes.(VecVirtual), x, x)
	}
}

// addWhere adds x to sum where the lanes' bits are set, and overwrites x.
func (t tier) addWhere(lanes Register, x, sum VecVirtual) {
	if t.wide {
		VADDPS(x, sum, lanes, sum)
	} else {
		VANDPS(lanes.(VecVirtual), x, x)
		VADDPS(x, sum, sum)
	}
}

func (t tier) tallies() {
	t.begin("sumChosen", "func(sum, s *float32, mask *uint64, rows int)", "sets sum[t] = Σ s[e][t] over the rows whose mask has bit t.")
	w := t.walk([]string{"s"}, []string{"mask"}, []string{"sum"})
	w.columns(func() {
		sum := w.zeros()
		w.rows("row", func(m map[string]Mem) {
			for i, x := range w.load(m["s"]) {
				t.addWhere(w.lanes(m["mask"], i), x, sum[i])
			}
		})
		w.store(sum, w.row("sum"))
	})

	t.begin("invert", "func(x *float32)", "sets x[t] to 1/x[t], and leaves 0 as it is.")
	w = t.walk(nil, nil, []string{"x"})
	w.columns(func() {
		inverses := t.copies(t.number("one", 1), w.n)
		for i, x := range w.load(w.row("x")) {
			inverse := inverses[i]
			VDIVPS(x, inverse, inverse)
			if t.wide {
				k := K()
				VPTESTMD(x, x, k)
				t.where(k, inverse)
			} else {
				isZero := t.vector()
				zero(isZero)
				VCMPPS(Imm(4), isZero, x, isZero)
				t.where(isZero, inverse)
			}
		}
		w.store(inverses, w.row("x"))
	})

	t.begin("total", "func(part *[8]float64, x *float32)", "sets part[i] to the sum of every eighth number from x[i] on.")
	part, x := param("part"), param("x")
	lanes := t.bytes() / 8
	for half := range 8 / lanes {
		sum := t.vector()
		zero(sum)
		for i := range 8 {
			v := t.vector()
			VCVTPS2PD(at(x, 32*i+4*lanes*half), v)
			VADDPD(v, sum, sum)
		}
		VMOVUPD(sum, at(part, 8*lanes*half))
	}
	end()

	t.begin("sumSquares", "func(sum, s *float32, rows int)", "sets sum[t] = Σ s[e][t]².")
	w = t.walk([]string{"s"}, nil, []string{"sum"})
	w.columns(func() {
		sum := w.zeros()
		w.rows("row", func(m map[string]Mem) {
			x := w.load(m["s"])
			each(VMULPS, x, x, x)
			each(VADDPS, x, sum, sum)
		})
		w.store(sum, w.row("sum"))
	})

	t.begin("gateError", "func(err, mean, grad, s, ideal *float32, mask *uint64, inverse, invIdeal *float32, weight float32, rows int)", "is GateError.")
	weight := t.vector()
	VBROADCASTSS(NewParamAddr("weight", 64), weight)
	w = t.walk([]string{"grad", "s", "ideal"}, []string{"mask"}, []string{"err", "mean", "inverse", "invIdeal"})
	w.n /= 2 // it needs eight registers for each vector, and one
	w.columns(func() {
		inverse, invIdeal, err, mean := w.load(w.row("inverse")), w.load(w.row("invIdeal")), w.zeros(), w.zeros()
		w.rows("row", func(m map[string]Mem) {
			gate, target, r, square := w.load(m["s"]), w.load(m["ideal"]), t.block(w.n), t.block(w.n)
			each(VMULPS, inverse, gate, gate)
			each(VMULPS, invIdeal, target, target)
			each(VSUBPS, target, gate, r)
			each(VMULPS, r, r, square)
			each(VMULPS, target, target, target)
			each(VSUBPS, target, square, square)
			for i := range w.n {
				lanes := w.lanes(m["mask"], i)
				t.addWhere(lanes, square[i], err[i])
				VMULPS(weight, r[i], r[i])
				t.where(lanes, r[i])
			}
			w.store(r, m["grad"])
			each(VMULPS, gate, r, gate)
			each(VADDPS, gate, mean, mean)
		})
		w.store(err, w.row("err"))
		w.store(mean, w.row("mean"))
	})

	t.begin("gateGradient", "func(grad, mean, inverse *float32, mask *uint64, rows int)", "sets grad = (grad − mean)·inverse where chosen.")
	w = t.walk([]string{"grad"}, []string{"mask"}, []string{"mean", "inverse"})
	w.columns(func() {
		mean, inverse := w.load(w.row("mean")), w.load(w.row("inverse"))
		w.rows("row", func(m map[string]Mem) {
			x := w.load(m["grad"])
			each(VSUBPS, mean, x, x)
			each(VMULPS, inverse, x, x)
			for i, v := range x {
				t.where(w.lanes(m["mask"], i), v)
			}
			w.store(x, m["grad"])
		})
	})

	t.begin("weighted", "func(sum, all, s, weights *float32, rows int)", "sets sum[t] = Σ weights[e]·s[e][t] and all[t] = Σ s[e][t].")
	weights := param("weights")
	w = t.walk([]string{"s"}, nil, []string{"sum", "all"})
	w.columns(func() {
		sum, all, p := w.zeros(), w.zeros(), copied(weights)
		w.rows("row", func(m map[string]Mem) {
			x := w.load(m["s"])
			t.addProducts(sum, x, at(p, 0))
			each(VADDPS, x, all, all)
			advance(p, 4)
		})
		w.store(sum, w.row("sum"))
		w.store(all, w.row("all"))
	})

	t.begin("above", "func(mask *uint64, s, offset, least *float32, rows int)", "sets bit t of mask[e] where s[e][t] − offset[t] > least[e].")
	least := param("least")
	w = t.walk([]string{"s"}, []string{"mask"}, []string{"offset"})
	w.columns(func() {
		offset, p := w.load(w.row("offset")), copied(least)
		w.rows("row", func(m map[string]Mem) {
			bound, x := t.vector(), w.load(m["s"])
			VBROADCASTSS(at(p, 0), bound)
			each(VSUBPS, offset, x, x)
			for i, v := range x {
				to := m["mask"].Offset(i * t.bytes() / 32)
				if t.wide {
					k := K()
					VCMPPS(Imm(greater), bound, v, k)
					KMOVW(k, to)
				} else {
					bits := GP32()
					VCMPPS(Imm(greater), bound, v, v)
					VMOVMSKPS(v, bits)
					MOVB(bits.As8(), to)
				}
			}
			advance(p, 4)
		})
	})

	t.begin("addPrices", "func(grad, weights, offset, scale *float32, rows int)", "adds scale[t]·(weights[e] − offset[t]) to grad[e][t].")
	weights = param("weights")
	w = t.walk([]string{"grad"}, nil, []string{"offset", "scale"})
	w.columns(func() {
		offset, scale, p := w.load(w.row("offset")), w.load(w.row("scale")), copied(weights)
		w.rows("row", func(m map[string]Mem) {
			x, price := t.block(w.n), t.vector()
			VBROADCASTSS(at(p, 0), price)
			for i, v := range x {
				VSUBPS(offset[i], price, v)
			}
			each(VMULPS, scale, x, x)
			each(VADDPS, w.load(m["grad"]), x, x)
			w.store(x, m["grad"])
			advance(p, 4)
		})
	})
}

// streams are the kernels with which streams make latent vectors.
// lists goes through the masks bit by bit, which takes one number at a time, by instructions that Go does not use on every
// processor.
func (t tier) lists() {
	t.begin("lists", "func(ids *int32, gates *float32, mask *uint64, s, inverse *float32, rows, k, places int)",
		"is Lists; ids and gates have the given number of places.")
	ids, gates, mask, s, inverse, rows, k, places := param("ids"), param("gates"), param("mask"), param("s"), param("inverse"), param("rows"), param("k"), param("places")
	next := AllocLocal(rowBytes) // the place of each token's next entry: k times its number at first
	steps := t.vector()
	if t.wide {
		VPBROADCASTD(k.As32(), steps)
	} else {
		x := XMM()
		VMOVD(k.As32(), x)
		VPBROADCASTD(x, steps)
	}
	for i := 0; i < rowBytes; i += t.bytes() {
		first := t.vector()
		VPMULLD(numbers().Offset(i), steps, first)
		t.store(first, next.Offset(i))
	}
	place, token := GP64(), GP64()
	XORQ(place, place)
	e := GP64()
	XORQ(e, e)
	loop("row", rows, func() {
		left := GP64()
		MOVQ(at(mask, 0), left)
		TESTQ(left, left)
		JZ(LabelRef("done"))
		Label("bit")
		TZCNTQ(left, token)
		MOVL(next.Idx(token, 4), place.As32())
		CMPQ(place, places)
		JAE(LabelRef("more")) // a token with more than k rows
		gate := XMM()
		VMOVSS(Mem{Base: s, Index: token, Scale: 4}, gate)
		VMULSS(Mem{Base: inverse, Index: token, Scale: 4}, gate, gate)
		MOVL(e.As32(), Mem{Base: ids, Index: place, Scale: 4})
		VMOVSS(gate, Mem{Base: gates, Index: place, Scale: 4})
		INCL(place.As32())
		MOVL(place.As32(), next.Idx(token, 4))
		Label("more")
		BLSRQ(left, left)
		JNZ(LabelRef("bit"))
		Label("done")
		INCQ(e)
		advance(mask, 8)
		advance(s, rowBytes)
	})
	RET()
}

// numbers returns the words 0 to 63 in read-only memory.
func numbers() Mem {
	const name = "numbers"
	if m, ok := constants[name]; ok {
		return m
	}
	m := GLOBL(name, RODATA|NOPTR)
	for i := range 64 {
		DATA(4*i, U32(uint32(i)))
	}
	constants[name] = m
	return m
}

func (t tier) streams() {
	t.begin("mix", "func(energy, x, a, b *float32, noise float32, rows int)", "sets x = (a + b) + noise·x and energy[t] = Σ x².")
	noise := t.vector()
	VBROADCASTSS(NewParamAddr("noise", 32), noise)
	w := t.walk([]string{"x", "a", "b"}, nil, []string{"energy"})
	w.columns(func() {
		energy := w.zeros()
		w.rows("row", func(m map[string]Mem) {
			sum, x := w.load(m["a"]), w.load(m["x"])
			each(VADDPS, w.load(m["b"]), sum, sum)
			for _, v := range x {
				VMULPS(noise, v, v)
			}
			each(VADDPS, x, sum, x)
			w.store(x, m["x"])
			each(VMULPS, x, x, x)
			each(VADDPS, x, energy, energy)
		})
		w.store(energy, w.row("energy"))
	})

	t.begin("scale", "func(x, factor *float32, rows int)", "multiplies x[e][t] by factor[t].")
	w = t.walk([]string{"x"}, nil, []string{"factor"})
	w.columns(func() {
		factor := w.load(w.row("factor"))
		w.rows("row", func(m map[string]Mem) {
			x := w.load(m["x"])
			each(VMULPS, factor, x, x)
			w.store(x, m["x"])
		})
	})

	t.gather("gather", "func(out, table *float32, source *int32, blocks, width int)",
		"sets out[c][t] = table[source[t]][c] for blocks of as many columns c as a vector has lanes.")
	t.gather("load", "func(out, table *float32, blocks, width, ahead int)",
		"is gather of the first 64 rows, and fetches those that many bytes ahead if that is not 0.")
}

func (t tier) gather(name, signature, doc string) {
	n := t.bytes() / 4
	t.begin(name, signature, doc)
	out, table, stride := param("out"), param("table"), param("width")
	SHLQ(Imm(2), stride)
	var source, ahead GPVirtual
	if name == "gather" {
		source = param("source")
	} else {
		ahead = param("ahead")
	}
	lanes := counter(64 / n)
	loop("lanes", lanes, func() {
		o, from, blocks := copied(out), copied(table), param("blocks")
		loop("block", blocks, func() {
			r := t.vectors(n)
			line := copied(from)
			for i, v := range r {
				if name == "load" {
					VMOVUPS(at(line, 0), v)
					ADDQ(stride, line)
					continue
				}
				MOVLQSX(at(source, 4*i), line)
				IMULQ(stride, line)
				VMOVUPS(Mem{Base: from, Index: line, Scale: 1}, v)
			}
			if name == "load" {
				TESTQ(ahead, ahead)
				JZ(LabelRef("near"))
				line := copied(from)
				for range r {
					PREFETCHT1(Mem{Base: line, Index: ahead, Scale: 1})
					ADDQ(stride, line)
				}
				Label("near")
			}
			for i, v := range t.transposed(r) {
				VMOVUPS(v, at(o, i*rowBytes))
			}
			advance(from, t.bytes())
			advance(o, n*rowBytes)
		})
		if name == "gather" {
			advance(source, 4*n)
		} else {
			step := copied(stride)
			SHLQ(Imm(uint64(bits.TrailingZeros(uint(n)))), step)
			ADDQ(step, table)
		}
		advance(out, t.bytes())
	})
	end()
}
