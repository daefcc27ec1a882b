package tracefile

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"strings"
)

// readCSV reads rows whose first line names the columns. Lists are written as in JSON or with blanks, semicolons or commas
// between the numbers. line is the first line, by which the delimiter is found.
func readCSV(r io.Reader, line []byte, name string, o Options) (*arrays, error) {
	t := newRows(name, o)
	cols, err := readRows(r, line, t)
	if err == nil && t.none() {
		err = fmt.Errorf("%s has no row with topk_ids, logits, scores or expert and count: its columns are %q, map one by --map topk_ids=COLUMN", name, cols.seen)
	}
	if err == nil {
		err = cols.missing(name)
	}
	if err != nil {
		t.pool.close()
		return nil, err
	}
	s, err := t.source("CSV")
	if err == nil {
		s.columned = true
	}
	return s, err
}

// bounded fails a record that never ends.
type bounded struct {
	r    io.Reader
	read int
}

var errLong = errors.New("the record is too long")

// Read implements io.Reader.
func (b *bounded) Read(p []byte) (int, error) {
	if b.read > maxValue {
		return 0, errLong
	}
	n, err := b.r.Read(p)
	b.read += n
	return n, err
}

func readRows(r io.Reader, first []byte, t *rows) (*columns, error) {
	cols := newColumns(t.o)
	b := &bounded{r: r}
	c := csv.NewReader(b)
	c.ReuseRecord, c.TrimLeadingSpace, c.FieldsPerRecord = true, true, -1
	for _, d := range "\t;," { // the comma wins a tie: it comes last
		if n := strings.Count(string(first), string(d)); n > 0 && n >= strings.Count(string(first), string(c.Comma)) {
			c.Comma = d
		}
	}
	line := 1
	fail := func(err error) error {
		var parse *csv.ParseError
		if errors.As(err, &parse) {
			return fmt.Errorf("%s:%d: %w", t.name, parse.Line, parse.Err)
		}
		if errors.Is(err, errLong) {
			return fmt.Errorf("%s:%d: the record has more than %d MiB: a quote may be missing", t.name, line+1, maxValue>>20)
		}
		if err == io.EOF {
			return fmt.Errorf("%s has no line that names columns", t.name)
		}
		return err
	}
	head, err := c.Read()
	if err != nil {
		return cols, fail(err)
	}
	type plan struct {
		column int
		where  string
		filter bool
		name   string
	}
	plans := make([]plan, len(head))
	var has [colWhere + 1]bool
	for i, h := range head {
		h = strings.TrimSpace(strings.TrimPrefix(h, "\ufeff"))
		n, filter := cols.find(h, h)
		plans[i] = plan{n, cols.where[h], filter, strings.Clone(h)}
		if n != 0 && has[n] {
			return cols, fmt.Errorf("%s:1: two columns mean the same, the second is %q: map the one that counts by --map", t.name, h)
		}
		has[n] = n != 0
	}
	var x record
	for {
		b.read = 0
		cells, err := c.Read()
		if err == io.EOF {
			return cols, nil
		}
		if err != nil {
			return cols, fail(err)
		}
		line, _ = c.FieldPos(0)
		if len(cells) != len(plans) {
			return cols, fmt.Errorf("%s:%d: it has %d cells, but the first line names %d columns: lists within a row must stand in quotes", t.name, line, len(cells), len(plans))
		}
		x.reset()
		for i, p := range plans {
			if p.filter && cells[i] != p.where {
				x.excluded = true
			}
			if p.column == 0 || cells[i] == "" {
				continue
			}
			if err := x.cell(p.column, cells[i], t.o); err != nil {
				return cols, fmt.Errorf("%s:%d: column %s: %w", t.name, line, clip(p.name), err)
			}
		}
		if !x.data() {
			continue
		}
		if err := t.add(&x, line); err != nil {
			return cols, err
		}
	}
}

// cell takes one cell.
func (r *record) cell(column int, text string, o Options) (err error) {
	switch column {
	case colIDs:
		err = r.ids.cell(text, false)
	case colWeights:
		err = r.weights.cell(text, true)
	case colLogits:
		err = r.logits.cell(text, true)
	case colScores:
		err = r.scores.cell(text, true)
	case colLoads:
		err = r.loads.cell(text, false)
	case colTokenID:
		if err := r.tokenID.cell(text, false); err != nil {
			return nil // the token's text
		}
	case colLayer:
		r.layer, err = parseLayer([]byte(text))
	case colExpert:
		r.expert, err = parseInteger([]byte(text))
	case colCount:
		r.count, err = parseInteger([]byte(text))
	default:
		r.name(column, []byte(text))
	}
	r.has[column] = err == nil
	return err
}

// cell reads a number or a list of numbers.
func (n *numbers) cell(text string, float bool) error {
	j := &jsonText{text: []byte(text)}
	if j.peek() == '[' && strings.Contains(text, ",") {
		if err := j.readNumbers(n, float); err != nil {
			return err
		}
		return j.end()
	}
	// As NumPy prints it, or with other marks.
	for i, c := range j.text {
		switch c {
		case '[', ']', '(', ')', ';', '|', ',':
			j.text[i] = ' '
		}
	}
	n.reset()
	n.depth = 1
	for j.peek() != 0 {
		if err := j.readNumber(n, float); err != nil {
			return err
		}
	}
	n.ends = append(n.ends, n.len())
	return nil
}
