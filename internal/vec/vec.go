// Package vec holds the arithmetic of one tile: float32 kernels over 64 tokens.
//
// A tile stores its tokens innermost: latent vectors are [d][64], logits and scores [E][64], so that one token is one
// lane, every kernel is a loop over experts, and a faster kernel can replace a plain one without a change outside. Lanes
// past the last token of a tile are computed like the others and masked by the caller.
//
// Same input, same bits, everywhere: sums run in the order that each kernel states, every product is rounded before it
// is added (an explicit conversion keeps the compiler from fusing the two), and exp, log, sine and cosine are our own. That
// is promised for numbers: a NaN, or an infinite score beside one of −Inf, is chosen or not as the kernel has it.
// What an expert is, and why one would score it, is the business of the packages above.
package vec

// Lanes is the number of tokens in a tile.
const Lanes = 64

// Row is one row of a tile: a value for each of its tokens.
type Row = [Lanes]float32

// row returns row i of a tile.
func row(tile []float32, i int) *Row { return (*Row)(tile[i*Lanes:]) }
