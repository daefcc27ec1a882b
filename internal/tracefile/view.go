package tracefile

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// arrayNames are the names that the columns of text formats have as arrays.
var arrayNames = map[int]string{colIDs: "topk_ids", colWeights: "topk_weights", colLogits: "logits", colScores: "scores", colTokenID: "token_id", colLoads: "counts"}

// view is a Source whose arrays have the names of this package, and whose ids have no padding but -1.
type view struct {
	*arrays
	padding int32 // an id that stands for no expert; 0: none
}

// Int32s implements Source.
func (v *view) Int32s(name string, from, to int) ([]int32, error) {
	x, err := v.arrays.Int32s(name, from, to)
	if name == "topk_ids" && v.padding > 0 {
		for i := range x {
			if x[i] == v.padding {
				x[i] = -1
			}
		}
	}
	return x, err
}

// newView names the arrays of a file and closes it where that fails.
func newView(s *arrays, o Options) (Source, error) {
	if !s.named && !s.columned && len(o.Map)+len(o.Where) > 0 {
		s.Close()
		return nil, fmt.Errorf("%s (%s) has nothing to map or to choose from: leave out --map and --where", s.name, s.format)
	}
	if s.named {
		if err := s.rename(o); err != nil {
			s.Close()
			return nil, err
		}
	}
	if h, ok := s.Header("layers"); ok && h.DType.Float() {
		s.Close()
		return nil, s.errorf("layers", "dtype is %s, want integers: the numbers of the layers", h.DType)
	}
	return &view{s, int32(min(o.Padding, 1<<31-1))}, nil
}

// rename gives the arrays of a format with names of its own the names of this package: as Options.Map says, else by what
// other programs call them, else, where there is a single array, by its type.
func (s *arrays) rename(o Options) error {
	m, _ := o.mapping()
	taken, renamed := map[string]bool{}, map[string]*array{}
	for _, name := range slices.Sorted(maps.Keys(m)) {
		column := m[name]
		if !slices.Contains(canonical, name) {
			return fmt.Errorf("%s holds arrays, not rows: --map %s=%s names a column of JSONL or CSV", s.name, name, column)
		}
		a := s.list[column]
		if strings.Contains(column, layerMark) {
			var err error
			if a, err = s.joinLayers(column); err != nil {
				return err
			}
		}
		if a == nil {
			return fmt.Errorf("%s has no array %q, which --map names: it has %q", s.name, column, s.Names())
		}
		renamed[name] = a // below, after all have been found: names may be swapped
		taken[column] = true
	}
	maps.Copy(s.list, renamed)
	if len(o.Where) > 0 {
		return fmt.Errorf("%s holds arrays, not rows: --where picks rows of JSONL or CSV", s.name)
	}
	for _, name := range s.Names() {
		known := arrayNames[aliases[strings.ToLower(name)]]
		if known == "" || taken[name] || s.list[known] != nil || (known == "logits" || known == "scores") && (s.list["logits"] != nil || s.list["scores"] != nil) {
			continue
		}
		a := s.list[name]
		if strings.EqualFold(name, "routed_experts") && len(a.shape) == 3 {
			if err := s.transpose(name); err != nil {
				return err
			}
			a = s.list[name]
			s.note("routed_experts was read as [tokens, layers, k]")
		}
		delete(s.list, name)
		s.list[known] = a
		s.note("array %s was read as %s", name, known)
	}
	if a := s.list["arr_0"]; a != nil && len(s.list) == 1 && len(a.shape) >= 2 {
		known := "topk_ids"
		if a.dtype.Float() || a.dtype == bfloat16 {
			known = "logits"
		}
		delete(s.list, "arr_0")
		s.list[known] = a
		if known == "topk_ids" && len(a.shape) == 2 && o.Layers > 0 {
			return s.columnsAreLayers(o.Layers)
		}
		otherwise := "--map NAME=arr_0 says otherwise"
		if known == "topk_ids" && len(a.shape) == 2 {
			otherwise += fmt.Sprintf(", and --set layers=%d that its columns are layers, of one expert each", a.shape[1])
		}
		s.note("the single array, of shape %v, was read as %s; %s", a.shape, known, otherwise)
	}
	if a := s.list["topk_ids"]; a != nil && len(a.shape) == 4 {
		if err := s.unpad(o); err != nil {
			return err
		}
	}
	for _, leading := range []string{"logits", "scores", "topk_ids"} {
		if a := s.list[leading]; a != nil && o.Layers > 0 && len(a.shape) == 3 && a.shape[0] != o.Layers {
			return s.errorf(leading, "shape is %v, of %d layers, and layers is %d: leave layers out", a.shape, a.shape[0], o.Layers)
		}
	}
	return nil
}

// columnsAreLayers turns topk_ids [tokens, layers] of one expert per token, as ExFlow writes them, into [layers, tokens, 1].
func (s *arrays) columnsAreLayers(layers int) error {
	a := s.list["topk_ids"]
	if a.shape[1] != layers {
		return s.errorf("topk_ids", "shape is %v: --set layers=%d says that its columns are layers, of which it has %d", a.shape, layers, a.shape[1])
	}
	s.note("the single array, of shape %v, was read as topk_ids [tokens, layers], one expert each", a.shape)
	s.list["topk_ids"] = &array{[]int{a.shape[0], layers, 1}, a.dtype, a.segments}
	return s.transpose("topk_ids")
}

// layerMark stands for the number of a layer in the names of arrays that a file has one of for each layer.
const layerMark = "{layer}"

// joinLayers makes one array of those whose names fit a pattern such as model.layers.{layer}.logits, in the order of their
// layers.
func (s *arrays) joinLayers(pattern string) (*array, error) {
	before, after, _ := strings.Cut(pattern, layerMark)
	found := map[int]*array{}
	for name, a := range s.list {
		middle, ok := strings.CutPrefix(name, before)
		if !ok {
			continue
		}
		if middle, ok = strings.CutSuffix(middle, after); !ok {
			continue
		}
		if n, err := strconv.Atoi(middle); err == nil && n >= 0 && n < maxLayers && strconv.Itoa(n) == middle {
			found[n] = a
		}
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("%s has no array of a name like %q, which --map asks for: it has %q", s.name, pattern, s.Names())
	}
	numbers := slices.Sorted(maps.Keys(found))
	first := found[numbers[0]]
	joined := &array{shape: append([]int{len(numbers)}, first.shape...), dtype: first.dtype}
	for _, n := range numbers {
		a := found[n]
		if a.dtype != first.dtype || !slices.Equal(a.shape, first.shape) || len(a.shape) > 2 {
			return nil, fmt.Errorf("%s: the arrays of %q have shapes %v in layer %d and %v in layer %d, or other types: want [tokens, n], the same in every layer", s.name, pattern, first.shape, numbers[0], a.shape, n)
		}
		joined.segments = append(joined.segments, a.segments...)
	}
	if s.list["layers"] == nil {
		s.numberLayers(numbers)
	}
	return joined, nil
}

// transpose turns [tokens, layers, k] into [layers, tokens, k].
func (s *arrays) transpose(name string) error {
	a := s.list[name]
	tokens, layers, k := a.shape[0], a.shape[1], a.shape[2]
	if layers < 1 || layers > 4096 || k < 1 {
		return s.errorf(name, "shape is %v: want [tokens, layers, k]", a.shape)
	}
	p := newPool()
	s.closers = append(s.closers, p.close)
	out := make([]*spool, layers)
	var segments []segment
	for l := range out {
		out[l] = p.spool()
		segments = append(segments, segment{out[l], 0, tokens * k})
	}
	row := k * sizeOf(a.dtype)
	layer, in := 0, 0
	err := s.scan(name, a, 0, a.len(), func(_ int, b []byte) error {
		for len(b) > 0 {
			n := min(len(b), row-in)
			if _, err := out[layer].Write(b[:n]); err != nil {
				return err
			}
			b = b[n:]
			if in += n; in == row {
				in, layer = 0, (layer+1)%layers
			}
		}
		return nil
	})
	s.list[name] = &array{[]int{layers, tokens, k}, a.dtype, segments}
	return err
}
