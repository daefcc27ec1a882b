package metrics

import (
	"math"
	"slices"

	"evenkeel/internal/vec"
)

// Balance is a balance number as a framework computes and logs it, so that a log can be checked against a trace.
type Balance struct {
	Name    string // as the framework calls it
	Who     string // frameworks that log it
	Formula string // with n the assignments per expert or rank, and mean, max, min, std of them
	Ranks   bool   // n are those of expert-parallel ranks, [GroupLoads], not of experts

	of func(layers [][]int64) float64
}

// Of returns the number from the assignments of one iteration, [layers][experts], or [layers][ranks] if b.Ranks. A layer
// without assignments is left out, as it has no mean; without others the result is NaN.
func (b Balance) Of(layers [][]int64) float64 {
	layers = slices.DeleteFunc(slices.Clone(layers), func(n []int64) bool { return sum(n) == 0 })
	if len(layers) == 0 {
		return math.NaN()
	}
	return b.of(layers)
}

// Balances lists the balance numbers of frameworks, those over expert-parallel ranks first:
//
//	vLLM                   balancedness         Σ_layers mean / Σ_layers max
//	SGLang                 balancedness         mean over layers of (mean + 1e-5) / (max + 1e-5)
//	TensorRT-LLM           imbalance ratio      mean over layers of (max − mean) / mean
//	Megatron-LM            avg_overload_factor  mean over layers of max / mean (pull request 4110)
//	Megatron-LM            max_overload_factor  maximum over layers of max / mean
//
// and over experts, each the mean over layers:
//
//	prime-rl, verl         max_vio     (max − mean) / mean
//	VeOmni, swiss-ai       min_vio     (mean − min) / mean
//	swiss-ai               avg_vio     mean |n − mean| / mean
//	NeMo, FastMoE          CV          std / mean with the sample's std, Σ (n − mean)² / (E − 1) = std², as torch.std has it
//	FastMoE                Lmax/Lmin   (max + 1) / (min + 1)
//	FastMoE                Lmax/Lmean  max / mean
//	NeMo                   entropy     exp(H) / E with H = −Σ l ln l, l = n / Σ n: the share of the experts that is in use
//	LatentPrototypeRouter  min/max     min / max
//	LatentPrototypeRouter  Gini        as in [Load]
//	Megatron-LM            tokens_per_expert max, min, std  in tokens, the sample's std (issue 2398)
//
// [AuxLoss] is Megatron-LM's auxiliary loss, which needs scores. The population's CV, of T2T and others, is in [Load].
func Balances() []Balance {
	return []Balance{
		{"balancedness", "vLLM", "Σ_layers mean / Σ_layers max", true, vllmBalancedness},
		{"balancedness", "SGLang", "(mean + 1e-5) / (max + 1e-5)", true, layerMean(sglangBalancedness)},
		{"imbalance ratio", "TensorRT-LLM", "(max − mean) / mean", true, layerMean(MaxVio)},
		{"avg_overload_factor", "Megatron-LM", "max / mean", true, layerMean(maxOverMean)},
		{"max_overload_factor", "Megatron-LM", "max / mean of the worst layer", true, worstOverload},
		{"max_vio", "prime-rl, verl", "(max − mean) / mean", false, layerMean(MaxVio)},
		{"min_vio", "VeOmni, swiss-ai", "(mean − min) / mean", false, layerMean(minVio)},
		{"avg_vio", "swiss-ai", "mean |n − mean| / mean", false, layerMean(avgVio)},
		{"CV", "NeMo, FastMoE", "sample std / mean", false, layerMean(SampleCV)},
		{"Lmax/Lmin", "FastMoE", "(max + 1) / (min + 1)", false, layerMean(maxOverMin)},
		{"Lmax/Lmean", "FastMoE", "max / mean", false, layerMean(maxOverMean)},
		{"entropy", "NeMo", "exp(H) / E", false, layerMean(effectiveExperts)},
		{"min/max", "LatentPrototypeRouter", "min / max", false, layerMean(minOverMax)},
		{"Gini", "LatentPrototypeRouter", "Σ (2i − E − 1) n_(i) / (E Σ n)", false, layerMean(func(n []int64) float64 { return gini(n, sum(n)) })},
		{"tokens_per_expert max", "Megatron-LM", "max", false, layerMean(func(n []int64) float64 { return float64(slices.Max(n)) })},
		{"tokens_per_expert min", "Megatron-LM", "min", false, layerMean(func(n []int64) float64 { return float64(slices.Min(n)) })},
		{"tokens_per_expert std", "Megatron-LM", "sample std", false, layerMean(sampleDeviationOf)},
	}
}

// AuxLoss returns Megatron-LM's auxiliary loss at coefficient 1,
//
//	E/(K T²) Σ_e n_e Σ_t q_te,
//
// from the assignments n [E] and the sums q [E] over T tokens of the scores, each token's divided by their sum. The counts
// are those of a fresh top K of the scores without bias and groups, before anything is dropped. It is 1 if loads or scores
// are even, and at most E/K.
func AuxLoss(n []int64, q []float64, topk, tokens int) float64 {
	s := 0.0
	for e := range n {
		s += float64(float64(n[e]) * q[e])
	}
	return float64(len(n)) * s / (float64(topk) * float64(tokens) * float64(tokens))
}

// layerMean is the mean of a figure over layers.
func layerMean(figure func(n []int64) float64) func(layers [][]int64) float64 {
	return func(layers [][]int64) float64 {
		s := 0.0
		for _, n := range layers {
			s += figure(n)
		}
		return s / float64(len(layers))
	}
}

func meanOf(n []int64) float64 { return float64(sum(n)) / float64(len(n)) }

func vllmBalancedness(layers [][]int64) float64 {
	mean, most := 0.0, 0.0
	for _, n := range layers {
		mean += meanOf(n)
		most += float64(slices.Max(n))
	}
	return mean / most
}

func sglangBalancedness(n []int64) float64 {
	const epsilon = 1e-5
	return (meanOf(n) + epsilon) / (float64(slices.Max(n)) + epsilon)
}

func worstOverload(layers [][]int64) float64 {
	worst := 0.0
	for _, n := range layers {
		worst = max(worst, maxOverMean(n))
	}
	return worst
}

func maxOverMean(n []int64) float64 { return float64(slices.Max(n)) / meanOf(n) }

func maxOverMin(n []int64) float64 { return float64(slices.Max(n)+1) / float64(slices.Min(n)+1) }

func minOverMax(n []int64) float64 { return float64(slices.Min(n)) / float64(slices.Max(n)) }

func minVio(n []int64) float64 { return 1 - float64(slices.Min(n))/meanOf(n) }

func avgVio(n []int64) float64 {
	mean, s := meanOf(n), 0.0
	for _, v := range n {
		s += math.Abs(float64(v) - mean)
	}
	return s / float64(sum(n))
}

// SampleCV returns std / mean of the assignments n [E] with the sample's std, Σ (n − mean)² / (E − 1) = std², as NeMo and
// FastMoE log it; the population's is in [Load].
func SampleCV(n []int64) float64 { return sampleDeviationOf(n) / meanOf(n) }

func sampleDeviationOf(n []int64) float64 {
	x := make([]float64, len(n))
	for i, v := range n {
		x[i] = float64(v)
	}
	return sampleDeviation(x)
}

// effectiveExperts is exp(H)/E = E^(h − 1) with the normalised entropy h.
func effectiveExperts(n []int64) float64 {
	return vec.Exp64((entropy(n, meanOf(n)) - 1) * vec.Log64(float64(len(n))))
}
