package plots

import (
	"fmt"
	"math"
	"strings"
	"testing"
)

// basin is a map with the best cell somewhere inside.
func basin(rows, columns int, least float64) (cells [][]Sample) {
	for i := range rows {
		var row []Sample
		for j := range columns {
			u, v := float64(i)/float64(rows)-0.4, float64(j)/float64(columns)-0.6
			m := least * math.Exp(6*(u*u+v*v+u*v/2))
			row = append(row, Sample{Mean: m, Low: m * 0.93, High: m * 1.1, Floor: 0.031, N: 8})
		}
		cells = append(cells, row)
	}
	return cells
}

func heatMaps() map[string]HeatMap {
	tokens := Parameter{"tokens", []string{"1024", "4096", "16384", "65536"}}
	of := func(x, y Parameter, names ...string) HeatMap {
		h := HeatMap{Sweep: swept, X: x, Y: y, Metric: MetricOf("maxvio_global")}
		for i, name := range names {
			h.Panels = append(h.Panels, HeatPanel{Name: name, Cells: basin(len(y.Values), len(x.Values), 0.03*float64(1+i))})
		}
		return h
	}
	short := Parameter{"rate", logValues(1e-4, 0.1, 7)}
	gaps := of(short, tokens, "loss-free", "momentum", "aux-loss:coeff=0.01", "quantile")
	gaps.Panels[0].Cells[1][2], gaps.Panels[1].Cells[3][0].Mean, gaps.Panels[2].Cells[0][0].Mean = Sample{}, math.NaN(), 0
	gaps.Panels = append(gaps.Panels, HeatPanel{"balanced-optimum", make([][]Sample, 4), true})
	for i := range 4 {
		for range 7 {
			gaps.Panels[4].Cells[i] = append(gaps.Panels[4].Cells[i], Sample{N: 3})
		}
	}
	negative := of(short, tokens, "loss-free")
	negative.Panels[0].Cells[0][0].Mean = -0.2
	equal := of(Parameter{"a", []string{"1"}}, Parameter{"b", []string{"2"}}, "loss-free")
	thirty := of(short, tokens)
	for i := range 30 {
		name := fmt.Sprintf("bias-of-many-words:rate=%d,target=uniform,scope=sequence,mode=running,schedule=linear-decay", i)
		thirty.Panels = append(thirty.Panels, HeatPanel{Name: name, Cells: basin(4, 7, 0.03*float64(1+i))})
	}
	named := Parameter{"schedule", []string{"a schedule with a very long name <&>", "constant", "decay of the rate to nothing at all"}}
	wide := of(short, tokens, "loss-free")
	wide.Panels[0].Cells[1][1].Mean = 4e11
	large := of(Parameter{"rate", logValues(1e-4, 1, 100)}, Parameter{"coeff", logValues(1e-4, 1, 60)}, "loss-free", "momentum", "a")
	for i := range 30 {
		large.Panels[0].Cells[i][2*i] = Sample{}
		large.Panels[0].Cells[i][2*i+1] = Sample{Mean: math.NaN(), N: 8}
	}
	return map[string]HeatMap{
		"usual": of(short, tokens, "loss-free", "momentum"), "one": of(short, tokens, "loss-free"), "gaps": gaps, "negative": negative, "one cell": equal,
		"large":  large,
		"thirty": thirty, "names": of(named, Parameter{"scope", named.Values}, "loss-free", "none"), "wide range": wide,
	}
}

func TestHeatMap(t *testing.T) {
	pictures := map[string]Picture{}
	for name, h := range heatMaps() {
		pictures[name] = checkPicture(t, "heatmap", name, h.Picture)
	}
	says(t, "usual", pictures["usual"], "MaxVio global over rate and tokens", "loss-free", "momentum", "65,536", "reaches it in 1 cell", "±, the longer side: 95 %", "MaxVio global (log scale)")
	far := heatMaps()["one"]
	for _, row := range far.Panels[0].Cells {
		for i := range row {
			row[i].Floor = row[i].Low / 10
		}
	}
	says(t, "far", checkPicture(t, "heatmap", "far", far.Picture), "no interval, nor a mean where there is none, reaches it")
	says(t, "gaps", pictures["gaps"], "Hatched: 1 cell not run", "Crossed: 1 cell run without a value", "1 cell has the lowest colour", "by construction: balanced-optimum (bound)")
	says(t, "negative", pictures["negative"], "Linear colours")
	says(t, "names", pictures["names"], "1 = a schedule with a very long name <&>")
}

func TestHeatMapRefusesNonsense(t *testing.T) {
	for want, change := range map[string]func(*HeatMap){
		"must be two parameters": func(h *HeatMap) { h.Y.Name = h.X.Name },
		"3 rows for 4":           func(h *HeatMap) { h.Panels[0].Cells = h.Panels[0].Cells[:3] },
		"a row of 6":             func(h *HeatMap) { h.Panels[0].Cells[2] = h.Panels[0].Cells[2][:6] },
		"has no name":            func(h *HeatMap) { h.Panels[0].Name = "" },
		"nothing to draw":        func(h *HeatMap) { h.Panels = nil },
		"has no values":          func(h *HeatMap) { h.Y.Values = nil },
		"at most 48 panels":      func(h *HeatMap) { h.Panels = make([]HeatPanel, 49) },
		"at most 400000":         func(h *HeatMap) { h.X.Values, h.Y.Values = logValues(1, 2, 1000), logValues(1, 2, 1000) },
	} {
		h := heatMaps()["usual"]
		change(&h)
		// Values that round to equal texts are met before their number.
		if _, err := h.Picture(); err == nil || !strings.Contains(err.Error(), want) && !strings.Contains(err.Error(), "twice") {
			t.Errorf("want %q, got %v", want, err)
		}
	}
}

// Colours that stand for more must be lighter, or a map says the opposite of what it shows in grey.
func TestValueScaleGrowsLighter(t *testing.T) {
	before := -1.0
	for i := range 101 {
		c := valueScale.at(float64(i) / 100)
		light := 0.2126*float64(c.R) + 0.7152*float64(c.G) + 0.0722*float64(c.B)
		if light <= before {
			t.Fatalf("at %d %% the scale is no lighter than before", i)
		}
		before = light
	}
}
