package npz

import (
	"archive/zip"
	"fmt"
	"io"
)

// Float reports whether the elements are floating-point numbers.
func (d DType) Float() bool { return d.float() }

// Float32s converts the little-endian elements in src into the front of dst as File.Float32s does.
func (d DType) Float32s(dst []float32, src []byte) { decodeFloat32s(dst, src, d) }

// Int32s converts the little-endian integers in src into the front of dst. It returns the index of the first value outside
// int32, or -1.
func (d DType) Int32s(dst []int32, src []byte) int { return decodeInt32s(dst, src, d) }

// Bytes returns the bytes that an array of this type and shape takes. It is an error if a dimension is negative or the
// size overflows.
func (d DType) Bytes(shape []int) (int, error) { return byteSize(d, shape) }

// ReadHeader reads the header of a single .npy array of size bytes from r, and returns it without a name, with the offset
// at which the data starts. It is an error if shape, type and size disagree.
func ReadHeader(r io.Reader, size int64) (Header, int, error) {
	return readHeader(r, uint64(max(size, 0)))
}

// Data returns a reader of the array's little-endian elements in C order, from the first on. Reading its end verifies the
// checksum.
func (f *File) Data(array string) (io.ReadCloser, error) {
	e, err := f.entry(array, 0, 0)
	if err != nil {
		return nil, err
	}
	r, err := e.zip.Open()
	if err != nil {
		return nil, f.errorf(array, "cannot open the zip entry: %w", err)
	}
	if _, err := io.CopyN(io.Discard, r, int64(e.offset)); err != nil {
		r.Close()
		return nil, f.errorf(array, "cannot read the header, the file may be truncated or damaged: %w", noEOF(err))
	}
	return r, nil
}

// Writer writes an archive array by array, without holding their data.
type Writer struct {
	zip  *zip.Writer
	seen map[string]bool
	open *counted
}

// counted is the array under way: its data must be as long as its shape says.
type counted struct {
	name string
	w    io.Writer
	left int
}

// NewWriter returns a Writer of an archive to w.
func NewWriter(w io.Writer) *Writer { return &Writer{zip: zip.NewWriter(w), seen: map[string]bool{}} }

// Create begins an array and returns the writer of its data: little endian, in C order, exactly as many bytes as its shape
// takes, before the next Create or Close. Floating-point arrays are stored, others deflated. Its errors are those of Write.
func (w *Writer) Create(name string, d DType, shape []int) (io.Writer, error) {
	if err := w.finish(); err != nil {
		return nil, err
	}
	if err := checkName(name); err != nil {
		return nil, fmt.Errorf("array %q: %w", name, err)
	}
	if w.seen[name] {
		return nil, fmt.Errorf("array %q: name occurs twice, names must be unique", name)
	}
	if !d.valid() {
		return nil, fmt.Errorf("array %q: %s is not a type, %s", name, d, accepted)
	}
	n, err := byteSize(d, shape)
	if err != nil {
		return nil, fmt.Errorf("array %q: %w", name, err)
	}
	w.seen[name] = true
	a := Array{Name: name, DType: d, Shape: shape}
	method := zip.Deflate
	if d.float() {
		method = zip.Store // it would hardly shrink, and take longer to read
	}
	z, err := a.create(w.zip, method)
	if err != nil {
		return nil, fmt.Errorf("array %q: cannot write: %w", name, err)
	}
	w.open = &counted{name, z, n}
	return w.open, nil
}

// Write implements io.Writer.
func (c *counted) Write(p []byte) (int, error) {
	if len(p) > c.left {
		return 0, fmt.Errorf("array %q: %d bytes more than its shape takes", c.name, len(p)-c.left)
	}
	c.left -= len(p)
	return c.w.Write(p)
}

func (w *Writer) finish() error {
	if w.open != nil && w.open.left > 0 {
		return fmt.Errorf("array %q: %d bytes less than its shape takes", w.open.name, w.open.left)
	}
	return nil
}

// Close writes the directory of the archive. It does not close the writer beneath.
func (w *Writer) Close() error {
	if err := w.finish(); err != nil {
		return err
	}
	if err := w.zip.Close(); err != nil {
		return fmt.Errorf("cannot write the zip directory: %w", err)
	}
	return nil
}
