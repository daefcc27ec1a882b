package vec

import "math"

const (
	log2e   = 1.44269504088896341
	ln2High = 0.693359375 // 355/512: n/8·ln2High is exact for |n| < 2^15
	ln2Low  = -2.12194440e-4
	magic   = 1.5 * (1 << 23) // adding it rounds a float32 to the nearest integer
)

// Exp returns e^x with an error below 1.4 units in the last place for x in [-87, 88] and is clamped outside.
//
//	e^x = 2^(n/8) · e^r,  n = round(8·x·log2 e),  r = x − n/8·ln 2 in two parts,  e^r by a polynomial of degree 3
//
// Polynomials here and in the kernels are evaluated as one in x² of pairs a·x + b, which takes as many operations as Horner's
// rule but lets a processor work on several at a time.
func Exp(x float32) float32 {
	n, r := reduced(x)
	return scaled(n, r)
}

// reduced and scaled are the two parts of Exp, each small enough to be inlined where a loop needs many.

func reduced(x float32) (n, r float32) {
	if x < -87 { // branches that are seldom taken cost less than min and max, which mind signed zeros
		x = -87
	} else if x > 88 {
		x = 88
	}
	n = float32(x*(8*log2e)) + magic
	m := n - magic
	r = x - float32(m*(ln2High/8))
	return n, r - float32(m*(ln2Low/8))
}

func scaled(n, r float32) float32 {
	p := float32(float32(r*r)*(float32(1.666685900e-1*r)+5.000645400e-1)) + r
	b := math.Float32bits(n)
	power := math.Float32frombits(eighths[b%8] + b<<20)
	return power + float32(power*p)
}

// eighths are the bits of 2^(j/8) for the last three bits j of n, less those that j has once n stands at the exponent.
var eighths = [8]uint32{0x3f800000, 0x3f7b95c2, 0x3f7837f0, 0x3f75fed7, 0x3f7504f3, 0x3f75672a, 0x3f7744fd, 0x3f7ac0c7}

// log1pUnit returns ln(1+f) for f in [√½−1, √2−1) with an error below 1e-7 of the larger of |f| and 0.25.
func log1pUnit(f float32) float32 {
	const c0, c1, c2, c3, c4, c5, c6 = 0.333338581, -0.250017469, 0.199653981, -0.165656344, 0.148769609, -0.143502021, 0.0891787094
	square := float32(f * f)
	p := float32(c6*f) + c5
	p = float32(p*square) + (float32(c4*f) + c3)
	p = float32(p*square) + (float32(c2*f) + c1)
	p = float32(p*square) + (float32(c0*f) - 0.5)
	return float32(p*square) + f
}

// Log returns ln x for a positive, normal x, with a relative error below 4e-7 (absolute below 1e-7 near 1).
func Log(x float32) float32 {
	b := math.Float32bits(x)
	e := int32(b-0x3f3504f3) >> 23 // exponent of x relative to [√½, √2)
	return log1pUnit(math.Float32frombits(b-uint32(e)<<23)-1) + float32(float32(e)*float32(math.Ln2))
}

// Exp64 returns e^x in float64 for |x| < 700, with a relative error below 1e-15 and the same bits on every platform,
// which the standard library does not promise.
func Exp64(x float64) float64 {
	const magic = 1.5 * (1 << 52)
	x = float64(x) // a caller's product, once this is inlined, would be fused with what follows
	n := float64(x*log2e) + magic
	n -= magic
	r := x - float64(n*6.93147180369123816490e-01)
	r -= float64(n * 1.90821492927058770002e-10)
	p := inverseFactorials[0]
	for _, c := range inverseFactorials[1:] {
		p = float64(p*r) + c
	}
	return float64(p * math.Float64frombits(uint64(int64(n)+1023)<<52))
}

// inverseFactorials are 1/13!, 1/12!, … 1/0!.
var inverseFactorials = [14]float64{1. / 6227020800, 1. / 479001600, 1. / 39916800, 1. / 3628800, 1. / 362880, 1. / 40320, 1. / 5040, 1. / 720,
	1. / 120, 1. / 24, 1. / 6, 1. / 2, 1, 1}

// Log64 returns ln x in float64 for a positive, normal x, with a relative error below 1e-15 and the same bits everywhere.
//
//	ln x = e·ln 2 + 2·atanh((m−1)/(m+1)),  m in [√½, √2)
func Log64(x float64) float64 {
	m, e := math.Frexp(x)
	if m < math.Sqrt2/2 {
		m *= 2
		e--
	}
	f := (m - 1) / (m + 1)
	z := float64(f * f)
	p := 0.0
	for i := 21; i >= 1; i -= 2 {
		p = float64(p*z) + 1/float64(i)
	}
	return float64(2*float64(f*p)) + float64(float64(e)*math.Ln2)
}

// Cos64 returns cos x in float64 with an error below 1e-15·(1 + |x|) and the same bits everywhere.
func Cos64(x float64) float64 {
	x = float64(x) // as in Exp64
	x -= float64(2 * math.Pi * math.Round(x/(2*math.Pi)))
	z, p := float64(x*x), 1.0
	for i := 26; i >= 2; i -= 2 {
		p = 1 - float64(p*z)/float64(i*(i-1))
	}
	return p
}
