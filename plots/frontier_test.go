package plots

import (
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"evenkeel/sim"
)

// curvesOf makes one curve of each strategy's name.
func curvesOf(r *sim.Result) (curves []*sim.Curve) {
	for _, s := range r.Strategies {
		name, _, _ := strings.Cut(s.Traits.Spec, ":")
		i := slices.IndexFunc(curves, func(c *sim.Curve) bool { return c.Family == name })
		if i < 0 {
			i, curves = len(curves), append(curves, &sim.Curve{Family: name})
		}
		curves[i].Points = append(curves[i].Points, s)
	}
	return curves
}

func TestFrontierDrawsEveryCase(t *testing.T) {
	for name, r := range cases() {
		p, err := Frontier(r, curvesOf(r), "pretraining")
		if applies := hasBalanceQuality(r); applies != (err == nil) || err != nil && !errors.Is(err, ErrNothing) {
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
			if _, ok := tradeOf(c.Points[0]); ok && !strings.Contains(textOf(svg), c.Family) {
				t.Errorf("%s: %s is not named", name, c.Family)
			}
		}
		if *preview != "" {
			writePreview(t, filepath.Join(*preview, strings.ReplaceAll(name, " ", "-")), "frontier", p)
		}
	}
}
