package strategies

import "evenkeel/moe"

// groupsOfV2 is groupsKnob with V2's rule as default.
func groupsOfV2() Knob {
	k := groupsKnob
	k.Default = groupsV2
	return k
}

var deepSeekV2Loss = Preset{
	Name:    "deepseek-v2-loss",
	Family:  "losses",
	Summary: "DeepSeek-V2's three losses: of experts, of devices, and of what devices receive",
	Formula: `L = α₁ Σ_e f_e·P_e + α₂ Σ_d f'_d·P'_d + α₃ Σ_d f''_d·P'_d
f_e = E·n_e/(KT),   f'_d = mean of f over the experts of device d,   P'_d = sum of P over them
f''_d = D/(MT) · tokens that chose an expert of d at least once

All count inside each sequence (scope), and w = f is detached. Devices are the scenario's groups, D of them, of which a token
may touch M.`,
	Knobs: []Knob{
		{Name: "expert", Default: "0.003", Low: 0, High: 1e6, About: "α₁ of the expert-level loss, whose value at balance is 1"},
		{Name: "device", Default: "0.05", Low: 0, High: 1e6, About: "α₂ of the device-level loss, whose value at balance is 1"},
		{Name: "communication", Default: "0.02", Low: 0, High: 1e6, About: "α₃ of the communication loss, whose value is 1 where every token touches M devices and all are touched alike"},
		{Name: "scope", Default: scopeSequence, Options: []string{scopeSequence, scopeMicroBatch, scopeGlobal}, About: "where all three count"},
		publishedScore(moe.Softmax), groupsOfV2(),
	},
	Scenario: "pretraining --set groups=8 --set groups_kept=3",
	Needs:    "a router that learns; groups of experts for the second and third loss; sequences for scope=sequence",
	Changes:  "gradient",
	Fails:    "without groups only the first acts; evenness inside each sequence costs specialisation; a public re-implementation wraps P' in new tensors, which cuts the gradient of the second and third loss",
	Paper:    "DeepSeek-V2 (2024, arXiv 2405.04434), section 2.2.3; DeepSeekMoE (2024, arXiv 2401.06066)",
	Read:     "notes that agree; code of a re-implementation",
	Build: func(v Values, l moe.Layer) (*strategy, error) {
		score, warnings, err := v.score(l)
		if err != nil {
			return nil, err
		}
		r := &strategy{layer: l, score: score, selection: v.topK(l)}
		add := func(knob string, by grouping) *balanceLoss {
			balance := newLoss(v.Number(knob), v.Text("scope"))
			balance.plain, balance.grouping = score == moe.Softmax, by
			r.losses = append(r.losses, balance)
			return balance
		}
		notes := []string{add("expert", byExpert).conventions(l.TopK)}
		if l.Groups > 1 {
			add("device", byDevice)
			add("communication", byTouched)
		} else {
			warnings = append(warnings, "the scenario has no groups, so there is one device, and the device and communication losses are left out: --set groups=8 --set groups_kept=3")
		}
		r.traits = moe.Traits{Causal: true, Warnings: warnings, Notes: notes}
		return compose(r), nil
	},
}
