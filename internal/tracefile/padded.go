package tracefile

import (
	"errors"
	"slices"

	"evenkeel/internal/npz"
)

// padded are ids of sequences that were padded to one length, [sequences, tokens, layers, k], as trainers of reinforcement
// learning hold them, with what belongs to them.
type padded struct {
	*arrays
	sequences, length, layers, k int

	weights, mask, token bool // there is such an array, of the same sequences

	padding int32 // an id that stands for no expert, besides -1; 0: none
}

// unpad lines up the tokens of padded ids and leaves the padding out: tokens that attention_mask excludes, and those that
// chose no expert in any layer. Whoever pads with an id that is an expert's too, 0 mostly, writes it k times, as no token
// chooses; so k equal ids are none.
func (s *arrays) unpad(o Options) error {
	a := s.list["topk_ids"]
	p := &padded{s, a.shape[0], a.shape[1], a.shape[2], a.shape[3], false, false, false, int32(o.Padding)}
	if slices.Min(a.shape) < 1 || p.layers > 4096 || p.k > 4096 {
		return s.errorf("topk_ids", "shape is %v: want [tokens, k], [layers, tokens, k] or, padded, [sequences, tokens, layers, k], no dimension 0", a.shape)
	}
	if s.list["seq_lens"] != nil {
		return s.errorf("topk_ids", "shape is %v, which has the sequences: leave out seq_lens", a.shape)
	}
	if s.list["token_id"] == nil && s.list["input_ids"] != nil {
		s.list["token_id"] = s.list["input_ids"]
	}
	flat := []int{p.sequences, p.length}
	for _, other := range []struct {
		name  string
		shape []int
		has   *bool
	}{{"topk_weights", a.shape, &p.weights}, {"attention_mask", flat, &p.mask}, {"token_id", flat, &p.token}} {
		if b := s.list[other.name]; b != nil {
			if !slices.Equal(b.shape, other.shape) {
				return s.errorf(other.name, "shape is %v: want %v, as topk_ids has %v", b.shape, other.shape, a.shape)
			}
			*other.has = true
		}
	}
	return p.lineUp()
}

// unpadded are the arrays of the tokens that are kept.
type unpadded struct {
	ids, weights    []*spool // of the layers
	token, lengths  *spool
	tokens, masked  int // kept, and left out by the mask
	without, lonely int // left out since they chose no expert; sequences of which nothing is kept
}

func (p *padded) lineUp() error {
	pool := newPool()
	p.closers = append(p.closers, pool.close)
	out := &unpadded{token: pool.spool(), lengths: pool.spool()}
	for range p.layers {
		out.ids, out.weights = append(out.ids, pool.spool()), append(out.weights, pool.spool())
	}
	piece := max(1, 1<<16/(p.layers*p.k)) // tokens
	for sequence := range p.sequences {
		before := out.tokens
		for from := 0; from < p.length; from += piece {
			at := sequence*p.length + from
			if err := p.read(out, at, at+min(piece, p.length-from)); err != nil {
				return err
			}
		}
		out.lengths.int32(int32(out.tokens - before))
		if out.tokens == before {
			out.lonely++
		}
	}
	if out.tokens == 0 {
		return p.errorf("topk_ids", "no token of it chose an expert: all is padding")
	}
	return p.replace(out)
}

// read takes the tokens from..to−1.
func (p *padded) read(out *unpadded, from, to int) error {
	row := p.layers * p.k
	ids, err := p.Int32s("topk_ids", from*row, to*row)
	if err != nil {
		return err
	}
	var weights, mask []float32
	var token []int32
	if p.weights {
		weights, err = p.Float32s("topk_weights", from*row, to*row)
	}
	if p.mask && err == nil {
		mask, err = p.Float32s("attention_mask", from, to)
	}
	if p.token && err == nil {
		token, err = p.Int32s("token_id", from, to)
	}
	if err != nil {
		return err
	}
	for t := range to - from {
		chosen := ids[t*row : (t+1)*row]
		switch {
		case mask != nil && mask[t] == 0:
			out.masked++
			continue
		case !p.chose(chosen):
			out.without++
			continue
		}
		out.tokens++
		for i, id := range chosen {
			out.ids[i/p.k].int32(id)
			if weights != nil {
				out.weights[i/p.k].float32(weights[t*row+i])
			}
		}
		if token != nil {
			out.token.int32(token[t])
		}
	}
	return nil
}

// chose reports whether a token [layers][k] chose any expert, and sets what stands for none to -1.
func (p *padded) chose(ids []int32) (any bool) {
	for ; len(ids) > 0; ids = ids[p.k:] {
		layer := ids[:p.k]
		same := p.k > 1
		for i, id := range layer {
			if p.padding > 0 && id == p.padding {
				layer[i] = -1
			}
			same = same && id == layer[0]
		}
		for i := range layer {
			if same {
				layer[i] = -1
			}
			any = any || layer[i] >= 0
		}
	}
	return any
}

// replace puts what was kept in the place of the padded arrays.
func (p *padded) replace(out *unpadded) error {
	join := func(spools []*spool, d npz.DType) *array {
		a := &array{[]int{p.layers, out.tokens, p.k}, d, nil}
		for _, s := range spools {
			a.segments = append(a.segments, segment{s, 0, out.tokens * p.k})
		}
		return a
	}
	var failed error
	for _, s := range slices.Concat(out.ids, out.weights, []*spool{out.token, out.lengths}) {
		failed = errors.Join(failed, s.err)
	}
	if failed != nil {
		return failed
	}
	p.note("topk_ids of shape %v was read as padded, [sequences, tokens, layers, k]: %d tokens are left; out are %d by attention_mask and %d that chose no expert in any layer (padding, or the last of a sequence)",
		p.list["topk_ids"].shape, out.tokens, out.masked, out.without)
	if out.lonely > 0 {
		p.note("sequences of which nothing is left: %d", out.lonely)
	}
	p.list["topk_ids"] = join(out.ids, npz.Int32)
	if p.weights {
		p.list["topk_weights"] = join(out.weights, npz.Float32)
	}
	if p.token {
		p.list["token_id"] = &array{[]int{out.tokens}, npz.Int32, []segment{{out.token, 0, out.tokens}}}
	}
	p.list["seq_lens"] = &array{[]int{p.sequences}, npz.Int32, []segment{{out.lengths, 0, p.sequences}}}
	delete(p.list, "attention_mask")
	delete(p.list, "input_ids")
	return nil
}
