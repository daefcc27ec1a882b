package scenarios

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"evenkeel/moe"
)

func TestShippedScenariosLoad(t *testing.T) {
	for _, name := range Names() {
		s, err := Load(name, nil, -1)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if s.Name != name || s.About == "" {
			t.Errorf("%s calls itself %q, about %q", name, s.Name, s.About)
		}
		s.SettleSteps(true)
		text, err := s.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		again, err := Resolved("manifest.json", text)
		if err != nil {
			t.Errorf("%s does not survive its manifest: %v", name, err)
			continue
		}
		if twice, _ := again.Marshal(); string(twice) != string(text) {
			t.Errorf("%s changes in a manifest:\n%s\n%s", name, text, twice)
		}
	}
}

func TestMistakesNameTheirPlace(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"", "x.yaml is empty"},
		{"- 1", "x.yaml:1: a scenario file is a list of keys"},
		{"name: a\nexprts: 8", "x.yaml:2: exprts: unknown key (did you mean experts?)"},
		{"router:\n  rat: 1", "x.yaml:2: router.rat: unknown key (did you mean rate?)"},
		{"experts: 6.5", `x.yaml:1: experts: want a whole number, got "6.5"`},
		{"experts: many", `x.yaml:1: experts: want a whole number, got "many"`},
		{"experts: 1", "x.yaml:1: experts: 1 is out of range: it must be 2 to 4096 experts"},
		{"topk: 65", "x.yaml:1: topk: 65: it must be 1 to experts, which is 64"},
		{"experts: 64\ngroups: 7", "x.yaml:2: groups: 7: it must divide experts"},
		{"score: sigmod", "did you mean sigmoid?"},
		{"synthetic:\n  zipf: .nan", "x.yaml:2: synthetic.zipf: want a number"},
		{"synthetic:\n  energy: {type: 1, domain: 1}", "x.yaml:2: synthetic.energy: the shares sum to"},
		{"experts: 8\nexperts: 9", "x.yaml"},
		{"seeds: [1, 1]", "x.yaml:1: seeds: 1 is given twice"},
		{"events:\n  - {at: 900, kind: shift, shares: [1, 0, 0, 0]}",
			"events.0.at: step 900 is never reached, since the run has steps 0 to 499: give it at least 901 by --steps, or an earlier step by --set events.0.at=STEP"},
		{"events:\n  - {at: 9, kind: shift, shares: [1, 0, 0]}", "want 4 shares that sum to 1"},
		{"events:\n  - {at: 9, kind: shft}", "did you mean shift?"},
		{"events:\n  - {at: 9, kind: drift, until: 10}", "needs the key degrees"},
		{"a: [", "x.yaml"},
	} {
		_, err := read("x.yaml", "x", []byte(c.text), nil, -1, nil)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q gives %v, want %q", c.text, err, c.want)
		}
	}
}

// Groups alone are devices, also where the file spells out that it has none.
func TestGroupsAloneLimitNothing(t *testing.T) {
	for _, c := range []struct {
		scenario string
		settings []string
		kept     int
	}{
		{"pretraining", []string{"groups=8"}, 8},
		{"pretraining", []string{"groups=8", "groups_kept=3"}, 3},
		{"pretraining", []string{"groups_kept=1", "groups=8"}, 1},
		{"pretraining", []string{"groups=1"}, 1},
		{"uniform", []string{"groups=8"}, 8},
		{"w2-hot-rank", nil, 8},
		{"deepseek-v3", []string{"groups=16"}, 4},
		{"deepseek-v3", nil, 4},
		{"deepseek-v3", []string{"groups=1"}, 1},
		{"deepseek-v3", []string{"groups=1", "groups=8"}, 8}, // a model without groups, and devices
	} {
		if s, err := Load(c.scenario, c.settings, -1); err != nil || s.GroupsKept != c.kept {
			t.Errorf("%s %v: %v groups are kept, want %d (%v)", c.scenario, c.settings, s.GroupsKept, c.kept, err)
		}
	}
}

func TestSettingsReachEveryKey(t *testing.T) {
	s, err := Load("pretraining", []string{"experts=128", "topk=8", "tokens=1000", "steps=7", "score=softmax", "groups=4",
		"groups_kept=2", "width=32", "router.rate=0.5", "synthetic.domains.1.share=0.25", "synthetic.energy.type=0.5"}, -1)
	if err != nil {
		t.Fatal(err)
	}
	if s.Experts != 128 || s.TopK != 8 || s.Tokens != 1000 || s.Steps != 7 || s.Score != "softmax" || s.Groups != 4 ||
		s.GroupsKept != 2 || s.Width != 32 || s.Router.Rate != 0.5 {
		t.Errorf("settings were lost: %+v", s)
	}
	for setting, want := range map[string]string{"experts": "want key=value", "exprts=3": "--set: exprts: unknown key",
		"synthetic.domains.9.share=1": "no place in a list"} {
		if _, err := Load("pretraining", []string{setting}, -1); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("--set %s gives %v, want %q", setting, err, want)
		}
	}
}

// Tokens have RMS 1, batches cover their sequences, and the same moment gives the same bits in any order of tiles.
func TestStreamsAreReproducible(t *testing.T) {
	for _, name := range Names() {
		s, err := Load(name, []string{"tokens=600"}, -1)
		if err != nil {
			t.Fatal(err)
		}
		a, b := moe.NewBatch(s.Layer(), s.Tokens), moe.NewBatch(s.Layer(), s.Tokens)
		first, second, w := s.Stream(5), s.Stream(5), moe.NewScratch(s.Layer())
		m := moe.Moment{Step: 3, Index: 3}
		second.Layout(b, moe.Moment{Step: 2, Index: 2})
		second.Fill(b, 0, w)
		first.Layout(a, m)
		second.Layout(b, m)
		if a.Total != 600 || !s.Aggregate && (len(a.Tiles) != 10 || a.Tiles[9].Tokens != 600-9*64) {
			t.Fatalf("%s: %d tokens in %d tiles", name, a.Total, len(a.Tiles))
		}
		for i := range a.Tiles {
			first.Fill(a, i, w)
		}
		for i := range b.Tiles {
			second.Fill(b, len(b.Tiles)-1-i, w)
		}
		for i := range a.Tiles {
			if !slices.Equal(a.Tiles[i].Z, b.Tiles[i].Z) || !slices.Equal(a.Tiles[i].X, b.Tiles[i].X) ||
				a.Tiles[i].Token != b.Tiles[i].Token || a.Tiles[i].Key != b.Tiles[i].Key {
				t.Fatalf("%s: tile %d differs", name, i)
			}
		}
		if at := a.Sequences[len(a.Sequences)-1].To; at != a.Tokens {
			t.Errorf("%s: sequences end at %d", name, at)
		}
		if d := s.Layer().Width; d > 0 {
			var energy float64
			for k := range d {
				for l := range 64 {
					v := float64(a.Tiles[0].X[k*64+l])
					energy += v * v
				}
			}
			if rms := energy / float64(64*d); s.Trace == nil && (rms < 0.999 || rms > 1.001) || rms < 0.2 || rms > 4 {
				t.Errorf("%s: latent vectors have a mean square of %v", name, rms)
			}
		}
	}
}

// A pass of a trace takes every token once, and a batch goes on where the last one ended.
func TestReplayTakesEveryTokenOnce(t *testing.T) {
	s, err := Load("tinymoe", []string{"tokens=1500"}, -1)
	if err != nil {
		t.Fatal(err)
	}
	g := s.Stream(1).(*traceStream)
	b := moe.NewBatch(s.Layer(), s.Tokens)
	seen := make([]int, g.d.Tokens)
	for i := range 17 { // three passes of 8,192 tokens are 16.4 batches
		g.Layout(b, moe.Moment{Step: i, Index: i})
		for _, token := range g.source {
			seen[token]++
		}
	}
	for token, n := range seen {
		if n < 3 || n > 4 {
			t.Fatalf("token %d was taken %d times in 3.1 passes", token, n)
		}
	}
}

func TestBadTraces(t *testing.T) {
	dir := t.TempDir()
	whole, err := shipped.ReadFile("shipped/tinymoe.npz")
	if err != nil {
		t.Fatal(err)
	}
	truncated := filepath.Join(dir, "truncated.npz")
	if err := os.WriteFile(truncated, whole[:len(whole)/2], 0o600); err != nil {
		t.Fatal(err)
	}
	for ref, want := range map[string]string{
		"trace:" + filepath.Join(dir, "missing.npz"): "no such file",
		"trace:" + truncated:                         "truncated.npz",
		"trace:" + dir:                               "is a folder",
		"nonsuch":                                    "there is no scenario",
	} {
		if _, err := Load(ref, nil, -1); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s gives %v, want %q", ref, err, want)
		}
	}
	if _, err := Load("tinymoe", nil, 3); err == nil || !strings.Contains(err.Error(), "layer 3 does not exist") {
		t.Errorf("layer 3 gives %v", err)
	}
}

func FuzzScenario(f *testing.F) {
	for _, name := range Names() {
		if text, err := Source(name); err == nil && name != "tinymoe" {
			f.Add(text)
		}
	}
	f.Add([]byte("events:\n- {at: 1, kind: period, until: 9, period: 3, shares: [1,0,0,0]}"))
	f.Fuzz(func(t *testing.T, text []byte) {
		if strings.Contains(string(text), "trace") {
			return // would open files
		}
		s, err := read("fuzz.yaml", "fuzz", text, nil, -1, nil)
		if err != nil {
			return
		}
		if err := s.Layer().Validate(); err != nil {
			t.Fatalf("an invalid layer was accepted: %v", err)
		}
	})
}
