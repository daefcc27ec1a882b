package stat

import (
	"fmt"
	"math"
	"slices"
)

// Term is what one factor, or the interaction of two, explains of a response.
type Term struct {
	Factors     []int   // the columns of the design: one for a main effect, two for an interaction
	DF          int     // degrees of freedom; 0 where the design cannot tell the term from others
	SumSquares  float64 // in squared units of the response
	Share       float64 // of the total sum of squares
	MeanSquares float64 // SumSquares / DF, 0 without a degree of freedom
}

// Decomposition splits the sum of squares of a response about its mean,
//
//	total = Σ terms + Shared + Higher + Seeds + Blocks.
//
// The F ratio of a term is its mean squares over those of the residual it is to be judged by.
type Decomposition struct {
	Terms  []Term // main effects in the order of columns, then interactions in the order of pairs
	Shared Term   // what unbalanced terms explain together but none alone: 0 in a balanced design, and may be negative
	Higher Term   // between cells, beyond pairs: interactions of three factors and more
	Seeds  Term   // within cells, between rows of equal levels: 0, with no degree of freedom, if no cell has two
	Blocks Term   // taken out of Seeds by Block, and none before
	Total  Term
}

// Decompose analyses the variance of a factorial design, full or partial: row i of levels holds the level of every factor
// (any integers; each distinct one is a level of its own) at which response[i] was seen, once for every seed.
//
// The sum of squares of a term is by how much it lowers the residual of a least-squares fit: of a main effect, added to all
// other main effects; of an interaction, added to all main effects and all other interactions of two (sums of squares of
// type II: Yates 1934, JASA 29, 51; Fox 2016, Applied Regression Analysis, section 8.2). They depend on no order of factors,
// nor on names of levels. In a balanced full design all terms are orthogonal, these are the classical sums of squares, and
// they add up; otherwise Shared is what is missing. A main effect is credited before interactions it is aliased with, and
// interactions aliased with each other have no degree of freedom left to either.
//
// It is an error if there are no rows or no factors, if rows differ in length or in number from the response, or if a
// response is not finite.
func Decompose(levels [][]int, response []float64) (*Decomposition, error) {
	if err := checkDesign(levels, response); err != nil {
		return nil, err
	}
	n, factors := len(response), len(levels[0])
	y, mean := make([]float64, n), Mean(response)
	for i, r := range response {
		y[i] = r - mean
	}
	var main, pairs [][][]float64 // columns of each term
	var terms, interactions []Term
	for a := range factors {
		main = append(main, contrasts(levels, a))
		terms = append(terms, Term{Factors: []int{a}})
	}
	for a := range factors {
		for b := a + 1; b < factors; b++ {
			pairs = append(pairs, products(main[a], main[b]))
			interactions = append(interactions, Term{Factors: []int{a, b}})
		}
	}
	all := newFit(y)
	for _, columns := range main {
		all.add(columns)
	}
	for _, columns := range pairs {
		all.add(columns)
	}
	for a := range terms {
		f := newFit(y)
		for other, columns := range main {
			if other != a {
				f.add(columns)
			}
		}
		terms[a].DF, terms[a].SumSquares = f.add(main[a])
	}
	for p := range interactions {
		f := newFit(y)
		for _, columns := range main {
			f.add(columns)
		}
		for other, columns := range pairs {
			if other != p {
				f.add(columns)
			}
		}
		interactions[p].DF, interactions[p].SumSquares = f.add(pairs[p])
	}
	d := &Decomposition{Terms: append(terms, interactions...)}
	d.Total = Term{DF: n - 1, SumSquares: squares(y)}
	d.Seeds = within(levels, response)
	explained, rank := d.Total.SumSquares-squares(all.rest), len(all.basis)-1
	d.Shared = Term{DF: rank, SumSquares: explained}
	for _, t := range d.Terms {
		d.Shared.DF -= t.DF
		d.Shared.SumSquares -= t.SumSquares
	}
	d.Higher = Term{DF: n - 1 - rank - d.Seeds.DF}
	if d.Higher.DF > 0 {
		d.Higher.SumSquares = max(0, squares(all.rest)-d.Seeds.SumSquares)
	}
	for i := range d.Terms {
		d.Terms[i].divide(d.Total.SumSquares)
	}
	for _, t := range []*Term{&d.Shared, &d.Higher, &d.Seeds, &d.Total} {
		t.divide(d.Total.SumSquares)
	}
	return d, nil
}

// Block takes out of Seeds what the blocks of the rows have in common: with B blocks, each of which holds every one of C cells once,
//
//	Blocks = C Σ_b (ȳ_b − ȳ)²,  B − 1 degrees of freedom,  Seeds = Seeds − Blocks,
//
// a randomised complete block design (Montgomery, Design and Analysis of Experiments, section 4.1). Seeds are such blocks where
// a seed is a world that all settings share. It reports whether the design is one; otherwise nothing changes, since blocks and terms
// are not orthogonal.
func (d *Decomposition) Block(levels [][]int, blocks []int, response []float64) bool {
	rows := map[int][]int{}
	var names []int
	for i, b := range blocks {
		if rows[b] == nil {
			names = append(names, b)
		}
		rows[b] = append(rows[b], i)
	}
	var first []int // rows of the first block, in the order of their levels
	mean, between := Mean(response), 0.0
	for _, b := range names {
		list := rows[b]
		slices.SortStableFunc(list, func(i, j int) int { return slices.Compare(levels[i], levels[j]) })
		if first == nil {
			first = list
		}
		if len(list) != len(first) {
			return false
		}
		var y []float64
		for k, i := range list {
			if !slices.Equal(levels[i], levels[first[k]]) || k > 0 && slices.Equal(levels[i], levels[list[k-1]]) {
				return false
			}
			y = append(y, response[i])
		}
		deviation := Mean(y) - mean
		between += float64(deviation * deviation)
	}
	if len(names) < 2 || len(first) < 2 {
		return false
	}
	d.Blocks = Term{DF: len(names) - 1, SumSquares: float64(float64(len(first)) * between)}
	d.Seeds = Term{DF: d.Seeds.DF - d.Blocks.DF, SumSquares: max(0, d.Seeds.SumSquares-d.Blocks.SumSquares)}
	d.Blocks.divide(d.Total.SumSquares)
	d.Seeds.divide(d.Total.SumSquares)
	return true
}

func checkDesign(levels [][]int, response []float64) error {
	if len(levels) == 0 || len(levels[0]) == 0 {
		return fmt.Errorf("a design needs rows and factors, and has %d rows", len(levels))
	}
	if len(levels) != len(response) {
		return fmt.Errorf("a design of %d rows has %d responses: each row must have one", len(levels), len(response))
	}
	for i, row := range levels {
		if len(row) != len(levels[0]) {
			return fmt.Errorf("row %d has levels of %d factors, and row 0 of %d: they must be the same factors",
				i, len(row), len(levels[0]))
		}
		if !finite(response[i]) {
			return fmt.Errorf("the response of row %d is %v: it must be finite", i, response[i])
		}
	}
	return nil
}

// divide fills in what follows from the sum of squares.
func (t *Term) divide(total float64) {
	if total > 0 {
		t.Share = t.SumSquares / total
	}
	if t.DF > 0 {
		t.MeanSquares = t.SumSquares / float64(t.DF)
	}
}

// contrasts returns a column for every level of a factor but the last: 1 at that level, −1 at the last, 0 elsewhere.
func contrasts(levels [][]int, factor int) (columns [][]float64) {
	var names []int
	for _, row := range levels {
		names = append(names, row[factor])
	}
	slices.Sort(names)
	names = slices.Compact(names)
	last := names[len(names)-1]
	for _, name := range names[:len(names)-1] {
		column := make([]float64, len(levels))
		for i, row := range levels {
			switch row[factor] {
			case name:
				column[i] = 1
			case last:
				column[i] = -1
			}
		}
		columns = append(columns, column)
	}
	return columns
}

func products(a, b [][]float64) (columns [][]float64) {
	for _, x := range a {
		for _, y := range b {
			column := make([]float64, len(x))
			for i := range x {
				column[i] = x[i] * y[i]
			}
			columns = append(columns, column)
		}
	}
	return columns
}

// within returns the variation between rows of equal levels.
func within(levels [][]int, response []float64) Term {
	order := make([]int, len(levels))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(i, j int) int { return slices.Compare(levels[i], levels[j]) })
	var t Term
	for from, to := 0, 0; from < len(order); from = to {
		var cell []float64
		for to = from; to < len(order) && slices.Equal(levels[order[to]], levels[order[from]]); to++ {
			cell = append(cell, response[order[to]])
		}
		mean := Mean(cell)
		for i := range cell {
			cell[i] -= mean
		}
		t.DF += len(cell) - 1
		t.SumSquares += squares(cell)
	}
	return t
}

// fit is a least-squares fit that grows by columns: an orthonormal basis of them, the constant first, and the residual.
type fit struct {
	basis [][]float64
	rest  []float64
}

func newFit(y []float64) *fit {
	one := make([]float64, len(y))
	for i := range one {
		one[i] = 1 / math.Sqrt(float64(len(y)))
	}
	return &fit{[][]float64{one}, slices.Clone(y)}
}

// independent is the share of its length that a column must keep beside the others to count as another direction.
const independent = 1e-8

// add extends the fit by columns (Gram and Schmidt's method, each column twice), and returns how many of them are new
// directions and by how much they lower the residual sum of squares.
func (f *fit) add(columns [][]float64) (df int, gain float64) {
	for _, column := range columns {
		v := slices.Clone(column)
		for range 2 {
			for _, q := range f.basis {
				subtract(v, q, dot(q, v))
			}
		}
		length := math.Sqrt(squares(v))
		if length <= independent*math.Sqrt(squares(column)) {
			continue
		}
		for i := range v {
			v[i] /= length
		}
		along := dot(v, f.rest)
		subtract(f.rest, v, along)
		f.basis = append(f.basis, v)
		df++
		gain += float64(along * along)
	}
	return df, gain
}

func dot(a, b []float64) (sum float64) {
	for i := range a {
		sum += float64(a[i] * b[i])
	}
	return sum
}

func squares(x []float64) float64 { return dot(x, x) }

func subtract(from, x []float64, times float64) {
	for i := range from {
		from[i] -= float64(times * x[i])
	}
}
