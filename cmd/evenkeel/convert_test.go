package main

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"evenkeel/internal/npz"
	"evenkeel/internal/tracefile"
)

// traces is the folder of a trace of every format.
var traces = filepath.Join("..", "..", "internal", "tracefile", "testdata")

// A trace of any format and its conversion hold the same arrays.
func TestConvert(t *testing.T) {
	dir := t.TempDir()
	for _, c := range []struct {
		file  string
		flags []string
		want  string
	}{
		{"choices.npz", nil, "npz, a trace of choices, 2 layers, 5 tokens."},
		{"ids.npy", nil, "npy, a trace of choices, 2 layers, 5 tokens."},
		{"choices.safetensors", []string{"--map", "logits=router_logits"}, "safetensors, a trace of scores, 2 layers, 5 tokens."},
		{"bfloat16.safetensors.gz", nil, "safetensors, a trace of scores, 2 layers, 5 tokens."},
		{"ordered.pt", nil, "torch, a trace of scores, 2 layers, 5 tokens."},
		{"vllm-patch.jsonl", nil, "JSON, a trace of choices, 2 layers, 5 tokens."},
		{"mixtral.jsonl", []string{"--map", "topk_ids=experts", "--where", "dataset=mbpp"}, "JSON, a trace of choices, 2 layers, 3 tokens."},
		{"moe-beyond.csv", nil, "CSV, a trace of choices, 2 layers, 5 tokens."},
		{"megatron", nil, "Megatron-LM router trace, a trace of scores, 2 layers, 5 tokens."},
		{"sglang-stat.pt", nil, "SGLang expert distribution, mode stat, a trace of counts, 2 layers, 2 steps, 8 experts."},
		{"sglang-routed.jsonl", []string{"--set", "layers=2", "--set", "topk=3"}, "JSON, a trace of choices, 2 layers, 5 tokens."},
		{"load-history.json", nil, "JSON, a trace of counts, 2 layers, 2 steps, 8 experts."},
		{"tensorrt-raw", nil, "TensorRT-LLM statistics, a trace of choices, 2 layers, 5 tokens."},
		{"expert_weights_3.txt.gz", []string{"--set", "topk=3"}, "ESFT expert weights, a trace of choices, 1 layer, 5 tokens."},
	} {
		out := filepath.Join(dir, strings.ReplaceAll(c.file, ".", "-")+".npz")
		code, printed, stderr := evenkeel(t, append([]string{"convert", filepath.Join(traces, c.file), "--out", out}, c.flags...)...)
		if code != 0 || stderr != "" || !strings.Contains(printed, c.want) {
			t.Errorf("%s: exit %d, printed %q and %q, want %q", c.file, code, printed, stderr, c.want)
			continue
		}
		o := tracefile.Options{}
		for i := 0; i < len(c.flags); i += 2 {
			switch c.flags[i] {
			case "--map":
				o.Map = append(o.Map, c.flags[i+1])
			case "--where":
				o.Where = append(o.Where, c.flags[i+1])
			default:
				o.Layers, o.TopK = 2, 3
			}
		}
		sameArrays(t, filepath.Join(traces, c.file), o, out)
	}
	left, err := filepath.Glob(filepath.Join(dir, ".*"))
	if err != nil || len(left) > 0 {
		t.Errorf("temporary files were left: %v, %v", left, err)
	}
}

func sameArrays(t *testing.T, name string, o tracefile.Options, converted string) {
	t.Helper()
	a, err := tracefile.Open(name, o)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	b, err := tracefile.Open(converted, tracefile.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if !slices.Equal(a.Names(), b.Names()) {
		t.Errorf("%s has %q, converted %q", name, a.Names(), b.Names())
		return
	}
	for _, array := range a.Names() {
		h, _ := a.Header(array)
		g, _ := b.Header(array)
		x, err := a.Float32s(array, 0, h.Len())
		if err != nil {
			t.Fatal(err)
		}
		y, err := b.Float32s(array, 0, g.Len())
		if err != nil || !slices.Equal(h.Shape, g.Shape) || !slices.Equal(x, y) {
			t.Errorf("%s, %s: %v of %v, converted %v of %v, %v", name, array, x, h.Shape, y, g.Shape, err)
		}
	}
}

// A file that cannot be read leaves what stood at --out.
func TestConvertWritesWholeOrNot(t *testing.T) {
	dir := t.TempDir()
	out := filepath.Join(dir, "out.npz")
	if err := os.WriteFile(out, []byte("before"), 0o600); err != nil {
		t.Fatal(err)
	}
	for args, want := range map[string]string{
		filepath.Join(traces, "hostile.pt"):                            `.system", which is refused`,
		filepath.Join(traces, "sglang-routed.jsonl"):                   "add --set layers=L",
		filepath.Join(traces, "mixtral.jsonl") + " --map topk_ids=ids": "map one by --map topk_ids=COLUMN",
		filepath.Join(traces, "mixtral.jsonl") + " --map ids=experts":  `there is no "ids" to map to`,
		filepath.Join(traces, "mixtral.jsonl") + " --where dataset":    "want column=value",
		filepath.Join(traces, "mixtral.jsonl") + " --set experts=8":    "convert knows topk, layers and padding",
		filepath.Join(traces, "mixtral.jsonl") + " --set topk=many":    "want a whole number",
		filepath.Join(traces, "choices.npz") + " --map logits=none":    `no array "none"`,
		filepath.Join(traces, "make.py"):                               "make.py",
		filepath.Join(dir, "absent"):                                   "no such file",
		dir:                                                            "is a folder without a trace",
	} {
		code, printed, stderr := evenkeel(t, append([]string{"convert", "--out", out}, strings.Fields(args)...)...)
		if code != exitRequest || printed != "" || !strings.Contains(stderr, want) || strings.Count(stderr, "\n") != 1 {
			t.Errorf("convert %s: exit %d, printed %q and %q, want exit 2 and %q", args, code, printed, stderr, want)
		}
	}
	if text, err := os.ReadFile(out); err != nil || string(text) != "before" {
		t.Errorf("the file at --out is %q now, %v", text, err)
	}
	for _, args := range [][]string{{"convert", out}, {"convert", "--out", out}, {"convert", filepath.Join(traces, "choices.npz"), "--out", filepath.Join(dir, "absent", "x.npz")}} {
		if code, _, stderr := evenkeel(t, args...); code != exitRequest || !strings.Contains(stderr, "convert") && !strings.Contains(stderr, "--out") {
			t.Errorf("%q: exit %d, %s", args, code, stderr)
		}
	}
}

func TestConvertIsInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	for _, file := range []string{"vllm-patch.jsonl", "choices.npz"} {
		out := filepath.Join(t.TempDir(), "out.npz")
		var printed, stderr strings.Builder
		code := run(ctx, []string{"convert", filepath.Join(traces, file), "--out", out}, &printed, &stderr)
		if _, err := os.Stat(out); code != exitInterrupted || err == nil || !strings.Contains(stderr.String(), "nothing was written") {
			t.Errorf("%s: exit %d, %s, file %v", file, code, &stderr, err)
		}
	}
}

// Every float16 is written as it was read.
func TestHalf(t *testing.T) {
	var v [1]float32
	for bits := range 1 << 16 {
		npz.Float16.Float32s(v[:], binary.LittleEndian.AppendUint16(nil, uint16(bits)))
		if got := float16Bits(v[0]); got != uint16(bits) {
			t.Fatalf("%#04x is %g and was written as %#04x", bits, v[0], got)
		}
	}
}

// Choices with weights are compared only by who asks for it, and the assumption stands beside the result.
func TestCompareCompletedChoices(t *testing.T) {
	trace := "trace:" + filepath.Join(traces, "vllm-patch.jsonl")
	run := []string{"compare", "--scenario", trace, "-s", "none", "--steps", "2", "--seeds", "1"}
	code, _, stderr := evenkeel(t, run...)
	if code != exitRequest || !strings.Contains(stderr, "--set trace.complete=flat or popularity") {
		t.Errorf("exit %d, %s", code, stderr)
	}
	for _, flags := range [][]string{nil, {"--json"}} {
		code, out, stderr := evenkeel(t, append(append(run, "--set", "trace.complete=flat"), flags...)...)
		if code != 0 || !strings.Contains(strings.Join(strings.Fields(out), " "), "tokens with assumed scores alike change their choice together") || !strings.Contains(out, "completed choices") {
			t.Errorf("exit %d, %s%s", code, out, stderr)
		}
	}
	if code, _, stderr := evenkeel(t, "compare", "--map", "topk_ids=experts"); code != exitRequest || !strings.Contains(stderr, "use them with --scenario trace:FILE") {
		t.Errorf("--map without a trace: exit %d, %s", code, stderr)
	}
	counts := filepath.Join(traces, "tensorrt")
	if code, _, stderr := evenkeel(t, "compare", "--scenario", "trace:"+counts); code != exitRequest || !strings.Contains(stderr, "holds counts only") {
		t.Errorf("counts: exit %d, %s", code, stderr)
	}
	if code, out, stderr := evenkeel(t, "inspect", counts, "--set", "topk=3"); code != 0 || !strings.Contains(out, "a trace of counts") {
		t.Errorf("inspect: exit %d, %s%s", code, out, stderr)
	}
}

// The choices of a completed trace, routed again, have the loads that inspect shows.
func TestCompletedLoadsAreTheTraces(t *testing.T) {
	file := filepath.Join(realDumps(t), "deepseek-v2-lite", "law.npz")
	found := inspectFile(t, file)
	s := globalMaxVio(t, "compare", "--json", "--scenario", "trace:"+file, "-s", "none", "--steps", "1", "--seeds", "1", "--layer", "12", "--set", "trace.complete=popularity")
	if want := found.ByLayer[12].Domains[0].MaxVio; s < want-1e-6 || s > want+1e-6 {
		t.Errorf("MaxVio of the completed trace is %g, of the trace %g", s, want)
	}
}

// globalMaxVio returns the global MaxVio of the first strategy.
func globalMaxVio(t *testing.T, args ...string) float64 {
	t.Helper()
	code, out, stderr := evenkeel(t, args...)
	if code != 0 {
		t.Fatalf("exit %d: %s", code, stderr)
	}
	var s struct {
		Strategies []struct {
			Metrics map[string]struct{ Mean float64 }
		}
	}
	if err := json.Unmarshal([]byte(out), &s); err != nil {
		t.Fatal(err)
	}
	return s.Strategies[0].Metrics["maxvio_global"].Mean
}
