// Gen writes the vector kernels of package vec for amd64: kernels_amd64.s and the Go declarations beside it. Run it by
//
//	go generate ./internal/vec
//
// Every kernel exists in two tiers, AVX-512 and AVX2, that compute the same bits as the portable Go code: the same sums in
// the same order, and a multiply and an add where a fused one would round once. A tile's row is 64 tokens, 256 bytes.
package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

const rowBytes = 64 * 4

func main() {
	ConstraintExpr("amd64")
	for _, t := range []tier{{name: "AVX512", wide: true}, {name: "AVX2"}} {
		t.product()
		t.outer()
		t.transpose()
		t.sigmoid()
		t.softmax()
		t.sqrtSoftplus()
		t.topK()
		t.normals()
		t.tallies()
		t.lists()
		t.streams()
		t.peak()
	}
	Generate()
}

// tier is a vector width: 512 bits with 32 registers, or 256 with 16.
type tier struct {
	name string
	wide bool
}

// bytes is the size of a vector.
func (t tier) bytes() int {
	if t.wide {
		return 64
	}
	return 32
}

func (t tier) vector() VecVirtual {
	if t.wide {
		return ZMM()
	}
	return YMM()
}

func (t tier) vectors(n int) []VecVirtual {
	v := make([]VecVirtual, n)
	for i := range v {
		v[i] = t.vector()
	}
	return v
}

// begin opens a kernel's function.
func (t tier) begin(name, signature, doc string) {
	TEXT(name+t.name, NOSPLIT, signature)
	Pragma("noescape")
	Doc(name + t.name + " " + doc)
}

func end() {
	VZEROUPPER()
	RET()
}

func zero(v VecVirtual) {
	if v.Size() == 64 {
		VPXORD(v, v, v)
	} else {
		VXORPS(v, v, v)
	}
}

// addProducts adds scalar·x[j] to sum[j], for a float32 in memory. Its broadcast is part of the multiply, since on Zen 4 one
// of its own takes the place of an addition; AVX2 has no such form.
func (t tier) addProducts(sum, x []VecVirtual, scalar Mem) {
	b := t.vector()
	if !t.wide {
		VBROADCASTSS(scalar, b)
	}
	for j := range x {
		p := t.vector()
		if t.wide {
			VMULPS_BCST(scalar, x[j], p)
		} else {
			VMULPS(b, x[j], p)
		}
		VADDPS(p, sum[j], sum[j])
	}
}

// loop emits a loop that runs n times, n being at least 1 and 0 afterwards.
func loop(label string, n GPVirtual, body func()) {
	Label(label)
	body()
	DECQ(n)
	JNZ(LabelRef(label))
}

// counter returns a register that holds n.
func counter(n int) GPVirtual {
	c := GP64()
	MOVQ(U32(uint32(n)), c)
	return c
}

// copied returns a register that holds what another one does now.
func copied(r Register) GPVirtual {
	c := GP64()
	MOVQ(r, c)
	return c
}

func param(name string) GPVirtual {
	return Load(Param(name), GP64()).(GPVirtual)
}

func at(base Register, bytes int) Mem { return Mem{Base: base, Disp: bytes} }

func advance(p Register, bytes int) { ADDQ(I32(int32(bytes)), p) }
