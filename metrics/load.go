package metrics

import (
	"math"
	"slices"

	"evenkeel/internal/vec"
)

// StarvedLoad is the relative load below which an expert counts as starved.
const StarvedLoad = 0.05

// Load is how evenly the assignments n_e of one scope were spread over E experts, r_e = n_e / (Σ n / E). All figures but
// the two counts are without unit and do not change when every n_e is multiplied by the same number. If there were no
// assignments every figure is NaN and every expert is dead and starved.
type Load struct {
	// MaxVio is max_e r_e − 1, 0 at perfect balance and at most E − 1 (Wang et al. 2024, Auxiliary-Loss-Free Load
	// Balancing, equation 4).
	MaxVio float64
	// Variance is the population variance Σ (r_e − 1)² / E.
	Variance float64
	// CV is the coefficient of variation, the square root of Variance (Shazeer et al. 2017 use its square as a loss).
	CV float64
	// Entropy is −Σ l_e ln l_e / ln E with the shares l_e = n_e / Σ n, 1 at perfect balance; one expert alone has 1.
	Entropy float64
	// Gini is Σ_i (2i − E − 1) n_(i) / (E Σ n) with n_(1) ≤ … ≤ n_(E), 0 at perfect balance and at most 1 − 1/E.
	Gini float64
	// Jain is the fairness index (Σ n)² / (E Σ n²) = 1 / (1 + CV²), between 1/E and 1 (Jain, Chiu and Hawe 1984).
	Jain float64
	// Min is min_e r_e.
	Min float64
	// Dead is the number of experts with n_e = 0.
	Dead int
	// Starved is the number of experts with r_e < 0.05, the dead ones among them.
	Starved int
}

// Measure returns the load figures of the assignments n [E] per expert. It does not allocate up to 1,024 experts.
func Measure(n []int64) Load {
	total, most := sumMax(n)
	if total == 0 {
		nan := math.NaN()
		return Load{nan, nan, nan, nan, nan, nan, nan, len(n), len(n)}
	}
	mean := float64(total) / float64(len(n))
	variance := variance(n, mean)
	l := Load{
		MaxVio:   float64(most)/mean - 1,
		Variance: variance,
		CV:       math.Sqrt(variance),
		Entropy:  entropy(n, mean),
		Gini:     gini(n, total),
		Jain:     jain(n, mean),
		Min:      float64(slices.Min(n)) / mean,
	}
	for _, v := range n {
		if v == 0 {
			l.Dead++
		}
		if float64(v)/mean < StarvedLoad {
			l.Starved++
		}
	}
	return l
}

// MaxVio returns max_e r_e − 1 of the assignments n [E], or NaN if there are none. It does not allocate.
func MaxVio(n []int64) float64 {
	total, most := sumMax(n)
	if total == 0 {
		return math.NaN()
	}
	return float64(most)/(float64(total)/float64(len(n))) - 1
}

// Variance returns the population variance of the relative loads r_e of the assignments n [E], which is CV², or NaN if
// there are none. It does not allocate.
func Variance(n []int64) float64 {
	total, _ := sumMax(n)
	if total == 0 {
		return math.NaN()
	}
	return variance(n, float64(total)/float64(len(n)))
}

// MeanMaxVio returns the mean MaxVio over consecutive rows of n [units][experts], such as the sequences of a batch, of which
// the first real experts count. Rows without assignments are left out; if there is no other the result is NaN. It panics if
// experts does not divide len(n).
func MeanMaxVio(n []int64, experts, real int) float64 {
	if experts < 1 || len(n)%experts != 0 {
		panic("metrics: loads are not whole rows of experts")
	}
	sum, rows := 0.0, 0
	for ; len(n) > 0; n = n[experts:] {
		if v := MaxVio(n[:real]); !math.IsNaN(v) {
			sum += v
			rows++
		}
	}
	return sum / float64(rows)
}

// GroupLoads sums the assignments n [E] over groups of E/groups consecutive experts, such as those of one device, and
// returns them [groups]. The result is stored in into if that has room. It panics if groups does not divide E.
func GroupLoads(n []int64, groups int, into []int64) []int64 {
	if groups < 1 || len(n)%groups != 0 {
		panic("metrics: groups do not divide the experts")
	}
	into = slices.Grow(into[:0], groups)[:groups]
	size := len(n) / groups
	for g := range into {
		into[g] = sum(n[g*size : (g+1)*size])
	}
	return into
}

// DomainInformation returns the mutual information of domain and expert in bits, from the assignments n [domains][E]:
//
//	I = Σ_{d,e} n_de/N · log₂( n_de N / (n_d n_e) ),
//
// 0 if every domain uses the experts alike and at most log₂ of the smaller of D and E. Without assignments it is NaN. It
// panics if domains does not divide len(n).
func DomainInformation(n []int64, domains int) float64 {
	if domains < 1 || len(n)%domains != 0 {
		panic("metrics: loads are not whole rows of experts")
	}
	total := sum(n)
	if total == 0 {
		return math.NaN()
	}
	experts := len(n) / domains
	byExpert := make([]int64, experts)
	for i, v := range n {
		byExpert[i%experts] += v
	}
	nats := 0.0
	for d := range domains {
		row := n[d*experts : (d+1)*experts]
		byDomain := float64(sum(row)) / float64(total)
		for e, v := range row {
			if v > 0 {
				nats += float64(float64(v) * vec.Log64(float64(v)/float64(byDomain*float64(byExpert[e]))))
			}
		}
	}
	return max(0, nats/float64(total)/math.Ln2)
}

// DomainInformationFloor returns what [DomainInformation] shows on average, in bits, if T tokens choose K of E experts
// uniformly whatever their domain:
//
//	(E − K)(D − 1) / (2 T K ln 2).
//
// It is the bias (E − 1)(D − 1)/(2N ln 2) of the plug-in estimate from N independent assignments (Miller 1955) with
// N = TK, times (E − K)/(E − 1), by which the variance of a load shrinks because the K choices of a token are distinct.
// It holds where every domain gives every expert several assignments. Without tokens it is NaN.
func DomainInformationFloor(experts, topk, domains int, tokens int) float64 {
	if tokens < 1 {
		return math.NaN()
	}
	freedom := float64(experts-topk) * float64(domains-1)
	return freedom / float64(2*float64(tokens)) / float64(topk) / math.Ln2
}

func sum(n []int64) int64 {
	var s int64
	for _, v := range n {
		s += v
	}
	return s
}

func sumMax(n []int64) (total, most int64) {
	for _, v := range n {
		total += v
		most = max(most, v)
	}
	return total, most
}

func variance(n []int64, mean float64) float64 {
	s := 0.0
	for _, v := range n {
		d := float64(v)/mean - 1
		s += float64(d * d)
	}
	return s / float64(len(n))
}

// entropy uses −Σ l ln l = ln E − Σ r ln r / E, which is exact at perfect balance and loses no digits near it.
func entropy(n []int64, mean float64) float64 {
	if len(n) == 1 {
		return 1
	}
	s := 0.0
	for _, v := range n {
		if v > 0 {
			r := float64(v) / mean
			s += float64(r * vec.Log64(r))
		}
	}
	experts := float64(len(n))
	return 1 - s/float64(experts*vec.Log64(experts))
}

func gini(n []int64, total int64) float64 {
	var room [1024]int64
	ascending := append(room[:0], n...)
	slices.Sort(ascending)
	var s int64
	for i, v := range ascending {
		s += int64(2*i+1-len(n)) * v
	}
	return float64(s) / (float64(len(n)) * float64(total))
}

// jain uses (Σ n)² / (E Σ n²) = E / Σ r², which is exact at perfect balance.
func jain(n []int64, mean float64) float64 {
	squares := 0.0
	for _, v := range n {
		r := float64(v) / mean
		squares += float64(r * r)
	}
	return float64(len(n)) / squares
}
