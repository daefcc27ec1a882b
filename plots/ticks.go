package plots

import (
	"math"
	"strconv"
	"strings"

	"gonum.org/v1/plot"
)

// roundTicks marks an axis at 1, 2 or 5 times a power of ten, about Count times.
type roundTicks struct {
	Count int
	Whole bool // whole numbers only
}

// Ticks implements plot.Ticker.
func (t roundTicks) Ticks(low, high float64) []plot.Tick {
	raw := (high - low) / float64(t.Count)
	const exact = 1e14 // steps from 0; far beyond, they are lost in rounding
	if !(raw > 0) || math.IsInf(raw, 0) || max(math.Abs(low), math.Abs(high)) > exact*raw {
		return nil
	}
	scale := math.Pow(10, math.Floor(math.Log10(raw)))
	step := 10 * scale
	for _, m := range []float64{1, 2, 5} {
		if m*scale >= raw*0.8 {
			step = m * scale
			break
		}
	}
	if t.Whole {
		step = max(1, step)
	}
	var ticks []plot.Tick
	for i := math.Ceil(low/step - 1e-9); i*step <= high+step*1e-9; i++ {
		ticks = append(ticks, plot.Tick{Value: i * step, Label: number(i * step)})
	}
	return ticks
}

// logTicks marks a logarithmic axis: labels at powers of ten, at 1-2-5 or at every digit, whichever gives at least three.
type logTicks struct{}

// Ticks implements plot.Ticker.
func (logTicks) Ticks(low, high float64) []plot.Tick {
	for _, digits := range []string{"1", "125", "123456789"} {
		ticks, labels := digitTicks(low, high, digits)
		if labels >= 3 {
			return ticks
		}
	}
	return roundTicks{Count: 4}.Ticks(low, high)
}

// digitTicks marks every digit of every decade and labels those given.
func digitTicks(low, high float64, labelled string) (ticks []plot.Tick, labels int) {
	for e := math.Floor(math.Log10(low)); e <= math.Ceil(math.Log10(high)); e++ {
		for d := 1; d <= 9; d++ {
			v := float64(d) * math.Pow(10, e)
			if v < low*(1-1e-9) || v > high*(1+1e-9) {
				continue
			}
			t := plot.Tick{Value: v}
			if strings.Contains(labelled, strconv.Itoa(d)) {
				t.Label = number(v)
				labels++
			}
			ticks = append(ticks, t)
		}
	}
	return ticks, labels
}

// logRange widens the range of positive values a little, in proportion.
func logRange(low, high float64) (float64, float64) {
	const room = 0.06
	ratio := max(high/low, 1.5)
	if math.IsInf(ratio, 0) {
		return low, high
	}
	mid := math.Sqrt(low) * math.Sqrt(high)
	half := math.Pow(ratio, 0.5+room)
	return max(mid/half, 1e-307), min(mid*half, 1e307)
}

// zeroLog is a logarithmic scale that keeps the left end of the axis for the value zero.
type zeroLog struct{}

const (
	zeroPlace = 0.03 // of zero, as a fraction of the axis
	zeroBreak = 0.06 // where the logarithmic part begins
)

// Normalize implements plot.Normalizer.
func (zeroLog) Normalize(low, high, x float64) float64 {
	if x <= 0 {
		return zeroPlace
	}
	return zeroBreak + (1-zeroBreak)*plot.LogScale{}.Normalize(low, high, x)
}

// zeroLogTicks are the ticks of zeroLog.
type zeroLogTicks struct{}

// Ticks implements plot.Ticker.
func (zeroLogTicks) Ticks(low, high float64) []plot.Tick {
	return append([]plot.Tick{{Value: 0, Label: "0"}}, logTicks{}.Ticks(low, high)...)
}

// number writes a value of an axis as a person would: no exponent in everyday sizes, thousands apart, a true minus.
func number(v float64) string {
	format := byte('f')
	if a := math.Abs(v); a != 0 && (a < 1e-4 || a >= 1e9) {
		format = 'e'
	}
	// Ten digits round away what i·step adds.
	v, _ = strconv.ParseFloat(strconv.FormatFloat(v, 'g', 10, 64), 64)
	s := strconv.FormatFloat(math.Abs(v), format, -1, 64)
	if whole, rest, _ := strings.Cut(s, "."); format == 'f' && len(whole) > 4 {
		s = thousands(whole)
		if rest != "" {
			s += "." + rest
		}
	}
	if v < 0 {
		s = "−" + s
	}
	return s
}

// thousands puts commas between groups of three digits.
func thousands(digits string) string {
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return digits
}
