package design

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"math"
	"strings"
	"testing"
)

var served = []string{"loss-free.rate=log:1e-4..1e-1", "tokens=1024,4096", "mode=frozen,learned"}

func serve(t testing.TB, input string, eval func(context.Context, Trial) (map[string]Value, error)) string {
	t.Helper()
	var out bytes.Buffer
	if err := Serve(context.Background(), strings.NewReader(input), &out, parse(t, served...), eval); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// echo answers with the trial as it was understood.
func echo(_ context.Context, trial Trial) (map[string]Value, error) {
	return map[string]Value{strings.Join(trial.Point, " "): {float64(trial.Steps), float64(trial.Seeds)}}, nil
}

const good = `"set":{"loss-free.rate":1e-3,"tokens":4096,"mode":"learned"}`

func TestServeAnswers(t *testing.T) {
	const value = `"values":{"0.001 4096 learned":{"mean":0,"half_width":0}}}`
	for request, want := range map[string]string{
		`{"id":7,` + good + `}`:                                                    `{"id":7,` + value,
		` { "id" : "a<b" , ` + good + ` } `:                                        `{"id":"a<b",` + value,
		`{` + good + `,"id":-1.5e3}`:                                               `{"id":-1.5e3,` + value,
		`{"id":7,"seeds":3,"steps":500,` + good + `}`:                              `{"id":7,"values":{"0.001 4096 learned":{"mean":500,"half_width":3}}}`,
		`{"id":1,"set":{"mode":"frozen","tokens":"1024","loss-free.rate":"0.10"}}`: `{"id":1,"values":{"0.1 1024 frozen":{"mean":0,"half_width":0}}}`,
		`{`:                                 `{"id":null,"error":"the line is no JSON"}`,
		`[1]`:                               `{"id":null,"error":"the request and its set are objects: {...}"}`,
		`{"id":7} {"id":8}`:                 `{"id":null,"error":"the line is no JSON"}`,
		"{\"id\":\"\xff\"}":                 `{"id":null,"error":"the line is no JSON"}`,
		`{` + good + `}`:                    `{"id":null,"error":"the request has no id"}`,
		`{"id":null,` + good + `}`:          `{"id":null,"error":"the id must be a string or a number of at most 256 bytes"}`,
		`{"id":[7],` + good + `}`:           `{"id":null,"error":"the id must be a string or a number of at most 256 bytes"}`,
		`{"id":7,"id":7,` + good + `}`:      `{"id":7,"error":"\"id\" is given twice"}`,
		`{"id":7}`:                          `{"id":7,"error":"the request sets nothing: give every axis a value in set"}`,
		`{"id":7,"Set":{}}`:                 `{"id":7,"error":"the request has an unknown member \"Set\": it has id, set, and perhaps seeds and steps"}`,
		`{"id":7,"set":[1]}`:                `{"id":7,"error":"the request and its set are objects: {...}"}`,
		`{"id":7,"seeds":0,` + good + `}`:   `{"id":7,"error":"seeds is 0: it must be a whole number from 1 to 100000"}`,
		`{"id":7,"steps":1.5,` + good + `}`: `{"id":7,"error":"steps is 1.5: it must be a whole number from 1 to 100000000"}`,
		`{"id":7,"steps":"5",` + good + `}`: `{"id":7,"error":"steps is \"5\": it must be a whole number from 1 to 100000000"}`,
		`{"id":7,"set":{"tokens":4096}}`:    `{"id":7,"error":"loss-free.rate has no value: set gives one to each of loss-free.rate, tokens, mode"}`,
		`{"id":7,"set":{"tokens":4096,"tokens":1024}}`: `{"id":7,"error":"\"tokens\" is given twice"}`,
		`{"id":7,"set":{"experts":8}}`:                 `{"id":7,"error":"experts does not vary here: the axes are loss-free.rate, tokens, mode"}`,
		`{"id":7,"set":{"loss-free.rate":5}}`:          `{"id":7,"error":"loss-free.rate is 5: it must be from 0.0001 to 0.1"}`,
		`{"id":7,"set":{"loss-free.rate":null}}`:       `{"id":7,"error":"loss-free.rate is null: it must be a number or a string"}`,
		`{"id":7,"set":{"loss-free.rate":{"a":1}}}`:    `{"id":7,"error":"loss-free.rate is {\"a\":1}: it must be a number or a string"}`,
		`{"id":7,"set":{"loss-free.rate":"nan"}}`:      `{"id":7,"error":"loss-free.rate has the value \"nan\": numbers are finite"}`,
		`{"id":7,"set":{"tokens":2048}}`:               `{"id":7,"error":"tokens has no value \"2048\": it is 1024,4096"}`,
		`{"id":7,"set":{"mode":true}}`:                 `{"id":7,"error":"mode has no value \"true\": it is frozen,learned"}`,
	} {
		if got := serve(t, request+"\n", echo); got != want+"\n" {
			t.Errorf("%s\n got %s want %s", request, got, want)
		}
	}
}

// Blank lines are passed over, the last line may lack its end, and a long line costs its own answer only.
func TestServeReadsLines(t *testing.T) {
	input := "\n \r\n" + `{"id":1,` + good + "}\r\n" + `{"id":"` + strings.Repeat("x", maxLine) + "\"}\n" + `{"id":2,` + good + `}`
	lines := strings.Split(serve(t, input, echo), "\n")
	if len(lines) != 4 || !strings.HasPrefix(lines[0], `{"id":1,"values"`) || !strings.HasPrefix(lines[2], `{"id":2,"values"`) ||
		lines[1] != `{"id":null,"error":"the line is longer than 1048576 bytes"}` {
		t.Errorf("%q", lines)
	}
	exact := `{"id":1,` + good + `}`
	exact += strings.Repeat(" ", maxLine-1-len(exact)) + "\n"
	if got := serve(t, exact, echo); !strings.HasPrefix(got, `{"id":1,"values"`) {
		t.Errorf("a line of the greatest length: %s", got)
	}
	if got := serve(t, " "+exact, echo); !strings.Contains(got, "is longer than") {
		t.Errorf("a line one longer: %s", got)
	}
	if got := serve(t, "", echo); got != "" {
		t.Errorf("nothing is answered by %q", got)
	}
}

func TestServeEvaluations(t *testing.T) {
	request := `{"id":1,` + good + "}\n"
	for want, result := range map[string]struct {
		values map[string]Value
		err    error
	}{
		`{"id":1,"values":{}}`: {},
		`{"id":1,"values":{"a":{"mean":0.5,"half_width":null},"b":{"mean":null,"half_width":1e-7}}}`: {
			map[string]Value{"b": {math.NaN(), 1e-7}, "a": {0.5, math.Inf(1)}}, nil},
		`{"id":1,"error":"loss of <1> \"bad\"\nline"}`: {nil, errors.New("loss of <1> \"bad\"\nline")},
		`{"id":1,"error":"failed without a reason"}`:   {nil, errors.New("")},
	} {
		got := serve(t, request, func(context.Context, Trial) (map[string]Value, error) { return result.values, result.err })
		if got != want+"\n" {
			t.Errorf("got %s want %s", got, want)
		}
	}
}

type broken struct{}

func (broken) Read([]byte) (int, error)  { return 0, errors.New("torn") }
func (broken) Write([]byte) (int, error) { return 0, errors.New("torn") }

func TestServeStops(t *testing.T) {
	axes := parse(t, served...)
	request := `{"id":1,` + good + "}\n"
	if err := Serve(context.Background(), broken{}, io.Discard, axes, echo); err == nil || !strings.Contains(err.Error(), "reading requests: torn") {
		t.Error(err)
	}
	if err := Serve(context.Background(), strings.NewReader(request), broken{}, axes, echo); err == nil || !strings.Contains(err.Error(), "writing answers: torn") {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var out bytes.Buffer
	err := Serve(ctx, strings.NewReader(request+request), &out, axes, func(ctx context.Context, _ Trial) (map[string]Value, error) {
		cancel()
		return nil, ctx.Err()
	})
	if !errors.Is(err, context.Canceled) || out.Len() > 0 {
		t.Errorf("cancelled: %v, answers %q", err, out.String())
	}
}

// Whatever comes in, each line that is not blank has one answer, which is JSON with an id and either values or an error, and only
// points of the axes are evaluated.
func FuzzServe(f *testing.F) {
	f.Add([]byte(`{"id":7,` + good + "}\n"))
	f.Add([]byte(`{"id":"x","seeds":3,"steps":500,` + good + "}\n\n{\n"))
	f.Add([]byte(`{"id":7,"set":{"tokens":4096,"tokens":1}}` + "\n" + `{"id":{}}`))
	axes := parse(f, served...)
	f.Fuzz(func(t *testing.T, input []byte) {
		var out bytes.Buffer
		err := Serve(context.Background(), bytes.NewReader(input), &out, axes, func(_ context.Context, trial Trial) (map[string]Value, error) {
			for j, a := range axes {
				if word, err := a.Check(trial.Point[j]); err != nil || word != trial.Point[j] {
					t.Errorf("%s is evaluated at %q: %v", a.Name, trial.Point[j], err)
				}
			}
			return echo(context.Background(), trial)
		})
		if err != nil {
			t.Fatal(err)
		}
		requests := 0
		for _, line := range bytes.Split(input, []byte("\n")) {
			if len(bytes.TrimSpace(line)) > 0 {
				requests++
			}
		}
		answers := bytes.Split(bytes.TrimSuffix(out.Bytes(), []byte("\n")), []byte("\n"))
		if out.Len() == 0 {
			answers = nil
		}
		if len(answers) != requests {
			t.Errorf("%d requests have %d answers", requests, len(answers))
		}
		for _, line := range answers {
			var a map[string]json.RawMessage
			if err := json.Unmarshal(line, &a); err != nil || a["id"] == nil || len(a) != 2 || (a["values"] == nil) == (a["error"] == nil) {
				t.Errorf("the answer %s: %v", line, err)
			}
		}
	})
}
