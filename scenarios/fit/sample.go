package fit

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"

	"evenkeel/internal/vec"
	"evenkeel/moe"
	"evenkeel/scenarios"
)

// Source is one layer of a trace file.
type Source struct {
	File    string
	SHA256  string
	Layer   int
	Dump    *scenarios.Dump
	Domains []string // names of the domain ids, as far as known
}

// sample is tokens and the experts that they choose, document by document. A real one comes from a trace, its twin from a
// synthetic stream; every statistic is computed from either in the same way.
type sample struct {
	experts, topk int
	choices       []int32   // [T][K]
	logits        []float32 // [T][E]; nil where only choices are known
	token         []int32   // [T]; nil where unknown
	documents     []document
	domains       int

	choiceParts, logitParts *Components // once they are known
}

// document is a run of tokens of one sequence and one domain.
type document struct {
	moe.Span
	domain int
}

func (s *sample) tokens() (n int) {
	for _, d := range s.documents {
		n += d.Len()
	}
	return n
}

// documentsOf counts the documents of each domain.
func (s *sample) documentsOf() []int {
	n := make([]int, s.domains)
	for _, d := range s.documents {
		n[d.domain]++
	}
	return n
}

// halves splits the documents of every domain in turns: the first, third, … to fit, the second, fourth, … held back.
func (s *sample) halves() (fitted, held *sample) {
	a, b := *s, *s
	for _, half := range []*sample{&a, &b} {
		half.documents, half.choiceParts, half.logitParts = nil, nil, nil
	}
	seen := make([]int, s.domains)
	for _, d := range s.documents {
		half := &a
		if seen[d.domain]%2 == 1 {
			half = &b
		}
		half.documents = append(half.documents, d)
		seen[d.domain]++
	}
	return &a, &b
}

// read makes one sample of all sources and says what a reader must know about it.
func read(base *scenarios.Scenario, sources []Source, cut int) (s *sample, names, notes []string, err error) {
	s = &sample{experts: base.Experts, topk: base.TopK}
	if cut > 0 {
		notes = append(notes, fmt.Sprintf("sequences are cut into parts of %d tokens, and parts of one sequence can be on both sides: the held-back half is not independent of the fitted one", cut))
	}
	q := newChooser(base.Layer())
	scores, tokens := true, true
	for _, x := range sources {
		scores = scores && x.Dump.Level == scenarios.LevelScores
		tokens = tokens && x.Dump.Token != nil
	}
	largest := 0
	for _, x := range sources {
		largest = max(largest, x.Dump.Experts)
	}
	if sources[0].Dump.Level == scenarios.LevelChoices && largest == base.Experts {
		notes = append(notes, fmt.Sprintf("the number of experts is taken from the largest id, %d; --set experts=E corrects it", largest-1))
	}
	for _, x := range sources {
		if err := fits(base, x); err != nil {
			return nil, nil, nil, err
		}
		more, err := s.add(x, q, scores, tokens, cut, len(names))
		if err != nil {
			return nil, nil, nil, err
		}
		notes = append(notes, more...)
		names = append(names, domainNames(x, len(sources) > 1)...)
	}
	s.domains = len(names)
	s.dropEmptyDomains(&names)
	return s, names, notes, nil
}

// fits checks a source against the shape of the layer.
func fits(base *scenarios.Scenario, x Source) error {
	d := x.Dump
	switch {
	case d.Level == scenarios.LevelScores && d.Experts != base.Experts:
		return fmt.Errorf("experts is %d, but the trace %s has %d: leave the setting out, and fit traces of one layer shape together", base.Experts, x.File, d.Experts)
	case d.Experts > base.Experts:
		return fmt.Errorf("experts is %d, but the trace %s chooses expert %d", base.Experts, x.File, d.Experts-1)
	case d.Level == scenarios.LevelChoices && d.TopK != base.TopK:
		return fmt.Errorf("topk is %d, but the topk_ids of %s hold %d experts per token: leave the setting out, and fit traces of one layer shape together", base.TopK, x.File, d.TopK)
	}
	return nil
}

// domainNames names the domains of a source: by its file where several files are fitted together and it knows only one.
func domainNames(x Source, several bool) (names []string) {
	n := max(1, x.Dump.Domains())
	for i := range n {
		name := fmt.Sprintf("domain %d", i)
		switch {
		case i < len(x.Domains):
			name = x.Domains[i]
		case several && n == 1:
			name = stem(x.File)
		case several:
			name = stem(x.File) + " " + name
		}
		names = append(names, name)
	}
	return names
}

// add appends the tokens of a source, whose domains are counted from first.
func (s *sample) add(x Source, q *chooser, scores, tokens bool, cut, first int) (notes []string, err error) {
	d := x.Dump
	at := len(s.choices) / s.topk // where its tokens begin
	choices, skip := d.Choices, []bool(nil)
	if d.Level == scenarios.LevelScores {
		choices = q.rows(d.Scores, d.Stored())
		if slices.ContainsFunc(d.Bias, func(b float32) bool { return b != 0 }) {
			notes = append(notes, fmt.Sprintf("%s has a selection bias, which the fit leaves aside: its choices here are the top %d of the scores, the stream that a balancing rule meets", filepath.Base(x.File), s.topk))
		}
	} else {
		skip, notes = padding(choices, s.topk, filepath.Base(x.File))
	}
	s.choices = append(s.choices, choices...)
	if scores {
		s.logits = append(s.logits, q.logits(d.Scores, d.Stored())...)
	}
	if tokens {
		s.token = append(s.token, d.Token...)
	}
	spans := d.Sequences
	if spans == nil {
		spans = []moe.Span{{From: 0, To: d.Tokens}}
	}
	before := len(spans)
	if cut > 0 {
		spans = cutSpans(spans, cut)
	}
	mixed := 0
	for _, span := range spans {
		runs := domainRuns(span, d.Domain, skip)
		if len(runs) > 1 {
			mixed++
		}
		for _, r := range runs {
			s.documents = append(s.documents, document{moe.Span{From: r.From + at, To: r.To + at}, r.domain + first})
		}
	}
	if mixed > 0 {
		notes = append(notes, fmt.Sprintf("%d of %d sequences of %s are cut where their domain changes or tokens are padding: switching is not fitted", mixed, before, filepath.Base(x.File)))
	}
	return notes, nil
}

// padding marks tokens that did not choose K experts.
func padding(choices []int32, topk int, file string) (skip []bool, notes []string) {
	n := 0
	for t := range len(choices) / topk {
		if slices.Contains(choices[t*topk:(t+1)*topk], -1) {
			if skip == nil {
				skip = make([]bool, len(choices)/topk)
			}
			skip[t] = true
			n++
		}
	}
	if n > 0 {
		notes = append(notes, fmt.Sprintf("%s of %s have fewer than %d experts and are left out", plural(n, "token"), file, topk))
	}
	return skip, notes
}

func cutSpans(spans []moe.Span, length int) (parts []moe.Span) {
	for _, s := range spans {
		for from := s.From; from < s.To; from += length {
			parts = append(parts, moe.Span{From: from, To: min(s.To, from+length)})
		}
	}
	return parts
}

// domainRuns cuts a sequence into runs of one domain, without the tokens to skip.
func domainRuns(span moe.Span, domain []int32, skip []bool) (runs []document) {
	open := false
	for t := span.From; t < span.To; t++ {
		if skip != nil && skip[t] {
			open = false
			continue
		}
		d := 0
		if domain != nil {
			d = int(domain[t])
		}
		if last := len(runs) - 1; open && runs[last].domain == d {
			runs[last].To = t + 1
			continue
		}
		runs = append(runs, document{moe.Span{From: t, To: t + 1}, d})
		open = true
	}
	return runs
}

// dropEmptyDomains renumbers the domains that occur.
func (s *sample) dropEmptyDomains(names *[]string) {
	place := make([]int, s.domains)
	var kept []string
	for i, n := range s.documentsOf() {
		place[i] = len(kept)
		if n > 0 {
			kept = append(kept, (*names)[i])
		}
	}
	for i := range s.documents {
		s.documents[i].domain = place[s.documents[i].domain]
	}
	s.domains, *names = len(kept), kept
}

// chooser routes tokens by their own scores: the top K, within the groups that the layer allows.
type chooser struct {
	layer   moe.Layer
	q       *vec.Selector
	scores  []float32 // [E][64]
	mask    []uint64  // [E]
	allowed []uint64  // [G]
}

func newChooser(l moe.Layer) *chooser {
	c := &chooser{layer: l, q: vec.NewSelector(l.TopK, l.Groups), scores: make([]float32, l.Experts*vec.Lanes), mask: make([]uint64, l.Experts)}
	if l.Limited() {
		c.allowed = make([]uint64, l.Groups)
	}
	return c
}

// tile appends the choices of a tile's first tokens, each in ascending order of experts.
func (c *chooser) tile(into []int32, z []float32, tokens int, stored bool) []int32 {
	score := c.layer.Score
	if stored {
		score = moe.Stored
	}
	score.Apply(c.scores, z, c.layer.Experts)
	if c.allowed != nil {
		c.q.Groups(c.allowed, c.scores, nil, c.layer.Experts, c.layer.GroupsKept)
	}
	c.q.TopK(c.mask, c.scores, nil, ^uint64(0)>>(vec.Lanes-tokens), c.allowed)
	for t := range tokens {
		for e, m := range c.mask {
			if m>>t&1 != 0 {
				into = append(into, int32(e))
			}
		}
	}
	return into
}

// rows routes tokens stored row by row [T][E].
func (c *chooser) rows(z []float32, stored bool) (choices []int32) {
	e := c.layer.Experts
	tile := make([]float32, e*vec.Lanes)
	for at := 0; at < len(z); at += e * vec.Lanes {
		rows := z[at:min(len(z), at+e*vec.Lanes)]
		transpose(tile, rows, e)
		choices = c.tile(choices, tile, len(rows)/e, stored)
	}
	return choices
}

// logits returns rows of logits [T][E], those of stored scores by the inverse of the layer's score function.
func (c *chooser) logits(z []float32, stored bool) []float32 {
	if !stored {
		return z
	}
	e := c.layer.Experts
	out := make([]float32, len(z))
	tile := make([]float32, e*vec.Lanes)
	for at := 0; at < len(z); at += e * vec.Lanes {
		end := min(len(z), at+e*vec.Lanes)
		transpose(tile, z[at:end], e)
		c.layer.Score.Logits(tile, tile, e)
		untranspose(out[at:end], tile, e)
	}
	return out
}

// transpose brings up to 64 rows [t][E] into a tile [E][64].
func transpose(tile, rows []float32, experts int) {
	for t := range len(rows) / experts {
		for e := range experts {
			tile[e*vec.Lanes+t] = rows[t*experts+e]
		}
	}
}

func untranspose(rows, tile []float32, experts int) {
	for t := range len(rows) / experts {
		for e := range experts {
			rows[t*experts+e] = tile[e*vec.Lanes+t]
		}
	}
}

// errShort is what a stream that never yields a domain ends in.
var errShort = errors.New("the synthetic stream does not yield documents of every domain: a share is too small to be simulated")

// twin draws from a scenario's stream as many documents of every domain as asked for, each of the scenario's sequence
// length, with logits if wanted.
func twin(s *scenarios.Scenario, seed uint64, quota []int, logits bool) (*sample, error) {
	one := *s
	perBatch := max(1, 2048/s.SequenceLength)
	one.Tokens, one.MicroBatches, one.Ranks = perBatch*s.SequenceLength, 1, 1
	stream, layer := one.Stream(seed), one.Layer()
	b, w := moe.NewBatch(layer, one.Tokens), moe.NewScratch(layer)
	c := newChooser(layer)
	out := &sample{experts: layer.Experts, topk: layer.TopK, domains: len(quota)}
	left, wanted := slices.Clone(quota), 0
	for _, n := range quota {
		wanted += n
	}
	for step := 0; wanted > 0; step++ {
		if step > 1000*(1+len(quota)) {
			return nil, errShort
		}
		stream.Layout(b, moe.Moment{Step: 0, Purpose: moe.Train, Index: step})
		for i := range b.Tiles {
			stream.Fill(b, i, w)
		}
		for _, span := range b.Sequences {
			d := int(b.Tiles[span.From/moe.TileTokens].Domain[span.From%moe.TileTokens])
			if left[d] == 0 {
				continue
			}
			left[d]--
			wanted--
			out.take(b, span, d, c, logits)
		}
	}
	return out, nil
}

// take appends one sequence of a batch.
func (s *sample) take(b *moe.Batch, span moe.Span, domain int, c *chooser, logits bool) {
	at := len(s.token)
	tile := make([]float32, s.experts*vec.Lanes)
	for from := span.From; from < span.To; {
		t := &b.Tiles[from/moe.TileTokens]
		lane := from - t.Start
		n := min(t.Tokens-lane, span.To-from)
		for e := range s.experts {
			copy(tile[e*vec.Lanes:e*vec.Lanes+n], t.Z[e*vec.Lanes+lane:])
		}
		s.choices = c.tile(s.choices, tile, n, false)
		s.token = append(s.token, t.Token[lane:lane+n]...)
		if logits {
			rows := len(s.logits)
			s.logits = append(s.logits, make([]float32, n*s.experts)...)
			untranspose(s.logits[rows:], tile, s.experts)
		}
		from += n
	}
	s.documents = append(s.documents, document{moe.Span{From: at, To: at + span.Len()}, domain})
}
