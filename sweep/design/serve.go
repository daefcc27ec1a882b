package design

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Value is a metric of a trial over its seeds: the mean and half the width of its interval. What is not finite, such as the half
// width of one seed, is null in an answer.
type Value struct {
	Mean, HalfWidth float64
}

// MarshalJSON writes {"mean":0.5,"half_width":null}.
func (v Value) MarshalJSON() ([]byte, error) {
	finite := func(x float64) *float64 {
		if math.IsNaN(x) || math.IsInf(x, 0) {
			return nil
		}
		return &x
	}
	return json.Marshal(struct {
		Mean      *float64 `json:"mean"`
		HalfWidth *float64 `json:"half_width"`
	}{finite(v.Mean), finite(v.HalfWidth)})
}

// Limits of a request.
const (
	maxLine = 1 << 20 // bytes
	maxID   = 256     // bytes
)

// Serve lets another program choose: it reads one request a line from r, evaluates it, and writes one answer a line to w before
// it reads on. A request gives every axis a value, a number or a string, and may give a budget:
//
//	{"id": 7, "set": {"loss-free.rate": 1e-3, "tokens": 4096}, "seeds": 3, "steps": 500}
//
// The id, a string or a number, comes back in the answer:
//
//	{"id":7,"values":{"maxvio_global":{"mean":0.113,"half_width":0.007}}}
//	{"id":7,"error":"loss-free.rate is 5: it must be from 0.0001 to 0.1"}
//
// A request that is not understood, an unknown axis, a value that is not on its axis and an evaluation that fails are answered
// by an error, and the next line is read. Serve returns nil at the end of r, and an error when reading or writing fails or ctx
// ends; it looks at ctx between lines. An optimiser such as Optuna is driven by its ask and tell, an answer with an error
// being told as a failed trial.
func Serve(ctx context.Context, r io.Reader, w io.Writer, axes []Axis, eval func(context.Context, Trial) (map[string]Value, error)) error {
	in := bufio.NewReader(r)
	for ctx.Err() == nil {
		line, fits, err := readLine(in)
		if err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("reading requests: %w", err)
		}
		if fits && len(bytes.TrimSpace(line)) == 0 {
			if err != nil {
				return nil
			}
			continue
		}
		var a answer
		if !fits {
			a = answer{ID: null, Error: fmt.Sprintf("the line is longer than %d bytes", maxLine)}
		} else {
			a = answered(ctx, line, axes, eval)
		}
		if ctx.Err() != nil {
			break
		}
		if err := a.write(w); err != nil {
			return fmt.Errorf("writing answers: %w", err)
		}
		if err != nil {
			return nil
		}
	}
	return ctx.Err()
}

// readLine reads a line of at most maxLine bytes. Of a longer one it reads all and keeps nothing.
func readLine(in *bufio.Reader) (line []byte, fits bool, err error) {
	fits = true
	for {
		part, err := in.ReadSlice('\n')
		if fits = fits && len(line)+len(part) <= maxLine; fits {
			line = append(line, part...)
		} else {
			line = nil
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			return line, fits, err
		}
	}
}

type answer struct {
	ID     json.RawMessage  `json:"id"`
	Values map[string]Value `json:"values,omitzero"`
	Error  string           `json:"error,omitempty"`
}

var null = json.RawMessage("null")

func (a answer) write(w io.Writer) error {
	var line bytes.Buffer
	e := json.NewEncoder(&line)
	e.SetEscapeHTML(false)
	if err := e.Encode(a); err != nil {
		return err
	}
	_, err := w.Write(line.Bytes())
	return err
}

func answered(ctx context.Context, line []byte, axes []Axis, eval func(context.Context, Trial) (map[string]Value, error)) answer {
	id, trial, err := decodeRequest(line, axes)
	if err != nil {
		return answer{ID: id, Error: err.Error()}
	}
	values, err := eval(ctx, trial)
	switch {
	case err != nil && err.Error() == "":
		return answer{ID: id, Error: "failed without a reason"}
	case err != nil:
		return answer{ID: id, Error: err.Error()}
	case values == nil:
		values = map[string]Value{}
	}
	return answer{ID: id, Values: values}
}

// decodeRequest returns the id, null if there is none to return, also with an error.
func decodeRequest(line []byte, axes []Axis) (id json.RawMessage, t Trial, err error) {
	id = null
	if !utf8.Valid(line) || !json.Valid(line) {
		return id, t, errors.New("the line is no JSON")
	}
	fields, err := members(line)
	for _, f := range fields {
		if f.key == "id" {
			var bad error
			if id, bad = decodeID(f.value); bad != nil {
				return null, t, bad
			}
		}
	}
	if err != nil {
		return id, t, err
	}
	if bytes.Equal(id, null) {
		return id, t, errors.New("the request has no id")
	}
	for _, f := range fields {
		switch f.key {
		case "id":
		case "set":
			t.Point, err = decodePoint(f.value, axes)
		case "seeds":
			t.Seeds, err = decodeCount(f, maxSeeds)
		case "steps":
			t.Steps, err = decodeCount(f, maxSteps)
		default:
			err = fmt.Errorf("the request has an unknown member %q: it has id, set, and perhaps seeds and steps", clip(f.key))
		}
		if err != nil {
			return id, t, err
		}
	}
	if t.Point == nil {
		return id, t, errors.New("the request sets nothing: give every axis a value in set")
	}
	return id, t, nil
}

type member struct {
	key   string
	value json.RawMessage
}

// members splits a valid JSON object. Unlike Unmarshal it refuses a key that is there twice and tells Set from set. The members
// are returned also with an error.
func members(text []byte) (all []member, err error) {
	d := json.NewDecoder(bytes.NewReader(text))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return nil, errors.New("the request and its set are objects: {...}")
	}
	seen := map[string]bool{}
	for d.More() {
		t, err := d.Token()
		if err != nil {
			return all, err
		}
		m := member{key: t.(string)} // of a valid object
		if err := d.Decode(&m.value); err != nil {
			return all, err
		}
		if seen[m.key] {
			return all, fmt.Errorf("%q is given twice", clip(m.key))
		}
		seen[m.key] = true
		all = append(all, m)
	}
	return all, nil
}

func decodeID(raw json.RawMessage) (json.RawMessage, error) {
	if c := raw[0]; c != '"' && c != '-' && (c < '0' || c > '9') || len(raw) > maxID {
		return nil, fmt.Errorf("the id must be a string or a number of at most %d bytes", maxID)
	}
	return raw, nil
}

func decodeCount(f member, most int) (int, error) {
	n, err := strconv.Atoi(string(f.value))
	if err != nil || n < 1 || n > most {
		return 0, fmt.Errorf("%s is %s: it must be a whole number from 1 to %d", f.key, clip(string(f.value)), most)
	}
	return n, nil
}

func decodePoint(raw json.RawMessage, axes []Axis) (Point, error) {
	set, err := members(raw)
	if err != nil {
		return nil, err
	}
	p := make(Point, len(axes))
	given := make([]bool, len(axes))
	for _, m := range set {
		j := 0
		for j < len(axes) && axes[j].Name != m.key {
			j++
		}
		if j == len(axes) {
			return nil, fmt.Errorf("%s does not vary here: the axes are %s", clip(m.key), names(axes))
		}
		var word string
		switch c := m.value[0]; {
		case c == '"':
			_ = json.Unmarshal(m.value, &word) // valid
		case c == '{' || c == '[' || c == 'n':
			return nil, fmt.Errorf("%s is %s: it must be a number or a string", m.key, clip(string(m.value)))
		default:
			word = string(m.value)
		}
		if p[j], err = axes[j].Check(word); err != nil {
			return nil, err
		}
		given[j] = true
	}
	for j, ok := range given {
		if !ok {
			return nil, fmt.Errorf("%s has no value: set gives one to each of %s", axes[j].Name, names(axes))
		}
	}
	return p, nil
}

func names(axes []Axis) string {
	all := make([]string, len(axes))
	for j, a := range axes {
		all[j] = a.Name
	}
	return strings.Join(all, ", ")
}
