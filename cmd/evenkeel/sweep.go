package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"evenkeel/internal/vec"
	"evenkeel/sweep"
	"evenkeel/sweep/design"
)

// sweepRequest is what the flags of sweep ask for.
type sweepRequest struct {
	request
	vary       []string
	design     string
	designSeed uint64
	objectives []string
	steps      int // recorded
	loads      bool
	extend     bool
	dryRun     bool
	planOnly   bool
	csv        bool
}

func sweepCommand(stdin io.Reader, stdout, stderr io.Writer) *cobra.Command {
	var q sweepRequest
	c := &cobra.Command{
		Use:   "sweep [FILE.yaml]",
		Short: "Vary parameters of scenario and strategies, over seeds, and keep every result",
		Long: `Sweep runs every combination of the values that --vary names, or those of another design, each
under every seed, and writes Parquet tables and pictures to the folder of --out. What is
finished is kept: a sweep that was stopped in any way goes on by the same command.

What varies is a key of the scenario, tokens=1024,4096, or a knob of a strategy,
loss-free.rate=log:1e-4..1e-1:13. Values are words, lin:0..1:5, log:1e-4..1e-1:13,
int:8..64:8, int-log:1..100:5 or pow2:1024..65536; without the last number a range, for sampled
designs and searches.

Designs: grid, zip, random:N, lhs:N, halton:N; searches by --objective: halving:N (successive
halving of N points over steps and seeds), cma-es:N (N trials, one objective), nsga2:PxG
(G generations of P, a Pareto front of two or more objectives); ask (points come as JSON lines
on standard input, answers go to standard output, so that any optimiser can drive it).

A file has the same words as the flags: strategy, vary, seeds, set, design and so on; flags win.
Exit codes: 0 fine, 1 the run failed, 2 the request was wrong, 130 interrupted.`,
		Example: `  evenkeel sweep --vary loss-free.rate=log:1e-4..1e-1:13 --vary tokens=1024,4096,16384 --seeds 8 --out rates
  evenkeel sweep -s none -s loss-free -s smebu --vary experts=64,128,256 --dry-run
  evenkeel sweep --vary aux-loss.coeff=log:1e-4..1 --design nsga2:20x10 --objective maxvio_global --objective affinity_kept --out front
  evenkeel table rates --row strategy,loss-free.rate --col tokens --metric maxvio_global`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 1 {
				return fmt.Errorf("sweep reads one file of flags, and %d are named: put all into one", len(args))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				if err := readFlags(args[0], cmd.Flags()); err != nil {
					return err
				}
			}
			q.router = strings.ToLower(q.router)
			return q.run(cmd.Context(), cmd.Flags(), stdin, stdout, stderr)
		},
	}
	f := c.Flags()
	f.SortFlags = false
	f.StringArrayVarP(&q.strategies, "strategy", "s", nil, "a strategy, name:knob=value,...; may be repeated")
	f.StringArrayVar(&q.vary, "vary", nil, "what varies and its values, such as tokens=1024,4096; may be repeated")
	f.StringVar(&q.design, "design", "grid", "which combinations: grid, zip, random:N, lhs:N, halton:N, halving:N, cma-es:N, nsga2:PxG, ask")
	f.Uint64Var(&q.designSeed, "design-seed", 1, "seed of a sampled design or a search")
	f.StringArrayVar(&q.objectives, "objective", nil, "metric that a search makes better, or min:METRIC or max:METRIC; may be repeated")
	q.streamFlags(f)
	f.Lookup("out").Usage = "folder of the sweep"
	f.Lookup("workers").Usage = "cells that run at once (default: one for each processor)"
	f.Lookup("json").Usage = "print the manifest as JSON and nothing else"
	f.IntVar(&q.steps, "record-steps", 0, "keep the figures of so many steps of every cell, evenly spaced, in steps.parquet")
	f.BoolVar(&q.loads, "record-loads", false, "keep the experts' loads at those steps, in loads.parquet")
	f.BoolVar(&q.csv, "csv", false, "write the tables as CSV also")
	f.BoolVar(&q.extend, "extend", false, "give the folder of another sweep this plan; cells that both have are not run again")
	f.BoolVar(&q.dryRun, "dry-run", false, "print the cells, the time and the disk that they need, and run nothing")
	f.BoolVar(&q.planOnly, "plan-only", false, "write plan.json and run nothing, for another engine; see evenkeel run")
	f.SetOutput(stderr)
	complete(c)
	return c
}

// base is what the flags say beside the values to try, and the axes.
func (q *sweepRequest) base(flags *pflag.FlagSet) (b sweep.Base, axes []design.Axis, err error) {
	if b.Strategies, err = parseAll(q.strategies); err != nil {
		return b, nil, err
	}
	if axes, err = design.ParseAxes(q.vary); err != nil {
		return b, nil, err
	}
	if b.Settings, err = q.keys(flags); err != nil {
		return b, nil, err
	}
	if b.Seeds, err = q.seedList(flags); err != nil {
		return b, nil, err
	}
	if q.loads && q.steps == 0 {
		return b, nil, errors.New("--record-loads keeps the loads at the steps that --record-steps keeps: give it too, such as --record-steps 20")
	}
	b.Scenario, b.Layer, b.Steps, b.Loads = q.scenario, q.layer, q.steps, q.loads
	return b, axes, nil
}

func names(axes []design.Axis) (list []string) {
	for _, a := range axes {
		list = append(list, a.Name)
	}
	return list
}

func (q *sweepRequest) run(ctx context.Context, flags *pflag.FlagSet, stdin io.Reader, stdout, stderr io.Writer) error {
	if err := vec.Use(q.kernel); err != nil {
		return err
	}
	if q.workers < 0 {
		return fmt.Errorf("--workers is %d: it must be at least 1", q.workers)
	}
	if q.out == "" && !q.dryRun {
		return errors.New("--out is missing: name the folder of the sweep, or look at it first by --dry-run")
	}
	b, axes, err := q.base(flags)
	if err != nil {
		return err
	}
	for _, note := range q.replaced(axes, b.Settings) {
		if !q.quiet {
			fmt.Fprintln(stderr, "evenkeel: note: "+note)
		}
	}
	if kind, _, _ := strings.Cut(q.design, ":"); slices.Contains([]string{"halving", "cma-es", "nsga2", "ask"}, kind) {
		return q.adapt(ctx, b, axes, stdin, stdout, stderr)
	}
	if len(q.objectives) > 0 {
		return fmt.Errorf("--objective is for searches, --design halving, cma-es or nsga2, and the design is %s", q.design)
	}
	d, err := design.ParseDesign(q.design, q.designSeed)
	if err != nil {
		return fmt.Errorf("--design: %w", err)
	}
	points := slices.Values([]design.Point{{}})
	if len(axes) > 0 {
		if points, err = d.Sample(axes); err != nil {
			return err
		}
	}
	p, err := sweep.New(b, names(axes), q.words(d.String(), axes), func(yield func(sweep.Point) bool) {
		for point := range points {
			if !yield(sweep.Point{Values: point}) {
				return
			}
		}
	})
	if err != nil {
		return err
	}
	if q.dryRun {
		return q.describe(ctx, p, stdout)
	}
	if err := checkBytes(p.Memory(q.workers)); err != nil && !q.planOnly {
		return err
	}
	change := sweep.Keep
	if q.extend {
		change = sweep.Extend
		if note := q.anew(d); note != "" && !q.quiet {
			fmt.Fprintln(stderr, "evenkeel: note: "+note)
		}
	}
	folder, err := sweep.Hold(q.out, p, change, false)
	if err != nil {
		return err
	}
	defer folder.Release()
	if q.planOnly {
		_, err := fmt.Fprintf(stdout, "%s: %d cells\n", filepath.Join(q.out, sweep.PlanFile), p.Cells())
		return err
	}
	begin := time.Now()
	progress := newProgress(stderr, q.quiet || q.json)
	progress.unit = "cell"
	out, found, err := runShard(ctx, p, q.out, sweep.Options{Workers: q.workers, Progress: progress.show, Memory: knownMemory()})
	progress.clear()
	if err != nil {
		return stopped(err, q.out)
	}
	return q.finish(ctx, p, out, found, time.Since(begin), stdout, stderr)
}

// replaced says which values that were given are of no use, because an axis takes their place.
func (q *sweepRequest) replaced(axes []design.Axis, settings []string) (notes []string) {
	given := map[string]string{} // by the name of the axis
	for _, text := range q.strategies {
		name, knobs, _ := strings.Cut(text, ":")
		for setting := range strings.SplitSeq(knobs, ",") {
			knob, _, _ := strings.Cut(setting, "=")
			given[name+"."+knob] = "-s " + text
		}
	}
	for _, text := range settings {
		key, _, _ := strings.Cut(text, "=")
		given[key] = "the setting " + text
	}
	for _, a := range axes {
		if by, ok := given[a.Name]; ok {
			notes = append(notes, fmt.Sprintf("--vary %s takes the place of what %s says of it", a.Name, by))
		}
	}
	return notes
}

// anew says why a sampled design that takes the place of another of its kind does not begin with that one's points, so that none of
// their cells is of use.
func (q *sweepRequest) anew(d design.Design) string {
	p, err := sweep.ReadPlan(filepath.Join(q.out, sweep.PlanFile))
	if err != nil {
		return ""
	}
	words, _, _ := strings.Cut(p.Design, " ")
	old, err := design.ParseDesign(words, q.designSeed)
	if err != nil || old.Kind != d.Kind || d.Kind == design.Grid || d.Kind == design.Zip {
		return ""
	}
	if err := old.Extends(d.Points); err != nil {
		return err.Error()
	}
	if seed := fmt.Sprint("design-seed=", q.designSeed); !strings.HasSuffix(p.Design, seed) {
		return fmt.Sprintf("the design that is there has another --design-seed (%s), so that this one has other points", p.Design)
	}
	return ""
}

// words describe a design with its axes and its seed.
func (q *sweepRequest) words(design string, axes []design.Axis) string {
	list := []string{design}
	for _, a := range axes {
		list = append(list, a.String())
	}
	if design != "grid" && design != "zip" {
		list = append(list, fmt.Sprint("design-seed=", q.designSeed))
	}
	return strings.Join(list, " ")
}

// runShard runs what a folder lacks of a shard.
func runShard(ctx context.Context, p *sweep.Plan, dir string, o sweep.Options) (out sweep.Outcome, found sweep.Found, err error) {
	s, err := sweep.Open(dir, p, o.Shard)
	if err != nil {
		return out, found, err
	}
	out, err = sweep.Run(ctx, p, s, o)
	if closing := s.Close(); closing != nil && (err == nil || errors.Is(err, context.Canceled)) {
		err = closing
	}
	return out, s.Found, err
}

// stopped says how a sweep that ended early goes on.
func stopped(err error, dir string) error {
	if errors.Is(err, context.Canceled) {
		return failure{exitInterrupted, fmt.Errorf("%w: what is finished is kept in %s, and the same command goes on from there", errInterrupted, dir)}
	}
	return failed(err)
}

// finish makes the tables, the pictures and the report of a sweep that ran.
func (q *sweepRequest) finish(ctx context.Context, p *sweep.Plan, out sweep.Outcome, found sweep.Found, wall time.Duration, stdout, stderr io.Writer) error {
	m, err := tabulate(ctx, q.out, p, q.csv, newProgress(stderr, q.quiet || q.json))
	if err != nil {
		return err
	}
	files, left, err := writeSweptPictures(q.out)
	if err != nil {
		return failed(err)
	}
	switch {
	case q.json:
		err = encode(stdout, m)
	case !q.quiet:
		err = q.report(m, out, found, wall, files, left, stdout)
	}
	if err == nil {
		err = nothingRan(m, q.out)
	}
	return err
}

// nothingRan is the failure of a sweep none of whose cells has figures.
func nothingRan(m *sweep.Manifest, dir string) error {
	if m.Failed < m.Cells {
		return nil
	}
	return failed(fmt.Errorf("no cell could run: the column failed of %s says why", filepath.Join(dir, sweep.CellsTable)))
}

// report prints what a sweep did and found.
func (q *sweepRequest) report(m *sweep.Manifest, out sweep.Outcome, found sweep.Found, wall time.Duration, files, left []string, stdout io.Writer) error {
	lost := ""
	if n := found.Damaged + found.Torn; n > 0 && out.Ran > 0 {
		lost = fmt.Sprintf(" (%s found damaged or unfinished before)", plural(n, "record"))
	}
	fmt.Fprintf(stdout, "%s: %s, of which %d ran now%s, in %s.\n", m.Scenario, plural(m.Cells, "cell"), out.Ran, lost, duration(wall))
	if err := writeSweepReport(stdout, q.out, terminalWidth(stdout)); err != nil {
		return failed(err)
	}
	for _, reason := range left {
		fmt.Fprintln(stdout, wrap("Not drawn: "+reason+".", terminalWidth(stdout)))
	}
	if m.Failed == m.Cells {
		_, err := fmt.Fprintf(stdout, "\nWritten to %s: %s, %s, %s.\n", q.out, sweep.ManifestFile, sweep.PlanFile, tableNames(m))
		return err
	}
	pictures := ""
	if len(files) > 0 {
		pictures = fmt.Sprintf(", and %s in plots", plural(len(files)/2, "picture"))
	}
	_, err := fmt.Fprintf(stdout, "\nWritten to %s: %s, %s, %s%s.\nevenkeel table %s shows any part of it, evenkeel plot %s --x PARAMETER --out FILE draws it.\n",
		q.out, sweep.ManifestFile, sweep.PlanFile, tableNames(m), pictures, q.out, q.out)
	return err
}

func tableNames(m *sweep.Manifest) string {
	var list []string
	for _, t := range m.Tables {
		list = append(list, t.File)
	}
	return strings.Join(list, ", ")
}

// listedPairs is how many settings a dry run lists.
const listedPairs = 24

// describe prints what a plan would run, and what that needs.
func (q *sweepRequest) describe(ctx context.Context, p *sweep.Plan, stdout io.Writer) error {
	fmt.Fprintf(stdout, "%s: %s: %s of the scenario, %s, %s.\n", p.Scenario.Name, plural(p.Cells(), "cell"), plural(len(p.Variants), "variant"),
		plural(len(p.Specs), "setting")+" of strategies", plural(len(p.Seeds), "seed"))
	for _, a := range p.Axes {
		fmt.Fprintf(stdout, "  %s: %s\n", a.Name, shorten(a.Values, 12))
	}
	short := make([]string, len(p.Specs))
	for i := range short {
		short[i] = p.Spec(i)
	}
	fmt.Fprintf(stdout, "  strategies: %s\n", shorten(short, 12))
	for i, pair := range p.Pairs {
		if i == listedPairs {
			fmt.Fprintf(stdout, "  ... and %d more\n", len(p.Pairs)-i)
			break
		}
		words := append(p.VariantSettings(int(pair[0])), short[pair[1]])
		cells := fmt.Sprint("cell ", p.First(i))
		if last := p.First(i+1) - 1; last > p.First(i) {
			cells = fmt.Sprintf("cells %d to %d", p.First(i), last)
		}
		fmt.Fprintf(stdout, "  %s: %s\n", cells, strings.Join(words, " "))
	}
	e, err := p.Estimate(ctx, q.workers)
	if err != nil {
		return failure{exitInterrupted, errInterrupted}
	}
	fmt.Fprintf(stdout, "About %s and %s of disk, measured on a few steps of %d of %s.\n", duration(e.Time), bytesText(e.Bytes), e.Cells, plural(p.Cells(), "cell"))
	if e.Failed > 0 {
		fmt.Fprintf(stdout, "%d of those cannot run: the strategy does not fit the scenario there.\n", e.Failed)
	}
	return nil
}

// shorten joins words, of many the first and the last.
func shorten(list []string, most int) string {
	if len(list) > most {
		list = append(append(slices.Clone(list[:most-2]), "..."), list[len(list)-1])
	}
	return strings.Join(list, ", ")
}

func duration(d time.Duration) string {
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%.1f s", d.Seconds())
	case d < time.Hour:
		return fmt.Sprintf("%.0f min", d.Minutes())
	case d < 48*time.Hour:
		return fmt.Sprintf("%.1f h", d.Hours())
	}
	return fmt.Sprintf("%.1f days", d.Hours()/24)
}

func bytesText(n int64) string {
	x := float64(n)
	for _, unit := range []string{"bytes", "kB", "MB", "GB"} {
		if x < 1000 {
			return strconv.FormatFloat(math.Round(x*10)/10, 'f', -1, 64) + " " + unit
		}
		x /= 1000
	}
	return strconv.FormatFloat(math.Round(x*10)/10, 'f', -1, 64) + " TB"
}
