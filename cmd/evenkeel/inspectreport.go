package main

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/jedib0t/go-pretty/v6/table"

	"evenkeel/internal/nearest"
	"evenkeel/metrics"
)

// section is one part of the printed inspection.
type section struct {
	name, title string
	print       func(r *inspectReport)
}

func sections() []section {
	return []section{
		{"loads", "Loads", (*inspectReport).loads},
		{"batches", "MaxVio by batch size: noise or structure?", (*inspectReport).batches},
		{"overflow", "Overflow: share of the choices beyond the capacity, by capacity factor", (*inspectReport).overflow},
		{"tokens", "Token ids: choices that go to the K favourite experts of the token's own id", (*inspectReport).tokens},
		{"pairs", "Co-activation: experts chosen together, over all pairs", (*inspectReport).pairs},
		{"domains", "Specialisation: mutual information of domain and expert", (*inspectReport).specialisation},
		{"frameworks", "Balance numbers, by each framework's own formula", (*inspectReport).frameworks},
		{"layers", "Across layers, all tokens", (*inspectReport).acrossLayers},
	}
}

func sectionNames() (names []string) {
	for _, s := range sections() {
		names = append(names, s.name)
	}
	return names
}

// sectionsOf reads the flag --sections.
func sectionsOf(list string) (chosen []section, err error) {
	if list == "" {
		return sections(), nil
	}
	for _, name := range strings.Split(list, ",") {
		i := slices.Index(sectionNames(), strings.TrimSpace(name))
		if i < 0 {
			return nil, fmt.Errorf("--sections: there is no section %q%s: the known ones are %s", name, nearest.Hint(name, sectionNames()), strings.Join(sectionNames(), ", "))
		}
		chosen = append(chosen, sections()[i])
	}
	return chosen, nil
}

// inspectReport prints an inspection.
type inspectReport struct {
	*inspection
	strings.Builder
	width int
	each  bool // layer by layer
}

// fewLayers is the number of layers up to which each is printed; of more, the mean and the percentiles.
const fewLayers = 4

func (x *inspection) print(w io.Writer, shown []section, each bool, width int) error {
	r := &inspectReport{inspection: x, width: width, each: each || len(x.ByLayer) <= fewLayers}
	head := fmt.Sprintf("%s: a trace of %s, %s, %d tokens, %d experts, %d per token", x.File, x.Level, plural(x.Layers, "layer"), x.Tokens, x.Experts, x.TopK)
	if x.Steps > 0 {
		head += ", in " + plural(x.Steps, "step")
	}
	if x.Width > 0 {
		head += fmt.Sprintf(", hidden vectors of %d", x.Width)
	}
	r.say("%s.", head)
	r.say("Loads are those of %s.", x.Chosen)
	for _, n := range x.Notes {
		r.say("- %s", n)
	}
	if len(x.ByLayer) > 0 {
		for _, s := range shown {
			if s.name == "layers" && len(x.ByLayer) <= fewLayers && len(shown) > 1 {
				continue // each layer is printed
			}
			fmt.Fprintf(r, "\n%s\n", s.title)
			if why := x.Absent[s.name]; why != "" {
				r.say("Nothing to show: %s.", why)
				continue
			}
			s.print(r)
		}
	}
	_, err := io.WriteString(w, r.String())
	return err
}

// say prints a sentence, wrapped.
func (r *inspectReport) say(format string, args ...any) {
	fmt.Fprintln(r, wrap(fmt.Sprintf(format, args...), r.width))
}

// grid prints a table whose first columns are words and the others numbers.
func (r *inspectReport) grid(words int, header []string, rows [][]string) {
	r.WriteString(gridText(words, header, rows))
}

func gridText(words int, header []string, rows [][]string) string {
	t := newTable()
	t.Style().Options = table.Options{SeparateHeader: true}
	row := func(cells []string) (row table.Row) {
		for _, c := range cells {
			row = append(row, c)
		}
		return row
	}
	var configs []table.ColumnConfig
	for i := range header {
		if i >= words {
			configs = append(configs, right(i+1))
		}
	}
	t.SetColumnConfigs(configs)
	t.AppendHeader(row(header))
	for _, cells := range rows {
		t.AppendRow(row(cells))
	}
	return rendered(t) + "\n"
}

func figureOr(format string, v *float64) string {
	if v == nil {
		return "-"
	}
	return figure(format, *v)
}

// short prints four digits, and whole numbers of more.
func short(v *float64) string {
	if v != nil && *v >= 1e4 {
		return figure("%.0f", *v)
	}
	return figureOr("%.4g", v)
}

func share(v float64) string { return figure("%.3f", v) }

// rows calls add for every domain of every layer, or for the means.
func (r *inspectReport) rows(add func(layer string, d domainFound)) {
	if !r.each {
		for _, d := range r.Mean {
			add(fmt.Sprintf("mean of %d", len(r.ByLayer)), d)
		}
		return
	}
	for _, l := range r.ByLayer {
		for _, d := range l.Domains {
			add(strconv.Itoa(l.Layer), d)
		}
	}
}

func (r *inspectReport) loads() {
	header := []string{"layer", "domain", "tokens", "MaxVio", "floor", "CV", "starved", "dead"}
	if r.each {
		header = append(header, "busiest")
	}
	var rows [][]string
	r.rows(func(layer string, d domainFound) {
		row := []string{layer, d.Name, strconv.Itoa(d.Tokens), share(d.MaxVio), share(d.Floor), share(d.CV), strconv.Itoa(d.Starved), strconv.Itoa(d.Dead)}
		if r.each {
			row = append(row, strconv.Itoa(d.Busiest))
		}
		rows = append(rows, row)
	})
	r.grid(2, header, rows)
}

func (r *inspectReport) batches() {
	var longest []batchFound
	r.rows(func(_ string, d domainFound) {
		if len(d.Batches) > len(longest) {
			longest = d.Batches
		}
	})
	header := []string{"layer", "domain"}
	for _, b := range longest[:len(longest)-1] {
		header = append(header, strconv.Itoa(b.Tokens))
	}
	header = append(header, "whole", "slope")
	line := func(layer, domain string, d domainFound, value func(batchFound) float64, slope *float64) []string {
		row := []string{layer, domain}
		for i := range longest[:len(longest)-1] {
			if i < len(d.Batches)-1 {
				row = append(row, figure("%.2f", value(d.Batches[i])))
			} else {
				row = append(row, "")
			}
		}
		return append(row, figure("%.2f", value(d.Batches[len(d.Batches)-1])), figureOr("%.2f", slope))
	}
	var rows [][]string
	var last domainFound
	r.rows(func(layer string, d domainFound) {
		rows = append(rows, line(layer, d.Name, d, func(b batchFound) float64 { return b.MaxVio }, d.Slope))
		if d.Name == "all" && d.Batches[0].Shuffled > 0 {
			rows = append(rows, line(layer, "all, shuffled", d, func(b batchFound) float64 { return b.Shuffled }, nil))
		}
		last = d
	})
	rows = append(rows, line("", "floor", last, func(b batchFound) float64 { return b.Floor }, last.FloorFall))
	r.grid(2, header, rows)
	r.rows(func(layer string, d domainFound) {
		if d.Name == "all" {
			r.say("%s", d.verdict(layer))
		}
	})
	of := "of consecutive tokens, and of one domain in the rows of domains"
	if r.Steps > 0 {
		of = "one, 4, 16, … consecutive steps of the counts, under their mean number of tokens"
	}
	r.say("Batches are %s; figures are means over whole batches. The floor is what K experts chosen at random give.", of)
}

// verdict says in words whether the MaxVio of a trace is noise.
func (d domainFound) verdict(layer string) string {
	where := "Layer " + layer
	if strings.HasPrefix(layer, "mean") {
		where = "The " + layer + " layers"
	}
	first, whole := d.Batches[0], d.Batches[len(d.Batches)-1]
	switch {
	case len(d.Batches) < 2 && first.Shuffled == 0:
		return where + ": one step of counts is one size of batch, so nothing says whether MaxVio falls."
	case len(d.Batches) < 2:
		return where + ": too few tokens to vary the size of a batch."
	case d.Slope == nil || d.FloorFall == nil:
		return where + ": batches of some size are perfectly even, so no slope can be fitted."
	}
	late, times := d.Batches[len(d.Batches)-2], whole.MaxVio/whole.Floor
	s := fmt.Sprintf("%s: MaxVio falls with slope %.2f where noise falls with %.2f, and the whole trace is at %.1f times its floor: ", where, *d.Slope, *d.FloorFall, times)
	switch fall := *d.Slope / *d.FloorFall; {
	case times < 1.5 && fall > 0.7:
		s += "noise. Larger batches are as even as chance allows."
	case fall > 0.7:
		s += "it falls as fast as noise, but from higher up. Batches differ, since their tokens resemble one another, and that averages out."
	case fall < 0.3:
		s += "structure. Some experts are wanted more, and larger batches of such text will not even them."
	default:
		s += "both. Part of it averages out as batches grow, part stays."
	}
	if first.Shuffled == 0 {
		return s // counts cannot be shuffled
	}
	const apart = 1.15 // of batches and shuffled ones: more than the noise of a mean over batches
	switch {
	case late.MaxVio > apart*late.Shuffled:
		s += fmt.Sprintf(" Shuffled tokens are more even at every size, %.2f instead of %.2f in batches of %d: neighbours, of one sequence or domain, choose alike, and mixing them evens what size does not.",
			late.Shuffled, late.MaxVio, late.Tokens)
	case first.MaxVio > apart*first.Shuffled:
		s += fmt.Sprintf(" Neighbours choose alike, which shows in small batches, %.2f instead of %.2f if shuffled in those of %d, and averages out in larger ones.",
			first.MaxVio, first.Shuffled, first.Tokens)
	default:
		s += " Shuffled tokens show the same: neighbours add little."
	}
	return s
}

// perLayer prints a row for each layer, or the mean, the median and the worst of many.
func (r *inspectReport) perLayer(words int, header []string, cells int, of func(f *layerFound) []float64, format func(column int, v float64) string) {
	var rows [][]string
	values := make([][]float64, cells)
	for i := range r.ByLayer {
		f := &r.ByLayer[i]
		x := of(f)
		if x == nil {
			continue
		}
		row := []string{strconv.Itoa(f.Layer)}
		for c, v := range x {
			values[c] = append(values[c], v)
			row = append(row, format(c, v))
		}
		rows = append(rows, row)
	}
	if !r.each {
		rows = nil
		for _, summary := range []struct {
			name string
			of   func(x []float64) float64
		}{
			{fmt.Sprintf("mean of %d", len(values[0])), mean},
			{"p5", func(x []float64) float64 { return metrics.Quantile(x, 0.05) }},
			{"p95", func(x []float64) float64 { return metrics.Quantile(x, 0.95) }},
		} {
			row := []string{summary.name}
			for c := range cells {
				row = append(row, format(c, summary.of(values[c])))
			}
			rows = append(rows, row)
		}
	}
	r.grid(words, header, rows)
}

func mean(x []float64) float64 {
	s := 0.0
	for _, v := range x {
		s += v
	}
	return s / float64(len(x))
}

func (r *inspectReport) overflow() {
	header := []string{"layer"}
	for _, f := range metrics.CapacityFactors {
		header = append(header, figure("%.4g", f))
	}
	r.perLayer(1, header, len(metrics.CapacityFactors), func(f *layerFound) []float64 { return f.Overflow[:] }, func(_ int, v float64) string { return share(v) })
	floor := ""
	for i, v := range r.ByLayer[0].NoRoom {
		if i > 0 {
			floor += ", "
		}
		floor += share(v)
	}
	in := fmt.Sprintf("In batches of %d consecutive tokens", r.Batch)
	if r.Steps > 0 {
		in = "In the steps of the counts"
	}
	r.say("%s; the capacity of an expert is its even share times the factor, rounded up. Chance alone gives %s.", in, floor)
}

func (r *inspectReport) tokens() {
	header := []string{"layer", "ids", "their tokens", "favourites", "held back", "busiest K", "uniform K/E"}
	if !slices.ContainsFunc(r.ByLayer, func(f layerFound) bool { return f.TokenIDs != nil && f.TokenIDs.HeldBack != nil }) {
		r.say("Nothing to show: no token id occurs %d times.", metrics.MinOccurrences)
		return
	}
	r.perLayer(1, header, 6, func(f *layerFound) []float64 {
		k := f.TokenIDs
		if k == nil || k.HeldBack == nil {
			return nil
		}
		return []float64{float64(k.IDs), float64(k.Tokens), *k.Favourites, *k.HeldBack, *k.Popular, k.Uniform}
	}, func(c int, v float64) string {
		if c < 2 {
			return figure("%.0f", v)
		}
		return share(v)
	})
	r.say("Of ids that occur at least %d times. Held back: favourites counted on every other occurrence, the share on the rest, so that rare ids do not flatter. Busiest K: what the most loaded experts have whatever the id.", metrics.MinOccurrences)
}

func (r *inspectReport) pairs() {
	r.perLayer(1, []string{"layer", "bits a pair", "floor"}, 2, func(f *layerFound) []float64 {
		if f.Pairs == nil {
			return nil
		}
		return []float64{f.Pairs.Bits, f.Pairs.Floor}
	}, func(_ int, v float64) string { return figure("%.4f", v) })
	var rows [][]string
	list := func(f layerFound, most int) {
		if f.Pairs == nil {
			return
		}
		for _, p := range f.Pairs.Strongest[:min(most, len(f.Pairs.Strongest))] {
			rows = append(rows, []string{strconv.Itoa(f.Layer), fmt.Sprintf("%d and %d", p.A, p.B), strconv.FormatInt(p.Count, 10), figure("%.1f", p.Expected), figure("%.2f", p.Ratio)})
		}
	}
	switch {
	case r.each && len(r.ByLayer) <= fewLayers:
		for _, f := range r.ByLayer {
			list(f, strongestPairs)
		}
	default: // the strongest pair of the layers in which pairs say most
		by := slices.Clone(r.ByLayer)
		bitsOf := func(f layerFound) float64 {
			if f.Pairs == nil {
				return -1
			}
			return f.Pairs.Bits
		}
		slices.SortStableFunc(by, func(a, b layerFound) int { return cmp.Compare(bitsOf(b), bitsOf(a)) })
		for _, f := range by[:min(strongestPairs, len(by))] {
			list(f, 1)
		}
	}
	fmt.Fprintln(r)
	r.grid(2, []string{"layer", "strongest pairs", "together", "expected", "ratio"}, rows)
	if !slices.ContainsFunc(r.ByLayer, func(f layerFound) bool { return f.Pairs != nil && f.Pairs.Bits > 1.2*f.Pairs.Floor }) {
		r.say("No layer is above its floor: loads explain who is chosen with whom, and the strongest pairs are chance.")
	}
	r.say("Expected is what independence given the loads would give. Bits are the information of the pairs beyond the loads; the floor is that of the same tokens after random exchanges that keep every load.")
}

func (r *inspectReport) specialisation() {
	r.perLayer(1, []string{"layer", "bits a choice", "floor"}, 2, func(f *layerFound) []float64 {
		if f.Domain == nil {
			return nil
		}
		return []float64{f.Domain.Bits, f.Domain.Floor}
	}, func(_ int, v float64) string { return figure("%.4f", v) })
}

func (r *inspectReport) frameworks() {
	var rows [][]string
	for _, b := range r.Balances {
		rows = append(rows, []string{b.Framework, b.Name, b.Over, b.Formula, short(b.Whole), short(b.Batches)})
	}
	loss, layers := 0.0, 0
	for _, f := range r.ByLayer {
		if f.AuxLoss != nil {
			loss += *f.AuxLoss
			layers++
		}
	}
	if layers > 0 {
		rows = append(rows, []string{"Megatron-LM", auxLossName, "experts", auxLossFormula, short(finite(loss / float64(layers))), "-"})
	}
	each, batches := strconv.Itoa(r.Batch), fmt.Sprintf("batches of %d tokens", r.Batch)
	if r.Steps > 0 {
		each, batches = "steps", "steps"
	}
	if len(r.inspection.batches) == mostBatches {
		batches = fmt.Sprintf("first %d %s", mostBatches, batches)
	}
	header := []string{"framework", "number", "over", "formula", "whole", each}
	table := gridText(4, header, rows)
	if widest(table) > r.width { // without the formulas, which --json has
		header = slices.Delete(header, 3, 4)
		for i := range rows {
			rows[i] = slices.Delete(rows[i], 3, 4)
		}
		table = gridText(3, header, rows)
	}
	r.WriteString(table)
	ranks := fmt.Sprintf("%d ranks of %s each", r.Ranks, plural(r.Experts/r.Ranks, "consecutive expert"))
	if r.Ranks == r.Experts {
		ranks = "every expert a rank of its own; --ranks R takes them together"
	}
	r.say("The whole trace as one iteration, and the mean over its %s; means over layers, but for vLLM's, which sums first, and max_overload_factor, the largest. Ranks: %s.", batches, ranks)
	if layers == 0 {
		r.say("Megatron-LM's auxiliary loss needs the scores of all experts, which this trace has not.")
		return
	}
	r.say("The auxiliary loss is 1 at balance; its q are %s scores divided by their sum, its counts their top %d without bias.", r.score, r.TopK)
}

func (r *inspectReport) acrossLayers() {
	var rows [][]string
	for _, a := range r.Across {
		f := func(v float64) string { return figure(a.format, v) }
		rows = append(rows, []string{a.Metric, f(a.P5), f(a.P50), f(a.P95), f(a.Highest), strconv.Itoa(a.Layer)})
	}
	r.grid(1, []string{"", "p5", "p50", "p95", "highest", "in layer"}, rows)
}

func plural(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return fmt.Sprintf("%d %s", n, what)
}
