package tracefile

import (
	"archive/zip"
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"evenkeel/internal/npz"
)

// readTorch reads what torch.save wrote: SGLang's expert distribution recorder in its three modes, or a tensor, a list of
// tensors (one for each layer) or a dict of tensors by name.
func readTorch(r io.ReaderAt, size int64, z *zip.Reader, name string) (*arrays, error) {
	v, err := openTorch(r, size, z, name)
	if err != nil {
		return nil, err
	}
	if d, ok := v.(*pickleDict); ok && isSGLang(d) {
		return newSGLang(name, []recording{{name, d}})
	}
	s := newArrays("torch", name)
	s.named = true
	switch v := v.(type) {
	case *tensor:
		s.list["arr_0"] = v.array(v.shape...)
	case *pickleDict:
		for _, key := range v.keys {
			if t, ok := v.values[key].(*tensor); ok {
				s.list[fmt.Sprint(key)] = t.array(t.shape...)
			}
		}
	case *pickleList:
		err = s.stack(v.all())
	case *pickleTuple:
		err = s.stack(v.items)
	}
	if err == nil && len(s.list) == 0 {
		err = fmt.Errorf("%s holds a %s without tensors: want SGLang's expert distribution, a tensor, a list of tensors or a dict of them", name, kindOf(v))
	}
	return s, err
}

// stack makes one array of tensors [tokens, n], one for each layer.
func (s *arrays) stack(items []any) error {
	var a *array
	for i, v := range items {
		t, ok := v.(*tensor)
		if !ok {
			return fmt.Errorf("%s holds a list with a %s at %d: want tensors, one for each layer", s.name, kindOf(v), i)
		}
		if a == nil {
			a = &array{shape: append([]int{len(items)}, t.shape...), dtype: t.dtype}
			if len(t.shape) > 3 {
				return fmt.Errorf("%s holds tensors of %d dimensions: want [tokens, experts]", s.name, len(t.shape))
			}
		}
		if t.dtype != a.dtype || !slices.Equal(t.shape, a.shape[1:]) {
			return fmt.Errorf("%s holds tensors of different shapes or types, %v at 0 and %v at %d: every layer must have the same tokens", s.name, a.shape[1:], t.shape, i)
		}
		a.segments = append(a.segments, t.segment)
	}
	if a != nil {
		s.list["arr_0"] = a
	}
	return nil
}

// recording is one file of the recorder.
type recording struct {
	name string
	dict *pickleDict
}

func isSGLang(d *pickleDict) bool {
	_, stat := d.values["logical_count"].(*tensor)
	_, records := d.values["records"].(*pickleList)
	return stat || records
}

// readSGLang reads the files of a folder, one for each rank.
func readSGLang(files []string) (*arrays, error) {
	var list []recording
	var closers []func() error
	fail := func(err error) (*arrays, error) {
		for _, c := range closers {
			c()
		}
		return nil, err
	}
	for _, file := range files {
		f, err := os.Open(file)
		if err != nil {
			return fail(unwrapPath(err))
		}
		closers = append(closers, f.Close)
		info, err := f.Stat()
		if err != nil {
			return fail(unwrapPath(err))
		}
		z, err := zip.NewReader(f, info.Size())
		if err != nil {
			return fail(fmt.Errorf("%s: not a file of torch.save, or cut off: %w", file, err))
		}
		if !slices.ContainsFunc(z.File, func(f *zip.File) bool { return strings.HasSuffix(f.Name, "/data.pkl") }) {
			return fail(fmt.Errorf("%s: not a file of torch.save: want one with data.pkl", file))
		}
		v, err := openTorch(f, info.Size(), z, file)
		if err != nil {
			return fail(err)
		}
		d, ok := v.(*pickleDict)
		if !ok || !isSGLang(d) {
			return fail(fmt.Errorf("%s is not of SGLang's expert distribution recorder: name a single file", file))
		}
		list = append(list, recording{file, d})
	}
	s, err := newSGLang(filepath.Dir(files[0]), list)
	if err != nil {
		return fail(err)
	}
	s.closers = append(s.closers, closers...)
	s.files = files
	return s, nil
}

// maxRanks bounds the ranks of one pass.
const maxRanks = 4096

// passRecord is what one rank recorded in one forward pass.
type passRecord struct {
	file       string
	pass, rank int64
	key        string
	counts     *tensor // [L, physical experts]
	ids        *tensor // [L, tokens, 8]
	input      []int64
	lengths    []int64 // of the sequences of a prefill; nil in a decode pass
}

func newSGLang(name string, list []recording) (*arrays, error) {
	if t, ok := list[0].dict.values["logical_count"].(*tensor); ok {
		if len(list) > 1 {
			return nil, fmt.Errorf("%s: mode stat writes one file, summed over ranks; there are %d, of different times: name one", name, len(list))
		}
		if len(t.shape) != 3 || t.dtype.Float() {
			return nil, fmt.Errorf("%s: logical_count has shape %v: want [steps, layers, experts] of integers", name, t.shape)
		}
		s := newArrays("SGLang expert distribution, mode stat", name)
		s.list["counts"] = t.array(t.shape...)
		return s, s.dropIdle()
	}
	var all []passRecord
	var placement *tensor
	for _, f := range list {
		if t, ok := f.dict.values["last_physical_to_logical_map"].(*tensor); ok {
			placement = t
		}
		records, _ := f.dict.values["records"].(*pickleList)
		if records == nil {
			return nil, fmt.Errorf("%s has no records, as the other files have", f.name)
		}
		for i, v := range records.all() {
			r, err := newPassRecord(v)
			if err != nil {
				return nil, fmt.Errorf("%s: record %d: %w", f.name, i, err)
			}
			r.file = f.name
			all = append(all, r)
		}
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("%s holds no record", name)
	}
	slices.SortStableFunc(all, func(a, b passRecord) int {
		return cmp.Or(cmp.Compare(a.pass, b.pass), cmp.Compare(a.rank, b.rank), cmp.Compare(a.key, b.key))
	})
	for i := range all[1:] {
		if a, b := &all[i], &all[i+1]; a.pass == b.pass && a.rank == b.rank && a.key == b.key {
			return nil, fmt.Errorf("%s: rank %d recorded pass %d twice, in %s and %s", name, a.rank, a.pass, filepath.Base(a.file), filepath.Base(b.file))
		}
	}
	g := &sglang{name: name, records: all, ranks: len(list)}
	if err := g.readPlacement(placement); err != nil {
		return nil, err
	}
	if all[0].ids != nil {
		return g.perToken()
	}
	return g.perPass()
}

func newPassRecord(v any) (r passRecord, err error) {
	d, ok := v.(*pickleDict)
	if !ok {
		return r, fmt.Errorf("it is a %s: want a dict", kindOf(v))
	}
	if r.pass, ok = d.values["forward_pass_id"].(int64); !ok {
		return r, errors.New("it has no forward_pass_id")
	}
	r.rank, _ = d.values["rank"].(int64)
	r.key, _ = d.values["gatherer_key"].(string)
	r.counts, _ = d.values["global_physical_count"].(*tensor)
	r.ids, _ = d.values["topk_ids_of_layer"].(*tensor)
	if l, ok := d.values["input_ids"].(*pickleList); ok {
		r.input = l.ints
	}
	if l, ok := d.values["extend_seq_lens"].(*pickleList); ok {
		r.lengths = l.ints
	}
	switch {
	case r.ids != nil && (len(r.ids.shape) != 3 || r.ids.dtype.Float()):
		err = fmt.Errorf("topk_ids_of_layer has shape %v: want [layers, tokens, k] of integers", r.ids.shape)
	case r.ids != nil && (r.ids.shape[0] > maxLayers || r.ids.shape[2] > maxID):
		err = fmt.Errorf("topk_ids_of_layer has shape %v: want at most %d layers and %d experts per token", r.ids.shape, maxLayers, maxID)
	case r.counts != nil && len(r.counts.shape) == 2 && (r.counts.shape[0] > maxLayers || r.counts.shape[1] > maxID):
		err = fmt.Errorf("global_physical_count has shape %v: want at most %d layers and %d experts", r.counts.shape, maxLayers, maxID)
	case r.ids == nil && r.counts == nil:
		err = errors.New("it has neither global_physical_count nor topk_ids_of_layer")
	case r.ids == nil && (len(r.counts.shape) != 2 || r.counts.dtype.Float()):
		err = fmt.Errorf("global_physical_count has shape %v: want [layers, physical experts] of integers", r.counts.shape)
	}
	return r, err
}

type sglang struct {
	name    string
	records []passRecord
	ranks   int
	// logical is [layers][physical] → logical expert; nil where the file has no map.
	logical  []int32
	physical int
	experts  int
}

// ints reads a whole tensor, which lies in the file and so is no larger than it.
func (t *tensor) ints(name string) ([]int32, error) {
	s := newArrays("", name)
	s.list["tensor"] = t.array(t.shape...)
	return s.Int32s("tensor", 0, t.n)
}

func (g *sglang) readPlacement(t *tensor) error {
	if t == nil {
		return nil
	}
	if len(t.shape) != 2 || t.dtype.Float() {
		return fmt.Errorf("%s: last_physical_to_logical_map has shape %v: want [layers, physical experts] of integers", g.name, t.shape)
	}
	m, err := t.ints(g.name)
	if err != nil {
		return err
	}
	for i, e := range m {
		if e < 0 || e > maxID {
			return fmt.Errorf("%s: last_physical_to_logical_map has %d at slot %d: want 0 to %d", g.name, e, i, maxID)
		}
		g.experts = max(g.experts, int(e)+1)
	}
	g.logical, g.physical = m, t.shape[1]
	return nil
}

// toLogical returns the logical expert of a physical one in a layer.
func (g *sglang) toLogical(layer int, e int32) (int32, error) {
	if g.logical == nil {
		return e, nil
	}
	i := layer*g.physical + int(e)
	if int(e) >= g.physical || i >= len(g.logical) {
		return 0, fmt.Errorf("%s: physical expert %d of layer %d is not in last_physical_to_logical_map, which has %d layers of %d", g.name, e, layer, len(g.logical)/max(1, g.physical), g.physical)
	}
	return g.logical[i], nil
}

func (g *sglang) note(s *arrays) {
	if g.ranks > 1 {
		s.note("%d files of ranks were read", g.ranks)
	} else {
		s.note("one file was read; where ranks wrote a file each, name their folder")
	}
	if g.logical != nil {
		s.note("physical experts were mapped to logical ones by the last map of the recording")
	}
}

// perPass sums the counts of the ranks of every forward pass.
func (g *sglang) perPass() (*arrays, error) {
	shape := g.records[0].counts
	if shape == nil {
		return nil, fmt.Errorf("%s mixes records of mode per_pass and per_token", g.name)
	}
	layers, experts := shape.shape[0], max(g.experts, shape.shape[1])
	if g.logical != nil {
		experts = g.experts
	}
	p := newPool()
	out := p.spool()
	fail := func(err error) (*arrays, error) {
		p.close()
		return nil, err
	}
	steps := 0
	if layers*experts > maxCells {
		return fail(fmt.Errorf("%s has %d layers of %d experts: too many", g.name, layers, experts))
	}
	sum := make([]int64, layers*experts)
	for i, r := range g.records {
		if r.counts == nil || !slices.Equal(r.counts.shape, shape.shape) {
			return fail(fmt.Errorf("%s: pass %d of rank %d has other layers or experts than the first record", g.name, r.pass, r.rank))
		}
		n, err := r.counts.ints(g.name)
		if err != nil {
			return fail(err)
		}
		for at, v := range n {
			if v < 0 {
				return fail(fmt.Errorf("%s: pass %d of rank %d counts %d: a count cannot be negative", g.name, r.pass, r.rank, v))
			}
			if v == 0 {
				continue
			}
			layer := at / shape.shape[1]
			e, err := g.toLogical(layer, int32(at%shape.shape[1]))
			if err != nil {
				return fail(err)
			}
			sum[layer*experts+int(e)] += int64(v)
		}
		if i+1 == len(g.records) || g.records[i+1].pass != r.pass {
			for _, v := range sum {
				out.int64(v)
			}
			clear(sum)
			steps++
		}
	}
	if out.err != nil {
		return fail(out.err)
	}
	s := newArrays("SGLang expert distribution, mode per_pass", g.name)
	s.closers = append(s.closers, p.close)
	s.list["counts"] = &array{[]int{steps, layers, experts}, npz.Int64, []segment{{out, 0, steps * layers * experts}}}
	g.note(s)
	if err := s.dropIdle(); err != nil {
		return fail(err)
	}
	return s, nil
}

// dropIdle leaves out layers that no step counts: dense ones.
func (s *arrays) dropIdle() error {
	a := s.list["counts"]
	steps, layers, experts := a.shape[0], a.shape[1], a.shape[2]
	if steps < 1 || layers < 1 || experts < 1 {
		return fmt.Errorf("%s has counts of shape %v: every dimension must be at least 1", s.name, a.shape)
	}
	busy := make([]bool, layers)
	for step := range steps {
		for l := range layers {
			if busy[l] {
				continue
			}
			n, err := s.Int32s("counts", (step*layers+l)*experts, (step*layers+l+1)*experts)
			if err != nil {
				return err
			}
			busy[l] = slices.ContainsFunc(n, func(v int32) bool { return v != 0 })
		}
	}
	var kept []int
	for l, b := range busy {
		if b {
			kept = append(kept, l)
		}
	}
	if len(kept) == 0 {
		return fmt.Errorf("%s counts no choice of any expert", s.name)
	}
	g := a.segments[0]
	if len(kept) < layers {
		var segments []segment
		for step := range steps {
			for _, l := range kept {
				segments = append(segments, segment{g.r, g.at + int64((step*layers+l)*experts*sizeOf(a.dtype)), experts})
			}
		}
		s.list["counts"] = &array{[]int{steps, len(kept), experts}, a.dtype, segments}
	}
	s.numberLayers(kept)
	return nil
}

// numberLayers adds the array of layer numbers.
func (s *arrays) numberLayers(numbers []int) {
	p := newPool().spool()
	for _, n := range numbers {
		p.int32(int32(n))
	}
	s.list["layers"] = &array{[]int{len(numbers)}, npz.Int32, []segment{{p, 0, len(numbers)}}}
	noteLayers(s, numbers)
}

// perToken lines the tokens of all passes up.
func (g *sglang) perToken() (*arrays, error) {
	kept, err := g.distinct()
	if err != nil {
		return nil, err
	}
	numbers, k, err := g.used(kept)
	if err != nil {
		return nil, err
	}
	p := newPool()
	s := newArrays("SGLang expert distribution, mode per_token", g.name)
	s.closers = append(s.closers, p.close)
	tokens := 0
	for _, r := range kept {
		tokens += r.ids.shape[1]
	}
	out := make([]*spool, len(numbers))
	var segments []segment
	for i := range out {
		out[i] = p.spool()
		segments = append(segments, segment{out[i], 0, tokens * k})
	}
	input, lengths := p.spool(), p.spool()
	decoded := false
	for _, r := range kept {
		if err := g.write(r, numbers, k, out); err != nil {
			p.close()
			return nil, err
		}
		for _, id := range r.input {
			input.int32(int32(id))
		}
		decoded = r.writeLengths(lengths) || decoded
	}
	for _, sp := range append(out, input, lengths) {
		if sp.err != nil {
			p.close()
			return nil, sp.err
		}
	}
	s.list["topk_ids"] = &array{[]int{len(numbers), tokens, k}, npz.Int16, segments}
	sequences := int(lengths.size / 4)
	s.list["seq_lens"] = &array{[]int{sequences}, npz.Int32, []segment{{lengths, 0, sequences}}}
	if input.size == int64(tokens)*4 {
		s.list["token_id"] = &array{[]int{tokens}, npz.Int32, []segment{{input, 0, tokens}}}
	}
	s.numberLayers(numbers)
	g.note(s)
	if same := len(g.records) - len(kept); same > 0 {
		s.note("%d records of ranks that saw the same tokens as another were left out", same)
	}
	if decoded {
		s.note("in passes that decode, each token counts as a sequence of its own")
	}
	return s, nil
}

// distinct returns the records without those of ranks that saw the same tokens in a pass as another.
func (g *sglang) distinct() (kept []passRecord, err error) {
	first := g.records[0].ids
	for i, r := range g.records {
		if r.ids == nil || r.ids.shape[0] != first.shape[0] || r.ids.shape[2] != first.shape[2] {
			return nil, fmt.Errorf("%s: pass %d of rank %d has other layers or columns than the first record", g.name, r.pass, r.rank)
		}
		if r.input != nil && len(r.input) != r.ids.shape[1] {
			return nil, fmt.Errorf("%s: pass %d of rank %d has %d input_ids, but the choices of %d tokens", g.name, r.pass, r.rank, len(r.input), r.ids.shape[1])
		}
		twin := false
		for j := i - 1; j >= 0 && g.records[j].pass == r.pass && !twin; j-- {
			twin = len(r.input) > 0 && slices.Equal(g.records[j].input, r.input)
			if i-j > maxRanks {
				return nil, fmt.Errorf("%s: more than %d ranks recorded pass %d", g.name, maxRanks, r.pass)
			}
		}
		if !twin {
			kept = append(kept, r)
		}
	}
	return kept, nil
}

// used returns the layers in which any token chooses, and how many of the recorded columns hold choices: the recorder
// always has 8.
func (g *sglang) used(records []passRecord) (layers []int, k int, err error) {
	shape := g.records[0].ids.shape
	used := make([]bool, shape[0])
	for _, r := range records {
		ids, err := r.ids.ints(g.name)
		if err != nil {
			return nil, 0, err
		}
		n, width := r.ids.shape[1], shape[2]
		for at, e := range ids {
			if e >= 0 {
				used[at/(n*width)] = true
				k = max(k, at%width+1)
			}
		}
	}
	for l, u := range used {
		if u {
			layers = append(layers, l)
		}
	}
	if len(layers) == 0 {
		return nil, 0, fmt.Errorf("%s holds no choice of any expert", g.name)
	}
	return layers, k, nil
}

// writeLengths appends the lengths of the record's sequences, and reports whether it is of a pass that decodes: each token
// is of another sequence then.
func (r *passRecord) writeLengths(out *spool) (decoded bool) {
	n, whole := int64(r.ids.shape[1]), int64(0)
	for _, x := range r.lengths {
		if x < 0 || x > n {
			whole = -1
			break
		}
		whole += x
	}
	if r.lengths != nil && whole == n {
		for _, x := range r.lengths {
			out.int32(int32(x))
		}
		return false
	}
	for range n {
		out.int32(1)
	}
	return true
}

// write appends the choices of a record.
func (g *sglang) write(r passRecord, numbers []int, k int, out []*spool) error {
	ids, err := r.ids.ints(g.name)
	if err != nil {
		return err
	}
	n, width := r.ids.shape[1], r.ids.shape[2]
	for i, layer := range numbers {
		for t := range n {
			at := (layer*n + t) * width
			for _, e := range ids[at : at+k] {
				if e < -1 || e > maxID {
					return fmt.Errorf("%s: pass %d of rank %d chooses expert %d in layer %d: want 0 to %d, or -1 for padding", g.name, r.pass, r.rank, e, layer, maxID)
				}
				if e >= 0 {
					if e, err = g.toLogical(layer, e); err != nil {
						return err
					}
				}
				out[i].int16(int16(e))
			}
		}
	}
	return nil
}
