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

func TestFrontierSaysWhatIsNotDrawnAndWhatIsNotCausal(t *testing.T) {
	m := usual
	m.specs = []string{"none", "expert-choice", "loss-free", "aux-loss"}
	r := m.result()
	r.Strategies[2].Traits.Varies = true
	low := r.Strategies[3].Metrics["maxvio_global"]
	low.Mean, low.Low, low.High = -0.292, nil, nil
	r.Strategies[3].Metrics["maxvio_global"] = low
	p, err := Frontier(r, curvesOf(r), "pretraining")
	if err != nil {
		t.Fatal(err)
	}
	svg, err := p.SVG()
	if err != nil {
		t.Fatal(err)
	}
	const below = "A MaxVio below 0, which a capacity below the even share gives, is drawn at 0."
	for text, wants := range map[string][]string{
		textOf(svg):                            {"per token than K: loss-free.", "expert-choice (not causal)", below},
		textOf(svgOf(t, "balance-quality", r)): {"per token than K: loss-free.", "aux-loss (MaxVio −0.29)", below},
	} {
		for _, want := range wants {
			if !strings.Contains(text, want) {
				t.Errorf("no %q in %s", want, text)
			}
		}
	}
	if text := textOf(svgOf(t, "balance-quality", usual.result())); strings.Contains(text, below) {
		t.Errorf("no MaxVio is below 0 here: %s", text)
	}
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
