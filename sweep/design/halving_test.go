package design

import (
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func numbered(n int) []Point {
	var points []Point
	for i := range n {
		points = append(points, Point{shortest(float64(i))})
	}
	return points
}

func newHalving(t testing.TB, n int, o HalvingOptions) *Halving {
	t.Helper()
	h, err := NewHalving(numbered(n), o)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// Li et al. (2018), table 1: the brackets s = 4 to 1 of Hyperband with R = 81 and η = 3.
func TestRungsOfHyperband(t *testing.T) {
	for n, want := range map[int][][2]int{
		81: {{81, 1}, {27, 3}, {9, 9}, {3, 27}, {1, 81}},
		27: {{27, 3}, {9, 9}, {3, 27}, {1, 81}},
		9:  {{9, 9}, {3, 27}, {1, 81}},
		6:  {{6, 27}, {2, 81}},
	} {
		var got [][2]int
		for _, r := range newHalving(t, n, HalvingOptions{Min: Budget{want[0][1], 1}, Max: Budget{81, 1}}).Rungs() {
			got = append(got, [2]int{r.Points, r.Steps})
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%d points: %s", n, diff)
		}
	}
}

// Jamieson and Talwalkar's account: a rung costs what the first does, less the rounding of its points, and what each point gets
// grows by η. Only the last point may cost more, where rounding down would leave none.
func TestRungsCostEquallyMuch(t *testing.T) {
	for _, n := range []int{2, 3, 10, 64, 100, 243, 1000} {
		for eta := 2; eta <= 4; eta++ {
			levels, budget := 0, 1
			for m := n; m > 1; m /= eta {
				levels++
				budget *= eta
			}
			rungs := newHalving(t, n, HalvingOptions{Eta: eta, Min: Budget{10, 1}, Max: Budget{10 * budget, 1}}).Rungs()
			if len(rungs) != levels+1 || rungs[levels].Points != 1 {
				t.Errorf("%d points, eta %d: %v", n, eta, rungs)
			}
			for k, r := range rungs {
				cost := r.Points * r.Steps * r.Seeds
				if cost > 10*n && r.Points > 1 || cost <= 10*n-r.Steps*(eta*eta-1)/(eta-1) {
					t.Errorf("%d points, eta %d: rung %d costs %d, the first %d", n, eta, k, cost, 10*n)
				}
				if k > 0 && (r.Points != max(1, rungs[k-1].Points/eta) || r.Steps != eta*rungs[k-1].Steps) {
					t.Errorf("%d points, eta %d: rung %d is %+v after %+v", n, eta, k, r, rungs[k-1])
				}
			}
		}
	}
}

// Steps grow to their end, then seeds; the last rung is the greatest budget even where that is no power of eta.
func TestRungsOfStepsAndSeeds(t *testing.T) {
	got := newHalving(t, 300, HalvingOptions{Min: Budget{100, 2}, Max: Budget{500, 8}}).Rungs()
	want := []Rung{{300, Budget{100, 2}}, {100, Budget{300, 2}}, {33, Budget{500, 3}}, {11, Budget{500, 8}}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	got = newHalving(t, 5, HalvingOptions{Min: Budget{100, 1}, Max: Budget{100_000, 1}}).Rungs()
	want = []Rung{{5, Budget{100, 1}}, {1, Budget{100_000, 1}}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestHalvingKeepsTheBest(t *testing.T) {
	h := newHalving(t, 9, HalvingOptions{Min: Budget{1, 1}, Max: Budget{9, 1}})
	nan, inf := math.NaN(), math.Inf(1)
	// 3 and 7 are equal with 5, and failures are last.
	tell(t, h, "0 1 2 3 4 5 6 7 8", 1, [][]float64{{9}, nil, {nan}, {2}, {8}, {2}, {inf}, {2}, {2}})
	tell(t, h, "3 5 7", 3, [][]float64{nil, nil, {1}})
	tell(t, h, "7", 9, [][]float64{{1}})
	if h.Ask() != nil {
		t.Error("it asks after the last rung")
	}
	if err := h.Tell(nil); err == nil {
		t.Error("it may be told after the last rung")
	}
	h = newHalving(t, 4, HalvingOptions{Eta: 2, Min: Budget{1, 1}, Max: Budget{4, 1}})
	tell(t, h, "0 1 2 3", 1, make([][]float64, 4))
	tell(t, h, "0 1", 2, [][]float64{{1}, {1}})
	tell(t, h, "0", 4, [][]float64{{1}})
}

func tell(t *testing.T, h *Halving, points string, steps int, values [][]float64) {
	t.Helper()
	var got []string
	for _, trial := range h.Ask() {
		got = append(got, trial.Point[0])
		if trial.Steps != steps {
			t.Errorf("%d steps, want %d", trial.Steps, steps)
		}
	}
	if strings.Join(got, " ") != points {
		t.Errorf("it asks for %v, want %s", got, points)
	}
	if err := h.Tell(values); err != nil {
		t.Fatal(err)
	}
}

func TestHalvingRefusals(t *testing.T) {
	one, two := Budget{1, 1}, Budget{2, 2}
	for _, c := range []struct {
		n    int
		o    HalvingOptions
		want string
	}{
		{1, HalvingOptions{Min: one, Max: two}, "2 to 1000000"},
		{9, HalvingOptions{Eta: 1, Min: one, Max: two}, "2 to 16"},
		{9, HalvingOptions{Max: two}, "at least 1"},
		{9, HalvingOptions{Min: one, Max: one}, "go up in one"},
		{9, HalvingOptions{Min: two, Max: Budget{9, 1}}, "down in none"},
		{9, HalvingOptions{Min: two, Max: Budget{1e9, 2}}, "at most 100000000"},
	} {
		if _, err := NewHalving(numbered(c.n), c.o); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%d points, %+v: %v", c.n, c.o, err)
		}
	}
}
