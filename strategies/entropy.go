package strategies

import (
	"evenkeel/internal/vec"
	"evenkeel/moe"
)

// entropyLoss is the mean entropy of the gate over all E experts ("Harder tasks need more experts", 2024, arXiv 2403.07652),
//
//	L = c/T · Σ_t H_t,   H_t = −Σ_e q_te·ln q_te,   ∂L/∂s_tj = −c/(T·Z_t) · (ln q_tj + H_t),
//
// q being the score divided by its sum Z over the experts. It sharpens gates, so that top-p routing takes fewer experts.
// For softmax, ∂H/∂z_j = −p_j·(ln p_j + H).
type entropyLoss struct{ coeff float64 }

func (entropyLoss) prepare(*moe.Outcome) {}

func (l entropyLoss) addGradient(b *moe.Batch, tile int, s, g []float32, w *moe.Scratch) (loss float64) {
	e, logs := b.Layer.Experts, w.Room
	inverse, entropy := &w.Rows[0], &w.Rows[1]
	*inverse, *entropy = vec.Row{}, vec.Row{}
	for i := range e {
		for t, v := range row(s, i) {
			inverse[t] += v
		}
	}
	vec.Invert(inverse)
	for i := range e {
		from, to := row(s, i), row(logs, i)
		for t, v := range from {
			q := float32(v * inverse[t])
			to[t] = vec.Log(max(q, 1e-30)) // q·ln q is 0 at 0
			entropy[t] -= float32(q * to[t])
		}
	}
	share := l.coeff / float64(b.Tokens)
	for t := range inverse {
		if t < b.Tiles[tile].Tokens {
			loss += float64(share * float64(entropy[t]))
			inverse[t] *= float32(share)
		} else {
			inverse[t] = 0
		}
	}
	for i := range e {
		from, to := row(logs, i), row(g, i)
		for t, v := range from {
			to[t] -= float32(inverse[t] * (v + entropy[t]))
		}
	}
	return loss
}
