package fit

import (
	"cmp"
	"context"
	"math"
	"slices"

	"evenkeel/internal/vec"
	"evenkeel/metrics"
	"evenkeel/scenarios"
)

// Vocabulary is what token ids show of their frequencies. Three figures give three parameters of the stream; all depend on
// the number of tokens, so the parameters are those whose ids, drawn from the stream in the trace's own numbers, show the same.
//
// MeanLogRank is Σ_t ln r(t) / N, with r the rank of a token's type by frequency within its domain: the sufficient
// statistic of a Zipf exponent, which a maximum likelihood would match to its expectation. It gives zipf.
//
// Types is the number of distinct types in all domains together. It gives vocabulary.
//
// DomainBits is the mutual information of a token's domain and its type in bits. It gives domain_tilt, which one domain
// cannot tell.
//
// Collisions, which the fit does not look at, is P(two tokens of different domains are of one type) / P(two tokens of
// different documents of one domain are). A domain draws ids from (1 − t)·p + t·p∘π, π a permutation of its own, so in the
// stream it is near (1 − t)² / ((1 − t)² + t²), t being the tilt: the most frequent types of all domains decide it.
type Vocabulary struct {
	MeanLogRank float64
	Types       int
	DomainBits  float64
	Collisions  float64 // NaN with one domain
}

// vocabulary measures the token ids of a sample, which are known.
func (s *sample) vocabulary() Vocabulary {
	var v Vocabulary
	types := map[int32]int{} // place of an id in the counts
	for _, doc := range s.documents {
		for _, id := range s.token[doc.From:doc.To] {
			if _, ok := types[id]; !ok {
				types[id] = len(types)
			}
		}
	}
	v.Types = len(types)
	n := float64(s.tokens())
	counts := make([]int64, s.domains*v.Types)
	here, pooled := make([]int64, v.Types), make([]int64, v.Types)
	var inDocuments, documentPairs int64
	for _, doc := range s.documents {
		clear(here)
		row := counts[doc.domain*v.Types : (doc.domain+1)*v.Types]
		for _, id := range s.token[doc.From:doc.To] {
			i := types[id]
			here[i]++
			row[i]++
			pooled[i]++
		}
		inDocuments += squaresOf(here)
		documentPairs += int64(doc.Len() * doc.Len())
	}
	inDomains, domainPairs := squaresOf(counts), int64(0)
	for d := range s.domains {
		descending := slices.Clone(counts[d*v.Types : (d+1)*v.Types])
		slices.SortFunc(descending, func(a, b int64) int { return cmp.Compare(b, a) })
		tokens := int64(0)
		for rank, c := range descending {
			v.MeanLogRank += float64(float64(c)*vec.Log64(float64(rank+1))) / n
			tokens += c
		}
		domainPairs += tokens * tokens
	}
	v.DomainBits, v.Collisions = metrics.DomainInformation(counts, s.domains), math.NaN()
	if s.domains > 1 {
		across := float64(squaresOf(pooled)-inDomains) / (float64(n*n) - float64(domainPairs))
		v.Collisions = across / (float64(inDomains-inDocuments) / float64(domainPairs-documentPairs))
	}
	return v
}

func squaresOf(count []int64) (sum int64) {
	for _, c := range count {
		sum += c * c
	}
	return sum
}

const (
	steepestZipf      = 3.0
	largestVocabulary = 1 << 16
)

// fitVocabulary sets exponent, vocabulary and tilt of a scenario. quota is the number of documents of each domain. The tilt
// hardly moves the other two, so that a few turns settle all three. It reports whether the vocabulary ended at its bound.
func fitVocabulary(ctx context.Context, s *scenarios.Scenario, want Vocabulary, quota []int) (bound bool, err error) {
	f := vocabularyFit{ctx: ctx, want: want, quota: quota, ids: *s}
	f.ids.Experts, f.ids.TopK, f.ids.Width, f.ids.Groups, f.ids.GroupsKept = 2, 1, 1, 1, 1 // only ids are looked at
	f.y = *s.Synthetic
	f.ids.Synthetic = &f.y
	for range 3 {
		f.exponent()
		if len(quota) > 1 {
			f.y.DomainTilt = bisect(0, 1, 10, func(tilt float64) bool {
				f.y.DomainTilt = tilt
				return f.drawn().DomainBits < want.DomainBits
			})
		}
	}
	f.y.DomainTilt = places(f.y.DomainTilt, 3)
	f.exponent()
	f.y.Zipf = places(f.y.Zipf, 3)
	f.vocabulary()
	s.Synthetic.DomainTilt, s.Synthetic.Zipf, s.Synthetic.Vocabulary = f.y.DomainTilt, f.y.Zipf, f.y.Vocabulary
	return f.y.Vocabulary == largestVocabulary, f.err
}

type vocabularyFit struct {
	ctx   context.Context
	want  Vocabulary
	quota []int
	ids   scenarios.Scenario
	y     scenarios.Synthetic
	err   error
}

// drawn is the vocabulary of ids drawn from the stream as it stands.
func (f *vocabularyFit) drawn() (v Vocabulary) {
	if f.err == nil {
		f.err = f.ctx.Err()
	}
	if f.err != nil {
		return v
	}
	var t *sample
	if t, f.err = twin(&f.ids, firstFitSeed, f.quota, false); f.err == nil {
		v = t.vocabulary()
	}
	return v
}

// exponent finds zipf, and the vocabulary for it.
func (f *vocabularyFit) exponent() {
	f.y.Zipf = bisect(0, steepestZipf, 11, func(zipf float64) bool {
		f.y.Zipf = zipf
		f.vocabulary()
		return f.drawn().MeanLogRank > f.want.MeanLogRank
	})
	f.vocabulary()
}

// vocabulary finds how many types there are, to 1 in 64, from where it stands.
func (f *vocabularyFit) vocabulary() {
	few := func(n int) bool {
		f.y.Vocabulary = n
		return f.drawn().Types < f.want.Types
	}
	low, high := 1, f.y.Vocabulary
	for high < largestVocabulary && few(high) {
		low, high = high, min(2*high, largestVocabulary)
	}
	for low < high/2 && !few(high/2) {
		high /= 2
	}
	low = max(low, high/2)
	for high-low > low/64+1 {
		if middle := (low + high) / 2; few(middle) {
			low = middle
		} else {
			high = middle
		}
	}
	f.y.Vocabulary = high
}

// bisect halves an interval so many times, upwards where below says so, and returns its middle.
func bisect(low, high float64, times int, below func(x float64) bool) float64 {
	for range times {
		if middle := (low + high) / 2; below(middle) {
			low = middle
		} else {
			high = middle
		}
	}
	return (low + high) / 2
}

// places rounds to a number of decimal places, as the file will have it.
func places(x float64, n int) float64 {
	scale := math.Pow10(n)
	return math.Round(x*scale) / scale
}
