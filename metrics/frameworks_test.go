package metrics

import (
	"math"
	"testing"
)

// By hand: two layers of four experts, loads 8 4 2 2 (mean 4) and 6 6 6 6 (mean 6).
func TestBalancesByHand(t *testing.T) {
	layers := [][]int64{{8, 4, 2, 2}, {6, 6, 6, 6}}
	std := math.Sqrt((16.0 + 0 + 4 + 4) / 3)
	h := -(0.5*math.Log(0.5) + 0.25*math.Log(0.25) + 2*0.125*math.Log(0.125))
	want := map[string]float64{
		"vLLM balancedness":                 (4.0 + 6) / (8 + 6),
		"SGLang balancedness":               (4.00001/8.00001 + 1) / 2,
		"TensorRT-LLM imbalance ratio":      (1.0 + 0) / 2,
		"Megatron-LM avg_overload_factor":   (2.0 + 1) / 2,
		"Megatron-LM max_overload_factor":   2,
		"prime-rl, verl max_vio":            (1.0 + 0) / 2,
		"VeOmni, swiss-ai min_vio":          (0.5 + 0) / 2,
		"swiss-ai avg_vio":                  ((4.0 + 0 + 2 + 2) / 4 / 4) / 2,
		"NeMo, FastMoE CV":                  std / 4 / 2,
		"FastMoE Lmax/Lmin":                 (9.0/3 + 1) / 2,
		"FastMoE Lmax/Lmean":                (2.0 + 1) / 2,
		"NeMo entropy":                      (math.Exp(h)/4 + 1) / 2,
		"LatentPrototypeRouter min/max":     (0.25 + 1) / 2,
		"LatentPrototypeRouter Gini":        (((-3*2.0 - 1*2 + 1*4 + 3*8) / (4 * 16)) + 0) / 2,
		"Megatron-LM tokens_per_expert max": (8.0 + 6) / 2,
		"Megatron-LM tokens_per_expert min": (2.0 + 6) / 2,
		"Megatron-LM tokens_per_expert std": std / 2,
	}
	for _, b := range Balances() {
		name := b.Who + " " + b.Name
		v, ok := want[name]
		if !ok {
			t.Errorf("%s is not worked out", name)
		}
		near(t, name, b.Of(layers), v, 1e-12)
		near(t, name+" with an empty layer", b.Of(append(layers, []int64{0, 0, 0, 0})), v, 1e-12)
		if got := b.Of([][]int64{{0, 0}}); !math.IsNaN(got) {
			t.Errorf("%s of nothing is %v", name, got)
		}
		delete(want, name)
	}
	for name := range want {
		t.Errorf("%s is missing", name)
	}
}

// Two tokens choose one of two experts each: q = (0.75, 0.25) and (0.5, 0.5), both choose the first.
func TestAuxLossByHand(t *testing.T) {
	near(t, "both choose the first", AuxLoss([]int64{2, 0}, []float64{1.25, 0.75}, 1, 2), 2*(2*1.25)/4, 1e-15)
	near(t, "even loads", AuxLoss([]int64{1, 1}, []float64{1.25, 0.75}, 1, 2), 1, 1e-15)
	near(t, "all on one", AuxLoss([]int64{2, 0}, []float64{2, 0}, 1, 2), 2, 1e-15)
}
