package plots

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// Sweep is what the captions of all pictures of a sweep have in common.
type Sweep struct {
	About    string // what was swept, in whole sentences: scenario, layer, tokens, steps, seeds
	Interval string // what the intervals are, such as "95 % bootstrap interval of the mean over the seeds"
}

// Sample is a metric over the seeds of a cell, as stored. One that was never measured is zero; one that was, and has no value,
// has N > 0 and a mean that is NaN.
type Sample struct {
	Mean      float64
	Low, High float64 // the interval; NaN, infinite or both 0 for none
	Floor     float64 // what sampling noise alone gives; 0 or NaN for none
	N         int     // seeds
	Without   int     // further seeds, which ran and have no value, as one under which nothing settles
}

// sane reports whether a value is a number that arithmetic on an axis survives.
func sane(v float64) bool { return math.Abs(v) <= 1e300 }

// flush makes 0 of what is too small for a logarithmic axis.
func flush(v float64) float64 {
	if math.Abs(v) < 1e-300 {
		return 0
	}
	return v
}

// measured reports whether there is a mean.
func (s Sample) measured() bool { return s.N > 0 && sane(s.Mean) }

// ranged reports whether there is an interval.
func (s Sample) ranged() bool {
	return s.measured() && s.N > 1 && sane(s.Low) && sane(s.High) && (s.Low != 0 || s.High != 0 || s.Mean == 0)
}

func (s Sample) floored() bool { return s.measured() && s.Floor != 0 && sane(s.Floor) }

// Series is one strategy along a parameter.
type Series struct {
	Name  string
	Y     []Sample // by value of the parameter
	Bound bool     // a bound, no strategy that one could use
}

func (s Series) label() string {
	if s.Bound {
		return oneLine(s.Name) + " (bound)"
	}
	return oneLine(s.Name)
}

// Parameter is what a sweep varied, with its values in the order in which they shall stand.
type Parameter struct {
	Name   string
	Values []string
}

// numbers are the values if all are finite numbers.
func (p Parameter) numbers() ([]float64, bool) {
	v := make([]float64, len(p.Values))
	for i, text := range p.Values {
		x, err := strconv.ParseFloat(text, 64)
		if err != nil || !sane(x) {
			return nil, false
		}
		v[i] = flush(x)
	}
	return v, len(v) > 0
}

func (p Parameter) check() error {
	if oneLine(p.Name) == "" {
		return errors.New("a parameter has no name")
	}
	if len(p.Values) == 0 {
		return fmt.Errorf("%s has no values", p.Name)
	}
	seen := make(map[string]bool, len(p.Values))
	for _, v := range p.Values {
		if seen[v] {
			return fmt.Errorf("%s has the value %s twice: it must be one, with the seeds of both", p.Name, v)
		}
		seen[v] = true
	}
	return nil
}

// label is that of an axis on which the parameter lies.
func (p Parameter) label(k scaleKind) string { return oneLine(p.Name) + k.remark() }

// checkSeries says what is wrong with strategies along a parameter of n values.
func checkSeries(series []Series, n int) error {
	seen := make(map[string]bool, len(series))
	for i, s := range series {
		if oneLine(s.Name) == "" {
			return fmt.Errorf("series %d has no name", i)
		}
		if seen[s.Name] {
			return fmt.Errorf("the name %s stands for two series", s.Name)
		}
		seen[s.Name] = true
		if len(s.Y) != n {
			return fmt.Errorf("%s has %d samples for %d values", s.Name, len(s.Y), n)
		}
		if err := checkSamples(s.Name, s.Y); err != nil {
			return err
		}
	}
	return nil
}

func checkSamples(name string, samples []Sample) error {
	for i, s := range samples {
		if s.N < 0 {
			return fmt.Errorf("%s: sample %d is of %d seeds", name, i, s.N)
		}
		if s.Low > s.High {
			return fmt.Errorf("%s: sample %d has an interval from %g down to %g", name, i, s.Low, s.High)
		}
	}
	return nil
}

// shown are the series in the units of a metric.
func (m Metric) shown(series []Series) []Series {
	out := slices.Clone(series)
	for i := range out {
		out[i].Y = slices.Clone(out[i].Y)
		for j, s := range out[i].Y {
			out[i].Y[j] = m.sample(s)
		}
	}
	return out
}

// tally counts what the samples of a picture are like, for its caption.
type tally struct {
	least, most     int // seeds of a sample
	ranged          bool
	partial         bool // some seeds of a sample have no value
	absent, without int  // not run; run, and without a value
	floors          []float64
}

func tallyOf(samples ...[]Sample) (t tally) {
	for _, s := range samples {
		for _, x := range s {
			t.add(x)
		}
	}
	slices.Sort(t.floors)
	return t
}

func (t *tally) add(x Sample) {
	switch {
	case x.N == 0:
		t.absent++
		return
	case !x.measured():
		t.without++
		return
	}
	if t.least == 0 || x.N < t.least {
		t.least = x.N
	}
	t.most = max(t.most, x.N)
	t.ranged = t.ranged || x.ranged()
	t.partial = t.partial || x.Without > 0
	if x.floored() && !slices.Contains(t.floors, x.Floor) && len(t.floors) < 1000 {
		t.floors = append(t.floors, x.Floor)
	}
}

func samplesOf(series []Series) (all [][]Sample) {
	for _, s := range series {
		all = append(all, s.Y)
	}
	return all
}

const leftOut = "Runs without a value are left out of the means."

// seeds says over how many seeds the means are, and how intervals are drawn if they are.
func (t tally) seeds(s Sweep, points, bars string) string {
	if t.partial {
		points = leftOut + " " + points
	}
	n := fmt.Sprintf("n = %d", t.least)
	if t.most > t.least {
		n = fmt.Sprintf("n = %d to %d", t.least, t.most)
	}
	interval := oneLine(s.Interval)
	if interval == "" {
		interval = "interval of the mean over the seeds"
	}
	switch {
	case t.most <= 1:
		return points + ": one seed each, so that nothing is known of the spread between seeds."
	case !t.ranged:
		return fmt.Sprintf("%s: mean over the seeds (%s), without intervals.", points, n)
	case bars == "":
		return fmt.Sprintf("%s: mean over the seeds (%s); there is no room for the intervals.", points, n)
	case t.least == 1:
		return fmt.Sprintf("%s: mean over the seeds (%s); %s: %s, none where there is one seed.", points, n, bars, interval)
	default:
		return fmt.Sprintf("%s: mean over the seeds (%s); %s: %s.", points, n, bars, interval)
	}
}

// gaps says what is not there.
func (t tally) gaps() string {
	var parts []string
	if t.absent > 0 {
		parts = append(parts, plural(t.absent, "cell")+" not run")
	}
	if t.without > 0 {
		parts = append(parts, plural(t.without, "cell")+" run without a value")
	}
	if len(parts) == 0 {
		return ""
	}
	return "Gaps: " + strings.Join(parts, ", ") + "."
}

// caption joins what was swept and the sentences of a figure.
func (s Sweep) caption(sentences ...string) string {
	all := slices.DeleteFunc(append([]string{oneLine(s.About)}, sentences...), func(s string) bool { return s == "" })
	return strings.Join(all, " ")
}

// orElse is a title, or another where it is empty.
func orElse(title, other string) string {
	if t := oneLine(title); t != "" {
		return t
	}
	return other
}

// rounded writes a value with so many significant digits.
func rounded(v float64, digits int) string {
	r, err := strconv.ParseFloat(strconv.FormatFloat(v, 'g', digits, 64), 64)
	if err != nil || math.IsInf(r, 0) {
		r = v
	}
	return number(r)
}
