package tracefile

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// expected is what testdata/make.py put into every file: 2 layers, 5 tokens, 8 experts, 3 chosen.
type expected struct {
	IDs     []int32   `json:"topk_ids"`
	Weights []float32 `json:"topk_weights"`
	Logits  []float32 `json:"logits"`
}

func readExpected(t testing.TB) (x expected) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", "expected.json"))
	if err == nil {
		err = json.Unmarshal(text, &x)
	}
	if err != nil {
		t.Fatal(err)
	}
	return x
}

// counts are the choices of the first three tokens and of the last two, as [2,2,8].
func (x expected) counts() []int32 {
	n := make([]int32, 2*2*8)
	for i, id := range x.IDs {
		layer, token := i/15, i%15/3
		if id >= 0 {
			n[(token/3*2+layer)*8+int(id)]++
		}
	}
	return n
}

type formatCase struct {
	file   string
	o      Options
	format string
	arrays string // name and shape of each
	note   string // part of one
}

var formatCases = []formatCase{
	{"choices.npz", Options{}, "npz", "layers[2] seq_lens[2] token_id[5] topk_ids[2 5 3] topk_weights[2 5 3]", ""},
	{"vllm.npz", Options{}, "npz", "topk_ids[2 5 3]", "[tokens, layers, k]"},
	{"ids.npy", Options{}, "npy", "topk_ids[2 5 3]", "was read as topk_ids"},
	{"logits.npy", Options{}, "npy", "logits[2 5 8]", "was read as logits"},
	{"logits.npy", Options{Map: []string{"scores=arr_0"}}, "npy", "arr_0[2 5 8] scores[2 5 8]", ""},
	{"choices.safetensors", Options{}, "safetensors", "logits[2 5 8] topk_ids[2 5 3] topk_weights[2 5 3]", "router_logits was read as logits"},
	{"choices.safetensors", Options{Map: []string{"logits=router_logits"}}, "safetensors", "logits[2 5 8] router_logits[2 5 8] topk_ids[2 5 3] topk_weights[2 5 3]", ""},
	{"layers.safetensors", Options{Map: []string{"logits=model.layers.{layer}.router"}}, "safetensors", "layers[2] logits[2 5 8] model.layers.3.router[5 8] model.layers.7.router[5 8]", ""},
	{"bfloat16.safetensors.gz", Options{}, "safetensors", "logits[2 5 8]", ""},
	{"router-logits.pt", Options{}, "torch", "logits[2 5 8]", "was read as logits"},
	{"ordered.pt", Options{}, "torch", "logits[2 5 8]", "router_logits was read as logits"},
	{"vllm-patch.jsonl", Options{}, "JSON", "layers[2] seq_lens[2] topk_ids[2 5 3] topk_weights[2 5 3]", "records without routing: 1, left out, the first at line 1"},
	{"mixtral.jsonl", Options{}, "JSON", "domain[5] layers[2] seq_lens[2] topk_ids[2 5 3] topk_weights[2 5 3]", "0 mbpp, 1 gsm8k"},
	{"mixtral.jsonl", Options{Map: []string{"topk_ids=experts", "layer=layer", "token=token_idx", "topk_weights=gating_probs", "domain=problem_id"}}, "JSON",
		"domain[5] layers[2] seq_lens[2] topk_ids[2 5 3] topk_weights[2 5 3]", "a sequence begins where"},
	{"moe-balance.jsonl", Options{}, "JSON", "layers[2] seq_lens[2] topk_ids[2 5 3] topk_weights[2 5 3]", "slot 0 is layer 3"},
	{"moe-cache-lab.jsonl", Options{}, "JSON", "layers[2] seq_lens[2] topk_ids[2 5 3]", "rows with fewer than 3 experts: 1;"},
	{"moe-beyond.csv", Options{}, "CSV", "layers[2] seq_lens[2] topk_ids[2 5 3]", ""},
	{"megatron", Options{}, "Megatron-LM router trace", "hidden[2 5 4] layers[2] logits[2 5 8] topk_ids[2 5 3]", "2 ranks were read"},
	{"sglang-stat.pt", Options{}, "SGLang expert distribution, mode stat", "counts[2 2 8] layers[2]", "slot 0 is layer 3"},
	{"sglang-per-pass", Options{}, "SGLang expert distribution, mode per_pass", "counts[2 2 8] layers[2]", "physical experts were mapped"},
	{"sglang-per-token.pt", Options{}, "SGLang expert distribution, mode per_token", "layers[2] seq_lens[2] token_id[5] topk_ids[2 5 3]", "physical experts were mapped"},
	{"sglang-twins", Options{}, "SGLang expert distribution, mode per_token", "layers[2] seq_lens[3] token_id[5] topk_ids[2 5 3]", "2 records of ranks that saw the same tokens"},
	{"sglang-routed.jsonl", Options{Layers: 2, TopK: 3}, "JSON", "seq_lens[2] topk_ids[2 5 3]", "its tokens but the last"},
	{"vllm-routed.jsonl", Options{}, "JSON", "seq_lens[2] topk_ids[2 5 3]", "its tokens but the last"},
	{"load-history.json", Options{}, "JSON", "counts[2 2 8]", ""},
	{"tensorrt", Options{}, "TensorRT-LLM statistics", "counts[2 2 8] layers[2]", "8 experts, 3 per token"},
	{"tensorrt-raw", Options{}, "TensorRT-LLM statistics", "layers[2] topk_ids[2 5 3]", "2 ranks were read"},
	{"expert_weights_3.txt.gz", Options{TopK: 3}, "ESFT expert weights", "layers[1] seq_lens[2] topk_ids[1 5 3] topk_weights[1 5 3]", "slot 0 is layer 3"},
	{"counts.csv", Options{Map: []string{"step=domain"}, Where: []string{"model=mine"}}, "CSV", "counts[2 2 8] layers[2]", ""},
}

func TestFormats(t *testing.T) {
	want := readExpected(t)
	for _, c := range formatCases {
		t.Run(c.file, func(t *testing.T) {
			s, err := Open(filepath.Join("testdata", c.file), c.o)
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			if s.Format() != c.format {
				t.Errorf("format %q, want %q", s.Format(), c.format)
			}
			if got := describe(s); got != c.arrays {
				t.Errorf("arrays %s, want %s", got, c.arrays)
			}
			if notes := strings.Join(s.Notes(), "\n"); !strings.Contains(notes, c.note) {
				t.Errorf("notes %q lack %q", notes, c.note)
			}
			checkArrays(t, s, want)
		})
	}
}

// describe lists the arrays with their shapes.
func describe(s Source) string {
	var b strings.Builder
	for i, name := range s.Names() {
		h, _ := s.Header(name)
		if i > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(name)
		shape, _ := json.Marshal(h.Shape)
		b.Write(bytes.ReplaceAll(shape, []byte(","), []byte(" ")))
	}
	return b.String()
}

// checkArrays compares what a source has with what make.py wrote, the whole of it and a part from the middle.
func checkArrays(t *testing.T, s Source, want expected) {
	ints := map[string][]int32{"topk_ids": want.IDs, "counts": want.counts(), "token_id": {11, 12, 13, 14, 15}, "seq_lens": {3, 2}, "layers": {3, 7}}
	floats := map[string][]float32{"topk_weights": want.Weights, "logits": want.Logits, "scores": want.Logits}
	for _, name := range s.Names() {
		h, _ := s.Header(name)
		n := h.Len()
		if x, ok := ints[name]; ok && n <= len(x) {
			got, err := s.Int32s(name, 0, n)
			if err != nil || !slices.Equal(got, x[:n]) {
				t.Errorf("%s is %v, %v, want %v", name, got, err, x[:n])
			}
			if got, err := s.Int32s(name, n/2, n); err != nil || !slices.Equal(got, x[n/2:n]) {
				t.Errorf("%s from %d is %v, %v, want %v", name, n/2, got, err, x[n/2:n])
			}
		}
		if x, ok := floats[name]; ok {
			got, err := s.Float32s(name, 1, n)
			if err != nil || !slices.Equal(got, x[1:n]) {
				t.Errorf("%s from 1 is %v, %v, want %v", name, got, err, x[1:n])
			}
		}
		if _, err := s.Float32s(name, 0, n+1); err == nil {
			t.Errorf("%s could be read past its end", name)
		}
	}
}
