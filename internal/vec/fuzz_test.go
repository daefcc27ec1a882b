package vec

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// FuzzKernels routes a tile of any shape with every kernel: products, scores, groups, choices and gradients must have the
// same bits, ties and numbers that are nearly nothing included.
func FuzzKernels(f *testing.F) {
	f.Add(uint64(1), uint16(64), uint16(64), uint8(6), uint8(1), uint8(1), uint64(math.MaxUint64))
	f.Add(uint64(2), uint16(256), uint16(64), uint8(8), uint8(8), uint8(4), uint64(1))
	f.Add(uint64(3), uint16(5), uint16(1), uint8(5), uint8(1), uint8(1), uint64(0))
	f.Add(uint64(4), uint16(33), uint16(70), uint8(32), uint8(3), uint8(3), uint64(1<<40-1))
	f.Fuzz(func(t *testing.T, seed uint64, rows, cols uint16, k, groups, kept uint8, live uint64) {
		g := 1 + int(groups)%16
		n := g * (1 + int(rows)%256/g)
		d, m := 1+int(cols)%150, 1+int(kept)%g
		top := 1 + int(k)%min(40, m*n/g)
		r := rand.New(rand.NewPCG(seed, 1))
		x, w, bias := randomTile(r, d), make([]float32, n*d), make([]float32, n)
		for i := range w {
			w[i] = float32(r.NormFloat64())
		}
		for e := range bias {
			bias[e] = float32(r.NormFloat64() * 0.1)
		}
		switch seed % 4 {
		case 0: // a router that knows nothing: every score is a tie
			clear(w)
			clear(bias)
		case 1:
			for i := range x {
				x[i] *= 1e-40
			}
		}
		defer Use("auto")
		var want []float32
		for _, kernel := range slices.Backward(Kernels()) {
			Use(kernel)
			s, q := make([]float32, n*Lanes), NewSelector(top, g)
			mask, allowed := make([]uint64, n), make([]uint64, g)
			matrix, grad, scratch := NewMatrix(n, d), NewGradient(n, d), NewScratch(d)
			matrix.Set(w)
			matrix.Times(s, x, scratch)
			[]func(s, z []float32, rows int){Sigmoid, Softmax, SqrtSoftplus}[seed%3](s, s, n)
			q.Groups(allowed, s, bias, n, m)
			q.TopK(mask, s, bias, live, allowed)
			var sum, err, mean Row
			SumChosen(&sum, s, mask)
			Invert(&sum)
			slope := make([]float32, n*Lanes)
			GateError(&err, &mean, slope, s, s, mask, &sum, &sum, 0.5)
			GateGradient(slope, &mean, &sum, mask)
			SoftmaxBackward(slope, s, n)
			grad.Add(slope, x, scratch)
			got := slices.Concat(s, sum[:], err[:], mean[:], slope, grad.sum)
			for _, word := range append(mask, allowed...) {
				got = append(got, float32(word>>32), float32(uint32(word)))
			}
			if want == nil {
				want = got
			}
			for i := range got {
				if math.Float32bits(got[i]) != math.Float32bits(want[i]) && got[i] == got[i] {
					t.Fatalf("%d rows, %d columns, %d of %d groups, K = %d: number %d is %x with %s, %x with portable", n, d, m, g, top, i, got[i], kernel, want[i])
				}
			}
		}
	})
}
