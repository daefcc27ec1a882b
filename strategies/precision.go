package strategies

import "math"

// Precisions in which a bias may be kept.
const (
	fp32 = "fp32"
	bf16 = "bf16"
	fp16 = "fp16"
)

// rounded returns x as the precision of that name keeps it. What fp16 cannot hold becomes its largest number.
func rounded(x float32, precision string) float32 {
	switch precision {
	case bf16:
		return toBF16(x)
	case fp16:
		return toFP16(x)
	}
	return x
}

// toBF16 rounds to the nearest bfloat16, ties to even.
func toBF16(x float32) float32 {
	b := math.Float32bits(x)
	b += 0x7fff + b>>16&1
	return math.Float32frombits(b &^ 0xffff)
}

// toFP16 rounds to the nearest IEEE half-precision number, ties to even, and keeps it finite.
func toFP16(x float32) float32 {
	const largest, smallestNormal, subnormals = 65504, 1. / (1 << 14), 1 << 24 // of them 2^24 to 1
	if x > -smallestNormal && x < smallestNormal {
		return float32(math.RoundToEven(float64(x)*subnormals) / subnormals)
	}
	b := math.Float32bits(x)
	b += 0xfff + b>>13&1
	return min(max(math.Float32frombits(b&^0x1fff), -largest), largest)
}
