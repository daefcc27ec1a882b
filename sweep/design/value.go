package design

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// At returns the value at place u of the axis, 0 to 1. Listed values have equal shares of it. A range is linear or logarithmic
// in u, and its real numbers are rounded to 10^k, the largest that is at most 10^-7 of the axis's length there: they are short
// to read, and the last bits in which platforms differ are gone.
func (a Axis) At(u float64) string {
	u = min(max(u, 0), 1)
	if n := len(a.values); n > 0 {
		return a.values[min(int(u*float64(n)), n-1)]
	}
	switch a.form {
	case whole:
		return shortest(min(a.lo+math.Floor(u*(a.hi-a.lo+1)), a.hi))
	case intLog: // the half beyond both ends gives them their share
		x := math.Round(between(math.Log(a.lo-0.5), math.Log(a.hi+0.5), u, math.Exp))
		return shortest(min(max(x, a.lo), a.hi))
	case log:
		x := between(math.Log(a.lo), math.Log(a.hi), u, math.Exp)
		return a.rounded(x, x*math.Log(a.hi/a.lo))
	}
	return a.rounded(between(a.lo, a.hi, u, func(x float64) float64 { return x }), a.hi-a.lo)
}

func between(lo, hi, u float64, of func(float64) float64) float64 {
	return of(float64(lo*(1-u)) + float64(hi*u))
}

// rounded writes x where the axis has the given length for each unit of u.
func (a Axis) rounded(x, length float64) string {
	digits := exponent(x) - exponent(length) + 7
	if digits < 17 {
		x, _ = strconv.ParseFloat(strconv.FormatFloat(x, 'e', max(digits, 0), 64), 64)
	}
	return shortest(min(max(x, a.lo), a.hi))
}

// exponent is the decimal exponent of x.
func exponent(x float64) int {
	_, e, _ := strings.Cut(strconv.FormatFloat(x, 'e', -1, 64), "e")
	n, _ := strconv.Atoi(e)
	return n
}

// Check returns the value that a word means on the axis, in the form in which the axis writes it.
func (a Axis) Check(word string) (string, error) {
	if a.form == list && slices.Contains(a.values, word) {
		return word, nil
	}
	x, err := number(word)
	if a.values != nil {
		if i := slices.Index(a.values, shortest(x)); err == nil && i >= 0 {
			return a.values[i], nil
		}
		return "", fmt.Errorf("%s has no value %q: it is %s", a.Name, clip(word), a.text)
	}
	switch {
	case err != nil:
		return "", fmt.Errorf("%s %w", a.Name, err)
	case x < a.lo || x > a.hi:
		return "", fmt.Errorf("%s is %s: it must be from %s to %s", a.Name, clip(word), shortest(a.lo), shortest(a.hi))
	case (a.form == whole || a.form == intLog) && !isWhole(x):
		return "", fmt.Errorf("%s is %s: it must be a whole number", a.Name, clip(word))
	}
	return shortest(x), nil
}

func clip(s string) string {
	if len(s) > 40 {
		return strings.ToValidUTF8(s[:40], "") + "..."
	}
	return s
}

var errNoNumber = errors.New("is no number")

// number reads a decimal number: digits with an optional sign, point and exponent.
func number(text string) (float64, error) {
	mantissa, exp, hasExp := strings.Cut(strings.ToLower(text), "e")
	before, after, hasPoint := strings.Cut(strings.TrimPrefix(mantissa, "-"), ".")
	exp = strings.TrimPrefix(strings.TrimPrefix(exp, "-"), "+") // "+-" is left to ParseFloat
	x, err := strconv.ParseFloat(text, 64)
	switch {
	case errors.Is(err, strconv.ErrSyntax) || !digits(before) || hasPoint && !digits(after) || hasExp && !digits(exp):
		if math.IsNaN(x) || math.IsInf(x, 0) {
			return 0, fmt.Errorf("has the value %q: numbers are finite", clip(text))
		}
		return 0, fmt.Errorf("has the value %q, which %w", clip(text), errNoNumber)
	case math.Abs(x) > largest, x == 0 && strings.ContainsAny(mantissa, "123456789"), x != 0 && math.Abs(x) < 1/largest:
		return 0, fmt.Errorf("has the value %s: numbers other than 0 are from 1e-300 to 1e300 in size", clip(text))
	}
	return x + 0, nil // -0 becomes 0
}

func digits(s string) bool {
	return s != "" && strings.Trim(s, "0123456789") == ""
}

func isWhole(x float64) bool { return x == math.Trunc(x) && math.Abs(x) <= maxInt }

func isPow2(x float64) bool {
	fraction, _ := math.Frexp(x)
	return fraction == 0.5 && x >= 1
}

// shortest is the shortest text that parses back to x: 0.001, 1e-05, 1048576.
func shortest(x float64) string {
	if isWhole(x) {
		return strconv.FormatInt(int64(x), 10)
	}
	return strconv.FormatFloat(x, 'g', -1, 64)
}
