// Package npz reads and writes NumPy .npz archives: zip files of .npy arrays,
// stored or deflated. It reads the plain numeric types in C order and refuses
// everything else when the archive is opened.
package npz

import (
	"archive/zip"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"strings"

	"github.com/klauspost/compress/flate"
)

// chunkSize is the bytes decoded at a time, a multiple of every element size.
const chunkSize = 64 << 10

// File is an open archive. Its methods other than Close may be called from
// several goroutines.
type File struct {
	name    string
	closer  io.Closer
	names   []string
	entries map[string]*entry
}

// entry is one array: its zip entry and the length of its .npy header.
type entry struct {
	Header
	zip    *zip.File
	offset int
}

// Open opens the archive at the path name and checks all its headers. The
// errors are those of NewReader and of opening the file.
func Open(name string) (*File, error) {
	r, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	info, err := r.Stat()
	if err != nil {
		r.Close()
		return nil, err
	}
	f, err := NewReader(r, info.Size(), name)
	if err != nil {
		r.Close()
		return nil, err
	}
	f.closer = r
	return f, nil
}

// NewReader reads an archive of size bytes from r; name stands for it in
// errors. Entries that are not named *.npy are ignored. It is an error if r is
// no zip file, if two arrays share a name, if an array has a type or layout
// that this package does not read, or if its shape and the sizes in the zip
// directory disagree. The data itself is checked as it is read.
func NewReader(r io.ReaderAt, size int64, name string) (*File, error) {
	zr, err := zip.NewReader(r, size)
	if err != nil {
		return nil, fmt.Errorf("%s: not an .npz archive as np.savez writes it, or cut off: %w", name, err)
	}
	zr.RegisterDecompressor(zip.Deflate, flate.NewReader) // of the same bytes, in about 0.7 of compress/flate's time
	f := &File{name: name, entries: make(map[string]*entry)}
	for _, z := range zr.File {
		array, ok := strings.CutSuffix(z.Name, ".npy")
		if !ok {
			continue
		}
		if f.entries[array] != nil {
			return nil, f.errorf(array, "name occurs twice, names must be unique")
		}
		e, err := newEntry(z, size)
		if err != nil {
			return nil, f.errorf(array, "%w", err)
		}
		e.Name = array
		f.entries[array] = e
		f.names = append(f.names, array)
	}
	slices.Sort(f.names)
	return f, nil
}

// newEntry reads the header of z, which lies in a file of size bytes.
func newEntry(z *zip.File, size int64) (*entry, error) {
	if err := checkSizes(z, size); err != nil {
		return nil, err
	}
	r, err := z.Open()
	if err != nil {
		return nil, fmt.Errorf("cannot open the zip entry: %w", err)
	}
	defer r.Close()
	h, offset, err := readHeader(r, z.UncompressedSize64)
	if err != nil {
		return nil, err
	}
	return &entry{Header: h, zip: z, offset: offset}, nil
}

// checkSizes bounds what the directory claims about z by the size of the
// file, so that a small file cannot ask for a large allocation.
func checkSizes(z *zip.File, size int64) error {
	const encrypted = 1
	if z.Flags&encrypted != 0 {
		return errors.New("zip entry is encrypted, save it without a password")
	}
	start, err := z.DataOffset()
	if err != nil {
		return fmt.Errorf("cannot find the zip entry: %w", err)
	}
	packed, full := z.CompressedSize64, z.UncompressedSize64
	if start > size || packed > uint64(size-start) {
		return fmt.Errorf("zip entry of %d bytes at %d exceeds the file of %d", packed, start, size)
	}
	switch z.Method {
	case zip.Store:
		if packed != full {
			return fmt.Errorf("stored zip entry has sizes %d and %d, they must be equal", packed, full)
		}
	case zip.Deflate:
		// At its best, deflate packs a match of 258 bytes into 2 bits.
		if full > 64 && (full-65)/1032 >= packed {
			return fmt.Errorf("zip entry claims %d bytes from %d, deflate reaches at most 1032 to 1", full, packed)
		}
	default:
		return fmt.Errorf("zip method %d is not accepted, save it stored or deflated", z.Method)
	}
	return nil
}

// Close closes the file that Open opened; after NewReader it does nothing.
func (f *File) Close() error {
	if f.closer == nil {
		return nil
	}
	return f.closer.Close()
}

// Names returns the names of the arrays, sorted and without ".npy".
func (f *File) Names() []string { return slices.Clone(f.names) }

// Header returns the header of the named array and whether there is one.
func (f *File) Header(array string) (Header, bool) {
	e := f.entries[array]
	if e == nil {
		return Header{}, false
	}
	h := e.Header
	h.Shape = slices.Clone(h.Shape)
	return h, true
}

// Float32s returns the elements [from, to) of the array in C order as
// float32. Float16 is exact; wider types are rounded to nearest, and a float64
// beyond the float32 range becomes an infinity. A bool is 0 or 1. The elements
// before from are decompressed and dropped. It is an error if there is no such
// array or range or if the data is damaged; the checksum is verified only by
// reads that reach the end of the array.
func (f *File) Float32s(array string, from, to int) ([]float32, error) {
	e, err := f.entry(array, from, to)
	if err != nil {
		return nil, err
	}
	out := make([]float32, to-from)
	err = f.scan(e, from, to, func(at int, chunk []byte) error {
		decodeFloat32s(out[at:], chunk, e.DType)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// Int32s returns the elements [from, to) of an integer or bool array in C
// order as int32; a bool is 0 or 1. Its errors are those of Float32s, and it
// is an error if the array has a float type or a value lies outside int32.
func (f *File) Int32s(array string, from, to int) ([]int32, error) {
	e, err := f.entry(array, from, to)
	if err != nil {
		return nil, err
	}
	if e.DType.float() {
		return nil, f.errorf(array, "dtype is %s, want an integer type or bool", e.DType)
	}
	out := make([]int32, to-from)
	err = f.scan(e, from, to, func(at int, chunk []byte) error {
		bad := decodeInt32s(out[at:], chunk, e.DType)
		if bad < 0 {
			return nil
		}
		var v any = integer(chunk, bad, e.DType)
		if e.DType == Uint64 {
			v = uint64(v.(int64))
		}
		return f.errorf(array, "value %d at index %d is outside int32, want %d to %d",
			v, from+at+bad, math.MinInt32, math.MaxInt32)
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// Raw returns the little-endian bytes of the elements [from, to) in C order,
// DType.Size bytes each. Its errors are those of Float32s.
func (f *File) Raw(array string, from, to int) ([]byte, error) {
	e, err := f.entry(array, from, to)
	if err != nil {
		return nil, err
	}
	size := e.DType.Size()
	out := make([]byte, (to-from)*size)
	err = f.scan(e, from, to, func(at int, chunk []byte) error {
		copy(out[at*size:], chunk)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// entry looks an array up and checks the range against it.
func (f *File) entry(array string, from, to int) (*entry, error) {
	e := f.entries[array]
	if e == nil {
		return nil, fmt.Errorf("%s: no array %q, the archive has %q", f.name, array, f.names)
	}
	if from < 0 || from > to || to > e.Len() {
		return nil, f.errorf(array, "range [%d, %d) is not within its %d elements", from, to, e.Len())
	}
	return e, nil
}

// scan calls visit with successive chunks of the elements [from, to) and the
// index relative to from of each chunk's first element.
func (f *File) scan(e *entry, from, to int, visit func(at int, chunk []byte) error) error {
	r, err := e.zip.Open()
	if err != nil {
		return f.errorf(e.Name, "cannot open the zip entry: %w", err)
	}
	defer r.Close()
	fail := func(err error) error {
		return f.errorf(e.Name, "cannot read elements [%d, %d), the file may be truncated or damaged: %w", from, to, noEOF(err))
	}
	size := e.DType.Size()
	if _, err := io.CopyN(io.Discard, r, int64(e.offset)+int64(from)*int64(size)); err != nil {
		return fail(err)
	}
	buf := make([]byte, min(chunkSize, (to-from)*size))
	for at := 0; at < to-from; {
		chunk := buf[:min(len(buf), (to-from-at)*size)]
		if _, err := io.ReadFull(r, chunk); err != nil {
			return fail(err)
		}
		if err := visit(at, chunk); err != nil {
			return err
		}
		at += len(chunk) / size
	}
	if to < e.Len() {
		return nil
	}
	// The checksum is compared only when the stream's end is seen.
	if _, err := io.ReadFull(r, make([]byte, 1)); err != io.EOF {
		return fail(err)
	}
	return nil
}

func (f *File) errorf(array, format string, args ...any) error {
	return fmt.Errorf("%s: array %q: %w", f.name, array, fmt.Errorf(format, args...))
}
