package main

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"evenkeel/metrics"
	"evenkeel/moe"
	"evenkeel/scenarios"
)

// inspectRequest is what the flags of inspect ask for.
type inspectRequest struct {
	settings []string
	columns  columnFlags
	layer    int
	ranks    int
	batch    int
	sections string
	perLayer bool
	out      string
	json     bool
}

func inspectCommand(stdout io.Writer) *cobra.Command {
	var q inspectRequest
	c := &cobra.Command{
		Use:   "inspect TRACE",
		Short: "Analyse a trace: loads against the floor, noise or structure, tokens, pairs, specialisation",
		Long: `Inspect analyses who chose which experts in a trace, layer by layer and in all:

  loads       MaxVio by layer and domain against the sampling floor
  batches     MaxVio by batch size: does it fall as noise does (slope -1/2), or stay?
  overflow    share of the choices beyond a capacity factor
  tokens      how much of a choice the token's own id explains
  pairs       which experts are chosen together, beyond what their loads explain
  domains     mutual information of domain and expert
  frameworks  the balance number of vLLM, SGLang, TensorRT-LLM, Megatron-LM, NeMo, FastMoE,
              prime-rl and others, each by its own formula, to check against a log
  layers      percentiles across layers, and the worst layer

Batches are of consecutive tokens of the file. The balance numbers, with n the loads of
experts, or of ranks of E/R consecutive experts each, are means over layers but for vLLM's:

` + formulas(),
		Example: `  evenkeel inspect router.npz
  evenkeel inspect router.npz --sections batches,frameworks --ranks 8 --batch 4096
  evenkeel inspect router.npz --layer 3 --out report
  evenkeel inspect routes.jsonl --map topk_ids=experts
  evenkeel inspect logits.npz --set topk=8 --set score=softmax`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return fmt.Errorf("inspect takes one trace, got %d: name a trace file or tinymoe", len(args))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if cmd.Flags().Changed("layer") && q.layer < 0 {
				return fmt.Errorf("--layer is %d: layers are counted from 0", q.layer)
			}
			if cmd.Flags().Changed("ranks") && q.ranks < 1 {
				return fmt.Errorf("--ranks is %d: it must be at least 1, and divide the experts", q.ranks)
			}
			return q.run(args[0], stdout)
		},
	}
	f := c.Flags()
	f.SortFlags = false
	f.StringArrayVar(&q.settings, "set", nil, "topk=K, experts=E, score=NAME, layers=L or padding=ID, where the file does not say")
	q.columns.add(f)
	f.IntVar(&q.layer, "layer", -1, "only this layer, from 0")
	f.Lookup("layer").DefValue = "all"
	f.IntVar(&q.ranks, "ranks", 0, "expert-parallel ranks R, for the balance numbers over ranks (default: as many as experts)")
	f.IntVar(&q.batch, "batch", 1024, "tokens of a batch, for overflow and the balance numbers")
	f.StringVar(&q.sections, "sections", "", "what to print of "+strings.Join(sectionNames(), ",")+" (default: all)")
	f.BoolVar(&q.perLayer, "per-layer", false, "print every layer, also of many")
	f.StringVar(&q.out, "out", "", "folder for inspect.json and figures")
	f.BoolVar(&q.json, "json", false, "print as JSON")
	return c
}

// formulas lists the balance numbers of frameworks for the help.
func formulas() string {
	var b strings.Builder
	for _, x := range metrics.Balances() {
		over := "experts"
		if x.Ranks {
			over = "ranks"
		}
		fmt.Fprintf(&b, "  %-21s  %-21s  %-7s  %s\n", x.Who, x.Name, over, x.Formula)
	}
	fmt.Fprintf(&b, "  %-21s  %-21s  %-7s  %s", "Megatron-LM", auxLossName, "experts", auxLossFormula)
	return b.String()
}

// Megatron-LM's auxiliary loss, which scores alone give: see metrics.AuxLoss.
const (
	auxLossName    = "aux_loss, α = 1"
	auxLossFormula = "E/(K T²) Σ n_e Σ_t q_te"
)

func (q *inspectRequest) run(reference string, stdout io.Writer) error {
	name := strings.TrimPrefix(reference, "trace:")
	var domains []string
	if slices.Contains(scenarios.Names(), name) {
		s, err := scenarios.Load(name, nil, -1)
		if err != nil {
			return err
		}
		if s.Trace == nil {
			return fmt.Errorf("scenario %s is drawn, not a trace: there is nothing to inspect, see evenkeel scenarios %s", name, name)
		}
		name, domains = s.Trace.File, s.Trace.Domains
	}
	shown, err := sectionsOf(q.sections)
	if err != nil {
		return err
	}
	if q.batch < 1 {
		return fmt.Errorf("--batch is %d: it must be at least 1 token", q.batch)
	}
	x, err := q.inspect(name, domains)
	if err != nil {
		return err
	}
	if q.out != "" {
		if err := prepareFolder(q.out); err != nil {
			return err
		}
	}
	if q.json {
		err = x.writeJSON(stdout)
	} else {
		err = x.print(stdout, shown, q.perLayer, terminalWidth(stdout))
	}
	if err != nil {
		return failed(err)
	}
	if q.out != "" {
		if err := x.writeFolder(q.out); err != nil {
			return failed(err)
		}
		if !q.json {
			fmt.Fprintf(stdout, "\nWritten to %s: inspect.json and plots.\n", q.out)
		}
	}
	return nil
}

// readSettings reads the values of --set; score is also present in given where it was set.
func readSettings(settings []string) (given map[string]int, score moe.Score, err error) {
	given, score = map[string]int{}, moe.Sigmoid
	for _, s := range settings {
		switch key, value, _ := strings.Cut(s, "="); key {
		case "topk", "experts", "layers", "padding":
			if given[key], err = strconv.Atoi(value); err != nil || given[key] < 1 {
				err = fmt.Errorf("--set %s: want a whole number of at least 1", s)
			}
		case "score":
			given[key] = 1
			score, err = moe.ParseScore(value)
		default:
			err = fmt.Errorf("--set %s: inspect knows topk, experts, score, layers and padding", s)
		}
		if err != nil {
			return nil, 0, err
		}
	}
	return given, score, nil
}

// inspect reads the trace layer by layer, so that one is in memory at a time. A trace of choices is read twice, since only
// all its layers tell the number of experts.
func (q *inspectRequest) inspect(name string, domains []string) (*inspection, error) {
	given, score, err := readSettings(q.settings)
	if err != nil {
		return nil, err
	}
	file, err := scenarios.OpenTrace(name, q.columns.reading(given))
	if err != nil {
		return nil, err
	}
	defer file.Close()
	d, err := file.Dump(max(0, q.layer))
	if err != nil {
		return nil, err
	}
	sum, err := file.SHA256()
	if err != nil {
		return nil, err
	}
	x := &inspection{File: name, SHA256: sum, Level: d.Level, Layers: d.Layers, Tokens: d.Tokens, Experts: d.Experts,
		TopK: d.TopK, Width: d.Width, Notes: d.Notes, Chosen: "the file's topk_ids", Batch: min(q.batch, d.Tokens), Steps: d.Steps, Ranks: q.ranks,
		Absent: map[string]string{}, domains: domains, score: score}
	if d.Stored() {
		x.score = moe.Stored
	}
	layers := []int{q.layer}
	if q.layer >= 0 && d.Layers > 1 {
		x.Notes = append(slices.Clone(x.Notes), fmt.Sprintf("only layer %d is analysed", q.layer))
	}
	if q.layer < 0 {
		layers = layers[:0]
		for l := range d.Layers {
			layers = append(layers, l)
		}
	}
	if d.Level == scenarios.LevelChoices {
		for l := range d.Layers {
			other, err := file.Dump(l)
			if err != nil {
				return nil, err
			}
			x.Experts = max(x.Experts, other.Experts)
		}
	}
	if err := x.settle(d, given); err != nil {
		return nil, err
	}
	for i, l := range layers {
		if i > 0 {
			if d, err = file.Dump(l); err != nil {
				return nil, err
			}
		}
		x.add(d, l)
	}
	x.finish()
	return x, nil
}

// settle completes what the file says by the settings, which must not contradict it.
func (x *inspection) settle(d *scenarios.Dump, given map[string]int) error {
	experts, topk := given["experts"], given["topk"]
	switch {
	case topk > 0 && d.Choices != nil && topk != d.TopK:
		return fmt.Errorf("--set topk=%d: the topk_ids of %s hold %d experts per token, and their loads are shown; leave it out", topk, x.File, d.TopK)
	case given["score"] > 0 && (d.Stored() || d.Level != scenarios.LevelScores):
		return fmt.Errorf("--set score: nothing of %s depends on a score function, since it holds no logits; leave it out", x.File)
	case experts > 0 && d.Level == scenarios.LevelScores && experts != x.Experts:
		return fmt.Errorf("--set experts=%d: %s has the scores of %d", experts, x.File, x.Experts)
	case experts > 0 && experts < x.Experts:
		return fmt.Errorf("--set experts=%d: %s chooses expert %d", experts, x.File, x.Experts-1)
	}
	if d.Level == scenarios.LevelChoices {
		x.Notes = slices.DeleteFunc(slices.Clone(x.Notes), func(n string) bool { return strings.Contains(n, "largest id") })
		if x.Experts = max(x.Experts, experts); experts == 0 {
			x.Notes = append(x.Notes, fmt.Sprintf("the number of experts is taken from the largest id of all layers, %d; --set experts=E corrects it", x.Experts-1))
		}
	}
	if x.Ranks == 0 {
		x.Ranks = x.Experts
	}
	if x.Experts%x.Ranks != 0 {
		return fmt.Errorf("--ranks is %d: it must divide the experts, of which %s has %d", x.Ranks, x.File, x.Experts)
	}
	if d.Choices != nil {
		return nil
	}
	if topk > 0 {
		x.TopK = topk
	}
	if d.Counts != nil {
		x.Chosen = "the file's counts"
		if topk == 0 {
			return fmt.Errorf("%s holds counts, which do not say how many experts a token chooses: add --set topk=K", x.File)
		}
	}
	switch {
	case x.TopK == 0:
		return fmt.Errorf("%s has no topk_ids, so it does not say how many experts a token chooses: add --set topk=K", x.File)
	case x.TopK > x.Experts:
		return fmt.Errorf("--set topk=%d: it must be 1 to experts, which is %d", x.TopK, x.Experts)
	}
	if d.Counts == nil {
		x.Chosen = fmt.Sprintf("the top %d of the scores", x.TopK)
	}
	return nil
}
