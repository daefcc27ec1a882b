package strategies

import (
	"math"
	"slices"

	"evenkeel/internal/vec"
	"evenkeel/moe"
)

// Rules by which a group limit ranks groups.
const (
	groupsV3       = "v3"
	groupsV2       = "v2"
	groupsMegatron = "megatron"
)

// groupsKnob is the knob of strategies whose top-K may rank groups by another rule than DeepSeek-V3's.
var groupsKnob = Knob{Name: "groups", Default: groupsV3, Options: []string{groupsV3, groupsV2, groupsMegatron},
	About: "under a group limit, the M groups kept have the largest sum of their 2 best s+b (DeepSeek-V3), best s (V2), or sum of their ⌊K/M⌋ best s+b (Megatron-LM)"}

// topK returns top-K with the groups ranked as the knob says.
func (v Values) topK(l moe.Layer) selection {
	switch v.Text("groups") {
	case groupsV2:
		return groupTopK{l, 1, false}
	case groupsMegatron:
		return groupTopK{l, max(1, l.TopK/l.GroupsKept), true}
	}
	return topK{l}
}

// groupTopK is topK with groups ranked by the sum of so many of their best a = s + b (Megatron-LM's group_limited_topk:
// ⌊K/M⌋, here at least 1), or of their best s, without bias (DeepSeek-V2, arXiv 2405.04434, section 2.2.2: the best one).
// Groups with fewer experts count all, ties go to the lower group, and closed groups count as −∞.
type groupTopK struct {
	layer  moe.Layer
	best   int
	biased bool
}

func (k groupTopK) declare(t *moe.Traits) {
	const unlimited = "the scenario has no group limit, so the rule that ranks groups changes nothing: --set groups=8 --set groups_kept=4"
	if !k.layer.Limited() && !slices.Contains(t.Warnings, unlimited) {
		t.Warnings = append(t.Warnings, unlimited)
	}
}

func (k groupTopK) choose(t *moe.Tile, s, bias []float32, w *moe.Scratch, mask []uint64) {
	var allowed []uint64
	if k.layer.Limited() {
		allowed = w.Allowed
		if k.biased {
			k.rank(s, bias, w)
		} else {
			k.rank(s, nil, w)
		}
		k.keep(allowed, w)
	}
	w.Select.TopK(mask, s, bias, t.Live(), allowed)
}

// rank writes the groups' rank values to w.Grad [G][64]. Behind them lie the best so far of one group.
func (k groupTopK) rank(s, bias []float32, w *moe.Scratch) {
	size := k.layer.Experts / k.layer.Groups
	best := min(k.best, size)
	top := w.Grad[k.layer.Groups*vec.Lanes:]
	for g := range k.layer.Groups {
		value := w.Grad[g*vec.Lanes : (g+1)*vec.Lanes]
		if best == 1 {
			top = value // where every group is one expert, there is no room behind
		}
		for i := range best * vec.Lanes {
			top[i] = float32(math.Inf(-1))
		}
		for e := g * size; e < (g+1)*size; e++ {
			var b float32
			if bias != nil {
				b = bias[e]
			}
			for t, v := range (*vec.Row)(s[e*vec.Lanes:]) {
				v += b
				for i := t; i < best*vec.Lanes; i += vec.Lanes {
					v, top[i] = min(v, top[i]), max(v, top[i])
				}
			}
		}
		if best == 1 {
			continue
		}
		copy(value, top)
		for i := vec.Lanes; i < best*vec.Lanes; i++ {
			value[i%vec.Lanes] += top[i]
		}
	}
}

// keep marks the M groups of the largest rank values.
func (k groupTopK) keep(allowed []uint64, w *moe.Scratch) {
	clear(allowed)
	for t := range vec.Lanes {
		for range k.layer.GroupsKept {
			best := -1
			for g, open := range allowed {
				if open>>t&1 == 0 && (best < 0 || w.Grad[g*vec.Lanes+t] > w.Grad[best*vec.Lanes+t]) {
					best = g
				}
			}
			allowed[best] |= 1 << t
		}
	}
}

// perGroup chooses the K/M best a = s + b inside each of M equal groups of consecutive experts, ties to the lower expert.
type perGroup struct {
	layer  moe.Layer
	groups int
}

func (k perGroup) declare(t *moe.Traits) { t.Free = true }

func (k perGroup) choose(t *moe.Tile, s, bias []float32, w *moe.Scratch, mask []uint64) {
	size := k.layer.Experts / k.groups
	for from := 0; from < len(mask); from += size {
		var b []float32
		if bias != nil {
			b = bias[from : from+size]
		}
		w.Select.Best(k.layer.TopK/k.groups, mask[from:from+size], s[from*vec.Lanes:], b, t.Live())
	}
}
