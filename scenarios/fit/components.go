package fit

import "evenkeel/moe"

// Components are shares of the variance of choices, or of logits. With y_t ∈ R^E what a token has of every expert, centred
// over the experts (a_t − K/E, or z_t less its mean), the model is
//
//	y_t = c + d_domain(t) + s_document(t) + r_t,
//
// all parts independent between their units, of the variances V summed over experts. For a partition of the N tokens into
// groups g of n_g tokens let T = Σ_g ‖Σ_{t∈g} y_t‖²/n_g. From T_0 (one group), T_d (domains), T_s (documents) and T_t
// (single tokens), with D domains, S documents and the coefficients k_d = Σ_d n_d²/N, k_s = Σ_s n_s²/N,
// k_ds = Σ_d Σ_{s∈d} n_s²/n_d, the moments give, whatever the sizes of the groups (Henderson 1953, method 1; Searle,
// Casella and McCulloch 1992, Variance Components, chapter 5):
//
//	V_r = (T_t − T_s)/(N − S)
//	V_s = (T_s − T_d − (S − D)·V_r)/(N − k_ds)
//	V_d = (T_d − T_0 − (D − 1)·V_r − (k_ds − k_s)·V_s)/(N − k_d)
//	V_c = (T_0 − V_r − k_s·V_s − k_d·V_d)/N
//
// Of V_r, token types have the part that tokens of one type and domain share. With C cells (domain, type), of n_c tokens,
// and T_c their sum,
//
//	V_v = (T_c − T_d − (C − D)·M)/(N − Σ_c n_c²/n_d),  M = (T_t − T_c)/(N − C).
//
// The estimates are unbiased under the model and can be slightly negative where a part is absent. With one domain, V_d is
// part of V_c. Real text repeats its types within documents, which this V_s contains and the synthetic stream has not: the
// fitted energy of documents stands for both.
type Components struct {
	Total      float64 `json:"total"`          // of the variance summed over experts, by token; of choices K(1 − K/E)
	Popularity float64 `json:"popularity"`     // V_c / total
	Domain     float64 `json:"domain"`         // V_d / total
	Document   float64 `json:"document"`       // V_s / total
	Type       float64 `json:"type,omitempty"` // V_v / total; 0 where token ids are unknown
}

// Rest is what single tokens have alone.
func (c Components) Rest() float64 { return 1 - c.Popularity - c.Domain - c.Document - c.Type }

// vectors are the y_t of a sample. add adds one token's to a sum [E]; squares of sums subtract shift·n² for the centring.
type vectors struct {
	experts int
	add     func(sum []float64, t int)
	shift   float64
}

func (s *sample) choiceVectors() vectors {
	k := s.topk
	return vectors{s.experts, func(sum []float64, t int) {
		for _, e := range s.choices[t*k : (t+1)*k] {
			sum[e]++
		}
	}, float64(k*k) / float64(s.experts)}
}

func (s *sample) logitVectors() vectors {
	n := s.experts
	return vectors{n, func(sum []float64, t int) {
		z := s.logits[t*n : (t+1)*n]
		mean := meanOf(z)
		for e, v := range z {
			sum[e] += float64(v) - mean
		}
	}, 0}
}

func meanOf(z []float32) float64 {
	var m float64
	for _, v := range z {
		m += float64(v)
	}
	return m / float64(len(z))
}

// squares returns T of a partition of the tokens.
func (v vectors) squares(groups [][]int32) (t float64) {
	sum := make([]float64, v.experts)
	for _, g := range groups {
		clear(sum)
		for _, token := range g {
			v.add(sum, int(token))
		}
		n, squares := float64(len(g)), 0.0
		for _, x := range sum {
			squares += float64(x * x)
		}
		t += squares/n - float64(n*v.shift)
	}
	return t
}

// partitions are the groups of a sample's tokens.
type partitions struct {
	all, domains, documents, tokens [][]int32
	cells                           [][]int32 // of one domain and type; nil where token ids are unknown
}

func (s *sample) partitions() partitions {
	p := partitions{all: make([][]int32, 1), domains: make([][]int32, s.domains), documents: make([][]int32, len(s.documents))}
	cell := map[[2]int32]int{}
	for i, d := range s.documents {
		for t := d.From; t < d.To; t++ {
			token := int32(t)
			p.all[0] = append(p.all[0], token)
			p.domains[d.domain] = append(p.domains[d.domain], token)
			p.documents[i] = append(p.documents[i], token)
			if s.token == nil {
				continue
			}
			key := [2]int32{int32(d.domain), s.token[t]}
			c, ok := cell[key]
			if !ok {
				c = len(p.cells)
				cell[key] = c
				p.cells = append(p.cells, nil)
			}
			p.cells[c] = append(p.cells[c], token)
		}
	}
	for i := range p.all[0] {
		p.tokens = append(p.tokens, p.all[0][i:i+1])
	}
	return p
}

// ofChoices and ofLogits split the variance of a sample, once.
func (s *sample) ofChoices() Components {
	if s.choiceParts == nil {
		c := s.components(s.choiceVectors(), s.partitions())
		s.choiceParts = &c
	}
	return *s.choiceParts
}

func (s *sample) ofLogits() Components {
	if s.logitParts == nil {
		c := s.components(s.logitVectors(), s.partitions())
		s.logitParts = &c
	}
	return *s.logitParts
}

// components splits the variance of a sample.
func (s *sample) components(v vectors, p partitions) Components {
	n, domains, documents := float64(len(p.tokens)), float64(s.domains), float64(len(s.documents))
	t0, td, ts, tt := v.squares(p.all), v.squares(p.domains), v.squares(p.documents), v.squares(p.tokens)
	var kd, ks, kds float64
	for _, g := range p.domains {
		kd += float64(len(g)*len(g)) / n
	}
	for _, d := range s.documents {
		size := float64(d.Len() * d.Len())
		ks += size / n
		kds += size / float64(len(p.domains[d.domain]))
	}
	rest := (tt - ts) / (n - documents)
	document := (ts - td - float64((documents-domains)*rest)) / (n - kds)
	domain := 0.0
	if s.domains > 1 {
		domain = (td - t0 - float64((domains-1)*rest) - float64((kds-ks)*document)) / (n - kd)
		t0 -= float64(kd * domain)
	}
	popularity := (t0 - rest - float64(ks*document)) / n
	c := Components{Total: popularity + domain + document + rest}
	c.Popularity, c.Domain, c.Document = popularity/c.Total, domain/c.Total, document/c.Total
	if cells := float64(len(p.cells)); cells > domains && cells < n {
		kc := 0.0
		for _, g := range p.cells {
			size := float64(len(g) * len(g))
			kc += size / float64(len(p.domains[s.domainOf(g[0])]))
		}
		tc := v.squares(p.cells)
		within := (tt - tc) / (n - cells)
		c.Type = (tc - td - float64((cells-domains)*within)) / (n - kc) / c.Total
	}
	return c
}

// domainOf returns the domain of a token by a search among the documents, which are in the order of their tokens.
func (s *sample) domainOf(token int32) int {
	low, high := 0, len(s.documents)-1
	for low < high {
		if middle := (low + high) / 2; s.documents[middle].To <= int(token) {
			low = middle + 1
		} else {
			high = middle
		}
	}
	return s.documents[low].domain
}

// counts are the choices of each expert [E] in a range of documents.
func (s *sample) counts(n []int64, spans ...moe.Span) []int64 {
	for _, d := range spans {
		for _, e := range s.choices[d.From*s.topk : d.To*s.topk] {
			n[e]++
		}
	}
	return n
}
