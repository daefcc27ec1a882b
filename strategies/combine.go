package strategies

import (
	"fmt"
	"slices"

	"evenkeel/moe"
)

// combine makes one strategy of the parts of several: the losses and controllers of all, and the transform, selection,
// bias and revision of the one that has it. Two that each have one cannot both choose; the plain top-K gives way.
func combine(l moe.Layer, from []*strategy, names []string) (*strategy, error) {
	r := &strategy{layer: l, score: from[0].score}
	r.traits.Causal = true
	taken := map[string]string{} // part to the name of whom it is from
	claim := func(part, name string) error {
		if other, ok := taken[part]; ok {
			return fmt.Errorf("%s and %s both bring a %s, and a strategy has one: leave one of them out", other, name, part)
		}
		taken[part] = name
		return nil
	}
	for i, f := range from {
		name := names[i]
		if f.traits.Oracle {
			return nil, fmt.Errorf("%s is a bound and no part of a strategy: leave it out", name)
		}
		if f.score != r.score {
			return nil, fmt.Errorf("%s scores by %s and %s by %s: give both the same score", names[0], r.score, name, f.score)
		}
		var err error
		if f.transform != nil {
			err = claim("logit transform", name)
			r.transform = f.transform
		}
		if _, plain := f.selection.(topK); err == nil && f.selection != nil && !plain {
			err = claim("selection", name)
			r.selection = f.selection
		}
		if err == nil && f.bias != nil {
			err = claim("bias", name)
			r.bias = f.bias
		}
		if err == nil && f.revision != nil {
			err = claim("choice over the whole batch", name)
			r.revision = f.revision
		}
		if err == nil && f.traits.Gate != defaultGate(l) {
			err = claim("gate", name)
			r.traits.Gate = f.traits.Gate
		}
		if err == nil && f.traits.Fresh {
			if r.counted != nil && r.counted != f.counted {
				err = fmt.Errorf("the losses of %s count other choices than those of %s beside the chosen set: leave one of them out", name, taken["count"])
			}
			r.counted, taken["count"] = f.counted, name
		}
		if err != nil {
			return nil, err
		}
		r.losses, r.controllers = append(r.losses, f.losses...), append(r.controllers, f.controllers...)
		r.traits.Causal = r.traits.Causal && f.traits.Causal
		r.traits.Varies, r.traits.Drops = r.traits.Varies || f.traits.Varies, r.traits.Drops || f.traits.Drops
		r.traits.Sized = r.traits.Sized || f.traits.Sized
		r.traits.Free = r.traits.Free || f.traits.Free
		r.traits.Freeze = max(r.traits.Freeze, f.traits.Freeze)
		r.traits.Notes = append(r.traits.Notes, f.traits.Notes...)
		for _, w := range f.traits.Warnings {
			if !slices.Contains(r.traits.Warnings, w) {
				r.traits.Warnings = append(r.traits.Warnings, w)
			}
		}
	}
	if r.bias != nil {
		part := ""
		if _, ok := r.selection.(biasBlind); ok {
			part = "selection"
		}
		if _, ok := r.revision.(biasBlind); ok {
			part = "choice over the whole batch"
		}
		if part != "" {
			return nil, fmt.Errorf("%s does not look at a bias, so that of %s would do nothing: leave it out", taken[part], taken["bias"])
		}
	}
	if _, zero := r.selection.(idle); zero && len(r.losses)+len(r.controllers) > 0 && len(from) > 1 {
		return nil, fmt.Errorf("%s has experts that compute nothing, which other losses and biases would take for starved ones: use longcat-bias alone", taken["selection"])
	}
	if _, factor := r.selection.(product); factor && r.revision != nil {
		return nil, fmt.Errorf("%s cannot stand beside %s, which takes a bias as a term and not as a factor: use loss-free instead", taken["selection"], taken["choice over the whole batch"])
	}
	if r.selection == nil {
		r.selection = from[0].selection // the plain top-K, or none where a revision chooses all
		for _, f := range from {
			if _, plain := f.selection.(topK); plain {
				r.selection = f.selection
			}
		}
	}
	quantile := slices.ContainsFunc(r.controllers, func(c controller) bool { _, ok := c.(*quantileController); return ok })
	if quantile && (len(r.losses) > 0 || r.traits.Drops) {
		r.traits.Warnings = append(r.traits.Warnings, "quantile balancing is published without a loss and without a capacity (Megatron-LM refuses both)")
	}
	if _, ok := r.revision.(*sinkhornPlan); ok && len(r.losses) > 0 {
		r.traits.Warnings = append(r.traits.Warnings, "Sinkhorn routing is published without a balancing loss (Megatron-LM refuses one)")
	}
	return compose(r), nil
}

// biasBlind is a selection or revision that goes by the scores alone, so that a bias would do nothing.
type biasBlind interface{ ignoresBias() }

func (*auction) ignoresBias()       {}
func (*expertTop) ignoresBias()     {}
func (*proposals) ignoresBias()     {}
func (*sinkhornPlan) ignoresBias()  {}
func (*blind) ignoresBias()         {}
func (*ngram) ignoresBias()         {}
func (*balancedTable) ignoresBias() {}
func (idTable) ignoresBias()        {}
func (randomK) ignoresBias()        {}
func (offsetK) ignoresBias()        {}
func (roundRobin) ignoresBias()     {}
func (topP) ignoresBias()           {}
func (positive) ignoresBias()       {}
