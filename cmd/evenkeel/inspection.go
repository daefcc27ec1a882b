package main

import (
	"fmt"
	"io"
	"iter"
	"math"
	"path/filepath"
	"slices"
	"strconv"

	"evenkeel/internal/vec"
	"evenkeel/internal/whole"
	"evenkeel/metrics"
	"evenkeel/moe"
	"evenkeel/plots"
	"evenkeel/scenarios"
)

// inspection is what inspect finds in a trace.
type inspection struct {
	File     string            `json:"file"`
	SHA256   string            `json:"sha256"`
	Level    string            `json:"level"`
	Layers   int               `json:"layers"`
	Tokens   int               `json:"tokens"`
	Experts  int               `json:"experts"`
	TopK     int               `json:"topk"`
	Width    int               `json:"width,omitempty"`
	Chosen   string            `json:"chosen"`          // whose choice the loads are
	Batch    int               `json:"batch"`           // tokens
	Steps    int               `json:"steps,omitempty"` // of counts, which are then the batches
	Ranks    int               `json:"ranks"`
	Notes    []string          `json:"notes,omitempty"`
	Absent   map[string]string `json:"absent,omitempty"` // why a section has nothing
	ByLayer  []layerFound      `json:"by_layer"`
	Mean     []domainFound     `json:"mean_over_layers"`
	Across   []acrossLayers    `json:"across_layers"`
	Balances []balanceFound    `json:"balance_numbers"`

	domains []string
	score   moe.Score
	whole   [][]int64             // [layers][E] loads of the trace
	batches [][][]int64           // [batches][layers][E]
	padding int                   // tokens of a layer that chose no expert, at most
	empty   int                   // layers without counts
	partial int                   // tokens of a layer that chose fewer than K, at most
	pairs   *metrics.CoActivation // of the layer in which they say most
	paired  int                   // that layer
}

// mostBatches bounds the batches over which balance numbers are averaged, since they need all layers of one at once.
const mostBatches = 256

// layerFound is what one layer shows.
type layerFound struct {
	Layer     int              `json:"layer"`
	Domains   []domainFound    `json:"domains"`  // the last one is all tokens
	Overflow  metrics.Overflow `json:"overflow"` // at the capacity factors, in batches
	NoRoom    metrics.Overflow `json:"overflow_floor"`
	TokenIDs  *tokensFound     `json:"token_ids,omitempty"`
	Pairs     *pairsFound      `json:"pairs,omitempty"`
	Domain    *bits            `json:"domain_information,omitempty"`
	AuxLoss   *float64         `json:"megatron_aux_loss,omitempty"`
	StdToMean float64          `json:"cv_sample"`
}

// domainFound is what the tokens of one domain show, or all.
type domainFound struct {
	Name      string       `json:"name"`
	Tokens    int          `json:"tokens"`
	MaxVio    float64      `json:"maxvio"`
	Floor     float64      `json:"floor"`
	CV        float64      `json:"cv"`
	Dead      int          `json:"dead"`
	Starved   int          `json:"starved"`
	Busiest   int          `json:"busiest"`
	Batches   []batchFound `json:"by_batch_size"`
	Slope     *float64     `json:"slope"` // of MaxVio against batch size, both logarithmic
	FloorFall *float64     `json:"floor_slope"`
}

// batchFound is the mean MaxVio of batches of a size.
type batchFound struct {
	Tokens   int     `json:"tokens"`
	MaxVio   float64 `json:"maxvio"`
	Shuffled float64 `json:"shuffled,omitempty"` // the same tokens in random order
	Floor    float64 `json:"floor"`
}

type tokensFound struct {
	IDs        int      `json:"ids"`
	Tokens     int      `json:"tokens"`
	Least      int      `json:"least_occurrences"`
	Favourites *float64 `json:"favourites"`
	HeldBack   *float64 `json:"favourites_held_back"`
	Popular    *float64 `json:"busiest_experts"`
	Uniform    float64  `json:"uniform"`
}

type pairsFound struct {
	bits
	Strongest []pairFound `json:"strongest"`
}

type pairFound struct {
	A        int     `json:"a"`
	B        int     `json:"b"`
	Count    int64   `json:"count"`
	Expected float64 `json:"expected"`
	Ratio    float64 `json:"ratio"`
}

// bits is an information with what noise alone shows.
type bits struct {
	Bits  float64 `json:"bits"`
	Floor float64 `json:"floor"`
}

type acrossLayers struct {
	Metric  string  `json:"metric"`
	P5      float64 `json:"p5"`
	P50     float64 `json:"p50"`
	P95     float64 `json:"p95"`
	Highest float64 `json:"highest"`
	Layer   int     `json:"highest_layer"`

	format string
}

type balanceFound struct {
	Framework string   `json:"framework"`
	Name      string   `json:"name"`
	Formula   string   `json:"formula"`
	Over      string   `json:"over"` // experts or ranks
	Whole     *float64 `json:"whole"`
	Batches   *float64 `json:"batches"` // mean over batches
}

const strongestPairs = 5

// add analyses one layer.
func (x *inspection) add(d *scenarios.Dump, layer int) {
	if d.Counts != nil {
		x.addCounts(d, layer)
		return
	}
	topk := x.TopK
	ids := d.Choices
	if ids == nil {
		ids = chooseAll(d, topk, x.score)
	}
	all := metrics.Choices{Experts: x.Experts, TopK: topk, IDs: ids}
	x.whole = append(x.whole, all.Loads())
	x.keep(all.BatchLoads(x.Batch))
	used, partial := make([]int32, 0, all.Tokens()), 0
	for t := range all.Tokens() {
		chosen := 0
		for _, e := range all.Of(t) {
			if e >= 0 {
				chosen++
			}
		}
		if chosen > 0 {
			used = append(used, int32(t))
		}
		if chosen > 0 && chosen < topk {
			partial++
		}
	}
	x.padding, x.partial = max(x.padding, all.Tokens()-len(used)), max(x.partial, partial)
	if len(used) == 0 {
		return
	}
	chosen := all.Pick(used)
	f := layerFound{Layer: layer, StdToMean: metrics.SampleCV(chosen.Loads())}
	domains := d.Domains()
	for row := range domains + 1 {
		part, name := chosen, "all"
		if row < domains {
			part, name = chosen.Pick(slices.DeleteFunc(indices(len(used)), func(i int32) bool { return int(d.Domain[used[i]]) != row })), strconv.Itoa(row)
			if row < len(x.domains) {
				name = x.domains[row]
			}
		}
		if part.Tokens() > 0 {
			f.Domains = append(f.Domains, domainOf(part, name))
		}
	}
	size := min(x.Batch, chosen.Tokens())
	f.Overflow, f.NoRoom = chosen.Overflow(size), metrics.OverflowFloor(x.Experts, topk, size)
	if d.Token != nil {
		token := make([]int32, len(used))
		for i, t := range used {
			token[i] = d.Token[t]
		}
		k := chosen.TokenDependence(token)
		f.TokenIDs = &tokensFound{k.IDs, k.Tokens, metrics.MinOccurrences, finite(k.Favourites), finite(k.HeldBack), finite(k.Popular), k.Uniform}
	}
	if topk > 1 {
		x.addPairs(&f, chosen)
	}
	if domains > 1 {
		n := make([]int64, domains*x.Experts)
		for i, t := range used {
			for _, e := range chosen.Of(i) {
				if e >= 0 {
					n[int(d.Domain[t])*x.Experts+int(e)]++
				}
			}
		}
		f.Domain = &bits{metrics.DomainInformation(n, domains), metrics.DomainInformationFloor(x.Experts, topk, domains, len(used))}
	}
	if d.Scores != nil {
		f.AuxLoss = finite(auxLoss(d, topk, x.score))
	}
	x.ByLayer = append(x.ByLayer, f)
}

// addCounts analyses one layer of counts, whose steps are its batches.
func (x *inspection) addCounts(d *scenarios.Dump, layer int) {
	// sums yields the loads of each n consecutive steps.
	sums := func(n int) iter.Seq[[]int64] {
		return func(yield func([]int64) bool) {
			loads := make([]int64, d.Experts)
			for from := 0; from+n <= d.Steps; from += n {
				clear(loads)
				for i, v := range d.Counts[from*d.Experts : (from+n)*d.Experts] {
					loads[i%d.Experts] += v
				}
				if !yield(loads) {
					return
				}
			}
		}
	}
	var whole []int64
	for n := range sums(d.Steps) {
		whole = slices.Clone(n)
	}
	x.whole = append(x.whole, whole)
	x.keep(sums(1))
	var total int64
	for _, v := range whole {
		total += v
	}
	if total == 0 {
		x.empty++
		return
	}
	tokens := func(steps int) int { return max(1, int(total)*steps/d.Steps/x.TopK) }
	all := loadsFound(whole, "all", tokens(d.Steps))
	for steps := 1; ; steps = min(4*steps, d.Steps) {
		floor := metrics.SamplingFloor(x.Experts, x.TopK, tokens(steps)).MaxVio
		if v := metrics.MeanLoadMaxVio(sums(steps)); !math.IsNaN(v) { // as it is where all counts lie in the steps left over
			all.Batches = append(all.Batches, batchFound{Tokens: tokens(steps), MaxVio: v, Floor: floor})
		}
		all.Floor = floor
		if steps == d.Steps {
			break
		}
	}
	all.fit()
	x.Tokens = max(x.Tokens, all.Tokens)
	x.ByLayer = append(x.ByLayer, layerFound{Layer: layer, Domains: []domainFound{all}, StdToMean: metrics.SampleCV(whole),
		Overflow: metrics.MeanOverflow(sums(1)), NoRoom: metrics.OverflowFloor(x.Experts, x.TopK, tokens(1))})
}

func indices(n int) []int32 {
	list := make([]int32, n)
	for i := range list {
		list[i] = int32(i)
	}
	return list
}

// keep keeps the loads of the batches of a layer.
func (x *inspection) keep(batches iter.Seq[[]int64]) {
	i := 0
	for n := range batches {
		if i == mostBatches {
			break
		}
		if i == len(x.batches) {
			x.batches = append(x.batches, nil)
		}
		x.batches[i] = append(x.batches[i], slices.Clone(n))
		i++
	}
}

func (x *inspection) addPairs(f *layerFound, c metrics.Choices) {
	a := c.CoActivation()
	if finite(a.Information) == nil || finite(a.Floor) == nil {
		return // no token chose two experts
	}
	f.Pairs = &pairsFound{bits: bits{a.Information, a.Floor}}
	for _, p := range a.Strongest(strongestPairs) {
		f.Pairs.Strongest = append(f.Pairs.Strongest, pairFound(p))
	}
	if x.pairs == nil || a.Information > x.pairs.Information {
		x.pairs, x.paired = a, f.Layer
	}
}

// loadsFound measures the loads of some tokens.
func loadsFound(loads []int64, name string, tokens int) domainFound {
	m := metrics.Measure(loads)
	return domainFound{Name: name, Tokens: tokens, MaxVio: m.MaxVio, CV: m.CV, Dead: m.Dead, Starved: m.Starved,
		Busiest: slices.Index(loads, slices.Max(loads))}
}

// domainOf measures tokens at every batch size.
func domainOf(c metrics.Choices, name string) domainFound {
	f := loadsFound(c.Loads(), name, c.Tokens())
	shuffled := c.Shuffled()
	for _, size := range metrics.BatchSizes(c.Tokens()) {
		floor := metrics.SamplingFloor(c.Experts, c.TopK, size).MaxVio
		f.Batches = append(f.Batches, batchFound{size, c.BatchMaxVio(size), shuffled.BatchMaxVio(size), floor})
		f.Floor = floor
	}
	f.fit()
	return f
}

// fit finds how MaxVio and floor fall with the batch size.
func (f *domainFound) fit() {
	var sizes []int
	var found, floor []float64
	for _, b := range f.Batches {
		sizes, found, floor = append(sizes, b.Tokens), append(found, b.MaxVio), append(floor, b.Floor)
	}
	f.Slope, f.FloorFall = finite(metrics.LogSlope(sizes, found)), finite(metrics.LogSlope(sizes, floor))
}

// finish computes what concerns several layers.
func (x *inspection) finish() {
	x.Notes = slices.Clone(x.Notes)
	if x.padding > 0 {
		x.Notes = append(x.Notes, fmt.Sprintf("up to %s of a layer chose no expert: padding, left out", plural(x.padding, "token")))
	}
	if x.empty > 0 {
		x.Notes = append(x.Notes, fmt.Sprintf("%s have no counts: left out", plural(x.empty, "layer")))
	}
	if x.partial > 0 {
		x.Notes = append(x.Notes, fmt.Sprintf("up to %s of a layer chose fewer than %d experts: floors, of %d each, are a little low", plural(x.partial, "token"), x.TopK, x.TopK))
	}
	x.explain()
	x.Mean = x.meanOverLayers()
	x.across("MaxVio", "%.3f", func(f *layerFound) *float64 { return &f.all().MaxVio })
	x.across("MaxVio / floor", "%.1f", func(f *layerFound) *float64 { return finite(f.all().MaxVio / f.all().Floor) })
	x.across("MaxVio slope by batch size", "%.2f", func(f *layerFound) *float64 { return f.all().Slope })
	x.across("CV, sample", "%.3f", func(f *layerFound) *float64 { return &f.StdToMean })
	x.across("starved experts", "%.0f", func(f *layerFound) *float64 { n := float64(f.all().Starved); return &n })
	for i, factor := range metrics.CapacityFactors {
		if factor == 1.25 || factor == 2 {
			x.across("overflow at "+strconv.FormatFloat(factor, 'g', -1, 64), "%.3f", func(f *layerFound) *float64 { return &f.Overflow[i] })
		}
	}
	x.across("favourites of the token's id", "%.3f", func(f *layerFound) *float64 {
		if f.TokenIDs == nil {
			return nil
		}
		return f.TokenIDs.HeldBack
	})
	x.across("co-activation, bits", "%.4f", func(f *layerFound) *float64 {
		if f.Pairs == nil {
			return nil
		}
		return &f.Pairs.Bits
	})
	x.across("domain and expert, bits", "%.4f", func(f *layerFound) *float64 {
		if f.Domain == nil {
			return nil
		}
		return &f.Domain.Bits
	})
	for _, b := range metrics.Balances() {
		over, groups := "experts", x.Experts
		if b.Ranks {
			over, groups = "ranks", x.Ranks
		}
		of := func(layers [][]int64) float64 {
			grouped := make([][]int64, len(layers))
			for l, n := range layers {
				grouped[l] = metrics.GroupLoads(n, groups, nil)
			}
			return b.Of(grouped)
		}
		var each []float64 // of batches in which anything was chosen
		for _, layers := range x.batches {
			if v := of(layers); !math.IsNaN(v) {
				each = append(each, v)
			}
		}
		x.Balances = append(x.Balances, balanceFound{b.Who, b.Name, b.Formula, over, finite(of(x.whole)), finite(mean(each))})
	}
}

// explain says of every section that has nothing why.
func (x *inspection) explain() {
	if x.Level == scenarios.LevelCounts {
		const why = "the trace holds counts, which do not say which token chose what"
		x.Absent["tokens"], x.Absent["pairs"], x.Absent["domains"] = why, why, why
		return
	}
	any := func(has func(layerFound) bool) bool { return slices.ContainsFunc(x.ByLayer, has) }
	if !any(func(f layerFound) bool { return f.TokenIDs != nil }) {
		x.Absent["tokens"] = "the trace has no token_id, so nothing says which choices belong to the same word"
	}
	if !any(func(f layerFound) bool { return f.Pairs != nil }) {
		x.Absent["pairs"] = "a token chooses one expert, so there are no pairs"
	}
	if !any(func(f layerFound) bool { return f.Domain != nil }) {
		x.Absent["domains"] = "the trace has no domain array of at least two domains"
	}
}

func (f *layerFound) all() *domainFound { return &f.Domains[len(f.Domains)-1] }

// meanOverLayers averages what all layers have: the domains by name, and their batch sizes.
func (x *inspection) meanOverLayers() (mean []domainFound) {
	if len(x.ByLayer) == 0 {
		return nil
	}
	for _, first := range x.ByLayer[0].Domains {
		m := domainFound{Name: first.Name, Tokens: first.Tokens, Floor: first.Floor, Busiest: -1}
		var same []domainFound
		sizes := len(first.Batches)
		for _, l := range x.ByLayer {
			for _, d := range l.Domains {
				if d.Name == first.Name {
					same = append(same, d)
					sizes = min(sizes, len(d.Batches))
				}
			}
		}
		layers := float64(len(same))
		m.Batches = append(slices.Clone(first.Batches[:sizes-1]), first.Batches[len(first.Batches)-1])
		for i := range m.Batches {
			b := &m.Batches[i]
			b.MaxVio, b.Shuffled = 0, 0
			for _, d := range same {
				at := d.Batches[i]
				if i == sizes-1 {
					at = d.Batches[len(d.Batches)-1]
				}
				b.MaxVio += at.MaxVio / layers
				b.Shuffled += at.Shuffled / layers
			}
		}
		dead, starved := 0, 0
		for _, d := range same {
			m.MaxVio += d.MaxVio / layers
			m.CV += d.CV / layers
			dead, starved = dead+d.Dead, starved+d.Starved
		}
		m.Dead, m.Starved = int(math.Round(float64(dead)/layers)), int(math.Round(float64(starved)/layers))
		m.fit()
		mean = append(mean, m)
	}
	return mean
}

// across adds the percentiles of a figure across the layers that have it.
func (x *inspection) across(metric, format string, figure func(*layerFound) *float64) {
	var values []float64
	a := acrossLayers{Metric: metric, Highest: math.Inf(-1), format: format}
	for i := range x.ByLayer {
		if v := figure(&x.ByLayer[i]); v != nil {
			values = append(values, *v)
			if *v > a.Highest {
				a.Highest, a.Layer = *v, x.ByLayer[i].Layer
			}
		}
	}
	if len(values) > 0 {
		a.P5, a.P50, a.P95 = metrics.Quantile(values, 0.05), metrics.Quantile(values, 0.5), metrics.Quantile(values, 0.95)
		x.Across = append(x.Across, a)
	}
}

func (x *inspection) writeJSON(w io.Writer) error {
	return encode(w, x)
}

// tiles yields the scores of a trace in tiles [E][Lanes], and the number of tokens in each.
func tiles(d *scenarios.Dump, score moe.Score) func(yield func(tile []float32, tokens int) bool) {
	return func(yield func([]float32, int) bool) {
		tile := make([]float32, d.Experts*vec.Lanes)
		for from := 0; from < d.Tokens; from += vec.Lanes {
			n := min(vec.Lanes, d.Tokens-from)
			for t := range n {
				for e := range d.Experts {
					tile[e*vec.Lanes+t] = d.Scores[(from+t)*d.Experts+e]
				}
			}
			score.Apply(tile, tile, d.Experts)
			if !yield(tile, n) {
				return
			}
		}
	}
}

// chooseAll routes a trace by its own scores and bias.
func chooseAll(d *scenarios.Dump, topk int, score moe.Score) []int32 {
	q := vec.NewSelector(topk, 1)
	mask := make([]uint64, d.Experts)
	choices := make([]int32, 0, d.Tokens*topk)
	for tile, n := range tiles(d, score) {
		q.TopK(mask, tile, d.Bias, ^uint64(0)>>(vec.Lanes-n), nil)
		for t := range n {
			for e, m := range mask {
				if m>>t&1 != 0 {
					choices = append(choices, int32(e))
				}
			}
		}
	}
	return choices
}

// auxLoss is Megatron-LM's auxiliary loss of a trace of scores at coefficient 1.
func auxLoss(d *scenarios.Dump, topk int, score moe.Score) float64 {
	s := vec.NewSelector(topk, 1)
	mask := make([]uint64, d.Experts)
	n, q := make([]int64, d.Experts), make([]float64, d.Experts)
	for tile, tokens := range tiles(d, score) {
		s.TopK(mask, tile, nil, ^uint64(0)>>(vec.Lanes-tokens), nil)
		for t := range tokens {
			sum := 1e-20 // Megatron-LM's, for a token whose scores are all 0
			for e := range d.Experts {
				sum += float64(tile[e*vec.Lanes+t])
			}
			for e, m := range mask {
				q[e] += float64(tile[e*vec.Lanes+t]) / sum
				n[e] += int64(m >> t & 1)
			}
		}
	}
	return metrics.AuxLoss(n, q, topk, d.Tokens)
}

// writeFolder writes inspect.json and the figures.
func (x *inspection) writeFolder(dir string) error {
	if err := whole.Write(filepath.Join(dir, "inspect.json"), x.writeJSON); err != nil {
		return err
	}
	about := fmt.Sprintf("%s: E = %d experts, K = %d chosen, %d tokens; loads of %s.", filepath.Base(x.File), x.Experts, x.TopK, x.Tokens, x.Chosen)
	folder := filepath.Join(dir, "plots")
	of := "tokens"
	if x.Steps > 0 {
		of = "steps"
	}
	if err := plots.WriteBatchSizes(folder, x.batchPanels(), about, of); err != nil {
		return err
	}
	return plots.WriteCoActivation(folder, x.pairs, fmt.Sprintf("%s Layer %d, whose pairs say most.", about, x.paired))
}

// batchPanels are the curves of MaxVio by batch size: of each of a few layers, or the mean of many.
func (x *inspection) batchPanels() (panels []plots.BatchPanel) {
	if len(x.ByLayer) > fewLayers {
		p := plots.BatchPanel{Title: fmt.Sprintf("mean of %d layers", len(x.ByLayer))}
		for _, d := range x.Mean {
			l := d.line()
			for i := range d.Batches {
				var values []float64
				for _, f := range x.ByLayer {
					if same := f.named(d.Name); same != nil {
						at := i
						if i == len(d.Batches)-1 {
							at = len(same.Batches) - 1
						}
						values = append(values, same.Batches[at].MaxVio)
					}
				}
				l.Low, l.High = append(l.Low, metrics.Quantile(values, 0.05)), append(l.High, metrics.Quantile(values, 0.95))
			}
			if d.Name != "all" {
				l.Low, l.High = nil, nil // bands of many domains would hide one another
			}
			p.Lines = append(p.Lines, l)
		}
		return append(panels, p)
	}
	for _, f := range x.ByLayer {
		p := plots.BatchPanel{Title: fmt.Sprintf("layer %d", f.Layer)}
		for _, d := range f.Domains {
			p.Lines = append(p.Lines, d.line())
		}
		panels = append(panels, p)
	}
	return panels
}

func (f *layerFound) named(domain string) *domainFound {
	i := slices.IndexFunc(f.Domains, func(d domainFound) bool { return d.Name == domain })
	if i < 0 {
		return nil
	}
	return &f.Domains[i]
}

// line is the curve of a domain; only that of all tokens has its shuffled twin.
func (d domainFound) line() plots.BatchLine {
	l := plots.BatchLine{Name: d.Name}
	if _, err := strconv.Atoi(d.Name); err == nil {
		l.Name = "domain " + d.Name
	}
	for _, b := range d.Batches {
		l.Sizes, l.MaxVio, l.Floor = append(l.Sizes, b.Tokens), append(l.MaxVio, b.MaxVio), append(l.Floor, b.Floor)
		if d.Name == "all" && b.Shuffled > 0 {
			l.Shuffled = append(l.Shuffled, b.Shuffled)
		}
	}
	return l
}
