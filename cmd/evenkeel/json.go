package main

import (
	"encoding/json"
	"io"
	"math"

	"evenkeel/internal/vec"
	"evenkeel/moe"
	"evenkeel/sim"
)

// summary is the contract of --json and summary.json, version 1. It holds no wall time, path or number of workers.
type summary struct {
	Version     int              `json:"version"`
	Scenario    scenarioJSON     `json:"scenario"`
	Seeds       []uint64         `json:"seeds"`
	Kernel      string           `json:"kernel"`
	Router      string           `json:"router"`
	Incomplete  bool             `json:"incomplete,omitempty"`
	Strategies  []strategyJSON   `json:"strategies"`
	Differences []differenceJSON `json:"differences"`
	Comparisons []comparisonJSON `json:"equal_quality"`
	LeftOut     []leftOutJSON    `json:"left_out,omitempty"`
	Warnings    []string         `json:"warnings"`
}

// leftOutJSON is a strategy that --all left out, and why.
type leftOutJSON struct {
	Spec   string `json:"spec"`
	Reason string `json:"reason"`
}

type scenarioJSON struct {
	Name         string     `json:"name"`
	Tokens       int        `json:"tokens"`
	Experts      int        `json:"experts"`
	TopK         int        `json:"topk"`
	Groups       int        `json:"groups"`
	GroupsKept   int        `json:"groups_kept"`
	Score        string     `json:"score"`
	Width        int        `json:"width"`
	Steps        int        `json:"steps"`
	MicroBatches int        `json:"micro_batches"`
	Ranks        int        `json:"ranks"`
	Evaluation   int        `json:"evaluation_tokens"`
	InSample     bool       `json:"evaluation_in_sample"`
	ExpertsLearn bool       `json:"experts_learn,omitempty"`
	Trace        *traceJSON `json:"trace,omitempty"`
	Events       []moe.Mark `json:"events,omitempty"`
}

type traceJSON struct {
	File   string `json:"file"`
	SHA256 string `json:"sha256"`
	Level  string `json:"level"`
	Layer  int    `json:"layer"`
	Layers int    `json:"layers"`
}

type strategyJSON struct {
	Name     string                `json:"name"`
	Spec     string                `json:"spec"`
	Causal   bool                  `json:"causal"`
	Bound    bool                  `json:"bound,omitempty"`
	Learned  string                `json:"learned"`
	Metrics  map[string]metricJSON `json:"metrics"`
	Notes    []string              `json:"notes,omitempty"`
	Warnings []string              `json:"warnings"`

	Recoveries []recoveryJSON `json:"recoveries,omitempty"`
}

// recoveryJSON is the time to settle after one event of the scenario.
type recoveryJSON struct {
	moe.Mark
	Settled int         `json:"seeds_settled"`
	Steps   *metricJSON `json:"steps"` // of those seeds
}

type metricJSON struct {
	Mean  *float64 `json:"mean"`
	Low   *float64 `json:"low"`
	High  *float64 `json:"high"`
	Floor *float64 `json:"floor,omitempty"`
	// Excess is the mean above the floor.
	Excess *float64 `json:"excess,omitempty"`
}

type differenceJSON struct {
	A      string   `json:"a"`
	B      string   `json:"b"`
	Metric string   `json:"metric"`
	Mean   *float64 `json:"mean"`
	Low    *float64 `json:"low"`
	High   *float64 `json:"high"`
}

type comparisonJSON struct {
	Strategy string   `json:"strategy"`
	Family   string   `json:"family"`
	Zero     string   `json:"family_at_zero,omitempty"`
	Kept     *float64 `json:"affinity_kept"`
	MaxVio   *float64 `json:"maxvio_global"`
	OnCurve  *float64 `json:"maxvio_global_on_curve"`
	LogRatio *float64 `json:"log_ratio"`
	Low      *float64 `json:"low"`
	High     *float64 `json:"high"`
}

// finite returns a number that JSON can hold, or nil.
func finite(x float64) *float64 {
	if math.IsNaN(x) || math.IsInf(x, 0) {
		return nil
	}
	return &x
}

func newSummary(p *plan, r *sim.Result) *summary {
	s := &summary{
		Version: 1, Seeds: r.Seeds, Kernel: vec.Kernel(), Router: r.Router, Incomplete: r.Incomplete,
		Scenario: scenarioJSON{p.Scenario.Name, r.Tokens, r.Layer.Experts, r.Layer.TopK, r.Layer.Groups, r.Layer.GroupsKept,
			r.Layer.Score.String(), r.Layer.Width, r.Steps, r.MicroBatches, r.Ranks, r.Evaluation, r.Facts.InSample, r.ExpertsLearn, nil, r.Facts.Events},
		Differences: []differenceJSON{}, Comparisons: []comparisonJSON{}, Warnings: append(append([]string{}, r.Incomparable...), r.Warnings...),
	}
	if f := r.Facts; f.Trace {
		s.Scenario.Trace = &traceJSON{f.File, f.SHA256, f.Level, f.Layer, f.Layers}
	}
	for _, x := range r.Strategies {
		j := strategyJSON{Name: x.Traits.Name, Spec: x.Traits.Spec, Causal: x.Traits.Causal, Bound: x.Traits.Bound,
			Learned: x.Learned, Metrics: map[string]metricJSON{}, Notes: x.Notes, Warnings: append([]string{}, x.Warnings...)}
		for _, r := range x.Recoveries {
			k := recoveryJSON{Mark: r.Event, Settled: r.Settled}
			if r.Settled > 0 {
				k.Steps = &metricJSON{Mean: finite(r.Steps.Mean), Low: r.Steps.Low, High: r.Steps.High}
			}
			j.Recoveries = append(j.Recoveries, k)
		}
		for key, e := range x.Metrics {
			j.Metrics[key] = metricJSON{finite(e.Mean), e.Low, e.High, e.Floor, e.Excess()}
		}
		s.Strategies = append(s.Strategies, j)
	}
	for _, x := range p.left {
		s.LeftOut = append(s.LeftOut, leftOutJSON{x.spec, x.err.Error()})
	}
	for _, d := range r.Differences {
		s.Differences = append(s.Differences, differenceJSON{d.A, d.B, d.Metric, finite(d.Mean), d.Low, d.High})
	}
	for _, c := range r.Comparisons {
		s.Comparisons = append(s.Comparisons, comparisonJSON{c.Strategy, c.Family, c.Zero, finite(c.Kept), finite(c.MaxVio),
			finite(c.OnCurve), finite(c.LogRatio), c.Low, c.High})
	}
	return s
}

// encode writes a value as JSON that people can read too.
func encode(w io.Writer, value any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(value)
}

func writeJSON(w io.Writer, p *plan, r *sim.Result) error {
	return encode(w, newSummary(p, r))
}
