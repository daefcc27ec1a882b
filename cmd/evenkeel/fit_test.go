package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// What fit prints, draws and writes; the file runs.
func TestFit(t *testing.T) {
	dir := t.TempDir()
	file, picture := filepath.Join(dir, "mine.yaml"), filepath.Join(dir, "mine.svg")
	for _, width := range []string{"80", "120"} {
		t.Setenv("COLUMNS", width)
		code, out, stderr := evenkeel(t, "fit", "tinymoe", "--out", file, "--figure", picture)
		if code != 0 || stderr != "" {
			t.Fatalf("exit %d: %s", code, stderr)
		}
		printed, written, _ := strings.Cut(out, "\nWritten to ")
		if !strings.HasPrefix(written, file) {
			t.Errorf("the end is %q", written)
		}
		for line := range strings.Lines(printed) {
			if n := len([]rune(line)) - 1; n > map[string]int{"80": 80, "120": 120}[width] {
				t.Errorf("at %s columns a line has %d: %s", width, n, line)
			}
		}
		if width == "120" {
			golden(t, "fit.txt", printed)
		}
	}
	svg, err := os.ReadFile(picture)
	if err != nil || !strings.Contains(string(svg), "tokens in a batch") {
		t.Errorf("the picture is %.60q, %v", svg, err)
	}
	code, out, stderr := evenkeel(t, "compare", "--scenario", file, "--steps", "2", "--seeds", "1", "--set", "evaluation_tokens=64", "-s", "none")
	if code != 0 || !strings.Contains(out, "mine") {
		t.Errorf("exit %d: %s%s", code, out, stderr)
	}
}

func TestFitJSON(t *testing.T) {
	code, out, stderr := evenkeel(t, "fit", "tinymoe", "--json")
	if code != 0 || stderr != "" {
		t.Fatalf("exit %d: %s", code, stderr)
	}
	var j struct {
		Traces   []struct{ SHA256 string }
		Level    string
		Scenario struct {
			Synthetic struct {
				Zipf float64 `json:"zipf"`
			}
		}
		Held struct {
			Tokens  int
			Figures []struct {
				Key                        string
				Real, Synthetic, Low, High float64
				Floor                      *float64
			}
		} `json:"held_back"`
		Findings []string
	}
	if err := json.Unmarshal([]byte(out), &j); err != nil {
		t.Fatal(err)
	}
	if len(j.Traces) != 1 || len(j.Traces[0].SHA256) != 64 || j.Level != "scores" || j.Scenario.Synthetic.Zipf < 1 || j.Held.Tokens != 4096 || len(j.Findings) == 0 {
		t.Errorf("read as %+v", j)
	}
	for _, f := range j.Held.Figures {
		if f.Key == "maxvio_batch" && (f.Floor == nil || *f.Floor >= f.Real || f.Low >= f.Synthetic || f.High <= f.Synthetic) {
			t.Errorf("figure %+v", f)
		}
	}
}

func TestFitRefusals(t *testing.T) {
	for want, args := range map[string][]string{
		"fit takes a trace":                {},
		"is drawn, not a trace":            {"uniform"},
		"is a scenario: fit takes a trace": {"mine.yaml"},
		"missing.npz":                      {"missing.npz"},
		"--layer is -1":                    {"tinymoe", "--layer", "-1"},
		"layer 7 does not exist":           {"tinymoe", "--layer", "7"},
		"--cut is -3":                      {"tinymoe", "--cut", "-3"},
		"--nearest is -1":                  {"tinymoe", "--nearest", "-1"},
		"ends in .yaml":                    {"tinymoe", "--out", "mine.txt"},
		"ends in .png or .svg":             {"tinymoe", "--figure", "mine.pdf"},
		"cannot be written":                {"tinymoe", "--out", "missing/mine.yaml"},
		"fit takes experts, topk":          {"tinymoe", "--set", "steps=5"},
		"experts is 32":                    {"tinymoe", "--set", "experts=32"},
		"must divide experts":              {"tinymoe", "--set", "groups=7"},
		"--domains names the domain ids":   {"tinymoe", "tinymoe", "--domains", "a,b"},
	} {
		code, _, stderr := evenkeel(t, append([]string{"fit"}, args...)...)
		if code != exitRequest || !strings.Contains(stderr, want) || strings.Count(stderr, "\n") != 1 {
			t.Errorf("fit %v: exit %d, %q, want %q", args, code, stderr, want)
		}
	}
}

// Where a file names its arrays otherwise, --map says so, as to every command that reads a trace.
func TestFitMaps(t *testing.T) {
	figures := map[string]string{}
	for name, file := range map[string]string{"logits": logitsOf(t, 1, 2048, "logits"), "router": logitsOf(t, 1, 2048, "router")} {
		args := []string{"fit", file, "--set", "topk=2", "--cut", "64", "--json"}
		if name == "router" {
			if code, _, stderr := evenkeel(t, args...); code != exitRequest || !strings.Contains(stderr, "by --map") {
				t.Errorf("without --map: exit %d, %s", code, stderr)
			}
			args = append(args, "--map", "logits=router", "--set", "padding=7")
		}
		code, out, stderr := evenkeel(t, args...)
		if code != 0 {
			t.Fatalf("%s: exit %d, %s", name, code, stderr)
		}
		var j struct {
			Held json.RawMessage `json:"held_back"`
		}
		if err := json.Unmarshal([]byte(out), &j); err != nil {
			t.Fatal(err)
		}
		figures[name] = string(j.Held)
	}
	if figures["logits"] != figures["router"] || figures["router"] == "" {
		t.Errorf("the same logits under two names: %s and %s", figures["logits"], figures["router"])
	}
	if code, _, stderr := evenkeel(t, "fit", "tinymoe", "--set", "padding=x"); code != exitRequest || !strings.Contains(stderr, "--set padding=x: want a whole number") {
		t.Errorf("exit %d, %s", code, stderr)
	}
}
