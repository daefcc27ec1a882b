package strategies

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"evenkeel/internal/vec"
	"evenkeel/moe"
)

const v3File = `name: my-v3
summary: DeepSeek-V3's recipe from its parts
parts:
  - loss-free
  - aux-loss: {coeff: 1e-4, scope: sequence, counts: unbiased}
gate: {normalised: true, scale: 2.5}
strength: loss-free.rate
`

// A file of the parts of a preset is that preset, to the bit.
func TestFileIsWhatItsPartsAre(t *testing.T) {
	layer := layerV3
	layer.Score = moe.Sigmoid
	p, err := Define("v3.yaml", []byte(v3File))
	if err != nil {
		t.Fatal(err)
	}
	spec, err := Parse("my-v3:loss-free.rate=0.01", p)
	if err != nil {
		t.Fatal(err)
	}
	if got := spec.String(); got != "my-v3:loss-free.rate=0.01" {
		t.Errorf("its spec is %s", got)
	}
	ours, err := spec.Build(layer)
	if err != nil {
		t.Fatal(err)
	}
	theirs := mustBuild(t, layer, "deepseek-v3:rate=0.01")
	a, b := ours.Traits(), theirs.Traits()
	if a.Gate != b.Gate || a.Loss != b.Loss || a.Fresh != b.Fresh || a.Sequences != b.Sequences || a.Causal != b.Causal || a.Rate != b.Rate || a.Family != "my-v3" {
		t.Errorf("traits are %+v, want those of %+v", a, b)
	}
	batch := batchOf(rand.New(rand.NewPCG(1, 9)), layer, 64, 64, 20)
	n := layer.Experts * vec.Lanes
	for step := range 5 {
		var masks, fresh [2][]uint64
		var grads [2][]float32
		for i, s := range []moe.Strategy{ours, theirs} {
			scores, assigned := routeAll(s, batch)
			var chosen, other moe.Counts
			chosen.Count(batch, assigned.Mask)
			other.Count(batch, assigned.Fresh)
			s.PrepareLoss(&moe.Outcome{Batch: batch, Chosen: &chosen, Fresh: &other})
			grads[i] = make([]float32, n)
			s.Backward(batch, 1, scores[n:2*n], nil, grads[i], moe.NewScratch(layer))
			s.Update(&moe.Outcome{Step: step, Batch: batch, Scores: scores, Assigned: assigned, Chosen: &chosen})
			masks[i], fresh[i] = assigned.Mask, assigned.Fresh
		}
		if !slices.Equal(masks[0], masks[1]) || !slices.Equal(fresh[0], fresh[1]) || !slices.Equal(grads[0], grads[1]) || !slices.Equal(ours.Bias(), theirs.Bias()) {
			t.Fatalf("step %d differs", step)
		}
	}
}

func TestFilesThatAreRefused(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"empty":            {"", "not YAML"},
		"a list":           {"- a", "x.yaml:1: it must be keys"},
		"no parts":         {"name: a", "no parts"},
		"empty parts":      {"name: a\nparts: []", "x.yaml:2: parts must be a list"},
		"no name":          {"parts: [none]", "name is"},
		"bad name":         {"name: A b\nparts: [none]", "lower-case"},
		"taken name":       {"name: none\nparts: [random]", "a strategy of its own"},
		"unknown key":      {"name: a\npart: [none]", "did you mean parts"},
		"twice":            {"name: a\nname: b\nparts: [none]", "given twice"},
		"unknown part":     {"name: a\nparts: [non]", "did you mean none"},
		"unknown knob":     {"name: a\nparts:\n  - loss-free: {rat: 1}", "x.yaml:3: part loss-free: it has no knob"},
		"bad value":        {"name: a\nparts:\n  - loss-free: {rate: x}", "must be a number"},
		"nested value":     {"name: a\nparts:\n  - loss-free: {rate: [1]}", "single value"},
		"knobs no keys":    {"name: a\nparts:\n  - loss-free: 5", "must be keys"},
		"part twice":       {"name: a\nparts: [none, none]", "given twice"},
		"file in a file":   {"name: a\nparts: [x.yaml]", "no strategy"},
		"bad gate":         {"name: a\nparts: [none]\ngate: {scale: -1}", "above 0"},
		"gate of words":    {"name: a\nparts: [none]\ngate: {normalised: 3}", "gate.normalised"},
		"unknown gate":     {"name: a\nparts: [none]\ngate: {size: 3}", "gate has no size"},
		"strength unknown": {"name: a\nparts: [loss-free]\nstrength: rate", "no knob of a part"},
		"bad model":        {"name: a\nparts: [none]\nmodel: {experts: 4, topk: 5}", "x.yaml:3: model: topk is 5"},
		"unknown in model": {"name: a\nparts: [none]\nmodel: {expert: 4}", "model has no expert"},
		"model of words":   {"name: a\nparts: [none]\nmodel: {experts: many}", "model.experts is many"},
		"summary a map":    {"name: a\nsummary: {}\nparts: [none]", "single value"},
		"not YAML":         {"name: [", "not YAML"},
	} {
		_, err := Define("x.yaml", []byte(c.text))
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v, want one line with %q", name, err, c.want)
		}
	}
	for name, c := range map[string]struct{ text, want string }{
		"two biases":     {"name: a\nparts: [loss-free, deepseek-v3]", "both bring a bias"},
		"two selections": {"name: a\nparts: [random, round-robin]", "both bring a selection"},
		"an unread bias": {"name: a\nparts: [loss-free, {hash: {}}]", "does not look at a bias"},
		"unread by all":  {"name: a\nparts: [loss-free, expert-choice]", "does not look at a bias"},
		"zero experts":   {"name: a\nparts: [null-experts, aux-loss]", "compute nothing"},
		"a factor":       {"name: a\nparts: [multiplicative-bias, {capacity: {rate: 0}}]", "as a factor"},
		"a bound":        {"name: a\nparts: [none, balanced-optimum]", "a bound"},
		"two scores":     {"name: a\nparts: [{none: {score: softmax}}, {loss-free: {score: sigmoid}}]", "the same score"},
	} {
		p, err := Define("x.yaml", []byte(c.text))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		spec, err := Parse("a", p)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		layer := layer16
		layer.Score = moe.Sigmoid
		if _, err := spec.Build(layer); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
	if _, err := Parse("missing.yaml"); err == nil || !strings.Contains(err.Error(), "missing.yaml") {
		t.Errorf("a file that is not there: %v", err)
	}
	file := filepath.Join(t.TempDir(), "mine.yaml")
	if err := os.WriteFile(file, []byte(v3File), 0o644); err != nil {
		t.Fatal(err)
	}
	if s, err := Parse(file + ":aux-loss.coeff=0.5"); err != nil || s.String() != "my-v3:aux-loss.coeff=0.5" {
		t.Errorf("%v, %v", s, err)
	}
}

func FuzzDefine(f *testing.F) {
	f.Add(v3File)
	f.Add("name: a\nparts:\n  - loss-free: {rate: 1e-3}\n  - random:\ngate: {scale: 2}\n")
	f.Add("name: a\nparts: [none, &x random, *x]")
	f.Fuzz(func(t *testing.T, text string) {
		p, err := Define("x.yaml", []byte(text))
		if err != nil {
			return
		}
		spec, err := Parse(p.Name, p)
		if err != nil {
			t.Fatalf("%q defines %s, which does not parse: %v", text, p.Name, err)
		}
		layer := layer16
		layer.Score = moe.Sigmoid
		if s, err := spec.Build(layer); err == nil {
			s.Traits()
		}
	})
}
