package design

import (
	"errors"
	"fmt"
	"math"
	"slices"
)

// Budget is what one trial may cost.
type Budget struct {
	Steps int `json:"steps,omitempty"` // 0: as the scenario says
	Seeds int `json:"seeds,omitempty"` // 0: as the sweep says
}

// Limits of a budget.
const (
	maxSteps = 100_000_000
	maxSeeds = 100_000
)

// Trial is a point to be run.
type Trial struct {
	Point Point `json:"point"`
	Budget
}

// Search chooses points by what earlier ones were worth. What it asks depends on nothing but its arguments and what it was
// told, so that a search that was stopped goes on when it is told the same again.
type Search interface {
	// Ask returns the trials of one generation, the same until it is told their values, and none when the search is over.
	Ask() []Trial
	// Tell takes the values of the trials that Ask returned, in their order: a row of objectives for each, all to be made
	// small. A row that is nil or holds NaN or +Inf is of a trial that failed, which counts as worse than any other.
	Tell(values [][]float64) error
}

// Generation is what was asked and told once. JSON has no NaN: in a history that is kept, a trial that failed has a nil row.
type Generation struct {
	Trials []Trial     `json:"trials"`
	Values [][]float64 `json:"values"`
}

// checked returns a copy of what a search was told, failed trials as rows of +Inf.
func checked(asked []Trial, values [][]float64, objectives int) ([][]float64, error) {
	if len(asked) == 0 {
		return nil, errors.New("the search is over, or was told before it was asked")
	}
	if len(values) != len(asked) {
		return nil, fmt.Errorf("the search asked for %d trials and was told the values of %d", len(asked), len(values))
	}
	told := rows(len(values), objectives)
	for i, row := range values {
		switch {
		case row != nil && len(row) != objectives:
			return nil, fmt.Errorf("trial %d has %d values: the search has %d objectives", i, len(row), objectives)
		case slices.Contains(row, math.Inf(-1)):
			return nil, fmt.Errorf("trial %d has the value -Inf: values are finite, or NaN when the trial failed", i)
		}
		copy(told[i], row)
		if row == nil || slices.ContainsFunc(row, failed) {
			for j := range told[i] {
				told[i][j] = math.Inf(1)
			}
		}
	}
	return told, nil
}
