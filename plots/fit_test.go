package plots

import (
	"fmt"
	"math"
	"path/filepath"
	"testing"

	"evenkeel/scenarios"
	"evenkeel/scenarios/fit"
)

// fitResult is a fit with so many domains, some of whose figures no logarithmic axis can show.
func fitResult(domains int) *fit.Result {
	s := scenarios.Defaults()
	r := &fit.Result{Scenario: s, Sources: []fit.Source{{File: "dir/<router>.npz", Layer: 3}}, Level: scenarios.LevelChoices, Tokens: 8192, Documents: 64, HeldTokens: 8100, HeldDocuments: 63, Worlds: 48}
	for i, tokens := range []int{64, 256, 1024, 4096, 8100} {
		floor := 8 / math.Sqrt(float64(tokens))
		mean := 3 + 4/float64(i+1)
		r.Goodness = append(r.Goodness, fit.Figure{Key: "maxvio_batch", Tokens: tokens, Real: 1.1 * mean, Synthetic: mean, Low: mean - 3.2, High: mean + 3, Floor: &floor})
	}
	for i := range domains {
		floor := 0.2
		r.Goodness = append(r.Goodness, fit.Figure{Key: "maxvio_domain", Domain: fmt.Sprintf("a domain with a long name %d", i), Tokens: 2000, Real: 3 + float64(i%3), Synthetic: 4, Low: -1, High: 7, Floor: &floor})
	}
	if domains > 2 {
		r.Goodness[len(r.Goodness)-1].Real = 0
		r.Goodness[len(r.Goodness)-2].Real = math.NaN()
		r.Nearest, s.WorldSeed = 256, 9
	}
	return r
}

func TestFitIsDrawn(t *testing.T) {
	for _, domains := range []int{0, 2, 4, 12} {
		p, err := Fit(fitResult(domains))
		if err != nil {
			t.Fatal(err)
		}
		svg, err := p.SVG()
		if err != nil {
			t.Fatal(err)
		}
		name := fmt.Sprintf("fit of %d domains", domains)
		checkSVG(t, name, svg)
		if *preview != "" {
			writePreview(t, filepath.Join(*preview, "fit"), name, p)
		}
	}
	if _, err := Fit(&fit.Result{Scenario: scenarios.Defaults()}); err != ErrNothing {
		t.Errorf("a fit without figures gives %v", err)
	}
}
