package fit

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"evenkeel/internal/vec"
	"evenkeel/scenarios"
)

// Least numbers without which a fit is refused.
const (
	leastDocuments = 8    // of the trace
	leastOfDomain  = 2    // one to fit and one held back
	leastTokens    = 1024 // of the trace
)

const (
	mostTokens    = 16384 // of each half: longer traces are thinned by documents
	fitWorlds     = 48    // that simulated moments are averaged over
	firstFitSeed  = 1001  // of those worlds
	firstTestSeed = 2001  // of the worlds that the fit is judged by
	rounds        = 24    // of the search, at most
)

// Result is a fitted scenario, what it was fitted to and how well it fits tokens that were held back.
type Result struct {
	Scenario *scenarios.Scenario
	Sources  []Source
	Level    string // of the traces: scores or choices
	Domains  []string

	Tokens, Documents         int // that were fitted
	HeldTokens, HeldDocuments int
	Moments                   []Figure // of the fitted half: what the fit looked at
	Goodness                  []Figure // of the half held back
	Kept                      []string // parameters that the trace cannot tell, and the values that they keep
	Notes                     []string
	Findings                  []string // what the synthetic stream does not reproduce

	Worlds  int // that the fit is judged by, or draws of tokens in the one that is fixed
	Nearest int // worlds of which the scenario's is the nearest; 0 where seeds draw their own
}

// Spread names what the ranges of figures hold 95 % of.
func (r *Result) Spread() string {
	if r.Nearest > 0 {
		return "draws"
	}
	return "worlds"
}

// Options say how to fit.
type Options struct {
	Cut     int // tokens of the parts that are taken in place of the sequences; 0 for the sequences themselves
	Nearest int // worlds of which the one that comes nearest to the trace is fixed; 0 leaves every seed its own world

	Name, About string // of the scenario; empty for names made of the traces'
}

// Fit fits the synthetic stream of base to traces of one layer shape. Keys of base that a trace cannot tell keep their
// values. Base is not changed.
func Fit(ctx context.Context, base *scenarios.Scenario, sources []Source, o Options) (*Result, error) {
	switch {
	case base.Synthetic == nil:
		return nil, errors.New("only a synthetic stream can be fitted: leave out settings of trace and independent")
	case len(base.Events) > 0:
		return nil, errors.New("events are not fitted: leave them out and add them to the file that is written")
	}
	all, names, notes, err := read(base, sources, o.Cut)
	if err != nil {
		return nil, err
	}
	if err := enough(all, names, sources, o.Cut); err != nil {
		return nil, err
	}
	s := *base
	y := *base.Synthetic
	s.Synthetic = &y
	r := &Result{Scenario: &s, Sources: sources, Level: levelOf(all), Domains: names, Notes: notes, Worlds: fitWorlds}
	if before := len(all.documents); all.thin(2*mostTokens) < before {
		r.Notes = append(r.Notes, fmt.Sprintf("%d of %d documents, evenly spread, are used", len(all.documents), before))
	}
	fitted, held := all.halves()
	r.Tokens, r.Documents, r.HeldTokens, r.HeldDocuments = fitted.tokens(), len(fitted.documents), held.tokens(), len(held.documents)
	r.Nearest = o.Nearest
	if s.Name = o.Name; s.Name == "" || s.Name == "." {
		s.Name = "fitted-" + strings.TrimPrefix(stem(sources[0].File), "embedded:")
	}
	if s.About = o.About; s.About == "" {
		s.About = fmt.Sprintf("synthetic stream fitted to %s (%d experts, %d per token)", r.about(), s.Experts, s.TopK)
	}
	fitShape(&s, fitted, names)
	s.WorldSeed = 0
	if err := r.search(ctx, fitted); err != nil {
		return nil, err
	}
	if o.Nearest > 0 {
		if err := r.fixNearest(ctx, fitted, o.Nearest); err != nil {
			return nil, err
		}
	}
	// What is judged is what will be read: numbers as the file has them.
	reread, err := scenarios.Resolved("the fitted scenario", r.keys())
	if err != nil {
		return nil, err
	}
	r.Scenario = reread
	if err := r.judge(ctx, all, fitted, held); err != nil {
		return nil, err
	}
	r.keep(fitted)
	return r, nil
}

func levelOf(s *sample) string {
	if s.logits != nil {
		return scenarios.LevelScores
	}
	return scenarios.LevelChoices
}

// enough refuses a trace that cannot be split into two halves that say something.
func enough(s *sample, names []string, sources []Source, cut int) error {
	file := sources[0].File
	if len(sources) > 1 {
		file = "the traces together"
	}
	sequences := false
	for _, x := range sources {
		sequences = sequences || x.Dump.Sequences != nil
	}
	n := s.tokens()
	switch {
	case n < leastTokens:
		return fmt.Errorf("%s: %d tokens are too few: a fit needs at least %d, half of them held back; log more text, or fit several traces together", file, n, leastTokens)
	case len(s.documents) < leastDocuments && !sequences && cut == 0:
		return fmt.Errorf("%s has no seq_lens, so the whole trace is one sequence and nothing can be held back: add seq_lens to the file, or --cut 128 to take parts of 128 tokens as sequences", file)
	case len(s.documents) < leastDocuments:
		return fmt.Errorf("%s has %s: a fit needs at least %d, half of them held back; log more text, or add --cut 128 to take parts of 128 tokens as sequences", file, plural(len(s.documents), "sequence"), leastDocuments)
	}
	for d, count := range s.documentsOf() {
		if count < leastOfDomain {
			return fmt.Errorf("%s has one sequence of the domain %s: a fit needs at least %d of each, one held back; log more of it, or leave its tokens out", file, names[d], leastOfDomain)
		}
	}
	if s.experts == s.topk {
		return fmt.Errorf("%s chooses all %d experts for every token: there is no choice to fit", file, s.experts)
	}
	return nil
}

// thin keeps every so many documents of each domain, so that about limit tokens are left, and returns their number.
func (s *sample) thin(limit int) int {
	stride := (s.tokens() + limit - 1) / limit
	if stride <= 1 {
		return len(s.documents)
	}
	seen := make([]int, s.domains)
	var kept []document
	for _, d := range s.documents {
		// The last ones of a small domain stay, so that both halves have some.
		if seen[d.domain]%stride == 0 || seen[d.domain] < leastOfDomain {
			kept = append(kept, d)
		}
		seen[d.domain]++
	}
	s.documents = kept
	return len(kept)
}

// fitShape sets what a trace shows directly: the length of documents, the domains and their shares, the spread of logits.
//
// The latent vectors have the squared length d and experts' directions are N(0, I), so that the logits of a token spread
// over its experts by τ² on average: τ² = Σ_t Σ_e (z_te − z̄_t)² / (N(E − 1)).
func fitShape(s *scenarios.Scenario, fitted *sample, names []string) {
	n := fitted.tokens()
	length := max(1, int(math.Round(float64(n)/float64(len(fitted.documents)))))
	perStep := max(s.MicroBatches, int(math.Round(float64(s.Tokens)/float64(length))))
	perStep -= perStep % s.MicroBatches
	s.SequenceLength, s.Tokens = length, length*perStep
	y := s.Synthetic
	y.Switching, y.OffsetSpread = 0, 0
	y.Domains = nil
	tokens := make([]int, len(names))
	for _, d := range fitted.documents {
		tokens[d.domain] += d.Len()
	}
	left := 1.0
	for d, name := range names {
		share := places(float64(tokens[d])/float64(n), 4)
		left -= share
		y.Domains = append(y.Domains, scenarios.Domain{Name: name, Share: share})
	}
	largest := &y.Domains[slices.Index(tokens, slices.Max(tokens))]
	largest.Share = places(largest.Share+left, 4) // so that they sum to 1
	if fitted.logits != nil {
		total := fitted.logitVectors().squares(fitted.partitions().tokens)
		y.LogitScale = places(math.Sqrt(total/(float64(n)*float64(fitted.experts-1))), 3)
	}
}

// energies are shares of the whole energy of a latent vector; they sum to 1.
type energies struct{ common, domain, document, kind, noise float64 }

func (e energies) scaled() energies {
	sum := e.common + e.domain + e.document + e.kind + e.noise
	return energies{e.common / sum, e.domain / sum, e.document / sum, e.kind / sum, e.noise / sum}
}

// set writes the energies into a stream, rounded as the file will have them.
func (e energies) set(y *scenarios.Synthetic) {
	rest := 1 - e.common
	y.CommonEnergy = places(e.common, 4)
	y.Energy.Domain, y.Energy.Sequence, y.Energy.Type = places(e.domain/rest, 4), places(e.document/rest, 4), places(e.kind/rest, 4)
	y.Energy.Noise = places(1-y.Energy.Domain-y.Energy.Sequence-y.Energy.Type, 4)
	if y.Energy.Noise < 0 { // three roundings upwards
		y.Energy.Type, y.Energy.Noise = places(y.Energy.Type+y.Energy.Noise, 4), 0
	}
}

// search finds the energies whose streams split the variance of choices as the fitted half does, by fixed point: every
// energy is multiplied by (wanted share / simulated share), the noise by that of the rest, until every share is within
// 0.0005 of the wanted one. The worlds are the same in every round, so that their chance does not disturb the search. An energy whose share is
// had from the others already, such as popularity that frequent types bring, goes to 0.
//
// Without token ids types cannot be told from noise, and the two keep base's ratio.
func (r *Result) search(ctx context.Context, fitted *sample) error {
	s, y := r.Scenario, r.Scenario.Synthetic
	quota := fitted.documentsOf()
	if fitted.token != nil {
		bound, err := fitVocabulary(ctx, s, fitted.vocabulary(), quota)
		if err != nil {
			return err
		}
		if bound {
			r.Notes = append(r.Notes, fmt.Sprintf("the trace has so many token types that vocabulary stands at the largest tried, %d", largestVocabulary))
		}
	}
	want := fitted.ofChoices()
	typed := fitted.token != nil && want.Type != 0
	want.Popularity, want.Domain, want.Document, want.Type = max(want.Popularity, 0), max(want.Domain, 0), max(want.Document, 0), max(want.Type, 0)
	e := energies{want.Popularity, want.Domain, want.Document, want.Type, want.Rest()}
	ratio := y.Energy.Type / max(y.Energy.Type+y.Energy.Noise, 1e-9)
	const least = 1e-5
	reached := false
	for range rounds {
		e = energies{max(e.common, least), max(e.domain, least), max(e.document, least), max(e.kind, least), max(e.noise, least)}.scaled()
		if !typed {
			both := e.kind + e.noise // whose share is all of the rest
			e.kind, e.noise = both*ratio, both*(1-ratio)
		}
		if len(quota) == 1 {
			e.domain = 0
		}
		e.set(y)
		now, err := simulated(ctx, s, quota, typed)
		if err != nil {
			return err
		}
		e.common *= toward(want.Popularity, now.Popularity)
		e.document *= toward(want.Document, now.Document)
		e.domain *= toward(want.Domain, now.Domain)
		e.kind *= toward(want.Type, now.Type)
		e.noise *= toward(want.Rest(), now.Rest())
		if want.near(now, 5e-4) {
			return nil
		}
		reached = want.near(now, 0.01)
	}
	if !reached {
		r.Notes = append(r.Notes, "no energies give the split of the variance of choices that the trace has: the fitted half shows how near they come")
	}
	return nil
}

// fixNearest fixes the world whose figures come nearest to those of the fitted half: the least Σ ln²(drawn/real) over what
// loads show, which is MaxVio of batches of all sizes and of domains, CV and domain bits. One draw of documents from every world
// finds a few; which of them is nearest is decided by the mean of several draws, for the luckiest draw is not the nearest world.
func (r *Result) fixNearest(ctx context.Context, fitted *sample, worlds int) error {
	const few, several = 12, 8
	figures := slices.DeleteFunc(r.goodnessFigures(fitted), func(f Figure) bool { return !f.ofLoads })
	quota := fitted.documentsOf()
	var real []float64
	for _, f := range figures {
		real = append(real, f.of(fitted, fitted))
	}
	distance := func(world uint64, draws int) (d float64, err error) {
		s, mean := *r.Scenario, make([]float64, len(figures))
		s.WorldSeed = world
		for seed := range draws {
			t, err := twin(&s, firstFitSeed+uint64(seed), quota, false)
			if err != nil {
				return 0, err
			}
			for i, f := range figures {
				mean[i] += f.of(t, t) / float64(draws)
			}
		}
		for i, drawn := range mean {
			ratio := vec.Log64(max(drawn, 1e-6) / max(real[i], 1e-6))
			d += float64(ratio * ratio)
		}
		return d, nil
	}
	once, err := eachWorld(ctx, 1, worlds, func(world uint64) (float64, error) { return distance(world, 1) })
	if err != nil {
		return err
	}
	order := make([]uint64, worlds)
	for i := range order {
		order[i] = uint64(i) + 1
	}
	slices.SortStableFunc(order, func(a, b uint64) int { return cmp.Compare(once[a-1], once[b-1]) })
	order = order[:min(few, worlds)]
	more, err := eachWorld(ctx, 0, len(order), func(i uint64) (float64, error) { return distance(order[i], several) })
	if err != nil {
		return err
	}
	r.Scenario.WorldSeed = order[slices.Index(more, slices.Min(more))]
	return nil
}

// toward is the factor by which an energy moves: at most 3 either way.
func toward(want, now float64) float64 {
	const least = 1e-4 // of a share; an estimate can be negative
	return min(max(max(want, least)/max(now, least), 1./3), 3)
}

func (c Components) near(o Components, by float64) bool {
	return math.Abs(c.Popularity-o.Popularity) < by && math.Abs(c.Domain-o.Domain) < by && math.Abs(c.Document-o.Document) < by && math.Abs(c.Type-o.Type) < by
}

// simulated averages the components of choices over the worlds of the fit, those of types where they are looked at.
func simulated(ctx context.Context, s *scenarios.Scenario, quota []int, typed bool) (mean Components, err error) {
	of, err := eachWorld(ctx, firstFitSeed, fitWorlds, func(seed uint64) (Components, error) {
		t, err := twin(s, seed, quota, false)
		if err != nil {
			return Components{}, err
		}
		if !typed {
			t.token = nil
		}
		return t.ofChoices(), nil
	})
	for _, c := range of {
		mean.Popularity += c.Popularity / fitWorlds
		mean.Domain += c.Domain / fitWorlds
		mean.Document += c.Document / fitWorlds
		mean.Type += c.Type / fitWorlds
	}
	return mean, err
}

// eachWorld runs f for consecutive seeds, as many at once as there are processors, and returns the results in their order.
func eachWorld[V any](ctx context.Context, first uint64, n int, f func(seed uint64) (V, error)) ([]V, error) {
	values, errs := make([]V, n), make([]error, n)
	var group sync.WaitGroup
	var next atomic.Int64
	for range runtime.GOMAXPROCS(0) {
		group.Go(func() {
			for i := int(next.Add(1)) - 1; i < n && ctx.Err() == nil; i = int(next.Add(1)) - 1 {
				values[i], errs[i] = f(first + uint64(i))
			}
		})
	}
	group.Wait()
	for _, err := range append(errs, ctx.Err()) {
		if err != nil {
			return nil, err
		}
	}
	return values, nil
}

// keep lists the parameters that the trace does not tell.
func (r *Result) keep(fitted *sample) {
	y := r.Scenario.Synthetic
	if r.Level == scenarios.LevelChoices {
		r.Kept = append(r.Kept, fmt.Sprintf("logit_scale %g: choices do not change when all logits are multiplied", y.LogitScale))
	}
	r.Kept = append(r.Kept, fmt.Sprintf("width %d: the dimension of latent vectors is not in the choices", r.Scenario.Width),
		"offset_spread 0: offsets and a common direction make the same choices, and common_energy stands for both")
	if len(r.Domains) == 1 {
		r.Kept = append(r.Kept, "energy.domain 0: with one domain what it shares is common to all tokens",
			fmt.Sprintf("domain_tilt %g: it needs two domains", y.DomainTilt))
	}
	if fitted.token == nil {
		r.Kept = append(r.Kept, fmt.Sprintf("vocabulary %d, zipf %g, domain_tilt %g and the ratio of energy.type to energy.noise: the trace has no token ids", y.Vocabulary, y.Zipf, y.DomainTilt))
	}
}

func stem(file string) string {
	return strings.TrimSuffix(filepath.Base(file), filepath.Ext(file))
}

func plural(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return fmt.Sprintf("%d %s", n, what)
}
