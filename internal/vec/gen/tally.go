package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

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

// A walk goes through a tile column by column, and through the rows of each column.
type walk struct {
	t      tier
	tiles  []string // parameters that point to tiles, or to masks with one word for each row
	masks  []string
	base   map[string]GPVirtual
	single []string // parameters that point to one row
}

func (t tier) walk(tiles, masks, single []string) *walk {
	w := &walk{t: t, tiles: tiles, masks: masks, single: single, base: map[string]GPVirtual{}}
	for _, list := range [][]string{tiles, masks, single} {
		for _, p := range list {
			w.base[p] = param(p)
		}
	}
	return w
}

// columns calls body for one column; row of a parameter is at(w.base[…], 0).
func (w *walk) columns(body func()) {
	column := counter(rowBytes / w.t.bytes())
	loop("column", column, func() {
		body()
		for _, list := range [][]string{w.tiles, w.single} {
			for _, p := range list {
				advance(w.base[p], w.t.bytes())
			}
		}
		for _, p := range w.masks {
			advance(w.base[p], w.t.bytes()/32)
		}
	})
	end()
}

// rows calls body with the places of one row.
func (w *walk) rows(label string, body func(m map[string]Mem)) {
	moving, m := map[string]GPVirtual{}, map[string]Mem{}
	for _, list := range [][]string{w.tiles, w.masks} {
		for _, p := range list {
			moving[p] = copied(w.base[p])
			m[p] = at(moving[p], 0)
		}
	}
	n := param("rows")
	loop(label, n, func() {
		body(m)
		for _, p := range w.tiles {
			advance(moving[p], rowBytes)
		}
		for _, p := range w.masks {
			advance(moving[p], 8)
		}
	})
}

func (t tier) tallies() {
	t.begin("sumChosen", "func(sum, s *float32, mask *uint64, rows int)", "sets sum[t] = Σ s[e][t] over the rows whose mask has bit t.")
	w := t.walk([]string{"s"}, []string{"mask"}, []string{"sum"})
	w.columns(func() {
		sum := t.vector()
		zero(sum)
		w.rows("row", func(m map[string]Mem) {
			x := t.vector()
			VMOVUPS(m["s"], x)
			t.addWhere(t.allowedOf(m["mask"]), x, sum)
		})
		VMOVUPS(sum, at(w.base["sum"], 0))
	})

	t.begin("invert", "func(x *float32)", "sets x[t] to 1/x[t], and leaves 0 as it is.")
	w = t.walk(nil, nil, []string{"x"})
	w.columns(func() {
		x, inverse := t.vector(), t.broadcast(t.number("one", 1))
		VMOVUPS(at(w.base["x"], 0), x)
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
		VMOVUPS(inverse, at(w.base["x"], 0))
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
		sum := t.vector()
		zero(sum)
		w.rows("row", func(m map[string]Mem) {
			x := t.vector()
			VMOVUPS(m["s"], x)
			VMULPS(x, x, x)
			VADDPS(x, sum, sum)
		})
		VMOVUPS(sum, at(w.base["sum"], 0))
	})

	t.begin("gateError", "func(err, mean, grad, s, ideal *float32, mask *uint64, inverse, invIdeal *float32, weight float32, rows int)", "is GateError.")
	weight := t.vector()
	VBROADCASTSS(NewParamAddr("weight", 64), weight)
	w = t.walk([]string{"grad", "s", "ideal"}, []string{"mask"}, []string{"err", "mean", "inverse", "invIdeal"})
	w.columns(func() {
		inverse, invIdeal, err, mean := t.vector(), t.vector(), t.vector(), t.vector()
		VMOVUPS(at(w.base["inverse"], 0), inverse)
		VMOVUPS(at(w.base["invIdeal"], 0), invIdeal)
		zero(err)
		zero(mean)
		w.rows("row", func(m map[string]Mem) {
			lanes := t.allowedOf(m["mask"])
			gate, target, r := t.vector(), t.vector(), t.vector()
			VMULPS(m["s"], inverse, gate)
			VMULPS(m["ideal"], invIdeal, target)
			VSUBPS(target, gate, r)
			square := t.vector()
			VMULPS(r, r, square)
			VMULPS(target, target, target)
			VSUBPS(target, square, square)
			t.addWhere(lanes, square, err)
			VMULPS(weight, r, r)
			t.where(lanes, r)
			VMOVUPS(r, m["grad"])
			VMULPS(gate, r, gate)
			VADDPS(gate, mean, mean)
		})
		VMOVUPS(err, at(w.base["err"], 0))
		VMOVUPS(mean, at(w.base["mean"], 0))
	})

	t.begin("gateGradient", "func(grad, mean, inverse *float32, mask *uint64, rows int)", "sets grad = (grad − mean)·inverse where chosen.")
	w = t.walk([]string{"grad"}, []string{"mask"}, []string{"mean", "inverse"})
	w.columns(func() {
		mean, inverse := t.vector(), t.vector()
		VMOVUPS(at(w.base["mean"], 0), mean)
		VMOVUPS(at(w.base["inverse"], 0), inverse)
		w.rows("row", func(m map[string]Mem) {
			x := t.vector()
			VMOVUPS(m["grad"], x)
			VSUBPS(mean, x, x)
			VMULPS(inverse, x, x)
			t.where(t.allowedOf(m["mask"]), x)
			VMOVUPS(x, m["grad"])
		})
	})

	t.begin("weighted", "func(sum, all, s, weights *float32, rows int)", "sets sum[t] = Σ weights[e]·s[e][t] and all[t] = Σ s[e][t].")
	weights := param("weights")
	w = t.walk([]string{"s"}, nil, []string{"sum", "all"})
	w.columns(func() {
		sum, all, p := t.vector(), t.vector(), copied(weights)
		zero(sum)
		zero(all)
		w.rows("row", func(m map[string]Mem) {
			x := t.vector()
			VMOVUPS(m["s"], x)
			t.addProducts([]VecVirtual{sum}, []VecVirtual{x}, at(p, 0), false)
			VADDPS(x, all, all)
			advance(p, 4)
		})
		VMOVUPS(sum, at(w.base["sum"], 0))
		VMOVUPS(all, at(w.base["all"], 0))
	})

	t.begin("addPrices", "func(grad, weights, offset, scale *float32, rows int)", "adds scale[t]·(weights[e] − offset[t]) to grad[e][t].")
	weights = param("weights")
	w = t.walk([]string{"grad"}, nil, []string{"offset", "scale"})
	w.columns(func() {
		offset, scale, p := t.vector(), t.vector(), copied(weights)
		VMOVUPS(at(w.base["offset"], 0), offset)
		VMOVUPS(at(w.base["scale"], 0), scale)
		w.rows("row", func(m map[string]Mem) {
			x := t.vector()
			VBROADCASTSS(at(p, 0), x)
			VSUBPS(offset, x, x)
			VMULPS(scale, x, x)
			VADDPS(m["grad"], x, x)
			VMOVUPS(x, m["grad"])
			advance(p, 4)
		})
	})
}

// streams are the kernels with which streams make latent vectors.
func (t tier) streams() {
	t.begin("mix", "func(energy, x, a, b *float32, noise float32, rows int)", "sets x = (a + b) + noise·x and energy[t] = Σ x².")
	noise := t.vector()
	VBROADCASTSS(NewParamAddr("noise", 32), noise)
	w := t.walk([]string{"x", "a", "b"}, nil, []string{"energy"})
	w.columns(func() {
		energy := t.vector()
		zero(energy)
		w.rows("row", func(m map[string]Mem) {
			x, sum := t.vector(), t.vector()
			VMOVUPS(m["a"], sum)
			VADDPS(m["b"], sum, sum)
			VMULPS(m["x"], noise, x)
			VADDPS(x, sum, x)
			VMOVUPS(x, m["x"])
			VMULPS(x, x, x)
			VADDPS(x, energy, energy)
		})
		VMOVUPS(energy, at(w.base["energy"], 0))
	})

	t.begin("scale", "func(x, factor *float32, rows int)", "multiplies x[e][t] by factor[t].")
	w = t.walk([]string{"x"}, nil, []string{"factor"})
	w.columns(func() {
		factor := t.vector()
		VMOVUPS(at(w.base["factor"], 0), factor)
		w.rows("row", func(m map[string]Mem) {
			x := t.vector()
			VMULPS(m["x"], factor, x)
			VMOVUPS(x, m["x"])
		})
	})

	n := t.bytes() / 4
	t.begin("gather", "func(out, table *float32, source *int32, blocks, width int)",
		"sets out[c][t] = table[source[t]][c] for blocks of as many columns c as a vector has lanes.")
	out, source, stride := param("out"), param("source"), param("width")
	SHLQ(Imm(2), stride)
	lanes := counter(64 / n)
	loop("lanes", lanes, func() {
		o, from, blocks := copied(out), param("table"), param("blocks")
		loop("block", blocks, func() {
			r := t.vectors(n)
			for i, v := range r {
				p := GP64()
				MOVLQSX(at(source, 4*i), p)
				IMULQ(stride, p)
				VMOVUPS(Mem{Base: from, Index: p, Scale: 1}, v)
			}
			for i, v := range t.transposed(r) {
				VMOVUPS(v, at(o, i*rowBytes))
			}
			advance(from, t.bytes())
			advance(o, n*rowBytes)
		})
		advance(source, 4*n)
		advance(out, t.bytes())
	})
	end()
}
