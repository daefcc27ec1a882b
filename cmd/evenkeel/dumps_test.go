package main

import (
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"testing"
)

// realDumps returns the folder of the real routers' dumps, which are not part of the repository.
func realDumps(t *testing.T) string {
	t.Helper()
	dir := filepath.Join("..", "..", "..", "shared", "data")
	if _, err := os.Stat(dir); err != nil {
		t.Skipf("SKIPPED, real routers were NOT read: %v", err)
	}
	return dir
}

func inspectFile(t *testing.T, file string) (found inspection) {
	t.Helper()
	code, out, stderr := evenkeel(t, "inspect", "--json", file)
	if code != 0 {
		t.Fatalf("inspect %s: exit %d, %s", file, code, stderr)
	}
	if err := json.Unmarshal([]byte(out), &found); err != nil {
		t.Fatal(err)
	}
	return found
}

// MaxVio by domain and pooled, as the provenance of the dumps has it.
func TestInspectTinyMoE(t *testing.T) {
	dir := realDumps(t)
	for file, layers := range map[string][2][5]float64{
		"none.npz":  {{2.88, 4.42, 2.68, 4.32, 2.27}, {5.91, 8.80, 6.32, 6.58, 5.55}},
		"aux01.npz": {{1.58, 1.94, 1.63, 3.30, 1.19}, {1.84, 3.68, 2.44, 7.44, 1.29}},
		"lf.npz":    {{1.36, 2.75, 1.35, 3.59, 0.78}, {1.48, 3.20, 2.96, 6.28, 1.19}},
	} {
		found := inspectFile(t, filepath.Join(dir, "tinymoe", file))
		for l, want := range layers {
			for d, v := range want {
				if got := found.ByLayer[l].Domains[d].MaxVio; math.Abs(got-v) > 0.0051 {
					t.Errorf("%s layer %d %s: MaxVio %.4f, published %.2f", file, l, found.ByLayer[l].Domains[d].Name, got, v)
				}
			}
		}
	}
}

// The largest share of DeepSeek-V2-Lite's choices, by layer, as its publishers have it, rounded to 4 decimals.
func TestInspectDeepSeekV2Lite(t *testing.T) {
	dir := filepath.Join(realDumps(t), "deepseek-v2-lite")
	for _, task := range []string{"law", "translation"} {
		text, err := os.ReadFile(filepath.Join(dir, task+"_summary.json"))
		if err != nil {
			t.Fatal(err)
		}
		var published struct {
			TokenScores map[string]map[string]float64 `json:"token_scores"`
		}
		if err := json.Unmarshal(text, &published); err != nil {
			t.Fatal(err)
		}
		found := inspectFile(t, filepath.Join(dir, task+".npz"))
		if len(found.ByLayer) != 26 {
			t.Fatalf("%s has %d layers, want 26", task, len(found.ByLayer))
		}
		for l, loads := range found.ByLayer {
			var largest float64
			for _, share := range published.TokenScores[strconv.Itoa(l+1)] {
				largest = max(largest, share)
			}
			if got := (1 + loads.Domains[0].MaxVio) / 64; math.Abs(got-largest) > 5.1e-5 {
				t.Errorf("%s, slot %d: the busiest expert has a share of %.5f, published %.4f", task, l, got, largest)
			}
		}
	}
}

// MaxVio by batch size and overflow by capacity factor of DeepSeek-V2-Lite, mean over its layers. The published figures of a
// uniform router are of single draws, so that they scatter about the floor.
func TestInspectBatchesOfDeepSeekV2Lite(t *testing.T) {
	dir := filepath.Join(realDumps(t), "deepseek-v2-lite")
	uniform := []float64{1.05, 0.48, 0.22, 0.12}
	for task, want := range map[string]struct{ maxVio, overflow []float64 }{
		"law":         {[]float64{3.45, 2.76, 2.59, 2.53}, []float64{0.22, 0.14, 0.09, 0.05, 0.006}},
		"translation": {[]float64{4.85, 4.65, 4.63, 4.63}, []float64{0.41, 0.34, 0.29, 0.21, 0.05}},
	} {
		found := inspectFile(t, filepath.Join(dir, task+".npz"))
		all := found.Mean[0]
		for i, v := range want.maxVio {
			b := all.Batches[i]
			if b.Tokens != 64<<(2*i) || math.Abs(b.MaxVio-v) > 0.0051 {
				t.Errorf("%s in batches of %d: MaxVio %.4f, published %.2f", task, b.Tokens, b.MaxVio, v)
			}
			if math.Abs(b.Floor-uniform[i]) > 0.045 {
				t.Errorf("batches of %d: floor %.4f, a uniform router was at %.2f", b.Tokens, b.Floor, uniform[i])
			}
		}
		if *all.Slope < -0.08 || *all.Slope > 0 || math.Abs(*all.FloorFall+0.5) > 0.03 {
			t.Errorf("%s: slope %.3f, floor %.3f: want structure", task, *all.Slope, *all.FloorFall)
		}
		for i, v := range want.overflow {
			var got float64
			for _, l := range found.ByLayer {
				got += l.Overflow[i] / float64(len(found.ByLayer))
			}
			if tolerance := 0.0051; math.Abs(got-v) > tolerance || i == 4 && v < 0.01 && math.Abs(got-v) > tolerance/10 {
				t.Errorf("%s: overflow %.5f at the factor %d, published %.3f", task, got, i, v)
			}
		}
	}
}

// GPT-OSS-20B: MaxVio 2.9 to 4.8 for each subject, mean over its layers; Gini 0.53 to 0.67.
func TestInspectGPTOSS(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(realDumps(t), "gpt-oss-20b", "*.npz"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no dumps: %v", err)
	}
	for _, file := range files {
		found := inspectFile(t, file)
		if v := found.Mean[0].MaxVio; v < 2.85 || v > 4.85 {
			t.Errorf("%s: MaxVio %.3f, published 2.9 to 4.8", file, v)
		}
		if v := found.number(t, "LatentPrototypeRouter", "Gini"); v < 0.525 || v > 0.675 {
			t.Errorf("%s: Gini %.3f, published 0.53 to 0.67", file, v)
		}
	}
}

// number is a balance number of the whole trace.
func (x *inspection) number(t *testing.T, framework, name string) float64 {
	t.Helper()
	for _, b := range x.Balances {
		if b.Framework == framework && b.Name == name {
			return *b.Whole
		}
	}
	t.Fatalf("no %s of %s", name, framework)
	return 0
}

// Every dump is read, and those with scores replay, with and without learning.
func TestReplayRealDumps(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(realDumps(t), "*", "*.npz"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no dumps: %v", err)
	}
	for _, file := range files {
		found := inspectFile(t, file)
		for _, spec := range []string{"loss-free", "aux-loss"} {
			code, _, stderr := evenkeel(t, "compare", "--quiet", "--scenario", "trace:"+file, "-s", spec, "--layer", strconv.Itoa(found.Layers-1), "--steps", "2", "--seeds", "1")
			want := 0
			if found.Level != "scores" {
				want = exitRequest
			}
			if code != want {
				t.Errorf("%s on %s: exit %d, want %d: %s", spec, file, code, want, stderr)
			}
		}
	}
}
