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
