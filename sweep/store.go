package sweep

import (
	"bufio"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"evenkeel/internal/whole"
)

// Record is what a cell left: the metrics of its seed, and where asked for the state at some steps.
type Record struct {
	Values map[string]float64 `json:"values,omitempty"`
	Steps  []StepOfCell       `json:"steps,omitempty"`
	Failed string             `json:"failed,omitempty"` // why there is nothing else: the strategy cannot act here, or the run failed
}

// StepOfCell is what one recorded step showed.
type StepOfCell struct {
	Step   int                `json:"step"`
	Values map[string]float64 `json:"values"`
	Loads  []float32          `json:"loads,omitempty"` // r of each expert
}

// A result file holds a line for each cell: the CRC-32C of the rest in eight hexadecimal digits, a space, the cell's name, a
// space, and the record as JSON. Lines are only ever appended. What is torn or damaged does not fit its checksum, and is
// run again.
const (
	resultsFolder = "results"
	resultsSuffix = ".cells"
	maxLine       = 1 << 26
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func encodeLine(into []byte, name Name, r *Record) ([]byte, error) {
	text, err := json.Marshal(r)
	if err != nil {
		return into, err
	}
	rest := append(hex.AppendEncode(make([]byte, 0, 33+len(text)), name[:]), ' ')
	rest = append(rest, text...)
	into = fmt.Appendf(into, "%08x ", crc32.Checksum(rest, castagnoli))
	return append(append(into, rest...), '\n'), nil
}

// decodeLine returns the parts of a line without its end, and whether it is whole.
func decodeLine(line []byte) (name Name, record []byte, ok bool) {
	const head = 8 + 1 + 2*len(name) + 1
	if len(line) < head || line[8] != ' ' || line[head-1] != ' ' {
		return name, nil, false
	}
	var sum [4]byte
	if _, err := hex.Decode(sum[:], line[:8]); err != nil {
		return name, nil, false
	}
	want := uint32(sum[0])<<24 | uint32(sum[1])<<16 | uint32(sum[2])<<8 | uint32(sum[3])
	if crc32.Checksum(line[9:], castagnoli) != want {
		return name, nil, false
	}
	if _, err := hex.Decode(name[:], line[9:head-1]); err != nil {
		return name, nil, false
	}
	return name, line[head:], true
}

// Found is what reading a folder's results came across.
type Found struct {
	Files   int
	Damaged int // lines that do not fit their checksum, but for a torn last one
	Torn    int // last lines that were not finished
}

// scan calls f for every whole line of every result file of a folder. f must not keep the record.
func scan(dir string, f func(Name, []byte) error) (found Found, err error) {
	files, err := filepath.Glob(filepath.Join(dir, resultsFolder, "*"+resultsSuffix))
	if err != nil {
		return found, err
	}
	slices.Sort(files)
	for _, file := range files {
		if err := scanFile(file, &found, f); err != nil {
			return found, err
		}
	}
	found.Files = len(files)
	return found, nil
}

func scanFile(file string, found *Found, f func(Name, []byte) error) error {
	r, err := os.Open(file)
	if err != nil {
		return whole.Located(err)
	}
	defer r.Close()
	b := bufio.NewReaderSize(r, 1<<20)
	var long []byte
	for {
		line, err := b.ReadSlice('\n')
		if errors.Is(err, bufio.ErrBufferFull) && len(long) < maxLine {
			long = append(long, line...)
			continue
		}
		if len(long) > 0 {
			long = append(long, line...)
			line = long
		}
		if err == io.EOF {
			if len(line) > 0 {
				found.Torn++
			}
			return nil
		}
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return whole.Located(err)
		}
		if name, record, ok := decodeLine(line[:max(0, len(line)-1)]); ok {
			if err := f(name, record); err != nil {
				return err
			}
		} else {
			found.Damaged++
		}
		long = long[:0]
	}
}

// writer appends to one result file, which it holds a lock on. Its methods may be called by several goroutines.
type writer struct {
	mu    sync.Mutex
	f     *os.File
	buf   []byte
	begun time.Time // of the oldest line that is not on disk
	err   error
}

// flushAfter is how long a line may wait before it is written and flushed to disk.
const flushAfter = 200 * time.Millisecond

// newWriter opens a result file, ends a torn line, and locks the file.
func newWriter(dir, name string) (*writer, error) {
	folder := filepath.Join(dir, resultsFolder)
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return nil, whole.Located(err)
	}
	f, err := os.OpenFile(filepath.Join(folder, name+resultsSuffix), os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		return nil, whole.Located(err)
	}
	w := &writer{f: f}
	if err := lock(f); err != nil {
		f.Close()
		return nil, fmt.Errorf("%s is being written by another process: two may not run the same shard of a sweep at once", f.Name())
	}
	if size, err := f.Seek(0, io.SeekEnd); err == nil && size > 0 {
		var last [1]byte
		if _, err := f.ReadAt(last[:], size-1); err == nil && last[0] != '\n' {
			w.buf = append(w.buf, '\n')
		}
	}
	return w, nil
}

// put appends the records of some cells, all or, if the process dies, those that were flushed.
func (w *writer) put(names []Name, records []*Record) error {
	var lines []byte
	for i, r := range records {
		var err error
		if lines, err = encodeLine(lines, names[i], r); err != nil {
			return err
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.buf) == 0 || w.begun.IsZero() {
		w.begun = time.Now()
	}
	w.buf = append(w.buf, lines...)
	if time.Since(w.begun) >= flushAfter {
		w.flush()
	}
	return w.err
}

// flush writes what waits and has the disk keep it.
func (w *writer) flush() {
	if len(w.buf) == 0 || w.err != nil {
		return
	}
	_, w.err = w.f.Write(w.buf)
	if w.err == nil {
		w.err = w.f.Sync()
	}
	if w.err != nil {
		w.err = whole.Located(w.err)
	}
	w.buf, w.begun = w.buf[:0], time.Time{}
}

func (w *writer) close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.flush()
	if err := w.f.Close(); w.err == nil && err != nil {
		w.err = whole.Located(err)
	}
	return w.err
}
