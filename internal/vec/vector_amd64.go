package vec

import "golang.org/x/sys/cpu"

func init() {
	if cpu.X86.HasAVX2 {
		offer(assembly{productAVX2, outerAVX2, outerRowAVX2, transposeAVX2, 8}.kernel("avx2"))
	}
	if cpu.X86.HasAVX512F && cpu.X86.HasAVX512BW && cpu.X86.HasAVX512DQ && cpu.X86.HasAVX512VL {
		offer(assembly{productAVX512, outerAVX512, outerRowAVX512, transposeAVX512, 16}.kernel("avx512"))
	}
}

// assembly is one tier of generated functions. They know neither bounds nor odd shapes; the methods here do.
type assembly struct {
	product         func(z, w, x *float32, panels, cols int)
	outer, outerRow func(sum, grad, tokens *float32, panels, cols int)
	transpose       func(out, x *float32, blocks, cols int)
	lanes           int // numbers in a vector
}

func (a assembly) kernel(name string) *kernel {
	return &kernel{name: name, panel: 8, product: a.times, outer: a.addOuter}
}

func (a assembly) times(m *Matrix, z, x, _ []float32) {
	full := m.rows / 8
	a.product(&z[0], &m.packed[0][0], &x[0], full, m.cols)
	if last := m.panels() - 1; last == full {
		a.product(&z[m.first(last)*Lanes], &m.packed[last*m.cols][0], &x[0], 1, m.cols)
	}
}

func (a assembly) addOuter(sum *Gradient, g, x, scratch []float32) {
	tokens := scratch[:Lanes*sum.stride]
	whole := sum.cols / a.lanes
	if whole > 0 {
		a.transpose(&tokens[0], &x[0], whole, sum.stride)
	}
	for c := whole * a.lanes; c < sum.cols; c++ {
		for t, v := range row(x, c) {
			tokens[t*sum.stride+c] = v
		}
	}
	panels := sum.rows / 8
	if panels > 0 {
		a.outer(&sum.sum[0], &g[0], &tokens[0], panels, sum.stride)
	}
	if rest := sum.rows % 8; rest > 0 {
		a.outerRow(&sum.sum[panels*8*sum.stride], &g[panels*8*Lanes], &tokens[0], rest, sum.stride)
	}
}
