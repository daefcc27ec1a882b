package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// transpose turns rows of a tile into columns, one square of registers at a time.
func (t tier) transpose() {
	n := t.bytes() / 4
	t.begin("transpose", "func(out, x *float32, blocks, cols int)",
		"sets out[t][c] = x[c][t] for blocks of as many rows as a vector has lanes; out has cols columns.")
	out, x, blocks, cols := param("out"), param("x"), param("blocks"), param("cols")
	stride := copied(cols)
	SHLQ(Imm(2), stride)
	loop("block", blocks, func() {
		o := copied(out)
		squares := counter(64 / n)
		loop("square", squares, func() {
			r := t.vectors(n)
			for i, v := range r {
				VMOVUPS(at(x, i*rowBytes), v)
			}
			for _, v := range t.transposed(r) {
				VMOVUPS(v, at(o, 0))
				ADDQ(stride, o)
			}
			advance(x, t.bytes())
		})
		advance(x, (n-1)*rowBytes)
		advance(out, t.bytes())
	})
	end()
}

// transposed transposes a square matrix held one row to a register: within blocks of 2, then of 4, then across the 128-bit
// lanes.
func (t tier) transposed(r []VecVirtual) []VecVirtual {
	n := len(r)
	pairs, quads := t.vectors(n), t.vectors(n)
	for i := 0; i < n; i += 2 {
		VUNPCKLPS(r[i+1], r[i], pairs[i])
		VUNPCKHPS(r[i+1], r[i], pairs[i+1])
	}
	for i := 0; i < n; i += 4 {
		VUNPCKLPD(pairs[i+2], pairs[i], quads[i])
		VUNPCKHPD(pairs[i+2], pairs[i], quads[i+1])
		VUNPCKLPD(pairs[i+3], pairs[i+1], quads[i+2])
		VUNPCKHPD(pairs[i+3], pairs[i+1], quads[i+3])
	}
	out := t.vectors(n)
	if !t.wide {
		for j := range 4 {
			VPERM2F128(U8(0x20), quads[4+j], quads[j], out[j])
			VPERM2F128(U8(0x31), quads[4+j], quads[j], out[4+j])
		}
		return out
	}
	// Lane l of quads[4b+j] holds column 4l+j of the rows 4b to 4b+3.
	even, odd := make([]VecVirtual, 8), make([]VecVirtual, 8) // lanes 0, 2 and 1, 3 of two quads each
	for h := range 2 {
		for j := range 4 {
			a, b := quads[8*h+j], quads[8*h+4+j]
			even[4*h+j], odd[4*h+j] = ZMM(), ZMM()
			VSHUFF32X4(U8(0x88), b, a, even[4*h+j])
			VSHUFF32X4(U8(0xdd), b, a, odd[4*h+j])
		}
	}
	for j := range 4 {
		VSHUFF32X4(U8(0x88), even[4+j], even[j], out[j])
		VSHUFF32X4(U8(0x88), odd[4+j], odd[j], out[4+j])
		VSHUFF32X4(U8(0xdd), even[4+j], even[j], out[8+j])
		VSHUFF32X4(U8(0xdd), odd[4+j], odd[j], out[12+j])
	}
	return out
}
