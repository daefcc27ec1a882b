package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"evenkeel/experiment"
	"evenkeel/internal/nearest"
	"evenkeel/internal/vec"
	"evenkeel/moe"
	"evenkeel/scenarios"
	"evenkeel/sim"
	"evenkeel/strategies"
)

// request is what the flags of compare ask for.
type request struct {
	strategies []string
	all        bool
	columns    string
	sort       string
	scenario   string
	model      string
	router     string
	experts    string
	steps      int
	seeds      int
	settings   []string
	layer      int
	layers     string
	mapping    columnFlags
	out        string
	from       string
	workers    int
	kernel     string
	json       bool
	quiet      bool

	trace *scenarios.TraceFile // open, where several of its layers are run
}

func compareCommand(stdout, stderr io.Writer) *cobra.Command {
	var q request
	c := &cobra.Command{
		Use:   "compare",
		Short: "Run strategies on one stream and compare balance with quality",
		Long: `Compare runs strategies in lockstep on the same tokens, for several seeds, and prints how
even the loads are and how much of the true affinity each strategy kept. Without arguments
it runs the scenario pretraining with no balancing, an auxiliary loss at three strengths,
the loss-free bias and the best exactly balanced assignment, which is a bound.

A strategy is written name or name:knob=value,knob=value; see evenkeel strategies.
Exit codes: 0 fine, 1 the run failed, 2 the request was wrong, 130 interrupted.`,
		Example: `  evenkeel compare -s none -s aux-loss:coeff=0.01,scope=sequence -s loss-free:rate=1e-3
  evenkeel compare --all --sort output_error
  evenkeel compare -s loss-free -s smebu --scenario shift --columns maxvio_batch,settled_step,recovery_steps,churn
  evenkeel compare --scenario trace:router.npz --layer 3 --set topk=8 --out results
  evenkeel compare --scenario trace:router.npz --layers all --set topk=8
  evenkeel compare --from results/manifest.json`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			q.router = strings.ToLower(q.router)
			return q.run(cmd.Context(), cmd.Flags(), stdout, stderr)
		},
	}
	f := c.Flags()
	f.SortFlags = false
	f.StringArrayVarP(&q.strategies, "strategy", "s", nil, "a strategy, name:knob=value,...; may be repeated")
	f.BoolVar(&q.all, "all", false, "every strategy, at its defaults, that the scenario permits; says which are left out and why")
	q.streamFlags(f)
	f.StringVar(&q.layers, "layers", "", "layers of a trace, all or such as 0,3,5: one run for each, and one column, with\npercentiles across layers; --columns picks the metrics, a table for each")
	f.StringVar(&q.columns, "columns", "", "metrics of the table in order, such as maxvio_global,settled_step,churn (names as in --json)")
	f.StringVar(&q.sort, "sort", "", "metric by which the rows are sorted, the smallest first (affinity_kept: the largest)")
	f.StringVar(&q.from, "from", "", "repeat the run of a manifest.json")
	f.SetOutput(stderr)
	complete(c)
	return c
}

// streamFlags are the flags of every command that runs strategies on a stream.
func (q *request) streamFlags(f *pflag.FlagSet) {
	f.StringVar(&q.scenario, "scenario", "pretraining", "a shipped scenario, a YAML file, or trace:FILE of any known format")
	f.StringVar(&q.model, "model", "", "give the scenario a model's experts, K, groups, score and gate, such as deepseek-v3")
	f.StringVar(&q.router, "router", "", "frozen or learned (default: learned, but frozen on streams without latent\nvectors and on traces when no strategy has a loss)")
	f.StringVar(&q.experts, "experts", "", "fixed or learned: learned ones train with the router from scratch, and the\ntask loss is measured (default: the scenario's, mostly fixed)")
	f.IntVar(&q.steps, "steps", 0, "steps of a run (default: the scenario's)")
	f.IntVar(&q.seeds, "seeds", 0, "number of seeds: 1 to N (default: the scenario's)")
	f.StringArrayVar(&q.settings, "set", nil, "key=value of the scenario, such as experts=128 or synthetic.zipf=1.3; may be repeated")
	f.IntVar(&q.layer, "layer", -1, "layer of a trace, from 0")
	f.Lookup("layer").DefValue = "0"
	q.mapping.add(f)
	f.StringVar(&q.out, "out", "", "folder for tables, manifest and pictures")
	f.IntVar(&q.workers, "workers", 0, "workers: they take seeds, then share the steps of others (default: one for each processor)")
	f.StringVar(&q.kernel, "kernel", "auto", "arithmetic: auto, avx512, avx2 or portable; all give the same bits")
	f.BoolVar(&q.json, "json", false, "print the summary as JSON and nothing else")
	f.BoolVar(&q.quiet, "quiet", false, "print no progress and no notes")
}

func noArguments(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return fmt.Errorf("%s takes no argument %q: strategies are named with -s, streams with --scenario", cmd.Name(), args[0])
	}
	return nil
}

// flagError adds the nearest flag to an unknown one.
func flagError(c *cobra.Command, err error) error {
	name, ok := strings.CutPrefix(err.Error(), "unknown flag: --")
	if !ok {
		return err
	}
	var known []string
	c.Flags().VisitAll(func(f *pflag.Flag) { known = append(known, f.Name) })
	hint := nearest.Name(name, known)
	if hint != "" {
		return fmt.Errorf("there is no flag --%s; did you mean --%s?", name, hint)
	}
	return fmt.Errorf("there is no flag --%s: see %s --help", name, c.CommandPath())
}

// complete registers what a shell may complete.
func complete(c *cobra.Command) {
	words := func(list []string) func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return list, cobra.ShellCompDirectiveNoSpace
		}
	}
	var names, keys []string
	for _, p := range strategies.Presets() {
		names = append(names, p.Name)
	}
	for _, k := range scenarios.Keys() {
		keys = append(keys, k+"=")
	}
	for flag, list := range map[string][]string{"model": strategies.Models(), "set": keys, "scenario": scenarios.Names(), "router": {sim.Frozen, sim.Learned}, "experts": {"fixed", "learned"},
		"kernel": append(vec.Kernels(), "auto")} {
		_ = c.RegisterFlagCompletionFunc(flag, words(list)) // fails only for a flag that does not exist
	}
	_ = c.RegisterFlagCompletionFunc("strategy", func(_ *cobra.Command, _ []string, begun string) ([]string, cobra.ShellCompDirective) {
		name, knobs, inside := strings.Cut(begun, ":")
		p, err := strategies.Find(name)
		if !inside || err != nil {
			return names, cobra.ShellCompDirectiveNoSpace
		}
		done := name + ":" + knobs[:strings.LastIndex(knobs, ",")+1]
		var list []string
		for _, k := range p.Knobs {
			list = append(list, done+k.Name+"=")
		}
		return list, cobra.ShellCompDirectiveNoSpace
	})
}

func (q *request) run(ctx context.Context, flags *pflag.FlagSet, stdout, stderr io.Writer) error {
	if err := vec.Use(q.kernel); err != nil {
		return err
	}
	if flags.Changed("layers") {
		return q.runLayers(ctx, flags, stdout, stderr)
	}
	p, err := q.plan(flags)
	if err != nil {
		return err
	}
	view, err := newView(q.columns, q.sort)
	if err != nil {
		return err
	}
	if q.workers < 0 {
		return fmt.Errorf("--workers is %d: it must be at least 1", q.workers)
	}
	if q.out != "" {
		if err := prepareFolder(q.out); err != nil {
			return err
		}
	}
	c, err := p.Config(q.workers)
	if err != nil {
		return err
	}
	if err := checkMemory(c); err != nil {
		return err
	}
	if err := sim.Check(c); err != nil {
		return err
	}
	progress := newProgress(stderr, q.quiet || q.json)
	c.Progress = progress.show
	begin := time.Now()
	r, err := sim.Compare(ctx, c)
	progress.clear()
	if errors.Is(err, context.Canceled) {
		if q.out != "" {
			removeEmpty(q.out)
		}
		return failure{exitInterrupted, fmt.Errorf("%w before any seed had finished: nothing was written", errInterrupted)}
	}
	if err != nil {
		return failed(err)
	}
	wall := time.Since(begin)
	if q.json {
		err = writeJSON(stdout, p, r)
	} else {
		err = writeReport(stdout, p, r, view, wall, terminalWidth(stdout), q.quiet)
	}
	if err != nil {
		return failed(err)
	}
	if q.quiet && !q.json {
		for _, w := range warnings(r) {
			fmt.Fprintln(stderr, w)
		}
	}
	if q.out != "" {
		if err := writeFolder(q.out, p, r, wall); err != nil {
			return failed(err)
		}
		if !q.json && !q.quiet {
			fmt.Fprintf(stdout, "\nWritten to %s: summary.json, summary.csv, steps.csv, loads.csv, manifest.json and plots.\n", q.out)
		}
	}
	if ctx.Err() != nil && !r.Incomplete {
		return failure{exitInterrupted, fmt.Errorf("%w after the last step: all was written", errInterrupted)}
	}
	if r.Incomplete {
		return failure{exitInterrupted, fmt.Errorf("%w: the figures cover %d of %d seeds", errInterrupted, len(r.Seeds), len(c.Seeds))}
	}
	return nil
}

// plan is a comparison, and what --all left out of it.
type plan struct {
	*experiment.Experiment
	left []refusal
}

// refusal is a strategy that the scenario does not permit.
type refusal struct {
	spec string
	err  error
}

// plan resolves the request of compare.
func (q *request) plan(flags *pflag.FlagSet) (*plan, error) {
	if q.from != "" {
		for _, name := range []string{"strategy", "all", "scenario", "model", "router", "experts", "steps", "seeds", "set", "layer", "map", "where"} {
			if flags.Changed(name) {
				return nil, fmt.Errorf("--from repeats a run as it was: leave out --%s", name)
			}
		}
		return readManifest(q.from)
	}
	s, err := q.stream(flags)
	if err != nil {
		return nil, err
	}
	if q.all {
		if len(q.strategies) > 0 {
			return nil, errors.New("--all takes every strategy at its defaults: leave out -s, or name them all by -s")
		}
		var all []strategies.Spec
		for _, preset := range strategies.Presets() {
			spec, err := strategies.Parse(preset.Name)
			if err != nil {
				return nil, err
			}
			all = append(all, spec)
		}
		return planPermitted(s, all)
	}
	names := q.strategies
	if len(names) == 0 {
		names = strategies.Default()
	}
	specs, err := parseAll(names)
	if err != nil {
		return nil, err
	}
	if f := s.Facts(); len(q.strategies) == 0 && (s.Task.Experts == experiment.LearnedExperts || f.Waste || f.Aggregate) {
		specs = slices.DeleteFunc(specs, func(spec strategies.Spec) bool { return spec.Preset.Family == "bounds" })
	}
	if frozen := s.Router.Mode == sim.Frozen || s.Layer().Score == moe.Stored; len(q.strategies) == 0 && frozen {
		return planPermitted(s, specs) // losses do nothing there, and nobody chose them
	}
	return newPlan(s, specs)
}

// stream loads the scenario that the flags describe.
func (q *request) stream(flags *pflag.FlagSet) (*scenarios.Scenario, error) {
	settings, err := q.keys(flags)
	if err != nil {
		return nil, err
	}
	seeds, err := q.seedList(flags)
	if err != nil {
		return nil, err
	}
	if seeds != nil {
		text, _ := json.Marshal(seeds) // plain numbers
		settings = append(settings, "seeds="+string(text))
	}
	if q.trace != nil {
		return scenarios.LoadFrom(q.trace, q.scenario, settings, q.layer)
	}
	return scenarios.Load(q.scenario, settings, q.layer)
}

// seedList are the seeds that --seeds asks for, or nil.
func (q *request) seedList(flags *pflag.FlagSet) (seeds []uint64, err error) {
	if !flags.Changed("seeds") {
		return nil, nil
	}
	if q.seeds < 1 || q.seeds > 10000 {
		return nil, fmt.Errorf("--seeds is %d: it must be 1 to 10000", q.seeds)
	}
	for i := range q.seeds {
		seeds = append(seeds, uint64(i+1))
	}
	return seeds, nil
}

// keys are the settings that the flags give the scenario, but for seeds.
func (q *request) keys(flags *pflag.FlagSet) (settings []string, err error) {
	if q.model != "" {
		m, err := strategies.FindModel(q.model)
		if err != nil {
			return nil, fmt.Errorf("--model: %w", err)
		}
		settings = m.Settings()
	}
	settings = append(settings, q.settings...)
	if flags.Changed("steps") {
		if q.steps < 1 || q.steps > 1e8 {
			return nil, fmt.Errorf("--steps is %d: it must be 1 to 100000000", q.steps)
		}
		settings = append(settings, "steps="+strconv.Itoa(q.steps))
	}
	if q.router != "" {
		if q.router != sim.Frozen && q.router != sim.Learned {
			return nil, fmt.Errorf("--router is %q: it must be frozen or learned", q.router)
		}
		settings = append(settings, "router.mode="+q.router)
	}
	if q.experts != "" {
		if q.experts != "fixed" && q.experts != experiment.LearnedExperts {
			return nil, fmt.Errorf("--experts is %q: it must be fixed or learned", q.experts)
		}
		settings = append(settings, "task.experts="+q.experts)
	}
	columns := q.mapping.settings()
	if len(columns) > 0 && !strings.HasPrefix(q.scenario, "trace:") {
		return nil, errors.New("--map and --where say where a trace holds what: use them with --scenario trace:FILE")
	}
	settings = append(settings, columns...)
	if flags.Changed("layer") && q.layer < 0 {
		return nil, fmt.Errorf("--layer is %d: layers are counted from 0", q.layer)
	}
	return settings, nil
}

// parseAll parses strategies, some of which a manifest may have defined.
func parseAll(names []string, defined ...*strategies.Preset) (specs []strategies.Spec, err error) {
	for _, name := range names {
		spec, err := strategies.Parse(name, defined...)
		if err != nil {
			return nil, err
		}
		specs = append(specs, spec)
	}
	return specs, nil
}

// planPermitted plans a comparison of those strategies that the scenario permits. What learns is decided as if none had a loss,
// so that losses are left out where a router would stay as it is without them.
func planPermitted(s *scenarios.Scenario, specs []strategies.Spec) (*plan, error) {
	none, err := parseAll([]string{"none"})
	if err != nil {
		return nil, err
	}
	bare, err := newPlan(s, none)
	if err != nil {
		return nil, err
	}
	c, err := bare.Config(0)
	if err != nil {
		return nil, err
	}
	p := &plan{Experiment: &experiment.Experiment{Scenario: s, Mode: bare.Mode, Why: bare.Why}}
	var others []refusal
	for _, spec := range specs {
		if m := spec.Preset.Model; m != nil && !m.Fits(c.Layer) {
			others = append(others, refusal{spec.String(), errors.New("the recipe of a model of another shape: --model NAME gives the scenario its own")})
			continue
		}
		r, err := spec.Build(c.Layer)
		if err == nil {
			err = c.Refuse(r.Traits())
		}
		if err != nil {
			p.left = append(p.left, refusal{spec.String(), err})
			continue
		}
		p.Specs = append(p.Specs, spec)
	}
	p.left = append(p.left, others...)
	return p, nil
}

// newPlan plans a comparison.
func newPlan(s *scenarios.Scenario, specs []strategies.Spec) (*plan, error) {
	x, err := experiment.New(s, specs)
	return &plan{Experiment: x}, err
}
