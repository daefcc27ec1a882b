package strategies

import (
	"fmt"

	"evenkeel/moe"
)

// idle is a selection among experts of which the last ones compute nothing: choosing one leaves a token with fewer that do.
type idle struct {
	selection
	real int // N, experts that compute
	zero int // Z, those that do not
}

func (i idle) declare(t *moe.Traits) {
	t.Varies, t.Idle = true, i.zero
	if p, ok := i.selection.(declarer); ok {
		p.declare(t)
	}
}

// note is what a reader of the results must know.
func (i idle) note() string {
	return fmt.Sprintf("the last %d of %d experts compute nothing: loads are those of the other %d, and affinity for the %d is lost",
		i.zero, i.real+i.zero, i.real, i.zero)
}

func (i idle) choose(t *moe.Tile, s, bias []float32, w *moe.Scratch, mask []uint64) {
	i.selection.choose(t, s, bias, w, mask)
	clear(mask[i.real:])
}

var zeroKnob = Knob{Name: "zero", Default: "0", Whole: true, Low: 0, High: moe.MaxExperts,
	About: "Z, experts of the layer that compute nothing, the last ones; 0 for a third of them (LongCat-Flash: 256 beside 512, from memory)"}

// idle returns top-K over a layer whose last experts compute nothing.
func (v Values) idle(l moe.Layer) (idle, error) {
	z := v.Whole("zero")
	if z == 0 {
		z = max(1, l.Experts/3)
	}
	if l.Experts-z < l.TopK {
		return idle{}, fmt.Errorf("zero is %d: it must leave at least topk, which is %d, of %d experts that compute: use zero=%d or fewer",
			z, l.TopK, l.Experts, l.Experts-l.TopK)
	}
	return idle{topK{l}, l.Experts - z, z}, nil
}

var nullExperts = Preset{
	Name:    "null-experts",
	Family:  "structure",
	Summary: "top-K over experts of which some compute nothing, so that tokens choose how many they need",
	Formula: `S_t = TopK(s_t) over N real and Z zero experts;  a zero expert has gate 0, the others' gates are divided by their sum

It balances nothing. MoE++ has one expert of each of three kinds or two, zero, copy and constant; the outputs of copies and
constants are not part of this simulator's task, so all Z are zero experts here.`,
	Knobs:   []Knob{zeroKnob, scoreKnob},
	Needs:   "the scores of all experts",
	Changes: "which experts, gates",
	Fails:   "nothing sets how many real experts a token gets; zero experts get no gradient, so a router that learns comes to choose none of them; it has Z fewer experts that compute than what it is compared with",
	Paper:   "MoE++ (Jin et al. 2024, arXiv 2410.07348); null experts: AdaMoE (2024, arXiv 2406.13233)",
	Read:    "code, of inference only; its gating residual, weighted load loss and heterogeneous capacity are left out, and AdaMoE's loss is not read",
	Build: func(v Values, l moe.Layer) (*strategy, error) {
		score, warnings, err := v.score(l)
		if err != nil {
			return nil, err
		}
		choose, err := v.idle(l)
		if err != nil {
			return nil, err
		}
		return compose(&strategy{layer: l, score: score, selection: choose,
			traits: moe.Traits{Causal: true, Warnings: warnings, Notes: []string{choose.note()}}}), nil
	},
}
