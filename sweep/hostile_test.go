package sweep

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"

	"evenkeel/scenarios"
	"evenkeel/strategies"
)

// changed is smallPlan as JSON, with a change.
func changed(t testing.TB, change func(p *Plan)) []byte {
	t.Helper()
	p := smallPlan(t)
	change(p)
	return p.Encode()
}

// What a plan of somebody else must not say, and what it is told.
func TestHostilePlansAreRefused(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "rule.yaml")
	if err := os.WriteFile(file, []byte("name: rule\nparts: [loss-free]\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	long := strings.Repeat("x", maxText+1)
	for name, x := range map[string]struct {
		change func(p *Plan)
		said   string
	}{
		"another format":        {func(p *Plan) { p.Format++ }, "use the program that made it"},
		"no cells":              {func(p *Plan) { p.Pairs = nil }, "has no cells"},
		"a strategy file":       {func(p *Plan) { p.Strategies[0] = file }, "carries the texts of strategy files"},
		"a strategy file's yml": {func(p *Plan) { p.Strategies[0] = "rule.yml:a=1" }, "carries the texts of strategy files"},
		"spaces before a file":  {func(p *Plan) { p.Strategies[0] = "  " + file + "  " }, "carries the texts of strategy files"},
		"an unknown strategy":   {func(p *Plan) { p.Strategies[0] = "nothing" }, "no strategy"},
		"knobs left out":        {func(p *Plan) { p.Strategies[1] = "loss-free" }, "a plan has every knob"},
		"a strategy twice":      {func(p *Plan) { p.Strategies[2] = p.Strategies[1] }, "loss-free twice"},
		"a strategy's name twice": {func(p *Plan) {
			p.Strategies[2] = strings.Replace(p.Strategies[1], "centre=false", "centre=true", 1)
		}, "loss-free twice"},
		"a long strategy": {func(p *Plan) { p.Strategies[0] = long }, "bytes: at most"},
		"many strategies": {func(p *Plan) { p.Strategies = make([]string, maxTexts+1) }, "strategies"},
		"a strategy that varies and has another value": {func(p *Plan) {
			p.Strategies[1] = strings.Replace(p.Strategies[1], "rate=0.001", "rate=0.5", 1)
		}, "must have its default"},
		"a spec twice":              {func(p *Plan) { p.Specs[1] = p.Specs[3] }, "is there twice"},
		"a spec of no strategy":     {func(p *Plan) { p.Specs[0][0] = 3 }, "one of 3 strategies"},
		"a spec below zero":         {func(p *Plan) { p.Specs[0][0] = -1 }, "one of 3 strategies"},
		"a short spec":              {func(p *Plan) { p.Specs[0] = nil }, "one of 3 strategies"},
		"a spec of no value":        {func(p *Plan) { p.Specs[1][1] = 3 }, "takes value 3 of loss-free.rate"},
		"a spec without a value":    {func(p *Plan) { p.Specs[1][1] = -1 }, "takes value -1 of loss-free.rate"},
		"a spec far below zero":     {func(p *Plan) { p.Specs[0][1] = -2 }, "takes value -2 of loss-free.rate"},
		"a spec of another's value": {func(p *Plan) { p.Specs[0][1] = 0 }, "takes value 0 of loss-free.rate"},
		"a file of another name": {func(p *Plan) {
			p.Files = map[string]string{"recipes/gshard.yaml": "name: gshard\nparts: [loss-free]\n"}
		},
			"a plan has each under its name"},
		"a file that is a preset": {func(p *Plan) { p.Files = map[string]string{"none": "name: none\nparts: [loss-free]\n"} }, "choose another"},
		"a file that is none":     {func(p *Plan) { p.Files = map[string]string{"x": "&a [*a, *a]"} }, "strategy file x"},
		"a long file":             {func(p *Plan) { p.Files = map[string]string{"x": long} }, "bytes: at most"},
		"a long name of a file":   {func(p *Plan) { p.Files = map[string]string{long: "x"} }, "bytes: at most"},
		"a long scenario":         {func(p *Plan) { p.Scenario.YAML = long }, "bytes: at most"},
		"a long setting":          {func(p *Plan) { p.Settings = append(p.Settings, "a="+long) }, "bytes: at most"},
		"many settings":           {func(p *Plan) { p.Settings = make([]string, maxTexts+1) }, "settings"},
		"a long value":            {func(p *Plan) { p.Axes[0].Values[0] = long }, "bytes: at most"},
		"many axes":               {func(p *Plan) { p.Axes = make([]Axis, 65) }, "at most 64"},
		"an axis twice":           {func(p *Plan) { p.Axes = append(p.Axes, p.Axes[0]) }, "twice"},
		"an axis that is none":    {func(p *Plan) { p.Axes[0].Name = "maxvio_global" }, "no key of a scenario"},
		"an axis with a tag":      {func(p *Plan) { p.Axes[0].Name = "x,optional\" json:\"" }, "no key of a scenario"},
		"an axis of seeds":        {func(p *Plan) { p.Axes[0].Name = "seeds" }, "no key of a scenario"},
		"a knob that is none":     {func(p *Plan) { p.Knobs[0].Name = "seed" }, "no knob"},
		"a knob that it has not":  {func(p *Plan) { p.Knobs[0].Name = "loss-free.seed" }, "has no knob"},
		"a knob twice":            {func(p *Plan) { p.Knobs = append(p.Knobs, p.Knobs[0]) }, "named twice"},
		"many knobs":              {func(p *Plan) { p.Knobs = make([]Axis, 65) }, "at most"},
		"a knob's wrong value":    {func(p *Plan) { p.Knobs[0].Values[1] = "fast" }, "must be a number"},
		"a knob's other words":    {func(p *Plan) { p.Knobs[0].Values[1] = "1e-2" }, "a plan writes it 0.01"},
		"a knob's value twice":    {func(p *Plan) { p.Knobs[0].Values[1] = p.Knobs[0].Values[0] }, "twice"},
		"a knob's long value":     {func(p *Plan) { p.Knobs[0].Values[1] = long }, "bytes: at most"},
		"an axis' value twice":    {func(p *Plan) { p.Axes[0].Values[1] = p.Axes[0].Values[0] }, "twice"},
		"a variant twice":         {func(p *Plan) { p.Variants[1] = p.Variants[0] }, "is there twice"},
		"a value that is none":    {func(p *Plan) { p.Variants[0][0] = 9 }, "takes value 9"},
		"a negative value":        {func(p *Plan) { p.Variants[0][0] = -1 }, "takes value -1"},
		"a short variant":         {func(p *Plan) { p.Variants[0] = nil }, "0 values"},
		"a seed twice":            {func(p *Plan) { p.Seeds[0] = p.Seeds[1] }, "given twice"},
		"a pair of no variant":    {func(p *Plan) { p.Pairs[0][0] = 99 }, "variant 99"},
		"a pair of no spec":       {func(p *Plan) { p.Pairs[0][1] = -1 }, "spec -1"},
		"a pair without seeds":    {func(p *Plan) { p.Pairs[0][2] = 0 }, "0 seeds"},
		"a pair of more seeds":    {func(p *Plan) { p.Pairs[0][2] = 4 }, "4 seeds"},
		"pairs out of order":      {func(p *Plan) { p.Pairs[0], p.Pairs[1] = p.Pairs[1], p.Pairs[0] }, "in order"},
		"a pair twice":            {func(p *Plan) { p.Pairs[1] = p.Pairs[0] }, "in order"},
		"many steps":              {func(p *Plan) { p.Steps = maxSteps + 1 }, "recorded_steps"},
		"steps below zero":        {func(p *Plan) { p.Steps = -1 }, "recorded_steps"},
		"many cells": {func(p *Plan) {
			p.Seeds = make([]uint64, 1<<13)
			for i := range p.Seeds {
				p.Seeds[i] = uint64(i)
			}
			p.Axes, p.Variants, p.Pairs = []Axis{{Name: "tokens", Values: make([]string, 1<<12)}}, make([][]int32, 1<<12), nil
			for i := range p.Variants {
				p.Axes[0].Values[i], p.Variants[i] = strconv.Itoa(i), []int32{int32(i)}
				p.Pairs = append(p.Pairs, [3]int32{int32(i), 0, 1 << 13})
			}
		}, "more than"},
	} {
		_, err := DecodePlan(changed(t, x.change))
		if err == nil || !strings.Contains(err.Error(), x.said) || strings.Contains(err.Error(), "\n") || len(err.Error()) > 5*maxWord {
			t.Errorf("%s: %v, want %q", name, err, x.said)
		}
	}
	for _, text := range []string{"", "null", "[]", "{}", "1", `{"format":3}`, `{"format":3,"other":2}`, strings.Repeat("[", 1<<20), `{"seeds":[1e400]}`,
		`{"variants":[[3000000000]]}`, string(smallPlan(t).Encode()) + "{}"} {
		if _, err := DecodePlan([]byte(text)); err == nil {
			t.Errorf("%.40q is taken for a plan", text)
		}
	}
	if _, err := DecodePlan(changed(t, func(*Plan) {})); err != nil {
		t.Errorf("without a change: %v", err)
	}
	if _, err := ReadPlan(dir); err == nil || !strings.Contains(err.Error(), dir) {
		t.Errorf("a folder: %v", err)
	}
}

// A plan may name the file of a trace only by its checksum, and what another file holds comes back in no record.
func TestPlansReadNoOtherFiles(t *testing.T) {
	dir := t.TempDir()
	secret := filepath.Join(dir, "secret.csv")
	if err := os.WriteFile(secret, []byte("token,password\n0,hunter2\n1,hunter3\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, "link.npz")
	if err := os.Symlink(secret, link); err != nil {
		t.Fatal(err)
	}
	files := []string{secret, link, "/dev/zero", "/etc/passwd", dir, filepath.Join(dir, "absent")}
	if runtime.GOOS == "windows" {
		files = slices.Delete(files, 2, 4)
	}
	sum := strings.Repeat("ab", 32)
	for _, file := range files {
		for how, change := range map[string]func(p *Plan){
			"setting": func(p *Plan) { p.Settings = append(p.Settings, "trace.file="+file, "trace.sha256="+sum) },
			"no sum":  func(p *Plan) { p.Settings = append(p.Settings, "trace.file="+file) },
			"axis": func(p *Plan) {
				p.Axes[0] = Axis{"trace.file", []string{file, file + "?"}}
				p.Settings = append(p.Settings, "trace.sha256="+sum)
			},
			"text": func(p *Plan) { p.Scenario.YAML = fmt.Sprintf("trace: {file: %q, sha256: %s}", file, sum) },
			"mapping": func(p *Plan) {
				p.Settings = append(p.Settings, fmt.Sprintf("trace={file: %q, map: [topk_ids=password]}", file))
			},
		} {
			p, err := DecodePlan(changed(t, change))
			if err != nil {
				t.Fatalf("%s %s: %v", how, file, err)
			}
			records, err := NewComputer(p).Compute(context.Background(), p.Of(p.Units()[0]))
			if err != nil {
				records = []*Record{{Failed: err.Error()}}
			}
			for _, r := range records {
				if r.Failed == "" || r.Values != nil {
					t.Errorf("%s: %s is read as a trace", how, file)
				}
				if strings.Contains(r.Failed, "hunter") || strings.Contains(r.Failed, "password") || strings.Contains(r.Failed, "root:") {
					t.Errorf("%s: the record says what %s holds: %s", how, file, r.Failed)
				}
			}
		}
	}
}

// A cell whose record would be longer than a line may be fails before it runs, and one that needs more memory than there is runs
// nowhere.
func TestCellsAreBounded(t *testing.T) {
	p, err := DecodePlan(changed(t, func(p *Plan) {
		p.Steps, p.Loads = maxSteps, true
		p.Settings = append(p.Settings, "experts=4096", "steps=1000000")
	}))
	if err != nil {
		t.Fatal(err)
	}
	records, err := NewComputer(p).Compute(context.Background(), p.Of(p.Units()[0]))
	if err != nil || !strings.Contains(records[0].Failed, "record fewer steps") {
		t.Errorf("%v, %+v", err, records)
	}
	p, err = DecodePlan(changed(t, func(p *Plan) {
		p.Axes[0].Values[0] = "16777216"
		p.Settings = append(p.Settings, "experts=4096", "width=65536")
	}))
	if err != nil {
		t.Fatal(err)
	}
	s, err := Open(t.TempDir(), p, Shard{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := Run(context.Background(), p, s, Options{Memory: 1 << 30}); err == nil || !strings.Contains(err.Error(), "a larger machine") {
		t.Errorf("a cell of terabytes: %v", err)
	}
}

// allocated is how many bytes a function asked for.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// FuzzDecodePlan: what decodes has cells that can be listed and named, and is the same when it is encoded and decoded again. No text
// asks for more than so many times its own length.
func FuzzDecodePlan(f *testing.F) {
	f.Add(changed(f, func(*Plan) {}))
	f.Add(changed(f, func(p *Plan) {
		p.Files = map[string]string{"rule": "name: rule\nparts: [{loss-free: {rate: 1e-3}}]\n"}
		p.Strategies[0] = "rule:loss-free.rate=0.001"
	}))
	f.Add([]byte(`{"format":3,"scenario":{"file":"","name":"","text":""},"design":"","strategies":["none"],"variants":[[]],"specs":[[0]],"pairs":[[0,0,1]],"seeds":[1],"recorded_steps":0,"recorded_loads":false}`))
	f.Add([]byte(`{"format":3,"variants":[[],[],[]],"seeds":[18446744073709551615]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		var p *Plan
		var err error
		if n := allocated(func() { p, err = DecodePlan(text) }); n > 64<<20+1000*uint64(len(text)) {
			t.Fatalf("%d bytes took %d", len(text), n)
		}
		if err != nil {
			return
		}
		again, err := DecodePlan(p.Encode())
		if err != nil || again.Hash() != p.Hash() {
			t.Fatalf("not the same when it is decoded again: %v", err)
		}
		names, err := p.names()
		if err != nil {
			t.Fatal(err)
		}
		if p.Cells() > 1<<16 {
			return
		}
		seen := map[int]bool{}
		for _, u := range p.Units() {
			for _, c := range p.Of(u) {
				names.of(c)
				seen[c.Index] = true
			}
		}
		if len(seen) != p.Cells() {
			t.Fatalf("units have %d of %d cells", len(seen), p.Cells())
		}
	})
}

// A plan is written list by list as it would be at once.
func TestPlansAreWrittenAsTheyAre(t *testing.T) {
	p := smallPlan(t)
	p.Design = `"variants":null,"specs":null,"pairs":null <&>`
	want, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	if got := p.Encode(); string(got) != string(want)+"\n" {
		t.Errorf("%s\nwant\n%s", got, want)
	}
	long := &Plan{Specs: make([][]int32, 5000), Variants: [][]int32{{}}, Pairs: [][3]int32{{1, 2, 3}}}
	if want, _ = json.Marshal(long); string(long.Encode()) != string(want)+"\n" {
		t.Error("a long list is written in another way")
	}
}

// What is made can be read again, or is refused before anything runs.
func TestPlansThatCannotBeReadAreNotMade(t *testing.T) {
	p := smallPlan(t)
	n := len(p.Encode())
	if err := p.writeWithin(io.Discard, n); err != nil {
		t.Error(err)
	}
	if err := p.writeWithin(io.Discard, n-1); err == nil || !strings.Contains(err.Error(), "vary less") {
		t.Errorf("one byte too many: %v", err)
	}
	b := small(t)
	for _, preset := range strategies.Presets() { // each twice, with another value of every number
		text := preset.Name
		separator := ":"
		for _, k := range preset.Knobs {
			if low := strconv.FormatFloat(k.Low, 'g', -1, 64); k.Options == nil && low != k.Default {
				text += separator + k.Name + "=" + low
				separator = ","
			}
		}
		for _, s := range []string{preset.Name, text} {
			spec, err := strategies.Parse(s)
			if err != nil {
				t.Fatal(err)
			}
			b.Strategies = append(b.Strategies, spec)
		}
	}
	if _, err := New(b, nil, "grid", grid()); err == nil || !strings.Contains(err.Error(), "knobs that vary") {
		t.Errorf("all knobs: %v", err)
	}
}

// FuzzParseShard: what is taken for a shard is one, and says so again.
func FuzzParseShard(f *testing.F) {
	for _, text := range []string{"3/16", "1/1", "0/1", "2/1", "-1/-1", "1/0", "1/2/3", " 1/2", "1/ 2", "+1/2", "9223372036854775807/9223372036854775807", "1/2 ", "a/b", "", "01/02"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s, err := ParseShard(text)
		if err != nil {
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("%q: %v", text, err)
			}
			return
		}
		if s.Index < 1 || s.Index > s.Of {
			t.Errorf("%q is %v", text, s)
		}
		if s.String() != text {
			t.Errorf("%q is taken for %s", text, s)
		}
	})
}

// FuzzFilter: a filter is refused in one sentence, or keeps some of the cells.
func FuzzFilter(f *testing.F) {
	for _, text := range []string{"rate<0.01", "tokens>=64", "strategy=none|loss-free", "seed!=2", "seed<3", "maxvio_global<=1", "rate=", "=1", "<>", "failed=", "tokens=32|64", "rate<NaN", "a=b",
		"strategy<none", "tokens<1|2", "seed=18446744073709551615", "tokens!=1e999"} {
		f.Add(text)
	}
	dir, _ := manifested(f)
	r, err := OpenResults(dir)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { r.Close() })
	f.Fuzz(func(t *testing.T, text string) {
		kept, err := r.kept([]string{text})
		if err != nil {
			if strings.Contains(err.Error(), "\n") && !strings.Contains(text, "\n") {
				t.Errorf("%q: %v", text, err)
			}
			return
		}
		if len(kept) != r.cells.Rows {
			t.Errorf("%q: %d of %d", text, len(kept), r.cells.Rows)
		}
	})
}

// FuzzTable: a table of somebody else is refused or read, without a panic and without much memory.
func FuzzTable(f *testing.F) {
	_, files := manifested(f)
	for _, name := range []string{CellsTable, StepsTable} {
		f.Add(files[name])
		r := rand.New(rand.NewPCG(8, 8))
		for _, d := range damages[:8] {
			f.Add(d.do(r, slices.Clone(files[name])))
		}
		for range 100 { // in the footer, which says what is where
			text := slices.Clone(files[name])
			text[len(text)-1-r.IntN(min(len(text), 3000))] ^= byte(1 + r.IntN(255))
			f.Add(text)
		}
	}
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, text []byte) {
		name := filepath.Join(dir, "table")
		if err := os.WriteFile(name, text, 0o644); err != nil {
			t.Fatal(err)
		}
		n := allocated(func() {
			table, err := OpenTable(name)
			if err != nil {
				if !strings.Contains(err.Error(), name) {
					t.Errorf("%v", err)
				}
				return
			}
			defer table.Close()
			for _, column := range table.Names {
				if list, err := table.Numbers(column); err == nil && len(list) != table.Rows {
					t.Errorf("%s has %d numbers in %d rows", column, len(list), table.Rows)
				}
				if list, err := table.Whole(column); err == nil && len(list) != table.Rows {
					t.Errorf("%s has %d numbers in %d rows", column, len(list), table.Rows)
				}
				if list, _, err := table.Texts(column); err == nil && len(list) != table.Rows {
					t.Errorf("%s has %d texts in %d rows", column, len(list), table.Rows)
				}
			}
			if table.Rows < 1<<20 {
				_ = table.writeCSV(&bytes.Buffer{})
			}
		})
		if n > 256<<20 {
			t.Errorf("%d bytes took %d", len(text), n)
		}
	})
}

// The texts of strategies come with a plan, and its cells are those of the file.
func TestStrategyFilesTravelWithThePlan(t *testing.T) {
	file := filepath.Join(t.TempDir(), "even.yaml")
	if err := os.WriteFile(file, []byte("name: even\nparts: [{loss-free: {rate: 1e-2}}]\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	b := small(t, file)
	p, err := New(b, []string{"even.loss-free.rate"}, "grid", grid([]string{"1e-3", "1e-2"}))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	q, err := DecodePlan(p.Encode())
	if err != nil {
		t.Fatal(err)
	}
	records, err := NewComputer(q).Compute(context.Background(), q.Of(q.Units()[0]))
	if err != nil || records[0].Failed != "" || len(records[0].Values) == 0 {
		t.Fatalf("%v %+v", err, records)
	}
	spec, err := strategies.Parse("loss-free:rate=1e-3")
	if err != nil {
		t.Fatal(err)
	}
	b.Strategies = []strategies.Spec{spec}
	plain, err := New(b, nil, "", func(yield func(Point) bool) { yield(Point{}) })
	if err != nil {
		t.Fatal(err)
	}
	want, err := NewComputer(plain).Compute(context.Background(), plain.Of(plain.Units()[0]))
	if err != nil {
		t.Fatal(err)
	}
	x, _ := json.Marshal(records[0].Values)
	y, _ := json.Marshal(want[0].Values)
	if !bytes.Equal(x, y) {
		t.Errorf("the file's rule computes\n%s\nits only part\n%s", x, y)
	}
}

// A trace is found by its checksum wherever its file lies, and its name is no part of a cell's.
func TestTracesAreNamedByTheirChecksum(t *testing.T) {
	text, err := os.ReadFile("../scenarios/shipped/tinymoe.npz")
	if err != nil {
		t.Fatal(err)
	}
	var names [][]Name
	for range 2 {
		file := filepath.Join(t.TempDir(), "trace.npz")
		if err := os.WriteFile(file, text, 0o644); err != nil {
			t.Fatal(err)
		}
		b := small(t, "none")
		b.Scenario, b.Settings = "trace:"+file, []string{"steps=2", "tokens=64"}
		if _, err := scenarios.Find(b.Scenario); err != nil {
			t.Fatal(err)
		}
		p, err := New(b, nil, "", func(yield func(Point) bool) { yield(Point{}) })
		if err != nil {
			t.Fatal(err)
		}
		n, err := p.names()
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, []Name{n.of(Cell{Seed: 1})})
		records, err := NewComputer(p).Compute(context.Background(), p.Of(p.Units()[0]))
		if err != nil || records[0].Failed != "" {
			t.Fatalf("%v %+v", err, records[0])
		}
		text[len(text)/2] ^= 1
		if err := os.WriteFile(file, text, 0o644); err != nil {
			t.Fatal(err)
		}
		text[len(text)/2] ^= 1
		records, err = NewComputer(p).Compute(context.Background(), p.Of(p.Units()[0]))
		if err == nil || !strings.Contains(err.Error(), "is not the trace that is meant") {
			t.Errorf("a trace that has changed: %v, and is no record of its cells: %v", err, records)
		}
		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
		if records, err = NewComputer(p).Compute(context.Background(), p.Of(p.Units()[0])); err == nil || !strings.Contains(err.Error(), file) {
			t.Errorf("a trace that is not here: %v, and is no record of its cells: %v", err, records)
		}
	}
	if names[0][0] != names[1][0] {
		t.Errorf("the same cell has the names %s and %s", names[0][0], names[1][0])
	}
}
