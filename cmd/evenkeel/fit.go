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
	"text/tabwriter"

	"github.com/spf13/cobra"

	"evenkeel/internal/nearest"
	"evenkeel/internal/whole"
	"evenkeel/plots"
	"evenkeel/scenarios"
	"evenkeel/scenarios/fit"
)

// fitRequest is what the flags of fit ask for.
type fitRequest struct {
	layer    int
	out      string
	figure   string
	cut      int
	nearest  int
	domains  string
	about    string
	columns  columnFlags
	settings []string
	json     bool
}

func fitCommand(stdout io.Writer) *cobra.Command {
	var q fitRequest
	c := &cobra.Command{
		Use:   "fit TRACE...",
		Short: "Fit the synthetic stream to a trace, and judge the fit by tokens held back",
		Long: `Fit finds the synthetic stream whose tokens choose experts as those of a trace do: how popular
experts are, what a domain, a document and a token type prefer, how ids are distributed, and
how far logits spread where the trace has them. Half of the documents of every domain are
fitted, the other half is held back; the table sets real figures of that half beside those of
synthetic worlds of the same size. --out writes the scenario, with all of it as comments.

Several traces of one layer shape are fitted as one, each a domain of its own.`,
		Example: `  evenkeel fit tinymoe
  evenkeel fit router.npz --layer 3 --set score=softmax --out mine.yaml --figure mine.png
  evenkeel fit law.npz translation.npz --layer 12 --out both.yaml
  evenkeel compare --scenario mine.yaml`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return errors.New("fit takes a trace: name an .npz file or tinymoe")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error { return q.run(cmd.Context(), args, stdout) },
	}
	f := c.Flags()
	f.SortFlags = false
	f.IntVar(&q.layer, "layer", 0, "layer of the trace, from 0")
	f.StringVar(&q.out, "out", "", "file for the scenario, such as mine.yaml")
	f.StringVar(&q.figure, "figure", "", "file for the picture, .png or .svg")
	f.IntVar(&q.cut, "cut", 0, "take parts of so many tokens as sequences, for a trace that has too few")
	f.IntVar(&q.nearest, "nearest", 0, "fix the world that comes nearest to the trace, of so many (default: every seed\ndraws its own)")
	f.StringVar(&q.domains, "domains", "", "names of the domain ids in order, such as de,en,go,zh")
	f.StringVar(&q.about, "about", "", "what the list of scenarios says of the one that is written")
	q.columns.add(f)
	f.StringArrayVar(&q.settings, "set", nil, "key=value of the scenario: what the file does not say, such as topk, experts,\nscore, groups, layers and padding, and what stays where the trace does not tell")
	f.BoolVar(&q.json, "json", false, "print as JSON")
	return c
}

func (q *fitRequest) run(ctx context.Context, traces []string, stdout io.Writer) error {
	if q.domains != "" && len(traces) > 1 {
		return errors.New("--domains names the domain ids of one trace: several traces are named by their files")
	}
	if q.layer < 0 {
		return fmt.Errorf("--layer is %d: layers are counted from 0", q.layer)
	}
	if q.cut < 0 {
		return fmt.Errorf("--cut is %d: want a number of tokens, such as 128", q.cut)
	}
	if q.nearest < 0 || q.nearest > 10000 {
		return fmt.Errorf("--nearest is %d: it must be 1 to 10000 worlds", q.nearest)
	}
	ending := strings.ToLower(filepath.Ext(q.figure))
	if q.figure != "" && ending != ".png" && ending != ".svg" {
		return fmt.Errorf("--figure %s: want a file that ends in .png or .svg", q.figure)
	}
	if ext := filepath.Ext(q.out); q.out != "" && ext != ".yaml" && ext != ".yml" {
		return fmt.Errorf("--out %s: want a file that ends in .yaml, by which compare knows a scenario", q.out)
	}
	for _, file := range []string{q.out, q.figure} {
		if file == "" {
			continue
		}
		if err := whole.Check(filepath.Dir(file)); err != nil {
			return fmt.Errorf("%s cannot be written: %w", file, err)
		}
	}
	var sources []fit.Source
	for _, name := range traces {
		x, err := q.source(name)
		if err != nil {
			return err
		}
		sources = append(sources, x)
	}
	base, err := q.base(sources)
	if err != nil {
		return err
	}
	r, err := fit.Fit(ctx, base, sources, fit.Options{Cut: q.cut, Nearest: q.nearest, Name: strings.TrimSuffix(filepath.Base(q.out), filepath.Ext(q.out)), About: q.about})
	if errors.Is(err, context.Canceled) {
		return failure{exitInterrupted, fmt.Errorf("%w: nothing was written", errInterrupted)}
	}
	if err != nil {
		return err
	}
	if q.json {
		err = encode(stdout, fitJSON(r))
	} else {
		err = printFit(stdout, r, terminalWidth(stdout))
	}
	if err != nil {
		return failed(err)
	}
	if q.figure != "" {
		picture, err := plots.Fit(r)
		if err != nil {
			return failed(err)
		}
		content, err := picture.PNG()
		if ending == ".svg" {
			content, err = picture.SVG()
		}
		if err == nil {
			err = whole.WriteBytes(q.figure, content)
		}
		if err != nil {
			return failed(err)
		}
	}
	if q.out != "" {
		if err := whole.WriteBytes(q.out, r.YAML()); err != nil {
			return failed(err)
		}
		if !q.json {
			fmt.Fprintf(stdout, "\nWritten to %s; it runs with evenkeel compare --scenario %s\n", q.out, q.out)
		}
	}
	return nil
}

// source reads a layer of a trace: a file, or a shipped scenario that is one.
func (q *fitRequest) source(name string) (x fit.Source, err error) {
	name = strings.TrimPrefix(name, "trace:")
	x.Layer = q.layer
	switch {
	case slices.Contains(scenarios.Names(), name):
		s, err := scenarios.Load(name, nil, -1)
		if err != nil {
			return x, err
		}
		if s.Trace == nil {
			return x, fmt.Errorf("scenario %s is drawn, not a trace: there is nothing to fit, see evenkeel scenarios %s", name, name)
		}
		name, x.Domains = s.Trace.File, s.Trace.Domains
	case strings.HasSuffix(name, ".yaml") || strings.HasSuffix(name, ".yml"):
		return x, fmt.Errorf("%s is a scenario: fit takes a trace, such as the .npz file that a scenario replays", name)
	}
	if q.domains != "" {
		x.Domains = strings.Split(q.domains, ",")
	}
	x.File = name
	given, err := q.fileSettings()
	if err != nil {
		return x, err
	}
	x.Dump, x.SHA256, err = scenarios.ReadDump(name, q.layer, q.columns.reading(given))
	if err == nil && x.Dump.Level == scenarios.LevelCounts {
		err = fmt.Errorf("%s holds counts of experts, which do not say which experts a token chose: fit needs logits, scores or topk_ids", name)
	}
	return x, err
}

// fileSettings are the settings that say how to read a file.
func (q *fitRequest) fileSettings() (map[string]int, error) {
	given := map[string]int{}
	for _, set := range q.settings {
		key, value, _ := strings.Cut(set, "=")
		if key != "topk" && !slices.Contains(fileKeys, key) {
			continue
		}
		n, err := strconv.Atoi(value)
		if err != nil || n < 1 {
			return nil, fmt.Errorf("--set %s: want a whole number of at least 1", set)
		}
		given[key] = n
	}
	return given, nil
}

// fileKeys are the keys of --set that are not of a scenario, but of the file alone.
var fileKeys = []string{"layers", "padding"}

// fitKeys are the keys that --set may give: those that the file will have and that no trace tells, or not every one.
var fitKeys = []string{"experts", "topk", "groups", "groups_kept", "score", "gate", "gate_scale", "width", "tokens", "micro_batches", "ranks",
	"synthetic.logit_scale", "synthetic.vocabulary", "synthetic.zipf", "synthetic.domain_tilt"}

// base is the scenario that is fitted: the trace's shape, the user's settings, and the default scenario's other values.
func (q *fitRequest) base(sources []fit.Source) (*scenarios.Scenario, error) {
	x := sources[0]
	d, experts := x.Dump, x.Dump.Experts
	for _, o := range sources {
		if o.Dump.Level == scenarios.LevelChoices { // which do not say how many there are
			experts = max(experts, o.Dump.Experts)
		}
	}
	given := func(key string) bool {
		return slices.ContainsFunc(q.settings, func(s string) bool { return strings.HasPrefix(s, key+"=") })
	}
	var ofScenario []string
	for _, set := range q.settings {
		key, _, _ := strings.Cut(set, "=")
		known := slices.Concat(fitKeys, fileKeys)
		switch {
		case !slices.Contains(known, key):
			return nil, fmt.Errorf("--set %s: fit takes %s%s; other keys can be set where the file is used", set, strings.Join(known, ", "), nearest.Hint(key, known))
		case !slices.Contains(fileKeys, key):
			ofScenario = append(ofScenario, set)
		}
	}
	settings := []string{"experts=" + strconv.Itoa(experts)}
	switch {
	case d.TopK > 0:
		settings = append(settings, "topk="+strconv.Itoa(d.TopK))
	case !given("topk"):
		return nil, fmt.Errorf("%s has no topk_ids, so it does not say how many experts a token chooses: add --set topk=K", x.File)
	}
	if d.Stored() && !given("score") {
		return nil, fmt.Errorf("%s holds scores, not logits: say which function made them, by --set score=softmax or another", x.File)
	}
	return scenarios.Load("pretraining", append(settings, ofScenario...), -1)
}

// fittedJSON is the contract of fit --json.
type fittedJSON struct {
	Version  int                 `json:"version"`
	Traces   []fittedTrace       `json:"traces"`
	Level    string              `json:"level"`
	Scenario *scenarios.Scenario `json:"scenario"`
	Fitted   half                `json:"fitted"`
	Held     half                `json:"held_back"`
	Worlds   int                 `json:"worlds"`
	Kept     []string            `json:"kept"`
	Findings []string            `json:"findings"`
	Notes    []string            `json:"notes"`
}

type fittedTrace struct {
	File   string `json:"file"`
	SHA256 string `json:"sha256"`
	Layer  int    `json:"layer"`
}

type half struct {
	Tokens    int          `json:"tokens"`
	Documents int          `json:"documents"`
	Figures   []fit.Figure `json:"figures"`
}

func fitJSON(r *fit.Result) fittedJSON {
	listed := func(lines []string) []string { return append([]string{}, lines...) } // [], not null
	j := fittedJSON{Version: 1, Level: r.Level, Scenario: r.Scenario, Worlds: r.Worlds, Kept: listed(r.Kept), Findings: listed(r.Findings), Notes: listed(r.Notes),
		Fitted: half{r.Tokens, r.Documents, r.Moments}, Held: half{r.HeldTokens, r.HeldDocuments, r.Goodness}}
	for _, x := range r.Sources {
		j.Traces = append(j.Traces, fittedTrace{x.File, x.SHA256, x.Layer})
	}
	return j
}

// printFit prints a fit as wide as the terminal.
func printFit(w io.Writer, r *fit.Result, width int) error {
	for _, x := range r.Sources {
		of := ""
		if x.Dump.Layers > 1 {
			of = fmt.Sprintf(" (of 0 to %d)", x.Dump.Layers-1)
		}
		fmt.Fprintln(w, wrap(fmt.Sprintf("%s, layer %d%s: a trace of %s, %d experts, %d per token.", x.File, x.Layer, of, r.Level, r.Scenario.Experts, r.Scenario.TopK), width))
	}
	fmt.Fprintln(w, wrap(fmt.Sprintf("Fitted to %d tokens in %s; %d tokens in %s are held back. Energies are shares of what the common direction leaves.",
		r.Tokens, plural(r.Documents, "document"), r.HeldTokens, plural(r.HeldDocuments, "document")), width))
	y := r.Scenario.Synthetic
	fmt.Fprintf(w, "\n  logit_scale %g  common_energy %g\n", y.LogitScale, y.CommonEnergy)
	fmt.Fprintf(w, "  energy: type %g, domain %g, sequence %g, noise %g\n", y.Energy.Type, y.Energy.Domain, y.Energy.Sequence, y.Energy.Noise)
	fmt.Fprintf(w, "  vocabulary %d  zipf %g  domain_tilt %g  sequence_length %d\n", y.Vocabulary, y.Zipf, y.DomainTilt, r.Scenario.SequenceLength)
	if r.Scenario.WorldSeed != 0 {
		fmt.Fprintf(w, "  world_seed %d, the nearest of %d\n", r.Scenario.WorldSeed, r.Nearest)
	}
	fmt.Fprintln(w)
	if err := printFigures(w, r, width); err != nil {
		return err
	}
	fmt.Fprintln(w)
	inside := len(r.Goodness) - len(r.Findings)
	fmt.Fprintln(w, wrap(fmt.Sprintf("%d of %d held-back figures lie where 95 %% of %d synthetic %s do.", inside, len(r.Goodness), r.Worlds, r.Spread()), width))
	for _, list := range []struct {
		title string
		lines []string
	}{{"Not reproduced", r.Findings}, {"Not told by the trace, and kept", r.Kept}, {"Notes", r.Notes}} {
		if len(list.lines) == 0 {
			continue
		}
		fmt.Fprintf(w, "%s:\n", list.title)
		for _, l := range list.lines {
			fmt.Fprintln(w, wrap("- "+l, width))
		}
	}
	return nil
}

// printFigures prints both halves in one table; labels are cut where a narrow terminal asks for it.
func printFigures(w io.Writer, r *fit.Result, width int) error {
	const others = 53 // columns that numbers take
	room := max(25, width-others)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	row := func(cells ...string) { fmt.Fprintln(t, strings.TrimRight(strings.Join(cells, "\t"), "\t")) }
	for i, figures := range [][]fit.Figure{r.Moments, r.Goodness} {
		row([]string{"fitted half", "held-back half"}[i], "real", "synthetic", "95 % of "+r.Spread(), "floor")
		for _, f := range figures {
			floor, mark := "", ""
			if f.Floor != nil {
				floor = digits(*f.Floor)
			}
			if !f.Inside() {
				mark = "outside"
			}
			label := []rune(f.Label)
			if len(label) > room {
				label = append(label[:room-1], '…')
			}
			row(string(label), digits(f.Real), digits(f.Synthetic), digits(f.Low)+" to "+digits(f.High), floor, mark)
		}
		if i == 0 {
			row("\t")
		}
	}
	return t.Flush()
}

// digits writes a number with three significant digits, or whole.
func digits(v float64) string {
	if math.Abs(v) >= 100 {
		return fmt.Sprintf("%.0f", v)
	}
	return fmt.Sprintf("%.3g", v)
}
