package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"evenkeel/plots"
	"evenkeel/sim/stat"
	"evenkeel/sweep"
	"evenkeel/sweep/design"
)

// tiny makes the cells of a sweep take a millisecond.
var tiny = []string{"--set", "experts=8", "--set", "topk=2", "--set", "width=8", "--set", "sequence_length=16", "--set", "micro_batches=1", "--set", "evaluation_tokens=64",
	"--set", "tokens=64", "--steps", "9", "--seeds", "3"}

// sweeping is the command line of a tiny sweep.
func sweeping(dir string, more ...string) []string {
	return append(append([]string{"sweep", "--quiet", "--out", dir}, tiny...), more...)
}

func TestHelpOfSweeps(t *testing.T) {
	t.Setenv("COLUMNS", "100")
	for _, command := range []string{"sweep", "run", "collect", "table"} {
		code, out, said := evenkeel(t, command, "--help")
		if code != 0 || said != "" {
			t.Errorf("%s --help: exit %d: %s", command, code, said)
		}
		golden(t, command+"-help.txt", out)
	}
}

// What was wrong is said in one sentence, and nothing is left behind.
func TestBadRequestsOfSweeps(t *testing.T) {
	dir := t.TempDir()
	out := filepath.Join(dir, "out")
	swept := filepath.Join(dir, "swept")
	if code, _, said := evenkeel(t, sweeping(swept, "-s", "none", "-s", "loss-free", "--vary", "tokens=32,64")...); code != 0 {
		t.Fatal(said)
	}
	plan := filepath.Join(swept, "plan.json")
	write := func(name, text string) string {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return file
	}
	broken, other := write("broken.json", `{"format": 1`), write("other.json", `{"format": 7}`)
	taken := filepath.Join(dir, "taken")
	if err := os.MkdirAll(taken, 0o755); err != nil {
		t.Fatal(err)
	}
	write("taken/thesis.tex", "")
	planned := filepath.Join(dir, "planned")
	if code, _, said := evenkeel(t, sweeping(planned, "-s", "none", "--plan-only")...); code != 0 {
		t.Fatal(said)
	}
	s := func(more ...string) []string { return sweeping(out, more...) }
	for _, x := range []struct {
		args []string
		code int
		said string
	}{
		{[]string{"sweep"}, 2, "--out is missing"},
		{s(), 2, "there is no strategy: name some by -s, or a knob to vary"},
		{s("-s", "nope"), 2, `there is no strategy "nope"; did you mean none?`},
		{s("-s", "none", "--vary", "tokns=1,2"), 2, "did you mean tokens?"},
		{s("-s", "none", "--vary", "tokens"), 2, "write NAME=VALUES"},
		{s("-s", "none", "--vary", "tokens=0,64"), 2, "--vary tokens: with 0 it cannot run: tokens: 0 is out of range"},
		{s("-s", "none", "--vary", "tokens=many"), 2, `--vary: with tokens=many it cannot run: tokens: want a whole number`},
		{s("-s", "none", "--vary", "tokens=32,64", "--set", "expert=8"), 2, "--set: expert: unknown key (did you mean experts?)"},
		{s("-s", "none", "--vary", "strategy=none,random"), 2, "-s names a strategy"},
		{s("-s", "none", "--tokens", "3"), 2, "there is no flag --tokens: see evenkeel sweep --help"},
		{s("-s", "none", "--vary", "tokens=lin:1..5"), 2, "has no number of values"},
		{s("-s", "none", "--vary", "tokens=1", "--vary", "tokens=2"), 2, "varied twice"},
		{s("--vary", "loss-free.rat=1"), 2, "did you mean rate?"},
		{s("--vary", "loss-free.rate=-1"), 2, "rate is -1"},
		{s("-s", "none", "--vary", "los-free.rate=1"), 2, `there is no strategy "los-free"; did you mean loss-free?`},
		{s("-s", "none", "--vary", "seeds=1,2"), 2, "seeds are no axis"},
		{s("-s", "none", "--vary", "name=a,b"), 2, "only describes a scenario"},
		{s("-s", "none", "--vary", "tokens=1,2", "--vary", "width=1,2,3", "--design", "zip"), 2, "zip"},
		{s("-s", "none", "--design", "lhs"), 2, "lhs:N"},
		{s("-s", "none", "--design", "foo"), 2, "nor a search: halving:N, cma-es:N, nsga2:PxG or ask"},
		{s("-s", "none", "--objective", "maxvio_global"), 2, "--objective is for searches"},
		{s("-s", "none", "--vary", "tokens=32,64", "--design", "cma-es:4"), 2, "needs something to make better"},
		{s("-s", "none", "--vary", "tokens=32,64", "--design", "cma-es:x", "--objective", "maxvio_global"), 2, "want cma-es:N"},
		{s("-s", "none", "--vary", "tokens=32,64", "--design", "nsga2:4", "--objective", "maxvio_global"), 2, "want nsga2:PxG"},
		{s("-s", "none", "--vary", "tokens=32,64", "--design", "halving:4", "--objective", "speed"), 2, `there is no metric "speed"`},
		{s("-s", "none", "--vary", "tokens=32,64", "--design", "halving:4", "--objective", "mean:maxvio_global"), 2, "min:METRIC or max:METRIC"},
		{s("-s", "none", "--vary", "tokens=32,64", "--design", "halving:4", "--objective", "churn", "--objective", "maxvio_global"), 2, "one objective, and 2 are named"},
		{s("-s", "none", "-s", "loss-free", "--vary", "tokens=32,64", "--design", "cma-es:4", "--objective", "maxvio_global"), 2, "one strategy, and 2 are named"},
		{s("-s", "none", "--design", "cma-es:4", "--objective", "maxvio_global"), 2, "has nothing to choose"},
		{s("-s", "none", "--vary", "tokens=32,64", "--design", "cma-es:4", "--objective", "maxvio_global", "--dry-run"), 2, "there is no plan beforehand"},
		{s("-s", "none", "--vary", "tokens=32,64", "--design", "ask:4"), 2, "leave out its size"},
		{s("-s", "none", "--vary", "loss-free.rate=1e-3,1e-2", "--design", "cma-es:4", "--objective", "maxvio_global"), 2, "name none and loss-free: sweep each alone"},
		{s("--vary", "smebu.rate=1e-3,1e-2", "--vary", "loss-free.rate=1e-3,1e-2", "--design", "ask"), 2, "name smebu and loss-free: sweep each alone"},
		{s("-s", "none", "--record-loads"), 2, "--record-loads keeps the loads at the steps"},
		{s("-s", "none", "--workers", "-1"), 2, "--workers is -1"},
		{s("-s", "none", "--scenario", "nowhere"), 2, `there is no scenario "nowhere"`},
		{s("-s", "none", "--set", "experts"), 2, "want key=value"},
		{s(filepath.Join(dir, "absent.yaml")), 2, "absent.yaml: no such file or directory"},
		{s(write("bad.yaml", "[1, 2]")), 2, "must be a mapping of the words of evenkeel sweep"},
		{s(write("empty.yaml", "")), 2, "empty.yaml: it is empty"},
		{s(write("word.yaml", "strategies: [none]")), 2, `line 1: there is no word "strategies" (did you mean strategy?)`},
		{s(write("twice.yaml", "strategy: none\nstrategy: none")), 2, "twice"},
		{s(write("alias.yaml", "strategy: &a [none]\nvary: *a")), 2, "line 2: vary: it must be a value, a list or a mapping, without aliases"},
		{s(write("type.yaml", "strategy: none\ndesign-seed: many")), 2, `line 2: design-seed is "many"`},
		{sweeping(taken, "-s", "none"), 2, "taken is no folder of a sweep and holds other files, such as thesis.tex: name another folder"},
		{sweeping(swept, "-s", "none"), 2, "holds the results of another plan"},

		{[]string{"run"}, 2, "--plan and --out are needed"},
		{[]string{"run", "--plan", filepath.Join(dir, "absent.json"), "--out", out}, 2, "absent.json: no such file or directory"},
		{[]string{"run", "--plan", broken, "--out", out}, 2, "broken.json: is no plan of a sweep: unexpected EOF"},
		{[]string{"run", "--plan", other, "--out", out}, 2, fmt.Sprintf("has format 7, and this program writes and reads %d", sweep.Format)},
		{[]string{"run", "--plan", swept, "--out", out}, 2, swept + " is a folder, and a plan is a file, such as " + plan},
		{[]string{"run", "--plan", plan, "--out", out, "--shard", "0/4"}, 2, `shard "0/4": want i/n`},
		{[]string{"run", "--plan", plan, "--out", out, "--shard", "5/4"}, 2, `shard "5/4": want i/n`},
		{[]string{"run", "--plan", plan, "--out", out, "--shard", "4"}, 2, `shard "4": want i/n`},
		{[]string{"run", "--plan", plan, "--out", out, "--workers", "-2"}, 2, "--workers is -2"},
		{[]string{"run", "--plan", plan, "--out", planned}, 2, "holds the results of another plan"},
		{[]string{"run", "--plan", plan, "--out", taken}, 2, "name another folder"},

		{[]string{"collect"}, 2, "collect needs the folder of a sweep"},
		{[]string{"collect", filepath.Join(dir, "absent")}, 2, "no such file or directory"},
		{[]string{"collect", taken}, 2, "plan.json: no such file or directory"},
		{[]string{"collect", planned}, 75, "of the 3 cells of " + planned + " 3 are missing: run their shards"},
		{[]string{"collect", swept, planned}, 1, "holds the results of another plan"},

		{[]string{"table"}, 2, "table needs the folder of one sweep"},
		{[]string{"table", swept, swept}, 2, "table needs the folder of one sweep"},
		{[]string{"table", taken}, 2, "is no folder of a sweep"},
		{[]string{"table", swept, "--metric", "speed"}, 2, `the sweep has no metric "speed"`},
		{[]string{"table", swept, "--metric", "steps.maxvio"}, 2, "the sweep kept no steps"},
		{[]string{"table", swept, "--metric", ","}, 2, "--metric names nothing"},
		{[]string{"table", swept, "--row", "tokns"}, 2, `the sweep has no column "tokns" (did you mean tokens?)`},
		{[]string{"table", swept, "--row", "tokens", "--col", "tokens"}, 2, "tokens is named twice"},
		{[]string{"table", swept, "--filter", "tokens"}, 2, "want a column, one of = != < <= > >=, and a value"},
		{[]string{"table", swept, "--filter", "tokens<many"}, 2, `tokens holds numbers, and "many" is none`},
		{[]string{"table", swept, "--filter", "strategy<none"}, 2, "strategy holds words, which are compared by = or !="},
		{[]string{"table", swept, "--filter", "strategy=nonne"}, 2, `no cell has strategy "nonne" (did you mean none?)`},
		{[]string{"table", swept, "--filter", "tokens=65"}, 2, `no cell has tokens 65; the nearest is 64`},
		{[]string{"table", swept, "--filter", "tokens>32", "--filter", "tokens<64"}, 2, "--filter tokens>32 --filter tokens<64: no cell is left"},
		{[]string{"table", swept, "--base", "nope"}, 2, "--base nope: there is no such row: the rows are none, loss-free"},
		{[]string{"table", swept, "--format", "csv", "--pairs"}, 2, "--format csv has no place for --pairs and --effects"},
		{[]string{"table", swept, "--format", "xml"}, 2, `--format is "xml"`},
		{[]string{"plot", swept, "--x", "tokens"}, 2, "--out is missing"},
		{[]string{"plot", swept, "--x", "tokens", "--out", "a.gif"}, 2, "--out a.gif: a picture's name must end in .svg or .png"},
		{[]string{"plot", swept, "--x", "tokens", "--over", "tokens", "--out", out + ".svg"}, 2, "--x names tokens, and so does its second parameter"},
	} {
		code, printed, said := evenkeel(t, x.args...)
		if code != x.code || !strings.Contains(said, x.said) || strings.Count(said, "\n") != 1 || printed != "" {
			t.Errorf("%s: exit %d, want %d with %q: %s%s", strings.Join(x.args, " "), code, x.code, x.said, said, printed)
		}
		if _, err := os.Stat(out); err == nil {
			t.Fatalf("%s left a folder", strings.Join(x.args, " "))
		}
	}
}

// The table of a small sweep, in all formats. The figures are the same bits everywhere.
func TestGoldenTablesOfSweeps(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "swept")
	if code, _, said := evenkeel(t, sweeping(dir, "-s", "none", "-s", "balanced-optimum", "--vary", "loss-free.rate=1e-3,0.1", "--vary", "tokens=32,64,128", "--record-steps", "9")...); code != 0 {
		t.Fatal(said)
	}
	for name, args := range map[string][]string{
		"swept-text.txt":      {"--base", "none", "--pairs", "--effects"},
		"swept-markdown.md":   {"--format", "markdown", "--base", "none"},
		"swept-csv.csv":       {"--format", "csv", "--base", "none", "--metric", "maxvio_global,affinity_kept"},
		"swept-json.json":     {"--format", "json", "--base", "none", "--filter", "tokens<100"},
		"swept-bench.txt":     {"--format", "bench", "--metric", "maxvio_global,affinity_kept", "--filter", "seed=1"},
		"swept-mixed.txt":     {"--row", "strategy", "--col", ""},
		"swept-transpose.txt": {"--row", "tokens", "--col", "strategy,rate"},
	} {
		for _, columns := range []string{"80", "120"} {
			t.Setenv("COLUMNS", columns)
			code, out, said := evenkeel(t, append([]string{"table", dir}, args...)...)
			if code != 0 || said != "" {
				t.Errorf("%s: exit %d: %s", name, code, said)
			}
			if name == "swept-text.txt" || name == "swept-transpose.txt" {
				for line := range strings.Lines(out) {
					if n := len([]rune(strings.TrimSuffix(line, "\n"))); columns == "80" && n > 80 || n > 120 {
						t.Errorf("%s at %s columns has a line of %d: %s", name, columns, n, line)
					}
				}
				golden(t, strings.Replace(name, ".", "-"+columns+".", 1), out)
				continue
			}
			if columns == "80" {
				golden(t, name, out)
			}
		}
	}
}

// A sweep none of whose cells can run fails, whatever runs it, and offers no table or picture of it.
func TestASweepWithoutFiguresFails(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "frozen")
	code, out, said := evenkeel(t, sweeping(dir, "-s", "aux-loss", "--router", "frozen")...)
	if code != 1 || !strings.Contains(said, "no cell could run") || strings.Contains(out, "evenkeel table") {
		t.Errorf("sweep: exit %d: %s%s", code, said, out)
	}
	if code, _, said := evenkeel(t, "collect", dir); code != 1 || !strings.Contains(said, "no cell could run") {
		t.Errorf("collect: exit %d: %s", code, said)
	}
	if code, _, said := evenkeel(t, "plot", dir, "--out", filepath.Join(dir, "a.png")); code != 2 || !strings.Contains(said, "nothing to draw") {
		t.Errorf("plot: exit %d: %s", code, said)
	}
}

// Cells without a figure are not said to have failed where they ran, and a comparison that cannot be made is said to be none.
func TestTablesSayWhatTheyLack(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "short")
	if code, _, said := evenkeel(t, sweeping(dir, "-s", "none", "--vary", "loss-free.rate=1e-3,0.1", "--record-steps", "3")...); code != 0 {
		t.Fatal(said)
	}
	for _, x := range []struct {
		args      []string
		say, hide string
	}{
		{[]string{"--metric", "steps.maxvio"}, "9 cells left out: MSER-5", "the column failed"},
		{[]string{"--metric", "steps.maxvio", "--filter", "strategy=none"}, "3 cells left out: MSER-5", "cannot run"},
		{[]string{"--metric", "steps.bias_spread", "--filter", "strategy=none"}, "3 cells without this figure", "MSER-5"},
		{[]string{"--row", "strategy", "--base", "none"}, "WARNING: no row was compared with none", "vs loss-free"},
		{[]string{"--row", "strategy"}, "t-interval over 3 seeds", "over 6 seeds"},
		{[]string{"--filter", "maxvio_global>=0"}, "WARNING: --filter chooses cells by what they found, maxvio_global", "no figure"},
		{[]string{"--filter", "rate<0.01"}, "t-interval over 3 seeds", "chooses cells by"},
	} {
		code, out, said := evenkeel(t, append([]string{"table", dir}, x.args...)...)
		if code != 0 || !strings.Contains(strings.ReplaceAll(out, "\n", " "), x.say) || strings.Contains(out, x.hide) {
			t.Errorf("%v: exit %d, want %q and no %q: %s%s", x.args, code, x.say, x.hide, said, out)
		}
	}
}

// What has none of the columns is not called all, and the help's examples are of what can be asked.
func TestRowsWithoutAKnobSaySo(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "rates")
	if code, _, said := evenkeel(t, sweeping(dir, "-s", "none", "--vary", "loss-free.rate=1e-3,0.1", "--vary", "tokens=64,4096")...); code != 0 {
		t.Fatal(said)
	}
	for _, x := range []struct {
		args      []string
		say, hide string
	}{
		{[]string{"--row", "rate", "--pairs"}, "no difference of rate=0.001 and without rate in maxvio_global", " all "},
		{[]string{"--row", "rate", "--base", "without rate"}, "vs without rate", " all "},
		{[]string{"--row", "tokens", "--col", "rate"}, "without rate  rate=0.001", " all "},
		{[]string{"--filter", "tokens>=4096", "--base", "none", "--metric", "maxvio_global,affinity_kept"}, "vs none", "rate<"},
	} {
		code, out, said := evenkeel(t, append([]string{"table", dir}, x.args...)...)
		if out = strings.ReplaceAll(out, "\n", " "); code != 0 || !strings.Contains(out, x.say) || strings.Contains(out, x.hide) {
			t.Errorf("%v: exit %d, want %q and no %q: %s%s", x.args, code, x.say, x.hide, said, out)
		}
	}
}

// Captions tell runs from cells, which are settings under all their seeds, and say where filters choose seeds by what they found.
func TestCaptionsOfSweeps(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "two")
	if code, _, said := evenkeel(t, sweeping(dir, "-s", "none", "-s", "random")...); code != 0 {
		t.Fatal(said)
	}
	r, err := sweep.OpenResults(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for filter, want := range map[string]string{
		"":                 "Scenario pretraining. 6 runs under 3 seeds.",
		"strategy=none":    "Scenario pretraining. Of 6 runs under 3 seeds, those with strategy=none.",
		"maxvio_global<10": "those with maxvio_global<10. The runs are chosen by what they found, maxvio_global: means and intervals are of the chosen seeds and not of the strategy.",
	} {
		if got := newSweptPictures(r, split(filter)).about.About; !strings.HasSuffix(got, want) {
			t.Errorf("%s: %s, want %s", filter, got, want)
		}
	}
}

// A line that is the same everywhere, because its strategy lacks the parameter, is said to be.
func TestLevelLinesSaySo(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "swept")
	if code, _, said := evenkeel(t, sweeping(dir, "-s", "none", "-s", "random", "--vary", "loss-free.rate=1e-3,1e-2", "--vary", "topk=1,2")...); code != 0 {
		t.Fatal(said)
	}
	r, err := sweep.OpenResults(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	const want = "What has no loss-free.rate, none and random, is the same at all of its values."
	for filter, says := range map[string]bool{"": true, "strategy=loss-free": false} {
		d := newSweptPictures(r, split(filter))
		for rows, columns := range map[string]string{"strategy,topk": "loss-free.rate", "strategy,loss-free.rate": "topk"} {
			table, err := d.project("maxvio_global", split(rows), split(columns))
			if err != nil {
				t.Fatal(err)
			}
			if got := d.level(table, "loss-free.rate", "topk").About; strings.HasSuffix(got, want) != says {
				t.Errorf("%q by %s and %s: %s", filter, rows, columns, got)
			}
		}
	}
}

// Pictures know of the seeds without a figure.
func TestSamplesCountSeedsWithoutAFigure(t *testing.T) {
	if s := sample(&sweep.Group{Values: []float64{1, 2}, Seeds: []uint64{1, 3}, Failed: 6}); s.N != 2 || s.Without != 6 {
		t.Errorf("%+v", s)
	}
}

// Seeds that share a world, or a trace, say nothing of others, and are not called worlds.
func TestSeedsOfOneWorld(t *testing.T) {
	const world, trace = "Seeds share a world:", "Seeds replay one trace in other orders:"
	file := filepath.Join(t.TempDir(), "shared.yaml")
	if err := os.WriteFile(file, []byte("name: shared\nabout: one world\nindependent: {spread: 1}\nworld_seed: 5\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, x := range []struct {
		args []string
		say  string
	}{
		{[]string{"--set", "world_seed=5"}, world},
		{[]string{"--vary", "world_seed=5,6"}, world},
		{[]string{"--set", "world_seed=0"}, ""},
		{[]string{"--scenario", file}, world},
		{[]string{"--scenario", file, "--set", "world_seed=0"}, ""},
		{[]string{"--scenario", "tinymoe", "--router", "frozen"}, trace},
		{nil, ""},
	} {
		dir := filepath.Join(t.TempDir(), "world")
		args := sweeping(dir, "-s", "none", "-s", "random")
		if slices.Contains(x.args, "tinymoe") { // whose shape is the trace's
			args = []string{"sweep", "--quiet", "--out", dir, "-s", "none", "-s", "random", "--set", "tokens=128", "--steps", "4", "--seeds", "3"}
		}
		if code, _, said := evenkeel(t, append(args, x.args...)...); code != 0 {
			t.Fatal(said)
		}
		code, out, said := evenkeel(t, "table", dir, "--effects")
		out = strings.ReplaceAll(out, "\n", " ")
		for _, note := range []string{world, trace} {
			if code != 0 || strings.Contains(out, note) != (note == x.say) || !strings.Contains(out, "seeds, to all settings alike") {
				t.Errorf("%v: exit %d, want %q: %s%s", x.args, code, x.say, said, out)
			}
		}
	}
}

// The floor stands beside every imbalance, also where cells of one table or picture differ in it.
func TestFloorsThatDiffer(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "swept")
	if code, _, said := evenkeel(t, sweeping(dir, "--vary", "loss-free.rate=1e-3,1e-2", "--vary", "tokens=32,64", "--vary", "topk=2,4")...); code != 0 {
		t.Fatal(said)
	}
	_, out, _ := evenkeel(t, "table", dir, "--row", "rate,topk", "--col", "tokens", "--format", "markdown")
	if i := strings.Index(out, "sampling floor"); i < 0 || strings.Count(out[i:], " to ") < 2 {
		t.Errorf("no floors:\n%s", out)
	}
	if _, out, _ := evenkeel(t, "table", dir, "--row", "rate,topk", "--col", "tokens", "--format", "json"); strings.Contains(out, `"floor": null`) {
		t.Errorf("a cell has no floor:\n%s", out)
	}
	if code, _, said := evenkeel(t, "plot", dir, "--x", "rate", "--over", "tokens", "--out", filepath.Join(dir, "plots", "drawn.svg")); code != 0 {
		t.Fatal(said)
	}
	for picture, says := range map[string]string{
		"heat-maxvio_global-*": "sampling floor is",
		"parallel":             "sampling floor is", "pareto": "the shade is", "drawn": "differ between the lines",
	} {
		files, err := filepath.Glob(filepath.Join(dir, "plots", picture+".svg"))
		if err != nil || len(files) == 0 {
			t.Fatal(picture, " is not drawn ", err)
		}
		svg, err := os.ReadFile(files[0])
		if err != nil {
			t.Fatal(err)
		}
		var text strings.Builder
		for _, m := range regexp.MustCompile(`>([^<>]+)</text>`).FindAllSubmatch(svg, -1) {
			text.WriteString(strings.TrimSpace(string(m[1])) + " ")
		}
		if !strings.Contains(text.String(), says) {
			t.Errorf("%s does not say %q: %s", picture, says, text.String())
		}
	}
}

// A search for a front loses nothing: each generation is drawn with the front of those before it.
func TestFrontsOfGenerations(t *testing.T) {
	trial := func(x string) design.Trial { return design.Trial{Point: []string{x}} }
	p := &sweep.Path{Generations: []design.Generation{
		{Trials: []design.Trial{trial("1"), trial("2"), trial("3")}, Values: [][]float64{{1, 4, 9}, {3, 5, 9}, {4, 1, 9}}},
		{Trials: []design.Trial{trial("5"), trial("6")}, Values: [][]float64{{2, 2, 9}, nil}},
		{Trials: []design.Trial{trial("7")}, Values: [][]float64{{9, 9, 0}}},
	}}
	var got []string
	for _, g := range fronts(p, func(o int, point []string, _ int) plots.Sample {
		x, _ := strconv.ParseFloat(point[0], 64)
		return plots.Sample{N: 1, Mean: x + 10*float64(o)}
	}) {
		line := strconv.Itoa(g.Number) + ":"
		for i, x := range g.X {
			line += fmt.Sprintf(" %v", x.Mean)
			if g.Y[i].Mean != x.Mean+10 {
				t.Errorf("generation %d: %v and %v", g.Number, x, g.Y[i])
			}
		}
		got = append(got, line)
	}
	if want := "1: 1 2 3; 2: 1 3 5 6; 3: 1 3 5 7"; strings.Join(got, "; ") != want {
		t.Errorf("fronts %q, want %q", got, want)
	}
}

// What an axis takes the place of is said, and so is that another seed makes another design.
func TestNotesOfSweeps(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "swept")
	loud := func(more ...string) []string { return append(sweeping(dir, more...), "--quiet=false") }
	one := []string{"-s", "loss-free:rate=0.1", "--vary", "loss-free.rate=log:1e-3..1e-1", "--vary", "tokens=32,64", "--design", "halton:3"}
	code, _, said := evenkeel(t, loud(one...)...)
	for _, want := range []string{"--vary loss-free.rate takes the place of what -s loss-free:rate=0.1 says of it", "--vary tokens takes the place of what the setting tokens=64 says of it"} {
		if code != 0 || !strings.Contains(said, want) {
			t.Errorf("exit %d, want %q: %s", code, want, said)
		}
	}
	if code, _, said = evenkeel(t, loud(append(one, "--extend", "--design-seed", "2")...)...); code != 0 || !strings.Contains(said, "another --design-seed") {
		t.Errorf("exit %d: %s", code, said)
	}
	if code, _, said = evenkeel(t, "plot", dir, "--x", "tokens", "--metric", "task_loss", "--out", filepath.Join(dir, "p.png")); code != 2 || strings.Contains(said, "the result holds nothing") {
		t.Errorf("exit %d: %s", code, said)
	}
}

// Knobs of different strategies are no parameters of one picture.
func TestPicturesAreOfParametersThatMeet(t *testing.T) {
	for want, vary := range map[string][]string{
		"response-affinity_kept-loss-free.rate":                                                  {"loss-free.rate=1e-3,1e-2"},
		"response-affinity_kept-aux-loss.coeff response-affinity_kept-loss-free.rate":            {"loss-free.rate=1e-3,1e-2", "aux-loss.coeff=0.01,0.1"},
		"heat-affinity_kept-tokens-loss-free.rate multiples-affinity_kept-tokens-loss-free.rate": {"loss-free.rate=1e-3,1e-2", "tokens=32,64"},
		"heat-affinity_kept-aux-loss.coeff-tokens heat-affinity_kept-loss-free.rate-tokens multiples-affinity_kept-aux-loss.coeff-tokens multiples-affinity_kept-loss-free.rate-tokens": {"loss-free.rate=1e-3,1e-2,1e-1", "aux-loss.coeff=0.01,0.1", "tokens=32,64"},
		"heat-affinity_kept-aux-loss.coeff-tokens heat-affinity_kept-tokens-loss-free.rate multiples-affinity_kept-aux-loss.coeff-tokens multiples-affinity_kept-tokens-loss-free.rate": {"loss-free.rate=1e-3,1e-2", "aux-loss.coeff=0.01,0.1", "tokens=32,64,128"},
	} {
		dir := filepath.Join(t.TempDir(), "swept")
		args := sweeping(dir, "-s", "none")
		for _, v := range vary {
			args = append(args, "--vary", v)
		}
		if code, _, said := evenkeel(t, args...); code != 0 {
			t.Fatal(said)
		}
		files, err := filepath.Glob(filepath.Join(dir, "plots", "*affinity_kept*.svg"))
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, f := range files {
			got = append(got, strings.TrimSuffix(filepath.Base(f), ".svg"))
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%q are drawn %q, want %q", vary, got, want)
		}
	}
}

// A strategy may be the axis of a picture, or its panels.
func TestStrategiesAlongAnAxis(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "swept")
	if code, _, said := evenkeel(t, sweeping(dir, "-s", "none", "--vary", "tokens=32,64", "--vary", "loss-free.rate=1e-3,1e-2")...); code != 0 {
		t.Fatal(said)
	}
	for _, args := range [][]string{{"--x", "strategy"}, {"--x", "spec"}, {"--x", "rate", "--over", "strategy"}, {"--x", "tokens", "--y", "strategy"}} {
		out := filepath.Join(t.TempDir(), "p.svg")
		if code, _, said := evenkeel(t, append([]string{"plot", dir, "--out", out}, args...)...); code != 0 {
			t.Errorf("%v: %s", args, said)
		}
	}
}

// The digits of a mean are those that its interval leaves, and of equal values as many as they need.
func TestCellsOfTables(t *testing.T) {
	for want, values := range map[string][]float64{
		"0.000 ±0.000":         {0, 0, 0},
		"1.500 ±0.000":         {1.5, 1.5, 1.5},
		"0.0004000 ±0.0000000": {4e-4, 4e-4, 4e-4},
		"4e-08 ±0":             {4e-8, 4e-8, 4e-8},
		"2.0 ±2.5":             {1, 2, 3},
		"0.00020 ±0.00025":     {1e-4, 2e-4, 3e-4},
		"12 ±23 (1 without)":   {2, 14, 20},
		"12345.678 ±0.000":     {12345.678, 12345.678, 12345.678},
		"2e-12 ±2.5e-12":       {1e-12, 2e-12, 3e-12},
		"no figure":            nil,
		"7":                    {7},
	} {
		g := &sweep.Group{Values: values}
		if strings.Contains(want, "without") {
			g.Failed = 1
		}
		if got := cellText(g); got != want {
			t.Errorf("%v: %q, want %q", values, got, want)
		}
	}
}

// A difference is a share of the base's mean where the means have one sign, and only there.
func TestDifferencesAsShares(t *testing.T) {
	less := []float64{-6, -5, -4, -3, -2, -1}
	for want, more := range map[string][]float64{
		"-50 % p=0.031":  {-9, -7.5, -6, -4.5, -3, -1.5},
		"+7.5 p=0.031":   {1, 2, 3, 4, 6, 8},
		"+100 % p=0.031": {0, 0, 0, 0, 0, 0},
		"~ p=1":          less,
	} {
		v, err := stat.Compare(more, less, stat.Options{})
		if err != nil {
			t.Fatal(err)
		}
		if got := versusText(&v); got != want {
			t.Errorf("%v: %q, want %q", more, got, want)
		}
	}
}

// A strategy that is given twice with other knobs is two settings, whose runs under one seed are no two seeds.
func TestStrategiesOfOneNameAreToldApart(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "twice")
	if code, _, said := evenkeel(t, sweeping(dir, "-s", "none", "-s", "aux-loss:coeff=0.01", "-s", "aux-loss:coeff=1", "-s", "aux-loss:coeff=1,scope=sequence")...); code != 0 {
		t.Fatal(said)
	}
	for _, x := range []struct {
		args      []string
		say, hide string
	}{
		{[]string{"--base", "none"}, "with 3 seeds none of the 3 comparisons", "over 9 seeds"},
		{[]string{"--row", "strategy"}, "aux-loss.coeff and aux-loss.scope vary within it", "over 9 seeds"},
		{[]string{"--filter", "coeff=1", "--filter", "scope=sequence"}, "over 3 seeds", "0.01"},
	} {
		code, out, said := evenkeel(t, append([]string{"table", dir}, x.args...)...)
		if out = strings.ReplaceAll(out, "\n", " "); code != 0 || !strings.Contains(out, x.say) || strings.Contains(out, x.hide) {
			t.Errorf("%v: exit %d, want %q and no %q: %s%s", x.args, code, x.say, x.hide, said, out)
		}
	}
}

// Go's benchmark format has every cell with a figure of any metric, and none of mixed settings, which benchstat could not tell apart.
func TestBenchFormatHasAllCells(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "two")
	if code, _, said := evenkeel(t, sweeping(dir, "-s", "none", "--vary", "loss-free.rate=1e-3,0.1")...); code != 0 {
		t.Fatal(said)
	}
	code, out, said := evenkeel(t, "table", dir, "--format", "bench", "--metric", "bias_spread,maxvio_global")
	if n := strings.Count(out, " maxvio_global\n"); code != 0 || n != 9 || strings.Count(out, "strategy=none/") != 3 {
		t.Errorf("exit %d, %d cells of 9: %s%s", code, n, said, out)
	}
	code, out, said = evenkeel(t, "table", dir, "--format", "bench", "--row", "strategy")
	if code != 2 || out != "" || !strings.Contains(said, "loss-free.rate varies within") {
		t.Errorf("mixed: exit %d: %s%s", code, said, out)
	}
}

// A test of more differences than are counted out is not called exact.
func TestManySeedsAreNotTestedExactly(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "many")
	if code, _, said := evenkeel(t, sweeping(dir, "-s", "none", "-s", "random", "--seeds", "51")...); code != 0 {
		t.Fatal(said)
	}
	for filter, want := range map[string]string{"seed>0": "over seeds, of more than 50 by the normal approximation, with Holm's correction for 1 comparison)", "seed<51": "over seeds, exact, with"} {
		code, out, said := evenkeel(t, "table", dir, "--base", "none", "--metric", "affinity_kept", "--filter", filter)
		if out = strings.ReplaceAll(out, "\n", " "); code != 0 || !strings.Contains(out, want) {
			t.Errorf("%s: exit %d, want %q: %s%s", filter, code, want, said, out)
		}
	}
}

// Where parameters vary together, as in a zip, a comparison of the values of one says that the other differs too.
func TestComparisonsSayWhatElseDiffers(t *testing.T) {
	zip, grid := filepath.Join(t.TempDir(), "zip"), filepath.Join(t.TempDir(), "grid")
	for dir, design := range map[string]string{zip: "zip", grid: "grid"} {
		if code, _, said := evenkeel(t, sweeping(dir, "-s", "none", "--vary", "loss-free.rate=1e-3,0.1", "--vary", "tokens=32,64", "--vary", "gate_scale=1,2", "--design", design)...); code != 0 {
			t.Fatal(said)
		}
	}
	const warning = "WARNING: rows that are compared also differ in "
	for _, x := range []struct {
		args []string
		want string // of the warning
	}{
		{[]string{zip, "--row", "tokens", "--col", "strategy", "--base", "tokens=32"}, warning + "gate_scale and loss-free.rate:"},
		{[]string{zip, "--row", "tokens", "--col", "strategy,rate", "--base", "tokens=32"}, warning + "gate_scale:"},
		{[]string{zip, "--row", "tokens", "--col", "strategy", "--pairs", "--filter", "strategy=none"}, warning + "gate_scale:"},
		{[]string{zip, "--row", "tokens,gate_scale,rate", "--col", "strategy", "--base", "tokens=32 gate_scale=1 rate=0.001"}, ""},
		{[]string{grid, "--row", "strategy", "--col", "tokens,gate_scale", "--base", "none", "--filter", "rate!=0.1"}, ""},
		{[]string{grid, "--base", "none", "--col", "tokens,gate_scale"}, ""},
	} {
		code, out, said := evenkeel(t, append([]string{"table"}, x.args...)...)
		out = strings.ReplaceAll(out, "\n", " ")
		if code != 0 || !strings.Contains(out, x.want) || x.want == "" && strings.Contains(out, warning) {
			t.Errorf("%v: exit %d, want %q: %s%s", x.args[1:], code, x.want, said, out)
		}
	}
}

// Every design runs from the command line and fills a folder.
func TestEveryDesignRuns(t *testing.T) {
	axes := []string{"--vary", "loss-free.rate=log:1e-4..1e-1", "--vary", "width=int:4..16"}
	words := []string{"--vary", "loss-free.rate=1e-3,1e-2", "--vary", "tokens=32,64"}
	for _, x := range []struct {
		args  []string
		cells int // under three seeds
	}{
		{append(words, "--design", "grid"), 4 * 3},
		{append(words, "--design", "zip"), 2 * 3},
		{append(axes, "--design", "random:5"), 5 * 3},
		{append(axes, "--design", "lhs:4", "--design-seed", "7"), 4 * 3},
		{append(axes, "--design", "halton:3"), 3 * 3},
		{append(axes, "--design", "halving:6", "--objective", "maxvio_global"), 0},
		{append(axes, "--design", "cma-es:8", "--objective", "maxvio_global"), 0},
		{append(axes, "--design", "nsga2:4x2", "--objective", "maxvio_global", "--objective", "affinity_kept"), 0},
	} {
		dir := filepath.Join(t.TempDir(), "out")
		code, out, said := evenkeel(t, append(sweeping(dir, x.args...), "--json", "--csv")...)
		if code != 0 || said != "" {
			t.Errorf("%v: exit %d: %s", x.args, code, said)
			continue
		}
		var m sweep.Manifest
		if err := json.Unmarshal([]byte(out), &m); err != nil {
			t.Fatal(err)
		}
		if m.Missing != 0 || m.Failed != 0 || m.Cells == 0 || x.cells > 0 && m.Cells != x.cells {
			t.Errorf("%v: %d cells, want %d; %d are missing and %d failed", x.args, m.Cells, x.cells, m.Missing, m.Failed)
		}
		text, err := os.ReadFile(filepath.Join(dir, "cells.csv"))
		if err != nil || bytes.Count(text, []byte("\n")) != m.Cells+1 {
			t.Errorf("%v: cells.csv has %d lines of %d cells: %v", x.args, bytes.Count(text, []byte("\n")), m.Cells, err)
		}
		if code, _, said := evenkeel(t, "table", dir); code != 0 {
			t.Errorf("%v: table: exit %d: %s", x.args, code, said)
		}
		if _, out, said := evenkeel(t, append(sweeping(dir, x.args...), "--quiet=false")...); !strings.Contains(out, "of which 0 ran now") {
			t.Errorf("%v: the same again does not say that nothing ran: %s%s", x.args, out, said)
		} else if slices.Contains(x.args, "--objective") != (strings.Contains(out, "The best, of ") || strings.Contains(out, "The front, of ")) {
			t.Errorf("%v: a search does not say what it found: %s", x.args, out)
		}
	}
}

// A search goes on where it asked for what cannot run.
func TestSearchesMayAskForWhatCannotRun(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "out")
	code, out, said := evenkeel(t, sweeping(dir, "-s", "none", "--vary", "experts=int:2..16", "--vary", "topk=int:1..16", "--design", "nsga2:6x4",
		"--objective", "maxvio_global", "--objective", "affinity_kept", "--json")...)
	var m sweep.Manifest
	if err := json.Unmarshal([]byte(out), &m); code != 0 || err != nil || m.Failed == 0 || m.Failed == m.Cells {
		t.Errorf("exit %d, %v, %d of %d cells failed: %s", code, err, m.Failed, m.Cells, said)
	}
}

// A table of many columns is cut into parts without looking at all of them for each: that would take hours.
func TestTablesOfManyColumns(t *testing.T) {
	const n = 5000
	p := &sweep.Projection{Metric: "maxvio_global", Rows: []string{"strategy"}, Columns: []string{"rate"}, RowLabels: [][]string{{"none"}}, RowKinds: []string{""},
		ColumnKinds: make([]string, n), Floors: make([][2]float64, n), Groups: [][]*sweep.Group{make([]*sweep.Group, n)}}
	for i := range n {
		p.ColumnLabels = append(p.ColumnLabels, []string{fmt.Sprint(i)})
		p.Groups[0][i] = &sweep.Group{Seeds: []uint64{1}, Values: []float64{float64(i)}}
	}
	text := (&sweptTable{Projection: p, base: -1}).render(false, 80)
	for line := range strings.Lines(text) {
		if len([]rune(strings.TrimSuffix(line, "\n"))) > 80 {
			t.Errorf("a line is longer than 80 columns: %s", line)
		}
	}
	if strings.Count(text, "rate=") != n || !strings.Contains(text, "rate=4999") {
		t.Errorf("the table has %d of %d columns", strings.Count(text, "rate="), n)
	}
}

// Of a picture of many settings, each with values of its own, none is compared with all others: that would take very long.
func TestPicturesOfManySettings(t *testing.T) {
	spec, err := parseAll([]string{"loss-free"})
	if err != nil {
		t.Fatal(err)
	}
	b := sweep.Base{Scenario: "uniform", Layer: -1, Strategies: spec, Seeds: []uint64{1}}
	p, err := sweep.New(b, []string{"tokens", "router.rate", "loss-free.rate"}, "random", func(yield func(sweep.Point) bool) {
		for i := range 130_000 {
			if x := fmt.Sprint(1e-6 * float64(i+1)); !yield(sweep.Point{Values: []string{fmt.Sprint(32 + i), x, x}}) {
				return
			}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	s, err := sweep.Open(dir, p, sweep.Shard{})
	if err != nil {
		t.Fatal(err)
	}
	for _, u := range p.Units() {
		cells := p.Of(u)
		records := make([]*sweep.Record, len(cells))
		for i, c := range cells {
			records[i] = &sweep.Record{Values: map[string]float64{"maxvio_global": float64(c.Index)}}
		}
		if err := s.Put(cells, records); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := sweep.Collect(t.Context(), dir, p, nil); err != nil {
		t.Fatal(err)
	}
	r, err := sweep.OpenResults(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err := newSweptPictures(r, nil).parallel("maxvio_global"); err != nil {
		t.Error(err)
	}
}

// FuzzSetFlags: a file of flags is taken or refused in one sentence, whatever is in it.
func FuzzSetFlags(f *testing.F) {
	for _, text := range []string{"strategy: [none]\nvary: {tokens: [1, 2]}\nseeds: 3\n", "vary: {a: &x [1], b: *x}", "a: b: c", "- 1", "", "---\n---\n", "seeds: 99999999999999999999",
		"vary: {1: 2}", "help: true", "quiet: yes", "out: ~", "vary: [[1]]", "set: {router: {mode: frozen}}", "? {a: b}\n: c", "&a vary: *a", "<<: {vary: 1}", "\xff", "vary: !!binary aGk="} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		flags := pflag.NewFlagSet("sweep", pflag.ContinueOnError)
		flags.StringArray("strategy", nil, "")
		flags.StringArray("vary", nil, "")
		flags.StringArray("set", nil, "")
		flags.Int("seeds", 0, "")
		flags.Bool("quiet", false, "")
		flags.String("out", "", "")
		if err := setFlags([]byte(text), flags); err != nil && err.Error() == "" {
			t.Error("an error without words")
		}
	})
}
