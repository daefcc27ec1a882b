package sweep

import (
	"slices"
	"strings"
	"testing"

	"evenkeel/sim/stat"
)

// effectsOf decomposes responses to two parameters under some seeds.
func effectsOf(t *testing.T, seeds int, levels [][]int, response func(level []int, seed int) float64) *Effects {
	t.Helper()
	var rows [][]int
	var y []float64
	var blocks []int
	for s := range seeds {
		for _, l := range levels {
			rows, y, blocks = append(rows, l), append(y, response(l, s)), append(blocks, s)
		}
	}
	d, err := stat.Decompose(rows, y)
	if err != nil {
		t.Fatal(err)
	}
	e := &Effects{}
	e.fill(d, []string{"experts", "tokens"}, d.Block(rows, blocks, y))
	return e
}

// Parameters that vary together cannot be told apart, and are not left out in silence.
func TestEffectsNameWhatVariesTogether(t *testing.T) {
	zip := effectsOf(t, 3, [][]int{{0, 0}, {1, 1}, {2, 2}}, func(l []int, s int) float64 { return float64(l[0] + s%2) })
	if len(zip.Terms) == 0 || zip.Terms[0].Name != "shared by unbalanced terms" || !strings.Contains(strings.Join(zip.Notes, " "), "cannot be told: experts, tokens, 1 of the pairs.") {
		t.Errorf("%+v", zip)
	}
	grid := effectsOf(t, 3, [][]int{{0, 0}, {0, 1}, {1, 0}, {1, 1}}, func(l []int, s int) float64 { return float64(l[0] + l[1]*s) })
	if grid.Terms[0].Order == 0 || strings.Contains(strings.Join(grid.Notes, " "), "told:") {
		t.Errorf("%+v", grid)
	}
}

// A parameter is called by its name, whatever words are in it.
func TestEffectsKeepNames(t *testing.T) {
	rows, y := [][]int{{0, 0}, {0, 1}, {1, 0}, {1, 1}}, []float64{1, 2, 4, 9}
	d, err := stat.Decompose(rows, y)
	if err != nil {
		t.Fatal(err)
	}
	e := &Effects{}
	e.fill(d, []string{"spec", "spectral.loss-free.rate"}, false)
	var names []string
	for _, x := range e.Terms {
		names = append(names, x.Name)
	}
	if !slices.Contains(names, wholeStrategy) || !slices.Contains(names, "spectral.loss-free.rate") {
		t.Errorf("%q", names)
	}
}

// What arithmetic leaves of equal figures is no variance to judge effects by.
func TestEffectsOfFiguresWithoutNoise(t *testing.T) {
	e := effectsOf(t, 3, [][]int{{0, 0}, {0, 1}, {0, 2}, {1, 0}, {1, 1}, {1, 2}}, func(l []int, _ int) float64 { return []float64{0.1, 0.7}[l[0]] })
	for _, x := range e.Terms {
		if x.F != 0 {
			t.Errorf("%s has F = %g", x.Name, x.F)
		}
	}
}

// One seed leaves nothing to judge effects by, which is not that figures are missing.
func TestEffectsOfOneSeed(t *testing.T) {
	levels := [][]int{{0, 0}, {0, 1}, {1, 0}, {1, 1}}
	response := func(l []int, s int) float64 { return float64(l[0] + l[1]*s) }
	for seeds, want := range map[int]string{1: "run more seeds", 2: "type II"} {
		notes := strings.Join(effectsOf(t, seeds, levels, response).Notes, " ")
		if !strings.Contains(notes, want) || strings.Contains(notes, "Not every setting") {
			t.Errorf("%d seeds: %s", seeds, notes)
		}
	}
}
