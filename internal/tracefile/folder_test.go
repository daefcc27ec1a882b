package tracefile

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"evenkeel/internal/npz"
)

// folder copies files of testdata and adds others.
func folder(t *testing.T, from string, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	if from != "" {
		if err := os.CopyFS(dir, os.DirFS(filepath.Join("testdata", from))); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func mustOpen(t *testing.T, name string, o Options) Source {
	t.Helper()
	s, err := Open(name, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func TestMegatronSidecars(t *testing.T) {
	// One rank alone has its own tokens.
	s := mustOpen(t, filepath.Join("testdata", "megatron", "router_trace_rank1.jsonl"), Options{})
	if got := describe(s); got != "hidden[2 2 4] layers[2] logits[2 2 8] topk_ids[2 2 3]" {
		t.Errorf("rank 1 has %s", got)
	}
	// Without the file of logits the choices are left.
	dir := folder(t, "megatron", nil)
	if err := os.Remove(filepath.Join(dir, "logits_rank1.bin")); err != nil {
		t.Fatal(err)
	}
	s = mustOpen(t, dir, Options{})
	if got, notes := describe(s), strings.Join(s.Notes(), "\n"); got != "hidden[2 5 4] layers[2] topk_ids[2 5 3]" ||
		!strings.Contains(notes, "logits_rank1.bin: no such file") || !strings.Contains(notes, "logits is left out: it is given at some records only") {
		t.Errorf("without logits: %s, %s", got, notes)
	}
	// A file of logits that is cut off is an error.
	dir = folder(t, "megatron", map[string]string{"logits_rank1.bin": "short"})
	if _, err := Open(dir, Options{}); err == nil || !strings.Contains(err.Error(), "router_trace_rank1.jsonl:1: logits at offset 0 exceed the 5 bytes of logits_rank1.bin") {
		t.Errorf("logits cut off: %v", err)
	}
	for text, want := range map[string]string{
		`"logit_offset":-2,"logit_bytes":4,"logit_shape":[1,2]`:                           "logits at offset -2",
		`"logit_offset":0,"logit_bytes":4,"logit_shape":[2,1]`:                            "want [1, width]",
		`"logit_offset":0,"logit_bytes":8,"logit_shape":[1,2]`:                            "take 4 bytes of bfloat16, the record says 8",
		`"logit_offset":0,"logit_bytes":4,"logit_shape":[1,9223372036854775807]`:          "want [1, width]",
		`"logit_offset":9223372036854775807,"logit_bytes":4,"logit_shape":[1,2]`:          "exceed the 4 bytes",
		`"logit_offset":0,"logit_bytes":4,"logit_shape":"wide"`:                           "want a list",
		`"block":"mtp","mtp_idx":99,"logit_offset":0,"logit_bytes":4,"logit_shape":[1,2]`: "module 99",
	} {
		dir := folder(t, "", map[string]string{"router_trace_rank0.jsonl": `{"layer":0,"rank":0,"top_indices":[[0,1]],` + text + "}\n", "logits_rank0.bin": "1234"})
		if _, err := Open(dir, Options{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}

// Ranks of a pipeline hold different layers, and modules of multi-token prediction layers of their own.
func TestMegatronPipeline(t *testing.T) {
	dir := folder(t, "", map[string]string{
		"router_trace_rank0.jsonl":  `{"step":0,"block":"decoder","layer":1,"rank":0,"top_indices":[[0,1],[2,3]]}` + "\n",
		"router_trace_rank2.jsonl":  `{"step":0,"block":"decoder","layer":2,"rank":2,"top_indices":[[4,5],[6,7]]}` + "\n",
		"router_trace_rank10.jsonl": `{"step":0,"block":"mtp","mtp_idx":0,"layer":0,"rank":10,"top_indices":[[1,0],[3,2]]}` + "\n",
	})
	s := mustOpen(t, dir, Options{})
	ids, err := s.Int32s("topk_ids", 0, 12)
	if err != nil || !slices.Equal(ids, []int32{0, 1, 2, 3, 4, 5, 6, 7, 1, 0, 3, 2}) {
		t.Errorf("ids %v, %v", ids, err)
	}
	if n, err := s.Int32s("layers", 0, 3); err != nil || !slices.Equal(n, []int32{1, 2, 3}) {
		t.Errorf("layers %v, %v", n, err)
	}
}

func TestSGLangRanks(t *testing.T) {
	dir := folder(t, "sglang-per-pass", nil)
	one := filepath.Join(dir, "expert_distribution_recorder_1.5_0.pt")
	text, err := os.ReadFile(one)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "copy.pt"), text, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir, Options{}); err == nil || !strings.Contains(err.Error(), "rank 0 recorded pass 0 twice") {
		t.Errorf("a rank twice: %v", err)
	}
	if s := mustOpen(t, one, Options{}); describe(s) != "counts[2 2 8] layers[2]" {
		t.Errorf("one rank has %s", describe(s))
	}
	if _, err := Open(folder(t, "sglang-per-pass", map[string]string{"x.pt": "no zip"}), Options{}); err == nil || !strings.Contains(err.Error(), "x.pt: not a file of torch.save") {
		t.Errorf("another file: %v", err)
	}
}

func TestTensorRTFolders(t *testing.T) {
	cut, err := os.ReadFile(filepath.Join("testdata", "tensorrt", "rank1.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		file, text, want string
	}{
		"a rank cut off":     {"rank1.safetensors", string(cut[:len(cut)-8]), "do not lie within"},
		"another name":       {"rank1.safetensors", string(header(`{"first":{"dtype":"I32","shape":[8],"data_offsets":[0,32]}}`, 32)), "another name than <iteration>_<layer>"},
		"other experts":      {"rank1.safetensors", string(header(`{"40_3":{"dtype":"I32","shape":[4],"data_offsets":[0,16]}}`, 16)), "counts 4 experts, others 8"},
		"floats":             {"rank1.safetensors", string(header(`{"40_3":{"dtype":"F32","shape":[8],"data_offsets":[0,32]}}`, 32)), "of integers"},
		"a layer is missing": {"rank2.safetensors", string(header(`{"40_9":{"dtype":"I32","shape":[8],"data_offsets":[0,32]}}`, 32)), "has no tensor 41_9"},
		"raw of other width": {"rank3_raw.safetensors", string(header(`{"40_3":{"dtype":"I32","shape":[1],"data_offsets":[0,4]}}`, 4)), "want 2 dimensions"},
	} {
		if _, err := Open(folder(t, "tensorrt", map[string]string{c.file: c.text}), Options{}); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
	s := mustOpen(t, folder(t, "tensorrt", map[string]string{"meta_info.json": "{"}), Options{})
	if notes := strings.Join(s.Notes(), "\n"); !strings.Contains(notes, "meta_info.json says nothing") {
		t.Errorf("notes %s", notes)
	}
}

func TestFolders(t *testing.T) {
	if _, err := Open(t.TempDir(), Options{}); err == nil || !strings.Contains(err.Error(), "folder without a trace of several files") {
		t.Errorf("an empty folder: %v", err)
	}
	line := "1\t2\t3\t4\t\t0.3\t0.2\t0.3\t0.1\n"
	if _, err := Open(folder(t, "", map[string]string{"expert_weights_9.txt": line, "expert_weights_10.txt": line + line}), Options{TopK: 2}); err == nil ||
		!strings.Contains(err.Error(), "4 tokens in layer 10, but 2 in layer 9") {
		t.Errorf("layers of different length: %v", err)
	}
	s := mustOpen(t, folder(t, "", map[string]string{"expert_weights_9.txt": line, "expert_weights_10.txt": line}), Options{})
	if got := describe(s); got != "layers[2] seq_lens[1] topk_ids[2 1 4] topk_weights[2 1 4]" {
		t.Errorf("two layers of ESFT have %s", got)
	}
}

// The checksum covers all files that were read, wherever they lie.
func TestSum(t *testing.T) {
	sum := func(name string) string {
		t.Helper()
		x, err := Sum(mustOpen(t, name, Options{}).Files())
		if err != nil {
			t.Fatal(err)
		}
		return x
	}
	for _, c := range []struct{ folder, other, counts string }{
		{"tensorrt", "notes.txt", "rank1.safetensors"}, {"sglang-per-pass", "notes.txt", "expert_distribution_recorder_1.5_1.pt"}, {"megatron", "notes.txt", "logits_rank1.bin"},
	} {
		want := sum(filepath.Join("testdata", c.folder))
		if got := sum(folder(t, c.folder, map[string]string{c.other: "read them"})); got != want {
			t.Errorf("%s: another file beside it changes the sum", c.folder)
		}
		text, err := os.ReadFile(filepath.Join("testdata", c.folder, c.counts))
		if err != nil {
			t.Fatal(err)
		}
		text[len(text)-len(text)/3] ^= 1 // within the data
		dir := folder(t, c.folder, map[string]string{c.counts: string(text)})
		if s, err := Open(dir, Options{}); err == nil {
			s.Close()
			if sum(dir) == want {
				t.Errorf("%s: %s does not count", c.folder, c.counts)
			}
		}
	}
	if got, want := sum(filepath.Join("testdata", "megatron", "router_trace_rank0.jsonl")), sum(folder(t, "megatron", nil)+"/router_trace_rank0.jsonl"); got != want {
		t.Errorf("a rank and its copy have sums %s and %s", got, want)
	}
}

func TestInterrupt(t *testing.T) {
	stop := errors.New("stop")
	for _, name := range []string{"vllm-patch.jsonl", "moe-beyond.csv", "expert_weights_3.txt.gz", "megatron"} {
		if _, err := Open(filepath.Join("testdata", name), Options{Interrupt: func() error { return stop }}); !errors.Is(err, stop) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Rows that go to a temporary file read back as they were.
func TestSpoolBeyondMemory(t *testing.T) {
	p := newPool()
	defer p.close()
	p.held = poolMemory - 3*chunkSize
	a, b := p.spool(), p.spool()
	const n = 5 * chunkSize / 4
	for i := range n {
		a.int32(int32(i))
		b.float32(float32(-i))
	}
	if p.file == nil {
		t.Fatal("there is no temporary file")
	}
	s := newArrays("", "test")
	s.list["a"] = &array{[]int{n}, npz.Int32, []segment{{a, 0, n}}}
	s.list["b"] = &array{[]int{n}, npz.Float32, []segment{{b, 0, n}}}
	x, err := s.Int32s("a", 0, n)
	if err != nil {
		t.Fatal(err)
	}
	y, err := s.Float32s("b", 0, n)
	if err != nil {
		t.Fatal(err)
	}
	for i := range n {
		if x[i] != int32(i) || y[i] != float32(-i) {
			t.Fatalf("at %d: %d and %g", i, x[i], y[i])
		}
	}
}
