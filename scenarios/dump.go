package scenarios

import (
	"fmt"
	"math"
	"slices"

	"evenkeel/internal/npz"
	"evenkeel/moe"
)

// Dump is one layer of a router's trace in memory. Tokens are in the order of the file.
//
// As an npz file it holds logits [T,E] or scores [T,E] (used as they are), or only topk_ids [T,K], or only counts
// [steps,L,E]; and, where known, hidden [T,d], router [E,d], bias [E], topk_weights [T,K], token_id [T], domain [T], seq_lens
// [sequences], layers [L]. Those per layer may have a leading dimension L. Other formats are brought to the same arrays: see
// package tracefile.
type Dump struct {
	Layers, Tokens, Experts, TopK, Width int       // TopK 0 where the file does not say, Width 0 without hidden, Tokens 0 of counts
	Level                                string    // scores (every expert's), choices (only who was chosen) or counts (only how often)
	Scores                               []float32 // logits, or scores if Stored, [T][E]
	Hidden                               []float32 // [T][d]
	Router                               []float32 // [E][d]
	Bias                                 []float32 // [E]
	Choices                              []int32   // topk_ids [T][K], -1 where fewer than K were chosen
	Weights                              []float32 // topk_weights [T][K], where the level is choices and the file has them
	Counts                               []int64   // [Steps][E], where the level is counts
	Steps                                int       // of counts, 0 otherwise
	LayerNumbers                         []int32   // number in the model of each of the Layers; nil where unknown
	Token, Domain                        []int32
	Sequences                            []moe.Span // nil where the file does not say
	Notes                                []string

	stored bool
}

// Levels of detail of a trace.
const (
	LevelScores    = "scores"
	LevelChoices   = "choices"
	LevelCounts    = "counts"
	LevelCompleted = "completed choices" // choices whose unseen scores are assumed: see Reading.Complete
)

// arraysByName is what a dump is read from.
type arraysByName interface {
	Names() []string
	Header(array string) (npz.Header, bool)
	Float32s(array string, from, to int) ([]float32, error)
	Int32s(array string, from, to int) ([]int32, error)
}

// Domains returns the number of domains, 0 where unknown.
func (d *Dump) Domains() int {
	if d.Domain == nil {
		return 0
	}
	return int(slices.Max(d.Domain)) + 1
}

// dumpReader collects a dump from the arrays of one file.
type dumpReader struct {
	*Dump
	file  arraysByName
	name  string
	layer int
	err   error
}

// readDump reads one layer of a trace file.
func readDump(file arraysByName, name string, layer int) (*Dump, error) {
	r := &dumpReader{Dump: &Dump{Layers: 1}, file: file, name: name, layer: layer}
	r.shape()
	r.readScores()
	r.readChoices()
	r.readWeights()
	r.readLatent()
	r.readTokens()
	r.readCounts()
	return r.Dump, r.err
}

func (r *dumpReader) fail(format string, args ...any) {
	if r.err == nil {
		r.err = fmt.Errorf("%s: %s", r.name, fmt.Sprintf(format, args...))
	}
}

// shape finds the level of detail and the number of layers and tokens.
func (r *dumpReader) shape() {
	_, logits := r.file.Header("logits")
	_, scores := r.file.Header("scores")
	_, ids := r.file.Header("topk_ids")
	_, counts := r.file.Header("counts")
	switch {
	case logits && scores:
		r.fail("it holds both logits and scores: keep one of them")
		return
	case logits:
		r.Level = LevelScores
		r.dims("logits")
	case scores:
		r.Level, r.stored = LevelScores, true
		r.dims("scores")
	case ids:
		r.Level = LevelChoices
		r.dims("topk_ids")
	case counts:
		r.Level = LevelCounts
		r.dims("counts")
	default:
		r.fail("it holds none of logits, scores, topk_ids and counts: name an array of %v by --map, such as --map logits=NAME", r.file.Names())
		return
	}
	if r.err == nil && (r.layer < 0 || r.layer >= r.Layers) {
		r.fail("layer %d does not exist: the file has layers 0 to %d", r.layer, r.Layers-1)
	}
}

// dims takes the layers and tokens from the array that leads.
func (r *dumpReader) dims(array string) {
	h, _ := r.file.Header(array)
	if array == "counts" {
		if len(h.Shape) == 2 { // of one layer
			h.Shape = []int{h.Shape[0], 1, h.Shape[1]}
		}
		if len(h.Shape) == 3 {
			h.Shape = []int{h.Shape[1], h.Shape[0], h.Shape[2]}
		}
	}
	switch len(h.Shape) {
	case 2:
		r.Tokens = h.Shape[0]
	case 3:
		r.Layers, r.Tokens = h.Shape[0], h.Shape[1]
	default:
		r.fail("%s has shape %v: want [tokens, experts] or [layers, tokens, experts]", array, h.Shape)
		return
	}
	last := h.Shape[len(h.Shape)-1]
	switch {
	case r.Tokens < 1 || r.Tokens > math.MaxInt32 || r.Layers < 1 || last < 1:
		r.fail("%s has shape %v: every dimension must be at least 1", array, h.Shape)
	case array == "topk_ids":
		r.TopK = last
	case array == "counts" && last >= 2 && last <= moe.MaxExperts:
		r.Experts, r.Steps, r.Tokens = last, r.Tokens, 0
	case last < 2 || last > moe.MaxExperts:
		r.fail("%s has %d experts: want 2 to %d", array, last, moe.MaxExperts)
	default:
		r.Experts = last
	}
}

// slot returns the last two dimensions of a per-layer array and the element at which the wanted layer begins.
func (r *dumpReader) slot(array string) (rows, cols, from int, ok bool) {
	h, exists := r.file.Header(array)
	if !exists || r.err != nil {
		return 0, 0, 0, false
	}
	switch n := len(h.Shape); {
	case n == 3 && h.Shape[0] == r.Layers:
		return h.Shape[1], h.Shape[2], r.layer * h.Shape[1] * h.Shape[2], true
	case n == 2 && r.Layers == 1:
		return h.Shape[0], h.Shape[1], 0, true
	}
	r.fail("%s has shape %v, which does not fit %d layers", array, h.Shape, r.Layers)
	return 0, 0, 0, false
}

// table reads a per-layer array of floats with the given shape (0: any).
func (r *dumpReader) table(array string, rows, cols int, rowName, colName string) ([]float32, int) {
	n, m, from, ok := r.slot(array)
	if !ok {
		return nil, 0
	}
	if n != rows || cols != 0 && m != cols || m == 0 {
		r.fail("%s has %d×%d numbers in a layer: want %d %s × %s", array, n, m, rows, rowName, colName)
		return nil, 0
	}
	x, err := r.file.Float32s(array, from, from+n*m)
	if err != nil {
		r.err = err
		return nil, 0
	}
	for i, v := range x {
		if v-v != 0 { // NaN or infinite
			r.fail("%s of layer %d is %v at %s %d, %s %d: every number must be finite", array, r.layer, v,
				singular(rowName), i/m, singular(colName), i%m)
			return nil, 0
		}
	}
	return x, m
}

func singular(plural string) string { return plural[:len(plural)-1] }

func (r *dumpReader) readScores() {
	if r.Level != LevelScores || r.err != nil {
		return
	}
	array := "logits"
	if r.stored {
		array = "scores"
	}
	r.Scores, _ = r.table(array, r.Tokens, r.Experts, "tokens", "experts")
	for i, v := range r.Scores {
		if r.stored && v < 0 {
			r.fail("scores of layer %d is %v at token %d, expert %d: scores cannot be negative; store logits instead", r.layer, v, i/r.Experts, i%r.Experts)
			return
		}
	}
}

func (r *dumpReader) readChoices() {
	if r.Level == LevelCounts {
		return
	}
	rows, k, from, ok := r.slot("topk_ids")
	if !ok {
		return
	}
	if rows != r.Tokens {
		r.fail("topk_ids has %d tokens, but %s has %d", rows, r.Level, r.Tokens)
		return
	}
	ids, err := r.file.Int32s("topk_ids", from, from+rows*k)
	if err != nil {
		r.err = err
		return
	}
	r.TopK, r.Choices = k, ids
	if r.Level == LevelChoices {
		r.Experts = max(2, int(slices.Max(ids))+1)
		r.Notes = append(r.Notes, fmt.Sprintf("the number of experts is taken from the largest id, %d", r.Experts-1))
	}
	if k > r.Experts {
		r.fail("topk_ids has %d choices per token, but there are %d experts: drop the columns that hold only padding", k, r.Experts)
		return
	}
	for i, e := range ids {
		if e >= 0 && slices.Contains(ids[i-i%k:i], e) {
			r.fail("topk_ids of layer %d has expert %d twice at token %d: the chosen experts of a token are distinct", r.layer, e, i/k)
			return
		}
		if e < -1 || int(e) >= r.Experts || r.Experts > moe.MaxExperts {
			r.fail("topk_ids of layer %d is %d at token %d, choice %d: want 0 to %d, or -1 for padding", r.layer, e, i/k, i%k,
				min(r.Experts, moe.MaxExperts)-1)
			return
		}
	}
}

// readCounts reads the counts of a layer, and the numbers of all layers.
func (r *dumpReader) readCounts() {
	if h, ok := r.file.Header("layers"); ok && r.err == nil {
		if h.Len() != r.Layers {
			r.fail("layers has %d numbers, but there are %d layers", h.Len(), r.Layers)
			return
		}
		r.LayerNumbers, r.err = r.file.Int32s("layers", 0, r.Layers)
	}
	if r.Level != LevelCounts || r.err != nil {
		return
	}
	r.Counts = make([]int64, 0, r.Steps*r.Experts)
	for step := range r.Steps {
		from := (step*r.Layers + r.layer) * r.Experts
		n, err := r.file.Int32s("counts", from, from+r.Experts)
		if err != nil {
			r.err = err
			return
		}
		for e, v := range n {
			if v < 0 {
				r.fail("counts of layer %d is %d at step %d, expert %d: a count cannot be negative", r.layer, v, step, e)
				return
			}
			r.Counts = append(r.Counts, int64(v))
		}
	}
}

// readWeights reads the weights of the chosen.
func (r *dumpReader) readWeights() {
	if _, ok := r.file.Header("topk_weights"); !ok || r.Level != LevelChoices {
		return
	}
	r.Weights, _ = r.table("topk_weights", r.Tokens, r.TopK, "tokens", "choices")
	for i, w := range r.Weights {
		if w < 0 {
			r.fail("topk_weights of layer %d is %v at token %d, choice %d: a weight cannot be negative", r.layer, w, i/r.TopK, i%r.TopK)
			return
		}
	}
}

// readLatent reads the hidden vectors and what belongs to them, and brings the vectors to an RMS near 1.
func (r *dumpReader) readLatent() {
	if r.Level == LevelCounts {
		return
	}
	r.Hidden, r.Width = r.table("hidden", r.Tokens, 0, "tokens", "widths")
	if r.Hidden != nil {
		r.Router, _ = r.table("router", r.Experts, r.Width, "experts", "widths")
		r.normalise()
	}
	if h, ok := r.file.Header("bias"); ok && r.err == nil && r.Level == LevelScores {
		if h.Len() != r.Layers*r.Experts {
			r.fail("bias has %d numbers: want %d experts in each of %d layers", h.Len(), r.Experts, r.Layers)
			return
		}
		r.Bias, r.err = r.file.Float32s("bias", r.layer*r.Experts, (r.layer+1)*r.Experts)
		for e, b := range r.Bias {
			if math.IsNaN(float64(b)) || math.IsInf(float64(b), 0) {
				r.fail("bias of layer %d is %v at expert %d: want finite numbers", r.layer, b, e)
				return
			}
		}
	}
}

// normalise scales hidden vectors whose RMS lies outside 0.5 to 2 to an RMS of 1, and the router's weights the other way.
func (r *dumpReader) normalise() {
	var sum float64
	for _, v := range r.Hidden {
		sum += float64(float64(v) * float64(v))
	}
	rms := math.Sqrt(sum / float64(len(r.Hidden)))
	switch {
	case r.err != nil:
	case rms == 0:
		r.fail("hidden is zero everywhere: leave it out")
	case rms < 0.5 || rms > 2:
		for i := range r.Hidden {
			r.Hidden[i] = float32(float64(r.Hidden[i]) / rms)
		}
		for i := range r.Router {
			r.Router[i] = float32(float64(r.Router[i]) * rms)
		}
		r.Notes = append(r.Notes, fmt.Sprintf("hidden vectors had an RMS of %.3g and were scaled to 1", rms))
	}
}

func (r *dumpReader) readTokens() {
	if r.Level == LevelCounts {
		return
	}
	r.Token = r.perToken("token_id")
	r.Domain = r.perToken("domain")
	for t, d := range r.Domain {
		if d < 0 || d > 255 {
			r.fail("domain is %d at token %d: want 0 to 255", d, t)
			break
		}
	}
	if _, ok := r.file.Header("seq_lens"); !ok || r.err != nil {
		if r.err == nil {
			r.Notes = append(r.Notes, "the file has no seq_lens: the whole trace counts as one sequence")
		}
		return
	}
	h, _ := r.file.Header("seq_lens")
	lengths, err := r.file.Int32s("seq_lens", 0, h.Len())
	if err != nil {
		r.err = err
		return
	}
	at := 0
	for i, n := range lengths {
		if n < 0 {
			r.fail("seq_lens is %d at sequence %d: a length cannot be negative", n, i)
			return
		}
		if n > 0 {
			r.Sequences = append(r.Sequences, moe.Span{From: at, To: at + int(n)})
			at += int(n)
		}
	}
	if at != r.Tokens {
		r.fail("seq_lens sum to %d, but the trace has %d tokens", at, r.Tokens)
	}
}

func (r *dumpReader) perToken(array string) []int32 {
	h, ok := r.file.Header(array)
	if !ok || r.err != nil {
		return nil
	}
	if len(h.Shape) != 1 || h.Shape[0] != r.Tokens {
		r.fail("%s has shape %v: want [%d], one for each token", array, h.Shape, r.Tokens)
		return nil
	}
	x, err := r.file.Int32s(array, 0, h.Len())
	if err != nil {
		r.err = err
	}
	return x
}

// Stored reports whether Scores are scores as the router stored them, not logits.
func (d *Dump) Stored() bool { return d.stored }
