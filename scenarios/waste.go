package scenarios

import (
	"math"

	"evenkeel/internal/rng"
	"evenkeel/moe"
)

// Padding fills up sequences with tokens that are all alike: of each, the last ones, a part drawn evenly from 0 to twice the share.
// Their output is thrown away, yet they are routed, and load experts (transformers 28505, vLLM 38128, prime-rl 1332).
type Padding struct {
	Share   float64 `json:"share" range:"0 0.5 of the tokens"`
	Counted bool    `json:"counted"` // whether the counts that losses and biases see hold it too
}

func (p *Padding) defaults() { *p = Padding{Share: 0.25, Counted: true} }

// mark throws away what is padding in a batch. There may be no padding.
func (p *Padding) mark(b *moe.Batch, seed uint64, m moe.Moment) {
	if p == nil {
		return
	}
	r := rng.New(rng.Key(seed, rng.Layout, uint64(m.Purpose), uint64(m.Index), drawPadding))
	for _, s := range b.Sequences {
		n := int(math.Round(2 * p.Share * r.Float64() * float64(s.Len())))
		for t := s.To - min(n, s.Len()-1); t < s.To; t++ {
			b.Throw(t, !p.Counted)
		}
	}
}

// drawPad computes the one latent vector of all padding: the common direction and a type of its own.
func (g *syntheticStream) drawPad() {
	own := normals(rng.Key(g.world, rng.World, drawPadding), g.s.Width)
	aCommon, aOwn := math.Sqrt(g.y.CommonEnergy), math.Sqrt(1-g.y.CommonEnergy)
	var square float64
	for i, v := range own {
		x := float64(aCommon*float64(g.common[i])) + float64(aOwn*float64(v))
		own[i] = float32(x)
		square += float64(x * x)
	}
	for i := range own {
		own[i] = float32(float64(own[i]) * math.Sqrt(float64(len(own))/square))
	}
	g.pad = own
}

// Drafts are speculative decoding with multi-token prediction: a sequence is the tokens of one request, in windows of one token
// that is certain and Length drafts after it. A draft is right by the chance Acceptance if the one before it was, and what follows
// a wrong one is thrown away; rejected drafts have been routed, and loaded experts, all the same. They look like other tokens of
// their request: nothing published says that they differ.
type Drafts struct {
	Length     int     `json:"length" range:"1 64 drafts after each token"`
	Acceptance float64 `json:"acceptance" range:"0 1 (chance that a draft is right, if those before it are)"`
}

func (d *Drafts) defaults() { *d = Drafts{Length: 1, Acceptance: 0.85} }

// mark throws away the drafts of a batch that are rejected. There may be no drafts.
func (d *Drafts) mark(b *moe.Batch, seed uint64, m moe.Moment) {
	if d == nil {
		return
	}
	r := rng.New(rng.Key(seed, rng.Layout, uint64(m.Purpose), uint64(m.Index), drawDrafts))
	for _, s := range b.Sequences {
		wrong := false
		for t := s.From; t < s.To; t++ {
			if (t-s.From)%(d.Length+1) == 0 {
				wrong = false
				continue
			}
			if wrong = wrong || r.Float64() >= d.Acceptance; wrong {
				b.Throw(t, false)
			}
		}
	}
}

// accepted is the share of the tokens that are not thrown away: (1 − a^(n+1))/((1 − a)·(n+1)) of n drafts.
func (d *Drafts) accepted() float64 {
	sum, chance := 0.0, 1.0
	for range d.Length + 1 {
		sum += chance
		chance *= d.Acceptance
	}
	return sum / float64(d.Length+1)
}
