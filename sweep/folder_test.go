package sweep

import (
	"context"
	"path/filepath"
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
