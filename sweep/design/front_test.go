package design

import (
	"math"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"evenkeel/internal/rng"
)

// cloud returns n random rows; grid > 0 puts them on few values, so that many are equal in some or all.
func cloud(n, m, grid int, seed uint64) [][]float64 {
	r := rng.New(seed)
	values := rows(n, m)
	for _, row := range values {
		for j := range row {
			row[j] = r.Float64()
			if grid > 0 {
				row[j] = float64(r.IntN(grid))
			}
		}
	}
	return values
}

// peeled sorts into fronts by the definition: a row is in the first front in which none of those left dominates it.
func peeled(values [][]float64) (all [][]int) {
	left := make([]int, len(values))
	for i := range left {
		left[i] = i
	}
	for len(left) > 0 {
		var front, rest []int
		for _, i := range left {
			dominated := false
			for _, j := range left {
				as, less := true, false
				for m := range values[i] {
					as = as && values[j][m] <= values[i][m]
					less = less || values[j][m] < values[i][m]
				}
				dominated = dominated || as && less
			}
			if dominated {
				rest = append(rest, i)
			} else {
				front = append(front, i)
			}
		}
		all, left = append(all, front), rest
	}
	return all
}

func TestFrontsEqualTheirDefinition(t *testing.T) {
	for seed := range uint64(100) {
		for _, m := range []int{1, 2, 3, 5} {
			for _, grid := range []int{0, 4} {
				values := cloud(1+int(seed)%60, m, grid, seed)
				want := peeled(values)
				if diff := cmp.Diff(want, fronts(values)); diff != "" {
					t.Fatalf("seed %d, %d objectives: fronts %s", seed, m, diff)
				}
				if diff := cmp.Diff(want[0], Front(values)); diff != "" {
					t.Fatalf("seed %d, %d objectives: front %s", seed, m, diff)
				}
			}
		}
	}
}

func TestFrontWithoutFailures(t *testing.T) {
	nan, inf := math.NaN(), math.Inf(1)
	values := [][]float64{{2, 2}, {nan, 0}, {1, 3}, nil, {0, inf}, {2, 2}, {3, 2}, {1, 4}}
	if got := Front(values); !slices.Equal(got, []int{0, 2, 5}) {
		t.Errorf("the front is %v", got)
	}
	if got := Front([][]float64{{nan, 1}, {1, nan}}); len(got) != 0 {
		t.Errorf("the front of failures is %v", got)
	}
	if got := Front([][]float64{{1, 1, 2}, {nan, 0, 0}, {1, 1, 1}}); !slices.Equal(got, []int{2}) {
		t.Errorf("the front of three values is %v", got)
	}
}

// By hand: the distance between the neighbours over the span of 4, for each objective; of equals the first is the end.
func TestCrowding(t *testing.T) {
	values := [][]float64{{4, 0}, {1, 2}, {0, 4}, {3, 0}}
	got := crowding(values, []int{0, 1, 2, 3})
	inf := math.Inf(1)
	if diff := cmp.Diff([]float64{inf, 3./4 + 4./4, inf, 3./4 + 2./4}, got); diff != "" {
		t.Error(diff)
	}
	values = [][]float64{{0, 8}, {1, 4}, {2, 3}, {8, 0}}
	if diff := cmp.Diff([]float64{inf, 2./8 + 5./8, 7./8 + 4./8, inf}, crowding(values, []int{0, 1, 2, 3})); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]float64{0, 0}, crowding([][]float64{{inf, inf}, {inf, inf}}, []int{0, 1})); diff != "" {
		t.Error(diff)
	}
}

func BenchmarkFront(b *testing.B) {
	values := cloud(1_000_000, 2, 0, 1)
	for b.Loop() {
		Front(values)
	}
}
