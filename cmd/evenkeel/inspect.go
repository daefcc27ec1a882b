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
	var asJSON bool
	c := &cobra.Command{
		Use:   "inspect TRACE",
		Short: "Show what is in a trace: level of detail, shapes, loads by layer and domain against the floor",
		Example: `  evenkeel inspect router.npz
  evenkeel inspect tinymoe
  evenkeel inspect logits.npz --set topk=8 --set score=softmax`,
		Args: cobra.ExactArgs(1),
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
			x, err := inspect(name, settings)
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
	c.Flags().StringArrayVar(&settings, "set", nil, "topk=K or score=NAME, where the file does not say")
	c.Flags().BoolVar(&asJSON, "json", false, "print as JSON")
	return c
}

func inspect(name string, settings []string) (*inspection, error) {
	topk, score := 0, moe.Sigmoid
	for _, s := range settings {
		var err error
		switch key, value, _ := strings.Cut(s, "="); key {
		case "topk":
			topk, err = strconv.Atoi(value)
		case "score":
			score, err = moe.ParseScore(value)
		default:
			err = fmt.Errorf("--set %s: inspect knows topk and score", s)
		}
		if err != nil {
			return nil, err
		}
	}
	var x *inspection
	for layer := 0; x == nil || layer < x.Layers; layer++ {
		d, sum, err := scenarios.ReadDump(name, layer)
		if err != nil {
			return nil, err
		}
		if x == nil {
			x = &inspection{File: name, SHA256: sum, Level: d.Level, Layers: d.Layers, Tokens: d.Tokens, Experts: d.Experts, TopK: d.TopK,
				Width: d.Width, Notes: d.Notes, Chosen: "the file's topk_ids"}
			if topk > 0 && d.Choices == nil {
				x.TopK = topk
			}
			if d.Choices == nil {
				x.Chosen = fmt.Sprintf("the top %d of the scores", x.TopK)
			}
			if x.TopK == 0 {
				return nil, fmt.Errorf("%s has no topk_ids, so it does not say how many experts a token chooses: add --set topk=K", name)
			}
			if x.TopK < 1 || x.TopK > d.Experts {
				return nil, fmt.Errorf("topk is %d: it must be 1 to experts, which is %d", x.TopK, d.Experts)
			}
		}
		x.Experts = max(x.Experts, d.Experts)
		x.Loads = append(x.Loads, loadsOf(d, layer, x.TopK, score))
	}
	return x, nil
}

// loadsOf counts the choices of one layer, by domain and in all.
func loadsOf(d *scenarios.Dump, layer, topk int, score moe.Score) loadsOfTheLayer {
	choices := d.Choices
	if choices == nil {
		choices = chooseAll(d, topk, score)
	}
	domains := d.Domains()
	n := make([]int64, (domains+1)*d.Experts)
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
					n[row*d.Experts+int(e)]++
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
		counts := n[row*d.Experts : (row+1)*d.Experts]
		m := metrics.Measure(counts)
		l.Domains = append(l.Domains, loadsOfTheDomain{name, tokens[row], m.MaxVio, metrics.SamplingFloor(d.Experts, topk, tokens[row]).MaxVio,
			m.CV, m.Dead, m.Starved, slices.Index(counts, slices.Max(counts))})
	}
	return l
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
