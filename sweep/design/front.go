package design

import (
	"cmp"
	"math"
	"slices"
)

// Front returns the indices, rising, of the rows that no other row dominates: none is as small in every value and smaller in
// one. Equal rows are all of the front; a row with a value that is NaN or +Inf failed, and is not. All rows have equally many
// values. Two values take O(n log n) by sorting (Kung, Luccio and Preparata 1975), more take comparisons of all pairs.
func Front(values [][]float64) []int {
	front := []int{}
	for i, row := range values {
		if len(row) > 0 && !slices.ContainsFunc(row, failed) {
			front = append(front, i)
		}
	}
	if len(front) == 0 {
		return front
	}
	if n := len(values[front[0]]); n <= 2 {
		return sweepLine(values, front, n-1)
	}
	whole := slices.Clone(front)
	return slices.DeleteFunc(front, func(i int) bool {
		return slices.ContainsFunc(whole, func(j int) bool { return dominates(values[j], values[i]) })
	})
}

func failed(x float64) bool { return math.IsNaN(x) || x > math.MaxFloat64 }

// sweepLine is the front of rows of one or two values, the last of which has the given index.
func sweepLine(values [][]float64, rows []int, last int) []int {
	type pair struct {
		x, y float64
		row  int
	}
	pairs := make([]pair, len(rows))
	for k, i := range rows {
		pairs[k] = pair{values[i][0], values[i][last], i}
	}
	slices.SortFunc(pairs, func(a, b pair) int {
		switch {
		case a.x < b.x || a.x == b.x && a.y < b.y:
			return -1
		case a.x == b.x && a.y == b.y:
			return cmp.Compare(a.row, b.row)
		}
		return 1
	})
	front := []int{}
	lowest := pairs[0]
	for _, p := range pairs {
		if p.y < lowest.y {
			lowest = p
		}
		if p.y == lowest.y && p.x == lowest.x {
			front = append(front, p.row)
		}
	}
	slices.Sort(front)
	return front
}

// dominates tells whether a is as small as b in every value and smaller in one.
func dominates(a, b []float64) bool {
	less := false
	for i := range a {
		if a[i] > b[i] {
			return false
		}
		less = less || a[i] < b[i]
	}
	return less
}

// fronts sorts rows into fronts, each of which only those before dominate: the fast non-dominated sort of Deb et al. (2002).
func fronts(values [][]float64) (all [][]int) {
	above := make([]int, len(values)) // how many dominate it
	below := make([][]int, len(values))
	var front []int
	for i := range values {
		for j := range i {
			if dominates(values[j], values[i]) {
				below[j] = append(below[j], i)
				above[i]++
			} else if dominates(values[i], values[j]) {
				below[i] = append(below[i], j)
				above[j]++
			}
		}
	}
	for i, n := range above {
		if n == 0 {
			front = append(front, i)
		}
	}
	for len(front) > 0 {
		all = append(all, front)
		var next []int
		for _, i := range front {
			for _, j := range below[i] {
				if above[j]--; above[j] == 0 {
					next = append(next, j)
				}
			}
		}
		slices.Sort(next)
		front = next
	}
	return all
}

// crowding returns the crowding distance of each row of a front: the sum over objectives of the distance between its neighbours,
// over that between the ends, and infinity for the ends.
func crowding(values [][]float64, front []int) []float64 {
	distance := make([]float64, len(front))
	order := make([]int, len(front))
	for m := range values[front[0]] {
		for i := range order {
			order[i] = i
		}
		at := func(i int) float64 { return values[front[order[i]]][m] }
		slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(values[front[a]][m], values[front[b]][m]) })
		end := len(order) - 1
		span := at(end) - at(0)
		if !(span > 0) || math.IsInf(span, 1) { // all equal, all failed, or beyond measure
			continue
		}
		distance[order[0]], distance[order[end]] = math.Inf(1), math.Inf(1)
		for i := 1; i < end; i++ {
			distance[order[i]] += (at(i+1) - at(i-1)) / span
		}
	}
	return distance
}
