package plots

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"evenkeel/sim"
)

// curvesOf makes one curve of each family of a result.
func curvesOf(r *sim.Result) (curves []*sim.Curve) {
	done := map[string]bool{}
	for _, s := range r.Strategies {
		if !done[s.Traits.Family] && !s.Traits.Bound {
			done[s.Traits.Family] = true
			curves = append(curves, &sim.Curve{Family: s.Traits.Family, Points: r.Family(s.Traits.Family)})
		}
	}
	return curves
}

func TestFrontierDrawsEveryCase(t *testing.T) {
	for name, r := range cases() {
		p, err := Frontier(r, curvesOf(r), "pretraining")
		if applies := hasBalanceQuality(r); applies != (err == nil) || err != nil && !errors.Is(err, errNothing) {
			t.Errorf("%s: applies is %v, but the error is %v", name, applies, err)
		}
		if err != nil {
			continue
		}
		svg, err := p.SVG()
		if err != nil {
			t.Fatal(err)
		}
		checkSVG(t, "frontier of "+name, svg)
		for _, c := range curvesOf(r) {
			if first := strings.SplitN(c.Family, ",", 2)[0]; !strings.Contains(textOf(svg), first) {
				t.Errorf("%s: %s is not named", name, c.Family)
			}
		}
		if *preview != "" {
			writePreview(t, filepath.Join(*preview, strings.ReplaceAll(name, " ", "-")), "frontier", p)
		}
	}
}
