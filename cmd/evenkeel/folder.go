package main

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"time"

	"evenkeel/internal/vec"
	"evenkeel/internal/whole"
	"evenkeel/plots"
	"evenkeel/scenarios"
	"evenkeel/sim"
	"evenkeel/strategies"
)

// prepareFolder makes the folder of the results and makes sure that files can be written into it.
func prepareFolder(dir string) error {
	if err := os.MkdirAll(filepath.Join(dir, "plots"), 0o755); err != nil {
		return fmt.Errorf("--out %s: %w; name a folder that can be made and written", dir, whole.Located(err))
	}
	if err := whole.Check(dir); err != nil {
		return fmt.Errorf("--out %s cannot be written: %w; name another folder", dir, err)
	}
	return nil
}

// removeEmpty removes the folders that prepareFolder made, if they are still empty.
func removeEmpty(dir string) {
	os.Remove(filepath.Join(dir, "plots"))
	os.Remove(dir)
}

// writeFolder writes all files of a comparison.
func writeFolder(dir string, p *plan, r *sim.Result, wall time.Duration) error {
	return writeFiles(dir, p, r, wall, func(folder string) error {
		_, err := plots.WriteAll(folder, r, p.Scenario.Name)
		return err
	})
}

// writeFiles writes all files of a result, and pictures by draw. The manifest of an earlier run goes first and the new one
// comes last: where it is, all is there and belongs to it.
func writeFiles(dir string, p *plan, r *sim.Result, wall time.Duration, draw func(folder string) error) error {
	var summary bytes.Buffer
	if err := writeJSON(&summary, p, r); err != nil {
		return err
	}
	manifest, err := json.MarshalIndent(newManifest(p, r, wall), "", "  ")
	if err != nil {
		return err
	}
	name := filepath.Join(dir, "manifest.json")
	if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s of an earlier run cannot be removed: %w", name, whole.Reason(err))
	}
	for _, f := range []struct {
		name string
		text []byte
	}{
		{"summary.json", summary.Bytes()}, {"summary.csv", summaryCSV(r)}, {"steps.csv", stepsCSV(r)}, {"loads.csv", loadsCSV(r)},
	} {
		if err := whole.WriteBytes(filepath.Join(dir, f.name), f.text); err != nil {
			return err
		}
	}
	if err := draw(filepath.Join(dir, "plots")); err != nil {
		return err
	}
	return whole.WriteBytes(name, append(manifest, '\n'))
}

// number prints a float so that reading it gives the same bits; NaN is an empty cell.
func number(x float64) string {
	if math.IsNaN(x) {
		return ""
	}
	return strconv.FormatFloat(x, 'g', -1, 64)
}

func optional(x *float64) string {
	if x == nil {
		return ""
	}
	return number(*x)
}

func csvText(header []string, rows func(write func(cells ...string))) []byte {
	var text bytes.Buffer
	w := csv.NewWriter(&text)
	_ = w.Write(header) // a buffer takes everything
	rows(func(cells ...string) { _ = w.Write(cells) })
	w.Flush()
	return text.Bytes()
}

// summaryCSV has one row for each strategy: mean, interval, floor and excess over it of every metric.
func summaryCSV(r *sim.Result) []byte {
	header := []string{"spec", "name", "causal", "learned", "seeds"}
	for _, key := range sim.MetricKeys() {
		header = append(header, key, key+"_low", key+"_high", key+"_floor", key+"_excess")
	}
	return csvText(header, func(write func(...string)) {
		for _, s := range r.Strategies {
			row := []string{s.Traits.Spec, s.Traits.Name, strconv.FormatBool(s.Traits.Causal), s.Learned, strconv.Itoa(len(s.Runs))}
			for _, key := range sim.MetricKeys() {
				e, ok := s.Metrics[key]
				if !ok {
					row = append(row, "", "", "", "", "")
					continue
				}
				row = append(row, number(e.Mean), optional(e.Low), optional(e.High), optional(e.Floor), optional(e.Excess()))
			}
			write(row...)
		}
	})
}

// stepsCSV has one row for each strategy, seed and recorded step.
func stepsCSV(r *sim.Result) []byte {
	header := []string{"spec", "seed", "step", "maxvio", "maxvio_sequence", "maxvio_device", "load_variance", "drop_rate", "affinity_kept",
		"layer_error", "balance_loss", "regret_to_optimum", "bias_spread", "bias_mean"}
	return csvText(header, func(write func(...string)) {
		for _, s := range r.Strategies {
			for _, run := range s.Runs {
				every := (len(run.Steps) + recordedSteps - 1) / recordedSteps
				for i, x := range run.Steps {
					if i%every != 0 && i != len(run.Steps)-1 {
						continue
					}
					write(s.Traits.Spec, strconv.FormatUint(run.Seed, 10), strconv.Itoa(x.Step), number(x.MaxVio), number(x.MaxVioSequence),
						number(x.MaxVioDevice), number(x.LoadVariance), number(x.DropRate), number(x.AffinityKept), number(x.LayerError), number(x.BalanceLoss),
						number(x.RegretToOptimum), number(x.BiasSpread), number(x.BiasMean))
				}
			}
		}
	})
}

// recordedSteps is about the largest number of steps of a seed in steps.csv.
const recordedSteps = 2000

// loadsCSV has one row for each strategy, seed and recorded step, and a column for each expert's relative load.
func loadsCSV(r *sim.Result) []byte {
	header := []string{"spec", "seed", "step"}
	for e := range r.Layer.Experts {
		header = append(header, "r"+strconv.Itoa(e))
	}
	return csvText(header, func(write func(...string)) {
		for _, s := range r.Strategies {
			for _, run := range s.Runs {
				for _, shot := range run.Shots {
					row := []string{s.Traits.Spec, strconv.FormatUint(run.Seed, 10), strconv.Itoa(shot.Step)}
					for _, v := range shot.Load {
						row = append(row, strconv.FormatFloat(float64(v), 'g', -1, 32))
					}
					write(row...)
				}
			}
		}
	})
}

// manifest is all that repeating a run needs, and what it ran on.
type manifest struct {
	Version    string   `json:"version"`
	Go         string   `json:"go"`
	Platform   string   `json:"platform"`
	Kernel     string   `json:"kernel"`
	Seconds    float64  `json:"wall_seconds"`
	Router     string   `json:"router"`
	Strategies []string `json:"strategies"`
	// Files are the texts of strategy files, by the name of the strategy.
	Files      map[string]string `json:"strategy_files,omitempty"`
	Scenario   json.RawMessage   `json:"scenario"`
	Seeds      []uint64          `json:"seeds_finished"`
	Incomplete bool              `json:"incomplete"`
}

func newManifest(p *plan, r *sim.Result, wall time.Duration) *manifest {
	m := &manifest{Version: version(), Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH, Kernel: vec.Kernel(),
		Seconds: math.Round(wall.Seconds()*1000) / 1000, Router: p.Mode, Seeds: r.Seeds, Incomplete: r.Incomplete}
	for _, s := range p.Specs {
		m.Strategies = append(m.Strategies, s.Full())
		if text := s.Preset.Source(); text != nil {
			if m.Files == nil {
				m.Files = map[string]string{}
			}
			m.Files[s.Preset.Name] = string(text)
		}
	}
	m.Scenario, _ = p.Scenario.Marshal() // plain values only, so it cannot fail
	return m
}

// readManifest plans the run of a manifest again.
func readManifest(name string) (*plan, error) {
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("--from %s: %w", name, whole.Reason(err))
	}
	var m manifest
	if err := json.Unmarshal(text, &m); err != nil {
		return nil, fmt.Errorf("--from %s is not a manifest: name the manifest.json of a run's folder (%w)", name, err)
	}
	if m.Scenario == nil || len(m.Strategies) == 0 {
		return nil, fmt.Errorf("--from %s is not a manifest: it holds no scenario or no strategies", name)
	}
	s, err := scenarios.Resolved(name, m.Scenario)
	if err != nil {
		return nil, err
	}
	var defined []*strategies.Preset
	for _, file := range slices.Sorted(maps.Keys(m.Files)) {
		p, err := strategies.Define(name, []byte(m.Files[file]))
		if err != nil {
			return nil, err
		}
		defined = append(defined, p)
	}
	specs, err := parseAll(m.Strategies, defined...)
	if err != nil {
		return nil, err
	}
	return newPlan(s, specs)
}
