package tracefile

import (
	"bytes"
	"fmt"
	"io"
	"path/filepath"
	"strings"
)

// isESFT reports whether a first line is one of ESFT's: ids, an empty field, as many weights, all separated by tabs. A
// line that is not whole needs only to begin so.
func isESFT(line []byte, whole bool) bool {
	ids, weights, both := bytes.Cut(line, []byte("\t\t"))
	for _, c := range ids {
		if (c < '0' || c > '9') && c != '\t' {
			return false
		}
	}
	return bytes.IndexByte(ids, '\t') > 0 && (both && bytes.IndexByte(weights, '.') >= 0 || !both && !whole)
}

// readESFT reads one layer of deepseek-ai/ESFT's expert weights: a line for each sequence.
func readESFT(r io.Reader, name string, o Options) (*arrays, error) {
	e := &esft{rows: newRows(name, o), o: o}
	err := e.read(r, name, layerOf(name))
	return e.finish(err)
}

// readESFTLayers reads a folder of them, a file for each layer.
func readESFTLayers(files []string, o Options) (*arrays, error) {
	e := &esft{rows: newRows(filepath.Dir(files[0]), o), o: o}
	for _, file := range files {
		r, done, err := openText(file)
		if err == nil {
			err = e.read(interruptible{r, o.Interrupt}, file, layerOf(file))
			done()
		}
		if err != nil {
			return e.finish(err)
		}
	}
	s, err := e.finish(nil)
	if err == nil {
		s.files = files
	}
	return s, err
}

// layerOf returns the number in a name such as expert_weights_13.txt, or -1.
func layerOf(name string) int {
	_, rest, ok := strings.Cut(filepath.Base(name), "expert_weights_")
	n, digits := 0, leadingDigits(rest)
	if !ok || digits == 0 || digits > 4 {
		return -1
	}
	for _, c := range rest[:digits] {
		n = n*10 + int(c-'0')
	}
	return n
}

type esft struct {
	rows *rows
	o    Options
	k    int
	line numbers
	w    numbers
}

func (e *esft) finish(err error) (*arrays, error) {
	if err != nil {
		e.rows.pool.close()
		return nil, err
	}
	s, err := e.rows.source("ESFT expert weights")
	if err == nil && e.o.TopK == 0 {
		s.note("K = %d experts per token is inferred: the largest that divides the lines without an expert twice; topk=K says another", e.k)
	}
	return s, err
}

// read reads a file. K is not written in it: the first lines say it.
func (e *esft) read(r io.Reader, name string, layer int) error {
	e.rows.name = name
	return eachLine(r, name, func(line []byte, n int) error {
		fail := func(format string, args ...any) error {
			return fmt.Errorf("%s:%d: %s", name, n, fmt.Sprintf(format, args...))
		}
		ids, weights, ok := bytes.Cut(line, []byte("\t\t"))
		if !ok {
			return fail("there is no empty field between ids and weights: the line may be cut off")
		}
		if err := e.line.fields(ids, false); err != nil {
			return fail("ids: %s", err)
		}
		if err := e.w.fields(bytes.TrimRight(weights, "\t"), true); err != nil {
			return fail("weights: %s", err)
		}
		if e.line.len() != e.w.len() {
			return fail("it has %d ids and %d weights: the line may be cut off", e.line.len(), e.w.len())
		}
		if e.k == 0 {
			if e.k = e.o.TopK; e.k == 0 {
				e.k = inferK(e.line.ints)
			}
		}
		if e.line.len()%e.k != 0 {
			return fail("%d ids are no whole number of tokens of %d experts: add --set topk=K", e.line.len(), e.k)
		}
		x := record{ids: e.line, weights: e.w}
		x.has[colIDs], x.has[colWeights], x.has[colSequence] = true, true, true
		x.sequence = uint64(n)
		if layer >= 0 {
			x.has[colLayer], x.layer = true, int64(layer)
		}
		x.ids.depth = 2
		x.ids.ends, x.weights.ends = nil, nil
		for end := e.k; end <= x.ids.len(); end += e.k {
			x.ids.ends = append(x.ids.ends, end)
		}
		x.weights.ends = x.ids.ends
		return e.rows.add(&x, n)
	})
}

// fields reads numbers separated by tabs.
func (n *numbers) fields(text []byte, float bool) error {
	j := &jsonText{text: text}
	n.reset()
	for j.peek() != 0 {
		if err := j.readNumber(n, float); err != nil {
			return err
		}
	}
	return nil
}

// inferK returns the largest K up to 64 that divides a line's ids into tokens without an expert twice.
func inferK(ids []int64) int {
	best := 1
	for k := 2; k <= 64; k++ {
		if len(ids)%k == 0 && distinct(ids, k) {
			best = k
		}
	}
	return best
}

func distinct(ids []int64, k int) bool {
	for from := 0; from < len(ids); from += k {
		seen := map[int64]bool{}
		for _, id := range ids[from : from+k] {
			if seen[id] {
				return false
			}
			seen[id] = true
		}
	}
	return true
}
