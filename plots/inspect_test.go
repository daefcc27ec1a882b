package plots

import (
	"errors"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"evenkeel/metrics"
)

// batchLine falls from a height with a slope.
func batchLine(name string, height, slope float64, sizes ...int) BatchLine {
	l := BatchLine{Name: name, Sizes: sizes}
	for _, size := range sizes {
		v := height * math.Pow(float64(size), slope)
		l.MaxVio, l.Floor = append(l.MaxVio, v), append(l.Floor, 8/math.Sqrt(float64(size)))
	}
	return l
}

func batchCases() map[string][]BatchPanel {
	banded := batchLine("all", 4, -0.05, 64, 256, 1024, 4096, 8327)
	for _, v := range banded.MaxVio {
		banded.Shuffled, banded.Low, banded.High = append(banded.Shuffled, v*0.8), append(banded.Low, v/3), append(banded.High, v*3)
	}
	zero := batchLine("all", 8, -0.5, 64, 256, 1024)
	zero.MaxVio[2] = 0
	var layers []BatchPanel
	for range 4 {
		layers = append(layers, BatchPanel{"layer <0> & more", []BatchLine{
			batchLine("domain 0", 3, -0.1, 64, 256, 1000), batchLine("zh", 6, -0.01, 64, 80), batchLine("all", 9, -0.4, 64, 256, 1024, 1080)}})
	}
	return map[string][]BatchPanel{
		"mean of many":     {{"mean of 26 layers", []BatchLine{banded}}},
		"four layers":      layers,
		"a zero":           {{"layer 0", []BatchLine{zero}}},
		"one size in part": {{"layer 0", []BatchLine{batchLine("domain 0", 3, 0, 10), batchLine("all", 3, 0, 64, 70)}}},
	}
}

// coActivation is that of tokens of which half choose within blocks of experts.
func coActivation(experts, topk int) *metrics.CoActivation {
	c := metrics.Choices{Experts: experts, TopK: topk}
	for t := range 4000 {
		for k := range topk {
			e := (t*7 + k*(1+t%5)) % (experts - 1) // the last is dead
			if t%2 == 0 {
				e = (t*topk/2 + k) % (experts - 1)
			}
			c.IDs = append(c.IDs, int32(e))
		}
	}
	return c.CoActivation()
}

func TestFiguresOfATrace(t *testing.T) {
	pictures := map[string]Picture{}
	for name, panels := range batchCases() {
		p, err := BatchSizes(panels, "router.npz: E = 64", "tokens")
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		pictures["batches "+name] = p
	}
	for name, a := range map[string]*metrics.CoActivation{"few": coActivation(8, 2), "many": coActivation(200, 6)} {
		p, err := CoActivation(a, "router.npz, layer 3.")
		if err != nil {
			t.Fatal(err)
		}
		pictures["pairs "+name] = p
	}
	for name, p := range pictures {
		svg, err := p.SVG()
		if err != nil {
			t.Fatal(err)
		}
		checkSVG(t, name, svg)
		want := []string{"router.npz", floorLabel[:14], "tokens of a batch", "all", "structure stays"}
		if strings.HasPrefix(name, "pairs") {
			want = []string{"router.npz, layer 3.", "1 expert never chosen", "fewer than 5 tokens", "log2 scale", "≥ 8", "noise"}
		}
		for _, w := range want {
			if text := textOf(svg); !strings.Contains(text, w) {
				t.Errorf("%s does not say %q: %s", name, w, text)
			}
		}
		if *preview != "" {
			writePreview(t, filepath.Join(*preview, "traces"), strings.ReplaceAll(name, " ", "-"), p)
		}
	}
}

// A pair says something from five tokens on, found or expected: experts 0 to 3 are chosen two by two, 4 and 5 hardly ever.
func TestPairsThatSayNothing(t *testing.T) {
	c := metrics.Choices{Experts: 6, TopK: 2, IDs: []int32{4, 5, 0, 4}}
	for range 20 {
		c.IDs = append(c.IDs, 0, 1, 2, 3)
	}
	a := c.CoActivation()
	for pair, want := range map[[2]int]bool{{0, 1}: true, {2, 3}: true, {0, 2}: true, {4, 5}: false, {0, 4}: false, {1, 4}: false, {3, 5}: false} {
		if got := told(a, pair[0], pair[1]); got != want {
			t.Errorf("experts %d and %d: %v, chosen together by %d, expected %.2f", pair[0], pair[1], got, a.Count[pair[0]*6+pair[1]], a.Expected(pair[0], pair[1]))
		}
	}
}

func TestNothingOfATraceToDraw(t *testing.T) {
	if _, err := BatchSizes([]BatchPanel{{"layer 0", []BatchLine{batchLine("all", 3, 0, 10)}}}, "", "tokens"); !errors.Is(err, ErrNothing) {
		t.Errorf("one size: %v", err)
	}
	if _, err := CoActivation(nil, ""); !errors.Is(err, ErrNothing) {
		t.Errorf("no pairs: %v", err)
	}
	dir := t.TempDir()
	stale := filepath.Join(dir, "co-activation.png")
	if err := os.WriteFile(stale, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := WriteCoActivation(dir, nil, ""); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(stale); err == nil {
		t.Error("the picture of an earlier trace is left")
	}
}
