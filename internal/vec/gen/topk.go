package main

import (
	"fmt"
	"math"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// Values are compared as integers: a key is a float32's bits with all but the sign flipped where it is negative, so that
// keys order as numbers do, and integer maxima cost half of floating ones. Rows that a token may not touch have leastKey.
const (
	leastKey    = 1 << 31
	minusInfKey = 0x807fffff // of −Inf, which is never chosen
)

// topK finds the largest n keys of every token, for lists of n = 2, 4, … 32. Short lists exist in three forms, since a number
// that is not negative is its own key.
func (t tier) topK() {
	for _, n := range []int{2, 4, 8, 16, 32} {
		t.best(n, form{keyed: true, biased: true})
	}
	for _, n := range []int{2, 4, 8} {
		t.best(n, form{biased: true})
		t.best(n, form{})
	}
	t.choose()
	t.settle()
	t.groups()
}

// compareExchange puts the larger of two keys first.
func (t tier) compareExchange(a, b *VecVirtual) {
	larger, smaller := t.vector(), t.vector()
	VPMAXSD(*a, *b, larger)
	VPMINSD(*a, *b, smaller)
	*a, *b = larger, smaller
}

// sorted emits Batcher's odd-even merge sort, largest first.
func (t tier) sorted(x []VecVirtual) {
	n := len(x)
	for p := 1; p < n; p *= 2 {
		for k := p; k >= 1; k /= 2 {
			for j := k % p; j+k < n; j += 2 * k {
				for i := range min(k, n-j-k) {
					if (i+j)/(2*p) == (i+j+k)/(2*p) {
						t.compareExchange(&x[i+j], &x[i+j+k])
					}
				}
			}
		}
	}
}

// merged sorts a bitonic sequence, largest first.
func (t tier) merged(x []VecVirtual) {
	for k := len(x) / 2; k >= 1; k /= 2 {
		for i := range x {
			if i&k == 0 {
				t.compareExchange(&x[i], &x[i+k])
			}
		}
	}
}

// form is what best makes of a row's scores before it compares them.
type form struct {
	keyed  bool // else the numbers' bits are compared, which puts those that are not negative in order, above all others
	biased bool
}

func (f form) name() string {
	switch {
	case f.keyed:
		return ""
	case f.biased:
		return "Positive"
	}
	return "Plain"
}

// value is what is compared of a row, where allowed if that is not nil.
func (f form) value(t tier, s, bias Mem, allowed Register, least VecVirtual) VecVirtual {
	var x VecVirtual
	if f.biased {
		x = t.sum(s, bias)
	} else {
		x = t.vector()
		VMOVUPS(s, x)
	}
	if f.keyed {
		x = t.key(x)
	}
	if allowed != nil {
		t.forbid(x, allowed, least)
	}
	return x
}

// sum loads the scores of a row and adds its bias.
func (t tier) sum(s, bias Mem) VecVirtual {
	x := t.vector()
	if t.wide {
		VMOVUPS(s, x)
		VADDPS_BCST(bias, x, x)
	} else {
		VBROADCASTSS(bias, x)
		VADDPS(s, x, x)
	}
	return x
}

// key turns numbers into keys, or back: x ⊕ (sign ∧ notSign).
func (t tier) key(x VecVirtual) VecVirtual {
	key, notSign := t.vector(), t.constant("notSign", 1<<31-1)
	VPSRAD(Imm(31), x, key)
	if t.wide {
		VPTERNLOGD_BCST(U8(0x6c), notSign, x, key)
	} else {
		VPAND(notSign, key, key)
		VPXOR(x, key, key)
	}
	return key
}

// allowedKey is key, but leastKey where not allowed.
func (t tier) allowedKey(x VecVirtual, allowed Register, least VecVirtual) VecVirtual {
	key := t.key(x)
	t.forbid(key, allowed, least)
	return key
}

// forbid sets keys to leastKey where not allowed.
func (t tier) forbid(key VecVirtual, allowed Register, least VecVirtual) {
	if t.wide {
		VPBLENDMD(key, least, allowed, key)
	} else {
		VPBLENDVB(allowed, key, least, key)
	}
}

// allowedOf loads a group's mask of a column of tokens: a mask register, or a vector of ones where a bit is set.
func (t tier) allowedOf(word Mem) Register {
	if t.wide {
		k := K()
		KMOVW(word, k)
		return k
	}
	v, bits := t.vector(), t.vector()
	VPBROADCASTB(word, v)
	VMOVDQU(t.laneBits(), bits)
	VPAND(bits, v, v)
	VPCMPEQD(bits, v, v)
	return v
}

func (t tier) laneBits() Mem {
	if m, ok := constants["laneBits"]; ok {
		return m
	}
	m := GLOBL("laneBits", RODATA|NOPTR)
	for i := range 8 {
		DATA(4*i, U32(1<<i))
	}
	constants["laneBits"] = m
	return m
}

// best keeps a sorted list of the n best keys of a column of tokens, and merges chunks of rows into it: a chunk is sorted
// by a network, its reverse is compared with the tail of the list, and a bitonic network sorts the result. Rows that do
// not fill a chunk are inserted one by one. The list stays in registers where it fits, else in memory.
func (t tier) best(n int, f form) {
	chunk := min(n, 8)
	inRegisters := n <= 4 || t.wide && n <= 8
	t.begin(fmt.Sprintf("best%d%s", n, f.name()), "func(list *int32, s, bias *float32, allowed *uint64, groups, size int)", fmt.Sprintf(
		map[string]string{"": "sets list[i][t] to the key of rank i < %d among the rows of s[e][t] + bias[e] whose group's bit t is set.",
			"Positive": "is best%d, right for tokens of whose list no key is negative.",
			"Plain":    "is best%dPositive without a bias."}[f.name()], n))
	list, s, allowed := param("list"), param("s"), param("allowed")
	least := t.broadcast(t.constant("leastKey", leastKey))
	column := counter(rowBytes / t.bytes())
	loop("column", column, func() {
		row, b, word, g := copied(s), param("bias"), copied(allowed), param("groups")
		kept := make([]VecVirtual, n)
		for i := range kept {
			if inRegisters {
				kept[i] = t.vector()
				VMOVAPS(least, kept[i])
			} else {
				t.store(least, at(list, i*rowBytes))
			}
		}
		loop("group", g, func() {
			may := t.allowedOf(at(word, 0))
			left := param("size")
			SUBQ(Imm(uint64(chunk)), left)
			JL(LabelRef("rest"))
			Label("chunk")
			x := make([]VecVirtual, chunk)
			for i := range x {
				allowed := may
				if t.wide {
					allowed = nil // merging minds it
				}
				x[i] = f.value(t, at(row, i*rowBytes), at(b, 4*i), allowed, least)
			}
			t.sorted(x)
			if inRegisters {
				y := make([]VecVirtual, n)
				for i := range y {
					y[i] = kept[i]
					if t.wide {
						VPMAXSD(x[n-1-i], y[i], may, y[i])
					} else {
						VPMAXSD(x[n-1-i], y[i], y[i])
					}
				}
				t.merged(y)
				for i := range y {
					VMOVAPS(y[i], kept[i])
				}
			} else {
				t.mergeIntoMemory(list, n, x, may)
			}
			advance(row, chunk*rowBytes)
			advance(b, chunk*4)
			SUBQ(Imm(uint64(chunk)), left)
			JGE(LabelRef("chunk"))
			Label("rest")
			ADDQ(Imm(uint64(chunk)), left)
			JZ(LabelRef("next"))
			Label("insert")
			v := f.value(t, at(row, 0), at(b, 0), may, least)
			for i := range n {
				held, smaller := t.vector(), t.vector()
				if inRegisters {
					VMOVAPS(kept[i], held)
				} else {
					t.load(at(list, i*rowBytes), held)
				}
				VPMINSD(v, held, smaller)
				VPMAXSD(v, held, held)
				if inRegisters {
					VMOVAPS(held, kept[i])
				} else {
					t.store(held, at(list, i*rowBytes))
				}
				v = smaller
			}
			advance(row, rowBytes)
			advance(b, 4)
			DECQ(left)
			JNZ(LabelRef("insert"))
			Label("next")
			advance(word, 8)
		})
		if inRegisters {
			for i, v := range kept {
				t.store(v, at(list, i*rowBytes))
			}
		}
		advance(list, t.bytes())
		advance(s, t.bytes())
		advance(allowed, t.bytes()/32)
	})
	end()
}

// mergeIntoMemory merges the sorted chunk x into a sorted list of n rows, where allowed.
func (t tier) mergeIntoMemory(list Register, n int, x []VecVirtual, allowed Register) {
	c := len(x)
	block := func(i int) int { return i * c * rowBytes }
	tail := make([]VecVirtual, c)
	for i := range tail {
		held := at(list, block(n/c-1)+i*rowBytes)
		if t.wide {
			tail[i] = t.vector()
			t.load(held, tail[i])
			VPMAXSD(x[c-1-i], tail[i], allowed, tail[i])
		} else {
			tail[i] = x[c-1-i]
			VPMAXSD(held, tail[i], tail[i])
		}
	}
	if n == c {
		t.merged(tail)
		for i, v := range tail {
			t.store(v, at(list, i*rowBytes))
		}
		return
	}
	for i, v := range tail {
		t.store(v, at(list, block(n/c-1)+i*rowBytes))
	}
	// The layers of the bitonic network that reach across blocks, then each block in registers.
	for k := n / 2; k >= c; k /= 2 {
		for i := range n {
			if i&k != 0 {
				continue
			}
			a, b := t.vector(), t.vector()
			t.load(at(list, i*rowBytes), a)
			t.load(at(list, (i+k)*rowBytes), b)
			t.compareExchange(&a, &b)
			t.store(a, at(list, i*rowBytes))
			t.store(b, at(list, (i+k)*rowBytes))
		}
	}
	for j := range n / c {
		y := make([]VecVirtual, c)
		for i := range y {
			y[i] = t.vector()
			t.load(at(list, block(j)+i*rowBytes), y[i])
		}
		t.merged(y)
		for i, v := range y {
			t.store(v, at(list, block(j)+i*rowBytes))
		}
	}
}

func (t tier) load(from Mem, to VecVirtual) { VMOVUPS(from, to) }
func (t tier) store(v VecVirtual, to Mem)   { VMOVUPS(v, to) }

// choose marks every row that is not below the k-th of its token, which is all there is to do unless several equal the k-th.
func (t tier) choose() {
	t.begin("choose", "func(mask *uint64, sum *float32, list *int32, s, bias *float32, allowed *uint64, groups, size, k int) (ties, negative int)",
		"sets bit t of mask[e] where row e is not below the last of token t's first k keys of list, sum[t] to Σ s[e][t] over those rows, and returns whether that gave any token more rows than it has keys, and whether the k-th of any token that may choose is negative or missing.")
	mask, sum, list, s, allowed := param("mask"), param("sum"), param("list"), param("s"), param("allowed")
	infinity, one := t.broadcast(t.constant("minusInfKey", minusInfKey)), t.broadcast(t.constant("integerOne", 1))
	ties := t.vector()
	zero(ties)
	negative := t.vector() // the last keys of tokens that may choose
	zero(negative)
	column := counter(rowBytes / t.bytes())
	loop("column", column, func() {
		// A token has fewer than k keys if it may choose fewer rows.
		extra, kth := t.vector(), t.vector()
		zero(extra)
		p, n := copied(list), param("k")
		loop("listed", n, func() {
			t.load(at(p, 0), kth)
			if t.wide {
				some := K()
				VPCMPGTD(infinity, kth, some)
				VPSUBD(one, extra, some, extra)
			} else {
				some := t.vector()
				VPCMPGTD(infinity, kth, some)
				VPADDD(some, extra, extra)
			}
			advance(p, rowBytes)
		})
		finite := t.vector()
		VPADDD(one, infinity, finite)
		VPMAXSD(kth, finite, finite)
		least := t.key(finite)
		total := t.vector()
		zero(total)
		row, b, word, out, g := copied(s), param("bias"), copied(allowed), copied(mask), param("groups")
		loop("group", g, func() {
			may := t.allowedOf(at(word, 0))
			if t.wide {
				VPORD(kth, negative, may, negative)
			} else {
				last := t.vector()
				VPAND(may.(VecVirtual), kth, last)
				VPOR(last, negative, negative)
			}
			left := param("size")
			loop("row", left, func() {
				x := t.sum(at(row, 0), at(b, 0))
				if t.wide {
					chosen := K()
					VCMPPS(Imm(13), least, x, may, chosen)
					VPADDD(one, extra, chosen, extra)
					VADDPS(at(row, 0), total, chosen, total)
					KMOVW(chosen, at(out, 0))
				} else {
					chosen, bits := t.vector(), GP32()
					VCMPPS(Imm(13), least, x, chosen)
					VPAND(may.(VecVirtual), chosen, chosen)
					VPSUBD(chosen, extra, extra)
					VMOVMSKPS(chosen, bits)
					VANDPS(at(row, 0), chosen, chosen)
					VADDPS(chosen, total, total)
					MOVB(bits.As8(), at(out, 0))
				}
				advance(row, rowBytes)
				advance(b, 4)
				advance(out, 8)
			})
			advance(word, 8)
		})
		t.or(extra, ties, ties)
		t.store(total, at(sum, 0))
		advance(sum, t.bytes())
		advance(list, t.bytes())
		advance(s, t.bytes())
		advance(allowed, t.bytes()/32)
		advance(mask, t.bytes()/32)
	})
	some, signs := GP64(), GP64()
	XORQ(some, some)
	if t.wide {
		k := K()
		VPTESTMD(ties, ties, k)
		KMOVW(k, some.As32())
		VPMOVD2M(negative, k)
		KMOVW(k, signs.As32())
	} else {
		VPTEST(ties, ties)
		SETNE(some.As8())
		VMOVMSKPS(negative, signs.As32())
	}
	Store(some, ReturnIndex(0))
	Store(signs, ReturnIndex(1))
	end()
}

func (t tier) or(a, b, to VecVirtual) {
	if t.wide {
		VPORD(a, b, to)
	} else {
		VPOR(a, b, to)
	}
}

// settle does what choose does where several rows equal the k-th: it marks every key above the k-th of its token, and of
// those equal to it the first that are still wanted.
func (t tier) settle() {
	t.begin("settle", "func(mask *uint64, list *int32, s, bias *float32, allowed *uint64, groups, size, k int)",
		"sets bit t of mask[e] where row e is among the k best of token t; list is that of best, ties go to the lower row.")
	mask, list, s, allowed := param("mask"), param("list"), param("s"), param("allowed")
	least := t.broadcast(t.constant("leastKey", leastKey))
	infinity := t.broadcast(t.constant("minusInfKey", minusInfKey))
	one := t.broadcast(t.constant("integerOne", 1))
	lastRow := param("k")
	DECQ(lastRow)
	SHLQ(Imm(8), lastRow)
	column := counter(rowBytes / t.bytes())
	loop("column", column, func() {
		kth, wanted := t.vector(), t.vector()
		t.load(Mem{Base: list, Index: lastRow, Scale: 1}, kth)
		// Wanted are k less the keys above the k-th; none if fewer than k may be chosen at all.
		zero(wanted)
		p, n := copied(list), param("k")
		loop("equal", n, func() {
			if t.wide {
				equal := K()
				VPCMPEQD(at(p, 0), kth, equal)
				VPADDD(one, wanted, equal, wanted)
			} else {
				equal := t.vector()
				VPCMPEQD(at(p, 0), kth, equal)
				VPSUBD(equal, wanted, wanted)
			}
			advance(p, rowBytes)
		})
		if t.wide {
			some := K()
			VPCMPGTD(infinity, kth, some)
			VMOVDQA32_Z(wanted, some, wanted)
		} else {
			some := t.vector()
			VPCMPGTD(infinity, kth, some)
			VPAND(some, wanted, wanted)
		}
		VPMAXSD(infinity, kth, kth)
		row, b, word, out, g := copied(s), param("bias"), copied(allowed), copied(mask), param("groups")
		loop("group", g, func() {
			may := t.allowedOf(at(word, 0))
			left := param("size")
			loop("row", left, func() {
				key := t.allowedKey(t.sum(at(row, 0), at(b, 0)), may, least)
				if t.wide {
					above, equal := K(), K()
					VPCMPGTD(kth, key, above)
					VPCMPEQD(kth, key, equal)
					still := K()
					VPTESTMD(wanted, wanted, equal, still)
					VPSUBD(one, wanted, still, wanted)
					KORW(still, above, above)
					KMOVW(above, at(out, 0))
				} else {
					above, equal, none := t.vector(), t.vector(), t.vector()
					VPCMPGTD(kth, key, above)
					VPCMPEQD(kth, key, equal)
					zero(none)
					VPCMPEQD(none, wanted, none)
					VPANDN(equal, none, equal)
					VPADDD(equal, wanted, wanted)
					VPOR(equal, above, above)
					bits := GP32()
					VMOVMSKPS(above, bits)
					MOVB(bits.As8(), at(out, 0))
				}
				advance(row, rowBytes)
				advance(b, 4)
				advance(out, 8)
			})
			advance(word, 8)
		})
		advance(list, t.bytes())
		advance(s, t.bytes())
		advance(allowed, t.bytes()/32)
		advance(mask, t.bytes()/32)
	})
	end()
}

// groups ranks groups by the sum of their two best rows.
func (t tier) groups() {
	t.begin("groups", "func(allowed *uint64, rank, s, bias *float32, groups, size, kept int)",
		"sets bit t of allowed[g] where group g is among the kept best of token t by the sum of its two best rows; rank is scratch [groups][64].")
	allowed, rank, s, size, kept := param("allowed"), param("rank"), param("s"), param("size"), param("kept")
	infinity := t.broadcast(t.constant("minusInfinity", math.Float32bits(float32(math.Inf(-1)))))
	limit := t.vector()
	if t.wide {
		VPBROADCASTD(kept.As32(), limit)
	} else {
		x := XMM()
		VMOVD(kept.As32(), x)
		VPBROADCASTD(x, limit)
	}
	column := counter(rowBytes / t.bytes())
	loop("column", column, func() {
		row, b, out, g := copied(s), param("bias"), copied(rank), param("groups")
		loop("group", g, func() {
			first, second := t.vector(), t.vector()
			VMOVAPS(infinity, first)
			VMOVAPS(infinity, second)
			left := param("size")
			loop("row", left, func() {
				x, lower := t.vector(), t.vector()
				if t.wide {
					VMOVUPS(at(row, 0), x)
					VADDPS_BCST(at(b, 0), x, x)
				} else {
					VBROADCASTSS(at(b, 0), x)
					VADDPS(at(row, 0), x, x)
				}
				VMINPS(x, first, lower)
				VMAXPS(lower, second, second)
				VMAXPS(x, first, first)
				advance(row, rowBytes)
				advance(b, 4)
			})
			CMPQ(size, Imm(1))
			JE(LabelRef("single"))
			VADDPS(second, first, first)
			Label("single")
			VMOVUPS(first, at(out, 0))
			advance(out, rowBytes)
		})
		// A group stays if fewer than kept others are better: greater, or equal and lower.
		word, own := copied(allowed), copied(rank)
		g = param("groups")
		loop("rank", g, func() {
			value, better := t.vector(), t.vector()
			VMOVUPS(at(own, 0), value)
			zero(better)
			other, n := copied(rank), param("groups")
			loop("other", n, func() {
				x := t.vector()
				VMOVUPS(at(other, 0), x)
				CMPQ(other, own)
				JAE(LabelRef("later"))
				t.countWhere(13, value, x, better) // x ≥ value
				JMP(LabelRef("counted"))
				Label("later")
				t.countWhere(14, value, x, better) // x > value
				Label("counted")
				advance(other, rowBytes)
			})
			if t.wide {
				k := K()
				VPCMPGTD(better, limit, k)
				KMOVW(k, at(word, 0))
			} else {
				VPCMPGTD(better, limit, better)
				bits := GP32()
				VMOVMSKPS(better, bits)
				MOVB(bits.As8(), at(word, 0))
			}
			advance(own, rowBytes)
			advance(word, 8)
		})
		advance(s, t.bytes())
		advance(rank, t.bytes())
		advance(allowed, t.bytes()/32)
	})
	end()
}

// countWhere adds 1 to count where the comparison of x with value holds.
func (t tier) countWhere(comparison uint64, value, x, count VecVirtual) {
	if t.wide {
		k := K()
		VCMPPS(Imm(comparison), value, x, k)
		one := t.broadcast(t.constant("integerOne", 1))
		VPADDD(one, count, k, count)
		return
	}
	m := t.vector()
	VCMPPS(Imm(comparison), value, x, m)
	VPSUBD(m, count, count)
}
