package main

import (
	"math"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// constant returns a word of read-only memory, repeated to fill a register where the tier cannot broadcast it in place.
func (t tier) constant(name string, bits uint32) Mem {
	if m, ok := constants[name+t.name]; ok {
		return m
	}
	m := GLOBL(name+t.name, RODATA|NOPTR)
	for i := range t.repeats() {
		DATA(4*i, U32(bits))
	}
	constants[name+t.name] = m
	return m
}

var constants = map[string]Mem{}

func (t tier) repeats() int {
	if t.wide {
		return 1
	}
	return t.bytes() / 4
}

func (t tier) number(name string, v float32) Mem { return t.constant(name, math.Float32bits(v)) }

// constantly computes to = a op c with a constant c, by the form of the instruction that the tier has for it.
func (t tier) constantly(wide, narrow func(...Op), c Mem, a, to VecVirtual) {
	if t.wide {
		wide(c, a, to)
	} else {
		narrow(c, a, to)
	}
}

func (t tier) addConstant(c Mem, a, to VecVirtual) { t.constantly(VADDPS_BCST, VADDPS, c, a, to) }
func (t tier) subConstant(c Mem, a, to VecVirtual) { t.constantly(VSUBPS_BCST, VSUBPS, c, a, to) }
func (t tier) mulConstant(c Mem, a, to VecVirtual) { t.constantly(VMULPS_BCST, VMULPS, c, a, to) }
func (t tier) minConstant(c Mem, a, to VecVirtual) { t.constantly(VMINPS_BCST, VMINPS, c, a, to) }
func (t tier) maxConstant(c Mem, a, to VecVirtual) { t.constantly(VMAXPS_BCST, VMAXPS, c, a, to) }
func (t tier) andConstant(c Mem, a, to VecVirtual) { t.constantly(VPANDD_BCST, VANDPS, c, a, to) }
func (t tier) xorConstant(c Mem, a, to VecVirtual) { t.constantly(VPXORD_BCST, VXORPS, c, a, to) }
func (t tier) orConstant(c Mem, a, to VecVirtual)  { t.constantly(VPORD_BCST, VORPS, c, a, to) }
func (t tier) subInteger(c Mem, a, to VecVirtual)  { t.constantly(VPSUBD_BCST, VPSUBD, c, a, to) }

// broadcast returns a register filled with a constant.
func (t tier) broadcast(c Mem) VecVirtual {
	v := t.vector()
	VBROADCASTSS(c, v)
	return v
}

// polynomial turns p into (…(p·x + c[0])·x + …) + c[n−1].
func (t tier) polynomial(p, x VecVirtual, c ...Mem) {
	for _, m := range c {
		VMULPS(x, p, p)
		t.addConstant(m, p, p)
	}
}

// exp returns e^x as Exp of package vec computes it, and overwrites x.
func (t tier) exp(x VecVirtual) VecVirtual {
	t.maxConstant(t.number("expLow", -87), x, x)
	t.minConstant(t.number("expHigh", 88), x, x)
	shifted, n, c := t.vector(), t.vector(), t.vector()
	t.mulConstant(t.number("log2e", math.Log2E), x, shifted)
	t.addConstant(t.number("magic", 1.5*(1<<23)), shifted, shifted) // its low bits are now the integer
	t.subConstant(t.number("magic", 1.5*(1<<23)), shifted, n)
	t.mulConstant(t.number("ln2High", 0.693359375), n, c)
	VSUBPS(c, x, x)
	t.mulConstant(t.number("ln2Low", -2.12194440e-4), n, c)
	VSUBPS(c, x, x)
	p := t.broadcast(t.number("exp6", 1.9875691500e-4))
	t.polynomial(p, x, t.number("exp5", 1.3981999507e-3), t.number("exp4", 8.3334519073e-3), t.number("exp3", 4.1665795894e-2),
		t.number("exp2", 1.6666665459e-1), t.number("exp1", 5.0000001201e-1))
	VMULPS(x, x, c)
	VMULPS(c, p, p)
	VADDPS(x, p, p)
	t.addConstant(t.number("one", 1), p, p)
	VPSLLD(Imm(23), shifted, shifted)
	VPADDD(shifted, p, p)
	return p
}

// log1pUnit returns ln(1+f) as log1pUnit of package vec computes it.
func (t tier) log1pUnit(f VecVirtual) VecVirtual {
	p, square := t.broadcast(t.number("log6", 0.0891787094)), t.vector()
	t.polynomial(p, f, t.number("log5", -0.143502021), t.number("log4", 0.148769609), t.number("log3", -0.165656344),
		t.number("log2", 0.199653981), t.number("log1", -0.250017469), t.number("log0", 0.333338581))
	VMULPS(f, p, p)
	t.subConstant(t.number("half", 0.5), p, p)
	VMULPS(f, f, square)
	VMULPS(square, p, p)
	VADDPS(f, p, p)
	return p
}

// eachVector opens a kernel over all numbers of tiles of n rows, and calls body for one vector of each of them.
func (t tier) eachVector(name, signature, doc string, tiles []string, body func(at map[string]Mem)) {
	t.begin(name, signature, doc)
	pointers := map[string]GPVirtual{}
	for _, p := range tiles {
		pointers[p] = param(p)
	}
	n := param("rows")
	if t.wide {
		SHLQ(Imm(2), n)
	} else {
		SHLQ(Imm(3), n)
	}
	loop("vector", n, func() {
		m := map[string]Mem{}
		for name, p := range pointers {
			m[name] = at(p, 0)
		}
		body(m)
		for _, p := range tiles {
			advance(pointers[p], t.bytes())
		}
	})
	end()
}

func (t tier) sigmoid() {
	t.eachVector("sigmoid", "func(s, z *float32, rows int)", "sets s = 1/(1+e^−z).", []string{"s", "z"}, func(m map[string]Mem) {
		x := t.vector()
		VMOVUPS(m["z"], x)
		t.negate(x)
		p, one := t.exp(x), t.broadcast(t.number("one", 1))
		VADDPS(one, p, p)
		VDIVPS(p, one, p)
		VMOVUPS(p, m["s"])
	})
	t.eachVector("sigmoidBackward", "func(grad, s *float32, rows int)", "sets g = g·s·(1−s).", []string{"grad", "s"}, func(m map[string]Mem) {
		s, q := t.vector(), t.broadcast(t.number("one", 1))
		VMOVUPS(m["s"], s)
		VSUBPS(s, q, q)
		VMULPS(s, q, q)
		VMULPS(m["grad"], q, q)
		VMOVUPS(q, m["grad"])
	})
}

// negate flips the sign bits of x.
func (t tier) negate(x VecVirtual) { t.xorConstant(t.constant("sign", 1<<31), x, x) }

// below sets to = a where x < c and b elsewhere.
func (t tier) below(x VecVirtual, c Mem, a, b, to VecVirtual) {
	if t.wide {
		k := K()
		VCMPPS_BCST(Imm(1), c, x, k)
		VBLENDMPS(a, b, k, to)
		return
	}
	m := t.vector()
	VCMPPS(Imm(1), c, x, m)
	VBLENDVPS(m, a, b, to)
}

func (t tier) sqrtSoftplus() {
	t.eachVector("sqrtSoftplus", "func(s, z *float32, rows int)", "sets s = √ln(1+e^z).", []string{"s", "z"}, func(m map[string]Mem) {
		z, x := t.vector(), t.vector()
		VMOVUPS(m["z"], z)
		t.andConstant(t.constant("notSign", 1<<31-1), z, x)
		t.negate(x)
		u := t.exp(x)
		small := t.log1pUnit(u)
		f := t.vector()
		t.subConstant(t.number("one", 1), u, f)
		t.mulConstant(t.number("half", 0.5), f, f)
		large := t.log1pUnit(f)
		t.addConstant(t.number("ln2", math.Ln2), large, large)
		t.below(u, t.number("sqrt2Minus1", math.Sqrt2-1), small, large, large)
		t.maxConstant(t.number("zero", 0), z, z)
		VADDPS(large, z, z)
		VSQRTPS(z, z)
		VMOVUPS(z, m["s"])
	})
	t.eachVector("sqrtSoftplusBackward", "func(grad, s *float32, rows int)", "sets g = g·(1−e^(−s²))/(2s).", []string{"grad", "s"}, func(m map[string]Mem) {
		s, x := t.vector(), t.vector()
		VMOVUPS(m["s"], s)
		VMULPS(s, s, x)
		minus := t.vector()
		VMOVAPS(x, minus)
		t.negate(minus)
		one := t.broadcast(t.number("one", 1))
		large := t.exp(minus)
		VSUBPS(large, one, large)
		small, c := t.vector(), t.vector()
		t.mulConstant(t.number("sixth", 1./6), x, small)
		VSUBPS(small, one, small)
		for _, k := range []Mem{t.number("fifth", 1./5), t.number("fourth", 1./4), t.number("third", 1./3), t.number("half", 0.5)} {
			t.mulConstant(k, x, c)
			VMULPS(small, c, small)
			VSUBPS(small, one, small)
		}
		VMULPS(small, x, small)
		t.atMost(x, t.number("quarter", 0.25), small, large)
		VMULPS(m["grad"], large, large)
		VADDPS(s, s, s)
		VDIVPS(s, large, large)
		VMOVUPS(large, m["grad"])
	})
}

// atMost replaces to by a where x ≤ c.
func (t tier) atMost(x VecVirtual, c Mem, a, to VecVirtual) {
	if t.wide {
		k := K()
		VCMPPS_BCST(Imm(2), c, x, k)
		VMOVAPS(a, k, to)
		return
	}
	m := t.vector()
	VCMPPS(Imm(2), c, x, m)
	VBLENDVPS(m, a, to, to)
}

// eachColumn opens a kernel that walks tiles column by column: body is called for the vectors of one column of tokens and
// walks their rows with rows.
func (t tier) eachColumn(name, signature, doc string, tiles []string, body func(rows func(label string, row func(at map[string]Mem)))) {
	t.begin(name, signature, doc)
	pointers := map[string]GPVirtual{}
	for _, p := range tiles {
		pointers[p] = param(p)
	}
	n := param("rows")
	column := counter(rowBytes / t.bytes())
	loop("column", column, func() {
		body(func(label string, row func(at map[string]Mem)) {
			moving, m := map[string]GPVirtual{}, map[string]Mem{}
			for _, p := range tiles {
				moving[p] = copied(pointers[p])
				m[p] = at(moving[p], 0)
			}
			left := copied(n)
			loop(label, left, func() {
				row(m)
				for _, p := range tiles {
					advance(moving[p], rowBytes)
				}
			})
		})
		for _, p := range tiles {
			advance(pointers[p], t.bytes())
		}
	})
	end()
}

func (t tier) softmax() {
	t.eachColumn("softmax", "func(s, z *float32, rows int)", "sets s = softmax(z) over the rows.", []string{"s", "z"},
		func(rows func(string, func(map[string]Mem))) {
			top := t.broadcast(t.constant("minusInfinity", math.Float32bits(float32(math.Inf(-1)))))
			rows("largest", func(m map[string]Mem) { VMAXPS(m["z"], top, top) })
			sum := t.vector()
			zero(sum)
			rows("power", func(m map[string]Mem) {
				x := t.vector()
				VMOVUPS(m["z"], x)
				VSUBPS(top, x, x)
				p := t.exp(x)
				VADDPS(p, sum, sum)
				VMOVUPS(p, m["s"])
			})
			inverse := t.broadcast(t.number("one", 1))
			VDIVPS(sum, inverse, inverse)
			rows("share", func(m map[string]Mem) {
				x := t.vector()
				VMULPS(m["s"], inverse, x)
				VMOVUPS(x, m["s"])
			})
		})
	t.eachColumn("softmaxBackward", "func(grad, s *float32, rows int)", "sets g = s·(g − Σ g·s).", []string{"grad", "s"},
		func(rows func(string, func(map[string]Mem))) {
			mean := t.vector()
			zero(mean)
			rows("mean", func(m map[string]Mem) {
				x := t.vector()
				VMOVUPS(m["grad"], x)
				VMULPS(m["s"], x, x)
				VADDPS(x, mean, mean)
			})
			rows("gradient", func(m map[string]Mem) {
				x := t.vector()
				VMOVUPS(m["grad"], x)
				VSUBPS(mean, x, x)
				VMULPS(m["s"], x, x)
				VMOVUPS(x, m["grad"])
			})
		})
}
