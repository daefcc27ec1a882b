package sweep

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"evenkeel/strategies"
	"evenkeel/sweep/design"
)

// small is a base whose cells take a few milliseconds.
func small(t testing.TB, specs ...string) Base {
	t.Helper()
	b := Base{Scenario: "uniform", Settings: []string{"experts=8", "topk=2", "tokens=64", "steps=4", "evaluation_tokens=128"}, Layer: -1, Seeds: []uint64{1, 2, 3}}
	for _, s := range specs {
		spec, err := strategies.Parse(s)
		if err != nil {
			t.Fatal(err)
		}
		b.Strategies = append(b.Strategies, spec)
	}
	return b
}

// grid yields every combination.
func grid(values ...[]string) func(yield func(Point) bool) {
	return func(yield func(Point) bool) {
		at := make([]int, len(values))
		for {
			point := Point{}
			for i, n := range at {
				point.Values = append(point.Values, values[i][n])
			}
			if !yield(point) {
				return
			}
			i := len(at) - 1
			for ; i >= 0; i-- {
				if at[i]++; at[i] < len(values[i]) {
					break
				}
				at[i] = 0
			}
			if i < 0 {
				return
			}
		}
	}
}

func smallPlan(t testing.TB) *Plan {
	t.Helper()
	b := small(t, "none", "loss-free", "aux-loss")
	b.Steps, b.Loads = 2, true
	p, err := New(b, []string{"tokens", "loss-free.rate"}, "grid", grid([]string{"32", "64"}, []string{"1e-3", "1e-2", "0.1"}))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// run runs a shard of a plan in a folder.
func run(t testing.TB, p *Plan, dir string, o Options) Outcome {
	t.Helper()
	f, err := Hold(dir, p, Keep, true)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Release()
	s, err := Open(dir, p, o.Shard)
	if err != nil {
		t.Fatal(err)
	}
	out, err := Run(context.Background(), p, s, o)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return out
}

// tables collects a folder and returns its manifest and tables.
func tables(t testing.TB, p *Plan, dir string) map[string][]byte {
	t.Helper()
	m, err := Collect(context.Background(), dir, p, nil)
	if err != nil {
		t.Fatal(err)
	}
	if m.Missing > 0 {
		t.Fatalf("%d cells are missing", m.Missing)
	}
	files := map[string][]byte{}
	for _, name := range []string{ManifestFile, CellsTable, StepsTable, LoadsTable} {
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		files[name] = text
	}
	return files
}

func same(t *testing.T, what string, got, want map[string][]byte) {
	t.Helper()
	for name := range want {
		if !bytes.Equal(got[name], want[name]) {
			t.Errorf("%s: %s differs", what, name)
		}
	}
}

func TestShardsMergedAreTheWhole(t *testing.T) {
	p := smallPlan(t)
	if p.Cells() != 2*5*3 {
		t.Fatalf("%d cells, want 2 sizes of none, aux-loss and three rates, under 3 seeds", p.Cells())
	}
	whole := t.TempDir()
	if out := run(t, p, whole, Options{Workers: 1}); out.Cells != 30 || out.Ran != 30 {
		t.Fatalf("%+v", out)
	}
	want := tables(t, p, whole)
	for _, workers := range []int{2, 8} {
		dir := t.TempDir()
		run(t, p, dir, Options{Workers: workers})
		same(t, fmt.Sprint(workers, " workers"), tables(t, p, dir), want)
	}
	for _, n := range []int{2, 3, 7} {
		dir := t.TempDir()
		order := []int{}
		for i := range n {
			order = append(order, n-i)
		}
		cells := 0
		for _, i := range order {
			cells += run(t, p, dir, Options{Shard: Shard{i, n}}).Cells
		}
		if cells != 30 {
			t.Errorf("%d shards have %d cells", n, cells)
		}
		same(t, fmt.Sprint(n, " shards"), tables(t, p, dir), want)
		if out := run(t, p, dir, Options{}); out.Ran != 0 {
			t.Errorf("the whole after %d shards ran %d cells again", n, out.Ran)
		}
	}
}

func TestCellsDoNotDependOnTheirNeighbours(t *testing.T) {
	p := smallPlan(t)
	c := NewComputer(p)
	unit := p.Units()[0]
	cells := p.Of(unit)
	together, err := c.Compute(context.Background(), cells)
	if err != nil {
		t.Fatal(err)
	}
	for i, cell := range slices.Backward(cells) {
		alone, err := NewComputer(p).Compute(context.Background(), []Cell{cell})
		if err != nil {
			t.Fatal(err)
		}
		a, _ := json.Marshal(alone[0])
		b, _ := json.Marshal(together[i])
		if !bytes.Equal(a, b) {
			t.Errorf("cell %d alone:\n%s\nbeside others:\n%s", cell.Index, a, b)
		}
	}
}

// What learns is decided by the first points of a search: later ones may have a loss, and go into the same folder.
func TestSearchKeepsWhatLearns(t *testing.T) {
	spec, err := strategies.Parse("deepseek-v3")
	if err != nil {
		t.Fatal(err)
	}
	b := Base{Scenario: "tinymoe", Settings: []string{"tokens=256", "steps=2"}, Layer: -1, Seeds: []uint64{1}, Strategies: []strategies.Spec{spec}}
	s := NewSession(t.TempDir(), Session{Base: b, Axes: []string{"deepseek-v3.coeff"}, Design: "by hand"})
	defer s.Close()
	var settings []string
	for _, coeff := range []string{"0", "0.01"} {
		found, err := s.Evaluate(context.Background(), []design.Trial{{Point: design.Point{coeff}}})
		if err != nil {
			t.Fatalf("coeff=%s: %v", coeff, err)
		}
		if settings == nil {
			settings = s.Plan.Settings
		}
		if !slices.Contains(s.Plan.Settings, "router.mode=frozen") || !slices.Equal(s.Plan.Settings, settings) {
			t.Errorf("coeff=%s: settings %v, after %v", coeff, s.Plan.Settings, settings)
		}
		if (found[0].Failed != "") != (coeff != "0") {
			t.Errorf("coeff=%s: %q", coeff, found[0].Failed)
		}
	}
}

// A session that keeps has in its plan what an earlier one asked for, and what learns stays as that decided it; others begin anew.
func TestSessionsKeepWhatWasAsked(t *testing.T) {
	for _, keep := range []bool{true, false} {
		dir := t.TempDir()
		asked := 0
		for i, point := range [][]string{{"0", "32"}, {"0.01", "64"}, {"0", "32"}} {
			s := NewSession(dir, Session{Base: small(t, "progressive-k"), Axes: []string{"progressive-k.coeff", "tokens"}, Design: "ask", Steps: true, Keep: keep})
			found, err := s.Evaluate(context.Background(), []design.Trial{{Point: point, Budget: design.Budget{Steps: 3, Seeds: 2}}})
			s.Close()
			if !keep && i == 1 { // it would learn, which the folder's plan does not
				if err == nil {
					t.Error("another search is taken for this one")
				}
				continue
			}
			if err != nil {
				t.Fatal(err)
			}
			asked = max(asked, s.Plan.Cells())
			if want := []int{2, 4, 4}[i]; keep && s.Plan.Cells() != want {
				t.Errorf("session %d: the plan has %d cells, want %d", i, s.Plan.Cells(), want)
			}
			if i == 2 && s.Ran != 0 || len(found) != 1 {
				t.Errorf("session %d ran %d cells, and found %d", i, s.Ran, len(found))
			}
		}
		if !keep && asked != 2 {
			t.Errorf("a plan has %d cells, of one point", asked)
		}
	}
}

// projected is a metric of a folder's results, as it is asked for by default.
func projected(t testing.TB, dir string) (*Results, Query, *Projection) {
	t.Helper()
	r, err := OpenResults(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	q := Query{Metric: "maxvio_global"}
	r.Defaults(&q)
	p, err := r.Project(q)
	if err != nil {
		t.Fatal(err)
	}
	return r, q, p
}

// Strategies of one name are told apart by the knobs in which they differ, beside those that an axis varies.
func TestStrategiesOfOneName(t *testing.T) {
	b := small(t, "loss-free", "loss-free:centre=true", "none", "loss-free:rate=0.1")
	for axis, want := range map[string][]Axis{
		"":               {{"loss-free.centre", []string{"false", "true"}}, {"loss-free.rate", []string{"0.001", "0.1"}}},
		"loss-free.rate": {{"loss-free.rate", []string{"0.2", "0.3"}}, {"loss-free.centre", []string{"false", "true"}}},
	} {
		var axes []string
		values := grid()
		if axis != "" {
			axes, values = []string{axis}, grid([]string{"0.2", "0.3"})
		}
		p, err := New(b, axes, "grid", values)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, p.Knobs); diff != "" {
			t.Error(diff)
		}
		var specs []string
		for i := range p.Specs {
			specs = append(specs, p.Spec(i))
		}
		wanted := []string{"loss-free", "loss-free:centre=true", "none", "loss-free:rate=0.1"}
		if axis != "" {
			wanted = []string{"loss-free:rate=0.2", "loss-free:rate=0.2,centre=true", "none", "loss-free:rate=0.3", "loss-free:rate=0.3,centre=true"}
		}
		if diff := cmp.Diff(wanted, specs); diff != "" {
			t.Error(diff)
		}
		dir := t.TempDir()
		run(t, p, dir, Options{})
		if _, err := Collect(context.Background(), dir, p, nil); err != nil {
			t.Fatal(err)
		}
		_, _, projection := projected(t, dir)
		groups := 0
		for i, row := range projection.Groups {
			for _, g := range row {
				if g == nil {
					continue
				}
				groups++
				if len(g.Mixed) > 0 || len(g.Values) != 3 {
					t.Errorf("%v has %d values and mixes %q", projection.RowLabels[i], len(g.Values), g.Mixed)
				}
			}
		}
		if groups != len(specs) {
			t.Errorf("%d groups of %d specs", groups, len(specs))
		}
	}
}

// Every unit has a cell, also where strategies of one variant have differently many seeds: estimates and workers count on it.
func TestUnitsHaveCells(t *testing.T) {
	p, err := New(small(t, "loss-free"), []string{"loss-free.rate"}, "uneven", func(yield func(Point) bool) {
		for i := range 2 * lockstep {
			seeds := 1
			if i >= lockstep {
				seeds = 3
			}
			if !yield(Point{Values: []string{fmt.Sprint(1e-3 * float64(i+1))}, Seeds: seeds}) {
				return
			}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	cells := 0
	for _, u := range p.Units() {
		n := len(p.Of(u))
		if n == 0 {
			t.Errorf("unit %v has no cell", u)
		}
		cells += n
	}
	if cells != p.Cells() || cells != 4*lockstep {
		t.Errorf("the units have %d cells, and the plan %d", cells, p.Cells())
	}
	if e, err := p.Estimate(context.Background(), 1); err != nil || e.Failed > 0 {
		t.Errorf("%v, %+v", err, e)
	}
}

// The settings of a sampled design, each with values of its own, are rows of a table, however many; what nobody can read is refused.
func TestManySettingsMakeATable(t *testing.T) {
	b := small(t, "loss-free")
	b.Seeds = []uint64{1}
	const n = 50_000
	p, err := New(b, []string{"tokens", "loss-free.rate"}, "bench", func(yield func(Point) bool) {
		for i := range n {
			if !yield(Point{Values: []string{fmt.Sprint(32 + i), fmt.Sprint(1e-6 * float64(i+1))}}) {
				return
			}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	stubbed(t, dir, p)
	r, q, table := projected(t, dir)
	if len(table.RowLabels) != n || table.RowLabels[n-1][1] != fmt.Sprint(1e-6*float64(n)) || table.RowLabels[n-1][2] != fmt.Sprint(32+n-1) {
		t.Errorf("%d rows, the last %q", len(table.RowLabels), table.RowLabels[len(table.RowLabels)-1])
	}
	q.Columns, q.Rows = q.Rows[2:], q.Rows[:2]
	if _, err := r.Project(q); !errors.Is(err, ErrTooLarge) {
		t.Errorf("a table of %d rows and columns: %v", n, err)
	}
}
