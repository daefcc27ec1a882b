package bench

import (
	"time"

	"evenkeel/internal/vec"
)

// Limits are what the processor can do at most, on one core with the kernel in use.
type Limits struct {
	Kernel    string  `json:"kernel"`
	GFlops    float64 `json:"multiply_add_gflops"` // independent multiply-adds on registers
	Bandwidth float64 `json:"copy_gbytes"`         // bytes read and written per second by a copy of 256 MiB
}

// MeasureLimits measures for about the given time each.
func MeasureLimits(d time.Duration) Limits {
	l := Limits{Kernel: vec.Kernel()}
	for begin := time.Now(); time.Since(begin) < d; {
		at := time.Now()
		ops := vec.FloatingPoint(1 << 18)
		l.GFlops = max(l.GFlops, ops/float64(time.Since(at).Nanoseconds()))
	}
	from, to := make([]byte, 256<<20), make([]byte, 256<<20)
	for i := range from {
		from[i] = byte(i) // untouched pages would all be one page of zeros
	}
	copy(to, from)
	for begin := time.Now(); time.Since(begin) < d; {
		at := time.Now()
		copy(to, from)
		l.Bandwidth = max(l.Bandwidth, float64(2*len(from))/float64(time.Since(at).Nanoseconds()))
	}
	return l
}
