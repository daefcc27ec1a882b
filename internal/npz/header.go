package npz

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
)

const (
	magic     = "\x93NUMPY"
	maxDims   = 64      // NumPy's own limit
	maxHeader = 1 << 16 // bytes; only structured types need long headers
)

// Header describes one array of an archive.
type Header struct {
	Name  string // without ".npy"
	DType DType
	Shape []int // in C order; empty for a scalar
}

// Len returns the number of elements, the product of Shape; 1 for a scalar.
func (h Header) Len() int {
	n := 1
	for _, d := range h.Shape {
		n *= d
	}
	return n
}

// byteSize returns the bytes that shape takes, or an error if a dimension is
// negative or the size overflows.
func byteSize(d DType, shape []int) (int, error) {
	if len(shape) > maxDims {
		return 0, fmt.Errorf("shape has %d dimensions, at most %d are accepted", len(shape), maxDims)
	}
	size, empty := d.Size(), false
	for _, n := range shape {
		switch {
		case n < 0:
			return 0, fmt.Errorf("shape %v has a negative dimension", shape)
		case n == 0:
			// Go on: whether the rest overflows must not depend on the order.
			empty = true
		case size > math.MaxInt/n:
			return 0, fmt.Errorf("shape %v of %s overflows the address space", shape, d)
		default:
			size *= n
		}
	}
	if empty {
		return 0, nil
	}
	return size, nil
}

// readHeader reads the .npy header at the start of r, an entry of size bytes,
// and returns it with the offset at which the data starts.
func readHeader(r io.Reader, size uint64) (Header, int, error) {
	text, offset, err := readLiteral(r, size)
	if err != nil {
		return Header{}, 0, err
	}
	lit, err := parseLiteral(text)
	if err != nil {
		return Header{}, 0, err
	}
	d, err := parseDescr(lit.descr)
	if err != nil {
		return Header{}, 0, err
	}
	if lit.fortran && len(lit.shape) > 1 {
		return Header{}, 0, errors.New("array is in Fortran order, save np.ascontiguousarray of it instead")
	}
	n, err := byteSize(d, lit.shape)
	if err != nil {
		return Header{}, 0, err
	}
	if have := size - uint64(offset); have != uint64(n) {
		return Header{}, 0, fmt.Errorf("shape %v of %s takes %d bytes of data, the entry has %d", lit.shape, d, n, have)
	}
	return Header{DType: d, Shape: lit.shape}, offset, nil
}

// readLiteral returns the text of the header's dict and the offset behind it.
func readLiteral(r io.Reader, size uint64) (string, int, error) {
	var pre [12]byte
	if _, err := io.ReadFull(r, pre[:8]); err != nil {
		return "", 0, fmt.Errorf("cannot read the .npy magic: %w", noEOF(err))
	}
	if string(pre[:6]) != magic {
		return "", 0, fmt.Errorf("entry starts with %q, a .npy array starts with %q", pre[:6], magic)
	}
	width := 4
	switch major, minor := pre[6], pre[7]; {
	case major == 1 && minor == 0:
		width = 2
	case major < 1 || major > 3 || minor != 0:
		return "", 0, fmt.Errorf("npy format version %d.%d is unknown, accepted are 1.0, 2.0 and 3.0", major, minor)
	}
	// Unread bytes of a 2-byte length stay zero.
	if _, err := io.ReadFull(r, pre[8:8+width]); err != nil {
		return "", 0, fmt.Errorf("cannot read the header length: %w", noEOF(err))
	}
	n := uint64(binary.LittleEndian.Uint32(pre[8:]))
	start := uint64(8 + width)
	if n > maxHeader {
		return "", 0, fmt.Errorf("header has %d bytes, at most %d are accepted", n, maxHeader)
	}
	if start+n > size {
		return "", 0, fmt.Errorf("header of %d bytes exceeds the entry of %d", start+n, size)
	}
	text := make([]byte, n)
	if _, err := io.ReadFull(r, text); err != nil {
		return "", 0, fmt.Errorf("cannot read the header: %w", noEOF(err))
	}
	return string(text), int(start + n), nil
}

// noEOF turns a plain EOF in the middle of something into an unexpected one.
func noEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// literal is the parsed dict of a header.
type literal struct {
	descr   string
	fortran bool
	shape   []int
}

// parseLiteral parses the dict literal that NumPy writes and nothing more of
// Python: the keys descr, fortran_order and shape, once each, in any order.
func parseLiteral(text string) (literal, error) {
	var lit literal
	p := &parser{text: text}
	seen := make(map[string]bool)
	_, err := p.list('{', '}', func() error {
		key, err := p.str()
		if err != nil {
			return err
		}
		if seen[key] {
			return fmt.Errorf("header repeats the key %s", clip(key))
		}
		seen[key] = true
		if err := p.expect(':'); err != nil {
			return err
		}
		return p.value(key, &lit)
	})
	if err != nil {
		return literal{}, err
	}
	if p.peek(); p.pos < len(text) {
		return literal{}, p.want("nothing behind the dict")
	}
	for _, key := range []string{"descr", "fortran_order", "shape"} {
		if !seen[key] {
			return literal{}, fmt.Errorf("header lacks the key %q", key)
		}
	}
	return lit, nil
}

// parser walks over the header text; white space between tokens is skipped.
type parser struct {
	text string
	pos  int
}

// peek returns the first byte of the next token, or 0 at the end.
func (p *parser) peek() byte {
	for p.pos < len(p.text) && strings.IndexByte(" \t\r\n", p.text[p.pos]) >= 0 {
		p.pos++
	}
	if p.pos == len(p.text) {
		return 0
	}
	return p.text[p.pos]
}

func (p *parser) accept(c byte) bool {
	if p.peek() != c {
		return false
	}
	p.pos++
	return true
}

func (p *parser) expect(c byte) error {
	if !p.accept(c) {
		return p.want(strconv.QuoteRune(rune(c)))
	}
	return nil
}

func (p *parser) want(what string) error {
	p.peek()
	return fmt.Errorf("header has %s at byte %d, want %s", clip(p.text[p.pos:]), p.pos, what)
}

// list parses items separated by commas and says whether the last has one too.
func (p *parser) list(start, end byte, item func() error) (comma bool, err error) {
	if err := p.expect(start); err != nil {
		return false, err
	}
	for !p.accept(end) {
		if err := item(); err != nil {
			return false, err
		}
		if comma = p.accept(','); !comma {
			return false, p.expect(end)
		}
	}
	return comma, nil
}

func (p *parser) value(key string, lit *literal) (err error) {
	switch key {
	case "descr":
		if c := p.peek(); c == '[' || c == '(' {
			return fmt.Errorf("dtype %s is structured, %s", clip(p.text[p.pos:]), accepted)
		}
		lit.descr, err = p.str()
	case "fortran_order":
		lit.fortran, err = p.boolean()
	case "shape":
		lit.shape, err = p.tuple()
	default:
		err = fmt.Errorf("header has the unknown key %s, want descr, fortran_order and shape", clip(key))
	}
	return err
}

// str parses a string in either kind of quotes; no escape is ever needed.
func (p *parser) str() (string, error) {
	quote := p.peek()
	if quote != '\'' && quote != '"' {
		return "", p.want("a quoted string")
	}
	rest := p.text[p.pos+1:]
	n := strings.IndexByte(rest, quote)
	if n < 0 || strings.ContainsAny(rest[:n], "\\\n") {
		return "", p.want("a quoted string without escapes")
	}
	p.pos += n + 2
	return rest[:n], nil
}

func (p *parser) boolean() (bool, error) {
	p.peek()
	for word, v := range map[string]bool{"True": true, "False": false} {
		if strings.HasPrefix(p.text[p.pos:], word) {
			p.pos += len(word)
			return v, nil
		}
	}
	return false, p.want("True or False")
}

func (p *parser) tuple() ([]int, error) {
	var shape []int
	comma, err := p.list('(', ')', func() error {
		n, err := p.dim()
		shape = append(shape, n)
		return err
	})
	if err != nil {
		return nil, err
	}
	if len(shape) == 1 && !comma {
		return nil, fmt.Errorf("shape (%d) is no tuple, want (%[1]d,)", shape[0])
	}
	return shape, nil
}

// dim parses a dimension. A sign is read, so that a negative dimension is
// refused as such.
func (p *parser) dim() (int, error) {
	p.peek()
	end := p.pos
	for end < len(p.text) && (p.text[end] == '-' || '0' <= p.text[end] && p.text[end] <= '9') {
		end++
	}
	word := p.text[p.pos:end]
	n, err := strconv.Atoi(word)
	if errors.Is(err, strconv.ErrRange) {
		return 0, fmt.Errorf("dimension %s overflows an int", clip(word))
	}
	if err != nil || strconv.Itoa(n) != word {
		return 0, p.want("a decimal integer")
	}
	if n < 0 {
		return 0, fmt.Errorf("shape has the negative dimension %d", n)
	}
	p.pos = end
	return n, nil
}
