package fit

import (
	"context"
	"fmt"
	"math"
	"slices"

	"evenkeel/internal/rng"
	"evenkeel/metrics"
	"evenkeel/moe"
)

// Figure is one statistic of a real half and of its synthetic twins, which have as many documents of every domain. Low and
// High hold 95 % of worlds: mean ± t(0.975, n−1)·s·√(1 + 1/n), what one more world would show. A real figure is one world's, so
// outside of them the stream and the trace differ by more than the chance of a world.
type Figure struct {
	Key       string   `json:"key"`   // maxvio_batch, maxvio_domain, …
	Label     string   `json:"label"` // for a reader
	Domain    string   `json:"domain,omitempty"`
	Tokens    int      `json:"tokens,omitempty"` // of a batch or a domain
	Real      float64  `json:"real"`
	Synthetic float64  `json:"synthetic"`
	Low       float64  `json:"low"`
	High      float64  `json:"high"`
	Floor     *float64 `json:"floor"` // of uniform choice; null where there is none

	of      func(fitted, held *sample) float64
	ofLoads bool // of what loads show
}

// Inside reports whether the real figure is one that a synthetic world could show.
func (f Figure) Inside() bool { return f.Real >= f.Low && f.Real <= f.High }

// batchSizes are the sizes, in tokens, of the batches whose MaxVio is compared.
var batchSizes = []int{64, 256, 1024, 4096, 16384}

// judge compares the real halves with fresh worlds of the fitted stream.
func (r *Result) judge(ctx context.Context, all, fitted, held *sample) error {
	moments, goodness := momentFigures(fitted), r.goodnessFigures(held)
	type pair struct{ moments, goodness []float64 }
	measure := func(fitted, held *sample) (p pair) {
		for _, f := range moments {
			p.moments = append(p.moments, f.of(fitted, held))
		}
		for _, f := range goodness {
			p.goodness = append(p.goodness, f.of(fitted, held))
		}
		return p
	}
	real := measure(fitted, held)
	quota := all.documentsOf()
	worlds, err := eachWorld(ctx, firstTestSeed, fitWorlds, func(seed uint64) (pair, error) {
		t, err := twin(r.Scenario, seed, quota, all.logits != nil)
		if err != nil {
			return pair{}, err
		}
		if all.token == nil {
			t.token = nil
		}
		return measure(t.halves()), nil
	})
	if err != nil {
		return err
	}
	settle := func(figures []Figure, real []float64, of func(p pair) []float64) []Figure {
		for i := range figures {
			figures[i].Real = real[i]
			drawn := make([]float64, len(worlds))
			for j, w := range worlds {
				drawn[j] = of(w)[i]
			}
			figures[i].summarise(drawn)
		}
		return slices.DeleteFunc(figures, func(f Figure) bool { return math.IsNaN(f.Real) || math.IsNaN(f.Synthetic) })
	}
	r.Moments = settle(moments, real.moments, func(p pair) []float64 { return p.moments })
	r.Goodness = settle(goodness, real.goodness, func(p pair) []float64 { return p.goodness })
	for _, f := range r.Goodness {
		if !f.Inside() {
			r.Findings = append(r.Findings, fmt.Sprintf("%s: real %.3g, but 95 %% of synthetic %s lie in %.3g to %.3g", f.Label, f.Real, r.Spread(), f.Low, f.High))
		}
	}
	return nil
}

// summarise takes mean and range of the figure over worlds.
func (f *Figure) summarise(drawn []float64) {
	mean, low, high := metrics.MeanInterval(drawn)
	f.Synthetic, f.Low, f.High = mean, mean, mean
	if low != nil && high != nil { // of the mean: t·s/√n
		wider := math.Sqrt(float64(len(drawn) + 1))
		f.Low, f.High = metrics.Round6(mean-float64((mean-*low)*wider)), metrics.Round6(mean+float64((*high-mean)*wider))
	}
}

// momentFigures are what the search matches.
func momentFigures(fitted *sample) []Figure {
	share := func(key, label string, of func(Components) float64) Figure {
		return Figure{Key: key, Label: label, of: func(fitted, _ *sample) float64 {
			return of(fitted.ofChoices())
		}}
	}
	figures := []Figure{
		share("popularity", "choices: popularity share", func(c Components) float64 { return c.Popularity }),
		share("document", "choices: document share", func(c Components) float64 { return c.Document }),
	}
	if fitted.domains > 1 {
		figures = append(figures, share("domain", "choices: domain share", func(c Components) float64 { return c.Domain }))
	}
	if fitted.token == nil {
		return figures
	}
	figures = append(figures, share("type", "choices: type share", func(c Components) float64 { return c.Type }),
		Figure{Key: "mean_log_rank", Label: "token ids: mean ln rank", of: func(f, _ *sample) float64 { return f.vocabulary().MeanLogRank }},
		Figure{Key: "types", Label: "token ids: distinct", of: func(f, _ *sample) float64 { return float64(f.vocabulary().Types) }})
	if fitted.domains > 1 {
		figures = append(figures, Figure{Key: "type_domain_bits", Label: "token ids: domain bits", of: func(f, _ *sample) float64 { return f.vocabulary().DomainBits }})
	}
	return figures
}

// goodnessFigures are what the half held back is judged by.
func (r *Result) goodnessFigures(held *sample) (figures []Figure) {
	e, k, n := held.experts, held.topk, held.tokens()
	floorOf := func(tokens int) metrics.Floor { return metrics.SamplingFloor(e, k, tokens) }
	for _, size := range batchSizes {
		if size > n/2 {
			break
		}
		figures = append(figures, Figure{Key: "maxvio_batch", ofLoads: true, Label: fmt.Sprintf("MaxVio, batch of %d", size), Tokens: size,
			Floor: pointer(floorOf(size).MaxVio), of: func(_, h *sample) float64 { return h.batchMaxVio(size) }})
	}
	figures = append(figures, Figure{Key: "maxvio_batch", ofLoads: true, Label: fmt.Sprintf("MaxVio, all %d tokens", n), Tokens: n,
		Floor: pointer(floorOf(n).MaxVio), of: func(_, h *sample) float64 { return metrics.MaxVio(h.counts(make([]int64, e), h.spans(-1)...)) }})
	if held.domains > 1 {
		for d, name := range r.Domains {
			tokens := 0
			for _, s := range held.spans(d) {
				tokens += s.Len()
			}
			figures = append(figures, Figure{Key: "maxvio_domain", ofLoads: true, Label: "MaxVio, " + name, Domain: name, Tokens: tokens,
				Floor: pointer(floorOf(tokens).MaxVio), of: func(_, h *sample) float64 { return metrics.MaxVio(h.counts(make([]int64, e), h.spans(d)...)) }})
		}
	}
	figures = append(figures, Figure{Key: "load_cv", ofLoads: true, Label: "load CV", Floor: pointer(floorOf(n).CV),
		of: func(_, h *sample) float64 { return metrics.Measure(h.counts(make([]int64, e), h.spans(-1)...)).CV }})
	if held.domains > 1 {
		figures = append(figures, Figure{Key: "domain_information", ofLoads: true, Label: "domain bits", Floor: pointer(metrics.DomainInformationFloor(e, k, held.domains, n)),
			of: func(_, h *sample) float64 { return h.domainInformation() }})
	}
	if held.token != nil {
		figures = append(figures, Figure{Key: "type_favourites", Label: "a type's favourites, share", Floor: pointer(float64(k) / float64(e)), of: favourites})
	}
	if held.token != nil && held.domains > 1 {
		figures = append(figures, Figure{Key: "type_collisions", Label: "token ids: collisions", of: func(_, h *sample) float64 { return h.vocabulary().Collisions }})
	}
	if held.logits == nil {
		return figures
	}
	logits := func(key, label string, of func(Components) float64) Figure {
		return Figure{Key: key, Label: label, of: func(_, h *sample) float64 { return of(h.ofLogits()) }}
	}
	figures = append(figures, logits("logit_spread", "logits: spread τ", func(c Components) float64 { return math.Sqrt(c.Total / float64(e-1)) }),
		logits("logit_popularity", "logits: popularity share", func(c Components) float64 { return c.Popularity }),
		logits("logit_document", "logits: document share", func(c Components) float64 { return c.Document }))
	if held.domains > 1 {
		figures = append(figures, logits("logit_domain", "logits: domain share", func(c Components) float64 { return c.Domain }))
	}
	if held.token != nil {
		figures = append(figures, logits("logit_type", "logits: type share", func(c Components) float64 { return c.Type }))
	}
	figures = append(figures, Figure{Key: "logit_spread_cv", Label: "logits: CV of spreads", of: func(_, h *sample) float64 { return h.spreadCV() }})
	return append(figures, Figure{Key: "logit_mean", Label: "logits: mean", of: func(_, h *sample) float64 { return h.logitMean() }})
}

func pointer(x float64) *float64 { return &x }

// spans are the documents of a domain, or of all where domain is −1.
func (s *sample) spans(domain int) (spans []moe.Span) {
	for _, d := range s.documents {
		if domain < 0 || d.domain == domain {
			spans = append(spans, d.Span)
		}
	}
	return spans
}

// passes over the shuffled documents, from which batches are cut.
const passes = 8

// batchMaxVio is the mean MaxVio of batches of a size: documents in shuffled order, cut every so many tokens, as a trace is
// replayed.
func (s *sample) batchMaxVio(size int) float64 {
	sum, batches := 0.0, 0
	n := make([]int64, s.experts)
	order := make([]int32, len(s.documents))
	for pass := range uint64(passes) {
		draws := rng.New(rng.Key(0, rng.Replay, pass))
		draws.Perm(order)
		filled := 0
		clear(n)
		for _, i := range order {
			for d := s.documents[i].Span; d.Len() > 0; {
				part := moe.Span{From: d.From, To: min(d.To, d.From+size-filled)}
				s.counts(n, part)
				filled += part.Len()
				d.From = part.To
				if filled == size {
					sum += metrics.MaxVio(n)
					batches++
					filled = 0
					clear(n)
				}
			}
		}
	}
	return sum / float64(batches)
}

func (s *sample) domainInformation() float64 {
	n := make([]int64, s.domains*s.experts)
	for _, d := range s.documents {
		s.counts(n[d.domain*s.experts:(d.domain+1)*s.experts], d.Span)
	}
	return metrics.DomainInformation(n, s.domains)
}

// leastOccurrences of a token id make its favourite experts known.
const leastOccurrences = 8

// favourites is the share of the held-back choices that fall on the K experts which the token's id chose most often in the
// fitted half, over ids that have 8 tokens or more there. Choices that do not depend on the id give K/E.
func favourites(fitted, held *sample) float64 {
	type record struct {
		tokens int
		n      []int64
	}
	known := map[int32]*record{}
	for _, d := range fitted.documents {
		for t := d.From; t < d.To; t++ {
			r := known[fitted.token[t]]
			if r == nil {
				r = &record{n: make([]int64, fitted.experts)}
				known[fitted.token[t]] = r
			}
			r.tokens++
			fitted.counts(r.n, moe.Span{From: t, To: t + 1})
		}
	}
	best := map[int32][]int32{}
	for id, r := range known {
		if r.tokens < leastOccurrences {
			continue
		}
		experts := make([]int32, fitted.experts)
		for e := range experts {
			experts[e] = int32(e)
		}
		slices.SortStableFunc(experts, func(a, b int32) int { return int(r.n[b] - r.n[a]) })
		best[id] = experts[:fitted.topk]
	}
	hits, of := 0, 0
	for _, d := range held.documents {
		for t := d.From; t < d.To; t++ {
			mine := best[held.token[t]]
			if mine == nil {
				continue
			}
			for _, e := range held.choices[t*held.topk : (t+1)*held.topk] {
				of++
				if slices.Contains(mine, e) {
					hits++
				}
			}
		}
	}
	return float64(hits) / float64(of)
}

// logitMean is the mean of all logits, on which no choice depends.
func (s *sample) logitMean() float64 {
	sum := 0.0
	for _, d := range s.documents {
		for t := d.From; t < d.To; t++ {
			sum += meanOf(s.logits[t*s.experts : (t+1)*s.experts])
		}
	}
	return sum / float64(s.tokens())
}

// spreadCV is the coefficient of variation, over the experts, of the standard deviation that an expert's centred logits
// have over tokens. Experts of one spread are popular by their mean alone; experts of a larger one are chosen more often at
// an equal mean.
func (s *sample) spreadCV() float64 {
	v, n := s.logitVectors(), float64(s.tokens())
	sum, squares, one := make([]float64, s.experts), make([]float64, s.experts), make([]float64, s.experts)
	for _, d := range s.documents {
		for t := d.From; t < d.To; t++ {
			clear(one)
			v.add(one, t)
			for e, z := range one {
				sum[e] += z
				squares[e] += float64(z * z)
			}
		}
	}
	mean, second := 0.0, 0.0
	for e := range sum {
		m := sum[e] / n
		variance := squares[e]/n - float64(m*m)
		mean += math.Sqrt(variance) / float64(s.experts)
		second += variance / float64(s.experts)
	}
	return math.Sqrt(max(0, second-float64(mean*mean))) / mean
}
