package main

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"evenkeel/internal/vec"
	"evenkeel/metrics"
	"evenkeel/moe"
	"evenkeel/scenarios"
)

// inspection is what inspect finds in a trace.
type inspection struct {
	File    string            `json:"file"`
	SHA256  string            `json:"sha256"`
	Level   string            `json:"level"`
	Layers  int               `json:"layers"`
	Tokens  int               `json:"tokens"`
	Experts int               `json:"experts"`
	TopK    int               `json:"topk"`
	Width   int               `json:"width,omitempty"`
	Chosen  string            `json:"chosen"` // whose choice the loads are
	Notes   []string          `json:"notes,omitempty"`
	Loads   []loadsOfTheLayer `json:"loads"`
}

type loadsOfTheLayer struct {
	Layer   int                `json:"layer"`
	Domains []loadsOfTheDomain `json:"domains"` // the last one is all tokens
}

type loadsOfTheDomain struct {
	Name    string  `json:"name"`
	Tokens  int     `json:"tokens"`
	MaxVio  float64 `json:"maxvio"`
	Floor   float64 `json:"floor"`
	CV      float64 `json:"cv"`
	Dead    int     `json:"dead"`
	Starved int     `json:"starved"`
	Busiest int     `json:"busiest"`
}

func inspectCommand(stdout io.Writer) *cobra.Command {
	var settings []string
	var columns columnFlags
	var asJSON bool
	c := &cobra.Command{
		Use:   "inspect TRACE",
		Short: "Show what is in a trace: level of detail, shapes, loads by layer and domain against the floor",
		Example: `  evenkeel inspect router.npz
  evenkeel inspect tinymoe
  evenkeel inspect routes.jsonl --map topk_ids=experts
  evenkeel inspect logits.npz --set topk=8 --set score=softmax`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return fmt.Errorf("inspect takes one trace, got %d: name a trace file or tinymoe", len(args))
			}
			return nil
		},
		RunE: func(_ *cobra.Command, args []string) error {
			name := strings.TrimPrefix(args[0], "trace:")
			if slices.Contains(scenarios.Names(), name) {
				s, err := scenarios.Load(name, nil, -1)
				if err != nil {
					return err
				}
				if s.Trace == nil {
					return fmt.Errorf("scenario %s is drawn, not a trace: there is nothing to inspect, see evenkeel scenarios %s", name, name)
				}
				name = s.Trace.File
			}
			x, err := inspect(name, settings, columns)
			if err != nil {
				return err
			}
			if asJSON {
				e := json.NewEncoder(stdout)
				e.SetIndent("", "  ")
				return e.Encode(x)
			}
			return x.print(stdout)
		},
	}
	c.Flags().StringArrayVar(&settings, "set", nil, "topk=K, experts=E, score=NAME, layers=L or padding=ID, where the file does not say")
	columns.add(c.Flags())
	c.Flags().BoolVar(&asJSON, "json", false, "print as JSON")
	return c
}

func inspect(name string, settings []string, columns columnFlags) (*inspection, error) {
	given, score := map[string]int{}, moe.Sigmoid
	for _, s := range settings {
		var err error
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
			return nil, err
		}
	}
	file, err := scenarios.OpenTrace(name, columns.reading(given))
	if err != nil {
		return nil, err
	}
	defer file.Close()
	first, err := file.Dump(0)
	if err != nil {
		return nil, err
	}
	sum, err := file.SHA256()
	if err != nil {
		return nil, err
	}
	dumps := []*scenarios.Dump{first}
	x := &inspection{File: name, SHA256: sum, Level: first.Level, Layers: first.Layers, Tokens: first.Tokens, Experts: first.Experts,
		TopK: first.TopK, Width: first.Width, Notes: first.Notes, Chosen: "the file's topk_ids"}
	for layer := 1; layer < first.Layers; layer++ {
		d, err := file.Dump(layer)
		if err != nil {
			return nil, err
		}
		dumps = append(dumps, d)
		x.Experts = max(x.Experts, d.Experts)
	}
	if err := x.settle(first, given); err != nil {
		return nil, err
	}
	for layer, d := range dumps {
		x.Loads = append(x.Loads, loadsOf(d, layer, x.Experts, x.TopK, score))
	}
	return x, nil
}

// settle completes what the file says by the settings, which must not contradict it.
func (x *inspection) settle(d *scenarios.Dump, given map[string]int) error {
	experts, topk := given["experts"], given["topk"]
	switch {
	case topk > 0 && d.Choices != nil && topk != d.TopK:
		return fmt.Errorf("--set topk=%d: the topk_ids of %s hold %d experts per token, and their loads are shown; leave it out", topk, x.File, d.TopK)
	case given["score"] > 0 && (d.Stored() || d.Choices != nil):
		return fmt.Errorf("--set score: the loads of %s do not depend on a score function, since it holds choices or scores; leave it out", x.File)
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
	if d.Choices != nil {
		return nil
	}
	if d.Counts != nil {
		x.Chosen = "the file's counts"
		if x.TopK = topk; topk == 0 {
			return fmt.Errorf("%s holds counts, which do not say how many experts a token chooses: add --set topk=K", x.File)
		}
		return nil
	}
	if topk > 0 {
		x.TopK = topk
	}
	switch {
	case x.TopK == 0:
		return fmt.Errorf("%s has no topk_ids, so it does not say how many experts a token chooses: add --set topk=K", x.File)
	case x.TopK > x.Experts:
		return fmt.Errorf("--set topk=%d: it must be 1 to experts, which is %d", x.TopK, x.Experts)
	}
	x.Chosen = fmt.Sprintf("the top %d of the scores", x.TopK)
	return nil
}

// loadsOf counts the choices of one layer, by domain and in all.
func loadsOf(d *scenarios.Dump, layer, experts, topk int, score moe.Score) loadsOfTheLayer {
	if d.Counts != nil {
		return loadsOfCounts(d, layer, topk)
	}
	choices := d.Choices
	if choices == nil {
		choices = chooseAll(d, topk, score)
	}
	domains := d.Domains()
	n := make([]int64, (domains+1)*experts)
	tokens := make([]int, domains+1)
	for t := range d.Tokens {
		rows := []int{domains}
		if domains > 0 {
			rows = append(rows, int(d.Domain[t]))
		}
		for _, row := range rows {
			tokens[row]++
			for _, e := range choices[t*topk : (t+1)*topk] {
				if e >= 0 {
					n[row*experts+int(e)]++
				}
			}
		}
	}
	l := loadsOfTheLayer{Layer: layer}
	for row := range domains + 1 {
		name := "all"
		if row < domains {
			name = strconv.Itoa(row)
		}
		if tokens[row] == 0 {
			continue
		}
		counts := n[row*experts : (row+1)*experts]
		m := metrics.Measure(counts)
		l.Domains = append(l.Domains, loadsOfTheDomain{name, tokens[row], m.MaxVio, metrics.SamplingFloor(experts, topk, tokens[row]).MaxVio,
			m.CV, m.Dead, m.Starved, slices.Index(counts, slices.Max(counts))})
	}
	return l
}

// loadsOfCounts sums the counts of all steps.
func loadsOfCounts(d *scenarios.Dump, layer, topk int) loadsOfTheLayer {
	n := make([]int64, d.Experts)
	var total int64
	for i, v := range d.Counts {
		n[i%d.Experts] += v
		total += v
	}
	m, tokens := metrics.Measure(n), int(total)/topk
	return loadsOfTheLayer{layer, []loadsOfTheDomain{{"all", tokens, m.MaxVio, metrics.SamplingFloor(d.Experts, topk, max(1, tokens)).MaxVio, m.CV, m.Dead, m.Starved,
		slices.Index(n, slices.Max(n))}}}
}

// chooseAll routes a trace by its own scores and bias.
func chooseAll(d *scenarios.Dump, topk int, score moe.Score) []int32 {
	if d.Stored() {
		score = moe.Stored
	}
	q := vec.NewSelector(topk, 1)
	tile, mask := make([]float32, d.Experts*vec.Lanes), make([]uint64, d.Experts)
	choices := make([]int32, 0, d.Tokens*topk)
	for from := 0; from < d.Tokens; from += vec.Lanes {
		n := min(vec.Lanes, d.Tokens-from)
		for t := range n {
			for e := range d.Experts {
				tile[e*vec.Lanes+t] = d.Scores[(from+t)*d.Experts+e]
			}
		}
		score.Apply(tile, tile, d.Experts)
		q.TopK(mask, tile, d.Bias, ^uint64(0)>>(vec.Lanes-n), nil)
		for t := range n {
			for e, m := range mask {
				if m>>t&1 != 0 {
					choices = append(choices, int32(e))
				}
			}
		}
	}
	return choices
}

func (x *inspection) print(w io.Writer) error {
	fmt.Fprintf(w, "%s: a trace of %s, %s, %d tokens, %d experts, %d per token", x.File, x.Level, plural(x.Layers, "layer"), x.Tokens, x.Experts, x.TopK)
	if x.Width > 0 {
		fmt.Fprintf(w, ", hidden vectors of %d", x.Width)
	}
	fmt.Fprintf(w, ".\nLoads are those of %s.\n", x.Chosen)
	for _, n := range x.Notes {
		fmt.Fprintf(w, "- %s\n", n)
	}
	fmt.Fprintln(w)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "layer\tdomain\ttokens\tMaxVio\tfloor\tCV\tstarved\tdead\tbusiest expert\t")
	for _, l := range x.Loads {
		for _, d := range l.Domains {
			fmt.Fprintf(t, "%d\t%s\t%d\t%.3f\t%.3f\t%.3f\t%d\t%d\t%d\t\n", l.Layer, d.Name, d.Tokens, d.MaxVio, d.Floor, d.CV, d.Starved, d.Dead, d.Busiest)
		}
	}
	return t.Flush()
}

func plural(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return fmt.Sprintf("%d %s", n, what)
}
