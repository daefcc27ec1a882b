package sweep

import "testing"

// What a shard lacks is what running it runs, also where others ran before, cut in another way.
func TestLackingIsWhatRunsNext(t *testing.T) {
	p := smallPlan(t)
	dir := t.TempDir()
	total := run(t, p, dir, Options{Shard: Shard{2, 5}}).Ran
	for i := range 3 {
		lacking, err := Lacking(dir, p, 3)
		if err != nil || len(lacking) != 3 || lacking[i] == 0 {
			t.Fatal(lacking, err)
		}
		out := run(t, p, dir, Options{Shard: Shard{i + 1, 3}})
		if out.Ran != lacking[i] {
			t.Errorf("shard %d ran %d cells, and lacked %d", i+1, out.Ran, lacking[i])
		}
		total += out.Ran
	}
	if lacking, err := Lacking(dir, p, 1); err != nil || lacking[0] != 0 || total != p.Cells() {
		t.Errorf("lacks %v after %d of %d cells, %v", lacking, total, p.Cells(), err)
	}
}
