package design

import (
	"cmp"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"

	"gonum.org/v1/gonum/mat"

	"evenkeel/internal/rng"
)

// CMAESOptions are the settings of a covariance matrix adaptation.
type CMAESOptions struct {
	Trials     int // at most so many; a generation is never cut
	Population int // of a generation; 0: 4 + ⌊3 ln axes⌋
	Seed       uint64
}

// CMAES searches for the least value of one objective; see [NewCMAES].
type CMAES struct {
	axes    []Axis
	options CMAESOptions
	asked   []Trial
	told    int // generations
	flat    int // the last generations without a difference in value

	// The letters of the tutorial: weights w, their effective number μ_eff, rates of learning c, damping d.
	weights                     []float64
	effective                   float64
	cSigma, dSigma, cc, c1, cMu float64
	length                      float64 // expected, of a standard normal vector

	mean, pathC, pathSigma []float64
	sigma                  float64
	covariance             *mat.SymDense
	root, inverseRoot      *mat.SymDense // of the covariance, both symmetric
	samples                [][]float64
}

const (
	firstSigma = 0.3  // of the first generation, which begins at the cube's centre
	lastSigma  = 1e-7 // where values are no longer told apart; see Axis.At
	maxFlat    = 10
)

// NewCMAES returns a search for the least value of one objective by covariance matrix adaptation, as Hansen (2016), The CMA
// evolution strategy: a tutorial, arXiv:1604.00772, has it, with positive weights. It works in the axes' unit cube, logarithmic
// axes by their logarithms; a sample that leaves the cube is reflected at its faces. Axes of words have no order and are refused.
// The search is over when it has no trials left for a generation, when the samples are closer than values are told apart, or
// when ten generations have shown no difference. Its square roots of matrices differ in last bits between kinds of processors;
// samples are rounded to 2^-40, so that this hardly ever shows, and [Replay] notices when it does.
//
// Gonum's CmaEsChol is not used because it samples without its step size: it took 2,000 to 3,400 trials for the sphere in two
// dimensions to 1e-8, where this takes 200 to 300.
func NewCMAES(axes []Axis, o CMAESOptions) (*CMAES, error) {
	if len(axes) == 0 || len(axes) > MaxAxes {
		return nil, fmt.Errorf("CMA-ES over %d axes: there must be 1 to %d", len(axes), MaxAxes)
	}
	for _, a := range axes {
		if !a.ordered() {
			return nil, fmt.Errorf("CMA-ES cannot vary %s, whose values have no order: give it numbers that rise, or use a design", a.Name)
		}
	}
	if o.Population == 0 {
		o.Population = 4 + int(3*math.Log(float64(len(axes))))
	}
	if o.Population < 4 || o.Population > 10_000 {
		return nil, fmt.Errorf("CMA-ES with a population of %d: it must be 4 to 10000", o.Population)
	}
	if o.Trials < o.Population || o.Trials > MaxPoints {
		return nil, fmt.Errorf("CMA-ES with %d trials: there must be from %d, its population, to %d", o.Trials, o.Population, MaxPoints)
	}
	c := &CMAES{axes: slices.Clone(axes), options: o}
	c.begin()
	c.sample()
	return c, nil
}

func (c *CMAES) begin() {
	dim := len(c.axes)
	n := float64(dim)
	best := c.options.Population / 2
	var sum, squares float64
	for i := range best {
		w := math.Log(float64(c.options.Population+1)/2) - math.Log(float64(i+1))
		c.weights = append(c.weights, w)
		sum += w
	}
	for i := range c.weights {
		c.weights[i] /= sum
		squares += float64(c.weights[i] * c.weights[i])
	}
	mu := 1 / squares
	c.effective = mu
	c.cc = (4 + mu/n) / (n + 4 + 2*mu/n)
	c.cSigma = (mu + 2) / (n + mu + 5)
	c.c1 = 2 / (float64((n+1.3)*(n+1.3)) + mu)
	c.cMu = min(1-c.c1, 2*(mu-2+1/mu)/(float64((n+2)*(n+2))+mu))
	c.dSigma = 1 + 2*max(0, math.Sqrt((mu-1)/(n+1))-1) + c.cSigma
	c.length = math.Sqrt(n) * (1 - 1/(4*n) + 1/(21*n*n))

	c.mean, c.pathC, c.pathSigma = make([]float64, dim), make([]float64, dim), make([]float64, dim)
	c.sigma = firstSigma
	c.covariance = mat.NewSymDense(dim, nil)
	for j := range dim {
		c.mean[j] = 0.5
		c.covariance.SetSym(j, j, 1)
	}
	c.roots()
}

// Ask implements [Search].
func (c *CMAES) Ask() []Trial { return slices.Clone(c.asked) }

// Tell implements [Search]. There is one objective.
func (c *CMAES) Tell(values [][]float64) error {
	told, err := checked(c.asked, values, 1)
	if err != nil {
		return err
	}
	order := make([]int, len(told))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(told[a][0], told[b][0]) })
	if c.flat++; told[order[0]][0] != told[order[len(order)-1]][0] {
		c.flat = 0
	}
	c.update(order)
	c.told++
	c.asked = nil
	if (c.told+1)*c.options.Population <= c.options.Trials && c.flat < maxFlat && c.roots() {
		c.sample()
	}
	return nil
}

// sample asks for the next generation.
func (c *CMAES) sample() {
	key := rng.New(rng.Key(c.options.Seed, rng.Design, ofCMAES, uint64(c.told)))
	normal := rand.New(&key)
	dim := len(c.axes)
	c.samples = rows(c.options.Population, dim)
	z, u := make([]float64, dim), make([]float64, dim)
	for _, x := range c.samples {
		for j := range z {
			z[j] = normal.NormFloat64()
		}
		for j := range x {
			x[j] = onGrid(c.mean[j]+float64(c.sigma*product(c.root, j, z)), 0x1p40)
			u[j] = reflected(x[j])
		}
		c.asked = append(c.asked, Trial{Point: at(c.axes, u)})
	}
}

// update moves the distribution towards the best samples; order ranks them.
func (c *CMAES) update(order []int) {
	dim := len(c.mean)
	steps := rows(len(c.weights), dim) // of the best, over sigma
	step := make([]float64, dim)
	for i, w := range c.weights {
		for j := range dim {
			steps[i][j] = (c.samples[order[i]][j] - c.mean[j]) / c.sigma
			step[j] += float64(w * steps[i][j])
		}
	}
	gainSigma := math.Sqrt(c.cSigma * (2 - c.cSigma) * c.effective)
	gainC := math.Sqrt(c.cc * (2 - c.cc) * c.effective)
	var squares float64
	for j := range dim {
		c.mean[j] += float64(c.sigma * step[j])
		c.pathSigma[j] = float64((1-c.cSigma)*c.pathSigma[j]) + float64(gainSigma*product(c.inverseRoot, j, step))
		squares += float64(c.pathSigma[j] * c.pathSigma[j])
	}
	norm := math.Sqrt(squares)
	// The path of C stands still while sigma grows fast.
	moves, stands := 1.0, 0.0
	if norm/math.Sqrt(1-math.Pow(1-c.cSigma, float64(2*(c.told+1)))) >= (1.4+2/float64(dim+1))*c.length {
		moves, stands = 0, c.cc*(2-c.cc)
	}
	for j := range dim {
		c.pathC[j] = float64((1-c.cc)*c.pathC[j]) + float64(moves*gainC*step[j])
	}
	keep := 1 - c.c1 - c.cMu + float64(c.c1*stands)
	for j := range dim {
		for k := range j + 1 {
			v := float64(keep*c.covariance.At(j, k)) + float64(c.c1*c.pathC[j]*c.pathC[k])
			for i, w := range c.weights {
				v += float64(c.cMu * w * steps[i][j] * steps[i][k])
			}
			c.covariance.SetSym(j, k, v)
		}
	}
	c.sigma = min(c.sigma*math.Exp(c.cSigma/c.dSigma*(norm/c.length-1)), 1) // the cube's length
}

// roots computes the square root of the covariance and its inverse, and whether there is anything left to search.
func (c *CMAES) roots() bool {
	var eigen mat.EigenSym
	if !eigen.Factorize(c.covariance, true) {
		return false
	}
	values := eigen.Values(nil) // rising
	least, largest := values[0], values[len(values)-1]
	if !(least > 0) || largest > 1e14*least || c.sigma*math.Sqrt(largest) < lastSigma {
		return false
	}
	var vectors mat.Dense
	eigen.VectorsTo(&vectors)
	dim := len(values)
	c.root, c.inverseRoot = mat.NewSymDense(dim, nil), mat.NewSymDense(dim, nil)
	for j := range dim {
		for k := range j + 1 {
			var r, inverse float64
			for i, v := range values {
				d := math.Sqrt(v)
				p := vectors.At(j, i) * vectors.At(k, i)
				r += float64(p * d)
				inverse += p / d
			}
			c.root.SetSym(j, k, r)
			c.inverseRoot.SetSym(j, k, inverse)
		}
	}
	return true
}

// product is row j of m times x.
func product(m *mat.SymDense, j int, x []float64) (sum float64) {
	for k := range x {
		sum += float64(m.At(j, k) * x[k])
	}
	return sum
}

// onGrid rounds x to a multiple of 1/n.
func onGrid(x, n float64) float64 { return math.Round(x*n) / n }

// reflected folds the real line into 0 to 1.
func reflected(x float64) float64 {
	x = math.Mod(math.Abs(x), 2)
	return min(x, 2-x)
}
