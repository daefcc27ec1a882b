package scenarios

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"

	"evenkeel/internal/tracefile"
	"evenkeel/moe"
)

// Reading says of a trace what its file does not.
type Reading struct {
	tracefile.Options
	Experts  int     // of choices, where more than the largest id tells; 0: as that tells
	Complete string  // none, flat or popularity: how to complete the unseen scores of choices with weights; see complete
	Mass     float64 // share of the softmax on the chosen, where their weights were renormalised to sum to 1; 0: unknown
}

// TraceFile is an open trace, of which any layer can be read.
type TraceFile struct {
	tracefile.Source
	name     string
	reading  Reading
	embedded []byte
	sum      string // once it is known
}

// OpenTrace opens a trace file, a folder of one, or an embedded one. The error is one sentence that says what was wrong and
// where.
func OpenTrace(name string, reading Reading) (*TraceFile, error) {
	f := &TraceFile{name: name, reading: reading}
	var err error
	if inside, ok := strings.CutPrefix(name, embedded); ok {
		if f.embedded, err = shipped.ReadFile("shipped/" + inside); err != nil || !strings.HasSuffix(inside, ".npz") {
			return nil, fmt.Errorf("there is no %s: the embedded trace is embedded:tinymoe.npz", name)
		}
		f.Source, err = tracefile.NewReader(bytes.NewReader(f.embedded), int64(len(f.embedded)), name, reading.Options)
	} else {
		f.Source, err = tracefile.Open(name, reading.Options)
	}
	if err != nil {
		return nil, err
	}
	return f, nil
}

// Shape returns level, layers, tokens, experts, K and steps of the trace, without its data. Experts are not known where the
// level is choices.
func (f *TraceFile) Shape() (*Dump, error) {
	r := &dumpReader{Dump: &Dump{Layers: 1}, file: f.Source, name: f.name}
	r.shape()
	return r.Dump, r.err
}

// Dump reads one layer, counted from 0.
func (f *TraceFile) Dump(layer int) (*Dump, error) {
	d, err := readDump(f.Source, f.name, layer)
	if err != nil {
		return nil, err
	}
	d.Notes = append(f.Notes(), d.Notes...)
	if e := f.reading.Experts; d.Level == LevelChoices && e > 0 {
		if e < d.Experts || e > moe.MaxExperts {
			return nil, fmt.Errorf("%s chooses expert %d: experts is %d and must be %d to %d", f.name, d.Experts-1, e, d.Experts, moe.MaxExperts)
		}
		d.Experts = e
		d.Notes = slices.DeleteFunc(d.Notes, func(n string) bool { return strings.Contains(n, "largest id") })
	}
	if c := f.reading.Complete; c != "" && c != completeNone {
		if err := d.complete(c, f.reading.Mass); err != nil {
			return nil, fmt.Errorf("%s: %w", f.name, err)
		}
	} else if f.reading.Mass != 0 {
		return nil, errors.New("trace.mass is the mass of the chosen where their unseen scores are completed: add trace.complete, flat or popularity")
	}
	return d, nil
}

// SHA256 returns the checksum of the file; of several that were read, that of their names, sizes and contents. It is computed
// once.
func (f *TraceFile) SHA256() (string, error) {
	var err error
	switch {
	case f.sum != "":
	case f.embedded != nil:
		sum := sha256.Sum256(f.embedded)
		f.sum = hex.EncodeToString(sum[:])
	default:
		f.sum, err = tracefile.Sum(f.Files())
	}
	return f.sum, err
}

// OtherTrace is that a file is not the trace that a pinned scenario means.
type OtherTrace struct{ File, SHA256 string }

// Error says which file, and what it should be.
func (o OtherTrace) Error() string {
	return fmt.Sprintf("%s is not the trace that is meant, whose SHA-256 is %s", o.File, o.SHA256)
}

// layer reads one layer, and the checksum of the file.
func (f *TraceFile) layer(n int) (*Dump, string, error) {
	d, err := f.Dump(n)
	if err != nil {
		return nil, "", err
	}
	sum, err := f.SHA256()
	return d, sum, err
}

// ReadDump reads one layer of a trace file, or of an embedded one, and returns it with the SHA-256 of the file. Who reads
// several layers opens the trace once, by OpenTrace.
func ReadDump(name string, layer int, reading Reading) (*Dump, string, error) {
	f, err := OpenTrace(name, reading)
	if err != nil {
		return nil, "", err
	}
	defer f.Close()
	return f.layer(layer)
}
