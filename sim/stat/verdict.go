package stat

import (
	"fmt"
	"math"
	"strings"
)

const (
	defaultLevel     = 0.95
	defaultPower     = 0.8
	defaultResamples = 10_000
)

// Options are those of a comparison; the zero value is that of a paper with α = 0.05.
type Options struct {
	A, B, Metric string  // names for the sentence; empty are "the first", "the second" and none
	Level        float64 // of the interval, and 1 less the α of the test, in (0, 1); 0 is 0.95
	Power        float64 // with which a difference is to be shown, in (0, 1); 0 is 0.8
	Resamples    int     // of the bootstrap; 0 is 10,000
	Seed         uint64  // of the bootstrap
}

// Verdict is what the values of two strategies over the same seeds say about their difference. The rank test decides, at
// 1 − Level, once corrected for the family of comparisons it belongs to ([Correct]); the interval is of this one comparison
// alone, about a mean and not a median, and may leave 0 out where the test shows nothing.
type Verdict struct {
	Options
	Seeds        int
	MeanA, MeanB float64
	Difference   Interval   // mean of a − b over seeds, with its interval; infinite with one seed
	Method       string     // of the interval: "BCa", expanded, or "t" with fewer seeds than resamples can serve
	Spread       float64    // standard deviation of a − b over seeds; NaN with one seed
	Test         SignedRank // Wilcoxon's, of a − b
	Pairs        int        // comparisons that Corrected is corrected for, itself included
	Corrected    float64    // Test.P after Holm's correction
	Significant  bool       // whether Corrected is at most 1 − Level
	DZ           float64    // Cohen's d_z, infinite where all differences are equal
	RankBiserial float64    // matched-pairs rank-biserial correlation
	Least        int        // seeds below which the test can show nothing: LeastSeeds
	Needed       int        // seeds that would show the measured effect; 0 if Significant, or if no number up to 100,000 would
	LeastShown   float64    // smallest difference that as many seeds, as scattered, can be relied on to show; infinite below Least
}

// Compare compares two strategies by a metric, a_i and b_i from the same seed, as the only comparison that is made: give
// those of a family to [Correct]. Needed is for the Bonferroni step α/Pairs, with which Holm's correction begins, by
//
//	Needed = max(Least, Seeds + 1, ⌈π/3 · SeedsNeeded(d_z, α/Pairs, Power)⌉),
//
// where 3/π is the efficiency of the signed-rank test relative to the t-test for normal differences (Hodges and Lehmann
// 1956, Annals of Mathematical Statistics 27, 324). It takes the measured effect for the true one, so it is a guide, not a
// promise. LeastShown is √(π/3) · LeastEffect(Seeds, α/Pairs, Power) standard deviations of the differences.
//
// It is an error if there are no pairs, a and b differ in length, a difference is not finite or an option is out of range.
func Compare(a, b []float64, o Options) (Verdict, error) {
	if o.Level == 0 {
		o.Level = defaultLevel
	}
	if o.Power == 0 {
		o.Power = defaultPower
	}
	if !(o.Power > 0 && o.Power < 1) {
		return Verdict{}, fmt.Errorf("the power of a comparison is %v: it must lie between 0 and 1", o.Power)
	}
	d, err := Differences(a, b)
	if err != nil {
		return Verdict{}, err
	}
	interval, err := Bootstrap{Level: o.Level, Resamples: o.Resamples, Seed: o.Seed, Expand: true}.BCa(d)
	if err != nil {
		return Verdict{}, err
	}
	method := "BCa"
	if len(d) < LeastSeeds(1-o.Level, 1) {
		method, interval = "t", Student(d, o.Level)
	}
	v := Verdict{Options: o, Seeds: len(d), MeanA: Mean(a), MeanB: Mean(b), Difference: interval, Method: method,
		Spread: deviation(d), Test: Wilcoxon(d), DZ: CohenDZ(d), RankBiserial: RankBiserial(d)}
	v.correct(v.Test.P, 1)
	return v, nil
}

// Correct fills in what depends on the family of comparisons that verdicts form: Pairs, Corrected, Significant, Least, Needed
// and LeastShown.
func Correct(family []Verdict) {
	p := make([]float64, len(family))
	for i, v := range family {
		p[i] = v.Test.P
	}
	for i, corrected := range Holm(p) {
		family[i].correct(corrected, len(family))
	}
}

func (v *Verdict) correct(p float64, pairs int) {
	alpha := 1 - v.Level
	v.Pairs, v.Corrected, v.Significant = pairs, p, p <= alpha
	v.Least, v.Needed, v.LeastShown = LeastSeeds(alpha, pairs), 0, math.Inf(1)
	alpha /= float64(pairs)
	if !v.Significant {
		if n, ok := SeedsNeeded(v.DZ, alpha, v.Power); ok {
			v.Needed = max(v.Least, v.Seeds+1, int(math.Ceil(math.Pi/3*float64(n))))
		}
	}
	if v.Seeds >= v.Least {
		v.LeastShown = math.Sqrt(math.Pi/3) * LeastEffect(v.Seeds, alpha, v.Power) * v.Spread
	}
}

// String returns the verdict as a sentence without a full stop. It names a direction, and a share of B's mean, only where the
// difference is significant; elsewhere it says what the seeds could not have shown and how many would be needed.
func (v Verdict) String() string {
	a, b, in := v.A, v.B, ""
	if a == "" {
		a = "the first"
	}
	if b == "" {
		b = "the second"
	}
	if v.Metric != "" {
		in = " in " + v.Metric
	}
	seeds := fmt.Sprintf("%d seeds", v.Seeds)
	if v.Seeds == 1 {
		seeds = "1 seed"
	}
	switch up := v.Difference.Estimate > 0; {
	case v.Test.N == 0:
		return fmt.Sprintf("no difference of %s and %s%s: they are equal over %s", a, b, in, seeds)
	case !v.Significant:
		return fmt.Sprintf("no difference of %s and %s%s shown over %s (%s): %s", a, b, in, seeds, v.p(), v.lack())
	case !v.Directed():
		return fmt.Sprintf("%s and %s differ%s over %s (%s), but few large differences turn the mean against the ranks: "+
			"no direction is shown", a, b, in, seeds, v.p())
	case up:
		return fmt.Sprintf("%s is above %s%s by %s (%s, %s)", a, b, in, v.size(v.Difference, b), seeds, v.p())
	}
	d := v.Difference
	return fmt.Sprintf("%s is below %s%s by %s (%s, %s)", a, b, in, v.size(Interval{-d.Estimate, -d.High, -d.Low}, b), seeds, v.p())
}

// Directed reports whether mean and ranks say the same of which one is larger.
func (v *Verdict) Directed() bool {
	return (v.Difference.Estimate > 0) == (v.Test.Plus > v.Test.Minus)
}

// size writes a positive difference with its interval and, where the means have one sign, its share of B's.
func (v *Verdict) size(d Interval, b string) string {
	s := fmt.Sprintf("%.3g, %.3g %% interval %.3g to %.3g", d.Estimate, 100*v.Level, d.Low, d.High)
	if v.MeanA*v.MeanB > 0 {
		share := 100 * d.Estimate / math.Abs(v.MeanB)
		format := ", %.2g %% of %s's mean"
		if share >= 100 {
			format = ", %.0f %% of %s's mean"
		}
		s += fmt.Sprintf(format, share, b)
	}
	return s
}

func (v *Verdict) p() string {
	if v.Pairs == 1 {
		return fmt.Sprintf("p = %.2g", v.Corrected)
	}
	return fmt.Sprintf("p = %.2g corrected for %d comparisons", v.Corrected, v.Pairs)
}

// lack says what a difference that is not significant would have needed.
func (v *Verdict) lack() string {
	var s strings.Builder
	if v.Seeds < v.Least {
		fmt.Fprintf(&s, "fewer than %d cannot show any", v.Least)
	} else {
		fmt.Fprintf(&s, "as many cannot be relied on to show one below %.3g", v.LeastShown)
	}
	switch {
	case v.Seeds == 1:
		s.WriteString("; how many would be needed takes two to tell")
	case v.Needed > 0:
		fmt.Fprintf(&s, "; about %d would be needed for the one measured", v.Needed)
	default:
		fmt.Fprintf(&s, "; no number up to %d would do for the one measured", mostSeeds)
	}
	return s.String()
}
