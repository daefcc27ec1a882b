package sweep

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// resultFile is the only one of a folder that one process wrote.
func resultFile(dir string) string {
	return filepath.Join(dir, resultsFolder, "shard-1-of-1"+resultsSuffix)
}

// damages are ways in which a file suffers. Each returns another text.
var damages = []struct {
	name string
	do   func(r *rand.Rand, text []byte) []byte
}{
	{"a bit flipped", func(r *rand.Rand, text []byte) []byte {
		text[r.IntN(len(text))] ^= 1 << r.IntN(8)
		return text
	}},
	{"many bits flipped", func(r *rand.Rand, text []byte) []byte {
		for range 1 + r.IntN(100) {
			text[r.IntN(len(text))] ^= 1 << r.IntN(8)
		}
		return text
	}},
	{"cut short", func(r *rand.Rand, text []byte) []byte { return text[:r.IntN(len(text))] }},
	{"the beginning gone", func(r *rand.Rand, text []byte) []byte { return text[r.IntN(len(text)):] }},
	{"a piece gone", func(r *rand.Rand, text []byte) []byte {
		from := r.IntN(len(text))
		return slices.Delete(text, from, from+r.IntN(len(text)-from))
	}},
	{"a piece of zeros", func(r *rand.Rand, text []byte) []byte { // as a crash of the system leaves blocks that were never written
		from := r.IntN(len(text))
		clear(text[from : from+r.IntN(len(text)-from)])
		return text
	}},
	{"a piece twice", func(r *rand.Rand, text []byte) []byte {
		from := r.IntN(len(text))
		to := from + r.IntN(len(text)-from)
		return slices.Insert(text, r.IntN(len(text)), slices.Clone(text[from:to])...)
	}},
	{"garbage inserted", func(r *rand.Rand, text []byte) []byte {
		garbage := make([]byte, r.IntN(3000))
		for i := range garbage {
			garbage[i] = byte(r.Uint32())
		}
		return slices.Insert(text, r.IntN(len(text)), garbage...)
	}},
	{"lines in another order", func(r *rand.Rand, text []byte) []byte {
		lines := bytes.SplitAfter(text, []byte("\n"))
		r.Shuffle(len(lines), func(i, j int) { lines[i], lines[j] = lines[j], lines[i] })
		return bytes.Join(lines, nil)
	}},
	{"lines twice", func(r *rand.Rand, text []byte) []byte {
		lines := bytes.SplitAfter(text, []byte("\n"))
		return bytes.Join(append(lines, lines[:r.IntN(len(lines))]...), nil)
	}},
	{"names of two cells exchanged", func(r *rand.Rand, text []byte) []byte {
		lines := bytes.SplitAfter(text, []byte("\n"))
		i, j := r.IntN(len(lines)-1), r.IntN(len(lines)-1)
		a, b := slices.Clone(lines[i]), slices.Clone(lines[j])
		if len(a) < 41 || len(b) < 41 {
			return text
		}
		copy(lines[i][9:41], b[9:41])
		copy(lines[j][9:41], a[9:41])
		return bytes.Join(lines, nil)
	}},
	{"empty", func(*rand.Rand, []byte) []byte { return nil }},
}

// However a result file is damaged, the cells whose lines are not as they were written are run again, no others, and the tables are
// the same bytes.
func TestDamagedCellsAreFoundAndRunAgain(t *testing.T) {
	p := smallPlan(t)
	dir := t.TempDir()
	run(t, p, dir, Options{})
	want := tables(t, p, dir)
	text, err := os.ReadFile(resultFile(dir))
	if err != nil {
		t.Fatal(err)
	}
	original := map[string]bool{} // lines
	for line := range strings.Lines(string(text)) {
		original[strings.TrimSuffix(line, "\n")] = true
	}
	if len(original) != p.Cells() {
		t.Fatalf("%d different lines of %d cells", len(original), p.Cells())
	}
	rounds := 12
	if testing.Short() {
		rounds = 3
	}
	r := rand.New(rand.NewPCG(3, 14))
	for _, d := range damages {
		for range rounds {
			damaged := d.do(r, slices.Clone(text))
			left := map[string]bool{}
			for _, line := range strings.Split(string(damaged), "\n") {
				if original[line] {
					left[line] = true
				}
			}
			if err := os.WriteFile(resultFile(dir), damaged, 0o644); err != nil {
				t.Fatal(err)
			}
			out := run(t, p, dir, Options{})
			if out.Ran != p.Cells()-len(left) {
				t.Fatalf("%s: %d cells ran again, and %d of %d lines were left", d.name, out.Ran, len(left), p.Cells())
			}
			same(t, d.name, tables(t, p, dir), want)
		}
	}
}

// What Open finds is counted: damage apart from a last line that was not finished.
func TestFoundIsCounted(t *testing.T) {
	p := smallPlan(t)
	dir := t.TempDir()
	run(t, p, dir, Options{})
	text, err := os.ReadFile(resultFile(dir))
	if err != nil {
		t.Fatal(err)
	}
	text[100] ^= 1 // in the first line
	if err := os.WriteFile(resultFile(dir), text[:len(text)-7], 0o644); err != nil {
		t.Fatal(err)
	}
	s, err := Open(dir, p, Shard{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if s.Found != (Found{Files: 1, Damaged: 1, Torn: 1}) {
		t.Errorf("%+v", s.Found)
	}
	missing := 0
	for _, u := range p.Units() {
		missing += len(s.Missing(u))
	}
	if missing != 2 {
		t.Errorf("%d cells are missing, want 2", missing)
	}
}

// A plan that is damaged is named, or is another plan: never taken for this one.
func TestDamagedPlansAreRefused(t *testing.T) {
	p := smallPlan(t)
	dir := t.TempDir()
	run(t, p, dir, Options{})
	name := filepath.Join(dir, PlanFile)
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(1, 59))
	for _, d := range damages {
		for range 20 {
			damaged := d.do(r, slices.Clone(text))
			if err := os.WriteFile(name, damaged, 0o644); err != nil {
				t.Fatal(err)
			}
			f, err := Hold(dir, p, Keep, false)
			if err == nil {
				f.Release()
				if q, err := ReadPlan(name); err != nil || !bytes.Equal(q.Encode(), text) {
					t.Fatalf("%s: the plan is taken for whole", d.name)
				}
			} else if !strings.Contains(err.Error(), dir) || strings.Contains(err.Error(), "\n") {
				t.Fatalf("%s: %v", d.name, err)
			}
		}
	}
}

// manifested is a folder with tables of steps, and the texts of its files.
func manifested(t testing.TB) (dir string, files map[string][]byte) {
	t.Helper()
	p := smallPlan(t)
	dir = t.TempDir()
	run(t, p, dir, Options{})
	return dir, tables(t, p, dir)
}

// use reads everything that a table may be asked for.
func use(dir string) error {
	r, err := OpenResults(dir)
	if err != nil {
		return err
	}
	defer r.Close()
	for _, metric := range []string{"maxvio_global", "steps.maxvio"} {
		q := Query{Metric: metric, Filters: []string{"seed!=2", "tokens>1", "strategy=none|loss-free"}}
		r.Defaults(&q)
		if _, err = r.Project(q); err != nil {
			return err
		}
	}
	_, err = r.Effects(Query{Metric: "maxvio_global"})
	return err
}

// A table that is damaged is named, and never read as if it were whole.
func TestDamagedTablesAreNamed(t *testing.T) {
	dir, files := manifested(t)
	if err := use(dir); err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(2, 65))
	for _, table := range []string{CellsTable, StepsTable} {
		name := filepath.Join(dir, table)
		for _, d := range damages[:8] {
			for range 5 {
				damaged := d.do(r, slices.Clone(files[table]))
				if bytes.Equal(damaged, files[table]) {
					continue
				}
				if err := os.WriteFile(name, damaged, 0o644); err != nil {
					t.Fatal(err)
				}
				if err := use(dir); err == nil || !strings.Contains(err.Error(), name) || !strings.Contains(err.Error(), "evenkeel collect") {
					t.Fatalf("%s with %s: %v", table, d.name, err)
				}
			}
		}
		if err := os.Remove(name); err != nil {
			t.Fatal(err)
		}
		if err := use(dir); err == nil || !strings.Contains(err.Error(), name) {
			t.Fatalf("without %s: %v", table, err)
		}
		if err := os.WriteFile(name, files[table], 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// A manifest that is damaged is refused or does no harm.
func TestDamagedManifestsDoNoHarm(t *testing.T) {
	dir, files := manifested(t)
	name := filepath.Join(dir, ManifestFile)
	r := rand.New(rand.NewPCG(3, 58))
	for _, d := range damages {
		for range 20 {
			if err := os.WriteFile(name, d.do(r, slices.Clone(files[ManifestFile])), 0o644); err != nil {
				t.Fatal(err)
			}
			if err := use(dir); err != nil && !strings.Contains(err.Error(), "manifest") && !strings.Contains(err.Error(), "column") {
				t.Fatalf("%s: %v", d.name, err)
			}
		}
	}
}

// The clock of a machine may jump: here it goes back to the year 2000 between two halves of a sweep, and stands still while the
// second runs, so that nothing which waits for it would ever come.
func TestClockThatJumpsBack(t *testing.T) {
	p := smallPlan(t)
	dir := t.TempDir()
	run(t, p, dir, Options{})
	want := tables(t, p, dir)
	dir = t.TempDir()
	run(t, p, dir, Options{Shard: Shard{1, 2}})
	synctest.Test(t, func(t *testing.T) {
		if now := time.Now().Year(); now != 2000 {
			t.Fatalf("it is %d", now)
		}
		if out := run(t, p, dir, Options{Workers: 2}); out.Ran == 0 || out.Ran == out.Cells {
			t.Errorf("%+v: want the second half", out)
		}
	})
	same(t, "the clock went back", tables(t, p, dir), want)
}

// Of a folder that is written while the disk dawdles nothing is lost: what waits for the disk longer than a moment is synced.
func TestWrittenLinesAreSyncedSoon(t *testing.T) {
	p := smallPlan(t)
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		s, err := Open(dir, p, Shard{})
		if err != nil {
			t.Fatal(err)
		}
		cells := p.Of(p.Units()[0])
		put := func(i int) {
			if err := s.Put(cells[i:i+1], []*Record{{Failed: "a test"}}); err != nil {
				t.Fatal(err)
			}
		}
		pending := func() bool {
			s.mu.Lock()
			defer s.mu.Unlock()
			return s.timer != nil
		}
		put(0) // the first for long is synced at once
		if pending() {
			t.Error("the first line waits")
		}
		put(1)
		if !pending() {
			t.Error("a second line at once is synced alone")
		}
		time.Sleep(2 * syncAfter)
		synctest.Wait()
		if pending() {
			t.Error("the second line waits for ever")
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

// A record that is whole by its checksum but no JSON is named, as who wrote it meant harm.
func TestForgedRecordIsNamed(t *testing.T) {
	p := smallPlan(t)
	dir := t.TempDir()
	names, err := p.names()
	if err != nil {
		t.Fatal(err)
	}
	for _, record := range []string{`{`, `[]`, `{"values":{"maxvio_global":"x"}}`, `null`, `{"steps":[{"step":1e99}]}`, ``} {
		if err := os.MkdirAll(filepath.Join(dir, resultsFolder), 0o755); err != nil {
			t.Fatal(err)
		}
		line := appendLine(nil, names.of(p.Of(p.Units()[0])[0]), []byte(record))
		if err := os.WriteFile(resultFile(dir), line, 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := Collect(context.Background(), dir, p, nil); err != nil && !strings.Contains(err.Error(), resultFile(dir)) {
			t.Errorf("%s: %v", record, err)
		}
	}
}

// Lines come back as they were written, and nothing else is a line.
func FuzzDecodeLine(f *testing.F) {
	f.Add([]byte(`{"failed":"x"}`))
	f.Add(appendLine(nil, Name{1, 2}, []byte(`{"values":{"a":1}}`)))
	f.Add([]byte("00000000 00000000000000000000000000000000 "))
	f.Add([]byte("1bad0000 zz"))
	f.Fuzz(func(t *testing.T, text []byte) {
		if name, record, ok := decodeLine(text); ok {
			if again := appendLine(nil, name, record); !strings.EqualFold(string(again), string(text)+"\n") {
				t.Errorf("%q is taken for %q", text, again)
			}
		}
		if bytes.ContainsRune(text, '\n') {
			return
		}
		n := Name{3, 1, 4}
		line := appendLine(nil, n, text)
		name, record, ok := decodeLine(line[:len(line)-1])
		if !ok || name != n || !bytes.Equal(record, text) {
			t.Errorf("%q comes back as %q", text, record)
		}
	})
}

func TestRecordsSurviveJSON(t *testing.T) {
	r := &Record{Kind: "bound", Values: map[string]float64{"maxvio_global": 0.1 + 0.2}, Warnings: []string{"a\nb"}, Steps: []StepOfCell{{Step: 3, Values: map[string]float64{}, Loads: []float32{1, 0.1}}}}
	text, err := json.Marshal(r)
	if err != nil || bytes.ContainsRune(text, '\n') {
		t.Fatal(err, string(text))
	}
	var back Record
	if err := json.Unmarshal(text, &back); err != nil {
		t.Fatal(err)
	}
	if fmt.Sprint(*r) != fmt.Sprint(back) {
		t.Errorf("%v comes back as %v", *r, back)
	}
}
