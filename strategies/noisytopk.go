package strategies

import (
	"fmt"

	"evenkeel/moe"
)

var noisyTopK = Preset{
	Name:    "noisy-topk",
	Family:  "losses",
	Summary: "Shazeer's noisy top-K: noise on the logits, losses on the CV² of importance and of smooth load",
	Formula: `z = c + σ·N(0, 1) in training, c = x·Wᵀ;   S_t = TopK(z_t);   g = softmax of z over S_t
L = α · (CV²(I) + CV²(Load)),   I_e = Σ_t g_te,   Load_e = Σ_t Φ((c_te − thr_te)/σ_te)
thr_te: the K-th largest z_t of the other experts, so the (K+1)-th of all where e is chosen

σ_te = softplus(x_t·W_noiseᵀ)_e + 0.01,  W_noise = 0 at the start;  or fixed, noise/E, as in Tutel

Both sums are over a unit of the scope. The gradient of Load goes through Φ, at c, at the threshold and at both σ; that of the
task reaches W_noise through z. W_noise learns as the router does; where there is no router to learn, or no latent vectors, σ
stays 0.70.`,
	Knobs: []Knob{
		{Name: "coeff", Default: "0.01", Low: 0, High: 1e6, About: "α of both losses (Tensor2Tensor's loss_coef)"},
		{Name: "noise", Default: "0", Low: 0, High: 1e6, About: "σ·E, fixed standard deviation of the noise times the number of experts (Tutel's gate_noise: 1); 0: σ learns, from 0.7 on"},
		{Name: "importance", Default: "chosen", Options: []string{"chosen", "all"}, About: "gates over the chosen experts (Tensor2Tensor, FastMoE), or over all (Tutel)"},
		{Name: "variance", Default: "population", Options: []string{"population", "sample"}, About: "in CV²: over E (Tensor2Tensor) or E−1 (FastMoE, Tutel)"},
		{Name: "scope", Default: scopeMicroBatch, Options: []string{scopeSequence, scopeMicroBatch, scopeGlobal}, About: "where the losses count"},
		publishedScore(moe.Softmax),
	},
	Strength: "coeff",
	Needs:    "a router that learns; sequences for scope=sequence",
	Changes:  "which experts, gates, gradient",
	Fails:    "noise acts in training only, so evaluation routes otherwise; with K = 1 the gates are 1 and importance has no gradient; with a small fixed σ few tokens are near a threshold, and only they carry the load's gradient",
	Paper:    "Outrageously Large Neural Networks (Shazeer et al. 2017, arXiv 1701.06538); fixed σ: Tutel",
	Read:     "code",
	Build: func(v Values, l moe.Layer) (*strategy, error) {
		score, warnings, err := v.score(l)
		if err != nil {
			return nil, err
		}
		disturb, sigma := gatingNoise{l.Experts, float32(v.Number("noise") / float64(l.Experts))}, "learned σ, 0.70 at the start,"
		if disturb.fixed > 0 {
			sigma = fmt.Sprintf("σ = %.3g", disturb.fixed)
		}
		cv := squaredCV{units: units{scope: v.Text("scope")}, coeff: v.Number("coeff"), sample: v.Text("variance") == "sample"}
		importance := &importanceLoss{squaredCV: cv, all: v.Text("importance") == "all"}
		if l.TopK == 1 && !importance.all {
			warnings = append(warnings, "K is 1: a softmax over the one expert chosen is 1 whatever its logit, so importance has no gradient "+
				"(Megatron-LM forbids it): use importance=all or a larger topk")
		}
		return compose(&strategy{layer: l, score: score, transform: disturb, selection: topK{l},
			losses: []loss{importance, &loadLoss{squaredCV: cv, noise: disturb}},
			traits: moe.Traits{Causal: true, Gate: moe.Gate{Normalised: true, Scale: 1}, Warnings: warnings,
				Notes: []string{fmt.Sprintf("scope %s, noise on logits of %s in training only; CV² is 0 at balance", cv.scope, sigma)}}}), nil
	},
}
