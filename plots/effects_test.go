package plots

import (
	"fmt"
	"math"
	"strings"
	"testing"
)

func effects() map[string]Effects {
	nan := math.NaN()
	shares := Sweep{About: swept.About, Interval: "95 % bootstrap interval of the share"}
	usual := Effects{Sweep: shares, Metric: MetricOf("maxvio_global"), Of: "the logarithm of MaxVio global", Residual: Effect{Share: 0.115, Low: 0.09, High: 0.15}, Terms: []Effect{
		{"tokens", 1, 0.08, 0.05, 0.12}, {"loss-free.rate", 1, 0.52, 0.44, 0.6}, {"loss-free.rate × tokens", 2, 0.21, 0.15, 0.27}, {"experts", 1, 0.06, 0.03, 0.09},
		{"experts × tokens", 2, 0.011, 0.002, 0.03}, {"loss-free.rate × experts", 2, 0.004, 0, 0.02}}}
	many := Effects{Sweep: swept, Metric: MetricOf("task_loss"), Residual: Effect{Name: "seeds", Share: 0.1}}
	for i := range 60 {
		many.Terms = append(many.Terms, Effect{fmt.Sprintf("strategy-of-many-words.parameter-number-%d × another-strategy.another-parameter", i), 2, 0.015, nan, nan})
	}
	odd := usual
	odd.Terms = []Effect{{"rate", 1, 0.4, nan, nan}, {"tokens <&>", 1, -0.02, -0.05, 0.01}}
	return map[string]Effects{
		"usual": usual, "many": many, "odd": odd,
		"nothing explained": {Sweep: swept, Metric: MetricOf("churn"), Terms: []Effect{{"rate", 1, 0, 0, 0}}, Residual: Effect{Share: 1}},
	}
}

func TestEffects(t *testing.T) {
	pictures := map[string]Picture{}
	for name, e := range effects() {
		pictures[name] = checkPicture(t, "effects", name, e.Picture)
	}
	says(t, "usual", pictures["usual"], "What moves MaxVio global", "share of the variance of the logarithm of MaxVio global, %", "loss-free.rate × tokens", "52 %", "11.5 %",
		"residual: seeds, and what the terms leave", "interaction", "95 % bootstrap interval of the share")
	says(t, "many", pictures["many"], "36 further terms together", "54 %", "have no intervals")
	says(t, "odd", pictures["odd"], "add up to 49.5 %, not to 100", "−2 %")
	for want, change := range map[string]func(*Effects){
		"term 0 has no name": func(e *Effects) { e.Terms = []Effect{{"", 1, 0.1, 0, 0}} },
		"of order 0":         func(e *Effects) { e.Terms = []Effect{{"rate", 0, 0.1, 0, 0}} },
		"a share of 12":      func(e *Effects) { e.Residual.Share = 12 },
		"a share of NaN":     func(e *Effects) { e.Terms = []Effect{{"rate", 1, math.NaN(), 0, 0}} },
		"down to":            func(e *Effects) { e.Residual.Low = 2 },
		"nothing to draw":    func(e *Effects) { e.Terms = nil },
	} {
		e := effects()["usual"]
		change(&e)
		if _, err := e.Picture(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q, got %v", want, err)
		}
	}
}
