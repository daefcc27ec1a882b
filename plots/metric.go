package plots

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"evenkeel/sim"
)

// Metric is how a metric is shown: in tables by its name, in pictures by the label of an axis, in both in units for people.
type Metric struct {
	Key    string  // in results, such as maxvio_global
	Name   string  // in tables and titles, with the unit
	Axis   string  // beside an axis
	Scale  float64 // factor from what is stored to what is shown; 0 means 1
	Offset float64 // what is added then
	Log    bool    // shown on a logarithmic scale where its values permit it
	Better int     // −1 where less is better, +1 where more is, 0 where neither; of what is shown
}

// metricTable holds the metrics of sim in the order of sim.MetricKeys, without their better sides. Imbalance is compared by ratios, hence the logarithms.
var metricTable = []Metric{
	{"maxvio_batch", "MaxVio batch", "batch MaxVio, max r − 1 of a step", 1, 0, true, 0},
	{"maxvio_global", "MaxVio global", "global MaxVio, max r − 1 over the evaluation", 1, 0, true, 0},
	{"maxvio_useful", "MaxVio of useful", "MaxVio of useful experts, max r − 1", 1, 0, true, 0},
	{"maxvio_sequence", "MaxVio sequence", "MaxVio within sequences, max r − 1", 1, 0, true, 0},
	{"maxvio_device", "MaxVio device", "MaxVio of devices, max r − 1", 1, 0, true, 0},
	{"load_variance", "load variance", "variance of the relative load", 1, 0, true, 0},
	{"load_cv", "load CV", "coefficient of variation of the load", 1, 0, true, 0},
	{"load_entropy", "load entropy", "entropy of the load", 1, 0, false, 0},
	{"load_gini", "load Gini", "Gini coefficient of the load", 1, 0, false, 0},
	{"load_jain", "load Jain", "Jain's index of the load", 1, 0, false, 0},
	{"load_min", "load min", "least relative load", 1, 0, false, 0},
	{"experts_dead", "experts dead", "experts without a token", 1, 0, false, 0},
	{"experts_starved", "experts starved", "starved experts", 1, 0, false, 0},
	{"task_loss", "task loss", "task loss, of the target's energy", 1, 0, false, 0},
	{"affinity_kept", "affinity lost, %", "affinity lost, % of the oracle's", -100, 100, false, 0},
	{"affinity_total", "affinity total", "affinity of a token's choice", 1, 0, false, 0},
	{"choice_agreement", "choice agreement, %", "choices that are the token's own K best, %", 100, 0, false, 0},
	{"output_error", "output error", "output error, of the target's energy", 1, 0, false, 0},
	{"rank_displacement", "rank displacement", "ranks that a choice lies below the best", 1, 0, false, 0},
	{"regret_to_optimum", "regret, %", "regret to the balanced optimum, %", 100, 0, false, 0},
	{"gate_sum", "gate sum", "sum of a token's gates", 1, 0, false, 0},
	{"score_chosen", "score chosen", "score of a chosen expert", 1, 0, false, 0},
	{"drop_rate", "dropped, %", "choices dropped, %", 100, 0, false, 0},
	{"experts_per_token", "experts per token", "experts per token", 1, 0, false, 0},
	{"tokens_unserved", "without expert, %", "tokens without an expert, %", 100, 0, false, 0},
	{"settled_step", "settled at step", "step at which the imbalance has settled", 1, 0, false, 0},
	{"recovery_steps", "recovery steps", "steps of recovery after an event", 1, 0, false, 0},
	{"churn", "churn, %", "choices that change from step to step, %", 100, 0, false, 0},
	{"oscillation", "oscillation", "share of load errors that change sign", 1, 0, false, 0},
	{"bias_spread", "bias spread", "spread of the biases", 1, 0, false, 0},
	{"bias_mean", "bias mean", "mean of the biases", 1, 0, false, 0},
	{"domain_information", "domain bits", "information of the experts about the domain, bits", 1, 0, false, 0},
}

// side is which side of what is shown is better: that of the metric, turned where it is shown turned.
func side(m Metric) int {
	larger, known := sim.LargerIsBetter(m.Key)
	if !known {
		return 0
	}
	return m.Aimed(larger).Better
}

// Aimed is the metric where more of what is stored is to be better, or less, whatever it is as such.
func (m Metric) Aimed(larger bool) Metric {
	m.Better = -1
	if larger == (m.Scale >= 0) {
		m.Better = 1
	}
	return m
}

// MetricOf returns how a metric is shown. One that it does not know is shown as stored, under its key.
func MetricOf(key string) Metric {
	for _, m := range metricTable {
		if m.Key == key {
			m.Better = side(m)
			return m
		}
	}
	name := oneLine(strings.ReplaceAll(key, "_", " "))
	return Metric{Key: key, Name: name, Axis: name, Scale: 1}
}

// Show turns a stored value into a shown one.
func (m Metric) Show(v float64) float64 {
	if m.Scale == 0 {
		return v + m.Offset
	}
	return float64(m.Scale*v) + m.Offset
}

// sample is a stored sample in units of what is shown.
func (m Metric) sample(s Sample) Sample {
	s.Mean, s.Low, s.High = flush(m.Show(s.Mean)), flush(m.Show(s.Low)), flush(m.Show(s.High))
	if s.Low > s.High {
		s.Low, s.High = s.High, s.Low
	}
	if s.Floor != 0 {
		s.Floor = flush(m.Show(s.Floor))
	}
	return s
}

// label is the label of an axis, with its scale if that is not linear.
func (m Metric) label(k scaleKind) string {
	label := oneLine(m.Axis)
	if label == "" {
		label = oneLine(m.Name)
	}
	return label + k.remark()
}

func (m Metric) name() string { return oneLine(m.Name) }

// subject is the name without its unit, for titles.
func (m Metric) subject() string { return strings.TrimSuffix(m.name(), ", %") }

// opening is the subject where it begins a title.
func (m Metric) opening() string {
	first, size := utf8.DecodeRuneInString(m.subject())
	if size == 0 {
		return ""
	}
	return string(unicode.ToUpper(first)) + m.subject()[size:]
}

// cost is a shown value such that less is better.
func (m Metric) cost(v float64) float64 {
	if m.Better > 0 {
		return -v
	}
	return v
}

// checkSided says that a metric without a better side can be no objective.
func (m Metric) checkSided() error {
	if m.Better == 0 {
		return fmt.Errorf("%s has no better side: it can be no objective", orElse(m.Key, m.name()))
	}
	return nil
}

// best names the better end of the metric, for captions.
func (m Metric) best() string {
	if m.Better > 0 {
		return "highest"
	}
	return "lowest"
}
