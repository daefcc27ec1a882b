package tracefile

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Columns that a record of JSONL or CSV may have.
const (
	colIDs = iota + 1
	colWeights
	colLogits
	colScores
	colLayer
	colToken
	colSequence
	colStep
	colDomain
	colTokenID
	colExpert
	colCount
	colLoads // a list of counts, one for each expert
	colMegatron
	colWhere
)

// aliases are the names that programs give to columns, without case and with _ for blanks.
var aliases = map[string]int{
	"topk_ids": colIDs, "experts": colIDs, "expert_ids": colIDs, "topk_experts": colIDs, "top_indices": colIDs, "topk_indices": colIDs,
	"selected_experts": colIDs, "routed_experts": colIDs, "activated_expert_ids": colIDs, "activated_experts": colIDs, "chosen_experts": colIDs, "expert_indices": colIDs,
	"topk_weights": colWeights, "gating_probs": colWeights, "expert_weights": colWeights, "topk_probs": colWeights, "routing_weights": colWeights, "gate_weights": colWeights, "topk_scores": colWeights,
	"logits": colLogits, "router_logits": colLogits, "gate_logits": colLogits,
	"scores": colScores, "router_probs": colScores, "router_scores": colScores,
	"layer": colLayer, "layer_id": colLayer, "layer_idx": colLayer, "layer_index": colLayer, "layer_slot": colLayer, "moe_layer": colLayer,
	"token": colToken, "token_idx": colToken, "token_index": colToken, "token_position": colToken, "token_pos": colToken, "position": colToken,
	"sequence": colSequence, "req_id": colSequence, "request_id": colSequence, "problem_id": colSequence, "seq_id": colSequence, "sample_id": colSequence, "prompt_id": colSequence, "batch_id": colSequence, "batch_number": colSequence,
	"step": colStep, "step_id": colStep, "iteration": colStep, "forward_pass_id": colStep,
	"domain": colDomain, "dataset": colDomain, "subject": colDomain,
	"token_id": colTokenID, "input_id": colTokenID,
	"expert": colExpert, "expert_id": colExpert,
	"count": colCount, "expert_count": colCount, "token_count": colCount,
	"counts": colLoads, "logical_expert_load": colLoads, "logical_count": colLoads, "expert_load": colLoads, "expert_counts": colLoads, "tokens_per_expert": colLoads,
}

// mapped are the columns that the names of Options.Map stand for.
var mapped = map[string]int{"topk_ids": colIDs, "topk_weights": colWeights, "logits": colLogits, "scores": colScores, "layer": colLayer, "token": colToken,
	"sequence": colSequence, "step": colStep, "domain": colDomain, "token_id": colTokenID, "expert": colExpert, "count": colCount, "counts": colLoads}

// columns finds what a column's name stands for.
type columns struct {
	known map[string]int    // by the name in the file
	given map[int]bool      // mapped by Options: no alias stands for these
	where map[string]string // column → value
	found map[string]bool   // names of Options that were met
	seen  []string          // the first names that were met, for errors
	alien string            // a name of Options.Map that no row has
}

func newColumns(o Options) *columns {
	c := &columns{known: map[string]int{}, given: map[int]bool{}, where: map[string]string{}, found: map[string]bool{}}
	m, _ := o.mapping() // checked when the trace was opened
	for _, name := range slices.Sorted(maps.Keys(m)) {
		n, column := mapped[name], m[name]
		if n == 0 {
			c.alien = name
			continue
		}
		c.known[column] = n
		c.given[n] = true
		c.found[column] = false
	}
	for _, w := range o.Where {
		column, value, _ := strings.Cut(w, "=")
		c.where[column] = value
		c.found[column] = false
	}
	return c
}

// find returns the column of a name, 0 for one that means nothing here. path is the name with those above it.
func (c *columns) find(path, name string) (int, bool) {
	_, filter := c.where[path]
	if n, ok := c.known[path]; ok {
		if _, asked := c.found[path]; asked {
			c.found[path] = true
		}
		return n, filter
	}
	n, ok := c.known[name]
	if ok && path != name {
		if _, asked := c.found[name]; asked {
			c.found[name] = true
		}
	} else if !ok {
		n = aliases[strings.ReplaceAll(strings.ToLower(strings.TrimSpace(name)), " ", "_")]
		if c.given[n] {
			n = 0
		}
	}
	if filter {
		c.found[path] = true
	}
	if len(c.known) < 10000 && len(path) < 256 {
		c.known[path] = n
		if len(c.seen) < 20 {
			c.seen = append(c.seen, path)
		}
	}
	return n, filter
}

// missing is an error if a column of Options was never met.
func (c *columns) missing(name string) error {
	if c.alien != "" {
		return fmt.Errorf("%s holds rows, which have no %s: --map %s=COLUMN is for arrays", name, c.alien, c.alien)
	}
	for _, column := range slices.Sorted(maps.Keys(c.found)) {
		if !c.found[column] {
			return fmt.Errorf("%s has no column %q, which --map or --where names: it has %q", name, column, c.seen)
		}
	}
	return nil
}

// record is one row of a text format: the choices of one token or several in one layer or all, or counts.
type record struct {
	ids                     numbers
	weights, logits, scores numbers
	loads                   numbers
	tokenID                 numbers
	layer, expert, count    int64
	token                   int64 // its place, where it is a number
	placed                  bool
	tokenKey, sequence      uint64
	step                    uint64
	domain                  string
	has                     [colWhere + 1]bool
	excluded                bool // by Options.Where
	matched                 int  // columns of Options.Where that have their value
	meta                    bool // says something of the trace, not of a token
	routed                  bool // ids came in base64, one request a record
	side                    sidecar
}

func (r *record) reset() {
	r.has = [colWhere + 1]bool{}
	r.matched, r.layer, r.tokenKey, r.sequence, r.step = 0, 0, 0, 0, 0
	r.excluded, r.meta, r.placed, r.routed, r.side = false, false, false, false, sidecar{}
}

// data reports whether the record holds more than names.
func (r *record) data() bool {
	return !r.meta && (r.choice() || r.has[colLoads] || r.has[colCount] || r.has[colExpert])
}

// choice reports whether the record holds choices or scores of tokens. Counts beside them are of the same tokens.
func (r *record) choice() bool { return r.has[colIDs] || r.has[colLogits] || r.has[colScores] }

// fnv is FNV-1a. Nothing depends on it but whether two keys are the same.
func fnv(b []byte) uint64 {
	h := uint64(14695981039346656037)
	for _, c := range b {
		h = (h ^ uint64(c)) * 1099511628211
	}
	return h
}
