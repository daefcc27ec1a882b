package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"

	"evenkeel/bench"
	"evenkeel/internal/npz"
	"evenkeel/internal/vec"
	"evenkeel/scenarios"
	"evenkeel/sim"
)

// benchRequest is what the flags of bench ask for.
type benchRequest struct {
	shape      string
	settings   []string
	strategies []string
	kernel     string
	seconds    float64
	json       bool
	serve      bool
	inputs     string
}

// benchReport is what bench found.
type benchReport struct {
	Version  string        `json:"version"`
	Go       string        `json:"go"`
	Platform string        `json:"platform"`
	Limits   bench.Limits  `json:"limits"`
	Shapes   []shapeReport `json:"shapes"`
}

type shapeReport struct {
	Name       string         `json:"name"`
	Tokens     int            `json:"tokens"`
	Experts    int            `json:"experts"`
	TopK       int            `json:"topk"`
	Width      int            `json:"width"`
	Groups     int            `json:"groups"`
	GroupsKept int            `json:"groups_kept"`
	Score      string         `json:"score"`
	Kernels    []bench.Timing `json:"kernels"`
	Steps      []bench.Timing `json:"steps"`
}

func benchCommand(stdout io.Writer) *cobra.Command {
	var q benchRequest
	c := &cobra.Command{
		Use:   "bench",
		Short: "Measure this machine: every kernel and the whole step, in nanoseconds per token",
		Long: `Bench measures on one core what the kernels reach: each alone on a tile in cache, products with
their share of the measured multiply-add peak, then the whole step of routing and measuring a
batch, with the gradient of a loss, and a step of evenkeel compare for the strategies named.
The shapes are A (64 experts, 6 chosen), B (256, 8, from 4 of 8 groups), C (8, 2), D (512, 8).`,
		Example: `  evenkeel bench --shape A
  evenkeel bench --shape B -s none -s deepseek-v3 --kernel avx2
  evenkeel bench --set experts=896 --set topk=16 --set width=128 --json`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error { return q.run(cmd.Context(), stdout) },
	}
	f := c.Flags()
	f.SortFlags = false
	f.StringVar(&q.shape, "shape", "all", "A, B, C, D or all")
	f.StringArrayVar(&q.settings, "set", nil, "experts, topk, width, tokens, groups, groups_kept or score, in place of the shape's; may be repeated")
	f.StringArrayVarP(&q.strategies, "strategy", "s", nil, "time a step of compare for this strategy; may be repeated")
	f.StringVar(&q.kernel, "kernel", "auto", "arithmetic: auto, avx512, avx2 or portable")
	f.Float64Var(&q.seconds, "seconds", 0.2, "time for each measurement")
	f.BoolVar(&q.json, "json", false, "print as JSON")
	f.BoolVar(&q.serve, "serve", false, "answer the requests of bench/compare.py on standard input")
	f.StringVar(&q.inputs, "inputs", "", "npz with hidden, router and bias for --serve")
	_ = f.MarkHidden("serve") // both flags exist
	_ = f.MarkHidden("inputs")
	return c
}

// shapes resolves the shapes that are asked for.
func (q *benchRequest) shapes() ([]bench.Shape, error) {
	var list []bench.Shape
	for _, s := range bench.Shapes() {
		if q.shape == "all" && len(q.settings) == 0 || strings.EqualFold(q.shape, s.Name) || q.shape == "all" && s.Name == "A" {
			list = append(list, s)
		}
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("--shape is %q: it must be A, B, C, D or all", q.shape)
	}
	if len(q.settings) == 0 {
		return list, nil
	}
	s := list[0]
	known := map[string]bool{"experts": true, "topk": true, "width": true, "tokens": true, "groups": true, "groups_kept": true, "score": true}
	base := []string{fmt.Sprintf("experts=%d", s.Experts), fmt.Sprintf("topk=%d", s.TopK), fmt.Sprintf("width=%d", s.Width),
		fmt.Sprintf("tokens=%d", s.Tokens), fmt.Sprintf("groups=%d", s.Groups), fmt.Sprintf("groups_kept=%d", s.GroupsKept), "score=" + s.Score.String()}
	for _, set := range q.settings {
		if key, _, _ := strings.Cut(set, "="); !known[key] {
			return nil, fmt.Errorf("--set %s: bench knows experts, topk, width, tokens, groups, groups_kept and score", set)
		}
	}
	c, err := scenarios.Load("pretraining", append(base, q.settings...), -1)
	if err != nil {
		return nil, err
	}
	return []bench.Shape{{Name: "own", Tokens: c.Tokens, Layer: c.Layer()}}, nil
}

func (q *benchRequest) run(ctx context.Context, stdout io.Writer) error {
	if err := vec.Use(q.kernel); err != nil {
		return err
	}
	if !(q.seconds > 0 && q.seconds <= 60) {
		return fmt.Errorf("--seconds is %g: it must be above 0 and at most 60", q.seconds)
	}
	shapes, err := q.shapes()
	if err != nil {
		return err
	}
	if q.serve {
		return q.answer(shapes[0], stdout)
	}
	d := time.Duration(q.seconds * float64(time.Second))
	r := benchReport{Version: version(), Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH, Limits: bench.MeasureLimits(d)}
	for _, s := range shapes {
		if ctx.Err() != nil {
			return failure{exitInterrupted, errInterrupted}
		}
		x := shapeReport{s.Name, s.Tokens, s.Experts, s.TopK, s.Width, s.Groups, s.GroupsKept, s.Score.String(), nil, nil}
		step, err := bench.NewStep(s, s.Draw(1))
		if err != nil {
			return err
		}
		x.Kernels = bench.Kernels(step, d)
		x.Steps = []bench.Timing{bench.Measure("route and measure", s.Tokens, d, step.Route),
			bench.Measure("route, with the gradient of a loss", s.Tokens, d, step.Train),
			bench.Measure("draw, route and measure", s.Tokens, d, step.Generate)}
		if len(q.strategies) > 0 {
			t, err := q.compareStep(ctx, s)
			if err != nil {
				return err
			}
			x.Steps = append(x.Steps, t)
		}
		r.Shapes = append(r.Shapes, x)
	}
	if q.json {
		return encode(stdout, r)
	}
	return r.print(stdout)
}

// compareStep times the steps of a comparison of the strategies on one core.
func (q *benchRequest) compareStep(ctx context.Context, s bench.Shape) (bench.Timing, error) {
	sc, err := scenarios.Load("pretraining", []string{fmt.Sprintf("experts=%d", s.Experts), fmt.Sprintf("topk=%d", s.TopK),
		fmt.Sprintf("width=%d", s.Width), fmt.Sprintf("tokens=%d", s.Tokens), fmt.Sprintf("groups=%d", s.Groups),
		fmt.Sprintf("groups_kept=%d", s.GroupsKept), "score=" + s.Score.String(), "steps=8", "seeds=[1]", "evaluation_tokens=64"}, -1)
	if err != nil {
		return bench.Timing{}, err
	}
	specs, err := parseAll(q.strategies)
	if err != nil {
		return bench.Timing{}, err
	}
	p, err := newPlan(sc, specs)
	if err != nil {
		return bench.Timing{}, err
	}
	c, err := p.Config(1)
	if err != nil {
		return bench.Timing{}, err
	}
	var first, last time.Time
	c.Progress = func(done, _ int) {
		if last = time.Now(); done == 1 {
			first = last
		}
	}
	if _, err := sim.Compare(ctx, c); err != nil {
		return bench.Timing{}, err
	}
	ns := float64(last.Sub(first).Nanoseconds()) / float64(7*s.Tokens)
	return bench.Timing{Name: "compare: " + strings.Join(q.strategies, ", "), NsToken: ns, Best: ns}, nil
}

func (r *benchReport) print(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "One core, kernel %s, %s, %s: %.0f GFLOP/s of multiply-adds on registers, %.1f GB/s of copying.\n",
		r.Limits.Kernel, r.Platform, r.Go, r.Limits.GFlops, r.Limits.Bandwidth)
	for _, s := range r.Shapes {
		groups := ""
		if s.GroupsKept < s.Groups {
			groups = fmt.Sprintf(", %d of %d groups", s.GroupsKept, s.Groups)
		}
		fmt.Fprintf(&b, "\nShape %s: E = %d, K = %d%s, d = %d, T = %d, %s.\n\n", s.Name, s.Experts, s.TopK, groups, s.Width, s.Tokens, s.Score)
		t := newTable()
		t.AppendHeader(table.Row{"", "ns/token", "best", "GFLOP/s", "of peak"})
		t.SetColumnConfigs([]table.ColumnConfig{right(2), right(3), right(4), right(5)})
		for i, list := range [][]bench.Timing{s.Kernels, s.Steps} {
			if i > 0 {
				t.AppendSeparator()
			}
			for _, x := range list {
				row := table.Row{x.Name, fmt.Sprintf("%.1f", x.NsToken), fmt.Sprintf("%.1f", x.Best), "", ""}
				if x.GFlops > 0 {
					row[3], row[4] = fmt.Sprintf("%.0f", x.GFlops), fmt.Sprintf("%.0f %%", 100*x.PeakPart)
				}
				t.AppendRow(row)
			}
		}
		fmt.Fprintln(&b, rendered(t))
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// answer is the server's side of bench/compare.py: each line "operation rounds" gets one line of JSON.
func (q *benchRequest) answer(shape bench.Shape, stdout io.Writer) error {
	in, err := readInputs(q.inputs)
	if err != nil {
		return err
	}
	step, err := bench.NewStep(shape, in)
	if err != nil {
		return err
	}
	debug.FreeOSMemory() // what reading needed is no part of a step's memory
	fmt.Fprintln(stdout, "ready")
	runs := map[string]func(){"route": step.Route, "train": step.Train, "genroute": step.Generate}
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		var op string
		var n int
		if _, err := fmt.Sscan(lines.Text(), &op, &n); err != nil {
			return err
		}
		if op == "result" {
			step.Route()
			chosen, gates := step.Chosen, step.Gates
			hit, mass := step.Hit, step.Mass
			step.Train()
			var grad []float32
			for e := range shape.Experts {
				grad = append(grad, step.Gradient(e)...)
			}
			if err := json.NewEncoder(stdout).Encode(map[string]any{"chosen": chosen, "gates": gates, "load": step.Load, "hit": hit, "mass": mass, "gradient": grad}); err != nil {
				return err
			}
			continue
		}
		run, ok := runs[op]
		if !ok {
			return fmt.Errorf("no operation %q", op)
		}
		run()
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		at := time.Now()
		for range n {
			run()
		}
		wall := time.Since(at)
		runtime.ReadMemStats(&after)
		fmt.Fprintf(stdout, "{\"wall\": %g, \"allocs\": %g}\n", float64(wall.Nanoseconds())/float64(n*shape.Tokens), float64(after.Mallocs-before.Mallocs)/float64(n))
	}
	return nil
}

func readInputs(name string) (in bench.Inputs, err error) {
	f, err := npz.Open(name)
	if err != nil {
		return in, err
	}
	defer f.Close()
	for _, a := range []struct {
		name string
		to   *[]float32
	}{{"hidden", &in.Hidden}, {"router", &in.Router}, {"bias", &in.Bias}} {
		h, ok := f.Header(a.name)
		if !ok {
			return in, fmt.Errorf("%s has no array %s", name, a.name)
		}
		if *a.to, err = f.Float32s(a.name, 0, h.Len()); err != nil {
			return in, err
		}
	}
	return in, nil
}
