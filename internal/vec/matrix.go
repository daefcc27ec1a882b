package vec

// panel is the number of matrix rows that one pass of the product keeps in registers: with seven sums the compiler
// keeps all of them there, with eight it spills one.
const panel = 7

// Matrix is a float32 matrix packed for products with tiles. Its layout belongs to the kernel.
type Matrix struct {
	rows, cols int
	packed     [][panel]float32 // [⌈rows/7⌉][cols], missing rows are zero
}

// NewMatrix returns a zero matrix of the given shape.
func NewMatrix(rows, cols int) *Matrix {
	return &Matrix{rows, cols, make([][panel]float32, (rows+panel-1)/panel*cols)}
}

// Set packs w, row-major [rows][cols].
func (m *Matrix) Set(w []float32) {
	for r := range m.rows {
		p := m.packed[r/panel*m.cols:]
		for c, v := range w[r*m.cols : (r+1)*m.cols] {
			p[c][r%panel] = v
		}
	}
}

// Times computes z = m·x for a tile: z[r][t] = Σ_c m[r][c]·x[c][t], summed over c in order. x is [cols][64], z [rows][64];
// token is scratch for one token's column and holds at least cols numbers.
func (m *Matrix) Times(z, x, token []float32) {
	h := token[:m.cols]
	for t := range Lanes {
		for c := range h {
			h[c] = x[c*Lanes+t]
		}
		packed := m.packed
		for r := 0; r < m.rows; r += panel {
			p := packed[:len(h)]
			packed = packed[len(h):]
			var a0, a1, a2, a3, a4, a5, a6 float32
			for c := range p {
				w, y := &p[c], h[c]
				a0 += float32(w[0] * y)
				a1 += float32(w[1] * y)
				a2 += float32(w[2] * y)
				a3 += float32(w[3] * y)
				a4 += float32(w[4] * y)
				a5 += float32(w[5] * y)
				a6 += float32(w[6] * y)
			}
			if r+panel <= m.rows {
				o := z[r*Lanes+t : r*Lanes+t+(panel-1)*Lanes+1]
				o[0], o[Lanes], o[2*Lanes], o[3*Lanes] = a0, a1, a2, a3
				o[4*Lanes], o[5*Lanes], o[6*Lanes] = a4, a5, a6
				continue
			}
			for i, a := range [panel]float32{a0, a1, a2, a3, a4, a5, a6} {
				if r+i < m.rows {
					z[(r+i)*Lanes+t] = a
				}
			}
		}
	}
}

// AddOuter adds the weight gradient of one tile: dw[e][c] += Σ_t g[e][t]·x[c][t], token after token. g is [rows][64] with
// zeros in the lanes past the last token, x [cols][64], dw row-major [rows][cols].
func AddOuter(dw, g, x []float32, rows, cols int) {
	for e := range rows {
		gr := row(g, e)
		out := dw[e*cols : (e+1)*cols]
		c := 0
		for ; c+4 <= cols; c += 4 {
			x0, x1, x2, x3 := row(x, c), row(x, c+1), row(x, c+2), row(x, c+3)
			a0, a1, a2, a3 := out[c], out[c+1], out[c+2], out[c+3]
			for t, v := range gr {
				a0 += float32(v * x0[t])
				a1 += float32(v * x1[t])
				a2 += float32(v * x2[t])
				a3 += float32(v * x3[t])
			}
			out[c], out[c+1], out[c+2], out[c+3] = a0, a1, a2, a3
		}
		for ; c < cols; c++ {
			xr, a := row(x, c), out[c]
			for t, v := range gr {
				a += float32(v * xr[t])
			}
			out[c] = a
		}
	}
}
