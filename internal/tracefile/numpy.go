package tracefile

import (
	"archive/zip"
	"fmt"
	"io"
	"strings"

	"evenkeel/internal/npz"
)

// readZip reads what numpy.savez or torch.save wrote.
func readZip(r io.ReaderAt, size int64, name string) (*arrays, error) {
	if z, err := zip.NewReader(r, size); err == nil {
		for _, f := range z.File {
			if strings.HasSuffix(f.Name, "/data.pkl") {
				return readTorch(r, size, z, name)
			}
		}
	}
	f, err := npz.NewReader(r, size, name)
	if err != nil {
		return nil, err
	}
	s := newArrays("npz", name)
	s.named = true
	for _, array := range f.Names() {
		h, _ := f.Header(array)
		c := &cursor{open: func() (io.ReadCloser, error) { return f.Data(array) }, size: int64(h.Len() * h.DType.Size())}
		s.add(array, h, segment{c, 0, h.Len()})
		s.closers = append(s.closers, c.close)
	}
	return s, nil
}

func (s *arrays) add(name string, h npz.Header, segments ...segment) {
	s.list[name] = &array{h.Shape, h.DType, segments}
}

// readNpy reads a single array; it is called arr_0, as numpy.savez does with arrays that have no name.
func readNpy(r io.ReaderAt, size int64, name string) (*arrays, error) {
	h, offset, err := npz.ReadHeader(io.NewSectionReader(r, 0, size), size)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	s := newArrays("npy", name)
	s.named = true
	s.add("arr_0", h, segment{r, int64(offset), h.Len()})
	return s, nil
}
