package sweep

import (
	"bufio"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"evenkeel/internal/whole"
)

// Record is what a cell left: the metrics of its seed, and where asked for the state at some steps.
type Record struct {
	Failed   string             `json:"failed,omitempty"` // why there is nothing else: the strategy cannot act here, or the run failed
	Kind     string             `json:"kind,omitempty"`   // what a reader must know of the strategy: bound, in training only, not causal
	Values   map[string]float64 `json:"values,omitempty"`
	Floors   map[string]float64 `json:"floors,omitempty"` // sampling floors of those metrics that have one
	Warnings []string           `json:"warnings,omitempty"`
	Steps    []StepOfCell       `json:"steps,omitempty"`
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

func appendLine(into []byte, name Name, record []byte) []byte {
	rest := append(hex.AppendEncode(make([]byte, 0, 33+len(record)), name[:]), ' ')
	rest = append(rest, record...)
	into = fmt.Appendf(into, "%08x ", crc32.Checksum(rest, castagnoli))
	return append(append(into, rest...), '\n')
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

// place is where the record of a cell stands: length bytes from offset of a file.
type place struct {
	offset int64
	length int32
	file   int32
}

// resultFiles lists the result files of a folder, sorted. A folder may have none yet.
func resultFiles(dir string) (files []string, err error) {
	folder := filepath.Join(dir, resultsFolder)
	entries, err := os.ReadDir(folder)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, whole.Located(err)
	}
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), resultsSuffix) {
			files = append(files, filepath.Join(folder, e.Name()))
		}
	}
	return files, nil
}

// scan calls f for every whole line of every result file of a folder. f must not keep the record.
func scan(dir string, f func(Name, []byte, place) error) (found Found, err error) {
	files, err := resultFiles(dir)
	if err != nil {
		return found, err
	}
	for i, file := range files {
		if err := scanFile(file, int32(i), &found, f); err != nil {
			return found, err
		}
	}
	found.Files = len(files)
	return found, nil
}

func scanFile(file string, index int32, found *Found, f func(Name, []byte, place) error) error {
	r, err := os.Open(file)
	if err != nil {
		return whole.Located(err)
	}
	defer r.Close()
	b := bufio.NewReaderSize(r, 1<<20)
	var long []byte
	at := int64(0)
	for {
		line, err := b.ReadSlice('\n')
		at += int64(len(line))
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
			if err := f(name, record, place{at - 1 - int64(len(record)), int32(len(record)), index}); err != nil {
				return err
			}
		} else {
			found.Damaged++
		}
		long = long[:0]
	}
}

// Store is what a sweep's folder holds, and the file to which one process appends what it finishes. Its methods may be called by
// several goroutines.
type Store struct {
	Found Found // when the store was opened

	p     *Plan
	names *names

	mu     sync.Mutex
	done   map[Name]bool
	f      *os.File
	synced time.Time
	timer  *time.Timer // runs while something is written but not synced
	err    error
}

// syncAfter is how long a line that is written may wait until the disk has to keep it.
const syncAfter = 200 * time.Millisecond

// Open opens the store of a plan in a folder for the process that runs a shard. It reads which cells are there, ends a torn line,
// and holds a lock on its own file: what another process writes already is refused.
func Open(dir string, p *Plan, shard Shard) (*Store, error) {
	s := &Store{p: p, done: map[Name]bool{}}
	var err error
	if s.names, err = p.names(); err != nil {
		return nil, err
	}
	folder := filepath.Join(dir, resultsFolder)
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return nil, whole.Located(err)
	}
	name := filepath.Join(folder, fmt.Sprintf("shard-%d-of-%d%s", max(1, shard.Index), max(1, shard.Of), resultsSuffix))
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		return nil, whole.Located(err)
	}
	if err := lock(f, true); err != nil {
		f.Close()
		if !errors.Is(err, errHeld) {
			return nil, noLock(dir, err)
		}
		return nil, fmt.Errorf("%s is being written by another process: wait for it, two may not run the same shard of a sweep at once", name)
	}
	s.f = f
	if err := s.begin(dir); err != nil {
		f.Close()
		return nil, err
	}
	return s, nil
}

func (s *Store) begin(dir string) error {
	if size, err := s.f.Seek(0, io.SeekEnd); err == nil && size > 0 {
		var last [1]byte
		if _, err := s.f.ReadAt(last[:], size-1); err == nil && last[0] != '\n' {
			if _, err := s.f.Write([]byte{'\n'}); err != nil {
				return whole.Located(err)
			}
			s.Found.Torn++
			s.Found.Damaged-- // which scan will count
		}
	}
	found, err := scan(dir, func(n Name, _ []byte, _ place) error {
		s.done[n] = true
		return nil
	})
	s.Found.Files, s.Found.Damaged, s.Found.Torn = found.Files, s.Found.Damaged+found.Damaged, s.Found.Torn+found.Torn
	return err
}

// Missing returns the cells of a unit that the store does not hold.
func (s *Store) Missing(u Unit) (cells []Cell) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.p.Of(u) {
		if !s.done[s.names.of(c)] {
			cells = append(cells, c)
		}
	}
	return cells
}

// Put appends the records of cells. Those that are there already are left as they are, so that a cell is stored once, whoever ran it,
// and however often.
func (s *Store) Put(cells []Cell, records []*Record) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var lines []byte
	for i, c := range cells {
		n := s.names.of(c)
		if s.done[n] {
			continue
		}
		record, err := json.Marshal(records[i])
		if err != nil {
			return err
		}
		lines = s.line(lines, n, record)
	}
	return s.write(lines)
}

// append is Put of one record that is encoded already.
func (s *Store) append(n Name, record []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.done[n] {
		return nil
	}
	return s.write(s.line(nil, n, record))
}

// line enters a cell as done, and appends its line.
func (s *Store) line(into []byte, n Name, record []byte) []byte {
	s.done[n] = true
	return appendLine(into, n, record)
}

// write appends lines to the file, and sees to it that the disk keeps them soon.
func (s *Store) write(lines []byte) error {
	if s.err != nil {
		return s.err
	}
	if _, err := s.f.Write(lines); err != nil {
		s.err = fmt.Errorf("%w: what was finished is kept, and the same command goes on from there", whole.Located(err))
		return s.err
	}
	switch {
	case s.timer != nil:
	case time.Since(s.synced) >= syncAfter:
		s.sync()
	default:
		s.timer = time.AfterFunc(syncAfter, func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.sync()
		})
	}
	return s.err
}

func (s *Store) sync() {
	if s.timer != nil {
		s.timer.Stop()
		s.timer = nil
	}
	if err := s.f.Sync(); err != nil && s.err == nil && !errors.Is(err, os.ErrClosed) {
		s.err = whole.Located(err)
	}
	s.synced = time.Now()
}

// Sync has the disk keep all that was put.
func (s *Store) Sync() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.timer != nil {
		s.sync()
	}
	return s.err
}

// Close has the disk keep all that was put, and gives the file back.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sync()
	if err := s.f.Close(); s.err == nil && err != nil {
		s.err = whole.Located(err)
	}
	return s.err
}
