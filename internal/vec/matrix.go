package vec

// Matrix is a float32 matrix packed for products with tiles. Its layout belongs to the kernel.
type Matrix struct {
	rows, cols int
	kernel     *kernel
	panels     []panel
	packed     [][8]float32 // [panel][cols], of each the first panel.rows numbers
}

// panel is a range of at most 8 rows, of which one pass keeps the sums in registers. Panels may overlap.
type panel struct{ first, rows int }

// NewMatrix returns a zero matrix of the given shape.
func NewMatrix(rows, cols int) *Matrix {
	m := &Matrix{rows: rows, cols: cols, kernel: active, panels: active.panels(rows)}
	if m.panels == nil {
		m.kernel, m.panels = &portable, portablePanels(rows)
	}
	m.packed = make([][8]float32, len(m.panels)*cols)
	return m
}

// Set packs w, row-major [rows][cols].
func (m *Matrix) Set(w []float32) {
	for i, p := range m.panels {
		packed := m.packed[i*m.cols : (i+1)*m.cols]
		for j := range p.rows {
			r := p.first + j
			for c, v := range w[r*m.cols : (r+1)*m.cols] {
				packed[c][j] = v
			}
		}
	}
}

// Times computes z = m·x for a tile: z[r][t] = Σ_c m[r][c]·x[c][t], summed over c in order. x is [cols][64], z [rows][64];
// scratch is NewScratch(cols).
func (m *Matrix) Times(z, x, scratch []float32) {
	m.kernel.product(m, z[:m.rows*Lanes], x[:m.cols*Lanes], scratch)
}

// Gradient is a sum of outer products of gradients with tokens: the gradient of a router's weights, [rows][cols]. Its layout
// belongs to the kernel.
type Gradient struct {
	rows, cols, stride int
	kernel             *kernel
	sum                []float32 // [rows][stride]
}

// columns is the number of columns that vector kernels take at a time.
const columns = 32

func roundUp(n, to int) int { return (n + to - 1) / to * to }

// NewGradient returns a zero gradient of the given shape.
func NewGradient(rows, cols int) *Gradient {
	stride := roundUp(cols, columns)
	return &Gradient{rows, cols, stride, active, make([]float32, rows*stride)}
}

// NewScratch returns what one worker needs for products with tiles of the given number of columns.
func NewScratch(cols int) []float32 { return make([]float32, ScratchSize(cols)) }

// ScratchSize is the least length of NewScratch(cols).
func ScratchSize(cols int) int { return roundUp(cols, columns) * Lanes }

// Add adds one tile: sum[e][c] += Σ_t g[e][t]·x[c][t], token after token. g is [rows][64] with zeros in the lanes past the
// last token, x [cols][64]; scratch is NewScratch(cols).
func (a *Gradient) Add(g, x, scratch []float32) {
	a.kernel.outer(a, g[:a.rows*Lanes], x[:a.cols*Lanes], scratch)
}

// AddRows is Add for 64 tokens of a row-major table, rows [64][cols].
func (a *Gradient) AddRows(g, rows, scratch []float32) {
	a.kernel.outerRows(a, g[:a.rows*Lanes], rows[:a.cols*Lanes], scratch)
}

// Row returns one row of the sum, [cols].
func (a *Gradient) Row(e int) []float32 { return a.sum[e*a.stride : e*a.stride+a.cols] }

// Clear sets the sum to zero.
func (a *Gradient) Clear() { clear(a.sum) }
