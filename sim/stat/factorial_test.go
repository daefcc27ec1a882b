package stat

import (
	"math"
	"reflect"
	"slices"
	"testing"

	"evenkeel/internal/rng"
)

// full returns the rows of a full factorial, the last factor fastest, each cell repeated.
func full(repeats int, levels ...int) (rows [][]int) {
	rows = [][]int{nil}
	for _, l := range append(levels, repeats) {
		var longer [][]int
		for _, r := range rows {
			for i := range l {
				longer = append(longer, append(slices.Clone(r), i))
			}
		}
		rows = longer
	}
	for i := range rows {
		rows[i] = rows[i][:len(levels)]
	}
	return rows
}

// without returns a design and its response without some rows.
func without(levels [][]int, response []float64, drop ...int) (l [][]int, r []float64) {
	for i := range levels {
		if !slices.Contains(drop, i) {
			l, r = append(l, levels[i]), append(r, response[i])
		}
	}
	return l, r
}

// Montgomery, Design and Analysis of Experiments, the battery life of three plate materials at three temperatures, four
// batteries each: table 5.1 of the eighth edition.
var battery = []float64{
	130, 155, 74, 180, 34, 40, 80, 75, 20, 70, 82, 58,
	150, 188, 159, 126, 136, 122, 106, 115, 25, 70, 58, 45,
	138, 110, 168, 160, 174, 120, 150, 139, 96, 104, 82, 60,
}

// The same book, the plasma etch rate over gap, flow and power, two runs each: example 6.1; here power is the first factor
// and gap the last.
var etch = []float64{550, 604, 669, 650, 633, 601, 642, 635, 1037, 1052, 749, 868, 1075, 1063, 729, 860}

func checkTerm(t *testing.T, what string, got Term, df int, ss float64) {
	t.Helper()
	if got.DF != df {
		t.Errorf("%s: %d degrees of freedom, want %d", what, got.DF, df)
	}
	near(t, what, got.SumSquares, ss, 1e-9)
}

func decompose(t *testing.T, levels [][]int, response []float64) *Decomposition {
	t.Helper()
	d, err := Decompose(levels, response)
	if err != nil {
		t.Fatal(err)
	}
	sum, df := d.Shared.SumSquares+d.Higher.SumSquares+d.Seeds.SumSquares, d.Shared.DF+d.Higher.DF+d.Seeds.DF
	for _, term := range d.Terms {
		sum, df = sum+term.SumSquares, df+term.DF
	}
	if near(t, "sum of the terms", sum, d.Total.SumSquares, 1e-10); df != d.Total.DF {
		t.Errorf("the terms have %d degrees of freedom, want %d", df, d.Total.DF)
	}
	return d
}

// The sums of squares are the book's and R 4.2.2's anova(lm(...)), which prints further digits.
func TestDecomposePublished(t *testing.T) {
	d := decompose(t, full(4, 3, 3), battery)
	checkTerm(t, "material", d.Terms[0], 2, 10683.72222222)
	checkTerm(t, "temperature", d.Terms[1], 2, 39118.72222222)
	checkTerm(t, "interaction", d.Terms[2], 4, 9613.77777778)
	checkTerm(t, "error", d.Seeds, 27, 18230.75)
	checkTerm(t, "total", d.Total, 35, 77646.97222222)
	checkTerm(t, "shared", d.Shared, 0, 0)
	checkTerm(t, "higher", d.Higher, 0, 0)
	near(t, "F of temperature", d.Terms[1].MeanSquares/d.Seeds.MeanSquares, 28.96769, 1e-6)
	near(t, "share of temperature", d.Terms[1].Share, 39118.72222222/77646.97222222, 1e-9)

	d = decompose(t, full(2, 2, 2, 2), etch)
	for i, want := range []float64{374850.0625, 217.5625, 41310.5625, 18.0625, 94402.5625, 2475.0625} {
		checkTerm(t, "etch", d.Terms[i], 1, want)
	}
	if !slices.Equal(d.Terms[4].Factors, []int{0, 2}) {
		t.Errorf("the fifth term is of factors %v, want 0 and 2", d.Terms[4].Factors)
	}
	checkTerm(t, "three factors", d.Higher, 1, 126.5625)
	checkTerm(t, "error", d.Seeds, 8, 18020.5)
	checkTerm(t, "total", d.Total, 15, 531420.9375)
}

// Type II sums of squares of unbalanced data, as differences of deviance(lm(...)) in R 4.2.2: the battery without five rows,
// and the etch rate without three of which two are a cell.
func TestDecomposeUnbalanced(t *testing.T) {
	levels, response := without(full(4, 3, 3), battery, 0, 1, 4, 16, 32)
	d := decompose(t, levels, response)
	checkTerm(t, "material", d.Terms[0], 2, 7656.42140596)
	checkTerm(t, "temperature", d.Terms[1], 2, 31883.27999182)
	checkTerm(t, "interaction", d.Terms[2], 4, 6556.59374555)
	checkTerm(t, "error", d.Seeds, 22, 16458.16666667)
	checkTerm(t, "total", d.Total, 30, 68447.41935484)
	if d.Shared.DF != 0 || d.Shared.SumSquares < 1000 {
		t.Errorf("shared: %+v", d.Shared)
	}

	levels, response = without(full(2, 2, 2, 2), etch, 2, 6, 7)
	d = decompose(t, levels, response)
	for i, want := range []float64{383397.785511364, 449.149350649, 78437.160511364, 120.125, 38192.4, 741.125} {
		checkTerm(t, "etch", d.Terms[i], 1, want)
	}
	checkTerm(t, "higher", d.Higher, 0, 0)
	checkTerm(t, "error", d.Seeds, 6, 17815.5)
	checkTerm(t, "total", d.Total, 12, 470851.230769231)
}

// A quarter of the way: in the half fraction with a ⊕ b ⊕ c ⊕ d = 0 each main effect is its own, and each interaction is
// another's alias, so that neither of the two can be credited.
func TestDecomposeFraction(t *testing.T) {
	var levels [][]int
	var response []float64
	for _, row := range full(1, 2, 2, 2, 2) {
		if (row[0]+row[1]+row[2]+row[3])%2 == 0 {
			levels = append(levels, row)
			response = append(response, float64(3*row[0]+row[1]+5*row[0]*row[1]))
		}
	}
	d := decompose(t, levels, response)
	for i, term := range d.Terms {
		if want := 1; i < 4 && term.DF != want || i >= 4 && (term.DF != 0 || term.SumSquares != 0) {
			t.Errorf("%v: %+v", term.Factors, term)
		}
	}
	// The 5ab is ±1.25 about its main effects over eight rows.
	checkTerm(t, "shared", d.Shared, 3, 8*1.25*1.25)
	checkTerm(t, "higher", d.Higher, 0, 0)
}

func TestDecomposeKnowsWhatWasPutIn(t *testing.T) {
	levels := full(1, 3, 2, 4)
	var response []float64
	for _, l := range levels {
		response = append(response, 10*float64(l[0]-1)+float64((l[0]-1)*(2*l[1]-1)))
	}
	d := decompose(t, levels, response)
	// Over 24 rows: Σ (10 (l − 1))² = 16 · 100, and Σ (±1)² over 16 rows.
	checkTerm(t, "main effect", d.Terms[0], 2, 1600)
	checkTerm(t, "interaction", d.Terms[3], 2, 16)
	for _, i := range []int{1, 2, 4, 5} {
		near(t, "nothing", d.Terms[i].SumSquares, 0, 1e-10)
	}
	checkTerm(t, "higher", d.Higher, 6, 0)
	checkTerm(t, "seeds", d.Seeds, 0, 0)
}

func TestDecomposeProperties(t *testing.T) {
	for key := range uint64(30) {
		r := rng.New(key)
		rows := full(2, 2, 3, 2)
		var drop []int
		for range key % 8 {
			drop = append(drop, r.IntN(len(rows)))
		}
		levels, response := without(rows, normals(key, len(rows)), drop...)
		d := decompose(t, levels, response)
		// Another order of factors, other names of levels, another order of rows, another unit.
		turned, other := slices.Clone(levels), scaled(response, -3)
		for i, l := range levels {
			turned[i] = []int{-l[2], 7 * l[0], (l[1] + 1) % 3}
		}
		slices.Reverse(turned)
		slices.Reverse(other)
		e := decompose(t, turned, other)
		for i, j := range []int{1, 2, 0, 5, 3, 4} { // of 01, 02, 12 become 12, 01, 02
			if d.Terms[i].DF != e.Terms[j].DF {
				t.Errorf("%v and %v: %d and %d degrees of freedom", d.Terms[i].Factors, e.Terms[j].Factors, d.Terms[i].DF, e.Terms[j].DF)
			}
			near(t, "turned", e.Terms[j].SumSquares, 9*d.Terms[i].SumSquares, 1e-9)
			near(t, "share", e.Terms[j].Share, d.Terms[i].Share, 1e-9)
		}
		if near(t, "seeds", e.Seeds.SumSquares, 9*d.Seeds.SumSquares, 1e-9); key%8 == 0 {
			near(t, "shared in a balanced design", d.Shared.SumSquares, 0, 1e-10)
		}
	}
}

func TestDecomposeDegenerate(t *testing.T) {
	d := decompose(t, full(2, 2, 1), []float64{4, 4, 4, 4})
	if d.Terms[0].Share != 0 || d.Terms[1].DF != 0 || d.Terms[2].DF != 0 || d.Total.SumSquares != 0 {
		t.Errorf("equal responses: %+v", d)
	}
	if d = decompose(t, [][]int{{5}}, []float64{1}); d.Total.DF != 0 {
		t.Errorf("one row: %+v", d)
	}
	for _, bad := range []struct {
		levels   [][]int
		response []float64
	}{
		{nil, nil}, {[][]int{{}}, []float64{1}}, {[][]int{{1}}, nil}, {[][]int{{1}, {1, 2}}, []float64{1, 2}},
		{[][]int{{1}}, []float64{math.NaN()}},
	} {
		if _, err := Decompose(bad.levels, bad.response); err == nil {
			t.Errorf("%v is accepted", bad)
		}
	}
}

// Montgomery's vascular grafts (Design and Analysis of Experiments, example 4.1): four pressures of extrusion on six batches of
// resin.
func TestBlocks(t *testing.T) {
	yield := [][]float64{
		{90.3, 89.2, 98.2, 93.9, 87.4, 97.9},
		{92.5, 89.5, 90.6, 94.7, 87.0, 95.8},
		{85.5, 90.8, 89.6, 86.2, 88.0, 93.4},
		{82.5, 89.5, 85.6, 87.4, 78.9, 90.7},
	}
	var levels [][]int
	var blocks []int
	var response []float64
	for pressure, row := range yield {
		for batch, y := range row {
			levels, blocks, response = append(levels, []int{pressure}), append(blocks, batch), append(response, y)
		}
	}
	d, err := Decompose(levels, response)
	if err != nil {
		t.Fatal(err)
	}
	if !d.Block(levels, blocks, response) {
		t.Fatal("a complete block design was not seen as one")
	}
	for name, c := range map[string]struct {
		got Term
		ss  float64
		df  int
	}{"pressures": {d.Terms[0], 178.17, 3}, "batches": {d.Blocks, 192.25, 5}, "error": {d.Seeds, 109.89, 15}, "total": {d.Total, 480.31, 23}} {
		if math.Abs(c.got.SumSquares-c.ss) > 0.005 || c.got.DF != c.df {
			t.Errorf("%s: %.4f with %d degrees of freedom, want %.2f and %d", name, c.got.SumSquares, c.got.DF, c.ss, c.df)
		}
	}
	if f := d.Terms[0].MeanSquares / d.Seeds.MeanSquares; math.Abs(f-8.11) > 0.005 {
		t.Errorf("F = %.3f, want 8.11", f)
	}
	// Without one row it is none, and nothing changes.
	d, err = Decompose(levels[1:], response[1:])
	if err != nil {
		t.Fatal(err)
	}
	before := *d
	if d.Block(levels[1:], blocks[1:], response[1:]) || !reflect.DeepEqual(before, *d) {
		t.Error("an incomplete design was taken for a complete one")
	}
}
