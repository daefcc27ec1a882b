package sweep

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"hash"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"evenkeel/internal/whole"
	"evenkeel/sim"
)

// Files that Collect makes in a sweep's folder.
const (
	ManifestFile = "manifest.json"
	CellsTable   = "cells.parquet"
	StepsTable   = "steps.parquet"
	LoadsTable   = "loads.parquet"
)

// Manifest says what a folder of results holds. It depends on the plan and on what is finished, not on who ran it or when.
type Manifest struct {
	Format     int         `json:"format"`
	Plan       string      `json:"plan"` // its hash
	Scenario   string      `json:"scenario"`
	Settings   []string    `json:"settings,omitempty"`
	Design     string      `json:"design"`
	Axes       []Axis      `json:"axes,omitempty"`
	Knobs      []string    `json:"knobs,omitempty"`
	Strategies []Revision  `json:"strategies"`
	Seeds      []uint64    `json:"seeds"`
	Cells      int         `json:"cells"`
	Failed     int         `json:"failed"`  // hold a reason instead of figures
	Missing    int         `json:"missing"` // not finished
	Tables     []TableFile `json:"tables"`
}

// Revision is that of a strategy.
type Revision struct {
	Name     string `json:"name"`
	Revision int    `json:"revision"`
}

// TableFile is one table of a folder.
type TableFile struct {
	File   string `json:"file"`
	Rows   int64  `json:"rows"`
	SHA256 string `json:"sha256"`
}

// ReadManifest reads the manifest of a folder.
func ReadManifest(dir string) (*Manifest, error) {
	name := filepath.Join(dir, ManifestFile)
	text, err := whole.Read(name, maxPlan)
	if err != nil {
		return nil, err
	}
	m := new(Manifest)
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(m); err != nil || m.Format != Format {
		return nil, fmt.Errorf("%s is no manifest of a sweep of format %d", name, Format)
	}
	return m, nil
}

// Collect makes the tables and the manifest of a folder from what is stored there, in the order of the plan's cells. The manifest
// of an earlier time goes first and the new one comes last: where it is, the tables belong to it. Progress may be nil.
func Collect(ctx context.Context, dir string, p *Plan, progress func(done, total int)) (*Manifest, error) {
	c, err := newCollector(dir, p)
	if err != nil {
		return nil, err
	}
	defer c.close()
	name := filepath.Join(dir, ManifestFile)
	if err := os.Remove(name); err != nil && !os.IsNotExist(err) {
		return nil, whole.Located(err)
	}
	m := &Manifest{Format: Format, Plan: p.Hash(), Scenario: p.Scenario.Name, Settings: p.portable(), Design: p.Design, Axes: p.Axes,
		Seeds: p.Seeds, Cells: p.Cells()}
	for _, k := range p.Knobs {
		m.Knobs = append(m.Knobs, k.Name)
	}
	for _, r := range p.rules {
		if revision := (Revision{r.Preset.Name, r.Preset.Revision}); !slices.Contains(m.Strategies, revision) {
			m.Strategies = append(m.Strategies, revision)
		}
	}
	if err := c.write(ctx, m, progress); err != nil {
		return nil, err
	}
	text, _ := json.MarshalIndent(m, "", "  ") // plain values only
	return m, whole.WriteBytes(name, append(text, '\n'))
}

// portable are the settings without the place of a trace's file.
func (p *Plan) portable() []string {
	return slices.DeleteFunc(slices.Clone(p.Settings), func(s string) bool { return strings.HasPrefix(s, traceFile) })
}

// collector reads the records of a folder in the order of cells.
type collector struct {
	dir     string
	p       *Plan
	names   *names
	short   []string // specs without defaults
	places  []place  // of cells; length 0 where there is none
	files   []*os.File
	metrics []string // that occur
	floors  []string
}

func newCollector(dir string, p *Plan) (*collector, error) {
	c := &collector{dir: dir, p: p, places: make([]place, p.Cells())}
	var err error
	if c.names, err = p.names(); err != nil {
		return nil, err
	}
	for i := range p.Specs {
		c.short = append(c.short, p.Spec(i))
	}
	index := make(map[Name]int32, p.Cells())
	for _, u := range p.Units() {
		for _, cell := range p.Of(u) {
			index[c.names.of(cell)] = int32(cell.Index)
		}
	}
	// Which columns there are is known once all records were looked at; what was found is looked for no more.
	type sought struct {
		key    string
		quoted []byte
	}
	var values, floors []sought
	for _, key := range sim.MetricKeys() {
		values = append(values, sought{key, []byte(`"` + key + `":`)})
	}
	floors = slices.Clone(values)
	found := map[string]bool{}
	seek := func(list []sought, in []byte, suffix string) []sought {
		return slices.DeleteFunc(list, func(s sought) bool {
			there := bytes.Contains(in, s.quoted)
			if there {
				found[s.key+suffix] = true
			}
			return there
		})
	}
	if _, err := scan(dir, func(n Name, record []byte, at place) error {
		i, ok := index[n]
		if !ok {
			return nil // of a plan that this one replaced
		}
		c.places[i] = at
		first, second, _ := bytes.Cut(record, []byte(`"floors":`))
		values, floors = seek(values, first, ""), seek(floors, second, floor)
		return nil
	}); err != nil {
		return nil, err
	}
	for _, key := range sim.MetricKeys() {
		if found[key] {
			c.metrics = append(c.metrics, key)
		}
		if found[key+floor] {
			c.floors = append(c.floors, key)
		}
	}
	files, err := resultFiles(dir)
	if err != nil {
		return nil, err
	}
	for _, name := range files {
		f, err := os.Open(name)
		if err != nil {
			c.close()
			return nil, whole.Located(err)
		}
		c.files = append(c.files, f)
	}
	return c, nil
}

// floor ends the column of a metric's sampling floor.
const floor = "_floor"

func (c *collector) close() {
	for _, f := range c.files {
		f.Close()
	}
}

// record reads that of a cell, or nothing where it is not finished.
func (c *collector) record(i int, buffer *[]byte) (*Record, error) {
	at := c.places[i]
	if at.length == 0 {
		return nil, nil
	}
	*buffer = slices.Grow((*buffer)[:0], int(at.length))[:at.length]
	if _, err := c.files[at.file].ReadAt(*buffer, at.offset); err != nil {
		return nil, whole.Located(err)
	}
	r := new(Record)
	if err := json.Unmarshal(*buffer, r); err != nil {
		return nil, fmt.Errorf("%s: the record of cell %d cannot be read: %w", c.files[at.file].Name(), i, err)
	}
	return r, nil
}

// stepColumns are the figures of a step, by the names of a run's steps.csv.
var stepColumns = []string{"maxvio", "maxvio_sequence", "maxvio_device", "load_variance", "drop_rate", "affinity_kept", "layer_error", "balance_loss",
	"regret_to_optimum", "bias_spread", "bias_mean"}

// write writes the tables and counts what they hold.
func (c *collector) write(ctx context.Context, m *Manifest, progress func(done, total int)) error {
	p := c.p
	tables := []string{CellsTable}
	if p.Steps > 0 {
		tables = append(tables, StepsTable)
	}
	if p.Steps > 0 && p.Loads {
		tables = append(tables, LoadsTable)
	}
	for _, name := range tables {
		var t *tableWriter
		sum := sha256.New()
		err := whole.Write(filepath.Join(c.dir, name), func(w io.Writer) error {
			out := io.MultiWriter(w, sum)
			switch name {
			case CellsTable:
				t = newTableWriter(out, c.cellColumns())
			case StepsTable:
				columns := []column{{"cell", integers, true}, {"step", integers, true}}
				for _, key := range stepColumns {
					columns = append(columns, column{key, floats, false})
				}
				t = newTableWriter(out, columns)
			default:
				t = newTableWriter(out, []column{{"cell", integers, true}, {"step", integers, true}, {"expert", integers, true}, {"load", floats, true}})
			}
			if err := c.fill(ctx, t, name, m, progress); err != nil {
				return err
			}
			return t.close()
		})
		if err != nil {
			return err
		}
		m.Tables = append(m.Tables, TableFile{name, t.rows, sumText(sum)})
	}
	return nil
}

func sumText(h hash.Hash) string { return hex.EncodeToString(h.Sum(nil)) }

// fill writes the rows of a table.
func (c *collector) fill(ctx context.Context, t *tableWriter, name string, m *Manifest, progress func(done, total int)) error {
	var buffer []byte
	for i := range c.places {
		if i%1024 == 0 {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if progress != nil {
				progress(i, len(c.places))
			}
		}
		r, err := c.record(i, &buffer)
		if err != nil {
			return err
		}
		switch {
		case name == CellsTable && r == nil:
			m.Missing++
		case r == nil:
		case name == CellsTable:
			if r.Failed != "" {
				m.Failed++
			}
			err = c.cellRow(t, i, r)
		case name == StepsTable:
			err = stepRows(t, i, r)
		default:
			err = loadRows(t, i, r)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// cellColumns are those of the table of cells: what a cell is, then what it found.
func (c *collector) cellColumns() []column {
	columns := []column{{"cell", integers, true}, {"name", texts, true}}
	for _, a := range c.p.Axes {
		columns = append(columns, column{a.Name, kindOf(a.Values), false})
	}
	columns = append(columns, column{"strategy", texts, true}, column{"spec", texts, true}, column{"kind", texts, false})
	for _, k := range c.p.Knobs {
		columns = append(columns, column{k.Name, kindOf(k.Values), false})
	}
	columns = append(columns, column{"seed", seeds, true}, column{"failed", texts, false}, column{"warnings", texts, false})
	for _, key := range c.metrics {
		columns = append(columns, column{key, floats, false})
	}
	for _, key := range c.floors {
		columns = append(columns, column{key + floor, floats, false})
	}
	return columns
}

// kindOf is the kind of a column that holds some words: whole numbers, numbers or texts.
func kindOf(values []string) kind {
	k := integers
	for _, v := range values {
		if _, err := strconv.ParseInt(v, 10, 64); err == nil {
			continue
		}
		x, err := strconv.ParseFloat(v, 64)
		if err != nil || math.IsNaN(x) || math.IsInf(x, 0) {
			return texts
		}
		k = floats
	}
	return k
}

// word sets a value as the kind of its column says.
func (t *tableWriter) word(i int, v string) {
	switch t.columns[i].kind {
	case integers:
		x, _ := strconv.ParseInt(v, 10, 64)
		t.integer(i, x)
	case floats:
		x, _ := strconv.ParseFloat(v, 64)
		t.float(i, x)
	default:
		t.text(i, v)
	}
}

func (c *collector) cellRow(t *tableWriter, i int, r *Record) error {
	p := c.p
	pair, _ := slices.BinarySearch(p.before, i+1)
	pair-- // the last one that begins at or before i
	variant, spec, seed := p.Pairs[pair][0], int(p.Pairs[pair][1]), p.Seeds[i-p.before[pair]]
	at := 0
	next := func() int { at++; return at - 1 }
	t.integer(next(), int64(i))
	t.text(next(), c.names.of(Cell{Variant: int(variant), Spec: spec, Seed: seed}).String())
	for a, n := range p.Variants[variant] {
		t.word(next(), p.Axes[a].Values[n])
	}
	t.text(next(), p.rules[p.Specs[spec][0]].Preset.Name)
	t.text(next(), c.short[spec])
	if j := next(); r.Kind != "" {
		t.text(j, r.Kind)
	}
	for k, n := range p.Specs[spec][1:] {
		if j := next(); n >= 0 {
			t.word(j, p.Knobs[k].Values[n])
		}
	}
	t.set(next(), seedValue(seed))
	if j := next(); r.Failed != "" {
		t.text(j, r.Failed)
	}
	if j := next(); len(r.Warnings) > 0 {
		t.text(j, strings.Join(r.Warnings, "\n"))
	}
	for _, list := range []struct {
		keys   []string
		values map[string]float64
	}{{c.metrics, r.Values}, {c.floors, r.Floors}} {
		for _, key := range list.keys {
			j := next()
			if x, ok := list.values[key]; ok {
				t.float(j, x)
			}
		}
	}
	return t.end()
}

func stepRows(t *tableWriter, cell int, r *Record) error {
	for _, s := range r.Steps {
		t.integer(0, int64(cell))
		t.integer(1, int64(s.Step))
		for j, key := range stepColumns {
			if x, ok := s.Values[key]; ok {
				t.float(2+j, x)
			}
		}
		if err := t.end(); err != nil {
			return err
		}
	}
	return nil
}

func loadRows(t *tableWriter, cell int, r *Record) error {
	for _, s := range r.Steps {
		for e, load := range s.Loads {
			t.integer(0, int64(cell))
			t.integer(1, int64(s.Step))
			t.integer(2, int64(e))
			t.float(3, float64(load))
			if err := t.end(); err != nil {
				return err
			}
		}
	}
	return nil
}
