package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/csv"
	"encoding/json"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"evenkeel/internal/npz"
	"evenkeel/sim"
)

// logitsOf is a trace of random logits, [layers][tokens][8], whose experts differ more from layer to layer.
func logitsOf(t *testing.T, layers, tokens int, name string) string {
	r := rand.New(rand.NewPCG(3, 0))
	var data []byte
	for l := range layers {
		for range tokens {
			for e := range 8 {
				z := r.NormFloat64() + float64(e*l)/8
				data = binary.LittleEndian.AppendUint32(data, math.Float32bits(float32(z)))
			}
		}
	}
	return npzOf(t, npz.Array{Name: name, DType: npz.Float32, Shape: []int{layers, tokens, 8}, Data: data})
}

// Every layer is what a run of that layer alone gives, and the table sums them up.
func TestCompareLayers(t *testing.T) {
	args := []string{"compare", "--scenario", "trace:" + logitsOf(t, 3, 64, "logits"), "--set", "topk=2", "--steps", "8", "--seeds", "2", "-s", "none", "-s", "loss-free"}
	dir := filepath.Join(t.TempDir(), "out")
	code, out, stderr := evenkeel(t, append(args, "--layers", "2, 0", "--json", "--out", dir)...)
	if code != 0 || stderr != "" {
		t.Fatalf("exit %d: %s", code, stderr)
	}
	var list []map[string]any
	if err := json.Unmarshal([]byte(out), &list); err != nil || len(list) != 2 {
		t.Fatalf("%d layers, %v", len(list), err)
	}
	for i, layer := range []int{2, 0} {
		if got := list[i]["layer"]; got != float64(layer) {
			t.Errorf("summary %d is of layer %v, want %d", i, got, layer)
		}
		delete(list[i], "layer")
		_, alone, _ := evenkeel(t, append(args, "--layer", strconv.Itoa(layer), "--json")...)
		var want map[string]any
		if err := json.Unmarshal([]byte(alone), &want); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(want, list[i]); d != "" {
			t.Errorf("layer %d alone and among others differ: %s", layer, d)
		}
		written, err := os.ReadFile(filepath.Join(dir, "layer-"+strconv.Itoa(layer), "summary.json"))
		if err != nil || string(written) != alone {
			t.Errorf("the folder of layer %d: %v", layer, err)
		}
	}
	text, err := os.ReadFile(filepath.Join(dir, "layers.csv"))
	if err != nil {
		t.Fatal(err)
	}
	rows, err := csv.NewReader(bytes.NewReader(text)).ReadAll()
	if err != nil || strings.Join(rows[0], " ") != "spec metric layer_2 layer_0 p5 p50 p95 highest highest_layer" {
		t.Fatalf("%v, %v", rows[0], err)
	}
	for _, row := range rows[1:] {
		if row[0] == "none" && row[1] == "maxvio_global" {
			a, _ := strconv.ParseFloat(row[2], 64)
			b, _ := strconv.ParseFloat(row[3], 64)
			median, _ := strconv.ParseFloat(row[5], 64)
			if !(a > b) || math.Abs(median-(a+b)/2) > 1e-12 || row[7] != row[2] || row[8] != "2" {
				t.Errorf("row %v", row)
			}
		}
	}
}

func TestLayersTable(t *testing.T) {
	args := []string{"compare", "--scenario", "trace:" + logitsOf(t, 12, 64, "logits"), "--set", "topk=2", "--steps", "4", "--seeds", "1", "-s", "none", "-s", "loss-free", "--layers", "all"}
	for width, shown := range map[int]bool{80: false, 150: true} {
		t.Setenv("COLUMNS", strconv.Itoa(width))
		code, out, stderr := evenkeel(t, args...)
		if code != 0 {
			t.Fatalf("exit %d: %s", code, stderr)
		}
		for _, want := range []string{"Layers 0 to 11,", "MaxVio global, by layer", "affinity lost, %, by layer", "sampling floor", "p95", "(11)"} {
			if !strings.Contains(out, want) {
				t.Errorf("at %d columns there is no %q in %s", width, want, out)
			}
		}
		if strings.Contains(out, "layers not shown") == shown {
			t.Errorf("at %d columns: %s", width, out)
		}
		for _, line := range strings.Split(out, "\n") {
			if n := len([]rune(line)); n > width {
				t.Errorf("at %d columns a line has %d: %s", width, n, line)
			}
		}
	}
	_, out, _ := evenkeel(t, append(args, "--quiet", "--columns", "churn", "--sort", "maxvio_global")...)
	if !strings.Contains(out, "churn, %, by layer") || strings.Contains(out, "affinity") || strings.Index(out, "loss-free") > strings.Index(out, "none") {
		t.Errorf("one column, sorted: %s", out)
	}
}

func TestInterruptedLayers(t *testing.T) {
	ctx, stop := context.WithCancel(context.Background())
	stop()
	dir := filepath.Join(t.TempDir(), "out")
	var out, errs bytes.Buffer
	code := run(ctx, []string{"compare", "--scenario", "trace:" + logitsOf(t, 2, 64, "logits"), "--set", "topk=2", "--layers", "all", "--out", dir}, &out, &errs)
	if code != exitInterrupted || !strings.Contains(errs.String(), "nothing was written") {
		t.Errorf("exit %d: %s%s", code, errs.String(), out.String())
	}
	if _, err := os.Stat(dir); err == nil {
		t.Error("an empty folder is left behind")
	}
}

// Notes that differ in numbers alone are one, but not those of two strategies, nor two of one layer.
func TestLayerNotes(t *testing.T) {
	var r layersReport
	for layer, notes := range [][]string{
		{"chosen leave 0.62 of 1, which cut off 0.01", "a:rate=1: of 3 seeds, 2", "a:rate=2: of 3 seeds, 1", "at step 3", "at step 9"},
		{"chosen leave 0.5 of 1, which cut off 0.2", "a:rate=1: of 3 seeds, 1"},
		{"chosen leave 0.7 of 1, which cut off 0.002"},
	} {
		r.runs = append(r.runs, layerRun{layer: layer, result: &sim.Result{Warnings: notes}})
	}
	got := r.notes(func(x *sim.Result) []string { return x.Warnings })
	want := []string{"chosen leave 0.5 to 0.7 of 1, which cut off 0.002 to 0.2", "a:rate=1: of 3 seeds, 1 to 2 (layer 0, 1)", "a:rate=2: of 3 seeds, 1 (layer 0)",
		"at step 3 (layer 0)", "at step 9 (layer 0)"}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}
