package strategies

import (
	"math"
	"math/bits"

	"evenkeel/internal/vec"
	"evenkeel/moe"
)

// Assignment rules are revisions: they see a whole batch before they choose, so that a token's experts depend on other
// tokens, later ones included, and none of them is causal. None knows of group limits. This file holds what they share.

// trainingOnly is the habit of a rule that its authors leave out at inference, where each token takes its own K best.
type trainingOnly struct{ always bool }

// greedy reports whether the plain top-K, which the composition's selection has marked, is to stand.
func (o trainingOnly) greedy(b *moe.Batch) bool { return !o.always && !b.Tiles[0].Training }

func (o trainingOnly) declare(t *moe.Traits) { t.TrainingOnly = t.TrainingOnly || !o.always }

// evaluateKnob chooses between a rule and the plain top-K where the rule is published for training only.
func evaluateKnob(rule string) Knob {
	return Knob{Name: "evaluate", Default: "greedy", Options: []string{"greedy", rule},
		About: "outside training: each token's own K best, as published, or the rule there too"}
}

// trainingOnly reads the knob, and says what the figures then mean.
func (v Values) trainingOnly() (o trainingOnly, notes []string) {
	if o.always = v.Text("evaluate") != "greedy"; o.always {
		return o, nil
	}
	return o, []string{"as published it assigns in training only: batch MaxVio is of the assignment; global MaxVio, affinity, output error, churn and all else of the evaluation are of each token's own K best, by a router that trained under it"}
}

// free is the layer without its group limit.
func free(l moe.Layer) moe.Layer {
	l.GroupsKept = l.Groups
	return l
}

// favourites finds the best expert of each of a tile's lanes among those not tried, ties to the lowest, and −1 for a lane
// that has tried all. tried holds one word for each expert.
func favourites(best *[moe.TileTokens]int32, s []float32, tried []uint64, lanes uint64) {
	var top vec.Row
	for l := range best {
		best[l] = -1
	}
	for e, t := range tried {
		row := (*vec.Row)(s[e*vec.Lanes:])
		for m := lanes &^ t; m != 0; m &= m - 1 {
			l := bits.TrailingZeros64(m)
			if best[l] < 0 || row[l] > top[l] {
				best[l], top[l] = int32(e), row[l]
			}
		}
	}
}

// nextBest serves every token that lacks an expert by the best one that still has room, in rounds: all that lack one propose
// to their best expert not yet tried, and each expert admits proposals in token order while it has room. It is MaxScore's
// iterative rule, and the way in which a capacity rule may send overflow elsewhere.
//
// want holds the lanes of each tile that lack an expert, and on return those that none had room for; tried [tile·E] holds
// the experts that a token has, or must not ask, and receives those it asks; mask [tile·E] and room [E] receive the outcome.
func nextBest(b *moe.Batch, s []float32, want, tried, mask []uint64, room []int) {
	e := len(room)
	var best [moe.TileTokens]int32
	for asked := true; asked; {
		asked = false
		for i := range b.Tiles {
			if want[i] == 0 {
				continue
			}
			tried, mask := tried[i*e:(i+1)*e], mask[i*e:(i+1)*e]
			favourites(&best, s[i*e*vec.Lanes:(i+1)*e*vec.Lanes], tried, want[i])
			for m := want[i]; m != 0; m &= m - 1 {
				bit, x := m&-m, best[bits.TrailingZeros64(m)]
				if x < 0 {
					continue
				}
				asked = true
				tried[x] |= bit
				if room[x] > 0 {
					room[x]--
					mask[x] |= bit
					want[i] &^= bit
				}
			}
		}
	}
}

// logits recovers the logits z of a tile from its scores s, both [E][64], for rules that are defined on logits. For softmax
// scores they are short of a constant for each token, and stored scores, whose function is unknown, stand for themselves.
func logits(f moe.Score, z, s []float32) {
	const least, below1 = 1e-37, 1 - 1.0/(1<<24) // where a score of a finite logit has been rounded to 0 or 1
	switch f {
	case moe.Sigmoid:
		for i, v := range s {
			v = min(max(v, least), below1)
			z[i] = vec.Log(v) - vec.Log(1-v)
		}
	case moe.Softmax:
		for i, v := range s {
			z[i] = vec.Log(max(v, least))
		}
	case moe.SqrtSoftplus: // e^z = e^x − 1 with x = s²
		for i, v := range s {
			x := max(float32(v*v), least)
			part := 1 - vec.Exp(-x)
			if x < 1./64 {
				part = float32(x * (1 - float32(x*(0.5-x/6))))
			}
			z[i] = x + vec.Log(part)
		}
	default:
		copy(z, s)
	}
}

// storedWarning warns where a rule of logits meets scores of an unknown function.
func storedWarning(l moe.Layer) []string {
	if l.Score != moe.Stored {
		return nil
	}
	return []string{"it works on logits, and this stream carries scores, which it takes as if they were logits: dump logits"}
}

// rankKey orders the tokens of one expert by score, then by place in the batch, the earlier one first: the larger key leads.
func rankKey(s float32, token int) int64 {
	i := int32(math.Float32bits(s + 0)) // adding 0 makes −0 and +0 one
	if i < 0 {
		i ^= math.MaxInt32
	}
	return int64(i)<<32 | int64(math.MaxInt32-token)
}

// resize returns a slice of the given length, with what it held or anything else in it.
func resize[T any](x []T, n int) []T {
	if cap(x) < n {
		return make([]T, n)
	}
	return x[:n]
}
