package sweep

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
)

// Wire writes and reads the records of a plan's cells on their way to a store on another machine: as lines of a result file, each
// with its checksum and the name of its cell. Its methods may be called by several goroutines.
type Wire struct {
	names *names
}

// NewWire returns the wire of a plan.
func NewWire(p *Plan) (*Wire, error) {
	n, err := p.names()
	return &Wire{n}, err
}

// Fingerprint is a hash of all that the names of the plan's cells are made of but seeds: two programs that agree on it mean the same
// by the plan, down to the revision of each strategy.
func (w *Wire) Fingerprint() string {
	sum := sha256.New()
	for _, list := range [][][32]byte{w.names.variants, w.names.specs} {
		for _, h := range list {
			sum.Write(h[:])
		}
		sum.Write([]byte{'\n'})
	}
	return hex.EncodeToString(sum.Sum(nil)[:16])
}

// EncodeRecords returns the lines of some cells.
func (w *Wire) EncodeRecords(cells []Cell, records []*Record) ([]byte, error) {
	if len(records) != len(cells) {
		return nil, fmt.Errorf("there are %d records for %d cells", len(records), len(cells))
	}
	var lines []byte
	for i, c := range cells {
		record, err := json.Marshal(records[i])
		if err != nil {
			return nil, fmt.Errorf("cell %d: %w", c.Index, err)
		}
		lines = appendLine(lines, w.names.of(c), record)
	}
	return lines, nil
}

// DecodeRecords reads the lines of exactly these cells, in their order, and refuses what EncodeRecords would not have written.
func (w *Wire) DecodeRecords(cells []Cell, lines []byte) ([]*Record, error) {
	records := make([]*Record, len(cells))
	for i, c := range cells {
		line, rest, ended := bytes.Cut(lines, []byte{'\n'})
		name, text, ok := decodeLine(line)
		switch {
		case !ended || !ok || len(line) > maxLine:
			return nil, fmt.Errorf("the line of cell %d is torn or damaged: it does not fit its checksum", c.Index)
		case name != w.names.of(c):
			return nil, fmt.Errorf("there is a record of %s in place of cell %d, which is %s", name, c.Index, w.names.of(c))
		}
		r := new(Record)
		d := json.NewDecoder(bytes.NewReader(text))
		d.DisallowUnknownFields()
		if err := d.Decode(r); err != nil {
			return nil, fmt.Errorf("the record of cell %d cannot be read: %s", c.Index, strings.TrimPrefix(err.Error(), "json: "))
		}
		if _, err := d.Token(); !errors.Is(err, io.EOF) {
			return nil, fmt.Errorf("the record of cell %d has something behind it", c.Index)
		}
		if again, err := json.Marshal(r); err != nil || !bytes.Equal(again, text) {
			return nil, fmt.Errorf("the record of cell %d is not as this program writes it", c.Index)
		}
		records[i], lines = r, rest
	}
	if len(lines) > 0 {
		return nil, fmt.Errorf("there are %d bytes behind the records of %d cells", len(lines), len(cells))
	}
	return records, nil
}
