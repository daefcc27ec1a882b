// Package rng keys random numbers by what they are for.
//
// Every draw in Evenkeel belongs to a key made of a seed, a purpose and the place where it is used (step, tile,
// sequence). Two strategies that ask for the same place get the same numbers, and the number of workers cannot change
// them. Normal deviates are drawn by internal/vec from such a key; this package holds keys and integer draws.
package rng

import "math/bits"

// Purpose separates the streams of one seed. The values are part of every result: append, never renumber.
type Purpose uint64

// The purposes of random numbers, one for each independent stream.
const (
	World      Purpose = iota + 1 // what a seed fixes for a whole run: expert directions, vocabulary, centroids
	Layout                        // the sequences of a batch: domains, topics, lengths
	Token                         // token ids
	Noise                         // the part of a latent vector that context and chance add
	RouterInit                    // the first weights of a learned router
	Choice                        // draws of strategies that choose at random
	Replay                        // the order of a trace's sequences
	Event                         // what an event draws anew
	Floor                         // the Monte-Carlo of the sampling floor
	Task                          // what experts that learn are to learn
	ExpertInit                    // their first weights
	Design                        // the points of a sweep: random designs and searches
	Resample                      // which values a bootstrap draws again
)

// Mix is the finaliser of SplitMix64: a bijection on 64 bits in which every input bit moves every output bit.
func Mix(x uint64) uint64 {
	x ^= x >> 30
	x *= 0xbf58476d1ce4e5b9
	x ^= x >> 27
	x *= 0x94d049bb133111eb
	return x ^ x>>31
}

const golden = 0x9e3779b97f4a7c15

// Key derives the key of one place from the seed, the purpose and the place's numbers, in order.
func Key(seed uint64, purpose Purpose, place ...uint64) uint64 {
	k := Mix(seed + golden)
	k = Mix(k ^ Mix(uint64(purpose)*golden+1))
	for i, p := range place {
		k = Mix(k ^ Mix(p+uint64(i+2)*golden))
	}
	return k
}

// Rand is SplitMix64: a small generator for the integer draws of one place. Its zero value is a valid generator of key 0.
type Rand struct{ state uint64 }

// New returns the generator of a key.
func New(key uint64) Rand { return Rand{key} }

// Uint64 returns the next 64 uniform bits.
func (r *Rand) Uint64() uint64 {
	r.state += golden
	return Mix(r.state)
}

// IntN returns a uniform integer in [0, n) without bias (Lemire's multiplication with rejection); n must be positive.
func (r *Rand) IntN(n int) int {
	hi, lo := bits.Mul64(r.Uint64(), uint64(n))
	for lo < uint64(n) && lo < -uint64(n)%uint64(n) {
		hi, lo = bits.Mul64(r.Uint64(), uint64(n))
	}
	return int(hi)
}

// Float64 returns a uniform number in [0, 1), a multiple of 2^-53.
func (r *Rand) Float64() float64 { return float64(r.Uint64()>>11) * 0x1p-53 }

// Perm fills p with a uniform permutation of 0..len(p)-1.
func (r *Rand) Perm(p []int32) {
	for i := range p {
		j := r.IntN(i + 1)
		p[i] = p[j]
		p[j] = int32(i)
	}
}
