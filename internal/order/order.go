// Package order finds order statistics of integers, and of float32 numbers by integer keys that keep their order.
package order

import (
	"math"
	"math/bits"
)

// Integer is what package order ranks.
type Integer interface{ ~int32 | ~int64 }

// Nth returns the n-th smallest of a, counted from zero, and reorders a so that no earlier entry is larger and no later one
// smaller. No entry may be the largest of its type.
func Nth[T Integer](a []T, n int) T {
	at := uint64(len(a))
	pick := func() T {
		// Scattered places, since fixed ones find bad pivots time and again in lists that are nearly in order.
		at = at*6364136223846793005 + 1442695040888963407
		i, _ := bits.Mul64(at, uint64(len(a)))
		return a[i]
	}
	for len(a) > 1 {
		pivot := medianOf3(pick(), pick(), pick())
		below := Partition(a, pivot)
		if n < below {
			a = a[:below]
			continue
		}
		a, n = a[below:], n-below
		// Entries equal to the pivot come first, since pivot+1 parts integers.
		equal := Partition(a, pivot+1)
		if n < equal {
			return pivot
		}
		a, n = a[equal:], n-equal
	}
	return a[0]
}

// Partition moves the entries of a below pivot to its front and returns their number. It has no branch on the data, which is
// what makes it fast.
func Partition[T Integer](a []T, pivot T) int {
	n := 0
	for i, v := range a {
		a[i] = a[n]
		a[n] = v
		less := 0
		if v < pivot {
			less = 1
		}
		n += less
	}
	return n
}

func medianOf3[T Integer](a, b, c T) T {
	return max(min(a, b), min(max(a, b), c))
}

// Key returns an integer that is larger for the larger of two numbers, from the bits of a float32 that is no NaN. −0 is
// just below 0.
func Key(bits uint32) int32 {
	k := int32(bits)
	return k ^ k>>31&math.MaxInt32
}

// Value returns the number of a key.
func Value(key int32) float32 {
	return math.Float32frombits(uint32(key ^ key>>31&math.MaxInt32))
}
