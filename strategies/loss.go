package strategies

import (
	"evenkeel/internal/vec"
	"evenkeel/moe"
)

// Scopes in which a loss counts.
const (
	scopeSequence   = "sequence"
	scopeMicroBatch = "micro-batch"
	scopeGlobal     = "global"
)

// balanceLoss is a loss of the Switch family (arXiv 2101.03961, equation 4). Over the units U of its scope (sequences,
// micro-batches, or the whole step as one unit),
//
//	L = α · mean_{u∈U} Σ_e w_e^u · P_e^u,   P_e^u = mean_{t∈u} q_te,   w_e^u = E·n_e^u/(K·T_u),
//
// where q is the score normalised over all E experts (softmax as it is, others divided by their sum) and the price w is
// detached: no gradient flows through counts. L/α is 1 at perfect balance; with valueK it is K, as Hugging Face reports it.
// The gradient with respect to the scores of token t in unit u is, with Z_t = Σ_e s_te,
//
//	∂L/∂s_tj = α/(|U|·T_u·Z_t) · (w_j^u − Σ_i w_i^u·q_ti)
//
// (for softmax the second term and Z_t belong to the score's own derivative). Running counts are Megatron-LM's: the price
// of a micro-batch is made from the mean of the counts accumulated so far in this step, over all ranks.
type balanceLoss struct {
	coeff   float64
	scope   string
	running bool // with scope global
	fresh   bool // counts of a fresh top-K of the unbiased scores instead of the chosen set
	valueK  bool
	softmax bool

	units  []moe.Span
	prices []float32 // w [unit][E]
	whole  [1]moe.Span
	sum    []int64
}

func (l *balanceLoss) declare(t *moe.Traits) {
	t.Fresh = t.Fresh || l.fresh
	t.Sequences = t.Sequences || l.scope == scopeSequence
	t.MicroBatches = t.MicroBatches || l.scope == scopeMicroBatch || l.running
}

// prepare fixes w for the step from its counts.
func (l *balanceLoss) prepare(b *moe.Batch, counts, fresh *moe.Counts) {
	if l.fresh {
		counts = fresh
	}
	e := counts.Experts
	var n []int64
	switch {
	case l.scope == scopeSequence:
		l.units, n = b.Sequences, counts.Sequence
	case l.scope == scopeMicroBatch || l.running:
		l.units, n = b.MicroBatches, counts.MicroBatch
	default:
		l.whole[0] = moe.Span{From: 0, To: b.Tokens}
		l.units, n = l.whole[:], counts.Global
	}
	if cap(l.prices) < len(n) {
		l.prices = make([]float32, len(n))
	}
	l.prices = l.prices[:len(n)]
	for u, span := range l.units {
		setPrices(l.prices[u*e:(u+1)*e], n[u*e:(u+1)*e], b.Layer, span.Len())
	}
	if l.running {
		l.priceRunning(b, counts)
	}
	if l.valueK {
		for i := range l.prices {
			l.prices[i] *= float32(b.Layer.TopK)
		}
	}
}

// priceRunning gives all micro-batches of an accumulation step the price of the counts so far.
func (l *balanceLoss) priceRunning(b *moe.Batch, counts *moe.Counts) {
	e := counts.Experts
	if l.sum == nil {
		l.sum = make([]int64, e)
	}
	clear(l.sum)
	for from := 0; from < len(b.MicroBatches); from += b.Ranks {
		to := min(from+b.Ranks, len(b.MicroBatches))
		for u := from; u < to; u++ {
			for i, v := range counts.MicroBatch[u*e : (u+1)*e] {
				l.sum[i] += v
			}
		}
		for u := from; u < to; u++ {
			setPrices(l.prices[u*e:(u+1)*e], l.sum, b.Layer, b.MicroBatches[to-1].To)
		}
	}
}

// setPrices computes w_e = E·n_e/(K·T).
func setPrices(w []float32, n []int64, layer moe.Layer, tokens int) {
	scale := float64(layer.Experts) / (float64(layer.TopK) * float64(tokens))
	for i, v := range n {
		w[i] = float32(scale * float64(v))
	}
}

// addGradient adds ∂L/∂s of one tile to g and returns the tile's part of L.
func (l *balanceLoss) addGradient(b *moe.Batch, tile int, s, g []float32, w *moe.Scratch) (loss float64) {
	e := b.Layer.Experts
	b.Segments(tile, l.units, func(unit, from, to int) {
		prices := l.prices[unit*e : (unit+1)*e]
		share := l.coeff / (float64(len(l.units)) * float64(l.units[unit].Len()))
		loss += l.addSegment(prices, share, s, g, from, to, w)
	})
	return loss
}

// addSegment is addGradient for the lanes of one unit; share is α/(|U|·T_u).
func (l *balanceLoss) addSegment(prices []float32, share float64, s, g []float32, from, to int, w *moe.Scratch) (loss float64) {
	price, sum := &w.Rows[0], &w.Rows[1] // Σ_e w_e·s_te and Z_t, then the offset and scale of the gradient
	vec.WeightedSum(price, sum, s, prices)
	for t := range price {
		switch {
		case t < from || t >= to:
			price[t], sum[t] = 0, 0
		case l.softmax:
			loss += float64(share * float64(price[t]))
			price[t], sum[t] = 0, float32(share)
		default:
			mean := price[t] / sum[t]
			loss += float64(share * float64(mean))
			price[t], sum[t] = mean, float32(share)/sum[t]
		}
	}
	vec.AddPrices(g, prices, price, sum)
	return loss
}
