package sweep

import (
	"math"
	"slices"
	"strconv"
	"strings"
	"testing"

	"evenkeel/scenarios"
	"evenkeel/strategies"
)

// Specs of one nature have a loss, all of them or none: of every preset, with every word, whatever its numbers other than zero.
func TestNatureTellsWhoHasALoss(t *testing.T) {
	text, err := scenarios.Find("pretraining")
	if err != nil {
		t.Fatal(err)
	}
	s, err := text.Load(streams[0].settings, -1)
	if err != nil {
		t.Fatal(err)
	}
	type seen struct {
		spec string
		loss bool
	}
	natures := map[string]seen{} // by all of a spec that nature does not leave out
	shared, losses := 0, 0
	look := func(spec strategies.Spec) {
		r, err := spec.Build(s.Layer())
		if err != nil {
			return // it cannot run here, and says nothing
		}
		full, loss := spec.Full(), r.Traits().Loss
		if loss {
			losses++
		}
		nature := spec.Preset.Name
		for _, k := range spec.Preset.Knobs {
			if v := spec.Values[k.Name]; !unequalToZero(v) {
				nature += "," + k.Name + "=" + v
			}
		}
		first, known := natures[nature]
		switch {
		case !known:
			natures[nature] = seen{full, loss}
		case first.loss != loss:
			t.Errorf("%s has a loss: %v, and %s has one: %v", first.spec, first.loss, full, loss)
		default:
			shared++
		}
	}
	for _, p := range strategies.Presets() {
		base, err := strategies.Parse(p.Name)
		if err != nil {
			t.Fatal(err)
		}
		words := []strategies.Spec{base}
		for _, k := range p.Knobs {
			for _, w := range k.Options {
				spec, err := base.With(k.Name, w)
				if err != nil {
					t.Fatal(err)
				}
				words = append(words, spec)
			}
		}
		for _, spec := range words {
			look(spec)
			for _, k := range p.Knobs {
				if k.Options != nil {
					continue
				}
				d, _ := strconv.ParseFloat(k.Default, 64)
				for _, x := range []float64{k.Low, k.High, 0, d / 2, 2 * d, 1, 2, 1e-12, 1e6, math.Inf(1)} {
					if x >= k.Low && x <= k.High && (!k.Whole || x == math.Trunc(x)) {
						if next, err := spec.With(k.Name, strconv.FormatFloat(x, 'g', -1, 64)); err == nil {
							look(next)
						}
					}
				}
			}
		}
	}
	if shared < 1000 || losses < 100 {
		t.Errorf("%d specs shared a nature, and %d had a loss: too few to tell", shared, losses)
	}
}

// What learns is decided by all specs, the last too.
func TestOneLossAmongManyDecidesWhatLearns(t *testing.T) {
	rates := []string{"1e-4", "2e-4", "3e-4"}
	for coeff, want := range map[string]string{"0": "router.mode=frozen", "0.01": "router.mode=learned"} {
		b := small(t, "loss-free")
		p, err := New(b, []string{"loss-free.rate", "progressive-k.coeff"}, "zip", func(yield func(Point) bool) {
			for i, r := range rates {
				c := "0"
				if i == len(rates)-1 {
					c = coeff
				}
				if !yield(Point{Values: []string{r, c}}) {
					return
				}
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Contains(p.Settings, want) {
			t.Errorf("with a coefficient of %s the settings are %v, want %s", coeff, p.Settings, want)
		}
	}
}

// A value is refused where it is wrong in every combination, not where only some were looked at.
func TestValuesThatSomeCombinationTakes(t *testing.T) {
	numbers := func(from, to int) (list []string) {
		for i := from; i <= to; i++ {
			list = append(list, strconv.Itoa(i))
		}
		return list
	}
	for _, x := range []struct {
		experts, topk []string
		said          string
	}{
		{numbers(2, 100), numbers(1, 100), ""},            // most of the first combinations are wrong
		{numbers(2, 300), []string{"1", "250"}, ""},       // as are some with values that are not looked at for themselves
		{numbers(2, 100), []string{"1", "101"}, "101 it"}, // in all
	} {
		_, err := New(small(t, "none"), []string{"experts", "topk"}, "grid", grid(x.experts, x.topk))
		if x.said == "" && err != nil || x.said != "" && (err == nil || !strings.Contains(err.Error(), x.said)) {
			t.Errorf("%d numbers of experts: %v, want %q", len(x.experts), err, x.said)
		}
	}
	// Of sampled points each may have values of its own, and one that cannot run is no reason to refuse the others.
	for _, x := range []struct{ topk, said string }{{"6", ""}, {"5000", "--vary topk: with 5000 it"}} {
		points := slices.Values([]Point{{Values: []string{"16", "2", "32"}}, {Values: []string{"4", x.topk, "48"}}})
		_, err := New(small(t, "none"), []string{"experts", "topk", "tokens"}, "random:2", points)
		if x.said == "" && err != nil || x.said != "" && (err == nil || !strings.Contains(err.Error(), x.said)) {
			t.Errorf("topk %s: %v, want %q", x.topk, err, x.said)
		}
	}
}
