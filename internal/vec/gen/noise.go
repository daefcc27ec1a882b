package main

import (
	"math"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// normals draws from 16 generators, as many at a time as a vector has lanes, and turns pairs of their words into pairs of
// normal numbers as boxMuller of package vec does.
func (t tier) normals() {
	t.begin("normals", "func(out *float32, state *[4][16]uint32, blocks int)", "fills blocks of 32 numbers from the generators' state.")
	out, state, lanes := param("out"), param("state"), counter(64/t.bytes())
	loop("lanes", lanes, func() {
		s := t.vectors(4)
		for i, v := range s {
			t.load(at(state, i*64), v)
		}
		to, n := copied(out), param("blocks")
		loop("block", n, func() {
			u1 := block{t.next(s)}
			u2 := block{t.next(s)}
			t.boxMuller(u1, u2, at(to, 0), at(to, 64))
			advance(to, 128)
		})
		advance(out, t.bytes())
		advance(state, t.bytes())
	})
	end()
}

// next is one step of xoshiro128++ of every lane.
func (t tier) next(s []VecVirtual) VecVirtual {
	out, shifted := t.vector(), t.vector()
	VPADDD(s[3], s[0], out)
	t.rotate(7, out)
	VPADDD(s[0], out, out)
	VPSLLD(Imm(9), s[1], shifted)
	t.xor(s[0], s[2], s[2])
	t.xor(s[1], s[3], s[3])
	t.xor(s[2], s[1], s[1])
	t.xor(s[3], s[0], s[0])
	t.xor(shifted, s[2], s[2])
	t.rotate(11, s[3])
	return out
}

func (t tier) rotate(bits uint64, v VecVirtual) {
	if t.wide {
		VPROLD(Imm(bits), v, v)
		return
	}
	high := t.vector()
	VPSLLD(Imm(bits), v, high)
	VPSRLD(Imm(32-bits), v, v)
	VPOR(high, v, v)
}

func (t tier) xor(a Op, b, to VecVirtual) {
	if t.wide {
		VPXORD(a, b, to)
	} else {
		VPXOR(a, b, to)
	}
}

func (t tier) boxMuller(u1, u2 block, first, second Mem) {
	r := t.radius(u1)
	a, z, square := t.block(1), t.block(1), t.block(1)
	VPSLLD(Imm(2), u2[0], a[0])
	t.unit(a)
	t.subConstant(t.number("oneAndHalf", 1.5), a, a)
	t.mulConstant(t.number("quarterTurn", math.Pi/2), a, a)
	each(VMULPS, a, a, z)
	each(VMULPS, z, z, square)
	sin := t.polynomial(z, square, t.number("sin3", -0.00019504022), t.number("sin2", 0.00833203688), t.number("sin1", -0.166666507), t.number("sin0", 0.999999997))
	cos := t.polynomial(z, square, t.number("cos3", -0.00135859085), t.number("cos2", 0.0416550269), t.number("cos1", -0.499998567), t.number("cos0", 0.999999972))
	each(VMULPS, a, sin, sin)
	each(VMULPS, r, sin, sin)
	each(VMULPS, r, cos, cos)
	// Two bits of u2 choose the quadrant: the second swaps sine and cosine, both together give the signs.
	turn, sign := t.block(1), t.block(1)
	VPSLLD(Imm(1), u2[0], turn[0])
	x, y := t.vector(), t.vector()
	t.pick(turn[0], sin[0], cos[0], x)
	t.pick(turn[0], cos[0], sin[0], y)
	t.andConstant(t.constant("sign", 1<<31), u2, sign)
	t.andConstant(t.constant("sign", 1<<31), turn, turn)
	t.xor(sign[0], x, x)
	t.xor(sign[0], y, y)
	t.xor(turn[0], y, y)
	VMOVUPS(x, first)
	VMOVUPS(y, second)
}

// radius returns √(−2 ln x) for x = 2 − (a number of [1, 2) from u's upper bits), and overwrites u.
func (t tier) radius(u block) block {
	t.unit(u)
	x := t.copies(t.number("two", 2), 1)
	each(VSUBPS, u, x, x)
	exponent, m := t.block(1), t.block(1)
	t.subInteger(t.constant("sqrtHalf", 0x3f3504f3), x, exponent)
	VPSRAD(Imm(23), exponent[0], exponent[0])
	VPSLLD(Imm(23), exponent[0], m[0])
	each(VPSUBD, m, x, m)
	t.subConstant(t.number("one", 1), m, m)
	log := t.log1pUnit(m)
	VCVTDQ2PS(exponent[0], exponent[0])
	t.mulConstant(t.number("ln2", math.Ln2), exponent, exponent)
	each(VADDPS, exponent, log, log)
	t.mulConstant(t.number("minusTwo", -2), log, log)
	VSQRTPS(log[0], log[0])
	return log
}

// unit makes a number of [1, 2) of the upper 23 bits of a word.
func (t tier) unit(v block) {
	VPSRLD(Imm(9), v[0], v[0])
	t.orConstant(t.number("one", 1), v, v)
}

// pick sets to = a where the sign bit of v is set and b elsewhere.
func (t tier) pick(v, a, b, to VecVirtual) {
	if t.wide {
		k := K()
		VPMOVD2M(v, k)
		VBLENDMPS(a, b, k, to)
	} else {
		VBLENDVPS(v, a, b, to)
	}
}
