package vec

import (
	"fmt"
	"strings"
)

//go:generate go run ./gen -out kernels_amd64.s -stubs kernels_amd64.go -pkg vec

// kernel is one implementation of the arithmetic. All give the same bits.
type kernel struct {
	name string
	// panels divides the rows of a matrix among the passes of product, nil if they are too few for it.
	panels  func(rows int) []panel
	product func(m *Matrix, z, x, scratch []float32)
	outer   func(sum *Gradient, g, x, scratch []float32)
	// outerRows is outer for tokens in rows.
	outerRows func(sum *Gradient, g, rows, scratch []float32)

	topK   func(q *Selector, mask []uint64, s, bias []float32, live uint64, allowed []uint64)
	groups func(q *Selector, allowed []uint64, s, bias []float32, rows, kept int)

	normals func(dst []float32, key uint64)

	sumChosen    func(sum *Row, s []float32, mask []uint64)
	invert       func(x *Row)
	total        func(x *Row) [8]float64
	sumSquares   func(sum *Row, s []float32, rows int)
	gateError    func(err, mean *Row, g, s, ideal []float32, mask []uint64, inverse, invIdeal *Row, weight float32)
	gateGradient func(g []float32, mean, inverse *Row, mask []uint64)
	weightedSum  func(sum, all *Row, s, weights []float32)
	addPrices    func(g, weights []float32, offset, scale *Row)
	above        func(mask []uint64, s, least []float32, offset *Row)
	lists        func(ids []int32, gates []float32, mask []uint64, s []float32, inverse *Row, k int)

	mix    func(energy *Row, x, a, b []float32, noise float32, rows int)
	scale  func(x []float32, factor *Row, rows int)
	gather func(tile, table []float32, source []int32, width int)
	load   func(tile, table []float32, width int)
	unload func(table, tile []float32, width int)

	peak func(n int) float64

	sigmoid, softmax, sqrtSoftplus                         scoring
	sigmoidBackward, softmaxBackward, sqrtSoftplusBackward scoring
}

// scoring reads one tile of rows and writes another, or the same.
type scoring func(to, from []float32, rows int)

var (
	kernels = []*kernel{&portable} // the fastest first
	active  = kernels[0]
)

// FloatingPoint does n rounds of independent multiply-adds, as fast as the kernel in use can, and returns how many floating
// operations that were: the measure of what other kernels reach.
func FloatingPoint(n int) float64 { return active.peak(n) }

// offer puts a kernel before those that are there and chooses it.
func offer(k *kernel) {
	kernels = append([]*kernel{k}, kernels...)
	active = k
}

// Kernels returns the names of the kernels that this machine can run, the fastest first.
func Kernels() []string {
	var names []string
	for _, k := range kernels {
		names = append(names, k.name)
	}
	return names
}

// Kernel returns the name of the kernel in use.
func Kernel() string { return active.name }

// Use chooses a kernel by name; "" and "auto" choose the fastest. Call it before anything computes.
func Use(name string) error {
	if name == "" || name == "auto" {
		active = kernels[0]
		return nil
	}
	for _, k := range kernels {
		if k.name == name {
			active = k
			return nil
		}
	}
	return fmt.Errorf("kernel is %q: this machine can run auto, %s", name, strings.Join(Kernels(), ", "))
}
