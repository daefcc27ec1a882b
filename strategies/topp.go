package strategies

import (
	"math"
	"slices"

	"evenkeel/internal/order"
	"evenkeel/internal/vec"
	"evenkeel/moe"
)

// topP chooses the fewest best experts whose scores sum to more than p, or all where none do; ties to the lowest expert.
type topP struct {
	topK int // about how many these are
	p    float64
}

func (topP) declare(t *moe.Traits) { t.Varies, t.Free = true, true }

func (k topP) choose(t *moe.Tile, s, _ []float32, w *moe.Scratch, mask []uint64) {
	clear(mask)
	for lane := range t.Tokens {
		for e := range w.Order { // larger for the larger score, of equal ones for the lower expert; scores are not negative
			w.Order[e] = int64(math.Float32bits(s[e*vec.Lanes+lane]))<<32 | int64(^uint32(e))
		}
		for _, r := range k.prefix(w.Order) {
			mask[^uint32(r)] |= 1 << lane
		}
	}
}

// prefix returns the ranks that are chosen. It sorts as many of the best as seem enough, and twice as many where they are not.
func (k topP) prefix(ranks []int64) []int64 {
	for n := min(2*k.topK, len(ranks)); ; n = min(2*n, len(ranks)) {
		order.Nth(ranks, len(ranks)-n)
		best := ranks[len(ranks)-n:]
		slices.Sort(best)
		var sum float64
		for i := n - 1; i >= 0; i-- {
			if sum += float64(math.Float32frombits(uint32(best[i] >> 32))); sum > k.p {
				return best[i:]
			}
		}
		if n == len(ranks) {
			return ranks
		}
	}
}

var topPPreset = Preset{
	Name:    "top-p",
	Family:  "quantiles",
	Summary: "the fewest best experts whose softmax scores together exceed p: more for tokens of which the router is unsure",
	Formula: `s = softmax(z);  S_t = the shortest prefix of the experts, best first, with Σ s > p
g = s, not divided by its sum
L = α · Σ_e w_e·P_e + c · mean over t of H_t,   w_e = E·n_e/(KT) over the step,   H_t = −Σ_e s_te·ln s_te

Both losses are off unless asked for: their published weights, balance 1e-2 and entropy 1e-4, are from memory. An untrained, flat softmax selects p·E experts.`,
	Knobs: []Knob{
		{Name: "p", Default: "0.4", Low: 0, High: 1, About: "p, mass that the chosen must exceed, a share of 1"},
		{Name: "coeff", Default: "0", Low: 0, High: 1e6, About: "α of a balancing loss, whose value is 1 where loads are even and tokens have K experts; 0 for none"},
		{Name: "entropy", Default: "0", Low: 0, High: 1e6, About: "c, price of a token's entropy in nats, which holds the number of experts down; 0 for none"},
	},
	Needs:   "softmax scores of all experts; compute that may vary by token; a router that learns, for losses",
	Changes: "which experts, how many, gates; gradient with losses",
	Fails:   "the number of experts follows the router's sharpness and nothing holds it to K; does not balance; ignores a group limit",
	Paper:   "Harder Tasks Need More Experts (Huang et al. 2024, arXiv 2403.07652)",
	Read:    "code (ZhenweiAn/Dynamic_MoE), for the routing; weights of its losses from memory",
	Build: func(v Values, l moe.Layer) (*strategy, error) {
		score, warnings, err := Values{"score": moe.Softmax.String()}.score(l)
		if err != nil {
			return nil, err
		}
		var losses []loss
		if alpha := v.Number("coeff"); alpha > 0 {
			balance := newLoss(alpha, scopeGlobal)
			balance.plain = score == moe.Softmax
			losses = append(losses, balance)
		}
		if c := v.Number("entropy"); c > 0 {
			losses = append(losses, entropyLoss{coeff: c})
		}
		return compose(&strategy{layer: l, score: score, selection: topP{l.TopK, v.Number("p")}, losses: losses,
			traits: moe.Traits{Causal: true, Gate: moe.Gate{Scale: 1}, Warnings: append(warnings, freeWarnings(l)...), Notes: []string{variesNote}}}), nil
	},
}
