package vec

import (
	"math"
	"math/bits"

	"evenkeel/internal/rng"
)

const streams = 16 // generators that draw side by side, one for each lane of a 512-bit register

// Normals fills dst, whose length must be a multiple of 32, with standard normal numbers of a key.
//
// Sixteen xoshiro128++ generators, seeded from the key, draw in turn; each pair of their 32-bit outputs gives two
// numbers by Box and Muller's transform in float32, so no number exceeds √(2·24·ln 2) = 5.77 in magnitude.
func Normals(dst []float32, key uint64) {
	var s [4][streams]uint32
	seed := rng.New(key)
	for l := range streams {
		a, b := seed.Uint64(), seed.Uint64()
		s[0][l], s[1][l], s[2][l], s[3][l] = uint32(a)|1, uint32(a>>32), uint32(b), uint32(b>>32)
	}
	next := func(l int) uint32 {
		a, b, c, d := s[0][l], s[1][l], s[2][l], s[3][l]
		out := bits.RotateLeft32(a+d, 7) + a
		t := b << 9
		c ^= a
		d ^= b
		b ^= c
		a ^= d
		c ^= t
		s[0][l], s[1][l], s[2][l], s[3][l] = a, b, c, bits.RotateLeft32(d, 11)
		return out
	}
	for ; len(dst) >= 2*streams; dst = dst[2*streams:] {
		for l := range streams {
			u1 := next(l)
			u2 := next(l)
			dst[l], dst[streams+l] = boxMuller(u1, u2)
		}
	}
}

// boxMuller turns two uniform words into two independent standard normal numbers: the radius √(−2 ln u1) and an angle of
// which the polynomials cover one quarter turn; two bits of u2 choose the quadrant.
func boxMuller(u1, u2 uint32) (float32, float32) {
	x := 2 - math.Float32frombits(u1>>9|0x3f800000) // (0, 1]
	r := float32(math.Sqrt(float64(-2 * Log(x))))
	a := math.Float32frombits(u2<<2>>9|0x3f800000) - 1.5
	a *= float32(math.Pi / 2)
	z := float32(a * a)
	const s0, s1, s2, s3 = 0.999999997, -0.166666507, 0.00833203688, -0.00019504022
	const c0, c1, c2, c3 = 0.999999972, -0.499998567, 0.0416550269, -0.00135859085
	sn, cs := float32(s3), float32(c3)
	sn = float32(sn*z) + s2
	cs = float32(cs*z) + c2
	sn = float32(sn*z) + s1
	cs = float32(cs*z) + c1
	sn = float32(sn*z) + s0
	cs = float32(cs*z) + c0
	sn = float32(float32(sn*a) * r)
	cs *= r
	sign := u2 & 0x80000000
	turn := u2 << 1
	g0, g1 := cs, sn
	if turn&0x80000000 != 0 {
		g0, g1 = sn, cs
	}
	return math.Float32frombits(math.Float32bits(g0) ^ sign),
		math.Float32frombits(math.Float32bits(g1) ^ (turn&0x80000000 ^ sign))
}
