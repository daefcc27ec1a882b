package tracefile

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
)

// mtpLayers is added to the layers of multi-token prediction, so that they come after the decoder's.
const mtpLayers = 1 << 15

// megatronFields are the fields of a Megatron-LM router trace besides the usual ones.
var megatronFields = map[string]int{"block": colMegatron, "mtp_idx": colMegatron, "rank": colMegatron,
	"logit_offset": colMegatron, "logit_bytes": colMegatron, "logit_shape": colMegatron, "hs_offset": colMegatron, "hs_bytes": colMegatron, "hs_shape": colMegatron}

// sidecar is what a record says of its matrices in sidecar files.
type sidecar struct{ logits, hidden place }

// megatron reads what a router trace of Megatron-LM has besides the choices: matrices of bfloat16 in files beside it.
type megatron struct {
	folder string
	seen   bool
	notes  []string
	files  map[string]*sidecarFile

	mtp           bool
	index, rank   int64
	logits, state claim
}

// claim is the place of a matrix, as a record claims it.
type claim struct {
	given         bool
	offset, bytes int64
	shape         []int
}

type sidecarFile struct {
	r     io.ReaderAt
	size  int64
	close func() error
}

func (m *megatron) field(j *jsonText, key string) (err error) {
	c := &m.logits
	if key[0] == 'h' {
		c = &m.state
	}
	switch key {
	case "block":
		var s string
		s, err = j.str()
		m.mtp = s == "mtp"
	case "mtp_idx":
		m.index, err = j.integer()
	case "rank":
		if b := j.peek(); b == '[' || b == '{' {
			return j.skip()
		}
		var v []byte
		if v, err = j.scalar(); err == nil {
			m.rank, _ = strconv.ParseInt(string(v), 10, 32)
		}
	case "logit_offset", "hs_offset":
		c.given = true
		c.offset, err = j.integer()
	case "logit_bytes", "hs_bytes":
		c.bytes, err = j.integer()
	default:
		c.shape, err = j.integers()
	}
	return err
}

// place finds the record's matrices, and numbers its layer.
func (m *megatron) place(r *record) (err error) {
	if m.mtp && m.seen {
		if m.index < 0 || m.index >= 16 || r.layer < 0 || r.layer >= 1024 {
			return fmt.Errorf("layer %d of module %d of multi-token prediction is out of range", r.layer, m.index)
		}
		r.layer += mtpLayers + 1024*m.index
	}
	tokens := len(r.ids.ends)
	if m.seen {
		if r.side.logits, err = m.find(&m.logits, "logits", tokens); err == nil {
			r.side.hidden, err = m.find(&m.state, "hidden_states", tokens)
		}
	}
	m.mtp, m.index, m.logits, m.state = false, 0, claim{}, claim{}
	return err
}

func (m *megatron) find(c *claim, what string, tokens int) (place, error) {
	if !c.given || m.folder == "" {
		return place{}, nil
	}
	file := filepath.Join(m.folder, fmt.Sprintf("%s_rank%d.bin", what, m.rank))
	f, known := m.files[file]
	if !known {
		var err error
		if f, err = openSidecar(file); err != nil {
			m.notes = append(m.notes, fmt.Sprintf("%s is left out: %s", what, err))
		}
		if m.files == nil {
			m.files = map[string]*sidecarFile{}
		}
		if len(m.files) > 4096 {
			return place{}, errors.New("it has more than 4096 ranks")
		}
		m.files[file] = f
	}
	if f == nil {
		return place{}, nil
	}
	n, ok := elements(c.shape, 2)
	switch {
	case len(c.shape) != 2 || !ok || c.shape[0] != tokens || c.shape[1] < 1:
		return place{}, fmt.Errorf("the shape of %s is %v: want [%d, width]", what, clipped(c.shape), tokens)
	case c.bytes != int64(2*n):
		return place{}, fmt.Errorf("%s of shape %v take %d bytes of bfloat16, the record says %d", what, c.shape, 2*n, c.bytes)
	case c.offset < 0 || c.bytes > f.size-c.offset:
		return place{}, fmt.Errorf("%s at offset %d exceed the %d bytes of %s: it may be cut off", what, c.offset, f.size, filepath.Base(file))
	}
	return place{segment{f.r, c.offset, n}, c.shape[1]}, nil
}

func (m *megatron) close() error {
	var err error
	for _, f := range m.files {
		if f != nil {
			err = errors.Join(err, f.close())
		}
	}
	m.files = nil
	return err
}

// readMegatron reads the traces of several ranks, one after the other: the tokens of a layer follow each other by rank.
func readMegatron(files []string, o Options) (*arrays, error) {
	o.folder = filepath.Dir(files[0])
	x := newJSONReader(files[0], o)
	var err error
	for _, file := range files {
		x.name, x.rows.name = file, file
		if err = x.readFile(file); err != nil {
			break
		}
	}
	x.name, x.rows.name = o.folder, o.folder
	s, err := x.finish(err, "Megatron-LM router trace")
	if err == nil {
		s.files = append(files, s.files...)
		s.note("%d ranks were read, one after the other", len(files))
	}
	return s, err
}

// readFile reads one more file, plain or packed.
func (x *jsonReader) readFile(name string) error {
	r, done, err := openText(name)
	if err != nil {
		return err
	}
	defer done()
	return x.read(interruptible{r, x.o.Interrupt})
}

// openText opens a text file, plain or packed by gzip.
func openText(name string) (io.Reader, func() error, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, nil, unwrapPath(err)
	}
	magic := make([]byte, 2)
	if n, _ := f.ReadAt(magic, 0); n < 2 || string(magic) != "\x1f\x8b" {
		return f, f.Close, nil
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, nil, unwrapPath(err)
	}
	z, err := newGunzip(f, info.Size(), name)
	if err != nil {
		f.Close()
		return nil, nil, err
	}
	return z, f.Close, nil
}

func openSidecar(name string) (*sidecarFile, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, unwrapPath(err)
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, unwrapPath(err)
	}
	return &sidecarFile{f, info.Size(), f.Close}, nil
}
