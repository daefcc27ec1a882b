package sweep

import (
	"cmp"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"evenkeel/internal/nearest"
	"evenkeel/internal/whole"
	"evenkeel/sim"
	"evenkeel/sim/stat"
)

// Query says how the cells of a sweep are projected on a table: the columns whose values make its rows and columns, the metric that
// it shows, and what is left out.
type Query struct {
	Rows, Columns []string
	Metric        string // of cells, or steps.METRIC: the mean over a cell's recorded steps after its transient
	Filters       []string
}

// Projection is a table of groups of cells.
type Projection struct {
	Metric        string
	Rows, Columns []string   // names, resolved
	RowLabels     [][]string // a label for each of the names, of every row in order
	ColumnLabels  [][]string
	RowKinds      []string     // what a reader must know of the strategies of a row, such as bound; empty where they differ
	ColumnKinds   []string     // the same of a column
	Groups        [][]*Group   // [row][column]; nil where there are no cells
	Floors        [][2]float64 // the least and the largest of the metric's, by column; NaN where there is none
	Varied        []string     // everything that the sweep varied, but for the seed
	Uncut         int          // cells left out because their transient has no end, of steps.METRIC
}

// Group is the cells of one place of a table.
type Group struct {
	Seeds  []uint64  // of the cells with figures, in the order of the plan
	Values []float64 // their metric
	Floor  float64   // the metric's, of sampling; NaN where there is none or the cells' differ
	Failed int       // cells without figures
	Mixed  []string  // what else varies within the group

	rest map[string]string // what varies in the sweep, is neither row nor column, and has one value within the group
}

// Differ lists what varies in the sweep, is neither row nor column, and differs between two groups: their difference may be due to
// it. A knob that one of them does not have is no such thing.
func Differ(a, b *Group) (list []string) {
	for _, name := range slices.Sorted(maps.Keys(a.rest)) {
		if x, y := a.rest[name], b.rest[name]; x != "" && y != "" && x != y {
			list = append(list, name)
		}
	}
	return list
}

// Pair returns the values of two groups under the seeds that both have, which must be once each.
func Pair(a, b *Group) (x, y []float64) {
	if a == nil || b == nil || len(a.Mixed)+len(b.Mixed) > 0 {
		return nil, nil
	}
	at := map[uint64]int{}
	for i, s := range b.Seeds {
		at[s] = i
	}
	for i, s := range a.Seeds {
		if j, ok := at[s]; ok {
			x, y = append(x, a.Values[i]), append(y, b.Values[j])
		}
	}
	return x, y
}

// Results is the folder of a sweep, open for reading.
type Results struct {
	Manifest *Manifest
	dir      string
	cells    *Table
}

// OpenResults opens a folder whose tables are made.
func OpenResults(dir string) (*Results, error) {
	m, err := ReadManifest(dir)
	if err != nil {
		if _, planned := ReadPlan(filepath.Join(dir, PlanFile)); planned == nil {
			if !errors.Is(err, fs.ErrNotExist) {
				return nil, fmt.Errorf("%w: make the tables again by evenkeel collect %s", err, dir)
			}
			return nil, fmt.Errorf("%s holds a sweep whose tables are not made: run evenkeel collect %s", dir, dir)
		}
		return nil, fmt.Errorf("%s is no folder of a sweep: %w", dir, err)
	}
	t, err := m.open(dir, CellsTable)
	if err != nil {
		return nil, err
	}
	return &Results{m, dir, t}, nil
}

// open opens a table of a folder, if it is the one that the manifest was written with.
func (m *Manifest) open(dir, table string) (*Table, error) {
	i := slices.IndexFunc(m.Tables, func(t TableFile) bool { return t.File == table })
	if i < 0 {
		return nil, fmt.Errorf("%s: the manifest lists no table %s: make the tables again by evenkeel collect %s", dir, table, dir)
	}
	name := filepath.Join(dir, table)
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("%w: make the tables again by evenkeel collect %s", whole.Located(err), dir)
	}
	defer f.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, f); err != nil {
		return nil, whole.Located(err)
	}
	if sumText(sum) != m.Tables[i].SHA256 {
		return nil, fmt.Errorf("%s is damaged or of another time: it does not have the checksum in %s; make the tables again by evenkeel collect %s", name, ManifestFile, dir)
	}
	t, err := OpenTable(name)
	if err == nil && int64(t.Rows) != m.Tables[i].Rows {
		t.Close()
		return nil, fmt.Errorf("%s has %d rows, and %s says %d", name, t.Rows, ManifestFile, m.Tables[i].Rows)
	}
	return t, err
}

// Close closes the files.
func (r *Results) Close() error { return r.cells.Close() }

// Varied lists what the sweep varied, but for the seed: columns of the table of cells.
func (r *Results) Varied() (list []string) {
	for _, a := range r.Manifest.Axes {
		if len(a.Values) > 1 {
			list = append(list, a.Name)
		}
	}
	if len(r.Manifest.Strategies) > 1 || len(r.Manifest.Knobs) == 0 {
		list = append(list, "strategy")
	}
	return append(list, r.Manifest.Knobs...)
}

// Defaults fills what a query leaves open, so that no group mixes settings: columns are the first key of the scenario that varies
// and has few values, rows the strategies with their knobs and the other keys.
func (r *Results) Defaults(q *Query) {
	var axes []string
	for _, a := range r.Manifest.Axes {
		if len(a.Values) < 2 {
			continue
		}
		axes = append(axes, a.Name)
		if q.Columns == nil && len(a.Values) <= mostColumns && !slices.Contains(q.Rows, a.Name) {
			q.Columns = []string{a.Name}
		}
	}
	if q.Rows == nil {
		for _, name := range slices.Concat([]string{"strategy"}, r.Manifest.Knobs, axes) {
			if !slices.Contains(q.Columns, name) {
				q.Rows = append(q.Rows, name)
			}
		}
	}
}

// mostColumns is how many columns a table has that nobody asked for; a sampled design has a value of its own in every point.
const mostColumns = 12

// Column finds the column that a name means: its own, or the only knob of that name.
func (r *Results) Column(name string) (string, error) {
	if slices.Contains(r.cells.Names, name) {
		return name, nil
	}
	var found []string
	for _, n := range r.cells.Names {
		if strings.HasSuffix(n, "."+name) {
			found = append(found, n)
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return "", fmt.Errorf("the sweep has no column %q%s: it varied %s, and measured %s", name, nearest.Hint(name, r.cells.Names), strings.Join(r.Varied(), ", "), strings.Join(r.Measured(), ", "))
	}
	return "", fmt.Errorf("%q may be %s: write it out", name, strings.Join(found, " or "))
}

// Measured lists the metrics that some cell has.
func (r *Results) Measured() (list []string) {
	for _, key := range sim.MetricKeys() {
		if slices.Contains(r.cells.Names, key) {
			list = append(list, key)
		}
	}
	return list
}

// Reason is a text that some cells have.
type Reason struct {
	Text  string
	Cells int
}

// Count counts the texts of a column, such as failed or warnings, the most frequent first.
func (r *Results) Count(column string) (list []Reason, err error) {
	index, words, err := r.cells.Texts(column)
	if err != nil {
		return nil, err
	}
	cells := make([]int, len(words))
	for _, n := range index {
		cells[n]++
	}
	for i, text := range words {
		if text != "" {
			list = append(list, Reason{text, cells[i]})
		}
	}
	slices.SortStableFunc(list, func(a, b Reason) int { return b.Cells - a.Cells })
	return list, nil
}

// labels is a column as indices into its distinct values, which are in order: numbers ascending, words as they first appear.
type labels struct {
	index []int32
	words []string
}

func (r *Results) labels(name string) (l labels, err error) {
	if !r.cells.Numeric(name) {
		l.index, l.words, err = r.cells.Texts(name)
		return l, err
	}
	if name == "seed" {
		list, err := r.cells.Whole(name)
		if err != nil {
			return l, err
		}
		return indexed(list, func(x uint64) string { return strconv.FormatUint(x, 10) }), nil
	}
	list, err := r.cells.Numbers(name)
	if err != nil {
		return l, err
	}
	return indexed(list, func(x float64) string {
		switch {
		case math.IsNaN(x):
			return ""
		case x == math.Trunc(x) && math.Abs(x) < 1e15:
			return strconv.FormatFloat(x, 'f', -1, 64)
		}
		return strconv.FormatFloat(x, 'g', -1, 64)
	}), nil
}

// indexed makes labels of numbers; NaN comes first.
func indexed[T cmp.Ordered](list []T, text func(T) string) (l labels) {
	distinct := map[T]int32{}
	var missing []int32
	var values []T
	l.index = make([]int32, len(list))
	for i, x := range list {
		if x != x {
			missing = append(missing, int32(i))
			continue
		}
		n, ok := distinct[x]
		if !ok {
			n = int32(len(values))
			distinct[x] = n
			values = append(values, x)
		}
		l.index[i] = n
	}
	order := make([]int32, len(values))
	for i := range order {
		order[i] = int32(i)
	}
	slices.SortFunc(order, func(a, b int32) int { return cmp.Compare(values[a], values[b]) })
	place := make([]int32, len(values))
	first := int32(0)
	if len(missing) > 0 {
		l.words = append(l.words, "")
		first = 1
	}
	for i, n := range order {
		place[n] = int32(i) + first
		l.words = append(l.words, text(values[n]))
	}
	for i := range l.index {
		if len(place) > 0 {
			l.index[i] = place[l.index[i]]
		}
	}
	for _, i := range missing {
		l.index[i] = 0
	}
	return l
}

// Project makes a table.
func (r *Results) Project(q Query) (*Projection, error) {
	p := &Projection{Metric: q.Metric, Varied: r.Varied()}
	var err error
	for _, list := range []struct {
		names []string
		into  *[]string
	}{{q.Rows, &p.Rows}, {q.Columns, &p.Columns}} {
		for _, name := range list.names {
			column, err := r.Column(name)
			if err != nil {
				return nil, err
			}
			if slices.Contains(p.Rows, column) || slices.Contains(p.Columns, column) {
				return nil, fmt.Errorf("%s is named twice as row or column", column)
			}
			*list.into = append(*list.into, column)
		}
	}
	kept, err := r.kept(q.Filters)
	if err != nil {
		return nil, err
	}
	values, err := r.metric(p, kept)
	if err != nil {
		return nil, err
	}
	return p, r.group(p, kept, values)
}

// metric reads the metric of every cell.
func (r *Results) metric(p *Projection, kept []bool) ([]float64, error) {
	if key, ok := strings.CutPrefix(p.Metric, "steps."); ok {
		return r.steady(p, key, kept)
	}
	if len(r.Measured()) == 0 && r.Manifest.Missing > 0 {
		return nil, fmt.Errorf("the tables of %s hold no cell with figures yet: %d of %d were missing when they were made", r.dir, r.Manifest.Missing, r.Manifest.Cells)
	}
	if len(r.Measured()) == 0 {
		return nil, errors.New("the sweep measured nothing: no cell could run, and the column failed of its table of cells says why")
	}
	if !slices.Contains(r.cells.Names, p.Metric) || !slices.Contains(sim.MetricKeys(), p.Metric) {
		return nil, fmt.Errorf("the sweep has no metric %q%s: it measured %s", p.Metric, nearest.Hint(p.Metric, r.Measured()), strings.Join(r.Measured(), ", "))
	}
	return r.cells.Numbers(p.Metric)
}

// steady is the mean of a step's metric over the recorded steps of every cell that MSER-5 keeps.
func (r *Results) steady(p *Projection, key string, kept []bool) ([]float64, error) {
	if !slices.Contains(stepColumns, key) {
		return nil, fmt.Errorf("steps have no metric %q%s: they have %s", key, nearest.Hint(key, stepColumns), strings.Join(stepColumns, ", "))
	}
	if !slices.ContainsFunc(r.Manifest.Tables, func(t TableFile) bool { return t.File == StepsTable }) {
		return nil, fmt.Errorf("%s: the sweep kept no steps: run it again with --record-steps 200 and --extend", p.Metric)
	}
	t, err := r.Manifest.open(r.dir, StepsTable)
	if err != nil {
		return nil, err
	}
	defer t.Close()
	cells, err := t.Numbers("cell")
	if err != nil {
		return nil, err
	}
	steps, err := t.Numbers(key)
	if err != nil {
		return nil, err
	}
	of, err := r.cells.Numbers("cell")
	if err != nil {
		return nil, err
	}
	values := make([]float64, len(of))
	from := 0
	for i, cell := range of {
		for from < len(cells) && cells[from] < cell {
			from++
		}
		to := from
		for to < len(cells) && cells[to] == cell {
			to++
		}
		series := steps[from:to]
		from = to
		first, err := stat.MSER5(series)
		if err != nil {
			values[i] = math.NaN()
			// Steps without the figure, as the bias of a strategy that has none, are no transient, and more of them are no help.
			if kept[i] && len(series) > 0 && !slices.ContainsFunc(series, math.IsNaN) {
				p.Uncut++
			}
			continue
		}
		values[i] = stat.Mean(series[first:])
	}
	return values, nil
}

// group sorts the cells into the places of a table.
func (r *Results) group(p *Projection, kept []bool, values []float64) error {
	rowOf, rowLabels, err := r.keys(p.Rows, kept)
	if err != nil {
		return err
	}
	columnOf, columnLabels, err := r.keys(p.Columns, kept)
	if err != nil {
		return err
	}
	p.RowLabels, p.ColumnLabels = rowLabels, columnLabels
	if int64(len(rowLabels))*int64(len(columnLabels)) > maxPlaces {
		return fmt.Errorf("the table would have %d rows and %d columns: %w", len(rowLabels), len(columnLabels), ErrTooLarge)
	}
	seedOf, err := r.cells.Whole("seed")
	if err != nil {
		return err
	}
	p.Groups = make([][]*Group, len(rowLabels))
	for i := range p.Groups {
		p.Groups[i] = make([]*Group, len(columnLabels))
	}
	for i := range kept {
		if !kept[i] {
			continue
		}
		g := &p.Groups[rowOf[i]][columnOf[i]]
		if *g == nil {
			*g = &Group{Floor: math.NaN()}
		}
		if math.IsNaN(values[i]) {
			(*g).Failed++
			continue
		}
		(*g).Seeds, (*g).Values = append((*g).Seeds, seedOf[i]), append((*g).Values, values[i])
	}
	if err := r.mixed(p, kept, rowOf, columnOf); err != nil {
		return err
	}
	if err := r.kinds(p, kept, rowOf, columnOf); err != nil {
		return err
	}
	return r.floors(p, kept, rowOf, columnOf)
}

// maxPlaces bounds a table that somebody has to read.
const maxPlaces = 1 << 20

// ErrTooLarge is that a table would have more than maxPlaces.
var ErrTooLarge = errors.New("choose others, or --filter")

// keys are the combinations of the values of some columns, in order, and of every cell which one it has.
func (r *Results) keys(names []string, kept []bool) (of []int32, words [][]string, err error) {
	of = make([]int32, len(kept))
	words = [][]string{nil}
	keys := make([]int64, len(kept))
	// Combine column by column, so that a key is one number: there are no more combinations than cells.
	for _, name := range names {
		l, err := r.labels(name)
		if err != nil {
			return nil, nil, err
		}
		n := int64(len(l.words))
		place := map[int64]int32{}
		for i := range keys {
			if kept[i] {
				keys[i] = int64(of[i])*n + int64(l.index[i])
				place[keys[i]] = 0
			}
		}
		next := make([][]string, 0, len(place))
		for _, k := range slices.Sorted(maps.Keys(place)) {
			place[k] = int32(len(next))
			next = append(next, append(slices.Clone(words[k/n]), l.words[k%n]))
		}
		words = next
		for i := range of {
			if kept[i] {
				of[i] = place[keys[i]]
			}
		}
	}
	if !slices.Contains(kept, true) {
		words = nil
	}
	return of, words, nil
}

// mixed finds out what varies within groups, and between them without being a row or a column.
func (r *Results) mixed(p *Projection, kept []bool, rowOf, columnOf []int32) error {
	for _, name := range p.Varied {
		if slices.Contains(p.Rows, name) || slices.Contains(p.Columns, name) || name == "strategy" && (slices.Contains(p.Rows, "spec") || slices.Contains(p.Columns, "spec")) ||
			slices.Contains(r.Manifest.Knobs, name) && (slices.Contains(p.Rows, "spec") || slices.Contains(p.Columns, "spec")) {
			continue
		}
		l, err := r.labels(name)
		if err != nil {
			return err
		}
		first := map[*Group]int32{}
		for i := range kept {
			if !kept[i] {
				continue
			}
			g := p.Groups[rowOf[i]][columnOf[i]]
			if f, ok := first[g]; !ok {
				first[g] = l.index[i]
			} else if f != l.index[i] && !slices.Contains(g.Mixed, name) {
				g.Mixed = append(g.Mixed, name)
			}
		}
		for g, f := range first {
			if slices.Contains(g.Mixed, name) {
				continue
			}
			if g.rest == nil {
				g.rest = map[string]string{}
			}
			g.rest[name] = l.words[f]
		}
	}
	return nil
}

// kinds finds out what a reader must know of the strategies of every row and column.
func (r *Results) kinds(p *Projection, kept []bool, rowOf, columnOf []int32) error {
	index, words, err := r.cells.Texts("kind")
	if err != nil {
		return err
	}
	common := func(of []int32, groups int) []string {
		list, seen := make([]string, groups), make([]bool, groups)
		for i, n := range index {
			if !kept[i] {
				continue
			}
			switch g := of[i]; {
			case !seen[g]:
				list[g], seen[g] = words[n], true
			case list[g] != words[n]:
				list[g] = ""
			}
		}
		return list
	}
	p.RowKinds, p.ColumnKinds = common(rowOf, len(p.RowLabels)), common(columnOf, len(p.ColumnLabels))
	return nil
}

// floors reads the sampling floors of groups and columns.
func (r *Results) floors(p *Projection, kept []bool, rowOf, columnOf []int32) error {
	p.Floors = make([][2]float64, len(p.ColumnLabels))
	for i := range p.Floors {
		p.Floors[i] = [2]float64{math.NaN(), math.NaN()}
	}
	if !slices.Contains(r.cells.Names, p.Metric+floor) {
		return nil
	}
	list, err := r.cells.Numbers(p.Metric + floor)
	if err != nil {
		return err
	}
	differ := map[*Group]bool{}
	for i, x := range list {
		if !kept[i] || math.IsNaN(x) {
			continue
		}
		if f := &p.Floors[columnOf[i]]; math.IsNaN(f[0]) {
			*f = [2]float64{x, x}
		} else {
			*f = [2]float64{min(f[0], x), max(f[1], x)}
		}
		g := p.Groups[rowOf[i]][columnOf[i]]
		if !math.IsNaN(g.Floor) && g.Floor != x {
			differ[g] = true
		}
		g.Floor = x
	}
	for g := range differ {
		g.Floor = math.NaN()
	}
	return nil
}

// operators of filters; those of two signs come first.
var operators = []string{"<=", ">=", "!=", "=", "<", ">"}

// kept says of every cell whether all filters let it pass.
func (r *Results) kept(filters []string) ([]bool, error) {
	kept := make([]bool, r.cells.Rows)
	for i := range kept {
		kept[i] = true
	}
	for _, text := range filters {
		if err := r.filter(text, kept); err != nil {
			return nil, err
		}
	}
	if len(filters) > 0 && !slices.Contains(kept, true) {
		return nil, fmt.Errorf("--filter %s: no cell is left", strings.Join(filters, " --filter "))
	}
	return kept, nil
}

func (r *Results) filter(text string, kept []bool) error {
	at, operator := len(text), ""
	for _, o := range operators {
		if i := strings.Index(text, o); i > 0 && i < at {
			at, operator = i, o
		}
	}
	if operator == "" {
		return fmt.Errorf("--filter %q: want a column, one of = != < <= > >=, and a value, such as rate<0.01 or strategy=none|loss-free", text)
	}
	name, err := r.Column(strings.TrimSpace(text[:at]))
	if err != nil {
		return fmt.Errorf("--filter %q: %w", text, err)
	}
	value := strings.TrimSpace(text[at+len(operator):])
	if r.cells.Numeric(name) && name != "seed" {
		return r.filterNumbers(text, name, operator, value, kept)
	}
	if operator != "=" && operator != "!=" {
		if name != "seed" {
			return fmt.Errorf("--filter %q: %s holds words, which are compared by = or !=", text, name)
		}
		return r.filterNumbers(text, name, operator, value, kept)
	}
	l, err := r.labels(name)
	if err != nil {
		return err
	}
	wanted := strings.Split(value, "|")
	for _, w := range wanted {
		if !slices.Contains(l.words, w) {
			return fmt.Errorf("--filter %q: no cell has %s %q%s", text, name, w, nearest.Hint(w, l.words))
		}
	}
	for i, n := range l.index {
		if slices.Contains(wanted, l.words[n]) != (operator == "=") {
			kept[i] = false
		}
	}
	return nil
}

func (r *Results) filterNumbers(text, name, operator, value string, kept []bool) error {
	var wanted []float64
	for _, w := range strings.Split(value, "|") {
		x, err := strconv.ParseFloat(w, 64)
		if err != nil || math.IsNaN(x) {
			return fmt.Errorf("--filter %q: %s holds numbers, and %q is none", text, name, w)
		}
		wanted = append(wanted, x)
	}
	if len(wanted) > 1 && operator != "=" && operator != "!=" {
		return fmt.Errorf("--filter %q: several values go with = or != only", text)
	}
	var list []float64
	if name == "seed" {
		whole, err := r.cells.Whole(name)
		if err != nil {
			return err
		}
		for _, x := range whole {
			list = append(list, float64(x))
		}
	} else {
		var err error
		if list, err = r.cells.Numbers(name); err != nil {
			return err
		}
	}
	if operator == "=" || operator == "!=" {
		for _, w := range wanted {
			if near := closest(list, w); near != w {
				return fmt.Errorf("--filter %q: no cell has %s %s; the nearest is %s", text, name, strconv.FormatFloat(w, 'g', -1, 64), strconv.FormatFloat(near, 'g', -1, 64))
			}
		}
	}
	for i, x := range list {
		pass := false
		switch operator {
		case "=":
			pass = slices.Contains(wanted, x)
		case "!=":
			pass = !slices.Contains(wanted, x)
		case "<":
			pass = x < wanted[0]
		case "<=":
			pass = x <= wanted[0]
		case ">":
			pass = x > wanted[0]
		case ">=":
			pass = x >= wanted[0]
		}
		kept[i] = kept[i] && pass
	}
	return nil
}

// closest is the value of a list that is nearest to another; NaN where there is none.
func closest(list []float64, to float64) float64 {
	best := math.NaN()
	for _, x := range list {
		if math.IsNaN(best) || math.Abs(x-to) < math.Abs(best-to) {
			best = x
		}
	}
	return best
}
