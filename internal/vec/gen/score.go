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
func (t tier) constantly(wide, narrow func(...Op), c Mem, a, to block) {
	for i := range to {
		if t.wide {
			wide(c, a[i], to[i])
		} else {
			narrow(c, a[i], to[i])
		}
	}
}

func (t tier) addConstant(c Mem, a, to block) { t.constantly(VADDPS_BCST, VADDPS, c, a, to) }
func (t tier) subConstant(c Mem, a, to block) { t.constantly(VSUBPS_BCST, VSUBPS, c, a, to) }
func (t tier) mulConstant(c Mem, a, to block) { t.constantly(VMULPS_BCST, VMULPS, c, a, to) }
func (t tier) maxConstant(c Mem, a, to block) { t.constantly(VMAXPS_BCST, VMAXPS, c, a, to) }
func (t tier) andConstant(c Mem, a, to block) { t.constantly(VPANDD_BCST, VANDPS, c, a, to) }
func (t tier) xorConstant(c Mem, a, to block) { t.constantly(VPXORD_BCST, VXORPS, c, a, to) }
func (t tier) orConstant(c Mem, a, to block)  { t.constantly(VPORD_BCST, VORPS, c, a, to) }
func (t tier) subInteger(c Mem, a, to block)  { t.constantly(VPSUBD_BCST, VPSUBD, c, a, to) }

// broadcast returns a register filled with a constant.
func (t tier) broadcast(c Mem) VecVirtual {
	v := t.vector()
	VBROADCASTSS(c, v)
	return v
}

// polynomial returns c[0]·x^(n−1) + … + c[n−1] as the portable code does: pairs c·x + d, and Horner's rule in x² for them,
// which begins with c[0] alone where n is odd.
func (t tier) polynomial(x, square block, c ...Mem) block {
	var p block // times x², once there is one
	if len(c)%2 != 0 {
		p = t.block(len(x))
		t.mulConstant(c[0], square, p)
		c = c[1:]
	}
	for ; ; c = c[2:] {
		pair := t.block(len(x))
		t.mulConstant(c[0], x, pair)
		t.addConstant(c[1], pair, pair)
		if p != nil {
			each(VADDPS, p, pair, pair)
		}
		if p = pair; len(c) == 2 {
			return p
		}
		each(VMULPS, square, p, p)
	}
}

// exp returns e^x as Exp of package vec computes it, and overwrites x. Both bounds are integer minima, which cost half of
// floating ones: as unsigned words, numbers below −87 are larger than −87, and positive numbers are smaller.
func (t tier) exp(x block) block {
	t.constantly(VPMINSD_BCST, VPMINSD, t.number("expHigh", 88), x, x)
	return t.expNegative(x)
}

// expNegative is exp for x ≤ 0.
func (t tier) expNegative(x block) block {
	t.constantly(VPMINUD_BCST, VPMINUD, t.number("expLow", -87), x, x)
	shifted, n, c := t.block(len(x)), t.block(len(x)), t.block(len(x))
	t.mulConstant(t.number("log2e8", 8*math.Log2E), x, shifted)
	t.addConstant(t.number("magic", 1.5*(1<<23)), shifted, shifted) // its low bits are now the integer
	t.subConstant(t.number("magic", 1.5*(1<<23)), shifted, n)
	t.mulConstant(t.number("ln2HighEighth", 0.693359375/8), n, c)
	each(VSUBPS, c, x, x)
	t.mulConstant(t.number("ln2LowEighth", -2.12194440e-4/8), n, c)
	each(VSUBPS, c, x, x)
	square := c
	each(VMULPS, x, x, square)
	p := t.polynomial(x, square, t.number("exp3", 1.666685900e-1), t.number("exp2", 5.000645400e-1))
	each(VMULPS, square, p, p)
	each(VADDPS, x, p, p)
	for i := range p {
		power := n[i]
		VPERMPS(t.eighths(), shifted[i], power)
		VPSLLD(Imm(20), shifted[i], shifted[i])
		VPADDD(shifted[i], power, power)
		VMULPS(power, p[i], p[i])
		VADDPS(power, p[i], p[i])
	}
	return p
}

// eighths returns the table of that name in package vec, twice for the wide tier, which looks four bits up.
func (t tier) eighths() Mem {
	name := "eighths" + t.name
	if m, ok := constants[name]; ok {
		return m
	}
	m := GLOBL(name, RODATA|NOPTR)
	for i := range t.bytes() / 4 {
		j := i % 8
		DATA(4*i, U32(math.Float32bits(float32(math.Exp2(float64(j)/8)))-uint32(j)<<20))
	}
	constants[name] = m
	return m
}

// log1pUnit returns ln(1+f) as log1pUnit of package vec computes it.
func (t tier) log1pUnit(f block) block {
	square := t.block(len(f))
	each(VMULPS, f, f, square)
	p := t.polynomial(f, square, t.number("log6", 0.0891787094), t.number("log5", -0.143502021), t.number("log4", 0.148769609),
		t.number("log3", -0.165656344), t.number("log2", 0.199653981), t.number("log1", -0.250017469), t.number("log0", 0.333338581), t.number("minusHalf", -0.5))
	each(VMULPS, square, p, p)
	each(VADDPS, f, p, p)
	return p
}

// eachNumber opens a kernel that does the same to all numbers of tiles.
func (t tier) eachNumber(name, signature, doc string, tiles []string, body func(w *walk, m map[string]Mem)) {
	t.begin(name, signature, doc)
	w := t.walk(tiles, nil, nil)
	w.columns(func() { w.rows("row", func(m map[string]Mem) { body(w, m) }) })
}

func (t tier) sigmoid() {
	t.eachNumber("sigmoid", "func(s, z *float32, rows int)", "sets s = 1/(1+e^−z).", []string{"s", "z"}, func(w *walk, m map[string]Mem) {
		x := w.load(m["z"])
		t.negate(x)
		p, one := t.exp(x), t.broadcast(t.number("one", 1))
		for _, v := range p {
			VADDPS(one, v, v)
			VDIVPS(v, one, v)
		}
		w.store(p, m["s"])
	})
	t.eachNumber("sigmoidBackward", "func(grad, s *float32, rows int)", "sets g = g·s·(1−s).", []string{"grad", "s"}, func(w *walk, m map[string]Mem) {
		s, g, one := w.load(m["s"]), w.load(m["grad"]), t.broadcast(t.number("one", 1))
		for i, v := range s {
			q := t.vector()
			VSUBPS(v, one, q)
			VMULPS(v, q, q)
			VMULPS(q, g[i], g[i])
		}
		w.store(g, m["grad"])
	})
}

// negate flips the sign bits of x.
func (t tier) negate(x block) { t.xorConstant(t.constant("sign", 1<<31), x, x) }

// above sets to = a where x > c and b elsewhere.
func (t tier) above(x block, c Mem, a, b, to block) { t.choice(14, x, c, a, b, to) }

// below sets to = a where x < c and b elsewhere.
func (t tier) below(x block, c Mem, a, b, to block) { t.choice(1, x, c, a, b, to) }

func (t tier) choice(comparison uint64, x block, c Mem, a, b, to block) {
	for i := range to {
		if t.wide {
			k := K()
			VCMPPS_BCST(Imm(comparison), c, x[i], k)
			VBLENDMPS(a[i], b[i], k, to[i])
		} else {
			m := t.vector()
			VCMPPS(Imm(comparison), c, x[i], m)
			VBLENDVPS(m, a[i], b[i], to[i])
		}
	}
}

func (t tier) sqrtSoftplus() {
	t.eachNumber("sqrtSoftplus", "func(s, z *float32, rows int)", "sets s = √ln(1+e^z).", []string{"s", "z"}, func(w *walk, m map[string]Mem) {
		x := w.load(m["z"])
		t.orConstant(t.constant("sign", 1<<31), x, x) // −|z|
		u := t.expNegative(x)
		// ln(1+u) of u, or with u > √2 − 1 ln 2 + ln(1+f) of f = (u−1)/2.
		f := t.block(w.n)
		t.subConstant(t.number("one", 1), u, f)
		t.mulConstant(t.number("half", 0.5), f, f)
		t.below(u, t.number("sqrt2Minus1", math.Sqrt2-1), u, f, f)
		small := t.log1pUnit(f)
		large := t.block(w.n)
		t.addConstant(t.number("ln2", math.Ln2), small, large)
		t.below(u, t.number("sqrt2Minus1", math.Sqrt2-1), small, large, large)
		z := w.load(m["z"])
		t.maxConstant(t.number("zero", 0), z, z)
		each(VADDPS, large, z, z)
		for _, v := range z {
			VSQRTPS(v, v)
		}
		w.store(z, m["s"])
	})
	t.eachNumber("sqrtSoftplusBackward", "func(grad, s *float32, rows int)", "sets g = g·(1−e^(−s²))/(2s).", []string{"grad", "s"}, func(w *walk, m map[string]Mem) {
		s, x, minus := w.load(m["s"]), t.block(w.n), t.block(w.n)
		each(VMULPS, s, s, x)
		t.xorConstant(t.constant("sign", 1<<31), x, minus)
		large, one := t.expNegative(minus), t.broadcast(t.number("one", 1))
		for _, v := range large {
			VSUBPS(v, one, v)
		}
		// By its series while e^(−s²) is close to 1.
		small, c := t.block(w.n), t.block(w.n)
		t.mulConstant(t.number("sixth", 1./6), x, small)
		for _, v := range small {
			VSUBPS(v, one, v)
		}
		for _, k := range []Mem{t.number("fifth", 1./5), t.number("fourth", 1./4), t.number("third", 1./3), t.number("half", 0.5)} {
			t.mulConstant(k, x, c)
			each(VMULPS, small, c, small)
			for _, v := range small {
				VSUBPS(v, one, v)
			}
		}
		each(VMULPS, small, x, small)
		t.above(x, t.number("quarter", 0.25), large, small, large)
		grad, s := w.load(m["grad"]), w.load(m["s"])
		for i, v := range large {
			VMULPS(grad[i], v, v)
			VADDPS(s[i], s[i], s[i])
			VDIVPS(s[i], v, v)
		}
		w.store(large, m["grad"])
	})
}

func (t tier) softmax() {
	t.begin("softmax", "func(s, z *float32, rows int)", "sets s = softmax(z) over the rows.")
	w := t.walk([]string{"s", "z"}, nil, nil)
	w.columns(func() {
		top := t.copies(t.constant("minusInfinity", math.Float32bits(float32(math.Inf(-1)))), w.n)
		w.rows("largest", func(m map[string]Mem) { each(VMAXPS, w.load(m["z"]), top, top) })
		sum := w.zeros()
		w.rows("power", func(m map[string]Mem) {
			x := w.load(m["z"])
			each(VSUBPS, top, x, x)
			p := t.expNegative(x)
			each(VADDPS, p, sum, sum)
			w.store(p, m["s"])
		})
		one := t.broadcast(t.number("one", 1))
		for _, v := range sum {
			VDIVPS(v, one, v)
		}
		w.rows("share", func(m map[string]Mem) {
			x := w.load(m["s"])
			each(VMULPS, sum, x, x)
			w.store(x, m["s"])
		})
	})
	t.begin("softmaxBackward", "func(grad, s *float32, rows int)", "sets g = s·(g − Σ g·s).")
	w = t.walk([]string{"grad", "s"}, nil, nil)
	w.columns(func() {
		mean := w.zeros()
		w.rows("mean", func(m map[string]Mem) {
			x := w.load(m["grad"])
			each(VMULPS, w.load(m["s"]), x, x)
			each(VADDPS, x, mean, mean)
		})
		w.rows("gradient", func(m map[string]Mem) {
			x := w.load(m["grad"])
			each(VSUBPS, mean, x, x)
			each(VMULPS, w.load(m["s"]), x, x)
			w.store(x, m["grad"])
		})
	})
}
