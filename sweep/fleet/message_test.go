package fleet

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"unicode"

	"evenkeel/sweep"
)

func TestMessagesAreReadStrictly(t *testing.T) {
	t.Parallel()
	const hash = "0123456789abcdef"
	for text, want := range map[string]string{
		`{"plan":"` + hash + `","unit":3,"format":1,"program":"v1"}`:                                   "",
		`{"plan":"` + hash + `","unit":3,"format":1,"program":"v1","command":"rm"}`:                    "unknown field",
		`{"plan":"` + hash + `","unit":3,"format":1,"program":"v1"}{}`:                                 "behind it",
		`{"plan":"` + hash + `","unit":-1,"format":1,"program":"v1"}`:                                  "no unit",
		`{"plan":"evenkeel.>","unit":3,"format":1,"program":"v1"}`:                                     "no plan",
		`{"plan":"` + hash + `","unit":3.5,"format":1,"program":"v1"}`:                                 "cannot be read",
		`{"plan":"` + hash + `","unit":3,"format":1,"program":"` + strings.Repeat("v", maxTask) + `"}`: "bytes",
		``: "cannot be read",
	} {
		if _, err := decodeTask([]byte(text)); (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%.80s: %v, want %q", text, err, want)
		}
	}
}

// What decoders take can be encoded and taken again, and what they return is bounded and may be shown.
func FuzzMessages(f *testing.F) {
	const hash = "0123456789abcdef"
	f.Add(encode(task{hash, 3, sweep.Format, program}))
	f.Add(append(encode(header{Plan: hash, Unit: 3, Format: sweep.Format, Program: program, Worker: "w"}), '\n', 'x'))
	f.Add(encode(note{hash, -1, "w\x1b[2J", "r"}))
	f.Add(encode(card{hash, sweep.Format, program, "00", 1, 1, 1000, 1000, 5}))
	f.Add(encode(report{Sweep: &SweepReport{Plan: hash}, Worker: &WorkerReport{Plans: []string{hash}}}))
	f.Add([]byte(`{"plan":null,"unit":1e99}`))
	shown := func(t *testing.T, texts ...string) {
		for _, s := range texts {
			if strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) || len(s) > 4*600 {
				t.Errorf("%q cannot be shown", s)
			}
		}
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		if v, err := decodeTask(text); err == nil {
			if again, err := decodeTask(encode(v)); err == nil && again != v {
				t.Errorf("%+v became %+v", v, again)
			}
			if !isHash(v.Plan) || v.Unit < 0 {
				t.Errorf("%+v", v)
			}
		}
		if h, lines, err := decodeResult(text); err == nil {
			shown(t, h.Worker, h.Program)
			if !isHash(h.Plan) || h.Unit < 0 || len(lines) >= len(text) {
				t.Errorf("%+v with %d bytes", h, len(lines))
			}
		}
		if n, err := decodeNote(text); err == nil {
			shown(t, n.Worker, n.Reason)
		}
		if c, err := decodeCard(string(text)); err == nil {
			shown(t, c.Program)
			if again, err := decodeCard(string(encode(c))); err == nil && again != c {
				t.Errorf("%+v became %+v", c, again)
			}
		}
		if r, err := decodeReport(text); err == nil {
			if r.Sweep != nil {
				shown(t, r.Sweep.Plan, r.Sweep.Host, r.Sweep.Program, r.Sweep.Scenario)
			}
			if r.Worker != nil {
				shown(t, append(r.Worker.Plans, r.Worker.Name, r.Worker.Program)...)
			}
		}
	})
}

// Lines that are taken are those that the sender would have written.
func FuzzRecords(f *testing.F) {
	p := plan(f, 2, 1)
	cells := p.Of(p.Units()[0])
	wire, err := sweep.NewWire(p)
	if err != nil {
		f.Fatal(err)
	}
	records, _ := stub(context.Background(), cells)
	lines, err := wire.EncodeRecords(cells, records)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(lines)
	f.Add(lines[:len(lines)-1])
	f.Add(append(bytes.Clone(lines), '\n'))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, text []byte) {
		records, err := wire.DecodeRecords(cells, text)
		if err != nil {
			return
		}
		if again, err := wire.EncodeRecords(cells, records); err != nil || !bytes.Equal(again, text) {
			t.Errorf("%q was taken and is written as %q: %v", text, again, err)
		}
	})
}
