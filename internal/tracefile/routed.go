package tracefile

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"

	"evenkeel/internal/npz"
)

// unpack decodes base64 into ids [tokens][layers][k].
func (n *numbers) unpack(text []byte, o Options) error {
	data := make([]byte, base64.StdEncoding.DecodedLen(len(text)))
	size, err := base64.StdEncoding.Decode(data, text)
	if err != nil {
		return fmt.Errorf("%s is no base64: want that of an .npy stream or of raw int32, or a list", clip(string(text)))
	}
	data = data[:size]
	shape := []int{0, o.Layers, o.TopK}
	dtype := npz.Int32
	if bytes.HasPrefix(data, []byte("\x93NUMPY")) {
		h, at, err := npz.ReadHeader(bytes.NewReader(data), int64(len(data)))
		if err != nil {
			return fmt.Errorf("base64 of an .npy stream: %w", err)
		}
		if len(h.Shape) != 3 || h.DType.Float() {
			return fmt.Errorf("base64 of an .npy stream of %s and shape %v: want integers [tokens, layers, k]", h.DType, h.Shape)
		}
		shape, dtype, data = h.Shape, h.DType, data[at:]
	} else {
		if o.Layers == 0 || o.TopK == 0 {
			return errors.New("routed experts in base64 are raw int32, which do not say their shape: add --set layers=L and --set topk=K (trace.layers and topk in a scenario)")
		}
		row := 4 * o.Layers * o.TopK
		if len(data)%row != 0 {
			return fmt.Errorf("routed experts of %d bytes are no whole number of tokens of %d layers and %d experts of int32: correct --set layers and topk", len(data), o.Layers, o.TopK)
		}
		shape[0] = len(data) / row
	}
	values := make([]int32, len(data)/dtype.Size())
	if bad := dtype.Int32s(values, data); bad >= 0 {
		return fmt.Errorf("id %d of the routed experts is outside int32", bad)
	}
	n.reset()
	n.depth = 3
	for _, v := range values {
		n.ints = append(n.ints, int64(v))
	}
	if shape[2] == 0 || shape[1] == 0 {
		return fmt.Errorf("routed experts have shape %v: no dimension may be 0", shape)
	}
	for i := range shape[0] * shape[1] {
		n.ends = append(n.ends, (i+1)*shape[2])
	}
	for t := range shape[0] {
		n.groups = append(n.groups, (t+1)*shape[1])
	}
	return nil
}

// isBase64 reports whether a line is base64 and nothing else.
func isBase64(line []byte) bool {
	if len(line) < 16 {
		return false
	}
	for _, c := range bytes.TrimRight(line, "=") {
		if !('A' <= c && c <= 'Z' || 'a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '+' || c == '/') {
			return false
		}
	}
	return true
}

// readBase64 reads a file of routed experts in base64, a line for each request.
func readBase64(r io.Reader, name string, o Options) (*arrays, error) {
	t := newRows(name, o)
	err := eachLine(r, name, func(line []byte, n int) error {
		var x record
		x.has[colIDs], x.routed = true, true
		if err := x.ids.unpack(line, o); err != nil {
			return fmt.Errorf("%s:%d: %w", name, n, err)
		}
		return t.add(&x, n)
	})
	if err != nil {
		t.pool.close()
		return nil, err
	}
	return t.source("routed experts in base64")
}
