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

// units are the parts of a batch in each of which a loss counts by itself; its value is the mean over them.
type units struct {
	scope string
	spans []moe.Span // of the present batch
	whole [1]moe.Span
}

func (u *units) declare(t *moe.Traits) {
	t.Sequences = t.Sequences || u.scope == scopeSequence
	t.MicroBatches = t.MicroBatches || u.scope == scopeMicroBatch
}

// split finds the units of a batch.
func (u *units) split(b *moe.Batch) {
	switch u.scope {
	case scopeSequence:
		u.spans = b.Sequences
	case scopeMicroBatch:
		u.spans = b.MicroBatches
	default:
		u.whole[0] = moe.Span{From: 0, To: b.Tokens}
		u.spans = u.whole[:]
	}
}

// share is what one token of a unit weighs in coeff times a mean over units of means over tokens.
func (u *units) share(b *moe.Batch, coeff float64, unit int) float64 {
	return coeff / (float64(len(u.spans)) * float64(b.Size(u.spans[unit])))
}

// grouping says of what the price of an expert is made.
type grouping int

const (
	byExpert  grouping = iota // its own load
	byDevice                  // the mean load of the experts of its device (a group of the layer)
	byTouched                 // the tokens that its device receives at least once: what it costs to send them
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
//
// DeepSeek-V2's losses (arXiv 2405.04434, section 2.2.3) share the price among the E/D experts of a device d:
//
//	byDevice   w_e = mean of E·n_i/(K·T_u) over the experts i of d
//	byTouched  w_e = D/(M·T_u) · tokens of u that chose at least one expert of d
//
// and the sum over devices of price × Σ_{e on d} P_e is the sum over experts above.
type balanceLoss struct {
	units
	coeff    float64
	grouping grouping
	running  bool // with scope global
	fresh    bool // counts Assignment.Fresh, as strategy.counted fills it, instead of the chosen set
	first    bool // which holds one choice per token, so that K is 1 in w
	valueK   bool
	plain    bool // q = s: softmax, which is normalised, and ReMoE's ReLU, which is not to be

	prices []float32 // w [unit][E]
	sum    []int64
}

func (l *balanceLoss) declare(t *moe.Traits) {
	l.units.declare(t)
	t.Fresh = t.Fresh || l.fresh
	t.MicroBatches = t.MicroBatches || l.running
}

// prepare fixes w for the step from its counts.
func (l *balanceLoss) prepare(o *moe.Outcome) {
	b, counts := o.Batch, o.Chosen
	switch {
	case l.fresh:
		counts = o.Fresh
	case o.Wanted != nil && l.grouping != byTouched:
		counts = o.Wanted // before drops, or a saturated expert would look just full (Megatron-LM; FastMoE counts after)
	}
	l.split(b)
	sequence, micro, global, width := counts.Sequence, counts.MicroBatch, counts.Global, b.Layer.Experts
	if l.grouping == byTouched {
		sequence, micro, global, width = counts.SequenceTokens, counts.MicroBatchTokens, counts.GlobalTokens, b.Layer.Groups
	}
	n := global
	switch {
	case l.running:
		l.spans, n = b.MicroBatches, l.accumulate(b, micro, width)
	case l.scope == scopeMicroBatch:
		n = micro
	case l.scope == scopeSequence:
		n = sequence
	}
	e := b.Layer.Experts
	if cap(l.prices) < len(l.spans)*e {
		l.prices = make([]float32, len(l.spans)*e)
	}
	l.prices = l.prices[:len(l.spans)*e]
	for u, span := range l.spans {
		tokens := b.Size(span)
		if l.running {
			tokens = b.Size(moe.Span{From: 0, To: b.MicroBatches[min((u/b.Ranks+1)*b.Ranks, len(l.spans))-1].To})
		}
		l.setPrices(l.prices[u*e:(u+1)*e], n[u*width:(u+1)*width], b.Layer, tokens)
	}
}

// accumulate gives all micro-batches of an accumulation step the counts so far.
func (l *balanceLoss) accumulate(b *moe.Batch, n []int64, width int) []int64 {
	if cap(l.sum) < len(n) {
		l.sum = make([]int64, len(n))
	}
	l.sum = l.sum[:len(n)]
	for from := 0; from < len(b.MicroBatches); from += b.Ranks {
		to := min(from+b.Ranks, len(b.MicroBatches))
		sum := l.sum[from*width : (from+1)*width]
		clear(sum)
		if from > 0 {
			copy(sum, l.sum[(from-1)*width:from*width])
		}
		for u := from; u < to; u++ {
			for i, v := range n[u*width : (u+1)*width] {
				sum[i] += v
			}
		}
		for u := from + 1; u < to; u++ {
			copy(l.sum[u*width:(u+1)*width], sum)
		}
	}
	return l.sum
}

// setPrices computes w [E] of one unit from the counts n of its grouping.
func (l *balanceLoss) setPrices(w []float32, n []int64, layer moe.Layer, tokens int) {
	k := float64(layer.TopK)
	if l.first {
		k = 1
	}
	size := layer.Experts / layer.Groups
	scale := float64(layer.Experts) / (k * float64(tokens))
	if l.grouping == byTouched {
		scale = float64(layer.Groups) / (float64(layer.GroupsKept) * float64(tokens))
	}
	if l.valueK {
		scale *= k
	}
	for i := range w {
		var v float64
		switch l.grouping {
		case byExpert:
			v = float64(n[i])
		case byDevice:
			if i%size > 0 {
				w[i] = w[i-1]
				continue
			}
			for _, x := range n[i : i+size] {
				v += float64(x)
			}
			v /= float64(size)
		case byTouched:
			v = float64(n[i/size])
		}
		w[i] = float32(scale * v)
	}
}

// addGradient adds ∂L/∂s of one tile to g and returns the tile's part of L.
func (l *balanceLoss) addGradient(b *moe.Batch, tile int, s, g []float32, w *moe.Scratch) (loss float64) {
	e := b.Layer.Experts
	b.Segments(tile, l.spans, func(unit, from, to int) {
		share := l.share(b, l.coeff, unit)
		loss += addPriced(l.prices[unit*e:(unit+1)*e], share, l.plain, &b.Tiles[tile], s, g, from, to, w)
	})
	return loss
}

// addPriced adds ∂L/∂s of L = share · Σ_t Σ_e price_e·q_te over the lanes from to to−1 of a tile to g, and returns L. q is
// s where it is plain, or else s divided by its sum over all experts. Tokens count as often as they stand for others.
func addPriced(prices []float32, share float64, plain bool, tile *moe.Tile, s, g []float32, from, to int, w *moe.Scratch) (loss float64) {
	price, sum := &w.Rows[0], &w.Rows[1] // Σ_e price_e·s_te and Z_t, then the offset and scale of the gradient
	vec.WeightedSum(price, sum, s, prices)
	one := share
	for t := range price {
		if tile.Weight != nil {
			share = float64(one * float64(tile.Weight[t]))
		}
		switch {
		case t < from || t >= to:
			price[t], sum[t] = 0, 0
		case plain:
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
