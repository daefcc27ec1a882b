package fleet

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"evenkeel/strategies"
	"evenkeel/sweep"
)

// program stands for the revision of the program in tests.
const program = "v1 test"

// plan is one whose cells take milliseconds: rates of one strategy beside two others, under some seeds, for two sizes.
func plan(t testing.TB, rates, seeds int) *sweep.Plan {
	t.Helper()
	b := sweep.Base{Scenario: "uniform", Settings: []string{"experts=8", "topk=2", "tokens=64", "steps=4", "evaluation_tokens=128"}, Layer: -1, Steps: 2, Loads: true}
	for i := range seeds {
		b.Seeds = append(b.Seeds, uint64(i+1))
	}
	for _, s := range []string{"none", "aux-loss"} {
		spec, err := strategies.Parse(s)
		if err != nil {
			t.Fatal(err)
		}
		b.Strategies = append(b.Strategies, spec)
	}
	p, err := sweep.New(b, []string{"tokens", "loss-free.rate"}, "grid", func(yield func(sweep.Point) bool) {
		for _, tokens := range []string{"32", "64"} {
			for i := range rates {
				if !yield(sweep.Point{Values: []string{tokens, strconv.FormatFloat(1e-4*float64(i+1), 'g', -1, 64)}}) {
					return
				}
			}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	p.Hash() // which the plan remembers: tests ask for it beside the coordinator
	return p
}

// folder is that of a sweep in a test.
type folder struct {
	dir   string
	p     *sweep.Plan
	hold  *sweep.Folder
	store *sweep.Store
}

func open(t testing.TB, dir string, p *sweep.Plan) *folder {
	t.Helper()
	hold, err := sweep.Hold(dir, p, sweep.Keep, false)
	if err != nil {
		t.Fatal(err)
	}
	store, err := sweep.Open(dir, p, sweep.Shard{})
	if err != nil {
		t.Fatal(err)
	}
	f := &folder{dir, p, hold, store}
	t.Cleanup(f.close)
	return f
}

func (f *folder) close() {
	f.store.Close()
	f.hold.Release()
}

// files returns the manifest and the tables, which need every cell to be stored.
func (f *folder) files(t testing.TB) map[string]string {
	t.Helper()
	f.close()
	m, err := sweep.Collect(context.Background(), f.dir, f.p, nil)
	if err != nil {
		t.Fatal(err)
	}
	if m.Missing > 0 {
		t.Fatalf("%d of %d cells are missing", m.Missing, m.Cells)
	}
	files := map[string]string{}
	for _, name := range []string{sweep.ManifestFile, sweep.CellsTable, sweep.StepsTable, sweep.LoadsTable} {
		text, err := os.ReadFile(filepath.Join(f.dir, name))
		if err != nil {
			t.Fatal(err)
		}
		files[name] = string(text)
	}
	return files
}

// once makes sure that every cell was stored once: that the result file has a line for each and no more.
func (f *folder) once(t testing.TB) {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(f.dir, "results", "*.cells"))
	if err != nil || len(names) != 1 {
		t.Fatalf("%d result files: %v", len(names), err)
	}
	text, err := os.ReadFile(names[0])
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for line := range strings.Lines(string(text)) {
		seen[strings.Fields(line)[1]] = true
	}
	if n := strings.Count(string(text), "\n"); n != f.p.Cells() || len(seen) != n {
		t.Errorf("%d lines of %d cells are stored: the plan has %d", n, len(seen), f.p.Cells())
	}
}

// local is what the local pool makes of a plan.
func local(t testing.TB, p *sweep.Plan) map[string]string {
	t.Helper()
	f := open(t, t.TempDir(), p)
	if _, err := sweep.Run(context.Background(), p, f.store, sweep.Options{}); err != nil {
		t.Fatal(err)
	}
	return f.files(t)
}

func same(t testing.TB, got, want map[string]string) {
	t.Helper()
	for name := range want {
		if got[name] != want[name] {
			t.Errorf("%s differs from that of the local pool", name)
		}
	}
}

// connected is a connection to an embedded server that ends with the test.
func connected(t testing.TB) *nats.Conn {
	t.Helper()
	s, err := Serve(t.TempDir(), "", Access{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close(false) })
	nc, err := s.Connect()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	return nc
}

func deadline(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// quick has the coordinator look often.
func quick(o Options) Options {
	o.Program, o.looks = program, 50*time.Millisecond
	return o
}

func TestTheEngineIsTheLocalPool(t *testing.T) {
	t.Parallel()
	p := plan(t, 20, 3) // units of 16 cells and of 6
	want := local(t, p)
	for _, workers := range []int{1, 4} {
		f := open(t, t.TempDir(), p)
		last := 0
		out, err := Run(deadline(t), connected(t), p, f.store, quick(Options{Workers: workers, Progress: func(done, total int) { last = done }}))
		if err != nil {
			t.Fatal(err)
		}
		if out.Cells != p.Cells() || out.Ran != p.Cells() || last != p.Cells() || len(out.Dead)+out.Garbage+out.Redelivered != 0 {
			t.Errorf("%+v, progress to %d", out, last)
		}
		same(t, f.files(t), want)
		f.once(t)
	}
}

func TestNothingIsLeftOnTheServers(t *testing.T) {
	t.Parallel()
	p := plan(t, 1, 1)
	nc := connected(t)
	f := open(t, t.TempDir(), p)
	if _, err := Run(deadline(t), nc, p, f.store, quick(Options{Workers: 1})); err != nil {
		t.Fatal(err)
	}
	js, _ := jetstream.New(nc)
	list := js.StreamNames(deadline(t))
	for name := range list.Name() {
		t.Errorf("stream %s is left", name)
	}
	if out, err := Run(deadline(t), nil, p, f.store, quick(Options{})); err != nil || out.Ran != 0 {
		t.Errorf("a complete sweep asks for servers: %+v, %v", out, err)
	}
}
