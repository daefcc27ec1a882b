package design

import (
	"fmt"
	"math"
	"slices"

	"gonum.org/v1/gonum/mat"
	"gonum.org/v1/gonum/optimize"

	"evenkeel/internal/rng"
)

// CMAESOptions are the settings of a covariance matrix adaptation.
type CMAESOptions struct {
	Trials     int    // at most so many; a generation is never cut
	Population int    // of a generation; 0: 4 + ⌊3 ln axes⌋
	Seed       uint64
}

// CMAES searches for the least value of one objective; see [NewCMAES].
type CMAES struct {
	axes    []Axis
	options CMAESOptions
	values  []float64 // of all trials told
	asked   []Trial
	over    bool
}

const firstStep = 0.3 // standard deviation of the first generation, which begins at the cube's centre

// NewCMAES returns a search for the least value of one objective by covariance matrix adaptation: Hansen (2016), The CMA
// evolution strategy: a tutorial, arXiv:1604.00772, in the form of Krause, Arbonès and Igel (2016) that gonum's optimize has.
// It works in the axes' unit cube, logarithmic axes by their logarithms; what leaves the cube is reflected at its faces. Axes of
// words have no order and are refused.
//
// Gonum's loop runs from the beginning for each generation, on the values told so far: what it costs grows with the square of
// the trials, a second for some ten thousand, and nothing of it lives between the calls.
func NewCMAES(axes []Axis, o CMAESOptions) (*CMAES, error) {
	if len(axes) == 0 || len(axes) > MaxAxes {
		return nil, fmt.Errorf("CMA-ES over %d axes: there must be 1 to %d", len(axes), MaxAxes)
	}
	for _, a := range axes {
		if !a.ordered() {
			return nil, fmt.Errorf("CMA-ES cannot vary %s, whose values have no order: give it numbers that rise, or use a design or NSGA-II", a.Name)
		}
	}
	if o.Population == 0 {
		o.Population = 4 + int(3*math.Log(float64(len(axes))))
	}
	if o.Population < 4 || o.Population > 10_000 {
		return nil, fmt.Errorf("CMA-ES with a population of %d: it must be 4 to 10000", o.Population)
	}
	if o.Trials < o.Population || o.Trials > MaxPoints {
		return nil, fmt.Errorf("CMA-ES with %d trials: there must be at least the population, %d, and at most %d", o.Trials, o.Population, MaxPoints)
	}
	return &CMAES{axes: slices.Clone(axes), options: o}, nil
}

// Ask implements [Search].
func (c *CMAES) Ask() []Trial {
	if c.asked == nil && !c.over {
		c.asked = c.next()
		c.over = c.asked == nil
	}
	return slices.Clone(c.asked)
}

// Tell implements [Search]. There is one objective.
func (c *CMAES) Tell(values [][]float64) error {
	told, err := checked(c.asked, values, 1)
	if err != nil {
		return err
	}
	for _, row := range told {
		c.values = append(c.values, row[0])
	}
	c.asked = nil
	return nil
}

// next runs the method on the values told until it has sampled a generation beyond them. It is nil when the method has converged
// or has no trials left.
func (c *CMAES) next() []Trial {
	n := c.options.Population
	if len(c.values)+n > c.options.Trials {
		return nil
	}
	var trials []Trial
	calls := 0
	problem := optimize.Problem{Func: func(x []float64) float64 {
		calls++
		if calls <= len(c.values) {
			return c.values[calls-1]
		}
		u := make([]float64, len(x))
		for j := range x {
			u[j] = reflected(x[j])
		}
		trials = append(trials, Trial{Point: at(c.axes, u)})
		return math.Inf(1)
	}}
	dim := len(c.axes)
	centre := make([]float64, dim)
	first := mat.NewSymDense(dim, nil)
	for j := range dim {
		centre[j] = 0.5
		first.SetSym(j, j, firstStep*firstStep)
	}
	var root mat.Cholesky
	root.Factorize(first)
	source := rng.New(rng.Key(c.options.Seed, rng.Design, ofCMAES))
	method := &optimize.CmaEsChol{InitStepSize: 1, InitCholesky: &root, Population: n, Src: &source}
	settings := &optimize.Settings{FuncEvaluations: len(c.values) + n, Converger: optimize.NeverTerminate{}}
	if _, err := optimize.Minimize(problem, centre, settings, method); err != nil || len(trials) < n {
		return nil
	}
	return trials
}

// reflected folds the real line into 0 to 1.
func reflected(x float64) float64 {
	x = math.Mod(math.Abs(x), 2)
	return min(x, 2-x)
}
