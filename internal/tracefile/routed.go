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
	return n.fill(values, shape)
}

// fill takes ids of shape [tokens][layers][k].
func (n *numbers) fill(values []int32, shape []int) error {
	if shape[2] == 0 || shape[1] == 0 {
		return fmt.Errorf("routed experts have shape %v: no dimension may be 0", shape)
	}
	n.reset()
	n.depth = 3
	for _, v := range values {
		n.ints = append(n.ints, int64(v))
	}
	for i := range shape[0] * shape[1] {
		n.ends = append(n.ends, (i+1)*shape[2])
	}
	for t := range shape[0] {
		n.groups = append(n.groups, (t+1)*shape[1])
	}
	return nil
}

// pair reports whether here is a list that may be a shape and base64, as rllm writes it: its first element is a
// list, in quotes or not, and the second a string.
func (j *jsonText) pair() bool {
	k := jsonText{text: j.text, at: j.at}
	if !k.accept('[') {
		return false
	}
	if c := k.peek(); c != '"' && c != '[' {
		return false
	}
	if k.peek() == '[' {
		for k.at++; k.at < len(k.text) && bytes.IndexByte([]byte("0123456789, \t\r\n"), k.text[k.at]) >= 0; k.at++ {
		}
		if !k.accept(']') {
			return false
		}
	} else if raw, err := k.rawString(); err != nil || !bytes.HasPrefix(raw, []byte("[")) {
		return false
	}
	return k.accept(',') && k.peek() == '"'
}

// shaped reads a shape [tokens, layers, k], as a list or in quotes, and base64 of ids, whose type follows from their size.
func (n *numbers) shaped(j *jsonText) error {
	j.accept('[')
	inner := j
	if j.peek() == '"' {
		raw, err := j.rawString()
		if err != nil {
			return err
		}
		inner = &jsonText{text: raw}
	}
	shape, err := inner.integers()
	if err != nil {
		return err
	}
	j.accept(',')
	raw, err := j.rawString()
	if err != nil {
		return err
	}
	if !j.accept(']') {
		return j.want("the end of the list of a shape and base64")
	}
	raw = bytes.ReplaceAll(raw, []byte(`\/`), []byte("/"))
	data := make([]byte, base64.StdEncoding.DecodedLen(len(raw)))
	size, err := base64.StdEncoding.Decode(data, raw)
	if err != nil {
		return fmt.Errorf("%s is no base64: want that of raw ids of shape %v", clip(string(raw)), clipped(shape))
	}
	count, ok := elements(shape, 8)
	var dtype npz.DType
	if ok && count > 0 && size%count == 0 {
		dtype = map[int]npz.DType{1: npz.Uint8, 2: npz.Int16, 4: npz.Int32, 8: npz.Int64}[size/count]
	}
	if len(shape) != 3 || dtype == 0 {
		return fmt.Errorf("routed experts of shape %v and %d bytes: want [tokens, layers, k] ids of 1, 2, 4 or 8 bytes", clipped(shape), size)
	}
	values := make([]int32, count)
	if bad := dtype.Int32s(values, data[:size]); bad >= 0 {
		return fmt.Errorf("id %d of the routed experts is outside int32", bad)
	}
	return n.fill(values, shape)
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
