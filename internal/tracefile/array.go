package tracefile

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"math/bits"
	"slices"

	"evenkeel/internal/npz"
)

// bfloat16 is the upper half of a float32. NumPy has no such type, so npz has none.
const bfloat16 npz.DType = 200

func sizeOf(d npz.DType) int {
	if d == bfloat16 {
		return 2
	}
	return d.Size()
}

// segment is a run of elements in a file.
type segment struct {
	r  io.ReaderAt
	at int64 // byte at which it begins
	n  int   // elements
}

// array is an array of a trace: its elements lie in segments, in C order.
type array struct {
	shape    []int
	dtype    npz.DType
	segments []segment
}

func (a *array) len() int {
	n := 1
	for _, d := range a.shape {
		n *= d
	}
	return n
}

// arrays is a Source: what every format is brought to.
type arrays struct {
	format, name string
	list         map[string]*array
	named        bool // the file names its arrays itself
	columned     bool // the file has rows of columns, which Options.Map and Where have been applied to
	notes        []string
	files        []string
	closers      []func() error
}

func newArrays(format, name string) *arrays {
	return &arrays{format: format, name: name, list: map[string]*array{}}
}

// Format implements Source.
func (s *arrays) Format() string { return s.format }

// Names implements Source.
func (s *arrays) Names() []string { return slices.Sorted(maps.Keys(s.list)) }

// Notes implements Source.
func (s *arrays) Notes() []string { return slices.Clone(s.notes) }

func (s *arrays) note(format string, args ...any) {
	s.notes = append(s.notes, fmt.Sprintf(format, args...))
}

// Files implements Source.
func (s *arrays) Files() []string { return slices.Clone(s.files) }

// Close implements Source.
func (s *arrays) Close() error {
	var err error
	for _, c := range s.closers {
		err = errors.Join(err, c())
	}
	s.closers = nil
	return err
}

// Header implements Source.
func (s *arrays) Header(name string) (npz.Header, bool) {
	a := s.list[name]
	if a == nil {
		return npz.Header{}, false
	}
	d := a.dtype
	if d == bfloat16 {
		d = npz.Float32
	}
	return npz.Header{Name: name, DType: d, Shape: slices.Clone(a.shape)}, true
}

// Float32s implements Source.
func (s *arrays) Float32s(name string, from, to int) ([]float32, error) {
	a, err := s.find(name, from, to)
	if err != nil {
		return nil, err
	}
	out := make([]float32, to-from)
	err = s.scan(name, a, from, to, func(at int, b []byte) error {
		if a.dtype == bfloat16 {
			for i := range len(b) / 2 {
				out[at+i] = math.Float32frombits(uint32(binary.LittleEndian.Uint16(b[2*i:])) << 16)
			}
		} else {
			a.dtype.Float32s(out[at:], b)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// Int32s implements Source.
func (s *arrays) Int32s(name string, from, to int) ([]int32, error) {
	a, err := s.find(name, from, to)
	if err != nil {
		return nil, err
	}
	if h, _ := s.Header(name); h.DType.Float() {
		return nil, s.errorf(name, "dtype is %s, want an integer type or bool", h.DType)
	}
	out := make([]int32, to-from)
	err = s.scan(name, a, from, to, func(at int, b []byte) error {
		if bad := a.dtype.Int32s(out[at:], b); bad >= 0 {
			return s.errorf(name, "the value at index %d is outside int32, want %d to %d", from+at+bad, math.MinInt32, math.MaxInt32)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

func (s *arrays) find(name string, from, to int) (*array, error) {
	a := s.list[name]
	if a == nil {
		return nil, fmt.Errorf("%s: no array %q, the trace has %q", s.name, name, s.Names())
	}
	if from < 0 || from > to || to > a.len() {
		return nil, s.errorf(name, "range [%d, %d) is not within its %d elements", from, to, a.len())
	}
	return a, nil
}

func (s *arrays) errorf(array, format string, args ...any) error {
	return fmt.Errorf("%s: array %q: %w", s.name, array, fmt.Errorf(format, args...))
}

// scan calls visit with successive pieces of the elements [from, to) and the index relative to from of each one's first.
func (s *arrays) scan(name string, a *array, from, to int, visit func(at int, b []byte) error) error {
	size := sizeOf(a.dtype)
	buf := make([]byte, min(256<<10, (to-from)*size))
	begin := 0
	for _, g := range a.segments {
		low, high := max(from, begin), min(to, begin+g.n)
		for at := low; at < high; {
			b := buf[:min(len(buf), (high-at)*size)]
			if n, err := g.r.ReadAt(b, g.at+int64(at-begin)*int64(size)); n < len(b) {
				return s.errorf(name, "cannot read elements [%d, %d), the file may be truncated or damaged: %w", from, to, noEOF(err))
			}
			if err := visit(at-from, b); err != nil {
				return err
			}
			at += len(b) / size
		}
		if begin += g.n; begin >= to {
			break
		}
	}
	return nil
}

// elements returns the product of a shape, and whether it and its bytes fit an int64.
func elements(shape []int, size int) (int, bool) {
	n := uint64(size)
	for _, d := range shape {
		if d < 0 {
			return 0, false
		}
		hi, lo := bits.Mul64(n, uint64(d))
		if hi != 0 || lo > math.MaxInt64 {
			return 0, false
		}
		n = lo
	}
	return int(n) / size, true
}

// cursor reads a stream that can only be read forward as if at any place: it goes on where it stands, and begins again
// where the place lies behind it.
type cursor struct {
	open func() (io.ReadCloser, error)
	size int64
	r    io.ReadCloser
	at   int64
}

// ReadAt implements io.ReaderAt.
func (c *cursor) ReadAt(p []byte, off int64) (int, error) {
	if c.r == nil || off < c.at {
		c.close()
		r, err := c.open()
		if err != nil {
			return 0, err
		}
		c.r, c.at = r, 0
	}
	skipped, err := io.CopyN(io.Discard, c.r, off-c.at)
	c.at += skipped
	if err != nil {
		return 0, noEOF(err)
	}
	n, err := io.ReadFull(c.r, p)
	c.at += int64(n)
	if err != nil {
		return n, noEOF(err)
	}
	if c.at == c.size { // the checksum is compared only when the stream's end is seen
		if _, err := io.ReadFull(c.r, make([]byte, 1)); err != io.EOF {
			return 0, noEOF(err)
		}
	}
	return n, nil
}

func (c *cursor) close() error {
	if c.r == nil {
		return nil
	}
	err := c.r.Close()
	c.r = nil
	return err
}
