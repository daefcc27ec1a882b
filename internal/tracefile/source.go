// Package tracefile reads the traces that routers leave, whatever program wrote them, as arrays by name. Formats are told
// apart by content; every one may be packed by gzip.
//
// The arrays have the names and shapes of an npz trace, L layers, T tokens, E experts, K chosen ones, width d:
//
//	logits, scores   [L,T,E] or [T,E]  level scores
//	topk_ids         [L,T,K] or [T,K]  level choices; -1 is padding
//	topk_weights     like topk_ids
//	counts           [steps,L,E]       level counts
//	hidden           [L,T,d]
//	router, bias     [L,E,d], [L,E]
//	token_id, domain [T]
//	seq_lens         [sequences]
//	layers           [L]               numbers of the layers in the model, where the trace says
//
// Nothing that a file holds is executed, what it claims is checked against its size before memory is taken, and text is
// read in constant memory: rows go to a temporary file when they exceed 64 MiB.
package tracefile

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"evenkeel/internal/npz"
)

// Source is an open trace. Its methods may not be called from several goroutines at once.
type Source interface {
	// Format names the format in words, such as "safetensors".
	Format() string
	// Names lists the arrays, sorted.
	Names() []string
	// Header returns shape and element type of an array, and whether there is one. A bfloat16 array is reported as the
	// float32 that it reads as.
	Header(array string) (npz.Header, bool)
	// Float32s returns the elements [from, to) in C order; see npz.File.
	Float32s(array string, from, to int) ([]float32, error)
	// Int32s returns the elements [from, to) of an integer or bool array in C order; see npz.File.
	Int32s(array string, from, to int) ([]int32, error)
	// Notes says, a sentence each, what the reader assumed, summed, mapped or left out.
	Notes() []string
	// Files lists the files that were read, sidecars included; none of a trace in memory.
	Files() []string
	// Close closes the files and removes temporary ones.
	Close() error
}

// Options say what a file does not.
type Options struct {
	// Map holds name=column: the column, field, array or tensor that holds what the package calls name. The name of an array
	// may have {layer} in place of a number, where a file has one for each layer.
	Map     []string
	Where   []string // column=value: only such rows of JSONL and CSV
	TopK    int      // experts per token; 0: as the file has it
	Layers  int      // layers of base64 ids without a shape; 0: unknown
	Padding int      // an id that stands for no expert, besides -1; 0: none

	// Interrupt, if not nil, is asked now and then while text is read, and its error ends that.
	Interrupt func() error

	folder string // of the file, where its sidecars lie; empty for a file in memory
}

// MapNames lists the names that Options.Map knows.
func MapNames() []string {
	return slices.Concat(canonical, []string{"layer", "token", "sequence", "step", "expert", "count"})
}

var canonical = []string{"logits", "scores", "topk_ids", "topk_weights", "hidden", "router", "bias", "token_id", "domain", "seq_lens", "counts", "layers"}

// mapping returns Options.Map as name → column.
func (o Options) mapping() (map[string]string, error) {
	m := map[string]string{}
	for _, pair := range o.Map {
		name, column, ok := strings.Cut(pair, "=")
		if !ok || column == "" {
			return nil, fmt.Errorf("--map %s: want name=column, such as --map topk_ids=experts", pair)
		}
		if !slices.Contains(MapNames(), name) {
			return nil, fmt.Errorf("--map %s: there is no %q to map to: want one of %s", pair, name, strings.Join(MapNames(), ", "))
		}
		if m[name] != "" {
			return nil, fmt.Errorf("--map %s: %s is mapped twice", pair, name)
		}
		m[name] = column
	}
	return m, nil
}

func (o Options) check() error {
	if o.TopK < 0 || o.Layers < 0 || o.Padding < 0 {
		return fmt.Errorf("topk %d, layers %d, padding %d: none may be negative", o.TopK, o.Layers, o.Padding)
	}
	for _, w := range o.Where {
		if column, _, ok := strings.Cut(w, "="); !ok || column == "" {
			return fmt.Errorf("--where %s: want column=value, such as --where model=olmoe", w)
		}
	}
	_, err := o.mapping()
	return err
}

// Open opens the trace at the path name: a file, or the folder of a trace of several files. Errors are one sentence that
// says what was wrong and where.
func Open(name string, o Options) (Source, error) {
	info, err := os.Stat(name)
	if err != nil {
		return nil, unwrapPath(err)
	}
	if err := o.check(); err != nil {
		return nil, err
	}
	if info.IsDir() {
		return openFolder(name, o)
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, unwrapPath(err)
	}
	if !info.Mode().IsRegular() {
		f.Close()
		return nil, fmt.Errorf("%s is no regular file: traces are read more than once, so write it to a file first", name)
	}
	o.folder = filepath.Dir(name)
	s, err := detect(f, info.Size(), name, o)
	if err != nil {
		f.Close()
		return nil, err
	}
	s.closers = append(s.closers, f.Close)
	s.files = append([]string{name}, s.files...)
	return newView(s, o)
}

// NewReader is Open for a trace of one file in memory; name stands for it in errors.
func NewReader(r io.ReaderAt, size int64, name string, o Options) (Source, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	s, err := detect(r, size, name, o)
	if err != nil {
		return nil, err
	}
	return newView(s, o)
}

func unwrapPath(err error) error {
	var path *fs.PathError
	if errors.As(err, &path) {
		return fmt.Errorf("%s: %w", path.Path, path.Err)
	}
	return err
}

const known = "want npz, npy, safetensors, torch .pt, JSONL, CSV or the text of ESFT, plain or by gzip"

// detect tells the format by its first bytes and reads it.
func detect(r io.ReaderAt, size int64, name string, o Options) (*arrays, error) {
	head := make([]byte, 4096)
	n, err := r.ReadAt(head, 0)
	if err != nil && err != io.EOF {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	head = head[:n]
	switch {
	case n == 0:
		return nil, fmt.Errorf("%s is empty: %s", name, known)
	case bytes.HasPrefix(head, []byte("\x1f\x8b")):
		return unpack(r, size, name, o)
	case bytes.HasPrefix(head, []byte("PK")):
		return readZip(r, size, name)
	case bytes.HasPrefix(head, []byte("\x93NUMPY")):
		return readNpy(r, size, name)
	case bytes.HasPrefix(head, []byte("\x80\x02\x8a\x0a\x6c\xfc\x9c\x46")):
		return nil, fmt.Errorf("%s was written by torch before 1.6 or by its legacy option: load it and torch.save it again", name)
	case bytes.HasPrefix(head, []byte("\x80")) && n > 2 && head[1] <= 5:
		return nil, fmt.Errorf("%s is a bare pickle, which could run any program: write it by torch.save, numpy.savez or as JSON", name)
	case isSafetensors(head, size):
		return readSafetensors(r, size, name)
	}
	return readText(io.NewSectionReader(r, 0, size), head, name, o)
}

// readText tells the text formats apart by the first bytes and reads one.
func readText(r io.Reader, head []byte, name string, o Options) (*arrays, error) {
	r = interruptible{r, o.Interrupt}
	head = bytes.TrimPrefix(head, []byte("\xef\xbb\xbf"))
	first := bytes.TrimLeft(head, " \t\r\n")
	line, _, whole := bytes.Cut(first, []byte("\n"))
	line = bytes.TrimRight(line, "\r")
	switch {
	case len(first) == 0 || bytes.IndexByte(head, 0) >= 0:
		return nil, fmt.Errorf("%s has no format that is known here: %s", name, known)
	case first[0] == '{' || first[0] == '[':
		return readJSON(r, name, o)
	case isESFT(line, whole):
		return readESFT(r, name, o)
	case isBase64(line):
		return readBase64(r, name, o)
	case bytes.ContainsAny(line, ",;\t"):
		return readCSV(r, line, name, o)
	}
	return nil, fmt.Errorf("%s has no format that is known here: %s", name, known)
}

// maxRatio bounds what gzip may unpack to, beyond a size at which it does not matter.
const (
	maxRatio  = 400
	freeBytes = 256 << 20
)

// unpack reads a trace that gzip packed: text as it streams, anything else by way of a temporary file.
func unpack(r io.ReaderAt, size int64, name string, o Options) (*arrays, error) {
	z, err := newGunzip(io.NewSectionReader(r, 0, size), size, name)
	if err != nil {
		return nil, err
	}
	b := bufio.NewReaderSize(z, 64<<10)
	head, err := b.Peek(4096)
	if err != nil && err != io.EOF {
		return nil, err
	}
	switch {
	case bytes.HasPrefix(head, []byte("\x1f\x8b")):
		return nil, fmt.Errorf("%s is packed by gzip twice: unpack it once", name)
	case len(head) > 0 && (isSafetensors(head, 1<<62) || bytes.ContainsRune([]byte("P\x93\x80"), rune(head[0])) || head[0] == 0x93 || head[0] == 0x80):
		p := newPool()
		s := p.spool()
		if _, err := io.Copy(s, b); err != nil {
			p.close()
			return nil, err
		}
		a, err := detect(s, s.size, name, o)
		if err != nil {
			p.close()
			return nil, err
		}
		a.closers = append(a.closers, p.close)
		return a, nil
	case len(head) == 0:
		return nil, fmt.Errorf("%s unpacks to nothing: %s", name, known)
	}
	return readText(b, head, name, o)
}

// openFolder reads a trace of several files.
func openFolder(name string, o Options) (Source, error) {
	entries, err := os.ReadDir(name)
	if err != nil {
		return nil, unwrapPath(err)
	}
	var files []string
	for _, e := range entries {
		if !e.IsDir() {
			files = append(files, e.Name())
		}
	}
	match := func(pattern string) (found []string) {
		for _, f := range files {
			if ok, _ := filepath.Match(pattern, f); ok {
				found = append(found, filepath.Join(name, f))
			}
		}
		slices.SortStableFunc(found, byNumber)
		return found
	}
	var s *arrays
	switch {
	case slices.Contains(files, "meta_info.json") && match("rank*.safetensors") != nil:
		s, err = readTensorRT(name, match("rank*.safetensors"))
	case match("router_trace_rank*.jsonl*") != nil:
		s, err = readMegatron(match("router_trace_rank*.jsonl*"), o)
	case match("*.pt") != nil:
		s, err = readSGLang(match("*.pt"))
	case match("expert_weights_*.txt*") != nil:
		s, err = readESFTLayers(match("expert_weights_*.txt*"), o)
	default:
		err = fmt.Errorf("%s is a folder without a trace of several files: want router_trace_rank*.jsonl, expert_distribution_recorder_*.pt, meta_info.json with rank*.safetensors, or expert_weights_*.txt; or name one file", name)
	}
	if err != nil {
		return nil, err
	}
	return newView(s, o)
}

// byNumber orders file names so that rank2 comes before rank10.
func byNumber(a, b string) int {
	digit := func(c byte) bool { return '0' <= c && c <= '9' }
	for a != "" && b != "" {
		if digit(a[0]) && digit(b[0]) {
			n, m := leadingDigits(a), leadingDigits(b)
			x, y := strings.TrimLeft(a[:n], "0"), strings.TrimLeft(b[:m], "0")
			if len(x) != len(y) {
				return len(x) - len(y)
			}
			if x != y {
				return strings.Compare(x, y)
			}
			a, b = a[n:], b[m:]
			continue
		}
		if a[0] != b[0] {
			return int(a[0]) - int(b[0])
		}
		a, b = a[1:], b[1:]
	}
	return len(a) - len(b)
}

func leadingDigits(s string) int {
	n := 0
	for n < len(s) && '0' <= s[n] && s[n] <= '9' {
		n++
	}
	return n
}

// interruptible asks before every read whether it should go on.
type interruptible struct {
	r   io.Reader
	ask func() error
}

// Read implements io.Reader.
func (i interruptible) Read(p []byte) (int, error) {
	if i.ask != nil {
		if err := i.ask(); err != nil {
			return 0, err
		}
	}
	return i.r.Read(p)
}

// Sum returns the SHA-256 of a file; of several, that of their names without folders, sizes and contents.
func Sum(files []string) (string, error) {
	h := sha256.New()
	for _, file := range files {
		if err := addFile(h, file, len(files) > 1); err != nil {
			return "", unwrapPath(err)
		}
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

func addFile(h hash.Hash, file string, named bool) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	if named {
		info, err := f.Stat()
		if err != nil {
			return err
		}
		fmt.Fprintf(h, "%s\x00%d\x00", filepath.Base(file), info.Size())
	}
	_, err = io.Copy(h, f)
	return err
}
