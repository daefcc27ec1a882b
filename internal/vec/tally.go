package vec

// SumChosen computes sum[t] = Σ s[e][t] over the rows e whose mask has bit t, rows in order. s is [len(mask)][64].
func SumChosen(sum *Row, s []float32, mask []uint64) {
	active.sumChosen(sum, s[:len(mask)*Lanes], mask)
}

// Invert sets x[t] to 1/x[t] where x[t] > 0, and to 0 where it is 0.
func Invert(x *Row) { active.invert(x) }

// Total returns Σ_t x[t] in float64: eight partial sums, each of every eighth token, added in order.
func Total(x *Row) (sum float64) {
	for _, v := range active.total(x) {
		sum += v
	}
	return sum
}

// SumSquares computes sum[t] = Σ_e s[e][t]², rows in order.
func SumSquares(sum *Row, s []float32, rows int) { active.sumSquares(sum, s[:rows*Lanes], rows) }

// GateError compares the gates γ = s·inverse of the chosen rows with their targets γ̂ = ideal·invIdeal. For every token
//
//	err = Σ ((γ − γ̂)² − γ̂²),   g = weight·(γ − γ̂),   mean = Σ g·γ,
//
// sums over the rows whose mask has its bit, in order; g is 0 elsewhere. g, s and ideal are [len(mask)][64].
func GateError(err, mean *Row, g, s, ideal []float32, mask []uint64, inverse, invIdeal *Row, weight float32) {
	n := len(mask) * Lanes
	active.gateError(err, mean, g[:n], s[:n], ideal[:n], mask, inverse, invIdeal, weight)
}

// GateGradient turns g into (g − mean)·inverse in the rows whose mask has the token's bit, and into 0 in the others.
func GateGradient(g []float32, mean, inverse *Row, mask []uint64) {
	active.gateGradient(g[:len(mask)*Lanes], mean, inverse, mask)
}

// WeightedSum computes sum[t] = Σ_e weights[e]·s[e][t] and all[t] = Σ_e s[e][t], rows in order.
func WeightedSum(sum, all *Row, s, weights []float32) {
	active.weightedSum(sum, all, s[:len(weights)*Lanes], weights)
}

// AddPrices adds scale[t]·(weights[e] − offset[t]) to g[e][t]. Offsets must be finite, also where scale is 0.
func AddPrices(g, weights []float32, offset, scale *Row) {
	active.addPrices(g[:len(weights)*Lanes], weights, offset, scale)
}

// Mix computes x = (a + b) + noise·x for a tile of the given number of rows, and energy[t] = Σ x², rows in order.
func Mix(energy *Row, x, a, b []float32, noise float32, rows int) {
	n := rows * Lanes
	active.mix(energy, x[:n], a[:n], b[:n], noise, rows)
}

// Above sets bit t of mask[e] where s[e][t] − offset[t] > least[e], for all 64 tokens. s is [len(mask)][64].
func Above(mask []uint64, s, least []float32, offset *Row) {
	active.above(mask, s[:len(mask)*Lanes], least[:len(mask)], offset)
}

// Scale multiplies x[e][t] by factor[t].
func Scale(x []float32, factor *Row, rows int) { active.scale(x[:rows*Lanes], factor, rows) }

// Load makes a tile [width][64] of the first 64 rows of a row-major table of at least as many: tile[c][t] = table[t][c]. The
// rows after them, if there are any, are taken to be wanted next.
func Load(tile, table []float32, width int) {
	_ = table[width*Lanes-1]
	active.load(tile[:width*Lanes], table, width)
}

// Unload is the inverse of Load: it writes a tile [width][64] to the first 64 rows of a table.
func Unload(table, tile []float32, width int) {
	active.unload(table[:width*Lanes], tile[:width*Lanes], width)
}

// Gather makes a tile [width][64] of rows of a row-major table: tile[c][t] = table[source[t]][c]. Lanes past the end of
// source become 0.
func Gather(tile, table []float32, source []int32, width int) {
	active.gather(tile[:width*Lanes], table, source, width)
}

// Lists writes the rows that a tile's tokens chose, ascending, to ids [64][k], and s·inverse of each to gates. Tokens that
// chose fewer than k leave the rest as it is; none may choose more. s is [len(mask)][64]; ids and gates may end after the
// last live token.
func Lists(ids []int32, gates []float32, mask []uint64, s []float32, inverse *Row, k int) {
	places := min(len(ids), Lanes*k)
	active.lists(ids[:places], gates[:places], mask, s[:len(mask)*Lanes], inverse, k)
}
