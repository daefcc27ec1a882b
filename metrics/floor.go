package metrics

import (
	"math"
	"math/bits"
	"math/rand/v2"
	"slices"
	"sync"

	"evenkeel/internal/rng"
	"evenkeel/internal/vec"
)

// FloorRepetitions is the number of batches that a Monte-Carlo floor is averaged over.
const FloorRepetitions = 1000

// Floor is what the figures of [Load] are on average when T tokens choose K of E experts uniformly and independently:
// noise, not imbalance. All are means over 1,000 simulated batches, so the standard error of MaxVio is MaxVioSD / √1000.
type Floor struct {
	MaxVio, Variance, CV, Entropy, Gini, Jain, Min float64
	Dead, Starved                                  float64 // experts
	MaxVioSD                                       float64 // sample standard deviation of MaxVio from batch to batch
}

// SamplingFloor returns the floor for E experts, K chosen by each token and T tokens. The batches are drawn from the exact
// distribution, with generators that depend on (E, K, T) alone, at a cost that does not depend on T: with m experts still
// to visit, each of the c_j tokens that have j choices left takes the next one with probability j/m, so
//
//	n_e = Σ_j x_j,  x_j ~ Binomial(c_j, j/m),
//
// and x_j of those tokens have j − 1 left. With K = E every load is equal and the figures are exact. Results are rounded
// to six significant digits; Entropy, Jain and Min, which are 1 at perfect balance, to six of their distance from it.
//
// Each (E, K, T) is simulated once in a process and then kept, some 300 bytes, in a cache behind a mutex. SamplingFloor may
// be called from many goroutines; those that ask for the same floor wait for one simulation. It panics if not 1 ≤ K ≤ E or
// T is negative; without tokens every figure is that of empty loads.
func SamplingFloor(experts, topk, tokens int) Floor {
	checkShape(experts, topk, tokens)
	return floors.get(shape{experts, topk, experts, tokens}, simulateFloor)
}

// DeviceFloor returns the mean MaxVio over devices that hold E/groups consecutive experts each, when T tokens choose K of E
// experts uniformly, from the batches that [SamplingFloor] draws. Their loads have the variance
//
//	T K (G/E)(1 − G/E)(E − K)/(E − 1),  G = E/groups experts a device.
//
// It is cached and rounded like SamplingFloor, and panics as it does or if groups does not divide E.
func DeviceFloor(experts, topk, groups, tokens int) float64 {
	checkShape(experts, topk, tokens)
	if groups < 1 || experts%groups != 0 {
		panic("metrics: groups do not divide the experts")
	}
	if groups == experts {
		return SamplingFloor(experts, topk, tokens).MaxVio
	}
	return deviceFloors.get(shape{experts, topk, groups, tokens}, simulateDeviceFloor)
}

// LimitedDeviceFloor is [DeviceFloor] where tokens choose their K experts uniformly within M groups, chosen uniformly too. A
// token then brings a device many choices or none: with G experts a device, its choices have the variance
//
//	(M/D)·(K/M)(1 − 1/M)(MG − K)/(MG − 1) + (K/M)²·(M/D)(1 − M/D),  D = groups,
//
// and MaxVio grows with the standard deviation, since loads of many tokens are nearly normal and alike in how they depend on
// each other.
func LimitedDeviceFloor(experts, topk, groups, kept, tokens int) float64 {
	floor := DeviceFloor(experts, topk, groups, tokens)
	if kept < 1 || kept > groups || kept*(experts/groups) < topk {
		panic("metrics: the groups kept do not hold K experts")
	}
	if kept == groups || floor == 0 {
		return floor
	}
	return floor * math.Sqrt(choiceVariance(experts, topk, groups, kept)/choiceVariance(experts, topk, groups, groups))
}

// choiceVariance is the variance of how many of its K choices within M groups a token has in one of them.
func choiceVariance(experts, topk, groups, kept int) float64 {
	k, m, share := float64(topk), float64(kept), float64(kept)/float64(groups)
	inside, open := 0.0, float64(m*float64(experts/groups))
	if kept > 1 {
		inside = k / m * (1 - 1/m) * (open - k) / (open - 1)
	}
	return float64(share*inside) + float64(k/m*(k/m)*share*(1-share))
}

const (
	simulatedLengths = 8 // distinct sequence lengths up to which every floor is simulated
	simulatedTokens  = 8 // sequences shorter than this are never interpolated
)

// SequenceFloor returns the mean of the MaxVio floor over sequences of the given lengths in tokens, the floor of
// [MeanMaxVio]. Empty sequences are left out; if there is no other the result is NaN. With more than eight distinct
// lengths, those of eight tokens and more are not all simulated: ln MaxVio is interpolated linearly in ln T between powers
// of two. For E from 8 to 256 that moved a single floor by 1 to 2 % (root mean square), which is the Monte-Carlo error of
// the floors compared, and never by more than 5 %.
func SequenceFloor(experts, topk int, lengths []int) float64 {
	ascending := slices.Sorted(slices.Values(lengths))
	ascending = ascending[countEmpty(ascending):]
	at := func(tokens int) float64 { return SamplingFloor(experts, topk, tokens).MaxVio }
	if len(slices.Compact(slices.Clone(ascending))) > simulatedLengths {
		at = func(tokens int) float64 { return interpolatedFloor(experts, topk, tokens) }
	}
	sum, floor := 0.0, 0.0
	for i, tokens := range ascending {
		if i == 0 || tokens != ascending[i-1] {
			floor = at(tokens)
		}
		sum += floor
	}
	return Round6(sum / float64(len(ascending)))
}

func countEmpty(ascending []int) int {
	first, _ := slices.BinarySearch(ascending, 1)
	return first
}

func interpolatedFloor(experts, topk, tokens int) float64 {
	below := 1 << (bits.Len(uint(tokens)) - 1)
	if tokens < simulatedTokens {
		below = tokens
	}
	low := SamplingFloor(experts, topk, below).MaxVio
	if below == tokens || low == 0 {
		return low
	}
	high := SamplingFloor(experts, topk, 2*below).MaxVio
	weight := vec.Log64(float64(tokens)/float64(below)) / math.Ln2
	return low * vec.Exp64(weight*vec.Log64(high/low))
}

// shape is what a floor depends on.
type shape struct{ experts, topk, groups, tokens int }

func checkShape(experts, topk, tokens int) {
	if topk < 1 || topk > experts || tokens < 0 {
		panic("metrics: a floor needs 1 ≤ K ≤ E and no negative number of tokens")
	}
}

var (
	floors       cache[Floor]
	deviceFloors cache[float64]
)

// cache keeps one value for each shape, computed once however many ask.
type cache[V any] struct {
	mu     sync.Mutex
	values map[shape]func() V
}

func (c *cache[V]) get(s shape, compute func(shape) V) V {
	c.mu.Lock()
	value, ok := c.values[s]
	if !ok {
		if c.values == nil {
			c.values = make(map[shape]func() V)
		}
		value = sync.OnceValue(func() V { return compute(s) })
		c.values[s] = value
	}
	c.mu.Unlock()
	return value()
}

func simulateFloor(s shape) Floor {
	var f Floor
	maxVio := make([]float64, 0, FloorRepetitions)
	for n := range s.batches() {
		l := Measure(n)
		f.add(l)
		maxVio = append(maxVio, l.MaxVio)
	}
	for _, v := range []*float64{&f.MaxVio, &f.Variance, &f.CV, &f.Gini, &f.Dead, &f.Starved} {
		*v = Round6(*v / FloorRepetitions)
	}
	for _, v := range []*float64{&f.Entropy, &f.Jain, &f.Min} {
		*v = 1 - Round6(1-*v/FloorRepetitions)
	}
	f.MaxVioSD = Round6(sampleDeviation(maxVio))
	return f
}

func (f *Floor) add(l Load) {
	f.MaxVio += l.MaxVio
	f.Variance += l.Variance
	f.CV += l.CV
	f.Entropy += l.Entropy
	f.Gini += l.Gini
	f.Jain += l.Jain
	f.Min += l.Min
	f.Dead += float64(l.Dead)
	f.Starved += float64(l.Starved)
}

func sampleDeviation(x []float64) float64 {
	mean, squares := orderedMean(x), 0.0
	for _, v := range x {
		d := v - mean
		squares += float64(d * d)
	}
	return math.Sqrt(squares / float64(len(x)-1))
}

func simulateDeviceFloor(s shape) float64 {
	sum, device := 0.0, make([]int64, s.groups)
	for n := range s.batches() {
		device = GroupLoads(n, s.groups, device)
		sum += MaxVio(device)
	}
	return Round6(sum / FloorRepetitions)
}

// batches yields the loads [E] of each simulated batch, in the same storage.
func (s shape) batches() func(yield func(n []int64) bool) {
	return func(yield func(n []int64) bool) {
		var d draws
		d.Seed(rng.Key(0, rng.Floor, uint64(s.experts), uint64(s.topk), uint64(s.tokens)), 0)
		n, left := make([]int64, s.experts), make([]int64, s.topk+1)
		for range FloorRepetitions {
			d.loads(n, left, s.tokens)
			if !yield(n) {
				return
			}
		}
	}
}

// draws makes binomial numbers from uniform ones.
type draws struct{ rand.PCG }

// loads draws the loads n [E] of tokens that choose K experts each; left [K+1] is storage.
func (d *draws) loads(n, left []int64, tokens int) {
	clear(left)
	left[len(left)-1] = int64(tokens)
	for e := range n {
		m := float64(len(n) - e)
		n[e] = 0
		for j := 1; j < len(left); j++ { // upwards: who moves down to j−1 has been asked
			x := d.binomial(left[j], float64(j)/m)
			left[j] -= x
			left[j-1] += x
			n[e] += x
		}
	}
}

// uniform returns a number in the open interval (0, 1), symmetric about 1/2.
func (d *draws) uniform() float64 {
	return (float64(d.Uint64()>>12) + 0.5) * 0x1p-52
}

// binomial returns the number of successes among n trials of probability p.
func (d *draws) binomial(n int64, p float64) int64 {
	switch {
	case n == 0:
		return 0
	case p >= 1:
		return n
	case p > 0.5:
		return n - d.binomialHalf(n, 1-p)
	}
	return d.binomialHalf(n, p)
}

// binomialHalf is binomial for 0 < p ≤ ½. gonum's distuv.Binomial samples correctly too, but takes 245 ns a draw against
// 40, because it evaluates two log-gamma functions for each proposal, and its bits depend on the platform's logarithm.
func (d *draws) binomialHalf(n int64, p float64) int64 {
	if float64(n)*p < 10 {
		return d.binomialSearch(n, p)
	}
	return d.binomialReject(n, p)
}

// binomialSearch inverts the distribution function from 0 upwards, at a cost in proportion to np.
func (d *draws) binomialSearch(n int64, p float64) int64 {
	odds := p / (1 - p)
	a := float64(n+1) * odds
	mass, u := power(1-p, n), d.uniform()
	for x := range n {
		if u <= mass {
			return x
		}
		u -= mass
		mass *= a/float64(x+1) - odds
	}
	return n
}

func power(x float64, n int64) float64 {
	p := 1.0
	for ; n > 0; n >>= 1 {
		if n&1 == 1 {
			p *= x
		}
		x *= x
	}
	return p
}

// binomialReject is algorithm BTRS of Hörmann (1993), The generation of binomial random variates, Journal of Statistical
// Computation and Simulation 46: a transformed uniform proposal, accepted at once four times in five and otherwise by the
// exact ratio of probabilities. It needs np ≥ 10 and p ≤ ½.
func (d *draws) binomialReject(n int64, p float64) int64 {
	trials := float64(n)
	q := 1 - p
	deviation := math.Sqrt(trials * p * q)
	b := 1.15 + float64(2.53*deviation)
	a := -0.0873 + float64(0.0248*b) + float64(0.01*p)
	centre := float64(trials*p) + 0.5
	squeeze := 0.92 - 4.2/b
	for {
		v, u := d.uniform(), d.uniform()-0.5
		inside := 0.5 - math.Abs(u)
		x := math.Floor(float64((2*a/inside+b)*u) + centre)
		if inside >= 0.07 && v <= squeeze {
			return int64(x)
		}
		if x < 0 || x > trials {
			continue
		}
		alpha := (2.83 + 5.1/b) * deviation
		if vec.Log64(v*alpha/(a/float64(inside*inside)+b)) <= logBinomialRatio(trials, p/q, x) {
			return int64(x)
		}
	}
}

// logBinomialRatio returns the logarithm of the probability of x successes against that of the mode, where odds are p/q.
func logBinomialRatio(trials, odds, x float64) float64 {
	mode := math.Floor(float64((trials+1)*odds) / (1 + odds))
	s := float64((mode + 0.5) * vec.Log64((mode+1)/float64(odds*(trials-mode+1))))
	s += float64((trials + 1) * vec.Log64((trials-mode+1)/(trials-x+1)))
	s += float64((x + 0.5) * vec.Log64(odds*(trials-x+1)/(x+1)))
	return s + stirlingTail(mode) + stirlingTail(trials-mode) - stirlingTail(x) - stirlingTail(trials-x)
}

// stirlingTail returns ln k! − [½ ln 2π + (k + ½) ln(k + 1) − (k + 1)].
func stirlingTail(k float64) float64 {
	if k < float64(len(stirlingTails)) {
		return stirlingTails[int(k)]
	}
	z := (k + 1) * (k + 1)
	return (1.0/12 - (1.0/360-1.0/1260/z)/z) / (k + 1)
}

var stirlingTails = [...]float64{
	0.08106146679532726, 0.04134069595540929, 0.02767792568499834, 0.02079067210376509, 0.01664469118982119,
	0.01387612882307075, 0.01189670994589177, 0.01041126526197209, 0.009255462182712733, 0.008330563433362871,
}
