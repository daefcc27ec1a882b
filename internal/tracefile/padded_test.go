package tracefile

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"testing"

	"evenkeel/internal/npz"
)

// rl are two sequences of four places, 2 layers, 2 of 8 experts, as [sequences, tokens, layers, k]: one padded on the right
// and one on the left, by 0 or by -1; the last real token of each has no ids, since no router saw it, and the second token of
// the first sequence chose no expert in layer 1.
func rl(pad int32) []int32 {
	return []int32{
		1, 2, 3, 4, 5, 6, 0, 0, pad, pad, pad, pad, pad, pad, pad, pad,
		pad, pad, pad, pad, 7, 1, 2, 3, 0, 1, 1, 0, pad, pad, pad, pad,
	}
}

func ints(name string, d npz.DType, shape []int, values ...int32) npz.Array {
	a := npz.Array{Name: name, DType: d, Shape: shape}
	for _, v := range values {
		if d == npz.Int32 {
			a.Data = binary.LittleEndian.AppendUint32(a.Data, uint32(v))
		} else {
			a.Data = append(a.Data, byte(v))
		}
	}
	return a
}

func archive(t testing.TB, list ...npz.Array) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := npz.Write(&b, list); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestPadded(t *testing.T) {
	shape, flat := []int{2, 4, 2, 2}, []int{2, 4}
	mask := ints("attention_mask", npz.Bool, flat, 1, 1, 1, 0, 0, 1, 1, 1)
	words := ints("input_ids", npz.Int32, flat, 10, 11, 12, 99, 99, 20, 21, 22)
	for name, c := range map[string]struct {
		file []byte
		o    Options
		note string
	}{
		"zeros":     {archive(t, ints("routed_experts", npz.Int32, shape, rl(0)...), words), Options{}, "out are 0 by attention_mask and 4 that chose"},
		"-1":        {archive(t, ints("routed_experts", npz.Int8, shape, rl(-1)...), words), Options{}, "out are 0 by attention_mask and 4 that chose"},
		"an id":     {archive(t, ints("topk_ids", npz.Uint8, shape, rl(255)...), words), Options{Padding: 255}, "4 tokens are left"},
		"a mask":    {archive(t, ints("routed_experts", npz.Int32, shape, rl(0)...), words, mask), Options{}, "out are 2 by attention_mask and 2 that chose"},
		"mapped":    {archive(t, ints("x", npz.Int32, shape, rl(0)...), words), Options{Map: []string{"topk_ids=x"}}, "4 tokens are left"},
		"no words":  {archive(t, ints("topk_ids", npz.Int32, shape, rl(0)...)), Options{}, "4 tokens are left"},
		"an array":  {archive(t, ints("arr_0", npz.Int32, shape, rl(0)...)), Options{}, "4 tokens are left"},
		"all empty": {archive(t, ints("topk_ids", npz.Int32, []int{3, 4, 2, 2}, append(rl(0), make([]int32, 16)...)...)), Options{}, "sequences of which nothing is left: 1"},
	} {
		s, err := openBytes(c.file, c.o)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		ids, err := s.Int32s("topk_ids", 0, 16)
		if want := []int32{1, 2, 5, 6, 7, 1, 0, 1, 3, 4, -1, -1, 2, 3, 1, 0}; err != nil || !slices.Equal(ids, want) {
			t.Errorf("%s: ids are %v, %v, want %v", name, ids, err, want)
		}
		h, _ := s.Header("seq_lens")
		lengths, err := s.Int32s("seq_lens", 0, h.Len())
		if err != nil || !slices.Equal(lengths[:2], []int32{2, 2}) {
			t.Errorf("%s: seq_lens are %v, %v", name, lengths, err)
		}
		if _, ok := s.Header("token_id"); ok {
			if token, err := s.Int32s("token_id", 0, 4); err != nil || !slices.Equal(token, []int32{10, 11, 20, 21}) {
				t.Errorf("%s: token_id is %v, %v", name, token, err)
			}
		} else if strings.Contains(string(c.file), "input_ids") {
			t.Errorf("%s: token_id is lost", name)
		}
		if notes := strings.Join(s.Notes(), "\n"); !strings.Contains(notes, c.note) {
			t.Errorf("%s: notes %q lack %q", name, notes, c.note)
		}
		s.Close()
	}
	for want, file := range map[string][]byte{
		"all is padding":              archive(t, ints("topk_ids", npz.Int32, []int{1, 2, 2, 2}, make([]int32, 8)...)),
		"no dimension 0":              archive(t, ints("topk_ids", npz.Int32, []int{1, 0, 2, 2})),
		"leave out seq_lens":          archive(t, ints("topk_ids", npz.Int32, shape, rl(0)...), ints("seq_lens", npz.Int32, []int{2}, 2, 2)),
		"shape is [8]: want [2 4]":    archive(t, ints("topk_ids", npz.Int32, shape, rl(0)...), ints("attention_mask", npz.Bool, []int{8}, 1, 1, 1, 1, 1, 1, 1, 1)),
		"shape is [2 2]: want [2 4],": archive(t, ints("topk_ids", npz.Int32, shape, rl(0)...), ints("token_id", npz.Int32, []int{2, 2}, 1, 2, 3, 4)),
	} {
		if _, err := openBytes(file, Options{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
}

// rllm sends the shape and base64 of raw ids.
func TestShapeAndBase64(t *testing.T) {
	want := []int32{1, 2, 5, 6, 3, 4, 7, 0}
	encode := func(size int) string {
		var b []byte
		for _, v := range []uint64{1, 2, 3, 4, 5, 6, 7, 0} {
			b = append(b, binary.LittleEndian.AppendUint64(nil, v)[:size]...)
		}
		return base64.StdEncoding.EncodeToString(b)
	}
	for _, size := range []int{1, 2, 4, 8} {
		for _, shape := range []string{`[2, 2, 2]`, `"[2, 2, 2]"`} {
			text := fmt.Sprintf(`{"id": 1, "routed_experts": [%s, %q]}`, shape, encode(size))
			s, err := openBytes([]byte(text), Options{})
			if err != nil {
				t.Errorf("%s: %v", text, err)
				continue
			}
			if ids, err := s.Int32s("topk_ids", 0, 8); err != nil || !slices.Equal(ids, want) {
				t.Errorf("%s: ids are %v, %v, want %v", text, ids, err, want)
			}
			s.Close()
		}
	}
	for text, want := range map[string]string{
		`{"routed_experts": ["[2, 2, 2]", "AAAA"]}`:                           "want [tokens, layers, k] ids of 1, 2, 4 or 8 bytes",
		`{"routed_experts": ["[2, 4]", "AAAAAAAAAAA="]}`:                      "routed experts of shape [2 4]",
		`{"routed_experts": ["[2, 0, 4]", ""]}`:                               "routed experts of shape [2 0 4]",
		`{"routed_experts": ["[2, -2, -2]", "AAAAAAAAAAA="]}`:                 "want [tokens, layers, k]",
		`{"routed_experts": ["[4294967296, 4294967296, 2]", "AAAAAAAAAAA="]}`: "want [tokens, layers, k]",
		`{"routed_experts": ["[2, 2, 2]", "?"]}`:                              "is no base64",
		`{"routed_experts": ["[2, 2, 2]", "AAAAAAAAAAA=", 1]}`:                "the end of the list of a shape and base64",
		`{"routed_experts": [[[[1, 2]]]]}`:                                    "write a record for each request",
	} {
		if err := read([]byte(text), Options{}); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: error %v, want %q", text, err, want)
		}
	}
}

// ExFlow's array has a column for each layer; only its user can tell that from one with a column for each choice.
func TestColumnsAreLayers(t *testing.T) {
	file := archive(t, ints("arr_0", npz.Int8, []int{3, 2}, 1, 2, 3, 4, 5, 6))
	for layers, want := range map[int]string{0: "--set layers=2 that its columns are layers", 2: "[tokens, layers]"} {
		s, err := openBytes(file, Options{Layers: layers})
		if err != nil {
			t.Fatal(err)
		}
		ids, err := s.Int32s("topk_ids", 0, 6)
		expected := []int32{1, 2, 3, 4, 5, 6}
		if layers > 0 {
			expected = []int32{1, 3, 5, 2, 4, 6}
		}
		if notes := strings.Join(s.Notes(), "\n"); err != nil || !slices.Equal(ids, expected) || !strings.Contains(notes, want) {
			t.Errorf("layers %d: %v, %v, %q", layers, ids, err, notes)
		}
		s.Close()
	}
	if _, err := openBytes(archive(t, ints("topk_ids", npz.Int8, []int{1, 3, 2}, 1, 2, 3, 4, 5, 6)), Options{Layers: 3}); err == nil || !strings.Contains(err.Error(), "leave layers out") {
		t.Errorf("error %v", err)
	}
	if _, err := openBytes(file, Options{Layers: 3}); err == nil || !strings.Contains(err.Error(), "of which it has 2") {
		t.Errorf("error %v", err)
	}
}
