// Package plots draws the figures of a comparison and of a sweep, one file per figure: results in, picture out. It decides what
// a reader sees and computes nothing that a table would also show.
//
// A new figure of a comparison is one file with one exported Draw function and one line in Figures. The figures of a sweep know
// nothing of how its cells were run or tabulated: Response, Multiples, HeatMap, Pareto, Parallel, Search, Generations, Rungs and
// Effects are plain data with a method Picture, in units as stored; Metric says how these are shown.
package plots

import (
	"errors"
	"fmt"

	"evenkeel/sim"
)

// Figure is one kind of picture.
type Figure struct {
	Name    string                 // of its files, without extension
	Title   string                 // what it shows, as printed above it
	Applies func(*sim.Result) bool // whether the result holds anything to draw
	Draw    func(r *sim.Result, scenario string) (Picture, error)
}

// Figures lists all figures, in the order in which a reader should meet them.
func Figures() []Figure {
	return []Figure{
		{"load-heatmap", loadHeatmapTitle, hasLoads, LoadHeatmap},
		{"maxvio", maxVioTitle, hasMaxVio, MaxVio},
		{"balance-quality", balanceQualityTitle, hasBalanceQuality, BalanceQuality},
		{"bias", biasTitle, hasBias, Bias},
		{"domains", domainsTitle, hasDomains, Domains},
	}
}

// ErrNothing is what a figure returns that was asked to draw what holds nothing that it could show.
var ErrNothing = errors.New("the result holds nothing to draw")

// WriteAll draws every figure that applies to a result into an existing folder, as NAME.svg and NAME.png, and returns the
// names of the files. All are drawn before the first is written, and each appears whole or not at all: after an error the
// folder holds no part of a file, and files lists those that were finished. Figures of an earlier result that do not apply
// to this one are removed.
func WriteAll(dir string, r *sim.Result, scenarioName string) (files []string, err error) {
	var pictures []Named
	var obsolete []string
	for _, f := range Figures() {
		if !f.Applies(r) {
			obsolete = append(obsolete, f.Name)
			continue
		}
		p, err := f.Draw(r, scenarioName)
		if err != nil {
			return nil, fmt.Errorf("figure %s: %w", f.Name, err)
		}
		pictures = append(pictures, Named{f.Name, p})
	}
	return Write(dir, pictures, obsolete...)
}
