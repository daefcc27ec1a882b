package plots

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"evenkeel/sim"
)

// caption says what a picture shows to somebody who has nothing but the picture: the run, then the sentences of the figure.
func caption(r *sim.Result, scenario string, sentences ...string) string {
	l := r.Layer
	groups := ""
	if l.Limited() {
		groups = fmt.Sprintf(" within %d of %d groups", l.GroupsKept, l.Groups)
	}
	head := fmt.Sprintf("%s: E = %s experts, K = %d chosen%s, T = %s tokens a step, %s, %s; router: %s.", oneLine(scenario),
		count(l.Experts), l.TopK, groups, count(r.Tokens), plural(r.Steps, "step"), seeds(r.Seeds), oneLine(r.Router))
	if r.Incomplete {
		head += " INTERRUPTED: only what had finished is shown."
	}
	sentences = slices.DeleteFunc(slices.Clone(sentences), func(s string) bool { return s == "" })
	return strings.Join(append([]string{head}, sentences...), " ")
}

// seeds names the seeds of a run: all of a few, the range or the ends of many.
func seeds(s []uint64) string {
	const few = 6
	names := make([]string, len(s))
	consecutive := true
	for i, v := range s {
		names[i] = strconv.FormatUint(v, 10)
		consecutive = consecutive && (i == 0 || v == s[i-1]+1)
	}
	switch n := len(s); {
	case n == 0:
		return "no seed"
	case n == 1:
		return "seed " + names[0]
	case n <= few:
		return "seeds " + strings.Join(names, ", ")
	case consecutive:
		return fmt.Sprintf("%d seeds (%s to %s)", n, names[0], names[n-1])
	default:
		return fmt.Sprintf("%d seeds (%s, … %s)", n, strings.Join(names[:few-1], ", "), names[n-1])
	}
}

// evaluation says on which tokens the figures of an evaluation were taken.
func evaluation(r *sim.Result) string {
	if r.Facts.InSample {
		return fmt.Sprintf("evaluation with the final state on the %s tokens of the trace itself (in-sample)", count(r.Evaluation))
	}
	return fmt.Sprintf("evaluation with the final state on %s fresh tokens a seed", count(r.Evaluation))
}

// firstSeed names the seed whose run a figure shows.
func firstSeed(r *sim.Result) string {
	if len(r.Seeds) < 2 {
		return ""
	}
	return fmt.Sprintf("Shown is seed %d.", r.Seeds[0])
}

// heading names a strategy above its panel, with what sets it apart from one that could be used.
func heading(s *sim.StrategyResult, remark string) string {
	var marks []string
	if kind := s.Traits.Kind(); kind != "" {
		marks = append(marks, kind)
	}
	if remark != "" {
		marks = append(marks, remark)
	}
	if len(marks) == 0 {
		return specOf(s)
	}
	return fmt.Sprintf("%s (%s)", specOf(s), strings.Join(marks, ", "))
}

func specOf(s *sim.StrategyResult) string { return oneLine(s.Traits.Spec) }

func count(n int) string { return thousands(strconv.Itoa(n)) }

func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return count(n) + " " + noun + "s"
}
