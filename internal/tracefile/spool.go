package tracefile

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
)

const (
	chunkSize  = 64 << 10 // bytes, a multiple of every element size
	poolMemory = 64 << 20 // bytes of full chunks kept before a temporary file is begun
)

// pool holds the bytes of many growing arrays: the first 64 MiB in memory, more in one temporary file.
type pool struct {
	held int64
	file *os.File
	end  int64
}

func newPool() *pool { return &pool{} }

func (p *pool) spool() *spool { return &spool{pool: p} }

func (p *pool) close() error {
	if p.file == nil {
		return nil
	}
	err := p.file.Close()
	os.Remove(p.file.Name()) // already gone where the system allows it
	p.file = nil
	return err
}

// keep stores a full chunk.
func (p *pool) keep(b []byte) (chunk, error) {
	if p.held += chunkSize; p.held <= poolMemory {
		return chunk{memory: b}, nil
	}
	if p.file == nil {
		f, err := os.CreateTemp("", "evenkeel-trace-*")
		if err != nil {
			return chunk{}, fmt.Errorf("a trace of this size needs a temporary file: %w", unwrapPath(err))
		}
		os.Remove(f.Name()) // an open file stays readable without a name, except on Windows
		p.file = f
	}
	at := p.end
	if _, err := p.file.WriteAt(b, at); err != nil {
		return chunk{}, fmt.Errorf("the temporary file of the trace cannot be written: %w", unwrapPath(err))
	}
	p.end += chunkSize
	return chunk{at: at}, nil
}

// chunk is chunkSize bytes, in memory or at an offset of the pool's file.
type chunk struct {
	memory []byte
	at     int64
}

// spool is a growing run of bytes that can be read at any place.
type spool struct {
	pool   *pool
	chunks []chunk
	tail   []byte
	size   int64
	err    error // of an append, kept until it is asked for
}

// Write implements io.Writer.
func (s *spool) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 && s.err == nil {
		take := min(len(p), chunkSize-len(s.tail))
		s.tail = append(s.tail, p[:take]...)
		p = p[take:]
		s.flush()
	}
	s.size += int64(n - len(p))
	return n - len(p), s.err
}

// flush moves a full tail to the pool.
func (s *spool) flush() {
	if len(s.tail) < chunkSize || s.err != nil {
		return
	}
	c, err := s.pool.keep(s.tail)
	s.err = err
	s.chunks = append(s.chunks, c)
	if c.memory != nil {
		s.tail = nil
	} else {
		s.tail = s.tail[:0]
	}
}

func (s *spool) int16(v int16) {
	s.tail = binary.LittleEndian.AppendUint16(s.tail, uint16(v))
	s.size += 2
	s.flush()
}

func (s *spool) int32(v int32) {
	s.tail = binary.LittleEndian.AppendUint32(s.tail, uint32(v))
	s.size += 4
	s.flush()
}

func (s *spool) int64(v int64) {
	s.tail = binary.LittleEndian.AppendUint64(s.tail, uint64(v))
	s.size += 8
	s.flush()
}

func (s *spool) float32(v float32) { s.int32(int32(math.Float32bits(v))) }

// ReadAt implements io.ReaderAt.
func (s *spool) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, errors.New("negative offset")
	}
	n := 0
	for n < len(p) && off < s.size {
		i, in := int(off/chunkSize), off%chunkSize
		var m int
		switch {
		case i >= len(s.chunks):
			m = copy(p[n:], s.tail[in:])
		case s.chunks[i].memory != nil:
			m = copy(p[n:], s.chunks[i].memory[in:])
		default:
			want := p[n:min(len(p), n+int(chunkSize-in))]
			var err error
			if m, err = s.pool.file.ReadAt(want, s.chunks[i].at+in); err != nil && m < len(want) {
				return n + m, err
			}
		}
		n += m
		off += int64(m)
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}
