package scenarios

import (
	"math"
	"testing"

	"gonum.org/v1/gonum/stat/distuv"

	"evenkeel/internal/rng"
	"evenkeel/moe"
)

// Binomial draws against the exact distribution: chi-square over its cells of at least ten draws, at a level of 1e-6.
func TestBinomialIsExact(t *testing.T) {
	const draws = 200_000
	for i, c := range []struct {
		n int64
		p float64
	}{{1, 0.3}, {9, 0.02}, {40, 0.2}, {40, 0.25}, {61, 0.5}, {1000, 0.0099}, {1000, 0.011}, {5000, 0.97}, {100_000, 0.4}} {
		d := distuv.Binomial{N: float64(c.n), P: c.p}
		seen := map[int64]float64{}
		r := rng.New(rng.Key(5, rng.Layout, uint64(i)))
		for range draws {
			seen[binomial(&r, c.n, c.p)]++
		}
		mean, sd := float64(c.n)*c.p, math.Sqrt(float64(c.n)*c.p*(1-c.p))
		var square, got, want, cells float64
		for k := int64(max(0, mean-12*sd-12)); k <= min(c.n, int64(mean+12*sd+12)); k++ {
			got += seen[k]
			want += draws * d.Prob(float64(k))
			if want >= 10 {
				square += (got - want) * (got - want) / want
				cells, got, want = cells+1, 0, 0
			}
		}
		if p := (distuv.ChiSquared{K: max(1, cells-1)}).Survival(square); p < 1e-6 {
			t.Errorf("B(%d, %g): chi-square %.0f over %.0f cells, p = %.1g", c.n, c.p, square, cells, p)
		}
	}
}

// Where no distribution function can be summed: mean and variance at DeepSeek-V3's batch, at four standard errors.
func TestBinomialOfManyTrials(t *testing.T) {
	const n, draws = 62_914_560, 20_000
	for i, p := range []float64{1e-8, 1e-6, 1e-3, 0.15, 0.5, 0.9} {
		r := rng.New(rng.Key(6, rng.Layout, uint64(i)))
		var sum, square float64
		mean, variance := n*p, n*p*(1-p)
		for range draws {
			d := float64(binomial(&r, n, p)) - mean
			sum += d
			square += d * d
		}
		if z := sum / math.Sqrt(draws*variance); math.Abs(z) > 4 {
			t.Errorf("p = %g: the mean is %.1f standard errors off", p, z)
		}
		// The variance of the square of a deviation is 2σ⁴ + σ²·(1 − 6p(1−p)).
		if z := (square - draws*variance) / math.Sqrt(draws*(2*variance*variance+variance*(1-6*p*(1-p)))); math.Abs(z) > 4 {
			t.Errorf("p = %g: the variance is %.1f standard errors off", p, z)
		}
	}
}

func TestBinomialAtTheEdges(t *testing.T) {
	r := rng.New(1)
	for _, c := range []struct {
		n    int64
		p    float64
		want int64
	}{{0, 0.5, 0}, {7, 0, 0}, {7, 1, 7}, {1e15, 0, 0}, {1e15, 1, 1e15}} {
		if got := binomial(&r, c.n, c.p); got != c.want {
			t.Errorf("B(%d, %v) is %d, want %d", c.n, c.p, got, c.want)
		}
	}
}

// An aggregated batch and one drawn token by token have the same kinds as often: means and variances of the counts of the most
// frequent kinds agree at four standard errors, and tokens of one kind are the same.
func TestAggregatedTokensAreThoseOfTheStream(t *testing.T) {
	const steps = 400
	settings := []string{"tokens=512", "evaluation_tokens=512", "sequence_length=1", "micro_batches=1", "experts=8", "topk=2", "width=8", "synthetic.vocabulary=40",
		"synthetic.energy.noise=0", "synthetic.energy.sequence=0", "synthetic.energy.type=0.8", "synthetic.energy.domain=0.2"}
	type kind struct{ domain, token int32 }
	var counts [2]map[kind][]float64
	var vectors [2]map[kind]float32
	for i, aggregate := range []string{"aggregate=false", "aggregate=true"} {
		s, err := Load("pretraining", append(settings, aggregate), -1)
		if err != nil {
			t.Fatal(err)
		}
		counts[i], vectors[i] = map[kind][]float64{}, map[kind]float32{}
		layer := s.Layer()
		b, w, g := moe.NewBatch(layer, s.Tokens), moe.NewScratch(layer), s.Stream(1)
		for step := range steps {
			g.Layout(b, moe.Moment{Step: step, Index: step})
			total := int64(0)
			for tile := range b.Tiles {
				g.Fill(b, tile, w)
				x := &b.Tiles[tile]
				for l := range x.Tokens {
					k := kind{x.Domain[l], x.Token[l]}
					if counts[i][k] == nil {
						counts[i][k] = make([]float64, steps)
					}
					n := x.Count(1 << l)
					counts[i][k][step] += float64(n)
					total += n
					if old, ok := vectors[i][k]; ok && old != x.X[l] {
						t.Fatalf("%s: tokens of kind %v differ", aggregate, k)
					}
					vectors[i][k] = x.X[l]
				}
			}
			if total != 512 || b.Total != 512 {
				t.Fatalf("%s: step %d has %d tokens, and says %d, want 512", aggregate, step, total, b.Total)
			}
		}
	}
	compared := 0
	for k, one := range counts[0] {
		other := counts[1][k]
		meanA, varA := moments(one)
		meanB, varB := moments(other)
		if meanA < 2 {
			continue
		}
		compared++
		if vectors[0][k] != vectors[1][k] {
			t.Errorf("kind %v is another token where aggregated", k)
		}
		if z := (meanA - meanB) / math.Sqrt((varA+varB)/steps); math.Abs(z) > 4 {
			t.Errorf("kind %v: mean count %.3f token by token, %.3f aggregated: %.1f standard errors", k, meanA, meanB, z)
		}
		if z := (varA - varB) / math.Sqrt(2*(varA*varA+varB*varB)/steps); math.Abs(z) > 4 {
			t.Errorf("kind %v: variance %.3f token by token, %.3f aggregated: %.1f standard errors", k, varA, varB, z)
		}
	}
	if compared < 20 {
		t.Errorf("%d kinds were frequent enough to compare, want 20 or more", compared)
	}
}

func moments(x []float64) (mean, variance float64) {
	for _, v := range x {
		mean += v / float64(len(x))
	}
	for _, v := range x {
		variance += (v - mean) * (v - mean) / float64(len(x)-1)
	}
	return mean, variance
}

func TestWhatAggregateRefuses(t *testing.T) {
	kinds := []string{"aggregate=true", "synthetic.energy={type: 0.8, domain: 0.2, sequence: 0, noise: 0}"}
	for name, settings := range map[string][]string{
		"noise":    {"aggregate=true"},
		"a burst":  append([]string{"events=[{at: 1, kind: burst, until: 3, share: 0.5}]"}, kinds...),
		"too many": {"tokens=62914560"},
	} {
		if _, err := Load("pretraining", settings, -1); err == nil {
			t.Errorf("%s is accepted", name)
		} else {
			t.Log(err)
		}
	}
	if _, err := Load("uniform", []string{"aggregate=true"}, -1); err == nil {
		t.Error("an independent stream is aggregated")
	}
	if s, err := Load("pretraining", kinds, -1); err != nil || s.MicroBatches != 1 {
		t.Errorf("kinds alone: %v, %v", s.MicroBatches, err)
	}
}
