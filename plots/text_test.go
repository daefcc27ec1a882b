package plots

import (
	"math"
	"slices"
	"strings"
	"testing"

	"evenkeel/moe"
	"gonum.org/v1/plot/vg"
)

func TestNumber(t *testing.T) {
	for v, want := range map[float64]string{
		0: "0", 0.1 + 0.2: "0.3", -0.05: "−0.05", 2048: "2048", 12500: "12,500", 1e6: "1,000,000", 2e-7: "2e-07", 0.0005: "0.0005",
	} {
		if got := number(v); got != want {
			t.Errorf("%v is written %q, want %q", v, got, want)
		}
	}
}

func TestSeeds(t *testing.T) {
	for want, s := range map[string][]uint64{
		"no seed":                      nil,
		"seed 7":                       {7},
		"seeds 1, 2, 3":                {1, 2, 3},
		"8 seeds (1 to 8)":             {1, 2, 3, 4, 5, 6, 7, 8},
		"7 seeds (9, 2, 3, 4, 5, … 8)": {9, 2, 3, 4, 5, 6, 8},
	} {
		if got := seeds(s); got != want {
			t.Errorf("%v is written %q, want %q", s, got, want)
		}
	}
}

func TestWrapFitsAndLosesNothing(t *testing.T) {
	texts := []string{
		"a caption with T = 2,048 tokens a step and more words than one line holds",
		"bias-of-many-words:rate=0.001,target=uniform,scope=sequence",
		strings.Repeat("ü", 70), "", "one",
	}
	for _, s := range texts {
		for _, width := range []vg.Length{40, 100, 1000} {
			lines := wrap(s, labelText, width)
			for _, line := range lines {
				if labelText.Width(line) > width {
					t.Errorf("line %q is wider than %v", line, width)
				}
			}
			if got := strings.Join(lines, ""); strings.ReplaceAll(got, " ", "") != strings.ReplaceAll(s, " ", "") {
				t.Errorf("%q became %q", s, lines)
			}
		}
	}
	if lines := wrap("loss:rate=1,scope=2 of 2,048", labelText, 60); !slices.Equal(lines, []string{"loss:rate=1,", "scope=2 of", "2,048"}) {
		t.Errorf("broken at %q", lines)
	}
}

func TestOneLine(t *testing.T) {
	if got := oneLine("a\nb\x00\tc  d\ufffe"); got != "a b c d" {
		t.Errorf("got %q", got)
	}
}

func TestLogTicksHaveThreeLabels(t *testing.T) {
	for _, r := range [][2]float64{{1e-6, 3}, {0.1, 1}, {0.17, 5.5}, {2, 2.6}, {0.93, 1.01}, {3e-9, 4e12}} {
		labels := 0
		for _, tick := range (logTicks{}).Ticks(r[0], r[1]) {
			if tick.Value < r[0]*0.999 || tick.Value > r[1]*1.001 {
				t.Errorf("tick at %v outside %v", tick.Value, r)
			}
			if !tick.IsMinor() {
				labels++
			}
		}
		if labels < 3 || labels > 25 {
			t.Errorf("%d labels from %v to %v", labels, r[0], r[1])
		}
	}
}

func TestRoundTicks(t *testing.T) {
	for _, r := range []struct {
		low, high float64
		whole     bool
		want      string
	}{
		{0, 499, true, "0 100 200 300 400"}, {-0.44, 0.46, false, "−0.4 −0.2 0 0.2 0.4"}, {-0.5, 0.5, true, "0"}, {1, 3, true, "1 2 3"},
		{0, 0, true, ""}, {math.Inf(-1), 1, false, ""},
	} {
		var labels []string
		for _, tick := range (roundTicks{Count: 5, Whole: r.whole}).Ticks(r.low, r.high) {
			labels = append(labels, tick.Label)
		}
		if got := strings.Join(labels, " "); got != r.want {
			t.Errorf("%v to %v: ticks %q, want %q", r.low, r.high, got, r.want)
		}
	}
}

func TestEventLabelsDoNotMeet(t *testing.T) {
	marks := []moe.Mark{{Step: 90, Label: "late"}, {Step: 10, Label: "first shift"}, {Step: 12, Label: "second shift"}, {Step: 98, Label: "very late"}}
	e := layEvents(marks, 0, 100, 300, 3)
	if e.rows != 2 || e.legend != "" || len(e.marks) != 4 {
		t.Fatalf("%d rows, legend %q, marks %v", e.rows, e.legend, e.marks)
	}
	if first, second := e.marks[0], e.marks[1]; first.row == second.row {
		t.Errorf("%q and %q are in one row", first.label, second.label)
	}
	if last := e.marks[3]; !last.left {
		t.Errorf("%q leaves the frame", last.label)
	}
	e = layEvents(marks, 0, 100, 300, 1)
	if e.marks[1].label != "2" || !strings.Contains(e.legend, "2 second shift (step 12)") {
		t.Errorf("label %q, legend %q", e.marks[1].label, e.legend)
	}
}
