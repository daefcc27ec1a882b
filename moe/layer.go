// Package moe names what all of Evenkeel talks about: the shape of a Mixture-of-Experts layer, a batch of tokens, an
// assignment of tokens to experts, and loads; and the two interfaces that meet in the step loop, a Stream that yields
// batches and a Strategy that routes them. It computes counts, and nothing that one could disagree about.
//
// Letters are those of the papers: T tokens, E routed experts, K chosen per token, d the width of a latent vector, G groups
// of experts of which a token may touch M; z logits, s scores, b selection bias, n_e the assignments of expert e in a scope
// and r_e = n_e/(TK/E) its relative load.
package moe

import (
	"fmt"
	"strings"

	"evenkeel/internal/vec"
)

// Layer is the shape of one MoE layer.
type Layer struct {
	Experts    int   // E, routed experts
	TopK       int   // K, experts chosen per token
	Width      int   // d, width of a latent vector; 0 where a stream has none
	Groups     int   // G, equal groups of consecutive experts (nodes or devices); 1 for none
	GroupsKept int   // M, groups that one token may touch
	Score      Score // from logits to scores
	Gate       Gate  // of strategies that do not bring their own; the zero value is normalised gates
}

// MaxExperts is the largest number of experts that a layer may have.
const MaxExperts = 4096

// Validate says what is wrong with the shape, in one sentence.
func (l Layer) Validate() error {
	switch {
	case l.Experts < 2 || l.Experts > MaxExperts:
		return fmt.Errorf("experts is %d: it must be 2 to %d", l.Experts, MaxExperts)
	case l.TopK < 1 || l.TopK > l.Experts:
		return fmt.Errorf("topk is %d: it must be 1 to experts, which is %d", l.TopK, l.Experts)
	case l.Width < 0 || l.Width > 1<<16:
		return fmt.Errorf("width is %d: it must be 1 to %d", l.Width, 1<<16)
	case l.Groups < 1 || l.Experts%l.Groups != 0:
		return fmt.Errorf("groups is %d: it must divide experts, which is %d", l.Groups, l.Experts)
	case l.GroupsKept < 1 || l.GroupsKept > l.Groups:
		return fmt.Errorf("groups_kept is %d: it must be 1 to groups, which is %d", l.GroupsKept, l.Groups)
	case l.GroupsKept*l.Experts/l.Groups < l.TopK:
		return fmt.Errorf("groups_kept is %d: %d groups of %d experts hold fewer than topk, which is %d",
			l.GroupsKept, l.GroupsKept, l.Experts/l.Groups, l.TopK)
	}
	return nil
}

// Ungrouped is the layer without its groups.
func (l Layer) Ungrouped() Layer {
	l.Groups, l.GroupsKept = 1, 1
	return l
}

// Limited reports whether a token may touch only some of the groups.
func (l Layer) Limited() bool { return l.GroupsKept < l.Groups }

// Score is a function from a token's logits z to its scores s.
type Score int

// The score functions.
const (
	Sigmoid      Score = iota // s_e = 1/(1+e^−z_e)
	Softmax                   // s_e = e^z_e / Σ_i e^z_i
	SqrtSoftplus              // s_e = √ln(1+e^z_e), DeepSeek-V4
	Stored                    // s_e = z_e: a stream that carries scores as a router stored them
	ReLU                      // s_e = max(z_e, 0), ReMoE
)

var scoreNames = []string{"sigmoid", "softmax", "sqrt-softplus", "stored", "relu"}

// String returns the name by which ParseScore knows the function.
func (f Score) String() string { return scoreNames[f] }

// ScoreNames lists the score functions that a user may ask for: those whose scores are positive, so that gates have a sum.
func ScoreNames() []string { return scoreNames[:Stored] }

// ParseScore returns the score function of a name.
func ParseScore(name string) (Score, error) {
	for i, n := range ScoreNames() {
		if n == name {
			return Score(i), nil
		}
	}
	return 0, fmt.Errorf("score is %q: it must be one of %s", name, strings.Join(ScoreNames(), ", "))
}

// Apply computes the scores s of a tile of logits z, both [experts][64]; s and z may be the same.
func (f Score) Apply(s, z []float32, experts int) {
	switch f {
	case Sigmoid:
		vec.Sigmoid(s, z, experts)
	case Softmax:
		vec.Softmax(s, z, experts)
	case SqrtSoftplus:
		vec.SqrtSoftplus(s, z, experts)
	case Stored:
		copy(s, z[:experts*vec.Lanes])
	case ReLU:
		for i, v := range z[:experts*vec.Lanes] {
			s[i] = max(v, 0)
		}
	}
}

// Logits computes from the scores s of a tile the logits z that Apply makes them of, softmax's up to a number that all experts
// of a token share. It takes scores as they were rounded: those of a sigmoid tell logits about z > 0 apart that differ by
// e^z·2^−24 or more, 1e-3 at 10 and 0.2 at 15, and none above 17. Stored
// scores count as their own logits, and a ReLU's zeros have none but 0.
func (f Score) Logits(z, s []float32, experts int) {
	s, z = s[:experts*vec.Lanes], z[:experts*vec.Lanes]
	const least = 0x1p-126 // of the scores that vec.Log takes
	switch f {
	case Sigmoid:
		for i, v := range s {
			z[i] = vec.Log(max(v, least)) - vec.Log(max(1-v, 0x1p-25))
		}
	case Softmax:
		for i, v := range s {
			z[i] = vec.Log(max(v, least))
		}
	case SqrtSoftplus: // e^z = e^(s²) − 1
		for i, v := range s {
			if q := float32(v * v); q < 0.1 {
				z[i] = vec.Log(max(q+float32(float32(q*q)*(0.5+float32(q*(1./6+float32(q*(1./24)))))), least))
			} else {
				z[i] = q + vec.Log(1-vec.Exp(-q))
			}
		}
	default:
		copy(z, s)
	}
}

// Backward turns g = ∂L/∂s into ∂L/∂z in place, for the scores s of a tile.
func (f Score) Backward(g, s []float32, experts int) {
	switch f {
	case Sigmoid:
		vec.SigmoidBackward(g, s, experts)
	case Softmax:
		vec.SoftmaxBackward(g, s, experts)
	case SqrtSoftplus:
		vec.SqrtSoftplusBackward(g, s, experts)
	case ReLU:
		for i, v := range s[:experts*vec.Lanes] {
			if v == 0 {
				g[i] = 0
			}
		}
	}
}
