package plots

import (
	"bytes"
	"encoding/xml"
	"flag"
	"fmt"
	"image/png"
	"io"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"evenkeel/moe"
	"evenkeel/sim"
	"gonum.org/v1/plot/vg"
)

var preview = flag.String("preview", "", "write the figures of the cases into folders in this one, to look at them")

// cases are results that a figure must cope with.
func cases() map[string]*sim.Result {
	with := func(change func(*sample)) *sim.Result {
		m := usual
		m.steps, m.experts = 40, 16
		m.events = []moe.Mark{{Step: 20, Label: "domain mix shifts"}}
		change(&m)
		return m.result()
	}
	long := "bias-of-many-words:rate=0.001,target=uniform,scope=sequence,mode=running,schedule=linear-decay,clip=0.25"
	broken := with(func(m *sample) { m.specs = append(slices.Clone(m.specs), "expert-choice") })
	breakSome(broken)
	return map[string]*sim.Result{
		"usual":              usual.result(),
		"one strategy":       with(func(m *sample) { m.specs = m.specs[1:2] }),
		"many":               with(func(m *sample) { m.specs = many(long) }),
		"few experts":        with(func(m *sample) { m.experts = 8 }),
		"many experts":       with(func(m *sample) { m.experts = 256 }),
		"one step":           with(func(m *sample) { m.steps, m.events = 1, nil }),
		"one seed":           with(func(m *sample) { m.seeds = 1 }),
		"twenty seeds":       with(func(m *sample) { m.seeds = 20 }),
		"no domains":         with(func(m *sample) { m.domains, m.withoutBias = nil, true }),
		"many events":        with(func(m *sample) { m.events = manyEvents() }),
		"nothing at all":     with(func(m *sample) { m.hollow, m.withoutBias, m.domains = true, true, nil }),
		"NaN here and there": broken,
		"empty":              {Layer: moe.Layer{Experts: 8, TopK: 2, Groups: 1, GroupsKept: 1}},
	}
}

func many(long string) []string {
	specs := []string{"none", "balanced-optimum", long}
	for i := range 9 {
		specs = append(specs, fmt.Sprintf("aux-loss:coeff=%g", 0.003*math.Pow(2, float64(i))))
	}
	return specs
}

func manyEvents() []moe.Mark {
	var m []moe.Mark
	for i := range 9 {
		m = append(m, moe.Mark{Step: 1 + 4*i, Label: fmt.Sprintf("burst of one hot sequence, number %d", i)})
	}
	return append(m, moe.Mark{Step: 9, Label: "a new <domain> & more"}, moe.Mark{Step: 10_000, Label: "never"})
}

// breakSome puts what a figure cannot draw into some places of a result.
func breakSome(r *sim.Result) {
	nan := float32(math.NaN())
	for i, s := range r.Strategies {
		run := s.Runs[0]
		if !s.Traits.Bound {
			run.Steps[3].MaxVio, run.Steps[4].MaxVio = math.NaN(), 0
			run.Shots[2].Load[1], run.Shots[3].Load[2] = nan, 0
		}
		run.Domains[0][0], run.Domains[1] = math.NaN(), nil
		for j := range run.Shots {
			if run.Shots[j].Bias != nil && j%3 == 0 {
				run.Shots[j].Bias[5] = nan
			}
		}
		if i == 2 {
			s.Metrics["maxvio_global"] = sim.Estimate{Mean: math.NaN()}
		}
		if i == 3 {
			delete(s.Metrics, "affinity_kept")
			s.Runs[1] = &sim.Run{}
		}
	}
}

func TestEveryFigureDrawsEveryCase(t *testing.T) {
	for name, r := range cases() {
		for _, f := range Figures() {
			p, err := f.Draw(r, "pretraining")
			if applies := f.Applies(r); applies != (err == nil) {
				t.Errorf("%s of %s: applies is %v, but the error is %v", f.Name, name, applies, err)
			}
			if err != nil {
				continue
			}
			svg, err := p.SVG()
			if err != nil {
				t.Fatal(err)
			}
			checkSVG(t, f.Name+" of "+name, svg)
			if *preview != "" {
				writePreview(t, filepath.Join(*preview, strings.ReplaceAll(name, " ", "-")), f.Name, p)
			}
		}
	}
}

func writePreview(t *testing.T, dir, name string, p Picture) {
	content, err := p.PNG()
	if err != nil {
		t.Fatal(err)
	}
	svg, _ := p.SVG()
	os.MkdirAll(dir, 0o755)
	for ending, b := range map[string][]byte{".png": content, ".svg": svg} {
		if err := os.WriteFile(filepath.Join(dir, name+ending), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// notNumbers are what a coordinate that is not finite leaves in a document.
var notNumbers = regexp.MustCompile(`NaN|[+-]Inf`)

func checkSVG(t *testing.T, name string, svg []byte) {
	t.Helper()
	d := xml.NewDecoder(bytes.NewReader(svg))
	for {
		token, err := d.Token()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Errorf("%s is no XML: %v", name, err)
			return
		}
		if e, ok := token.(xml.StartElement); ok && e.Name.Local == "path" {
			for _, a := range e.Attr {
				if notNumbers.MatchString(a.Value) {
					t.Errorf("%s has a path %.80s", name, a.Value)
				}
			}
		}
	}
	if strings.Contains(string(svg), "font-family:Liberation Sans;") || strings.Contains(string(svg), "Liberation Serif") {
		t.Errorf("%s has text in a font without substitute", name)
	}
}

// textOf joins all text of a document, lines by blanks, as a reader would.
func textOf(svg []byte) string {
	var lines []string
	d := xml.NewDecoder(bytes.NewReader(svg))
	for {
		token, err := d.Token()
		if err != nil {
			return strings.Join(lines, " ")
		}
		if c, ok := token.(xml.CharData); ok && strings.TrimSpace(string(c)) != "" {
			lines = append(lines, strings.TrimSpace(string(c)))
		}
	}
}

func svgOf(t *testing.T, name string, r *sim.Result) []byte {
	t.Helper()
	i := slices.IndexFunc(Figures(), func(f Figure) bool { return f.Name == name })
	p, err := Figures()[i].Draw(r, "pretraining")
	if err != nil {
		t.Fatal(err)
	}
	svg, err := p.SVG()
	if err != nil {
		t.Fatal(err)
	}
	return svg
}

func TestPicturesSayWhatTheyShow(t *testing.T) {
	r := usual.result()
	caption := "pretraining: E = 64 experts, K = 6 chosen, T = 2,048 tokens a step, 500 steps, seeds 1, 2, 3; router: learned."
	all := r.Strategies
	for name, want := range map[string][]string{
		"load-heatmap":    {"domain mix shifts", "relative load r (1 = perfect balance)", "≤ 1/8", "≥ 8", "balanced-optimum is even by construction", "mean load under none"},
		"maxvio":          {"domain mix shifts", floorLabel, "balanced-optimum (a bound: its loads are balanced, MaxVio 0)", "log scale"},
		"balance-quality": {floorLabel, "better", "balanced-optimum (bound, MaxVio 0)", "65,536 fresh tokens", "95 % t-interval"},
		"bias":            {"domain mix shifts", "loss-free", "common-mode drift"},
		"domains":         {"relative load r (1 = perfect balance)", "web", "dialogue", "65,536 fresh tokens"},
	} {
		text := textOf(svgOf(t, name, r))
		if name != "bias" {
			for _, s := range all {
				want = append(want, s.Traits.Spec)
			}
		}
		for _, w := range append(want, caption) {
			if !strings.Contains(text, w) {
				t.Errorf("%s does not say %q:\n%s", name, w, text)
			}
		}
	}
}

func TestCaptionsOwnUp(t *testing.T) {
	r := usual.result()
	r.Incomplete, r.Facts.InSample = true, true
	r.Layer.Groups, r.Layer.GroupsKept = 8, 4
	text := textOf(svgOf(t, "balance-quality", r))
	for _, want := range []string{"INTERRUPTED", "in-sample", "within 4 of 8 groups"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in %s", want, text)
		}
	}
	broken := cases()["NaN here and there"]
	if text := textOf(svgOf(t, "maxvio", broken)); !strings.Contains(text, "expert-choice (not causal)") {
		t.Errorf("nothing about a strategy that was left out: %s", text)
	}
}

// The points and domains of a rule that assigns in training only are of each token's own K best, which is causal.
func TestFiguresNameARuleAsTheTableDoes(t *testing.T) {
	m := usual
	m.specs = []string{"none", "sinkhorn", "expert-choice"}
	r := m.result()
	r.Strategies[1].Traits.Causal, r.Strategies[1].Traits.TrainingOnly = false, true
	for _, name := range []string{"balance-quality", "domains", "load-heatmap"} {
		text := textOf(svgOf(t, name, r))
		for _, s := range r.Strategies[1:] {
			if want := s.Traits.Spec + " (" + s.Traits.Kind() + ")"; !strings.Contains(text, want) {
				t.Errorf("%s does not say %q: %s", name, want, text)
			}
		}
	}
}

func TestBiasesThatAreFactorsAreSaidToBe(t *testing.T) {
	m := usual
	m.specs = []string{"loss-free", "loss-free:rate=0.01"}
	r := m.result()
	if text := textOf(svgOf(t, "bias", r)); !strings.Contains(text, "in units of the score") || strings.Contains(text, "factor on the scores") {
		t.Errorf("terms are said to be factors: %s", text)
	}
	r.Strategies[1].Traits.Factor = true
	if text := textOf(svgOf(t, "bias", r)); strings.Contains(text, "in units of the score") || !strings.Contains(text, "Of loss-free:rate=0.01, b is a factor on the scores instead") {
		t.Errorf("factors are said to be terms: %s", text)
	}
}

func TestZeroMaxVioIsLeftOutAndSaid(t *testing.T) {
	m := usual
	m.specs, m.seeds, m.steps = m.specs[:1], 1, 20
	r := m.result()
	for i := range 5 {
		r.Strategies[0].Runs[0].Steps[i].MaxVio = 0
	}
	if text := textOf(svgOf(t, "maxvio", r)); !strings.Contains(text, "5 values left out") {
		t.Errorf("nothing about zeros: %s", text)
	}
}

func TestSameResultSameBytes(t *testing.T) {
	a, b := usual.result(), usual.result()
	for _, f := range Figures() {
		if !bytes.Equal(svgOf(t, f.Name, a), svgOf(t, f.Name, b)) {
			t.Errorf("%s differs from run to run", f.Name)
		}
	}
}

func TestDrawingLeavesTheResultAlone(t *testing.T) {
	r := usual.result()
	before := fmt.Sprint(r.Strategies[1].Runs[0].Shots[7], r.Facts.Events)
	for _, f := range Figures() {
		svgOf(t, f.Name, r)
	}
	if fmt.Sprint(r.Strategies[1].Runs[0].Shots[7], r.Facts.Events) != before {
		t.Error("drawing changed the result")
	}
}

func TestWriteAll(t *testing.T) {
	dir := t.TempDir()
	m := usual
	m.steps = 50
	files, err := WriteAll(dir, m.result(), "pretraining")
	if err != nil {
		t.Fatal(err)
	}
	if there := names(t, dir); len(files) != 10 || len(there) != 10 {
		t.Fatalf("files %v, but in the folder %v", files, there)
	}
	for _, f := range Figures() {
		b, err := os.ReadFile(filepath.Join(dir, f.Name+".png"))
		if err != nil {
			t.Fatal(err)
		}
		img, err := png.Decode(bytes.NewReader(b))
		if err != nil {
			t.Fatal(err)
		}
		p, _ := f.Draw(m.result(), "pretraining")
		want := int(p.Height/vg.Inch*96 + 0.5)
		if size := img.Bounds().Size(); size.X != 1000 || size.Y != want || want < 250 || want > 1600 {
			t.Errorf("%s is %v, want 1000 by %d", f.Name, size, want)
		}
	}
	if _, err := WriteAll(dir, m.result(), "pretraining"); err != nil {
		t.Errorf("a second time: %v", err)
	}
}

func TestWriteAllWritesOnlyWhatApplies(t *testing.T) {
	dir := t.TempDir()
	m := usual
	m.steps, m.domains, m.withoutBias = 20, nil, true
	files, err := WriteAll(dir, m.result(), "pretraining")
	if err != nil || len(files) != 6 {
		t.Errorf("files %v, error %v", files, err)
	}
}

func TestWriteAllLeavesNothingBehind(t *testing.T) {
	m := usual
	m.steps = 10
	r := m.result()
	parent := t.TempDir()
	if files, err := WriteAll(filepath.Join(parent, "missing"), r, "pretraining"); err == nil || len(files) > 0 {
		t.Errorf("into no folder: files %v, error %v", files, err)
	}
	// A folder in the place of a file stops the renaming half way.
	blocked := filepath.Join(parent, "blocked")
	if err := os.MkdirAll(filepath.Join(blocked, "maxvio.svg", "in the way"), 0o755); err != nil {
		t.Fatal(err)
	}
	files, err := WriteAll(blocked, r, "pretraining")
	if err == nil {
		t.Error("a folder was replaced by a file")
	}
	var finished []string
	for _, f := range files {
		finished = append(finished, filepath.Base(f))
	}
	slices.Sort(finished)
	if want := append(finished, "maxvio.svg"); !slices.Equal(names(t, blocked), want) {
		t.Errorf("folder holds %v, want %v", names(t, blocked), want)
	}
	if os.Getuid() != 0 { // whom no mode stops
		sealed := filepath.Join(parent, "sealed")
		os.Mkdir(sealed, 0o555)
		if files, err := WriteAll(sealed, r, "pretraining"); err == nil || len(files) > 0 || len(names(t, sealed)) > 0 {
			t.Errorf("into a sealed folder: files %v, error %v", files, err)
		}
	}
}

func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var n []string
	for _, e := range entries {
		n = append(n, e.Name())
	}
	return n
}
