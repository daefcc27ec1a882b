package strategies

import (
	"evenkeel/internal/rng"
	"evenkeel/internal/vec"
	"evenkeel/moe"
)

// gumbelTopK chooses by the K largest z + G in training, G being standard Gumbel noise for every token and expert, which
// draws K experts without replacement with chances in proportion to e^z (DeepSpeed's RSample, there for K = 1). Gates are
// undisturbed. Groups are chosen without noise.
type gumbelTopK struct {
	topK
	score moe.Score
}

func (k gumbelTopK) choose(t *moe.Tile, s, bias []float32, w *moe.Scratch, mask []uint64) {
	if !t.Training {
		k.topK.choose(t, s, bias, w, mask)
		return
	}
	race(t, s, w.Room, k.layer.Experts, k.score)
	w.Select.TopK(mask, w.Room, nil, t.Live(), k.allowed(s, bias, w))
}

// race fills keys [E][64] with e^z/X, X = −ln u exponential, which orders experts as z + G does, G = −ln X.
func race(t *moe.Tile, s, keys []float32, experts int, score moe.Score) {
	for e := range experts {
		r := rng.New(rng.Mix(t.Key + gumbelDraws + uint64(e)))
		from, to := row(s, e), row(keys, e)
		for l, v := range from {
			to[l] = expLogit(score, v) / -vec.Log(chance(&r))
		}
	}
}

// expLogit returns e^z, up to a factor that is the same for all experts of a token, of a logit z with score s.
func expLogit(f moe.Score, s float32) float32 {
	switch f {
	case moe.Softmax:
		return s
	case moe.Sigmoid:
		return s / max(1-s, 0x1p-24)
	case moe.SqrtSoftplus:
		return vec.Exp(float32(s*s)) - 1
	}
	return vec.Exp(s)
}
