package tracefile

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
)

const (
	maxValue = 128 << 20 // bytes of one JSON value or CSV record
	maxDepth = 64
)

// jsonText walks over one JSON value in memory. It is written for speed on what traces are made of, lists of numbers; it
// does not check strings and numbers that are skipped.
type jsonText struct {
	text []byte
	at   int
	keys map[string]string // seen before, so that no key is copied twice
}

var errShort = errors.New("the JSON is cut off")

// peek returns the first byte of the next token, or 0 at the end.
func (j *jsonText) peek() byte {
	for j.at < len(j.text) {
		switch c := j.text[j.at]; c {
		case ' ', '\t', '\r', '\n':
			j.at++
		default:
			return c
		}
	}
	return 0
}

func (j *jsonText) accept(c byte) bool {
	if j.peek() != c {
		return false
	}
	j.at++
	return true
}

// want is the error of a text that has something else than what.
func (j *jsonText) want(what string) error {
	if j.peek() == 0 {
		return fmt.Errorf("the JSON is cut off, want %s", what)
	}
	return fmt.Errorf("it has %s, want %s", clip(string(j.text[j.at:min(len(j.text), j.at+41)])), what)
}

func (j *jsonText) end() error {
	if j.peek() != 0 {
		return j.want("nothing more")
	}
	return nil
}

// object calls visit with each key of an object; visit must consume the value.
func (j *jsonText) object(visit func(key string) error) error {
	if !j.accept('{') {
		return j.want("an object")
	}
	if j.accept('}') {
		return nil
	}
	for {
		raw, err := j.rawString()
		if err != nil {
			return err
		}
		key, ok := j.keys[string(raw)]
		if !ok {
			if key, err = unquote(raw); err != nil {
				return err
			}
			if j.keys == nil {
				j.keys = map[string]string{}
			}
			if len(j.keys) < 1000 && len(raw) < 256 {
				j.keys[string(raw)] = key
			}
		}
		if !j.accept(':') {
			return j.want("a colon")
		}
		if err := visit(key); err != nil {
			return err
		}
		if j.accept(',') {
			continue
		}
		if j.accept('}') {
			return nil
		}
		return j.want("a comma or the end of the object")
	}
}

// list calls visit at each element of a list; visit must consume it.
func (j *jsonText) list(visit func() error) error {
	if !j.accept('[') {
		return j.want("a list")
	}
	if j.accept(']') {
		return nil
	}
	for {
		if err := visit(); err != nil {
			return err
		}
		if j.accept(',') {
			continue
		}
		if j.accept(']') {
			return nil
		}
		return j.want("a comma or the end of the list")
	}
}

// rawString returns what stands between the quotes of a string.
func (j *jsonText) rawString() ([]byte, error) {
	if j.peek() != '"' {
		return nil, j.want("a string")
	}
	for from := j.at + 1; ; {
		n := bytes.IndexByte(j.text[from:], '"')
		if n < 0 {
			return nil, errShort
		}
		from += n + 1
		escapes := 0
		for k := from - 2; k > j.at && j.text[k] == '\\'; k-- {
			escapes++
		}
		if escapes%2 == 0 {
			raw := j.text[j.at+1 : from-1]
			j.at = from
			return raw, nil
		}
	}
}

func unquote(raw []byte) (string, error) {
	if bytes.IndexByte(raw, '\\') < 0 {
		return string(raw), nil
	}
	var s string
	if err := json.Unmarshal(append(append([]byte{'"'}, raw...), '"'), &s); err != nil {
		return "", fmt.Errorf("the string %s is no JSON string", clip(string(raw)))
	}
	return s, nil
}

func (j *jsonText) str() (string, error) {
	raw, err := j.rawString()
	if err != nil {
		return "", err
	}
	return unquote(raw)
}

// scalar returns the text of a string, number, true, false or null.
func (j *jsonText) scalar() ([]byte, error) {
	switch c := j.peek(); c {
	case '"':
		return j.rawString()
	case '{', '[', 0:
		return nil, j.want("a single value")
	}
	from := j.at
	for j.at < len(j.text) && bytes.IndexByte([]byte(",]} \t\r\n"), j.text[j.at]) < 0 {
		j.at++
	}
	if from == j.at {
		return nil, j.want("a value")
	}
	return j.text[from:j.at], nil
}

// skip consumes a value of any kind.
func (j *jsonText) skip() error {
	switch j.peek() {
	case '"':
		_, err := j.rawString()
		return err
	case '{', '[':
		n, err := balanced(j.text[j.at:])
		if err != nil {
			return err
		}
		if n == 0 {
			return errShort
		}
		j.at += n
		return nil
	}
	_, err := j.scalar()
	return err
}

// integers reads a list of whole numbers.
func (j *jsonText) integers() ([]int, error) {
	var out []int
	err := j.list(func() error {
		b, err := j.scalar()
		if err != nil {
			return err
		}
		n, err := strconv.Atoi(string(b))
		if err != nil {
			return fmt.Errorf("it has %s, want a whole number", clip(string(b)))
		}
		out = append(out, n)
		return nil
	})
	return out, err
}

// numbers is a number, or lists of numbers up to three deep, flattened.
type numbers struct {
	ints   []int64
	floats []float32
	ends   []int // of the innermost lists, in numbers
	groups []int // of the lists of those, in ends; only where three deep
	depth  int
}

func (n *numbers) reset() {
	n.ints, n.floats, n.ends, n.groups, n.depth = n.ints[:0], n.floats[:0], n.ends[:0], n.groups[:0], -1
}

func (n *numbers) len() int { return len(n.ints) + len(n.floats) }

// row returns the first number of row i and its end.
func (n *numbers) row(i int) (from, to int) {
	if i > 0 {
		from = n.ends[i-1]
	}
	return from, n.ends[i]
}

// readNumbers reads whole numbers or floats into n.
func (j *jsonText) readNumbers(n *numbers, float bool) error {
	n.reset()
	if c := j.peek(); c != '[' {
		n.depth = 0
		if err := j.readNumber(n, float); err != nil {
			return err
		}
		n.ends = append(n.ends, 1)
		return nil
	}
	return j.readList(n, float, 1)
}

func (j *jsonText) readList(n *numbers, float bool, depth int) error {
	j.at++ // the bracket
	c := j.peek()
	if c == '[' {
		if depth == 3 {
			return errors.New("lists are more than three deep: write a record for each request, its ids as [tokens][layers][k]")
		}
		for {
			if j.peek() != '[' {
				return j.want("a list, as before")
			}
			if err := j.readList(n, float, depth+1); err != nil {
				return err
			}
			if j.accept(',') {
				continue
			}
			if !j.accept(']') {
				return j.want("a comma or the end of the list")
			}
			if n.depth-depth == 1 && n.depth == 3 {
				n.groups = append(n.groups, len(n.ends))
			}
			return nil
		}
	}
	if n.depth >= 0 && n.depth != depth {
		return fmt.Errorf("lists are %d deep, before they were %d deep", depth, n.depth)
	}
	n.depth = depth
	if c == ']' {
		j.at++
		n.ends = append(n.ends, n.len())
		return nil
	}
	for {
		if err := j.readNumber(n, float); err != nil {
			return err
		}
		if j.accept(',') {
			continue
		}
		if !j.accept(']') {
			return j.want("a comma or the end of the list")
		}
		n.ends = append(n.ends, n.len())
		return nil
	}
}

// powers are exact in a float64.
var powers = [...]float64{1, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22}

// readNumber appends the next number.
func (j *jsonText) readNumber(n *numbers, float bool) error {
	j.peek()
	text, at := j.text, j.at
	from := at
	negative := at < len(text) && text[at] == '-'
	if negative {
		at++
	}
	var mantissa uint64
	digits := at
	for at < len(text) && text[at]-'0' < 10 {
		mantissa = mantissa*10 + uint64(text[at]-'0')
		at++
	}
	count := at - digits
	point := 0
	if float && at < len(text) && text[at] == '.' {
		at++
		fraction := at
		for at < len(text) && text[at]-'0' < 10 {
			mantissa = mantissa*10 + uint64(text[at]-'0')
			at++
		}
		point = at - fraction
		count += point
	}
	plain := count > 0 && count <= 18 && (at == len(text) || ends[text[at]])
	switch {
	case plain && !float:
		v := int64(mantissa)
		if negative {
			v = -v
		}
		n.ints = append(n.ints, v)
		j.at = at
		return nil
	case plain && mantissa < 1<<53:
		v := float64(mantissa) / powers[point]
		if negative {
			v = -v
		}
		n.floats = append(n.floats, float32(v))
		j.at = at
		return nil
	}
	j.at = from
	word, err := j.scalar()
	if err != nil {
		return err
	}
	if !float {
		// A whole number may be written 3.0 or 1e3.
		v, err := strconv.ParseFloat(string(word), 64)
		if err != nil || v != math.Trunc(v) || math.Abs(v) > 1<<53 {
			return fmt.Errorf("it has %s, want a whole number", clip(string(word)))
		}
		n.ints = append(n.ints, int64(v))
		return nil
	}
	v, err := strconv.ParseFloat(string(word), 32)
	if err != nil && !errors.Is(err, strconv.ErrRange) {
		return fmt.Errorf("it has %s, want a number", clip(string(word)))
	}
	n.floats = append(n.floats, float32(v))
	return nil
}

// ends are the bytes that may follow a number.
var ends = [256]bool{',': true, ']': true, '}': true, ' ': true, '\t': true, '\r': true, '\n': true}

// structure marks the bytes that matter to balanced.
var structure = [256]bool{'"': true, '{': true, '}': true, '[': true, ']': true}

// balanced returns the length of the object or list at the start of b, or 0 if b ends before it does.
func balanced(b []byte) (int, error) {
	depth := 0
	for i := 0; i < len(b); i++ {
		if !structure[b[i]] {
			continue
		}
		switch b[i] {
		case '{', '[':
			if depth++; depth > maxDepth {
				return 0, fmt.Errorf("the JSON is nested more than %d deep", maxDepth)
			}
		case '}', ']':
			if depth--; depth == 0 {
				return i + 1, nil
			}
		default:
			for i++; i < len(b) && b[i] != '"'; i++ {
				if b[i] == '\\' {
					i++
				}
			}
		}
	}
	return 0, nil
}

// jsonStream cuts a stream of JSON objects into values: one after the other as in JSONL, the elements of a list, or the
// elements of a list of objects that is the first key of an object.
type jsonStream struct {
	r     *bufio.Reader
	name  string
	buf   []byte // what was read and not yet returned
	at    int
	line  int // of buf[at]
	eof   bool
	list  bool // inside of a list
	ended bool
}

// fill reads more, and reports false at the end.
func (s *jsonStream) fill() (bool, error) {
	if s.eof {
		return false, nil
	}
	if s.at > 0 {
		s.buf = s.buf[:copy(s.buf, s.buf[s.at:])]
		s.at = 0
	}
	if len(s.buf) >= maxValue {
		return false, fmt.Errorf("%s:%d: one value has more than %d MiB: write one record a line", s.name, s.line, maxValue>>20)
	}
	if len(s.buf) == cap(s.buf) {
		s.buf = append(make([]byte, 0, max(256<<10, 2*cap(s.buf))), s.buf...)
	}
	n, err := s.r.Read(s.buf[len(s.buf):cap(s.buf)])
	s.buf = s.buf[:len(s.buf)+n]
	if err == io.EOF {
		s.eof, err = true, nil
	}
	return true, err
}

// peek returns the first byte from here that is no white space, or 0 at the end.
func (s *jsonStream) peek() (byte, error) {
	for {
		for s.at < len(s.buf) {
			switch c := s.buf[s.at]; c {
			case '\n':
				s.line++
				s.at++
			case ' ', '\t', '\r':
				s.at++
			default:
				return c, nil
			}
		}
		if more, err := s.fill(); !more || err != nil {
			return 0, err
		}
	}
}

// next returns the next value, valid until the following call, and its line; nil at the end.
func (s *jsonStream) next() ([]byte, int, error) {
	for {
		c, err := s.peek()
		if err != nil || c == 0 && !s.list {
			return nil, 0, err
		}
		switch {
		case s.ended:
			return nil, 0, nil // what follows a list that was the first key
		case c == 0:
			return nil, 0, fmt.Errorf("%s:%d: the list is cut off", s.name, s.line)
		case c == '[' && !s.list:
			s.list = true
			s.at++
			continue
		case s.list && c == ',':
			s.at++
			continue
		case s.list && c == ']':
			s.ended = true
			continue
		case c != '{':
			return nil, 0, fmt.Errorf("%s:%d: it has %s, want an object", s.name, s.line, clip(string(s.buf[s.at:min(len(s.buf), s.at+41)])))
		}
		return s.value()
	}
}

// recordLists are keys of lists that hold all records of a trace.
var recordLists = []string{"load_history", "records", "events", "routes", "trace"}

// enter goes into a list of objects that is the first key of the object here.
func (s *jsonStream) enter() error {
	if c, err := s.peek(); err != nil || c != '{' {
		return err
	}
	for len(s.buf)-s.at < 512 {
		if more, err := s.fill(); err != nil {
			return err
		} else if !more {
			break
		}
	}
	j := &jsonText{text: s.buf[s.at:]}
	if !j.accept('{') {
		return nil
	}
	key, err := j.rawString()
	if err != nil || !slices.Contains(recordLists, string(key)) || !j.accept(':') || !j.accept('[') || j.peek() != '{' {
		return nil
	}
	s.line += bytes.Count(j.text[:j.at], []byte{'\n'})
	s.at += j.at
	s.list = true
	return nil
}

// value returns the object here.
func (s *jsonStream) value() ([]byte, int, error) {
	for want := 64 << 10; ; {
		n, err := balanced(s.buf[s.at:])
		if err != nil {
			return nil, 0, fmt.Errorf("%s:%d: %w", s.name, s.line, err)
		}
		if n > 0 {
			v, line := s.buf[s.at:s.at+n], s.line
			s.line += bytes.Count(v, []byte{'\n'})
			s.at += n
			return v, line, nil
		}
		if s.eof {
			return nil, 0, fmt.Errorf("%s:%d: the object is cut off: the file may be truncated", s.name, s.line)
		}
		for len(s.buf)-s.at < want && !s.eof {
			if _, err := s.fill(); err != nil {
				return nil, 0, err
			}
		}
		want = 2 * (len(s.buf) - s.at) // so that a large value is not looked through again for every read
	}
}
