package sweep

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"testing"

	"evenkeel/strategies"
)

// streams are shrunken scenarios that suit nearly all presets: one that learns, one that replays a trace of a real router.
var streams = []struct {
	scenario string
	settings []string
}{
	{"pretraining", []string{"experts=16", "topk=4", "width=16", "tokens=256", "sequence_length=64", "micro_batches=2", "steps=6", "evaluation_tokens=256", "router.mode=learned"}},
	{"pretraining", []string{"experts=16", "topk=4", "width=16", "tokens=256", "sequence_length=64", "micro_batches=2", "steps=6", "evaluation_tokens=256", "router.mode=frozen"}},
	{"pretraining", []string{"experts=16", "topk=2", "width=8", "tokens=128", "sequence_length=64", "micro_batches=2", "steps=4", "evaluation_tokens=128", "task.experts=learned", "task.hidden=4", "task.regions=8"}},
	{"deepseek-v3", []string{"experts=16", "topk=4", "groups=4", "groups_kept=2", "width=16", "tokens=256", "sequence_length=64", "micro_batches=2", "steps=6", "evaluation_tokens=256"}},
	{"pretraining", []string{"experts=16", "topk=1", "width=16", "tokens=256", "sequence_length=64", "micro_batches=2", "steps=6", "evaluation_tokens=256"}},
	{"tinymoe", []string{"tokens=256", "steps=6", "router.mode=frozen"}},
	{"tinymoe", []string{"tokens=256", "steps=6", "router.mode=learned"}},
}

// everyPreset is a plan of all presets that can be built at all, on one stream.
func everyPreset(t testing.TB, scenario string, settings []string) *Plan {
	t.Helper()
	b := Base{Scenario: scenario, Settings: settings, Layer: -1, Seeds: []uint64{1, 2}, Steps: 3, Loads: true}
	for _, p := range strategies.Presets() {
		spec, err := strategies.Parse(p.Name)
		if err != nil {
			t.Fatal(err)
		}
		b.Strategies = append(b.Strategies, spec)
	}
	p, err := New(b, nil, "all", func(yield func(Point) bool) { yield(Point{}) })
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// One worker and eight leave the same bytes, with every preset there is.
func TestWorkersDoNotMatter(t *testing.T) {
	for _, x := range []int{0, 5} {
		s := streams[x]
		p := everyPreset(t, s.scenario, s.settings)
		var want map[string][]byte
		for _, workers := range []int{1, 8} {
			dir := t.TempDir()
			run(t, p, dir, Options{Workers: workers})
			got := tables(t, p, dir)
			if want == nil {
				want = got
			}
			same(t, fmt.Sprint(s.scenario, " with ", workers, " workers"), got, want)
		}
	}
}

// A cell of every preset is the same alone as beside all others, in either order, whatever learns.
func TestNeighboursDoNotMatter(t *testing.T) {
	list := streams
	if testing.Short() {
		list = streams[:1]
	}
	figures := map[string]bool{}
	for _, x := range list {
		p := everyPreset(t, x.scenario, x.settings)
		var cells []Cell
		for _, u := range p.Units() {
			if u.Seed == 0 {
				cells = append(cells, p.Of(u)...)
			}
		}
		c := NewComputer(p)
		together, err := c.Compute(context.Background(), cells)
		if err != nil {
			t.Fatal(err)
		}
		turned := slices.Clone(cells)
		slices.Reverse(turned)
		back, err := c.Compute(context.Background(), turned)
		if err != nil {
			t.Fatal(err)
		}
		slices.Reverse(back)
		ran := 0
		for i, cell := range cells {
			alone, err := NewComputer(p).Compute(context.Background(), []Cell{cell})
			if err != nil {
				t.Fatal(err)
			}
			a, _ := json.Marshal(alone[0])
			b, _ := json.Marshal(together[i])
			r, _ := json.Marshal(back[i])
			if !bytes.Equal(a, b) || !bytes.Equal(a, r) {
				t.Errorf("%s %v: %s alone:\n%s\nbeside others:\n%s\nthe other way round:\n%s", x.scenario, x.settings, p.Spec(cell.Spec), a, b, r)
			}
			if alone[0].Failed == "" {
				figures[p.Spec(cell.Spec)] = true
				ran++
			}
		}
		t.Logf("%s %v: %d of %d presets act", x.scenario, x.settings, ran, len(cells))
	}
	for _, p := range strategies.Presets() {
		spec, _ := strategies.Parse(p.Name)
		if !testing.Short() && !figures[spec.String()] {
			t.Errorf("%s acts on none of the streams", p.Name)
		}
	}
}
