package vec

import "evenkeel/internal/rng"

const streams = 16 // generators that draw side by side, one for each lane of a 512-bit register

// Normals fills dst, whose length must be a multiple of 32, with standard normal numbers of a key.
//
// Sixteen xoshiro128++ generators, seeded from the key, draw in turn; each pair of their 32-bit outputs gives two
// numbers by Box and Muller's transform in float32, so no number exceeds √(2·24·ln 2) = 5.77 in magnitude.
func Normals(dst []float32, key uint64) {
	active.normals(dst[:len(dst)/(2*streams)*(2*streams)], key)
}

// seeded returns the state of the generators of a key.
func seeded(key uint64) (s [4][streams]uint32) {
	seed := rng.New(key)
	for l := range streams {
		a, b := seed.Uint64(), seed.Uint64()
		s[0][l], s[1][l], s[2][l], s[3][l] = uint32(a)|1, uint32(a>>32), uint32(b), uint32(b>>32)
	}
	return s
}
