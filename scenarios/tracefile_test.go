package scenarios

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"evenkeel/internal/npz"
	"evenkeel/internal/tracefile"
)

// writeJSONL writes one layer of choices.
func writeJSONL(t *testing.T, lines ...string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "trace.jsonl")
	if err := os.WriteFile(name, []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func completed(t *testing.T, name string, r Reading) (*Dump, error) {
	t.Helper()
	f, err := OpenTrace(name, r)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	return f.Dump(0)
}

// The formula, worked by hand. Two tokens, five experts, two chosen.
func TestCompletion(t *testing.T) {
	name := writeJSONL(t, `{"topk_ids":[0,1],"topk_weights":[0.5,0.25]}`, `{"topk_ids":[0,2],"topk_weights":[0.5,0.125]}`)
	for _, c := range []struct {
		how  string
		want []float64
		note string
	}{
		// 0.25 is left to three, 1/12 each; 0.375 to three, bounded by 0.125 exactly.
		{"flat", []float64{0.5, 0.25, 1. / 12, 1. / 12, 1. / 12, 0.5, 0.125, 0.125, 0.125, 0.125}, "0.312 of 1 in the mean, flat, each bounded by the smallest chosen weight of the token, which cut off"},
		// Popularities are 1, 0.25, 0.125, 0, 0: what is left goes to one expert and is bounded.
		{"popularity", []float64{0.5, 0.25, 0.25, 0, 0, 0.5, 0.125, 0.125, 0, 0}, "in proportion to their mean weight in the trace, each bounded by the smallest chosen weight of the token, which cut off 0.125"},
	} {
		d, err := completed(t, name, Reading{Experts: 5, Complete: c.how})
		if err != nil {
			t.Fatal(err)
		}
		if d.Level != LevelCompleted || !d.Stored() || !strings.Contains(strings.Join(d.Notes, "\n"), c.note) {
			t.Errorf("%s: level %s, stored %v, notes %q", c.how, d.Level, d.Stored(), d.Notes)
		}
		for i, want := range c.want {
			if got := float64(d.Scores[i]); math.Abs(got-want) > 1e-7 {
				t.Errorf("%s: token %d, expert %d has score %g, want %g", c.how, i/5, i%5, got, want)
			}
		}
		checkChosenFirst(t, d)
	}
	// Weights that were renormalised need the mass, and share it.
	name = writeJSONL(t, `{"topk_ids":[0,1],"topk_weights":[0.75,0.25]}`)
	d, err := completed(t, name, Reading{Experts: 4, Complete: "flat", Mass: 0.8})
	if err != nil {
		t.Fatal(err)
	}
	for e, want := range []float64{0.6, 0.2, 0.1, 0.1} {
		if got := float64(d.Scores[e]); math.Abs(got-want) > 1e-7 {
			t.Errorf("with mass 0.8 expert %d has score %g, want %g", e, got, want)
		}
	}
}

// checkChosenFirst is an error if an expert that was not chosen has the score of a chosen one.
func checkChosenFirst(t *testing.T, d *Dump) {
	t.Helper()
	for token := range d.Tokens {
		scores, choices := d.Scores[token*d.Experts:(token+1)*d.Experts], d.Choices[token*d.TopK:(token+1)*d.TopK]
		least, most := float32(math.Inf(1)), float32(0)
		for e, s := range scores {
			if slices.Contains(choices, int32(e)) {
				least = min(least, s)
			} else {
				most = max(most, s)
			}
		}
		if most >= least {
			t.Fatalf("token %d: an unseen expert has score %g, a chosen one %g", token, most, least)
		}
	}
}

func TestCompletionIsRefused(t *testing.T) {
	weighted := writeJSONL(t, `{"topk_ids":[0,1],"topk_weights":[0.5,0.25]}`)
	whole := writeJSONL(t, `{"topk_ids":[0,1],"topk_weights":[0.5,0.5]}`)
	for _, c := range []struct {
		name string
		r    Reading
		want string
	}{
		{weighted, Reading{Complete: "guess"}, `trace.complete is "guess": want none, flat or popularity`},
		{weighted, Reading{Complete: "flat", Mass: 0.5}, "trace.mass is for weights that were renormalised"},
		{weighted, Reading{Mass: 0.5}, "add trace.complete"},
		{whole, Reading{Complete: "flat"}, "give the share of the softmax on the chosen, such as --set trace.mass=0.4"},
		{whole, Reading{Complete: "flat", Mass: 1.5}, "trace.mass is 1.5"},
		{writeJSONL(t, `{"topk_ids":[0,1],"topk_weights":[2.5,0.25]}`), Reading{Complete: "flat"}, "sum to 2.75"},
		{writeJSONL(t, `{"topk_ids":[0,1],"topk_weights":[-1,0.25]}`), Reading{Complete: "flat"}, "cannot be negative"},
		{writeJSONL(t, `{"topk_ids":[0,1]}`), Reading{Complete: "flat"}, "holds ids only"},
		{writeJSONL(t, `{"logits":[0,1]}`), Reading{Complete: "flat"}, "this is a trace of scores"},
		{writeJSONL(t, `{"counts":[0,1]}`), Reading{Complete: "flat"}, "this is a trace of counts"},
		{weighted, Reading{Experts: 1}, "experts is 1 and must be 2 to 4096"},
	} {
		if _, err := completed(t, c.name, c.r); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v, want %q", c.r, err, c.want)
		}
	}
}

func TestCountsAndLayerNumbers(t *testing.T) {
	name := writeJSONL(t, `{"step":0,"layer":3,"counts":[1,2,3]}`, `{"step":0,"layer":5,"counts":[4,5,6]}`, `{"step":1,"layer":3,"counts":[7,8,9]}`, `{"step":1,"layer":5,"counts":[1,1,1]}`)
	f, err := OpenTrace(name, Reading{})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	d, err := f.Dump(1)
	if err != nil {
		t.Fatal(err)
	}
	if d.Level != LevelCounts || d.Steps != 2 || d.Experts != 3 || !slices.Equal(d.Counts, []int64{4, 5, 6, 1, 1, 1}) || !slices.Equal(d.LayerNumbers, []int32{3, 5}) {
		t.Errorf("%+v", d)
	}
	if _, err := Load("trace:"+name, nil, -1); err == nil || !strings.Contains(err.Error(), "counts only") || !strings.Contains(err.Error(), "evenkeel inspect") {
		t.Errorf("counts as a scenario: %v", err)
	}
}

// A scenario keeps how its trace was read, so that a manifest repeats it.
func TestReadingIsPartOfTheScenario(t *testing.T) {
	name := writeJSONL(t, `{"who":"a","e":[0,1],"w":[0.5,0.25]}`, `{"who":"b","e":[0,1],"w":[0.5,0.25]}`, `{"who":"b","e":[0,255],"w":[0.5,0.25]}`)
	s, err := Load("trace:"+name, []string{"trace.map=[topk_ids=e, topk_weights=w]", "trace.where=[who=b]", "trace.padding=255", "trace.complete=flat", "experts=6", "steps=2"}, -1)
	if err != nil {
		t.Fatal(err)
	}
	text, err := s.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	again, err := Resolved("manifest.json", text)
	if err != nil {
		t.Fatal(err)
	}
	a, b := s.Trace.data, again.Trace.data
	if a.Tokens != 2 || a.Experts != 6 || !slices.Equal(a.Choices, []int32{0, 1, 0, -1}) || !slices.Equal(a.Scores, b.Scores) || !slices.Equal(s.Facts().Notes, again.Facts().Notes) {
		t.Errorf("read as %+v, and from the manifest as %+v", a, b)
	}
}

func realData(t *testing.T) string {
	t.Helper()
	dir := filepath.Join("..", "..", "shared", "data")
	if _, err := os.Stat(dir); err != nil {
		t.Skipf("SKIPPED, real traces were NOT read: %v", err)
	}
	return dir
}

// Shares of selections and mean gate weights of DeepSeek-V2-Lite, as its publishers have them, rounded to 4 decimals.
func TestLawSummary(t *testing.T) {
	dir := filepath.Join(realData(t), "deepseek-v2-lite")
	for _, task := range []string{"law", "translation"} {
		text, err := os.ReadFile(filepath.Join(dir, task+"_summary.json"))
		if err != nil {
			t.Fatal(err)
		}
		var published struct {
			Shares map[string]map[string]float64 `json:"token_scores"`
			Gates  map[string]map[string]float64 `json:"gate_scores"`
		}
		if err := json.Unmarshal(text, &published); err != nil {
			t.Fatal(err)
		}
		f, err := OpenTrace(filepath.Join(dir, task+".npz"), Reading{})
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		for layer := range 26 {
			d, err := f.Dump(layer)
			if err != nil {
				t.Fatal(err)
			}
			share, gate := make([]float64, d.Experts), make([]float64, d.Experts)
			for i, e := range d.Choices {
				share[e] += 1 / float64(len(d.Choices))
				gate[e] += float64(d.Weights[i]) / float64(d.Tokens)
			}
			for e := range d.Experts {
				number, expert := strconv.Itoa(layer+1), strconv.Itoa(e)
				if got, want := share[e], published.Shares[number][expert]; math.Abs(got-want) > 5.01e-5 {
					t.Errorf("%s, layer %s, expert %d: share %.6f, published %.4f", task, number, e, got, want)
				}
				if got, want := gate[e], published.Gates[number][expert]; math.Abs(got-want) > 5.01e-5 {
					t.Errorf("%s, layer %s, expert %d: mean gate %.6f, published %.4f", task, number, e, got, want)
				}
			}
		}
	}
}

// The text as published and its re-encoding hold the same.
func TestESFTText(t *testing.T) {
	dir := filepath.Join(realData(t), "deepseek-v2-lite")
	for _, task := range []string{"law", "translation"} {
		name := filepath.Join(dir, task+"_expert_weights_13.txt.gz")
		if _, err := os.Stat(name); err != nil {
			continue
		}
		text, _, err := ReadDump(name, 0, Reading{})
		if err != nil {
			t.Fatal(err)
		}
		array, _, err := ReadDump(filepath.Join(dir, task+".npz"), 12, Reading{})
		if err != nil {
			t.Fatal(err)
		}
		if text.TopK != 6 || !slices.Equal(text.Choices, array.Choices) || !slices.Equal(text.Weights, array.Weights) || !slices.Equal(text.Sequences, array.Sequences) {
			t.Errorf("%s: the text and the npz differ", task)
		}
		if !slices.Equal(text.LayerNumbers, []int32{13}) {
			t.Errorf("%s: layer numbers %v", task, text.LayerNumbers)
		}
	}
	// Completed, the choices stay what they were.
	d, err := completed(t, filepath.Join(dir, "law.npz"), Reading{Complete: "popularity"})
	if err != nil {
		t.Fatal(err)
	}
	checkChosenFirst(t, d)
}

func TestRealCountsAndFingerprints(t *testing.T) {
	dir := realData(t)
	f, err := OpenTrace(filepath.Join(dir, "olmoe", "expert_counts.csv"), Reading{Options: tracefile.Options{Map: []string{"step=domain"}, Where: []string{"model=olmoe", "topk=topk"}}})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for layer := range 3 {
		d, err := f.Dump(layer)
		if err != nil {
			t.Fatal(err)
		}
		if d.Steps != 6 || d.Experts != 64 {
			t.Fatalf("%d domains of %d experts", d.Steps, d.Experts)
		}
		var first int64
		for _, n := range d.Counts[:64] {
			first += n
		}
		if first != 1671168 {
			t.Errorf("slot %d counts %d choices of the first domain, published 1671168", layer, first)
		}
	}
	files, err := filepath.Glob(filepath.Join(dir, "gpt-oss-20b", "*.npz"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no fingerprints: %v", err)
	}
	for _, file := range files {
		d, _, err := ReadDump(file, 23, Reading{})
		if err != nil {
			t.Fatal(err)
		}
		if d.Level != LevelChoices || d.Layers != 24 || d.TopK != 4 || d.Weights == nil {
			t.Errorf("%s: %+v", file, d)
		}
		d, err = completed(t, file, Reading{Complete: "popularity", Mass: 0.6})
		if err != nil {
			t.Fatal(err)
		}
		checkChosenFirst(t, d)
	}
}

// A trace that a user names by a path without trace: is not mistaken for the name of a scenario.
func TestTraceByPath(t *testing.T) {
	name := writeJSONL(t, `{"topk_ids":[0,1]}`)
	if _, err := Load(name, nil, -1); err == nil || !strings.Contains(err.Error(), "write --scenario trace:") {
		t.Errorf("%v", err)
	}
}

// An npz trace reads the same through the reader of every format and by itself.
func TestReadersAgree(t *testing.T) {
	var b bytes.Buffer
	if err := npz.Write(&b, []npz.Array{{Name: "topk_ids", DType: npz.Uint8, Shape: []int{2, 3, 1}, Data: []byte{0, 1, 2, 3, 2, 1}}}); err != nil {
		t.Fatal(err)
	}
	file, err := npz.NewReader(bytes.NewReader(b.Bytes()), int64(b.Len()), "x")
	if err != nil {
		t.Fatal(err)
	}
	s, err := tracefile.NewReader(bytes.NewReader(b.Bytes()), int64(b.Len()), "x", tracefile.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for layer := range 2 {
		one, err := readDump(file, "x", layer)
		if err != nil {
			t.Fatal(err)
		}
		other, err := readDump(s, "x", layer)
		if err != nil {
			t.Fatal(err)
		}
		if fmt.Sprint(one) != fmt.Sprint(other) {
			t.Errorf("layer %d: %v and %v", layer, one, other)
		}
	}
}
