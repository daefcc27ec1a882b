package tracefile

import (
	"compress/gzip"
	"fmt"
	"io"
)

// gunzip unpacks a stream and refuses one that unpacks to more than its size explains.
type gunzip struct {
	z     *gzip.Reader
	name  string
	limit int64
	read  int64
}

func newGunzip(r io.Reader, size int64, name string) (*gunzip, error) {
	z, err := gzip.NewReader(r)
	if err != nil {
		return nil, fmt.Errorf("%s starts as gzip does but is none, or is cut off: %w", name, noEOF(err))
	}
	return &gunzip{z: z, name: name, limit: max(freeBytes, size*maxRatio)}, nil
}

// Read implements io.Reader.
func (g *gunzip) Read(p []byte) (int, error) {
	n, err := g.z.Read(p)
	g.read += int64(n)
	if g.read > g.limit {
		return n, fmt.Errorf("%s unpacks to more than %d times its size: unpack it yourself if you trust it", g.name, maxRatio)
	}
	if err != nil && err != io.EOF {
		err = fmt.Errorf("%s: gzip is damaged or cut off after %d bytes: %w", g.name, g.read, err)
	}
	return n, err
}

// noEOF turns a plain EOF in the middle of something into an unexpected one.
func noEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
