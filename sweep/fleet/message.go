package fleet

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode"

	"evenkeel/sweep"
)

// card says on a sweep's stream what a worker must agree with, and how its units are run.
type card struct {
	Plan        string `json:"plan"`
	Format      int    `json:"format"`
	Program     string `json:"program"`
	Fingerprint string `json:"fingerprint"` // of the names of cells; see sweep.Wire
	Units       int    `json:"units"`
	Cells       int    `json:"cells"`
	AckWait     int64  `json:"ack_wait_ms"`
	UnitTimeout int64  `json:"unit_timeout_ms"`
	MaxDeliver  int    `json:"max_deliver"`
}

// task is the order to run one unit: a reference, since the plan is where its hash says.
type task struct {
	Plan    string `json:"plan"`
	Unit    int    `json:"unit"`
	Format  int    `json:"format"`
	Program string `json:"program"`
}

// header is the first line of a result. The lines of the unit's records follow, or lie in an object.
type header struct {
	Plan    string `json:"plan"`
	Unit    int    `json:"unit"`
	Format  int    `json:"format"`
	Program string `json:"program"`
	Worker  string `json:"worker"`
	Attempt uint64 `json:"attempt"` // how often the task had been given out
	Object  string `json:"object,omitempty"`
}

// note is a remark of a worker to the coordinator: that it refuses a sweep, or that a unit went wrong.
type note struct {
	Plan   string `json:"plan"`
	Unit   int    `json:"unit"` // -1: the sweep as such
	Worker string `json:"worker"`
	Reason string `json:"reason"`
}

// Letter is a unit that was given up after as many attempts as it may have.
type Letter struct {
	Plan   string `json:"plan"`
	Unit   int    `json:"unit"`
	Cells  []int  `json:"cells"` // their numbers in the plan
	Reason string `json:"reason"`
}

// decode reads a message strictly: of at most so many bytes, without unknown words, and with nothing behind it.
func decode[T any](text []byte, most int) (v T, err error) {
	if len(text) > most {
		return v, fmt.Errorf("the message has %d bytes: at most %d are allowed", len(text), most)
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&v); err != nil {
		return v, fmt.Errorf("the message cannot be read: %s", strings.TrimPrefix(err.Error(), "json: "))
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return v, errors.New("the message has something behind it")
	}
	return v, nil
}

func encode(v any) []byte {
	text, _ := json.Marshal(v) // plain values only
	return text
}

func decodeCard(text string) (c card, err error) {
	if c, err = decode[card]([]byte(text), maxCard); err != nil {
		return c, err
	}
	within := func(ms int64, most time.Duration) bool {
		return ms >= leastTime.Milliseconds() && ms <= most.Milliseconds()
	}
	if !isHash(c.Plan) || c.Units < 1 || c.Cells < c.Units || !within(c.AckWait, mostAckWait) || !within(c.UnitTimeout, mostUnitTimeout) || c.MaxDeliver < 1 {
		return c, errors.New("the card of the sweep has values out of range")
	}
	c.Program = printable(c.Program)
	return c, nil
}

func decodeTask(text []byte) (task, error) {
	t, err := decode[task](text, maxTask)
	if err == nil && (!isHash(t.Plan) || t.Unit < 0) {
		err = errors.New("the task names no plan or no unit")
	}
	return t, err
}

// decodeResult returns the header of a result and the lines behind it.
func decodeResult(text []byte) (h header, lines []byte, err error) {
	if len(text) > maxHeader+maxResult {
		return h, nil, fmt.Errorf("the result has %d bytes: at most %d are allowed", len(text), maxHeader+maxResult)
	}
	first, lines, ok := bytes.Cut(text, []byte{'\n'})
	if !ok {
		return h, nil, errors.New("the result has no header")
	}
	if h, err = decode[header](first, maxHeader); err != nil {
		return h, nil, err
	}
	h.Worker, h.Program = printable(h.Worker), printable(h.Program)
	switch {
	case !isHash(h.Plan) || h.Unit < 0:
		return h, nil, errors.New("the result names no plan or no unit")
	case h.Format != sweep.Format:
		return h, nil, fmt.Errorf("the result has format %d, and this program reads %d", h.Format, sweep.Format)
	case h.Object != "" && len(lines) > 0:
		return h, nil, errors.New("the result is in an object and also in the message")
	}
	return h, lines, nil
}

func decodeNote(text []byte) (n note, err error) {
	if n, err = decode[note](text, maxNote); err == nil && (!isHash(n.Plan) || n.Unit < -1) {
		err = errors.New("the remark names no plan or no unit")
	}
	n.Worker, n.Reason = printable(n.Worker), printable(n.Reason)
	return n, err
}

// isHash reports whether a text may be that of sweep.Plan.Hash, and so part of a subject.
func isHash(s string) bool {
	return len(s) == 16 && strings.Trim(s, "0123456789abcdef") == ""
}

// printable is a text of somebody else as a terminal may show it.
func printable(s string) string {
	s = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
	if r := []rune(s); len(r) > 500 {
		s = string(r[:500]) + "..."
	}
	return s
}
