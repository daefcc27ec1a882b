package tracefile

import (
	"encoding/binary"
	"fmt"
	"io"
	"slices"
	"strings"

	"evenkeel/internal/npz"
)

// maxHeader is the format's own limit of a header.
const maxHeader = 100 << 20

// isSafetensors reports whether a file may begin so: eight bytes of length, then a JSON object of that length.
func isSafetensors(head []byte, size int64) bool {
	if len(head) < 10 || head[8] != '{' {
		return false
	}
	n := binary.LittleEndian.Uint64(head)
	return n >= 2 && (n <= uint64(size) || n>>56 == 0 && strings.IndexByte("\" \t\r\n}", head[9]) >= 0)
}

var safetensorTypes = map[string]npz.DType{"BOOL": npz.Bool, "I8": npz.Int8, "I16": npz.Int16, "I32": npz.Int32, "I64": npz.Int64,
	"U8": npz.Uint8, "U16": npz.Uint16, "U32": npz.Uint32, "U64": npz.Uint64, "F16": npz.Float16, "BF16": bfloat16, "F32": npz.Float32, "F64": npz.Float64}

// readSafetensors reads the header: {"name": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}, ...}.
func readSafetensors(r io.ReaderAt, size int64, name string) (*arrays, error) {
	var length [8]byte
	if _, err := r.ReadAt(length[:], 0); err != nil {
		return nil, fmt.Errorf("%s: %w", name, noEOF(err))
	}
	n := binary.LittleEndian.Uint64(length[:])
	if n > maxHeader || int64(n) > size-8 {
		return nil, fmt.Errorf("%s: the safetensors header claims %d bytes of the file's %d, at most %d are accepted: it is cut off or damaged", name, n, size, maxHeader)
	}
	text := make([]byte, n)
	if _, err := r.ReadAt(text, 8); err != nil && err != io.EOF {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	s := newArrays("safetensors", name)
	s.named = true
	data := size - 8 - int64(n)
	type span struct {
		from, to int64
		name     string
	}
	var spans []span
	j := &jsonText{text: text}
	err := j.object(func(key string) error {
		if key == "__metadata__" {
			return j.skip()
		}
		if s.list[key] != nil {
			return fmt.Errorf("tensor %s occurs twice", clip(key))
		}
		var kind string
		var shape, offsets []int
		err := j.object(func(field string) (err error) {
			switch field {
			case "dtype":
				kind, err = j.str()
			case "shape":
				shape, err = j.integers()
			case "data_offsets":
				offsets, err = j.integers()
			default:
				err = j.skip()
			}
			return err
		})
		if err != nil {
			return fmt.Errorf("tensor %s: %w", clip(key), err)
		}
		d, ok := safetensorTypes[kind]
		if !ok {
			return fmt.Errorf("tensor %s has dtype %s: want BOOL, I8 to I64, U8 to U64, F16, BF16, F32 or F64", clip(key), clip(kind))
		}
		count, ok := elements(shape, sizeOf(d))
		if !ok || len(shape) > 64 {
			return fmt.Errorf("tensor %s has a shape whose size overflows", clip(key))
		}
		if len(offsets) != 2 || offsets[0] < 0 || offsets[0] > offsets[1] || int64(offsets[1]) > data {
			return fmt.Errorf("tensor %s has data_offsets %v, which do not lie within the %d bytes of data: the file is cut off or damaged", clip(key), clipped(offsets), data)
		}
		if offsets[1]-offsets[0] != count*sizeOf(d) {
			return fmt.Errorf("tensor %s of %s and shape %v takes %d bytes, but its data_offsets span %d", clip(key), kind, shape, count*sizeOf(d), offsets[1]-offsets[0])
		}
		spans = append(spans, span{int64(offsets[0]), int64(offsets[1]), key})
		s.list[key] = &array{shape, d, []segment{{r, 8 + int64(n) + int64(offsets[0]), count}}}
		return nil
	})
	if err == nil {
		err = j.end()
	}
	if err != nil {
		return nil, fmt.Errorf("%s: safetensors header: %w", name, err)
	}
	slices.SortFunc(spans, func(a, b span) int { return int(min(1, max(-1, a.from-b.from))) })
	for i, x := range spans {
		if i > 0 && x.from < spans[i-1].to {
			return nil, fmt.Errorf("%s: the data of tensors %s and %s overlap", name, clip(spans[i-1].name), clip(x.name))
		}
	}
	return s, nil
}

func clipped(list []int) []int { return list[:min(len(list), 4)] }

// clip quotes s for an error, cutting what is long.
func clip(s string) string {
	const most = 40
	if len(s) > most {
		return fmt.Sprintf("%q...", s[:most])
	}
	return fmt.Sprintf("%q", s)
}
