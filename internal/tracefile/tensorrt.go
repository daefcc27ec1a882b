package tracefile

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"evenkeel/internal/npz"
)

// statisticKey is the name of a tensor, "<iteration>_<layer>".
type statisticKey struct{ iteration, layer int }

// readTensorRT reads the statistics of TensorRT-LLM: the chosen ids where rank*_raw.safetensors have them, else the counts,
// summed over ranks.
func readTensorRT(folder string, files []string) (*arrays, error) {
	raw := slices.DeleteFunc(slices.Clone(files), func(f string) bool { return !strings.HasSuffix(f, "_raw.safetensors") })
	plain := slices.DeleteFunc(slices.Clone(files), func(f string) bool { return strings.HasSuffix(f, "_raw.safetensors") })
	if len(raw) > 0 {
		plain = nil
	}
	s := newArrays("TensorRT-LLM statistics", folder)
	s.files = slices.Concat(raw, plain)
	err := s.statistics(s.files, len(raw) > 0)
	if err != nil {
		s.Close()
		return nil, err
	}
	s.metaInfo(filepath.Join(folder, "meta_info.json"))
	return s, nil
}

// statistics opens the files of the ranks and joins their tensors.
func (s *arrays) statistics(files []string, raw bool) error {
	var ranks []map[statisticKey]*array
	iterations, layers := map[int]bool{}, map[int]bool{}
	for _, file := range files {
		f, err := os.Open(file)
		if err != nil {
			return unwrapPath(err)
		}
		s.closers = append(s.closers, f.Close)
		info, err := f.Stat()
		if err != nil {
			return unwrapPath(err)
		}
		t, err := readSafetensors(f, info.Size(), file)
		if err != nil {
			return err
		}
		rank := map[statisticKey]*array{}
		for _, name := range t.Names() {
			a, b, ok := strings.Cut(name, "_")
			iteration, err1 := strconv.Atoi(a)
			layer, err2 := strconv.Atoi(b)
			if !ok || err1 != nil || err2 != nil || iteration < 0 || layer < 0 || layer >= maxLayers {
				return fmt.Errorf("%s: tensor %s has another name than <iteration>_<layer>", file, clip(name))
			}
			a1 := t.list[name]
			if dims := map[bool]int{true: 2, false: 1}[raw]; len(a1.shape) != dims || a1.dtype.Float() || a1.dtype == bfloat16 {
				return fmt.Errorf("%s: tensor %s has shape %v: want %d dimensions of integers", file, clip(name), a1.shape, dims)
			}
			rank[statisticKey{iteration, layer}] = a1
			iterations[iteration], layers[layer] = true, true
		}
		ranks = append(ranks, rank)
	}
	if len(layers) == 0 {
		return fmt.Errorf("%s holds no tensor", s.name)
	}
	steps, numbers := slices.Sorted(maps.Keys(iterations)), slices.Sorted(maps.Keys(layers))
	s.note("%d ranks were read", len(ranks))
	s.numberLayers(numbers)
	if raw {
		return s.joinChoices(ranks, steps, numbers)
	}
	return s.sumCounts(ranks, steps, numbers)
}

func (s *arrays) joinChoices(ranks []map[statisticKey]*array, steps, layers []int) error {
	joined := &array{}
	tokens := 0
	for i, layer := range layers {
		count := 0
		for _, step := range steps {
			for _, rank := range ranks {
				a := rank[statisticKey{step, layer}]
				if a == nil {
					continue
				}
				if joined.shape == nil {
					joined.shape, joined.dtype = []int{len(layers), 0, a.shape[1]}, a.dtype
				}
				if a.dtype != joined.dtype || a.shape[1] != joined.shape[2] {
					return fmt.Errorf("%s: tensor %d_%d has shape %v of %s, others have %d experts per token of %s", s.name, step, layer, a.shape, a.dtype, joined.shape[2], joined.dtype)
				}
				count += a.shape[0]
				joined.segments = append(joined.segments, a.segments...)
			}
		}
		if i > 0 && count != tokens {
			return fmt.Errorf("%s has %d tokens in layer %d, but %d in layer %d: every layer must list the same tokens", s.name, count, layer, tokens, layers[0])
		}
		tokens = count
	}
	joined.shape[1] = tokens
	s.list["topk_ids"] = joined
	return nil
}

func (s *arrays) sumCounts(ranks []map[statisticKey]*array, steps, layers []int) error {
	experts := 0
	p := newPool()
	s.closers = append(s.closers, p.close)
	out := p.spool()
	for _, step := range steps {
		for _, layer := range layers {
			var sum []int64
			for _, rank := range ranks {
				a := rank[statisticKey{step, layer}]
				if a == nil {
					continue
				}
				one := newArrays("", s.name)
				name := fmt.Sprintf("%d_%d", step, layer)
				one.list[name] = a
				n, err := one.Int32s(name, 0, a.len())
				if err != nil {
					return err
				}
				if experts == 0 {
					experts = len(n)
				}
				if len(n) != experts || experts == 0 {
					return fmt.Errorf("%s: tensor %s counts %d experts, others %d", s.name, name, len(n), experts)
				}
				if sum == nil {
					sum = make([]int64, experts)
				}
				for e, v := range n {
					if v < 0 {
						return fmt.Errorf("%s: tensor %s counts %d at expert %d: a count cannot be negative", s.name, name, v, e)
					}
					sum[e] += int64(v)
				}
			}
			if sum == nil {
				return fmt.Errorf("%s has no tensor %d_%d: every iteration must have every layer", s.name, step, layer)
			}
			for _, v := range sum {
				out.int64(v)
			}
		}
	}
	if out.err != nil {
		return out.err
	}
	s.list["counts"] = &array{[]int{len(steps), len(layers), experts}, npz.Int64, []segment{{out, 0, len(steps) * len(layers) * experts}}}
	return nil
}

// metaInfo notes what the file beside the statistics says of the model.
func (s *arrays) metaInfo(name string) {
	var meta struct {
		Experts int `json:"num_experts"`
		TopK    int `json:"num_experts_per_token"`
	}
	text, err := readSmall(name)
	if err == nil {
		err = json.Unmarshal(text, &meta)
	}
	switch {
	case err != nil:
		s.note("meta_info.json says nothing: %s", strings.Join(strings.Fields(unwrapPath(err).Error()), " "))
	case meta.Experts > 0 && meta.TopK > 0:
		s.note("meta_info.json says %d experts, %d per token", meta.Experts, meta.TopK)
	}
}

func readSmall(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	const most = 1 << 20
	text, err := io.ReadAll(io.LimitReader(f, most+1))
	if len(text) > most {
		err = errors.New("it has more than 1 MiB")
	}
	return text, err
}
