package npz

import (
	"archive/zip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Array is an array to be written.
type Array struct {
	Name  string // without ".npy"
	DType DType
	Shape []int  // in C order; empty for a scalar
	Data  []byte // little endian, the product of Shape times DType.Size bytes
}

// Write writes the arrays to w as a deflated .npz archive, in the order given
// and without timestamps, so that equal arrays make equal bytes. Nothing is
// written if a name is empty, unusable or used twice, or if a type, shape and
// data do not agree; other errors are those of w.
func Write(w io.Writer, arrays []Array) error {
	seen := make(map[string]bool)
	for _, a := range arrays {
		if err := a.check(); err != nil {
			return fmt.Errorf("array %q: %w", a.Name, err)
		}
		if seen[a.Name] {
			return fmt.Errorf("array %q: name occurs twice, names must be unique", a.Name)
		}
		seen[a.Name] = true
	}
	zw := zip.NewWriter(w)
	for _, a := range arrays {
		if err := a.write(zw); err != nil {
			return fmt.Errorf("array %q: cannot write: %w", a.Name, err)
		}
	}
	if err := zw.Close(); err != nil {
		return fmt.Errorf("cannot write the zip directory: %w", err)
	}
	return nil
}

func (a Array) check() error {
	if err := checkName(a.Name); err != nil {
		return err
	}
	if !a.DType.valid() {
		return fmt.Errorf("%s is not a type, %s", a.DType, accepted)
	}
	n, err := byteSize(a.DType, a.Shape)
	if err != nil {
		return err
	}
	if len(a.Data) != n {
		return fmt.Errorf("shape %v of %s takes %d bytes, the data has %d", a.Shape, a.DType, n, len(a.Data))
	}
	return nil
}

// checkName refuses names that an archive cannot hold: Python ends a zip name at a NUL byte.
func checkName(name string) error {
	if name == "" || !utf8.ValidString(name) || strings.IndexByte(name, 0) >= 0 {
		return errors.New("name must be non-empty UTF-8 without NUL")
	}
	return nil
}

func (a Array) write(zw *zip.Writer) error {
	w, err := a.create(zw, zip.Deflate)
	if err != nil {
		return err
	}
	_, err = w.Write(a.Data)
	return err
}

// create begins the zip entry and writes its header.
func (a Array) create(zw *zip.Writer, method uint16) (io.Writer, error) {
	w, err := zw.CreateHeader(&zip.FileHeader{Name: a.Name + ".npy", Method: method})
	if err == nil {
		_, err = w.Write(a.header())
	}
	return w, err
}

// header returns the version 1.0 header, padded so that data mapped into
// memory is aligned to 64 bytes.
func (a Array) header() []byte {
	const prefix, align = 10, 64
	var shape strings.Builder
	for i, n := range a.Shape {
		if i > 0 {
			shape.WriteByte(' ')
		}
		shape.WriteString(strconv.Itoa(n))
		if i == 0 || i < len(a.Shape)-1 {
			shape.WriteByte(',')
		}
	}
	dict := fmt.Sprintf("{'descr': '%s', 'fortran_order': False, 'shape': (%s), }", dtypes[a.DType].descr, &shape)
	total := (prefix + len(dict) + 1 + align - 1) / align * align
	b := append([]byte(magic), 1, 0)
	b = binary.LittleEndian.AppendUint16(b, uint16(total-prefix))
	b = append(b, dict...)
	for len(b) < total-1 {
		b = append(b, ' ')
	}
	return append(b, '\n')
}
