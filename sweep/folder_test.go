package sweep

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// TestFoldersMayHaveAnyName uses names that a pattern of files would read otherwise.
func TestFoldersMayHaveAnyName(t *testing.T) {
	p := smallPlan(t)
	parent := t.TempDir()
	for _, name := range []string{"rates[1]", "rates[", "%d"} {
		dir := filepath.Join(parent, name)
		run(t, p, dir, Options{})
		m, err := Collect(context.Background(), dir, p, nil)
		if err != nil {
			t.Fatal(err)
		}
		if m.Missing != 0 {
			t.Errorf("%s: %d of %d cells that were run are missing in the tables", name, m.Missing, m.Cells)
		}
		if again := run(t, p, dir, Options{}); again.Ran != 0 {
			t.Errorf("%s: %d cells that are stored were run again", name, again.Ran)
		}
	}
}

// TestShardsBeginAtOnce has several shards make one folder: whoever comes second finds the plan of the first, at whatever moment.
func TestShardsBeginAtOnce(t *testing.T) {
	p := smallPlan(t)
	p.Hash()
	for round := range 100 {
		dir := filepath.Join(t.TempDir(), "sweep")
		var group sync.WaitGroup
		for range 4 {
			group.Go(func() {
				h, err := Hold(dir, p, Keep, true)
				if err != nil {
					t.Errorf("round %d: %v", round, err)
					return
				}
				h.Release()
			})
		}
		group.Wait()
	}
}

// TestFolderOfTheScenarioDoesNotMatter plans one file by two paths, with a cell that cannot run and says why.
func TestFolderOfTheScenarioDoesNotMatter(t *testing.T) {
	name := filepath.Join(t.TempDir(), "own.yaml")
	if err := os.WriteFile(name, []byte("experts: 8\ntopk: 2\ntokens: 64\nsteps: 4\nevaluation_tokens: 128\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Chdir(filepath.Dir(name))
	var plans, reasons []string
	for _, path := range []string{name, "own.yaml"} {
		b := small(t, "none")
		b.Scenario, b.Settings = path, nil
		p, err := New(b, []string{"experts", "topk"}, "grid", grid([]string{"8", "16"}, []string{"2", "12"}))
		if err != nil {
			t.Fatal(err)
		}
		records, err := NewComputer(p).Compute(context.Background(), p.Of(p.Units()[len(p.Seeds)])) // 12 of 8 experts
		if err != nil || records[0].Failed == "" {
			t.Fatalf("%v, %+v", err, records)
		}
		plans, reasons = append(plans, string(p.Encode())), append(reasons, records[0].Failed)
	}
	if plans[0] != plans[1] || reasons[0] != reasons[1] {
		t.Errorf("by its full path\n%s%s\nby its name\n%s%s", plans[0], reasons[0], plans[1], reasons[1])
	}
}

func TestTracesThatVaryNeedTheirChecksums(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "scenarios", "shipped", "tinymoe.npz"))
	if err != nil {
		t.Fatal(err)
	}
	var files []string
	for _, name := range []string{"a.npz", "b.npz"} {
		files = append(files, filepath.Join(t.TempDir(), name))
		if err := os.WriteFile(files[len(files)-1], text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	b := small(t, "none")
	b.Scenario, b.Settings = "trace:"+files[0], nil
	if _, err := New(b, []string{"trace.file"}, "grid", grid(files)); err == nil || !strings.Contains(err.Error(), "--vary trace.sha256") {
		t.Errorf("files without checksums: %v", err)
	}
	if _, err := New(b, []string{"trace.file"}, "grid", grid(files[:1])); err != nil {
		t.Errorf("one file: %v", err)
	}
}
