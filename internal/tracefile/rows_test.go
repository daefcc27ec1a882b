package tracefile

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// What rows of the many shapes that collectors write come to.
func TestRows(t *testing.T) {
	lines := func(s ...string) string { return strings.Join(s, "\n") + "\n" }
	for _, c := range []struct {
		name, text string
		o          Options
		arrays     string
		ids        []int32
		notes      string
	}{
		{"one expert a token", lines(`{"experts":3}`, `{"experts":5}`), Options{}, "topk_ids[1 2 1]", []int32{3, 5}, ""},
		{"a line that describes the trace", lines(`{"type":"meta","experts":64}`, `{"type":"route","experts":[3,5]}`), Options{}, "topk_ids[1 1 2]", []int32{3, 5}, "records without routing: 1, left out, the first at line 1"},
		{"a row for each expert", lines("layer,token,expert,expert_weights", "0,0,3,0.5", "0,0,5,0.25", "1,0,4,0.5", "1,0,6,0.5", "0,1,1,1", "1,1,2,1"), Options{},
			"layers[2] seq_lens[1] topk_ids[2 2 2] topk_weights[2 2 2]", []int32{3, 5, 1, -1, 4, 6, 2, -1}, "rows with fewer than 2 experts: 2;"},
		{"a row for each expert, with token ids", lines("token_idx,token_id,expert", "0,17,3", "0,17,5", "1,18,1", "1,18,2"), Options{}, "seq_lens[1] token_id[2] topk_ids[1 2 2]", []int32{3, 5, 1, 2}, ""},
		{"a count beside choices", lines(`{"experts":[[3,5],[1,2]],"token_count":2,"expert_counts":[0,1,1,1,0,1]}`), Options{}, "topk_ids[1 2 2]", []int32{3, 5, 1, 2}, ""},
		{"scores of the chosen", lines(`{"experts":[3,5],"scores":[0.5,0.25]}`), Options{}, "topk_ids[1 1 2] topk_weights[1 1 2]", []int32{3, 5}, "scores as many as the ids"},
		{"scores of all", lines(`{"experts":[2],"scores":[0.5,0.25,0.75]}`), Options{}, "scores[1 1 3] topk_ids[1 1 1]", []int32{2}, ""},
		{"layers by name", lines(`{"layer":"model.layers.7.mlp","experts":[3]}`, `{"layer":"model.layers.3.mlp","experts":[5]}`), Options{}, "layers[2] topk_ids[2 1 1]", []int32{5, 3}, "slot 0 is layer 3"},
		{"tokens by their text", lines(`{"token":" the","experts":[3]}`, `{"token":" a","experts":[5]}`), Options{}, "topk_ids[1 2 1]", []int32{3, 5}, ""},
		{"problems of two data sets", lines(`{"dataset":"a","problem_id":0,"experts":[3]}`, `{"dataset":"a","problem_id":1,"experts":[3]}`, `{"dataset":"b","problem_id":0,"experts":[3]}`), Options{},
			"domain[3] seq_lens[3] topk_ids[1 3 1]", []int32{3, 3, 3}, "0 a, 1 b"},
		{"interleaved requests", lines(`{"req_id":"a","experts":[3]}`, `{"req_id":"b","experts":[3]}`, `{"req_id":"a","experts":[3]}`), Options{}, "topk_ids[1 3 1]", []int32{3, 3, 3}, "are interleaved"},
		{"a token for all layers", lines(`{"experts":[[3,5],[1,2]]}`, `{"experts":[[4,6],[7,8]]}`), Options{Layers: 2}, "topk_ids[2 2 2]", []int32{3, 5, 4, 6, 1, 2, 7, 8}, ""},
		{"a numbered token for all layers", lines(`{"token_idx":0,"experts":[[3,5],[1,2]]}`, `{"token_idx":1,"experts":[[4,6],[7,8]]}`), Options{}, "seq_lens[1] topk_ids[2 2 2]", []int32{3, 5, 4, 6, 1, 2, 7, 8}, ""},
		{"a request for all layers", lines(`{"routed_experts":[[[3,5],[1,2]],[[4,6],[7,8]]]}`), Options{}, "seq_lens[1] topk_ids[2 2 2]", []int32{3, 5, 4, 6, 1, 2, 7, 8}, ""},
		{"a list of records", "[\n " + `{"experts":[3,5]},` + "\n" + `{"experts":[4,6]}` + "\n]\n", Options{}, "topk_ids[1 2 2]", []int32{3, 5, 4, 6}, ""},
		{"records under a key", `{"records":[{"experts":[3,5]},{"experts":[4,6]}],"model":"x"}`, Options{}, "topk_ids[1 2 2]", []int32{3, 5, 4, 6}, ""},
		{"records within a record", `{"model":"x","layers":[{"layer":1,"experts":[3,5]},{"layer":2,"experts":[4,6]}]}`, Options{}, "layers[2] topk_ids[2 1 2]", []int32{3, 5, 4, 6}, ""},
		{"padding", lines(`{"experts":[3,64]}`, `{"experts":[-1,64]}`), Options{Padding: 64}, "topk_ids[1 2 2]", []int32{3, -1, -1, -1}, ""},
		{"numbers of every kind", lines(`{"experts":[3.0, 1e1],"topk_weights":[1e-2, 0.123456789012345678901]}`), Options{}, "topk_ids[1 1 2] topk_weights[1 1 2]", []int32{3, 10}, ""},
		{"a mark before the text", "\xef\xbb\xbf" + lines(`{"experts":[3]}`), Options{}, "topk_ids[1 1 1]", []int32{3}, ""},
		{"escapes", lines(`{"\u0065xperts":[3],"note":"a \"brace\" { [ \\"}`), Options{}, "topk_ids[1 1 1]", []int32{3}, ""},
		{"nulls", lines(`{"layer":null,"experts":[3],"topk_weights":null}`), Options{}, "topk_ids[1 1 1]", []int32{3}, ""},
		{"lists as NumPy prints them", "layer;experts\n0;[3 5]\n0;[ 4  6]\n", Options{}, "layers[1] topk_ids[1 2 2]", []int32{3, 5, 4, 6}, ""},
		{"tabs between cells", "layer\texperts\n0\t3 5\n0\t4|6\n", Options{}, "layers[1] topk_ids[1 2 2]", []int32{3, 5, 4, 6}, ""},
		{"where", lines(`{"phase":"prefill","experts":[3]}`, `{"phase":"decode","experts":[5]}`, `{"experts":[7]}`), Options{Where: []string{"phase=decode"}}, "topk_ids[1 1 1]", []int32{5}, ""},
		{"nested columns", lines(`{"a":{"ids":[3]},"b":{"ids":[5]}}`), Options{Map: []string{"topk_ids=b.ids"}}, "topk_ids[1 1 1]", []int32{5}, ""},
	} {
		s, err := openBytes([]byte(c.text), c.o)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if got := describe(s); got != c.arrays {
			t.Errorf("%s: %s, want %s", c.name, got, c.arrays)
		}
		h, _ := s.Header("topk_ids")
		if ids, err := s.Int32s("topk_ids", 0, h.Len()); err != nil || !slices.Equal(ids, c.ids) {
			t.Errorf("%s: ids %v, %v, want %v", c.name, ids, err, c.ids)
		}
		if notes := strings.Join(s.Notes(), "\n"); !strings.Contains(notes, c.notes) {
			t.Errorf("%s: notes %q lack %q", c.name, notes, c.notes)
		}
		if h, ok := s.Header("token_id"); ok {
			if ids, err := s.Int32s("token_id", 0, h.Len()); err != nil || !slices.Equal(ids, []int32{17, 18}) {
				t.Errorf("%s: token ids %v, %v", c.name, ids, err)
			}
		}
		s.Close()
	}
}

// An error of what the records say together names its place once.
func TestPlaceIsNamedOnce(t *testing.T) {
	name := filepath.Join(t.TempDir(), "d.jsonl")
	text := `{"layer":0,"topk_ids":[[1,2]]}` + "\n" + `{"layer":0,"topk_ids":[[1,2,3]]}` + "\n"
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	_, err := Open(name, Options{})
	if err == nil || !strings.HasPrefix(err.Error(), name+":2: a token has 3 experts") || strings.Count(err.Error(), name) != 1 {
		t.Errorf("%v", err)
	}
}
