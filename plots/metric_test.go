package plots

import (
	"os"
	"path/filepath"
	"testing"

	"evenkeel/sim"
	"gonum.org/v1/plot/vg/draw"
)

func TestEveryMetricIsNamed(t *testing.T) {
	names := map[string]bool{}
	for i, key := range sim.MetricKeys() {
		if i >= len(metricTable) || metricTable[i].Key != key {
			t.Fatalf("metric %d of the table is not %s", i, key)
		}
		m := MetricOf(key)
		if m.Name == "" || m.Axis == "" || names[m.Name] {
			t.Errorf("%s is called %q, %q", key, m.Name, m.Axis)
		}
		names[m.Name] = true
	}
	if m := MetricOf("loss_of_mine"); m.Name != "loss of mine" || m.Show(3) != 3 {
		t.Errorf("an unknown metric is %v", m)
	}
}

func TestAffinityIsShownAsLost(t *testing.T) {
	s := MetricOf("affinity_kept").sample(Sample{Mean: 0.75, Low: 0.5, High: 0.875, N: 2})
	if s.Mean != 25 || s.Low != 12.5 || s.High != 50 {
		t.Errorf("a kept affinity of 0.75, 0.5 to 0.875, is shown as %v", s)
	}
}

func TestSpacing(t *testing.T) {
	for _, x := range []struct {
		values []float64
		want   scaleKind
	}{
		{[]float64{1e-4, 1e-3, 1e-2}, logarithmic}, {[]float64{1, 2, 3, 4, 5}, linear}, {[]float64{1024, 4096, 16384}, logarithmic}, {[]float64{0.5, 1}, linear},
		{[]float64{0, 1e-4, 1e-3, 1e-2}, logAndZero}, {[]float64{-1, 10, 100, 1000}, linear}, {[]float64{64, 128, 192, 256, 320}, linear},
		{[]float64{8, 64, 1, 512}, logarithmic}, {[]float64{0, 0.25, 0.5, 0.75}, linear}, {[]float64{3}, linear}, {[]float64{1, 100}, logarithmic},
	} {
		if got := spacing(x.values); got != x.want {
			t.Errorf("%v: scale %d, want %d", x.values, got, x.want)
		}
	}
}

// The axis holds every mean; an interval that it cuts is said to be cut.
func TestMeasureHoldsMeansAndOwnsUp(t *testing.T) {
	m := MetricOf("maxvio_global")
	short := []Sample{{Mean: 0.1, Low: 0.09, High: 0.12, N: 3}, {Mean: 2, Low: 1.5, High: 2.2, N: 3}}
	s, notes := m.measure(short)
	if s.kind != logarithmic || s.low > 0.09 || s.high < 2.2 || len(notes) > 0 {
		t.Errorf("%v, %v", s, notes)
	}
	long := append(short, Sample{Mean: 0.2, Low: -3, High: 1e9, N: 3})
	s, notes = m.measure(long)
	if s.low > 0.09 || s.high < 2.2 || s.high > 1e6 || len(notes) != 1 {
		t.Errorf("%v, %v", s, notes)
	}
	// Where most intervals are wider than the means are apart, they are what is seen.
	wide := []Sample{{Mean: 0.95, Low: 0.9, High: 1, N: 3}, {Mean: 0.96, Low: 0.91, High: 1.01, N: 3}, {Mean: 0.955, Low: 0.905, High: 1.005, N: 3}}
	if s, notes = (Metric{}).measure(wide); s.low > 0.9 || s.high < 1.01 || len(notes) > 0 {
		t.Errorf("intervals are cut: %v, %q", s, notes)
	}
	if s, _ = m.measure(nil); !(s.low < s.high) {
		t.Errorf("of nothing: %v", s)
	}
	if s, _ = m.measure([]Sample{{Mean: 1e-300, N: 1}, {Mean: 1e300, N: 1}}); !(s.at(1e-300) >= 0 && s.at(1) > 0.4 && s.at(1e300) <= 1) {
		t.Errorf("of all numbers: %v", s)
	}
	for _, v := range []float64{0, 1, -1, 1e-300, 1e300} {
		for _, m := range []Metric{{}, {Log: true}} {
			s, _ := m.measure([]Sample{{Mean: v, N: 1}})
			if !(s.low < s.high) || !drawable(s.at(v), false) || v > 0 && (s.low > v || s.high < v) {
				t.Errorf("of %g alone: %v, at %g", v, s, s.at(v))
			}
		}
	}
}

func TestWrite(t *testing.T) {
	dir := t.TempDir()
	p, err := responses()["usual"].Picture()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "old.svg"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	files, err := Write(dir, []Named{{"response", p}, {"heat", p}}, "old", "response")
	if there := names(t, dir); err != nil || len(files) != 4 || len(there) != 4 {
		t.Errorf("files %v, in the folder %v, error %v", files, there, err)
	}
	for _, bad := range []string{"", "a/b", "..", ".hidden"} {
		if _, err := Write(dir, []Named{{bad, p}}); err == nil {
			t.Errorf("%q names a picture", bad)
		}
	}
	if _, err := Write(dir, []Named{{"a", p}, {"a", p}}); err == nil {
		t.Error("two pictures have one name")
	}
	if _, err := Write(filepath.Join(dir, "missing"), []Named{{"a", p}}); err == nil {
		t.Error("pictures were written into no folder")
	}
}

// What checks the layout of all pictures must see what is wrong with one.
func TestLayoutIsSeen(t *testing.T) {
	bad := sheet{title: "one", caption: "two", height: -34, body: func(draw.Canvas) {}}.picture()
	l := newLayout(bad)
	met := false
	for i, a := range l.texts {
		for _, b := range l.texts[:i] {
			met = met || overlap(a.box, b.box) > 0
		}
	}
	if !met {
		t.Errorf("a title upon its caption is not seen: %v", l.texts)
	}
	if l := newLayout(Picture{Width: 100, Height: 10, draw: bad.draw}); len(l.outside) == 0 {
		t.Error("text outside the page is not seen")
	}
}
