package scenarios

import (
	"errors"
	"fmt"
	"math"
)

// Ways to complete the unseen scores of choices.
const (
	completeNone       = "none"
	completeFlat       = "flat"
	completePopularity = "popularity"
)

// complete gives choices with weights the scores that the trace does not hold, so that strategies can be replayed on them.
// It is an assumption, never made unless asked for, and a note says so with every result.
//
// Let S be the experts chosen for a token and w_e their weights. The scores are shares of a softmax over all experts:
//
//	s_e = m·w_e                        for e in S
//	s_e = min(R·u_e / Σ_{j∉S} u_j, c)  for e not in S
//	R   = 1 − Σ_{e∈S} s_e              what is left for the unseen
//	c   = min_{e∈S} s_e                just below it, so that the top K are those that were chosen
//
// m is 1 where the weights are shares of the softmax, as their sums below 1 show. Where they were renormalised to sum to 1, m
// is the mass of the chosen, which the trace does not hold and the user gives. u_e is 1 (flat), or the expert's popularity:
// its mean weight over all tokens of the trace. What the bound c cuts off is lost, and its mean over tokens is reported. A
// token of padding only has s_e = 1/E for all. Nothing shifts from one unseen expert to another, so the order of their
// scores is u's: which of them comes next is not known of any single token.
func (d *Dump) complete(how string, mass float64) error {
	switch {
	case how != completeFlat && how != completePopularity:
		return fmt.Errorf("trace.complete is %q: want none, flat or popularity", how)
	case d.Level != LevelChoices:
		return fmt.Errorf("trace.complete is for choices, and this is a trace of %s: leave it out", d.Level)
	case d.Weights == nil:
		return errors.New("trace.complete needs topk_weights, and the trace holds ids only: without weights nothing says how close the unseen experts came")
	}
	renormalised, err := d.renormalised()
	switch {
	case err != nil:
		return err
	case renormalised && mass == 0:
		return errors.New("the weights of every token sum to 1, so they were renormalised and the mass of the unseen experts is unknown: give the share of the softmax on the chosen, such as --set trace.mass=0.4")
	case renormalised && (mass <= 0 || mass > 1):
		return fmt.Errorf("trace.mass is %g: want a share above 0 and up to 1", mass)
	case !renormalised && mass != 0:
		return errors.New("trace.mass is for weights that were renormalised to sum to 1; these were not, their sums are the mass: leave it out")
	}
	if !renormalised {
		mass = 1
	}
	u := d.popularity(how)
	var total float64
	for _, v := range u {
		total += v
	}
	d.Scores = make([]float32, d.Tokens*d.Experts)
	var left, cut float64
	for t := range d.Tokens {
		l, c := d.completeToken(t, u, total, mass)
		left += l
		cut += c
	}
	d.Level, d.stored = LevelCompleted, true
	text := "flat"
	if how == completePopularity {
		text = "in proportion to their mean weight in the trace"
	}
	given := ""
	if renormalised {
		given = fmt.Sprintf(" (trace.mass %g)", mass)
	}
	d.Notes = append(d.Notes, fmt.Sprintf("the scores of experts that were not chosen are assumed, not recorded: they share the mass that the chosen leave, %.3g of 1 in the mean%s, %s, each bounded by the smallest chosen weight of the token, which cut off %.3g; tokens with assumed scores alike change their choice together, so rules look less even than on recorded scores",
		left/float64(d.Tokens), given, text, cut/float64(d.Tokens)))
	return nil
}

// renormalised reports whether the weights of every token sum to 1, to within what bfloat16 rounds.
func (d *Dump) renormalised() (bool, error) {
	const tolerance = 0.02
	all := true
	for t := range d.Tokens {
		var sum float64
		chosen := false
		for k := t * d.TopK; k < (t+1)*d.TopK; k++ {
			if d.Choices[k] >= 0 {
				chosen = true
				sum += float64(d.Weights[k])
			}
		}
		if sum > 1+tolerance {
			return false, fmt.Errorf("the weights of token %d sum to %.4g: want shares of a softmax, which sum to at most 1; divide them by the scale of the gate", t, sum)
		}
		all = all && (!chosen || sum > 1-tolerance)
	}
	return all, nil
}

// popularity returns the weight u_e of every expert.
func (d *Dump) popularity(how string) []float64 {
	u := make([]float64, d.Experts)
	if how == completeFlat {
		for e := range u {
			u[e] = 1
		}
		return u
	}
	for i, e := range d.Choices {
		if e >= 0 {
			u[e] += float64(d.Weights[i])
		}
	}
	return u
}

// completeToken fills one token's scores and returns what the chosen leave and what the bound cuts off.
func (d *Dump) completeToken(t int, u []float64, total, mass float64) (left, cut float64) {
	s := d.Scores[t*d.Experts : (t+1)*d.Experts]
	// The smallest score of a chosen expert: a weight that was rounded to 0 still comes before the unseen.
	const least = 1e-12
	left = 1
	bound := math.Inf(1)
	for k := t * d.TopK; k < (t+1)*d.TopK; k++ {
		e := d.Choices[k]
		if e < 0 {
			continue
		}
		w := max(least, float64(mass*float64(d.Weights[k])))
		s[e] = float32(w)
		left -= w
		total -= u[e]
		bound = min(bound, w)
	}
	if math.IsInf(bound, 1) {
		for e := range s {
			s[e] = 1 / float32(d.Experts)
		}
		return 1, 0
	}
	left = max(0, left)
	below := math.Nextafter32(float32(bound), 0)
	for e := range s {
		if s[e] > 0 || total <= 0 {
			continue
		}
		share := float32(left * u[e] / total)
		if share > below {
			cut += float64(share) - float64(below)
			share = below
		}
		s[e] = share
	}
	if total <= 0 {
		cut = left
	}
	return left, cut
}
