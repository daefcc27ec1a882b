package main

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"evenkeel/internal/npz"
	"evenkeel/scenarios"
	"evenkeel/sim"
	"evenkeel/strategies"
)

var update = flag.Bool("update", false, "rewrite golden files")

// small makes a comparison that takes a moment.
var small = []string{"compare", "--quiet", "--steps", "16", "--set", "tokens=128", "--set", "sequence_length=32", "--set", "experts=8",
	"--set", "topk=2", "--set", "width=8", "--set", "evaluation_tokens=512"}

func evenkeel(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, err bytes.Buffer
	code = run(context.Background(), args, &out, &err)
	return code, out.String(), err.String()
}

// golden compares text with a file of testdata; figures are part of it, since they are the same bits everywhere.
func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), got); d != "" {
		t.Errorf("%s differs (-want +got); if that is meant, run with -update:\n%s", file, d)
	}
}

func TestGoldenTexts(t *testing.T) {
	for name, args := range map[string][]string{
		"help.txt":                    {"--help"},
		"compare-help.txt":            {"compare", "--help"},
		"scenarios.txt":               {"scenarios"},
		"strategies.txt":              {"strategies"},
		"loss-free.txt":               {"strategies", "loss-free"},
		"table.txt":                   small,
		"table-v3.txt":                append(small, "-s", "random", "-s", "deepseek-v3", "--set", "groups=4", "--set", "groups_kept=2", "--seeds", "1"),
		"inspect.txt":                 {"inspect", "tinymoe"},
		"inspect-help.txt":            {"inspect", "--help"},
		"convert-help.txt":            {"convert", "--help"},
		"../../../docs/strategies.md": {"strategies", "--markdown"},
	} {
		t.Setenv("COLUMNS", "100")
		code, out, stderr := evenkeel(t, args...)
		for line := range strings.Lines(stderr) {
			if !strings.HasPrefix(line, "WARNING ") { // which --quiet does not silence
				t.Errorf("%s: %s", name, line)
			}
		}
		if code != 0 {
			t.Errorf("%s: exit %d", name, code)
		}
		golden(t, name, out)
	}
}

// Tables keep within the terminal.
func TestTableFitsTheTerminal(t *testing.T) {
	for _, width := range []string{"80", "120"} {
		t.Setenv("COLUMNS", width)
		_, out, _ := evenkeel(t, append(small, "-s", "none", "-s", "aux-loss:coeff=0.01,scope=sequence", "-s", "loss-free")...)
		for _, line := range strings.Split(out, "\n") {
			if n := len([]rune(line)); n > map[string]int{"80": 80, "120": 120}[width] {
				t.Errorf("at %s columns a line has %d: %s", width, n, line)
			}
		}
	}
}

func TestFolderAndManifest(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "deep", "out")
	code, printed, stderr := evenkeel(t, append(small, "--json", "--out", dir, "--workers", "1")...)
	if code != 0 || stderr != "" {
		t.Fatalf("exit %d: %s", code, stderr)
	}
	for _, f := range []string{"summary.json", "summary.csv", "steps.csv", "loads.csv", "manifest.json"} {
		if text, err := os.ReadFile(filepath.Join(dir, f)); err != nil || len(text) == 0 {
			t.Errorf("%s: %v", f, err)
		}
	}
	for _, figure := range []string{"load-heatmap", "maxvio", "balance-quality", "bias", "domains"} {
		for _, ext := range []string{".svg", ".png"} {
			if _, err := os.Stat(filepath.Join(dir, "plots", figure+ext)); err != nil {
				t.Error(err)
			}
		}
	}
	written, err := os.ReadFile(filepath.Join(dir, "summary.json"))
	if err != nil || string(written) != printed {
		t.Errorf("--json and summary.json differ: %v", err)
	}
	for _, word := range []string{"wall", dir, "workers"} {
		if strings.Contains(printed, word) {
			t.Errorf("the summary holds %q", word)
		}
	}
	again := filepath.Join(t.TempDir(), "again")
	code, repeated, stderr := evenkeel(t, "compare", "--from", filepath.Join(dir, "manifest.json"), "--json", "--out", again, "--workers", "3")
	if code != 0 || repeated != printed {
		t.Errorf("the manifest does not repeat the run: exit %d %s", code, stderr)
	}
	for _, f := range []string{"steps.csv", "loads.csv", "summary.csv"} {
		a, _ := os.ReadFile(filepath.Join(dir, f))
		b, _ := os.ReadFile(filepath.Join(again, f))
		if !bytes.Equal(a, b) {
			t.Errorf("%s of the repeated run differs", f)
		}
	}
}

// The JSON contract that programs build on.
func TestSummaryContract(t *testing.T) {
	_, out, _ := evenkeel(t, append(small, "--json", "--seeds", "1", "-s", "aux-loss:coeff=0.1", "-s", "loss-free", "-s", "balanced-optimum")...)
	var s summary
	d := json.NewDecoder(strings.NewReader(out))
	d.DisallowUnknownFields()
	if err := d.Decode(&s); err != nil {
		t.Fatal(err)
	}
	if s.Version != 1 || s.Scenario.Tokens != 128 || s.Scenario.Experts != 8 || s.Scenario.TopK != 2 || len(s.Seeds) != 1 {
		t.Errorf("summary is %+v", s)
	}
	aux, free, best := s.Strategies[0], s.Strategies[1], s.Strategies[2]
	if aux.Spec != "aux-loss:coeff=0.1" || aux.Name != "aux-loss" || !aux.Causal || aux.Learned != "router" || best.Causal || best.Learned != "nothing" {
		t.Errorf("strategies are %+v", s.Strategies)
	}
	if m := aux.Metrics["maxvio_batch"]; m.Mean == nil || m.Low != nil || m.Floor == nil {
		t.Errorf("with one seed a metric is %+v", m)
	}
	if _, ok := aux.Metrics["bias_spread"]; ok {
		t.Error("a loss has a bias_spread")
	}
	if _, ok := free.Metrics["bias_spread"]; !ok {
		t.Error("a bias has no bias_spread")
	}
	if _, ok := aux.Metrics["drop_rate"]; ok {
		t.Error("a dropless strategy has a drop_rate")
	}
	if len(s.Differences) == 0 || s.Differences[0].A != aux.Spec || s.Differences[0].B != free.Spec {
		t.Errorf("differences are %+v", s.Differences)
	}
}

// npzOf writes a trace of the given arrays.
func npzOf(t *testing.T, arrays ...npz.Array) string {
	t.Helper()
	var b bytes.Buffer
	if err := npz.Write(&b, arrays); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(t.TempDir(), "trace.npz")
	if err := os.WriteFile(name, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func float16s(shape []int, bits ...uint16) npz.Array {
	n := 1
	for _, d := range shape {
		n *= d
	}
	data := make([]byte, 2*n)
	for i, b := range bits {
		data[2*i], data[2*i+1] = byte(b), byte(b>>8)
	}
	return npz.Array{Name: "logits", DType: npz.Float16, Shape: shape, Data: data}
}

func TestBadRequests(t *testing.T) {
	notANumber := npzOf(t, float16s([]int{3, 4}, 0, 0, 0, 0, 0, 0, 0x7e00))
	infinite := npzOf(t, float16s([]int{2, 3, 4}, 0, 0, 0, 0, 0x7c00))
	choices := npzOf(t, npz.Array{Name: "topk_ids", DType: npz.Uint8, Shape: []int{4, 2}, Data: []byte{0, 1, 2, 3, 0, 2, 1, 3}})
	padded := npzOf(t, npz.Array{Name: "topk_ids", DType: npz.Int8, Shape: []int{2, 3}, Data: []byte{0, 255, 255, 1, 255, 255}})
	noK := npzOf(t, float16s([]int{3, 4}))
	wrongType := npzOf(t, float16s([]int{3, 4}), npz.Array{Name: "domain", DType: npz.Float16, Shape: []int{3}, Data: make([]byte, 6)})
	longer := npzOf(t, float16s([]int{3, 4}), npz.Array{Name: "seq_lens", DType: npz.Uint8, Shape: []int{1}, Data: []byte{4}})
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte("not a zip"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args string
		want string
	}{
		{"compare --scenario trace:/nonexistent.npz", "/nonexistent.npz: no such file"},
		{"compare --scenario trace:" + file, "file"},
		{"compare --scenario trace:" + notANumber + " --set topk=2", "logits of layer 0 is NaN at token 1, expert 2"},
		{"compare --scenario trace:" + infinite + " --set topk=2", "logits of layer 0 is +Inf at token 1, expert 0"},
		{"compare --scenario trace:" + noK, "add --set topk=K"},
		{"compare --scenario trace:" + noK + " --set topk=9", "topk: 9: it must be 1 to experts, which is 4"},
		{"compare --scenario trace:" + noK + " --set topk=2 --set experts=5", "leave the key out"},
		{"compare --scenario trace:" + noK + " --set topk=2 -s aux-loss:scope=sequence", "seq_lens"},
		{"compare --scenario trace:" + wrongType + " --set topk=2", "domain"},
		{"compare --scenario trace:" + longer + " --set topk=2", "seq_lens sum to 4, but the trace has 3 tokens"},
		{"compare --scenario trace:" + choices + " -s none", "holds choices only"},
		{"compare --set topk=65", "topk: 65: it must be 1 to experts, which is 64"},
		{"compare --set groups=7", "it must divide experts"},
		{"compare --set epxerts=8", "did you mean experts?"},
		{"compare -s lossfree", "did you mean loss-free?"},
		{"compare -s none -s none", "asked for twice"},
		{"compare -s aux-loss --router frozen", "use --router learned"},
		{"compare --router frosen", "must be frozen or learned"},
		{"compare --steps 0", "--steps is 0"},
		{"compare --kernel sse", "this machine can run"},
		{"bench --shape E", "must be A, B, C, D or all"},
		{"bench --set vocabulary=3", "bench knows"},
		{"bench --set experts=4 --shape A", "topk"},
		{"bench --seconds 0", "above 0"},
		{"bench --stratgey none", "did you mean --strategy"},
		{"compare --seeds 0", "must be 1 to"},
		{"compare --layer 1", "picks a layer of a trace"},
		{"compare --layers all", "scenario pretraining is not one"},
		{"compare --scenario tinymoe --layers 0,1", "layer 1 does not exist, embedded:tinymoe.npz has layers 0 to 0"},
		{"compare --scenario tinymoe --layers 0,-1", "layer -1 does not exist"},
		{"compare --scenario tinymoe --layers first", "write all, or layers such as 0,3,5"},
		{"compare --scenario tinymoe --layers=", "write all, or layers such as 0,3,5"},
		{"compare --scenario tinymoe --layers 0,0", "layer 0 is asked for twice"},
		{"compare --scenario tinymoe --layers all --layer 0", "leave out --layer"},
		{"compare --layers all --from x.json", "leave out --from"},
		{"compare --scenario trace:" + infinite + " --set topk=2 --layers 1,0", "logits of layer 0 is +Inf"},
		{"compare --scenario trace:" + choices + " --layers all", "holds choices only"},
		{"compare --sedes 2", "did you mean --seeds?"},
		{"compare none", "named with -s"},
		{"compare --out " + filepath.Join(file, "below"), "--out"},
		{"compare --from /nonexistent.json", "no such file"},
		{"compare --from " + file, "not a manifest"},
		{"compare --from " + file + " --steps 3", "leave out --steps"},
		{"scenarios shfit", "did you mean shift?"},
		{"strategies nnoe", "did you mean none?"},
		{"inspect /nonexistent.npz", "no such file"},
		{"inspect " + noK, "add --set topk=K"},
		{"inspect " + padded, "topk_ids has 3 choices per token, but there are 2 experts"},
		{"inspect tinymoe --layer 1", "layer 1 does not exist"},
		{"inspect tinymoe --layer -1", "counted from 0"},
		{"inspect tinymoe --ranks 7", "--ranks is 7: it must divide the experts"},
		{"inspect tinymoe --ranks -1", "--ranks is -1"},
		{"inspect tinymoe --batch 0", "--batch is 0"},
		{"inspect tinymoe --sections lods", "did you mean loads?"},
		{"inspect " + choices + " --set score=softmax", "holds no logits"},
		{"inspect --threshold 3 " + noK, "there is no flag --threshold: see evenkeel inspect --help"},
		{"cmpare", "did you mean compare?"},
	} {
		code, out, stderr := evenkeel(t, strings.Fields(c.args)...)
		if code != exitRequest || out != "" || !strings.Contains(stderr, c.want) {
			t.Errorf("evenkeel %s: exit %d, printed %q and %q, want exit 2 and %q", c.args, code, out, stderr, c.want)
		}
	}
}

// A folder that fills up in the middle leaves whole files only, and no manifest.
func TestUnwritableFilesLeaveNothingHalfWritten(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "steps.csv", "taken"), 0o755); err != nil {
		t.Fatal(err)
	}
	code, _, stderr := evenkeel(t, append(small, "--out", dir)...)
	if code != exitFailed || !strings.Contains(stderr, "steps.csv was not written") {
		t.Errorf("exit %d: %s", code, stderr)
	}
	left, err := filepath.Glob(filepath.Join(dir, ".*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	if _, err := os.Stat(filepath.Join(dir, "manifest.json")); err == nil {
		t.Error("there is a manifest")
	}
}

func TestBench(t *testing.T) {
	code, out, stderr := evenkeel(t, "bench", "--json", "--seconds", "0.001", "--set", "experts=10", "--set", "topk=3", "--set", "width=8",
		"--set", "tokens=130", "-s", "none", "-s", "aux-loss")
	if code != 0 {
		t.Fatalf("exit %d: %s", code, stderr)
	}
	var r benchReport
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		t.Fatal(err)
	}
	if !(r.Limits.GFlops > 0) || !(r.Limits.Bandwidth > 0) || len(r.Shapes) != 1 || r.Shapes[0].Experts != 10 || r.Shapes[0].Tokens != 130 {
		t.Errorf("report %+v", r)
	}
	for _, x := range append(r.Shapes[0].Kernels, r.Shapes[0].Steps...) {
		if !(x.NsToken > 0) || x.Best > x.NsToken {
			t.Errorf("%s takes %v ns, at best %v", x.Name, x.NsToken, x.Best)
		}
	}
	if last := r.Shapes[0].Steps[3].Name; last != "compare: none, aux-loss" {
		t.Errorf("the last step is %q", last)
	}
}

// Every command of the README exists with its flags, and its scenario and strategies do too.
func TestReadmeCommands(t *testing.T) {
	text, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	commands := regexp.MustCompile(`(?m)^go run \./cmd/evenkeel ([^#\n]*)`).FindAllStringSubmatch(string(text), -1)
	if len(commands) < 5 {
		t.Fatalf("the README shows %d commands", len(commands))
	}
	// The README's strategy file is used as it stands there.
	rule := filepath.Join(t.TempDir(), "even-and-soft.yaml")
	if err := os.WriteFile(rule, []byte(regexp.MustCompile("(?s)```yaml\n(.*?)```").FindStringSubmatch(string(text))[1]), 0o644); err != nil {
		t.Fatal(err)
	}
	rates := filepath.Join(t.TempDir(), "rates") // of a sweep, which later commands look at
	for _, c := range commands {
		args := strings.Fields(strings.ReplaceAll(c[1], "even-and-soft.yaml", rule))
		for i, a := range args {
			if a == "rates" || a == "rates.png" {
				args[i] = strings.Replace(a, "rates", rates, 1)
			}
		}
		if args[0] == "sweep" {
			args = append(args, "--steps", "2", "--set", "sequence_length=32", "--set", "evaluation_tokens=64", "--seeds", "2")
		}
		if strings.Contains(c[1], "router.npz") || strings.Contains(c[1], "--from") {
			continue // the reader's own file
		}
		if args[0] == "compare" || args[0] == "frontier" {
			args = append(args, "--steps", "2", "--set", "tokens=64", "--seeds", "1", "--out", t.TempDir())
			if args[0] == "frontier" {
				args = append(args, "--points", "2", "--refine", "0")
			}
			if !strings.Contains(c[1], "tinymoe") {
				args = append(args, "--set", "evaluation_tokens=64")
			}
		}
		if args[0] == "bench" {
			args = append(args, "--shape", "C", "--seconds", "0.001")
		}
		if code, _, stderr := evenkeel(t, args...); code != 0 {
			t.Errorf("evenkeel %s: exit %d, %s", c[1], code, stderr)
		}
	}
	for _, name := range scenarios.Names() {
		if code, out, _ := evenkeel(t, "scenarios", name); code != 0 || !strings.Contains(out, "name: "+name) {
			t.Errorf("scenarios %s: exit %d", name, code)
		}
	}
}

func TestColumnsAndSorting(t *testing.T) {
	t.Setenv("COLUMNS", "100")
	code, out, stderr := evenkeel(t, append(small, "-s", "none", "-s", "random", "-s", "round-robin", "--columns", "churn,maxvio_batch", "--sort", "maxvio_batch", "--seeds", "1")...)
	if code != 0 {
		t.Fatal(stderr)
	}
	var order []string
	for line := range strings.Lines(out) {
		for _, name := range []string{"none", "random", "round-robin"} {
			if f := strings.Fields(line); len(f) == 3 && f[0] == name {
				order = append(order, name)
			}
		}
	}
	if d := cmp.Diff([]string{"round-robin", "random", "none"}, order); d != "" {
		t.Errorf("rows of two columns, sorted (-want +got):\n%s\n%s", d, out)
	}
	for _, wrong := range [][]string{{"--columns", "maxvio"}, {"--sort", "churns"}, {"--all", "-s", "none"}} {
		if code, _, stderr := evenkeel(t, append(small, wrong...)...); code != exitRequest || stderr == "" {
			t.Errorf("%v: exit %d, %q", wrong, code, stderr)
		}
	}
}

// --all runs what the scenario permits, and says of the others why it does not.
func TestRecoveryOfEachEvent(t *testing.T) {
	file := filepath.Join(t.TempDir(), "two.yaml")
	text := "name: two\nabout: two events\nevents:\n  - {at: 40, kind: shift, shares: [0.1, 0.2, 0.3, 0.4]}\n  - {at: 80, kind: popularity}\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	args := []string{"compare", "--scenario", file, "-s", "none", "-s", "balanced-optimum", "-s", "loss-free:rate=0.05", "--set", "steps=120", "--set", "tokens=512", "--set", "evaluation_tokens=1024", "--quiet"}
	code, out, stderr := evenkeel(t, append(args, "--columns", "recovery_steps,churn")...)
	if line := regexp.MustCompile(`steps\s+in\s+which\s+loss-free:rate=0.05\s+settles:[^-]+after\s+step\s+40,[^-]+after\s+step\s+80\n`); code != 0 || !line.MatchString(out) {
		t.Errorf("exit %d, %s%s", code, stderr, out)
	}
	if strings.Contains(out, "which balanced-optimum settles") {
		t.Errorf("a bound settles: %s", out)
	}
	if _, out, _ = evenkeel(t, append(args, "--json")...); strings.Count(out, `"seeds_settled"`) != 4 || !strings.Contains(out, `"label": "popularity redrawn"`) {
		t.Errorf("the summary lacks recoveries: %s", out)
	}
}

func TestAll(t *testing.T) {
	code, out, stderr := evenkeel(t, append(small, "--all", "--json", "--router", "frozen", "--seeds", "1")...)
	if code != 0 {
		t.Fatal(stderr)
	}
	var s summary
	if err := json.Unmarshal([]byte(out), &s); err != nil {
		t.Fatal(err)
	}
	listed := map[string]bool{}
	for _, x := range s.Strategies {
		listed[x.Name] = true
	}
	for _, x := range s.LeftOut {
		listed[x.Spec] = true
		if x.Reason == "" {
			t.Errorf("%s is left out without a reason", x.Spec)
		}
	}
	for _, p := range strategies.Presets() {
		if !listed[p.Name] {
			t.Errorf("%s is neither run nor left out", p.Name)
		}
	}
	if !listed["aux-loss"] || len(s.LeftOut) == 0 {
		t.Error("a loss on a frozen router is not left out")
	}
}

// Groups beside a model that has none are devices, and limit nothing.
func TestGroupsBesideAModel(t *testing.T) {
	for args, limited := range map[string]bool{"--model olmoe --set groups=8": false, "--model olmoe --scenario deepseek-v3": false, "--model deepseek-v3": true} {
		code, out, stderr := evenkeel(t, append(strings.Fields("compare -s none --steps 2 --seeds 1 --set tokens=128 --set sequence_length=32 --set evaluation_tokens=128"), strings.Fields(args)...)...)
		if code != 0 || strings.Contains(out, " of 8 groups") != limited {
			t.Errorf("%s: exit %d, %s%s", args, code, stderr, out)
		}
	}
}

// A scenario whose router is frozen runs without naming a strategy: the losses of the default comparison are left out.
func TestDefaultOnAFrozenRouter(t *testing.T) {
	t.Setenv("COLUMNS", "100")
	for _, name := range []string{"decode", "drafts"} {
		code, out, stderr := evenkeel(t, "compare", "--scenario", name, "--steps", "20", "--seeds", "2", "--set", "evaluation_tokens=4096")
		if code != 0 || !strings.Contains(out, "aux-loss:coeff=0.3: has a loss, which does nothing to a\nfrozen router") || !strings.Contains(out, " loss-free ") {
			t.Errorf("%s: exit %d, %s%s", name, code, stderr, out)
		}
		if !strings.Contains(out, "settled_step is that of the one seed of 2 that has one") {
			t.Errorf("%s: nothing of the seed that settled: %s", name, out)
		}
	}
	dir := t.TempDir()
	if code, _, stderr := evenkeel(t, append(small, "--router", "frozen", "--out", dir)...); code != 0 {
		t.Fatal(stderr)
	}
	if code, _, stderr := evenkeel(t, "compare", "--quiet", "--from", filepath.Join(dir, "manifest.json")); code != 0 {
		t.Errorf("the manifest cannot be repeated: %s", stderr)
	}
}

func TestFrontierSaysWhatItHides(t *testing.T) {
	args := append([]string{"frontier", "-s", "loss-free", "--points", "2", "--refine", "0", "--seeds", "2"}, small[1:]...)
	args = append(args, "--quiet=false")
	for columns, hidden := range map[string]bool{"60": true, "100": false} {
		t.Setenv("COLUMNS", columns)
		code, out, stderr := evenkeel(t, args...)
		if code != 0 || strings.Contains(out, "Not shown in "+columns+" columns: output error") != hidden {
			t.Errorf("%s columns: exit %d, %s%s", columns, code, stderr, out)
		}
	}
}

func TestFrontier(t *testing.T) {
	dir := t.TempDir()
	args := append([]string{"frontier"}, small[1:]...)
	args = append(args, "-s", "aux-loss", "-s", "loss-free:rate=1e-3..1e-1", "-s", "round-robin", "--points", "3", "--refine", "1", "--seeds", "2")
	code, out, stderr := evenkeel(t, append(args, "--json", "--out", dir)...)
	if code != 0 {
		t.Fatal(stderr)
	}
	_, text, stderr := evenkeel(t, append(args, "--quiet=false")...)
	if !strings.Contains(strings.ReplaceAll(text, "\n", " "), "each interval is of its pair alone") {
		t.Errorf("%s%s", text, stderr)
	}
	// The table's quality is that of its strategies: the loss's first point is none, which has both figures.
	for _, line := range strings.Split(text, "\n") {
		if f := strings.Fields(line); len(f) > 1 && f[0] == "aux-loss" && (strings.Count(line, "±") != 3 || !strings.Contains(text, "lost, %") || !strings.Contains(text, "error")) {
			t.Errorf("no quality in %q", line)
		}
	}
	var f frontierJSON
	if err := json.Unmarshal([]byte(out), &f); err != nil {
		t.Fatal(err)
	}
	if len(f.Curves) != 3 || len(f.Equal) != 3 || f.Bound == nil {
		t.Fatalf("%d curves, %d pairs, bound %v", len(f.Curves), len(f.Equal), f.Bound)
	}
	// The loss begins at none, has three strengths and one between; the bias has no strength 0.
	if n := len(f.Curves[0].Points); n != 5 || f.Curves[0].Points[0].Spec != "none" || f.Curves[0].Points[0].Value != nil {
		t.Errorf("the loss's curve has %d points, the first %+v", n, f.Curves[0].Points[0])
	}
	if n := len(f.Curves[1].Points); n != 4 || *f.Curves[1].Points[0].Value != 1e-3 || *f.Curves[1].Points[n-1].Value != 0.1 {
		t.Errorf("the bias's curve has %d points", n)
	}
	for _, c := range f.Curves {
		for i, p := range c.Points {
			if i > 0 && p.Value != nil && c.Points[i-1].Value != nil && *p.Value <= *c.Points[i-1].Value {
				t.Errorf("%s: strengths do not ascend", c.Family)
			}
		}
	}
	for _, file := range []string{"frontier.json", "summary.json", "manifest.json", "plots/frontier.svg", "plots/frontier.png"} {
		if info, err := os.Stat(filepath.Join(dir, file)); err != nil || info.Size() == 0 {
			t.Errorf("%s: %v", file, err)
		}
	}
	// The manifest repeats every point.
	code, again, stderr := evenkeel(t, "compare", "--from", filepath.Join(dir, "manifest.json"), "--json")
	if code != 0 {
		t.Fatal(stderr)
	}
	var s summary
	if err := json.Unmarshal([]byte(again), &s); err != nil {
		t.Fatal(err)
	}
	values := map[string]float64{}
	for _, x := range s.Strategies {
		values[x.Spec] = *x.Metrics["maxvio_global"].Mean
	}
	for _, c := range f.Curves {
		for _, p := range c.Points {
			if got, ok := values[p.Spec]; !ok || got != *p.Metrics["maxvio_global"].Mean {
				t.Errorf("%s: %v from the manifest, %v in the frontier", p.Spec, got, *p.Metrics["maxvio_global"].Mean)
			}
		}
	}
	for _, wrong := range [][]string{{"--points", "1"}, {"--at", "0"}, {"--at", "x"}, {"-s", "loss-free:rate=2..1"}, {"-s", "nope"}, {"--refine", "-1"}, {"--sort", "churn"}} {
		if code, _, stderr := evenkeel(t, append(append([]string{"frontier"}, small[1:]...), wrong...)...); code != exitRequest || stderr == "" {
			t.Errorf("%v: exit %d, %q", wrong, code, stderr)
		}
	}
}

// A strategy file runs beside built-in strategies, and the manifest repeats it without the file.
func TestStrategyFile(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "mine.yaml")
	text := "name: mine\nparts:\n  - loss-free: {rate: 0.01}\n  - aux-loss: {coeff: 0.001, scope: sequence}\nstrength: loss-free.rate\n"
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	args := append(small, "-s", "none", "-s", file, "-s", file+":aux-loss.coeff=0.1", "--json")
	code, first, stderr := evenkeel(t, append(args, "--out", filepath.Join(dir, "out"))...)
	if code != 0 {
		t.Fatal(stderr)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	code, again, stderr := evenkeel(t, "compare", "--from", filepath.Join(dir, "out", "manifest.json"), "--json")
	if code != 0 || first != again {
		t.Errorf("exit %d, %s; the manifest repeats the bits: %v", code, stderr, first == again)
	}
	if !strings.Contains(first, `"spec": "mine:aux-loss.coeff=0.1"`) {
		t.Error("the spec of a file with a knob is not there")
	}
	if code, _, stderr := evenkeel(t, args...); code != exitRequest || !strings.Contains(stderr, "mine.yaml") {
		t.Errorf("a file that is gone: exit %d, %s", code, stderr)
	}
}

// Every model's recipe runs on its own shape, without a warning that it does not fit.
func TestModels(t *testing.T) {
	models := strategies.Models()
	if len(models) < 13 {
		t.Errorf("there are %d models: %v", len(models), models)
	}
	for _, name := range models {
		code, out, stderr := evenkeel(t, "compare", "--model", name, "-s", "none", "-s", name, "--steps", "2", "--seeds", "1",
			"--set", "tokens=128", "--set", "sequence_length=32", "--set", "evaluation_tokens=128", "--set", "width=16", "--json")
		if code != 0 {
			t.Errorf("%s: exit %d, %s", name, code, stderr)
			continue
		}
		var s summary
		if err := json.Unmarshal([]byte(out), &s); err != nil {
			t.Fatal(err)
		}
		m, _ := strategies.FindModel(name)
		if s.Scenario.Experts != m.Experts || s.Scenario.TopK != m.TopK || s.Scenario.Groups != m.Groups || s.Scenario.Score != m.Score {
			t.Errorf("%s runs on %+v", name, s.Scenario)
		}
		for _, n := range append(s.Strategies[1].Notes, s.Strategies[1].Warnings...) {
			if strings.Contains(n, "another shape") || strings.Contains(n, "scores by") {
				t.Errorf("%s on its own model: %s", name, n)
			}
		}
	}
	for _, wrong := range []string{"v3", "loss-free"} {
		if code, _, stderr := evenkeel(t, append(small, "--model", wrong)...); code != exitRequest || !strings.Contains(stderr, "--model") {
			t.Errorf("--model %s: exit %d, %s", wrong, code, stderr)
		}
	}
}

// Several intervals are not one: that each is of its comparison alone is said once, at the end.
func TestConclusionsAreNotCorrected(t *testing.T) {
	low, high := -0.5, -0.1
	c := sim.EqualQuality{Strategy: "loss-free", Family: "aux-loss", MaxVio: 0.1, OnCurve: 0.2, Kept: 0.9, LogRatio: -0.3, Low: &low, High: &high}
	for n, want := range []int{0, 0, 1} {
		r := &sim.Result{Seeds: []uint64{1, 2, 3}, Comparisons: []sim.EqualQuality{c, c}[:n]}
		if got := strings.Count(strings.Join(conclusions(r), " "), "not widened for the number of 2"); got != want {
			t.Errorf("%d comparisons: said %d times, want %d", n, got, want)
		}
	}
}
