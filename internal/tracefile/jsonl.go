package tracefile

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
)

// readJSON reads records: JSONL, a list of objects, or an object whose first key holds such a list. A record is an object
// with choices, scores or counts; objects within objects count too, so that a server's whole response can be read.
func readJSON(r io.Reader, name string, o Options) (*arrays, error) {
	j := newJSONReader(name, o)
	err := j.read(r)
	return j.finish(err, "JSON")
}

// jsonReader brings JSON to rows.
type jsonReader struct {
	name     string
	o        Options
	cols     *columns
	rows     *rows
	record   record
	empty    int // records without data
	first    int // line of the first of them
	line     int
	megatron *megatron
}

func newJSONReader(name string, o Options) *jsonReader {
	return &jsonReader{name: name, o: o, cols: newColumns(o), rows: newRows(name, o), megatron: &megatron{folder: o.folder}}
}

func (x *jsonReader) read(r io.Reader) error {
	s := &jsonStream{r: bufio.NewReaderSize(r, 256<<10), name: x.name, line: 1}
	if err := s.skipMark(); err != nil {
		return err
	}
	if err := s.enter(); err != nil {
		return err
	}
	j := &jsonText{}
	for {
		text, line, err := s.next()
		if err != nil || text == nil {
			return err
		}
		x.line = line
		j.text, j.at = text, 0
		x.record.reset()
		had, err := x.object(j, "", 0)
		if err != nil {
			return inLine(x.name, line, err)
		}
		if !had {
			if x.empty++; x.empty == 1 {
				x.first = line
			}
		}
	}
}

// skipMark skips a byte order mark.
func (s *jsonStream) skipMark() error {
	b, err := s.r.Peek(3)
	if err != nil && err != io.EOF {
		return err
	}
	if string(b) == "\xef\xbb\xbf" {
		_, err = s.r.Discard(3)
		return err
	}
	return nil
}

// finish makes the source, or closes what was opened after an error.
func (x *jsonReader) finish(err error, format string) (*arrays, error) {
	if err == nil && x.rows.none() {
		err = fmt.Errorf("%s has no record with topk_ids, logits, scores or counts: its columns are %q, map one by --map topk_ids=COLUMN", x.name, x.cols.seen)
	}
	if err == nil {
		err = x.cols.missing(x.name)
	}
	if err != nil {
		x.rows.pool.close()
		x.megatron.close()
		return nil, err
	}
	if x.megatron.seen {
		format = "Megatron-LM router trace"
	}
	s, err := x.rows.source(format)
	if err != nil {
		x.megatron.close()
		return nil, err
	}
	s.columned = true
	for _, file := range slices.Sorted(maps.Keys(x.megatron.files)) {
		if x.megatron.files[file] != nil {
			s.files = append(s.files, file)
		}
	}
	s.closers = append(s.closers, x.megatron.close)
	s.notes = append(s.notes, x.megatron.notes...)
	if x.empty > 0 {
		s.note("records without routing: %d, left out, the first at line %d", x.empty, x.first)
	}
	return s, nil
}

// object reads the fields of an object and those within it, and adds it if it holds data. It reports whether it or an
// object within it did.
func (x *jsonReader) object(j *jsonText, path string, depth int) (had bool, err error) {
	r := &x.record
	inner := false
	err = j.object(func(key string) error {
		at := key
		if path != "" {
			at = path + "." + key
		}
		column, filter := x.cols.find(at, key)
		c := j.peek()
		if filter {
			from := j.at
			v, err := j.scalar()
			if err != nil {
				return inField(at, err)
			}
			if string(v) == x.cols.where[at] {
				r.matched++
			} else {
				r.excluded = true
			}
			j.at = from
		}
		if column == 0 && c == '{' && depth < 8 || column == 0 && c == '[' && depth < 8 && objects(j) {
			visit := func() error {
				if j.peek() != '{' {
					return j.skip()
				}
				sub, err := x.object(j, at, depth+1)
				inner = inner || sub
				return err
			}
			if c == '{' {
				return visit()
			}
			return j.list(visit)
		}
		if err := x.field(j, column, key); err != nil {
			return inField(at, err)
		}
		return nil
	})
	if err != nil {
		return false, err
	}
	if !r.data() {
		return inner, nil
	}
	r.excluded = r.excluded || r.matched < len(x.cols.where)
	if r.has[colMegatron] {
		if err := x.megatron.place(r); err != nil {
			return false, err
		}
	}
	err = x.rows.add(r, x.line)
	for _, c := range []int{colIDs, colWeights, colLogits, colScores, colLoads, colCount, colExpert, colMegatron} {
		r.has[c] = false
	}
	if err != nil {
		// The rows say the line already.
		return false, &located{err}
	}
	return true, nil
}

// located is an error that says where in the file it is.
type located struct{ error }

func inField(path string, err error) error {
	var l *located
	if errors.As(err, &l) {
		return err
	}
	return fmt.Errorf("%s: %w", clip(path), err)
}

func inLine(name string, line int, err error) error {
	var l *located
	if errors.As(err, &l) {
		return l.error
	}
	return fmt.Errorf("%s:%d: %w", name, line, err)
}

// objects reports whether a list begins with an object.
func objects(j *jsonText) bool {
	from := j.at
	j.at++
	c := j.peek()
	j.at = from
	return c == '{'
}

// field reads the value of a column.
func (x *jsonReader) field(j *jsonText, column int, key string) error {
	r := &x.record
	if column == 0 {
		column = megatronFields[key]
	}
	if column == 0 && key == "type" && j.peek() == '"' {
		kind, err := j.rawString()
		r.meta = r.meta || string(kind) == "meta" || string(kind) == "metadata"
		return err
	}
	if column == 0 {
		return j.skip()
	}
	if j.peek() == 'n' { // null
		return j.skip()
	}
	if column != colMegatron && r.has[column] && (column <= colScores || column == colLoads || column == colCount) {
		return errors.New("a record holds it twice, under one name or two: map it by --map")
	}
	var err error
	switch column {
	case colIDs:
		if key == "top_indices" {
			x.megatron.seen = true
		}
		switch {
		case j.peek() == '"':
			err = x.packed(j)
		case j.pair():
			err = r.ids.shaped(j)
		default:
			err = j.readNumbers(&r.ids, false)
		}
	case colWeights:
		err = j.readNumbers(&r.weights, true)
	case colLogits:
		err = j.readNumbers(&r.logits, true)
	case colScores:
		err = j.readNumbers(&r.scores, true)
	case colLoads:
		err = j.readNumbers(&r.loads, false)
	case colTokenID:
		if j.peek() == '"' {
			return j.skip() // the token's text
		}
		err = j.readNumbers(&r.tokenID, false)
	case colLayer:
		var v []byte
		if v, err = j.scalar(); err == nil {
			r.layer, err = parseLayer(v)
		}
	case colExpert:
		if j.peek() == '[' {
			err = j.readNumbers(&r.ids, false)
			column = colIDs
		} else {
			r.expert, err = j.integer()
		}
	case colCount:
		if j.peek() == '[' {
			err = j.readNumbers(&r.loads, false)
			column = colLoads
		} else {
			r.count, err = j.integer()
		}
	case colMegatron:
		err = x.megatron.field(j, key)
	default:
		if c := j.peek(); c == '[' || c == '{' {
			return j.skip() // such as the places of several tokens
		}
		var v []byte
		if v, err = j.scalar(); err == nil {
			r.name(column, v)
		}
	}
	if err == nil {
		r.has[column] = true
	}
	return err
}

// name takes a column that tells tokens apart.
func (r *record) name(column int, v []byte) {
	switch column {
	case colToken:
		r.tokenKey = fnv(v)
		var err error
		r.token, err = strconv.ParseInt(string(v), 10, 64)
		r.placed = err == nil
	case colSequence:
		r.sequence = fnv(v)
	case colStep:
		r.step = fnv(v)
	case colDomain:
		if string(v) != r.domain {
			r.domain = string(v[:min(len(v), 200)])
		}
	}
	r.has[column] = true
}

// integer reads a whole number, which may stand in quotes.
func (j *jsonText) integer() (int64, error) {
	v, err := j.scalar()
	if err != nil {
		return 0, err
	}
	return parseInteger(v)
}

// parseLayer reads the number of a layer, or the only number in a name such as model.layers.3.mlp.
func parseLayer(v []byte) (int64, error) {
	n, err := parseInteger(v)
	if err == nil {
		return n, nil
	}
	digits := func(c rune) bool { return '0' <= c && c <= '9' }
	from := bytes.IndexFunc(v, digits)
	to := bytes.LastIndexFunc(v, digits) + 1
	if from < 0 || bytes.ContainsFunc(v[from:to], func(c rune) bool { return !digits(c) }) {
		return 0, err
	}
	return parseInteger(v[from:to])
}

func parseInteger(v []byte) (int64, error) {
	n, err := strconv.ParseInt(string(v), 10, 64)
	if err == nil {
		return n, nil
	}
	f, err := strconv.ParseFloat(string(v), 64)
	if err != nil || f != float64(int64(f)) || f > 1<<53 || f < -(1<<53) {
		return 0, fmt.Errorf("it has %s, want a whole number", clip(string(v)))
	}
	return int64(f), nil
}

// packed reads ids in a string: base64 of an .npy stream as vLLM sends it or of raw int32 as SGLang does, or a list in
// quotes.
func (x *jsonReader) packed(j *jsonText) error {
	raw, err := j.rawString()
	if err != nil {
		return err
	}
	if len(raw) > 0 && raw[0] == '[' {
		inner := &jsonText{text: raw}
		return inner.readNumbers(&x.record.ids, false)
	}
	raw = bytes.ReplaceAll(raw, []byte(`\/`), []byte("/"))
	x.record.routed = true
	return x.record.ids.unpack(raw, x.o)
}

// eachLine calls visit with every line that is not blank.
func eachLine(r io.Reader, name string, visit func(line []byte, n int) error) error {
	b := bufio.NewReaderSize(r, 256<<10)
	var long []byte // the beginning of a line that the reader's buffer does not hold
	for n := 1; ; {
		part, err := b.ReadSlice('\n')
		if err == bufio.ErrBufferFull {
			if long = append(long, part...); len(long) > maxValue {
				return fmt.Errorf("%s:%d: the line has more than %d MiB", name, n, maxValue>>20)
			}
			continue
		}
		if err != nil && err != io.EOF {
			return err
		}
		line := part
		if len(long) > 0 {
			long = append(long, part...)
			line = long
		}
		line = bytes.TrimRight(bytes.TrimPrefix(line, []byte("\xef\xbb\xbf")), "\r\n")
		if len(bytes.TrimSpace(line)) > 0 {
			if err := visit(line, n); err != nil {
				return err
			}
		}
		if err == io.EOF {
			return nil
		}
		long = long[:0]
		n++
	}
}
