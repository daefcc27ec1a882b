package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
)

// product multiplies a packed matrix with a tile. Sums of half a row of tokens stay in registers while the loop runs over
// the columns: of all 8 rows of a panel with 32 registers, of 2 with 16.
func (t tier) product() {
	t.begin("product", "func(z, w, x *float32, panels, cols int)",
		"computes z[8p+i][t] = Σ_c w[p][c][i]·x[c][t] for panels of 8 rows.")
	z, w, x, panels, cols := param("z"), param("w"), param("x"), param("panels"), param("cols")
	rows, vectors := 8, 2
	if !t.wide {
		rows, vectors = 2, 4
	}
	half := vectors * t.bytes()
	loop("panel", panels, func() {
		part := counter(8 / rows)
		loop("rows", part, func() {
			tokens := counter(rowBytes / half)
			loop("tokens", tokens, func() {
				sum := t.vectors(rows * vectors)
				for _, s := range sum {
					zero(s)
				}
				// One register counts columns and finds both, up to 0 from their negated number: a step costs one instruction.
				at8 := copied(cols)
				SHLQ(Imm(5), at8)
				wEnd, xEnd := copied(w), copied(x)
				ADDQ(at8, wEnd)
				LEAQ(Mem{Base: xEnd, Index: at8, Scale: 8}, xEnd)
				NEGQ(at8)
				Label("column")
				in := t.vectors(vectors)
				for j, v := range in {
					VMOVUPS(Mem{Base: xEnd, Index: at8, Scale: 8, Disp: j * t.bytes()}, v)
				}
				for i := range rows {
					t.addProducts(sum[i*vectors:(i+1)*vectors], in, Mem{Base: wEnd, Index: at8, Scale: 1, Disp: 4 * i})
				}
				ADDQ(Imm(8*4), at8)
				JNZ(LabelRef("column"))
				for i, s := range sum {
					VMOVUPS(s, at(z, i/vectors*rowBytes+i%vectors*t.bytes()))
				}
				advance(z, half)
				advance(x, half)
			})
			advance(z, (rows-1)*rowBytes)
			advance(x, -rowBytes)
			advance(w, rows*4)
		})
		// From the end of this panel's first column to the next panel.
		next := copied(cols)
		DECQ(next)
		SHLQ(Imm(5), next)
		ADDQ(next, w)
	})
	end()
}

// outer adds the outer products of a tile's tokens to a matrix, 32 columns at a time.
func (t tier) outer() {
	for _, rows := range []int{8, 1} {
		t.outerRows(rows)
	}
}

func (t tier) outerRows(rows int) {
	name := map[int]string{8: "outer", 1: "outerRow"}[rows]
	t.begin(name, "func(sum, grad, tokens *float32, panels, cols int)",
		map[int]string{8: "adds Σ_t grad[e][t]·tokens[t][c] to sum[e][c] for panels of 8 rows; cols is a multiple of 32.",
			1: "is outer for panels of 1 row."}[rows])
	sum, grad, tokens, panels, cols := param("sum"), param("grad"), param("tokens"), param("panels"), param("cols")
	stride := copied(cols)
	SHLQ(Imm(2), stride)
	block, vectors := rows, 32*4/t.bytes()
	if !t.wide {
		block = min(rows, 2)
	}
	loop("panel", panels, func() {
		part := counter(rows / block)
		loop("rows", part, func() {
			blocks := copied(cols)
			SHRQ(Imm(5), blocks)
			loop("columns", blocks, func() {
				acc := t.vectors(block * vectors)
				out := copied(sum)
				for i := range acc {
					VMOVUPS(at(out, i%vectors*t.bytes()), acc[i])
					if (i+1)%vectors == 0 {
						ADDQ(stride, out)
					}
				}
				g, x, n, next := copied(grad), copied(tokens), counter(64/2), copied(grad)
				advance(next, block*rowBytes)
				loop("token", n, func() { // two at a time, to spend less on the loop
					for k, from := range []Mem{at(x, 0), {Base: x, Index: stride, Scale: 1}} {
						in := t.vectors(vectors)
						for j, v := range in {
							VMOVUPS(from.Offset(j*t.bytes()), v)
						}
						for i := range block {
							t.addProducts(acc[i*vectors:(i+1)*vectors], in, at(g, i*rowBytes+4*k))
						}
					}
					LEAQ(Mem{Base: x, Index: stride, Scale: 2}, x)
					PREFETCHT0(at(next, 0)) // 7 % of AVX2's time
					advance(next, 64)
					advance(g, 2*4)
				})
				out = copied(sum)
				for i := range acc {
					VMOVUPS(acc[i], at(out, i%vectors*t.bytes()))
					if (i+1)%vectors == 0 {
						ADDQ(stride, out)
					}
				}
				advance(sum, 32*4)
				advance(tokens, 32*4)
			})
			SUBQ(stride, tokens)
			for range block - 1 {
				ADDQ(stride, sum)
			}
			advance(grad, block*rowBytes)
		})
	})
	end()
}
