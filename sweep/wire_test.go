package sweep

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestWhatTravelsIsWhatIsStored(t *testing.T) {
	p := smallPlan(t)
	w, err := NewWire(p)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	run(t, p, dir, Options{Workers: 1})
	want, err := os.ReadFile(filepath.Join(dir, resultsFolder, "shard-1-of-1"+resultsSuffix))
	if err != nil {
		t.Fatal(err)
	}
	var got []byte
	c := NewComputer(p)
	for _, u := range p.Units() {
		cells := p.Of(u)
		records, err := c.Compute(context.Background(), cells)
		if err != nil {
			t.Fatal(err)
		}
		lines, err := w.EncodeRecords(cells, records)
		if err != nil {
			t.Fatal(err)
		}
		again, err := w.DecodeRecords(cells, lines)
		if err != nil {
			t.Fatal(err)
		}
		for i := range again {
			a, _ := json.Marshal(again[i])
			b, _ := json.Marshal(records[i])
			if !bytes.Equal(a, b) {
				t.Errorf("cell %d became %s, from %s", cells[i].Index, a, b)
			}
		}
		got = append(got, lines...)
	}
	if !bytes.Equal(got, want) {
		t.Error("the lines are not those of the result file")
	}
}

func TestLinesOfOtherCellsAreRefused(t *testing.T) {
	p := smallPlan(t)
	w, err := NewWire(p)
	if err != nil {
		t.Fatal(err)
	}
	cells := p.Of(p.Units()[0])
	records := make([]*Record, len(cells))
	for i := range records {
		records[i] = &Record{Values: map[string]float64{"maxvio_global": float64(i)}}
	}
	lines, err := w.EncodeRecords(cells, records)
	if err != nil {
		t.Fatal(err)
	}
	other := func(text string) []byte { return appendLine(nil, w.names.of(cells[0]), []byte(text)) }
	for _, c := range []struct {
		what  string
		cells []Cell
		lines []byte
		want  string
	}{
		{"in another order", func() []Cell { c := slices.Clone(cells); slices.Reverse(c); return c }(), lines, "in place of cell"},
		{"cut", cells, lines[:len(lines)-1], "torn or damaged"},
		{"of too few cells", cells, lines[:bytes.IndexByte(lines, '\n')+1], "torn or damaged"},
		{"of too many", cells[:1], lines, "behind the records"},
		{"with another word", cells[:1], other(`{"command":"rm"}`), "unknown field"},
		{"with more behind", cells[:1], other(`{}{}`), "behind it"},
		{"with spaces", cells[:1], other(`{ }`), "not as this program writes it"},
		{"of another kind", cells[:1], other(`[]`), "cannot be read"},
		{"that are none", cells[:1], other(`null`), "not as this program writes it"},
	} {
		if _, err := w.DecodeRecords(c.cells, c.lines); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("lines %s: %v, want %q", c.what, err, c.want)
		}
	}
}

func TestFingerprintsTellPlansApart(t *testing.T) {
	print := func(b Base) string {
		p, err := New(b, nil, "one", grid())
		if err != nil {
			t.Fatal(err)
		}
		w, err := NewWire(p)
		if err != nil {
			t.Fatal(err)
		}
		return w.Fingerprint()
	}
	first := print(small(t, "none"))
	if first != print(small(t, "none")) {
		t.Error("equal plans differ")
	}
	steps := small(t, "none")
	steps.Steps = 2
	for what, b := range map[string]Base{"strategy": small(t, "loss-free"), "knob": small(t, "none", "loss-free:rate=0.5"), "recorded steps": steps} {
		if print(b) == first {
			t.Errorf("another %s makes no difference", what)
		}
	}
}

func TestAMachineWithoutTheTraceCannotRunIt(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "scenarios", "shipped", "tinymoe.npz"))
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(t.TempDir(), "trace.npz")
	if err := os.WriteFile(name, text, 0o644); err != nil {
		t.Fatal(err)
	}
	b := small(t, "none")
	b.Scenario, b.Settings = "trace:"+name, nil
	p, err := New(b, nil, "one", grid())
	if err != nil {
		t.Fatal(err)
	}
	if err := NewComputer(p).Reachable(); err != nil {
		t.Errorf("where it is: %s", err)
	}
	if err := os.WriteFile(name, text[:len(text)/2], 0o644); err != nil {
		t.Fatal(err)
	}
	if err := NewComputer(p).Reachable(); err == nil {
		t.Error("another file in its place is taken")
	}
	if err := os.Remove(name); err != nil {
		t.Fatal(err)
	}
	if err := NewComputer(p).Reachable(); err == nil || !strings.Contains(err.Error(), name) {
		t.Errorf("where it is not: %v", err)
	}
}
