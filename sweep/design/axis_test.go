package design

import (
	"math"
	"math/big"
	"slices"
	"strconv"
	"strings"
	"testing"
)

func parse(t testing.TB, texts ...string) []Axis {
	t.Helper()
	axes, err := ParseAxes(texts)
	if err != nil {
		t.Fatal(err)
	}
	return axes
}

func TestAxisValues(t *testing.T) {
	for text, want := range map[string]string{
		"loss-free.rate=log:1e-4..1e-1:4":            "0.0001 0.001 0.01 0.1",
		"loss-free.rate=log:1e-4..1e-1:7":            "0.0001 0.00031622776601683794 0.001 0.0031622776601683794 0.01 0.03162277660168379 0.1",
		"rate=log:1e-6..1e-2:5":                      "1e-06 1e-05 0.0001 0.001 0.01",
		"x=log:1e-300..1e300:3":                      "1e-300 1 1e+300",
		"x=log:2..32:5":                              "2 4 8 16 32",
		"x=lin:0..1:5":                               "0 0.25 0.5 0.75 1",
		"x=lin:0..1:11":                              "0 0.1 0.2 0.3 0.4 0.5 0.6 0.7 0.8 0.9 1",
		"x=lin:-0.3..0.3:3":                          "-0.3 0 0.3",
		"x=lin:1e6..3e6:3":                           "1000000 2000000 3000000",
		"experts=int:8..64:8":                        "8 16 24 32 40 48 56 64",
		"experts=int:-2..2:1":                        "-2 -1 0 1 2",
		"n=int-log:1..100:5":                         "1 3 10 32 100",
		"tokens=pow2:1024..65536":                    "1024 2048 4096 8192 16384 32768 65536",
		"tokens=1024,4096,16384":                     "1024 4096 16384",
		"rate=1e-3,0.0100,1E2,-0.0,7":                "0.001 0.01 100 0 7",
		"seed=12345678901234567890,007":              "12345678901234567890 007",
		"mode=frozen,learned":                        "frozen learned",
		"file=../a.npz,C:b,x..y,a=b":                 "../a.npz C:b x..y a=b",
		"Router.n_2-x=on":                            "on",
		"x=log:1..1.0000000000000004:3":              "1 1.0000000000000002 1.0000000000000004",
		"x=int:0..9007199254740992:9007199254740992": "0 9007199254740992",
	} {
		a, err := ParseAxis(text)
		if err != nil {
			t.Error(err)
			continue
		}
		if got := strings.Join(a.Values(), " "); got != want {
			t.Errorf("%s: %s, want %s", text, got, want)
		}
		if a.String() != text {
			t.Errorf("%s prints as %s", text, a)
		}
	}
	for _, text := range []string{"x=lin:0..1", "x=log:1e-4..1e-1", "x=int:1..9", "x=int-log:1..9"} {
		if a := parse(t, text)[0]; a.Values() != nil {
			t.Errorf("%s has values", text)
		}
	}
}

func TestAxisRefusals(t *testing.T) {
	for text, want := range map[string]string{
		"tokens":                          "write NAME=VALUES",
		"=1":                              "begins with no name",
		"9x=1":                            "begins with no name",
		"a b=1":                           "begins with no name",
		"x=":                              "gives x no values",
		"x=1,,2":                          "empty value",
		"x=1,":                            "empty value",
		"x=1, 2":                          "no spaces",
		"x=a\x00b":                        "no control",
		"x=1,2,1":                         "has the value 1 twice",
		"x=0.001,1e-3":                    "has the value 0.001 twice",
		"x=1.0,1":                         "has the value 1 twice",
		"x=NaN":                           "numbers are finite",
		"x=1,inf":                         "numbers are finite",
		"x=1e999":                         "from 1e-300 to 1e300",
		"x=0..1":                          "says its form, such as lin:0..1:5",
		"x=lin:0..1:5,3":                  `"5,3" after the range: give a number of values, such as lin:0..1:5`,
		"x=cubic:0..1:5":                  "the forms are lin, log, int, int-log and pow2",
		"x=lin:5":                         "write lin:LO..HI",
		"x=lin:..1:5":                     "is no number",
		"x=lin:0..:5":                     "is no number",
		"x=lin:0...5:5":                   "is no number",
		"x=lin:0x1..0x5:5":                "is no number",
		"x=lin:+1..2:5":                   "is no number",
		"x=lin:1_0..20:5":                 "is no number",
		"x=lin:NaN..1:5":                  "numbers are finite",
		"x=lin:0..Inf:5":                  "numbers are finite",
		"x=lin:0..1e301:5":                "from 1e-300 to 1e300",
		"x=lin:0..1e-301:5":               "from 1e-300 to 1e300",
		"x=lin:0..1e-999:5":               "from 1e-300 to 1e300",
		"x=lin:1..0:5":                    "is reversed: write lin:0..1",
		"x=lin:1..1:5":                    "write x=1 for one value",
		"x=lin:0..1:1":                    "a range has 2 to 1000000",
		"x=lin:0..1:0":                    "give a number of values",
		"x=lin:0..1:-3":                   "give a number of values",
		"x=lin:0..1:2.5":                  "give a number of values",
		"x=lin:0..1:":                     "give a number of values",
		"x=lin:0..1:5:5":                  "give a number of values",
		"x=lin:0..1:1000001":              "a range has 2 to 1000000",
		"x=lin:0..1:99999999999999999999": "give a number of values",
		"x=lin:1..1.0000000000000002:5":   "of which two are 1: ask for fewer",
		"x=log:0..1:5":                    "a logarithmic range begins above 0",
		"x=log:-1..1":                     "a logarithmic range begins above 0",
		"x=int-log:0..9:3":                "a logarithmic range begins above 0",
		"x=int-log:1..10:10":              "of which two are 1: ask for fewer",
		"x=int:8..60:8":                   "does not reach 60 in steps of 8: end at 56 or 64",
		"x=int:8..60:80":                  "a step of 80 that is longer than the range",
		"x=int:8..60:0":                   "give a step from 1",
		"x=int:0..2000000:1":              "has 2000001 values: at most 1000000",
		"x=int:0.5..2:1":                  "whole numbers",
		"x=int:0..1e16:1":                 "at most 2^53",
		"x=pow2:1000..65536":              "powers of two",
		"x=pow2:0.5..4":                   "whole numbers",
		"x=pow2:1..4:2":                   "pow2 needs none",
		"x=" + strings.Repeat("1", 1<<16): "at most 65536",
		"x=" + strings.Repeat("a", 257):   "at most 256",
		strings.Repeat("x", 257) + "=1":   "begins with no name",
	} {
		_, err := ParseAxis(text)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.80s: %v, want ...%s...", text, err, want)
		}
	}
	if _, err := ParseAxes([]string{"x=1", "y=2", "x=3"}); err == nil || !strings.Contains(err.Error(), "x is varied twice") {
		t.Error(err)
	}
	if _, err := ParseAxes(make([]string, MaxAxes+1)); err == nil {
		t.Error("too many axes pass")
	}
}

// Each spaced value is the float64 nearest to its exact one: no midpoint to a neighbour lies between them. A logarithmic value
// to the power of n-1 is rational.
func TestSpacingIsCorrectlyRounded(t *testing.T) {
	for _, c := range []struct {
		lo, hi float64
		n      int
	}{{1e-4, 1e-1, 13}, {0.3, 7, 10}, {1e-5, 3, 8}, {2, 1e6, 20}} {
		for form, x := range map[string][]float64{"lin": linear(c.lo, c.hi, c.n), "log": logarithmic(c.lo, c.hi, c.n)} {
			for i, v := range x {
				exact := func(y *big.Rat) *big.Rat { return y } // of what stands for the value
				want := new(big.Rat)
				if form == "lin" {
					want.Sub(exactly(c.hi), exactly(c.lo))
					want.Mul(want, big.NewRat(int64(i), int64(c.n-1)))
					want.Add(want, exactly(c.lo))
				} else {
					exact = func(y *big.Rat) *big.Rat { return ratPower(y, c.n-1) }
					want.Mul(ratPower(exactly(c.lo), c.n-1-i), ratPower(exactly(c.hi), i))
				}
				for _, side := range []int{-1, 1} {
					middle := new(big.Rat).SetFloat64(v)
					middle.Add(middle, new(big.Rat).SetFloat64(math.Nextafter(v, math.Inf(side))))
					middle.Quo(middle, big.NewRat(2, 1))
					if exact(middle).Cmp(want) != side {
						t.Errorf("%s %v value %d: %v is not the nearest", form, c, i, v)
					}
				}
			}
		}
	}
}

func ratPower(x *big.Rat, n int) *big.Rat {
	p := big.NewRat(1, 1)
	for range n {
		p.Mul(p, x)
	}
	return p
}

func TestAMillionValues(t *testing.T) {
	for _, text := range []string{"x=log:1e-4..1e-1:1000000", "x=lin:0..1:1000000"} {
		a := parse(t, text)[0]
		if n := len(a.Values()); n != MaxPoints || a.Values()[n-1] != shortest(a.hi) {
			t.Errorf("%s: %d values, the last %s", text, n, a.Values()[n-1])
		}
	}
}

// A grid of 2n-1 values holds that of n, so that it can be refined without recomputing.
func TestRefinedSpacingKeepsItsValues(t *testing.T) {
	for _, form := range []string{"lin", "log"} {
		coarse := parse(t, "x="+form+":1e-4..1e-1:13")[0].Values()
		fine := parse(t, "x="+form+":1e-4..1e-1:25")[0].Values()
		for i := range coarse {
			if coarse[i] != fine[2*i] {
				t.Errorf("%s: value %d is %s of 13 and %s of 25", form, i, coarse[i], fine[2*i])
			}
		}
	}
}

func TestAt(t *testing.T) {
	for _, c := range []struct {
		axis string
		u    float64
		want string
	}{
		{"x=lin:0..1", 0, "0"}, {"x=lin:0..1", 1, "1"}, {"x=lin:0..1", 1. / 3, "0.3333333"}, {"x=lin:0..1", 0.1234567891, "0.1234568"},
		{"x=lin:-5..5", 0.5, "0"}, {"x=lin:0..1000", 1. / 3, "333.3333"}, {"x=lin:1000..1001", 1. / 3, "1000.3333333"},
		{"x=lin:0..1", -3, "0"}, {"x=lin:0..1", 7, "1"}, {"x=lin:0.1..0.3", 0.9999999999, "0.3"},
		{"x=log:1e-4..1e-1", 0, "0.0001"}, {"x=log:1e-4..1e-1", 1, "0.1"}, {"x=log:1e-4..1e-1", 1. / 3, "0.001"},
		{"x=log:1e-4..1e-1", 0.5, "0.003162278"},
		{"x=int:1..6", 0, "1"}, {"x=int:1..6", 0.999, "6"}, {"x=int:1..6", 1, "6"}, {"x=int:1..6", 0.5, "4"},
		{"x=int-log:1..1000", 0, "1"}, {"x=int-log:1..1000", 1, "1000"}, {"x=int-log:1..1000", 0.5, "22"},
		{"x=a,b,c", 0.34, "b"}, {"x=a,b,c", 1, "c"}, {"x=lin:0..1:5", 0.5, "0.5"}, {"x=pow2:1..4", 0.5, "2"}, {"x=int:8..64:8", 0.99, "64"},
	} {
		if got := parse(t, c.axis)[0].At(c.u); got != c.want {
			t.Errorf("%s at %v: %s, want %s", c.axis, c.u, got, c.want)
		}
	}
}

func TestCheck(t *testing.T) {
	for _, c := range []struct{ axis, word, want, problem string }{
		{"x=lin:0..1", "5e-1", "0.5", ""},
		{"x=lin:0..1", "1.5", "", "it must be from 0 to 1"},
		{"x=lin:0..1", "often", "", "is no number"},
		{"x=lin:0..1", "nan", "", "numbers are finite"},
		{"x=int:1..9", "4.0", "4", ""},
		{"x=int:1..9", "4.5", "", "must be a whole number"},
		{"x=log:1e-4..1e-1:4", "1e-3", "0.001", ""},
		{"x=log:1e-4..1e-1:4", "0.002", "", "has no value"},
		{"x=007,b", "007", "007", ""},
		{"x=1024,b", "1.024e3", "1024", ""},
		{"x=a,b", "c", "", "it is a,b"},
		{"x=a,0", "c", "", "it is a,0"},
	} {
		got, err := parse(t, c.axis)[0].Check(c.word)
		if got != c.want || (err == nil) != (c.problem == "") || err != nil && !strings.Contains(err.Error(), c.problem) {
			t.Errorf("%s, %s: %q, %v", c.axis, c.word, got, err)
		}
	}
}

func FuzzParseAxis(f *testing.F) {
	for _, s := range []string{"tokens=1,2", "x=lin:0..1:5", "r=log:1e-4..1e-1", "n=int:8..64:8", "n=int-log:1..9:3", "n=pow2:1..8", "x=-1e-3,a"} {
		f.Add(s, 0.5)
	}
	f.Fuzz(func(t *testing.T, text string, u float64) {
		if i := strings.LastIndexByte(text, ':'); len(text)-i > 4 {
			return // counts of more than three digits take long and show no more
		}
		a, err := ParseAxis(text)
		if err != nil {
			if len(err.Error()) > 4*maxText {
				t.Errorf("an error of %d bytes", len(err.Error()))
			}
			return
		}
		if again := parse(t, a.String())[0]; !slices.Equal(again.Values(), a.Values()) {
			t.Errorf("%q parses differently as %q", text, a.String())
		}
		seen := map[string]bool{}
		for i, v := range append(slices.Clone(a.Values()), a.At(u), a.At(0), a.At(1)) {
			if got, err := a.Check(v); err != nil || got != v {
				t.Errorf("%q has %q, which checks as %q: %v", text, v, got, err)
			}
			if i < len(a.Values()) && seen[v] {
				t.Errorf("%q has %q twice", text, v)
			}
			seen[v] = true
			if a.form == list {
				continue
			}
			x, err := strconv.ParseFloat(v, 64)
			if err != nil || shortest(x) != v || x < a.lo || x > a.hi {
				t.Errorf("%q has %q beyond its ends or not in its shortest form", text, v)
			}
		}
	})
}
