package design

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// Axis is one varied parameter: a name and a list of words, a list of spaced numbers, or a range.
type Axis struct {
	Name   string
	text   string // as it was written, after the name
	form   form
	lo, hi float64  // of all forms but list
	values []string // nil: a range
}

type form string

const (
	list   form = "list"
	lin    form = "lin"
	log    form = "log"
	whole  form = "int"
	intLog form = "int-log"
	pow2   form = "pow2"
)

// ranges are the forms that a prefix names.
var ranges = []form{lin, log, whole, intLog, pow2}

const (
	maxText = 1 << 16 // bytes of an axis
	maxWord = 256     // bytes of a name or a word of a list
	largest = 1e300   // number; one over it the smallest
	maxInt  = 1 << 53
)

// ParseAxes reads several axes, whose names must differ.
func ParseAxes(texts []string) (axes []Axis, err error) {
	if len(texts) > MaxAxes {
		return nil, fmt.Errorf("%d axes are given: at most %d can vary", len(texts), MaxAxes)
	}
	for _, text := range texts {
		a, err := ParseAxis(text)
		if err != nil {
			return nil, err
		}
		if slices.ContainsFunc(axes, func(b Axis) bool { return b.Name == a.Name }) {
			return nil, fmt.Errorf("%s is varied twice: give all its values at once", a.Name)
		}
		axes = append(axes, a)
	}
	return axes, nil
}

// ParseAxis reads one axis, NAME=VALUES, where the values are
//
//	1024,4096,16384       these words
//	lin:0..1:5            5 numbers, equally spaced
//	log:1e-4..1e-1:13     13 numbers, equally spaced in their logarithm
//	int:8..64:8           whole numbers in steps of 8
//	int-log:1..100:5      5 whole numbers, nearest to equally spaced in their logarithm
//	pow2:1024..65536      powers of two
//
// Without the last number lin, log, int and int-log are ranges, which random designs and searches sample and a grid refuses.
// Numbers print in the shortest form that parses back, whole ones without an exponent; each is the float64 nearest to its exact
// value, so that log:1e-4..1e-1:4 is 0.0001, 0.001, 0.01, 0.1.
func ParseAxis(text string) (Axis, error) {
	a, err := parseAxis(text)
	if err != nil {
		if len(text) > maxWord {
			text = strings.ToValidUTF8(text[:maxWord], "") + "..."
		}
		return Axis{}, fmt.Errorf("%q: %w", text, err)
	}
	return a, nil
}

func parseAxis(text string) (a Axis, err error) {
	if len(text) > maxText {
		return a, fmt.Errorf("is %d bytes long: an axis has at most %d", len(text), maxText)
	}
	var given bool
	a.Name, a.text, given = strings.Cut(text, "=")
	switch {
	case !given:
		return a, errors.New("has no values: write NAME=VALUES, such as tokens=1024,4096 or loss-free.rate=log:1e-4..1e-1:13")
	case !isName(a.Name):
		return a, errors.New("begins with no name: a name has letters, digits and . _ - and begins with a letter")
	case a.text == "":
		return a, fmt.Errorf("gives %s no values: write some, such as %[1]s=1,2,4", a.Name)
	}
	prefix, rest, hasPrefix := strings.Cut(a.text, ":")
	if !hasPrefix {
		a.form = list
		return a, a.parseList()
	}
	if slices.Contains(ranges, form(prefix)) {
		a.form = form(prefix)
		return a, a.parseRange(rest)
	}
	if isRange(rest) {
		return a, fmt.Errorf("has a range of unknown form %q: the forms are lin, log, int, int-log and pow2", prefix)
	}
	a.form = list
	return a, a.parseList()
}

// isRange tells whether a text begins as a range of numbers does, and ../traces does not.
func isRange(s string) bool {
	from, _, ok := strings.Cut(s, "..")
	_, err := number(from)
	return ok && err == nil
}

func isName(s string) bool {
	for i, c := range []byte(s) {
		letter := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
		if !letter && (i == 0 || !('0' <= c && c <= '9' || c == '.' || c == '_' || c == '-')) {
			return false
		}
	}
	return s != "" && len(s) <= maxWord
}

// parseList reads words. Those that are numbers with a point or an exponent are written in the shortest form, so that 1e-3 and
// 0.001 name the same cell.
func (a *Axis) parseList() error {
	seen := map[string]bool{}
	for _, word := range strings.Split(a.text, ",") {
		switch {
		case word == "":
			return errors.New("has an empty value: separate values by single commas")
		case len(word) > maxWord:
			return fmt.Errorf("has a value of %d bytes: at most %d", len(word), maxWord)
		case strings.TrimSpace(word) != word || strings.ContainsFunc(word, isControl):
			return fmt.Errorf("has the value %q: values have no spaces at their ends and no control characters", word)
		case isRange(word):
			return fmt.Errorf("has the value %q: a range stands alone and says its form, such as lin:0..1:5", word)
		}
		f, err := number(word)
		switch {
		case err == nil && strings.ContainsAny(word, ".eE"):
			word = shortest(f)
		case err != nil && !errors.Is(err, errNoNumber):
			return err
		}
		if seen[word] {
			return fmt.Errorf("has the value %s twice", word)
		}
		seen[word] = true
		a.values = append(a.values, word)
	}
	return nil
}

func isControl(r rune) bool { return r < ' ' || r == 0x7f || r == '\ufffd' }

// parseRange reads LO..HI, or LO..HI:N where N is the number of values or, of whole numbers, the step.
func (a *Axis) parseRange(text string) (err error) {
	ends, count, counted := strings.Cut(text, ":")
	from, to, ok := strings.Cut(ends, "..")
	if !ok {
		return fmt.Errorf("has no range after %s: write %[1]s:LO..HI", a.form)
	}
	if a.lo, err = number(from); err != nil {
		return err
	}
	if a.hi, err = number(to); err != nil {
		return err
	}
	if err := a.checkEnds(from, to); err != nil {
		return err
	}
	switch {
	case counted && a.form == pow2:
		return fmt.Errorf("has %q after the range: %s needs none", count, a.form)
	case a.form == pow2:
		for x := a.lo; x <= a.hi; x *= 2 {
			a.values = append(a.values, shortest(x))
		}
		return nil
	case !counted:
		return nil
	}
	n, err := strconv.Atoi(count)
	switch {
	case err != nil || n < 1:
		return fmt.Errorf("has %q after the range: %s", count, a.counted())
	case a.form == whole:
		return a.steps(n)
	case n < 2 || n > MaxPoints:
		return fmt.Errorf("asks for %d values: a range has 2 to %d", n, MaxPoints)
	}
	return a.spaced(n)
}

func (a *Axis) checkEnds(from, to string) error {
	isInt := a.form == whole || a.form == intLog || a.form == pow2
	switch {
	case (a.form == log || a.form == intLog) && a.lo <= 0:
		return fmt.Errorf("begins at %s: a logarithmic range begins above 0", from)
	case a.lo > a.hi:
		return fmt.Errorf("is reversed: write %s:%s..%s", a.form, to, from)
	case a.lo == a.hi:
		return fmt.Errorf("begins and ends at %s: write %s=%[1]s for one value", from, a.Name)
	case isInt && (!isWhole(a.lo) || !isWhole(a.hi)):
		return fmt.Errorf("has ends %s and %s: those of %s are whole numbers of at most 2^53", from, to, a.form)
	case a.form == pow2 && (!isPow2(a.lo) || !isPow2(a.hi)):
		return fmt.Errorf("has ends %s and %s: those of pow2 are powers of two, such as 1024 and 65536", from, to)
	}
	return nil
}

// steps fills in every n-th whole number.
func (a *Axis) steps(n int) error {
	lo, hi := int64(a.lo), int64(a.hi)
	step := int64(n)
	if rest := (hi - lo) % step; rest != 0 {
		if hi-rest == lo {
			return fmt.Errorf("has a step of %d that is longer than the range", n)
		}
		return fmt.Errorf("does not reach %d in steps of %d: end at %d or %d", hi, n, hi-rest, hi-rest+step)
	}
	if (hi-lo)/step >= MaxPoints {
		return fmt.Errorf("has %d values: at most %d, so take longer steps", (hi-lo)/step+1, MaxPoints)
	}
	for x := lo; x <= hi; x += step {
		a.values = append(a.values, strconv.FormatInt(x, 10))
	}
	return nil
}

// spaced fills in n spaced values.
func (a *Axis) spaced(n int) error {
	var numbers []float64
	if a.form == lin {
		numbers = linear(a.lo, a.hi, n)
	} else {
		numbers = logarithmic(a.lo, a.hi, n)
	}
	for i, x := range numbers {
		if a.form == intLog {
			numbers[i] = math.Round(x)
		}
		if i > 0 && numbers[i] == numbers[i-1] {
			return fmt.Errorf("asks for %d values, of which two are %s: ask for fewer", n, shortest(numbers[i]))
		}
		a.values = append(a.values, shortest(numbers[i]))
	}
	return nil
}

// Values are the values to try, in order; nil if the axis is a range.
func (a Axis) Values() []string { return a.values }

// String is the axis as ParseAxis reads it.
func (a Axis) String() string { return a.Name + "=" + a.text }

// counted says how a range gets its number of values.
func (a Axis) counted() string {
	if a.form == whole {
		return "give a step from 1, such as int:8..64:8"
	}
	return fmt.Sprintf("give a number of values, such as %s:%s..%s:5", a.form, shortest(a.lo), shortest(a.hi))
}

// ordered tells whether neighbours on the axis are neighbours in size, which a search by size needs.
func (a Axis) ordered() bool {
	if a.form != list {
		return true
	}
	last, up, down := 0.0, true, true
	for i, word := range a.values {
		x, err := number(word)
		if err != nil {
			return false
		}
		if i > 0 {
			up, down = up && x > last, down && x < last
		}
		last = x
	}
	return up || down
}
