package tracefile

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"evenkeel/internal/npz"
)

const (
	maxLayers = 1 << 16
	maxID     = math.MaxInt16
	maxKeys   = 1 << 22 // sequences that are told apart
	maxCells  = 1 << 23 // counts in long form
)

// layerRows are the rows of one layer.
type layerRows struct {
	ids, weights, logits, scores *spool
	k, experts                   int
	weighted                     int // tokens that have weights
	tokens                       int
	hash                         uint64 // of the tokens' keys, to see that layers list the same tokens
	places, hidden               []place
}

// place is a matrix of bfloat16 in a sidecar file.
type place struct {
	segment
	width int
}

// rows collects records and becomes a Source.
type rows struct {
	name string
	o    Options
	pool *pool

	layers map[int]*layerRows
	last   int // layer of the last record
	cached *layerRows
	lead   *layerRows // the first layer, whose rows name the tokens
	line   int

	pending          record // see single
	hasLayer, routed bool
	renamed          bool // scores as long as the ids were read as their weights
	short            int  // rows with fewer than K ids
	tokenIDs         *spool
	domains          map[string]int
	domainNames      []string
	domain           *spool
	lengths          *spool
	length           int
	sequence         uint64
	previous         int64
	keyed, numbered  bool
	mixed            bool // sequences come back after they had ended
	keys             map[uint64]bool

	counts *counts
}

func newRows(name string, o Options) *rows {
	p := newPool()
	return &rows{name: name, o: o, pool: p, layers: map[int]*layerRows{}, last: -1, tokenIDs: p.spool(), domains: map[string]int{}, domain: p.spool(),
		lengths: p.spool(), keys: map[uint64]bool{}, counts: newCounts(p)}
}

func (t *rows) errorf(line int, format string, args ...any) error {
	return fmt.Errorf("%s:%d: %s", t.name, line, fmt.Sprintf(format, args...))
}

// add takes a record, which the caller may use again.
func (t *rows) add(r *record, line int) error {
	t.line = line
	if r.excluded {
		return nil
	}
	if r.has[colLayer] && (r.layer < 0 || r.layer >= maxLayers) {
		return t.errorf(line, "layer is %d: want 0 to %d", r.layer, maxLayers-1)
	}
	switch {
	case r.choice():
	case r.has[colLoads] || r.has[colCount]:
		t.counts.domains = t.counts.domains || r.has[colDomain]
		if err := t.counts.add(r); err != nil {
			return t.errorf(line, "%s", err)
		}
		return nil
	default:
		return t.single(r)
	}
	if r.has[colIDs] && r.has[colScores] && !r.has[colWeights] && slices.Equal(r.ids.ends, r.scores.ends) {
		r.weights, r.scores = r.scores, r.weights
		r.has[colWeights], r.has[colScores] = true, false
		t.renamed = true
	}
	return t.take(r)
}

// single takes a row of one expert of a token: rows of the same token and layer that follow each other are one choice.
func (t *rows) single(r *record) error {
	if !r.has[colToken] {
		return t.errorf(t.line, "it has an expert, but neither a count nor a token to which it belongs: map one by --map count=COLUMN or --map token=COLUMN")
	}
	p := &t.pending
	if p.has[colExpert] && (p.layer != r.layer || p.tokenKey != r.tokenKey || p.sequence != r.sequence || p.step != r.step) {
		if err := t.flush(); err != nil {
			return err
		}
	}
	if !p.has[colExpert] {
		ids, weights := p.ids, p.weights
		ids.reset()
		weights.reset()
		*p = *r
		p.ids, p.weights, p.ids.depth = ids, weights, 1
		p.tokenID.ints = slices.Clone(r.tokenID.ints)
	}
	if len(p.ids.ints) > maxID {
		return t.errorf(t.line, "a token has more than %d experts", maxID)
	}
	p.ids.ints = append(p.ids.ints, r.expert)
	if r.has[colWeights] && len(r.weights.floats) == 1 {
		p.weights.floats = append(p.weights.floats, r.weights.floats[0])
	}
	return nil
}

// flush takes the choice that single has collected.
func (t *rows) flush() error {
	p := &t.pending
	if !p.has[colExpert] {
		return nil
	}
	p.ids.ends = append(p.ids.ends, len(p.ids.ints))
	p.weights.ends = append(p.weights.ends, len(p.weights.floats))
	p.has[colIDs], p.has[colExpert] = true, false
	return t.take(p)
}

// take adds the choices or scores of a record.
func (t *rows) take(r *record) error {
	line := t.line
	// The list that leads gives the tokens.
	lead, what := &r.ids, "topk_ids"
	switch {
	case r.has[colIDs]:
	case r.has[colLogits]:
		lead, what = &r.logits, "logits"
	default:
		lead, what = &r.scores, "scores"
	}
	for _, other := range []struct {
		has bool
		n   *numbers
		who string
	}{{r.has[colWeights], &r.weights, "topk_weights"}, {r.has[colLogits], &r.logits, "logits"}, {r.has[colScores], &r.scores, "scores"}} {
		if other.has && (len(other.n.ends) != len(lead.ends) || len(other.n.groups) != len(lead.groups)) {
			return t.errorf(line, "%s has %d rows, but %s has %d", other.who, len(other.n.ends), what, len(lead.ends))
		}
	}
	t.routed = t.routed || r.routed
	n := len(lead.ends)
	switch {
	case lead.depth == 3: // [tokens][layers][k]
		if r.has[colLayer] {
			return t.errorf(line, "%s is three lists deep, [tokens][layers][k], and layer is given too", what)
		}
		begin, layers := 0, 0
		for token, end := range lead.groups {
			if token > 0 && end-begin != layers {
				return t.errorf(line, "%s has %d layers at token %d, but %d before", what, end-begin, token, layers)
			}
			layers = end - begin
			for l := range layers {
				if err := t.row(r, l, begin+l, token); err != nil {
					return err
				}
			}
			begin = end
		}
		t.tokens(r, len(lead.groups))
		return t.written()
	case lead.depth == 2 && !r.has[colLayer] && (r.has[colToken] || t.o.Layers > 1 && n == t.o.Layers): // [layers][k] of one token
		for l := range n {
			if err := t.row(r, l, l, 0); err != nil {
				return err
			}
		}
		t.tokens(r, 1)
		return t.written()
	}
	layer := 0
	if r.has[colLayer] {
		layer, t.hasLayer = int(r.layer), true
	}
	for i := range n {
		if err := t.row(r, layer, i, i); err != nil {
			return err
		}
	}
	l := t.layers[layer]
	if l == nil {
		return nil // a record of no tokens
	}
	if r.side.logits.width > 0 {
		l.places = append(l.places, r.side.logits)
	}
	if r.side.hidden.width > 0 {
		l.hidden = append(l.hidden, r.side.hidden)
	}
	if l == t.lead {
		t.tokens(r, n)
	}
	return t.written()
}

// written returns an error of writing that a spool has kept.
func (t *rows) written() error {
	if l := t.cached; l != nil {
		for _, s := range []*spool{l.ids, l.weights, l.logits, l.scores, t.tokenIDs, t.domain, t.lengths} {
			if s.err != nil {
				return s.err
			}
		}
	}
	return nil
}

// row appends row i of a record, the token-th of its tokens, to a layer.
func (t *rows) row(r *record, layer, i, token int) error {
	l := t.cached
	if layer != t.last || l == nil {
		if l = t.layers[layer]; l == nil {
			if len(t.layers) >= 4096 {
				return t.errorf(t.line, "it has more than 4096 layers: map layer to another column")
			}
			l = &layerRows{ids: t.pool.spool(), weights: t.pool.spool(), logits: t.pool.spool(), scores: t.pool.spool()}
			if t.o.TopK > 0 {
				l.k = t.o.TopK
			}
			t.layers[layer] = l
			if t.lead == nil {
				t.lead = l
			}
		}
		t.cached, t.last = l, layer
	}
	if r.has[colIDs] {
		if err := t.choices(r, l, i); err != nil {
			return err
		}
	}
	for _, x := range []struct {
		has bool
		n   *numbers
		s   *spool
		who string
	}{{r.has[colLogits], &r.logits, l.logits, "logits"}, {r.has[colScores], &r.scores, l.scores, "scores"}} {
		if !x.has {
			continue
		}
		from, to := x.n.row(i)
		if l.experts == 0 {
			l.experts = to - from
		}
		if to-from != l.experts || to == from {
			return t.errorf(t.line, "%s has %d numbers for a token, but %d before: want one for each expert", x.who, to-from, l.experts)
		}
		for _, v := range x.n.floats[from:to] {
			x.s.float32(v)
		}
	}
	l.tokens++
	if r.has[colToken] || r.has[colSequence] || r.has[colStep] {
		l.hash = (l.hash ^ r.tokenKey ^ r.sequence*3 ^ r.step*5 ^ uint64(token)) * 1099511628211
	}
	return nil
}

// choices appends the ids and weights of one token.
func (t *rows) choices(r *record, l *layerRows, i int) error {
	from, to := r.ids.row(i)
	k := to - from
	if l.k == 0 {
		if k == 0 {
			return t.errorf(t.line, "the first token of a layer has no experts, so it does not say how many there are per token: add --set topk=K")
		}
		l.k = k
	}
	if k > l.k {
		return t.errorf(t.line, "a token has %d experts, but %d were expected after the tokens before it: add --set topk=%d", k, l.k, k)
	}
	for _, id := range r.ids.ints[from:to] {
		if t.o.Padding > 0 && id == int64(t.o.Padding) {
			id = -1
		}
		if id < -1 || id > maxID {
			return t.errorf(t.line, "expert id is %d: want 0 to %d, or -1 for padding; --set padding=%d (trace.padding in a scenario) makes that padding", id, maxID, id)
		}
		l.ids.int16(int16(id))
	}
	for range l.k - k {
		l.ids.int16(-1)
	}
	if k < l.k {
		t.short++
	}
	if !r.has[colWeights] {
		return nil
	}
	if a, b := r.weights.row(i); b-a != k {
		return t.errorf(t.line, "a token has %d weights for %d experts", b-a, k)
	} else {
		for _, w := range r.weights.floats[a:b] {
			l.weights.float32(w)
		}
	}
	for range l.k - k {
		l.weights.float32(0)
	}
	l.weighted++
	return nil
}

// tokens notes what a record says of n tokens themselves: sequence, domain, token id.
func (t *rows) tokens(r *record, n int) {
	fresh := t.lengths.size == 0 && t.length == 0
	switch {
	case r.has[colSequence]:
		t.keyed = true
		key := r.sequence
		if r.has[colDomain] { // problem 1 of another data set is another problem
			key = key*31 ^ fnv([]byte(r.domain))
		}
		if fresh || key != t.sequence {
			if t.keys[key] || len(t.keys) >= maxKeys {
				t.mixed = true
			}
			if !t.mixed {
				t.keys[key] = true
			}
			t.begin()
		}
		t.sequence = key
	case r.routed || len(r.ids.groups) > 0:
		t.keyed = true
		t.begin()
	case r.placed:
		t.numbered = true
		if fresh || r.token <= t.previous {
			t.begin()
		}
		t.previous = r.token
	}
	t.length += n
	if r.has[colTokenID] && len(r.tokenID.ints) == n {
		for _, id := range r.tokenID.ints {
			t.tokenIDs.int32(int32(max(-1, min(id, math.MaxInt32))))
		}
	}
	if r.has[colDomain] {
		d, ok := t.domains[r.domain]
		if !ok && len(t.domainNames) < 256 {
			d = len(t.domainNames)
			t.domains[r.domain] = d
			t.domainNames = append(t.domainNames, r.domain)
		} else if !ok {
			d = -1
		}
		for range n {
			t.domain.int16(int16(d))
		}
	}
}

// begin ends the sequence under way.
func (t *rows) begin() {
	if t.length > 0 {
		t.lengths.int32(int32(min(t.length, math.MaxInt32)))
		t.length = 0
	}
}

// none reports whether no record was taken.
func (t *rows) none() bool {
	return len(t.layers) == 0 && !t.counts.any() && !t.pending.has[colExpert]
}

// source brings the rows to arrays. It closes the pool where it fails.
func (t *rows) source(format string) (*arrays, error) {
	s := newArrays(format, t.name)
	s.closers = append(s.closers, t.pool.close)
	err := t.flush()
	switch {
	case err != nil:
	case len(t.layers) > 0 && t.counts.any():
		err = fmt.Errorf("%s holds choices of tokens and counts of experts: keep one of them, by --where column=value", t.name)
	case t.counts.any():
		err = t.counts.source(s)
	case len(t.layers) == 0:
		err = fmt.Errorf("%s holds no record", t.name)
	default:
		err = t.fill(s)
	}
	if err != nil {
		t.pool.close()
		return nil, err
	}
	return s, nil
}

func (t *rows) fill(s *arrays) error {
	numbers := slices.Sorted(maps.Keys(t.layers))
	lead := t.lead
	first := slices.IndexFunc(numbers, func(n int) bool { return t.layers[n] == lead })
	var ids, weights, logits, scores []segment
	for _, n := range numbers {
		l := t.layers[n]
		switch {
		case l.tokens != lead.tokens:
			return fmt.Errorf("%s has %d tokens in layer %d, but %d in layer %d: every layer must list the same tokens, so the file may be cut off", t.name, l.tokens, n, lead.tokens, numbers[first])
		case l.hash != lead.hash:
			return fmt.Errorf("%s lists other tokens in layer %d than in layer %d, or in another order: sort each layer's rows alike", t.name, n, numbers[first])
		case l.k != lead.k || l.experts != lead.experts:
			return fmt.Errorf("%s has %d ids and %d scores a token in layer %d, but %d and %d in layer %d", t.name, l.k, l.experts, n, lead.k, lead.experts, numbers[first])
		}
		ids = append(ids, segment{l.ids, 0, l.tokens * l.k})
		weights = append(weights, segment{l.weights, 0, l.tokens * l.k})
		logits = append(logits, segment{l.logits, 0, l.tokens * l.experts})
		scores = append(scores, segment{l.scores, 0, l.tokens * l.experts})
	}
	L, T := len(numbers), lead.tokens
	whole := func(get func(l *layerRows) int64, want int) bool {
		for _, l := range t.layers {
			if get(l) != int64(want) {
				return false
			}
		}
		return want > 0
	}
	for _, x := range []struct {
		name     string
		width    int
		size     int
		dtype    npz.DType
		segments []segment
		bytes    func(l *layerRows) int64
	}{
		{"topk_ids", lead.k, 2, npz.Int16, ids, func(l *layerRows) int64 { return l.ids.size }},
		{"topk_weights", lead.k, 4, npz.Float32, weights, func(l *layerRows) int64 { return l.weights.size }},
		{"logits", lead.experts, 4, npz.Float32, logits, func(l *layerRows) int64 { return l.logits.size }},
		{"scores", lead.experts, 4, npz.Float32, scores, func(l *layerRows) int64 { return l.scores.size }},
	} {
		some := slices.ContainsFunc(numbers, func(n int) bool { return x.bytes(t.layers[n]) > 0 })
		switch {
		case whole(x.bytes, T*x.width*x.size):
			s.list[x.name] = &array{[]int{L, T, x.width}, x.dtype, x.segments}
		case some && x.name == "topk_ids":
			return fmt.Errorf("%s has %s at some tokens only: want them at every token", t.name, x.name)
		case some:
			s.note("%s is left out: it is given at some tokens only", x.name)
		}
	}
	for _, x := range []struct {
		name string
		get  func(l *layerRows) []place
	}{{"logits", func(l *layerRows) []place { return l.places }}, {"hidden", func(l *layerRows) []place { return l.hidden }}} {
		if err := t.sidecars(s, x.name, numbers, x.get); err != nil {
			return err
		}
	}
	if t.hasLayer {
		t.layerNumbers(s, numbers)
	}
	t.perToken(s, T)
	if t.renamed {
		s.note("scores as many as the ids were read as their weights")
	}
	if t.short > 0 {
		s.note("rows with fewer than %d experts: %d; what they lack counts as padding", lead.k, t.short)
	}
	return nil
}

// sidecars adds an array whose layers lie in pieces in sidecar files.
func (t *rows) sidecars(s *arrays, name string, numbers []int, get func(l *layerRows) []place) error {
	width, some, whole := 0, false, true
	var segments []segment
	for _, n := range numbers {
		l := t.layers[n]
		count := 0
		for _, p := range get(l) {
			some = true
			if width == 0 {
				width = p.width
			}
			if p.width != width {
				return fmt.Errorf("%s has %s of width %d and %d", t.name, name, p.width, width)
			}
			count += p.n
			segments = append(segments, p.segment)
		}
		whole = whole && count == l.tokens*width
	}
	switch {
	case some && whole:
		s.list[name] = &array{[]int{len(numbers), t.lead.tokens, width}, bfloat16, segments}
	case some:
		s.note("%s is left out: it is given at some records only", name)
	}
	return nil
}

// layerNumbers adds the numbers of the layers in the model.
func (t *rows) layerNumbers(s *arrays, numbers []int) {
	p := t.pool.spool()
	mtp := false
	for i, n := range numbers {
		if n >= mtpLayers { // numbered on from the decoder's last
			mtp = true
			n = i
			if i > 0 {
				n = t.number(numbers, i-1) + 1
			}
		}
		p.int32(int32(n))
	}
	if mtp {
		s.note("layers of multi-token prediction come last and are numbered on from the decoder's")
	}
	s.list["layers"] = &array{[]int{len(numbers)}, npz.Int32, []segment{{p, 0, len(numbers)}}}
	noteLayers(s, numbers)
}

func (t *rows) number(numbers []int, i int) int {
	back := 0
	for i > 0 && numbers[i] >= mtpLayers {
		i--
		back++
	}
	if numbers[i] >= mtpLayers {
		return back
	}
	return numbers[i] + back
}

// noteLayers says where slots are not the numbers of layers.
func noteLayers(s *arrays, numbers []int) {
	if len(numbers) > 0 && numbers[0] > 0 {
		s.note("slot 0 is layer %d of the model: the layers before it are dense or were not recorded", numbers[0])
	}
}

// perToken adds what is known of the tokens themselves.
func (t *rows) perToken(s *arrays, tokens int) {
	if t.tokenIDs.size == int64(tokens)*4 {
		s.list["token_id"] = &array{[]int{tokens}, npz.Int32, []segment{{t.tokenIDs, 0, tokens}}}
	}
	switch {
	case t.domain.size != int64(tokens)*2:
	case len(t.domains) >= 256:
		s.note("domains are left out: there are more than 256")
	default:
		s.list["domain"] = &array{[]int{tokens}, npz.Int16, []segment{{t.domain, 0, tokens}}}
		s.note("domains are numbered in the order of the file: %s", enumerate(t.domainNames))
	}
	t.begin()
	switch n := int(t.lengths.size / 4); {
	case t.mixed:
		s.note("tokens of different sequences are interleaved: sequences are not known")
	case t.keyed || t.numbered:
		s.list["seq_lens"] = &array{[]int{n}, npz.Int32, []segment{{t.lengths, 0, n}}}
		if !t.keyed {
			s.note("a sequence begins where the token's index does not rise")
		}
	}
	if t.routed {
		s.note("routed experts of a request cover its tokens but the last, which no router saw")
	}
}

func enumerate(names []string) string {
	var b strings.Builder
	for i, n := range names {
		if i == 20 {
			fmt.Fprintf(&b, ", ... (%d in all)", len(names))
			break
		}
		if i > 0 {
			b.WriteString(", ")
		}
		if len(n) > 40 {
			n = n[:40] + "..."
		}
		fmt.Fprintf(&b, "%d %s", i, strings.ToValidUTF8(n, "?"))
	}
	return b.String()
}
