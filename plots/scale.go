package plots

import (
	"math"
	"slices"
	"strconv"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/vg"
)

// scaleKind is how an axis, or a range of colours, shows values.
type scaleKind int

const (
	linear scaleKind = iota
	logarithmic
	logAndZero // logarithmic, with a place of its own for zero
	named      // the values stand side by side in their order
)

// remark is what the label of an axis says of its scale.
func (k scaleKind) remark() string {
	if k == logarithmic || k == logAndZero {
		return " (log scale)"
	}
	return ""
}

// scale is a kind of scale with its range.
type scale struct {
	kind      scaleKind
	low, high float64
}

func (s scale) normalizer() plot.Normalizer {
	switch s.kind {
	case logarithmic:
		return plot.LogScale{}
	case logAndZero:
		return zeroLog{}
	default:
		return plot.LinearScale{}
	}
}

func (s scale) ticker(about int) plot.Ticker {
	switch s.kind {
	case logarithmic:
		return logTicks{}
	case logAndZero:
		return zeroLogTicks{}
	default:
		return roundTicks{Count: about}
	}
}

// at is the place of a value as a fraction of the scale.
func (s scale) at(v float64) float64 { return s.normalizer().Normalize(s.low, s.high, v) }

// has reports whether the scale has a place for a value, within its range or beyond.
func (s scale) has(v float64) bool {
	return drawable(v, s.kind == logarithmic) && (s.kind != logAndZero || v >= 0)
}

// cut moves a value beyond the range, or one that the scale has no place for, to its edge.
func (s scale) cut(v float64) float64 { return max(s.low, min(v, s.high)) }

// apply gives the scale to an axis of about a length, with as many labels as it has room for.
func (s scale) apply(a *plot.Axis, about int, length vg.Length, upright bool) {
	a.Min, a.Max, a.Scale = s.low, s.high, s.normalizer()
	a.Tick.Marker = roomyTicks{s.ticker(about), s, length, upright}
}

// spacing returns the scale on which values stand most evenly. Those that only a sign keeps from a logarithmic one are linear.
func spacing(values []float64) scaleKind {
	v := slices.Clone(values)
	slices.Sort(v)
	v = slices.Compact(v)
	kind := logarithmic
	if len(v) > 3 && v[0] == 0 {
		v, kind = v[1:], logAndZero
	}
	if n := len(v); n < 2 || v[0] <= 0 || v[n-1]/v[0] < 4 || n == 2 && v[n-1]/v[0] < 10 {
		return linear
	} else if n == 2 {
		return kind
	}
	widest := func(f func(float64) float64) (gap float64) {
		for i := 1; i < len(v); i++ {
			gap = max(gap, f(v[i])-f(v[i-1]))
		}
		return gap / (f(v[len(v)-1]) - f(v[0]))
	}
	if widest(math.Log) < widest(func(x float64) float64 { return x }) {
		return kind
	}
	return linear
}

// onScale is the range of a parameter's values on a scale, with a little room.
func onScale(kind scaleKind, values []float64) scale {
	low, high := math.Inf(1), math.Inf(-1)
	for _, v := range values {
		if kind == linear || v > 0 {
			low, high = min(low, v), max(high, v)
		}
	}
	if kind == linear {
		low, high = roomAround(low, high)
	} else {
		low, high = logRange(low, high)
	}
	return scale{kind, low, high}
}

// roomAround widens a range a little, one of a single value to something that can be seen.
func roomAround(low, high float64) (float64, float64) {
	const room = 0.05
	if d := high - low; d > 1e-12*max(math.Abs(low), math.Abs(high)) && !math.IsInf(d, 0) {
		return low - room*d, high + room*d
	}
	d := max(math.Abs(low), math.Abs(high)) / 10
	if d == 0 {
		d = 1
	}
	return low - d, high + d
}

// measure fits a scale to the means and floors of a metric, and to the ends of their intervals as far as these, if they are
// few, do not press everything else together; notes say what a reader would not expect.
func (m Metric) measure(samples ...[]Sample) (s scale, notes []string) {
	low, high, least := math.Inf(1), math.Inf(-1), math.Inf(1)
	zeros, negative := 0, false
	reach := func(v float64) {
		low, high = min(low, v), max(high, v)
		if v > 0 {
			least = min(least, v)
		}
	}
	for _, list := range samples {
		for _, x := range list {
			if !x.measured() {
				continue
			}
			reach(x.Mean)
			negative = negative || x.Mean < 0
			if x.Mean == 0 {
				zeros++
			}
			if x.floored() {
				reach(x.Floor)
			}
		}
	}
	if math.IsInf(low, 1) {
		return scale{linear, 0, 1}, nil
	}
	if m.Log && negative {
		notes = append(notes, "Linear scale, since a log scale has no place for values below 0.")
	}
	if s.kind = linear; m.Log && !negative && high > 0 {
		s.kind, low = logarithmic, least
		if zeros > 0 {
			notes = append(notes, "A log scale has no place for 0: "+plural(zeros, "value")+" left out.")
		}
	}
	along := func(v float64) float64 { return v }
	if s.kind == logarithmic {
		along = math.Log
	}
	from, to := along(low), along(high)
	var halves []float64
	for _, list := range samples {
		for _, x := range list {
			if x.ranged() && (s.kind == linear || x.Mean > 0) {
				halves = append(halves, along(max(x.High, x.Mean))-along(x.Mean))
			}
		}
	}
	room := 1.5 * (to - from)
	if slices.Sort(halves); len(halves) > 0 {
		room = max(room, 1.25*halves[len(halves)/2]) // where most intervals are wider than what they are of, that is what is seen
	}
	if to == from {
		room = math.Inf(1)
	}
	bottom, top, cut := from, to, false
	for _, list := range samples {
		for _, x := range list {
			if !x.ranged() || s.kind == logarithmic && x.Mean <= 0 {
				continue
			}
			end := along(max(x.High, x.Mean)) // an odd interval may lie beside its mean
			cut = cut || end > to+room
			top = max(top, min(end, to+room))
			if s.kind == logarithmic && x.Low <= 0 {
				bottom, cut = min(bottom, max(from-room, along(x.Mean/3))), true
				continue
			}
			end = along(x.Low)
			cut = cut || end < from-room
			bottom = min(bottom, max(end, from-room))
		}
	}
	if cut {
		notes = append(notes, "An interval that reaches an edge of the frame goes on beyond it.")
	}
	if s.kind == logarithmic {
		const most = 700 // e to it is near the end of all numbers
		s.low, s.high = logRange(math.Exp(max(bottom, -most)), math.Exp(min(top, most)))
		return s, notes
	}
	if s.low, s.high = roomAround(bottom, top); low > 0 && bottom >= 0 && s.low < 0.35*s.high {
		s.low = 0
	}
	return s, notes
}

// measureAcross is measure for an x axis, which can give zero a place of its own beside a logarithmic scale.
func (m Metric) measureAcross(samples []Sample) (s scale, notes []string) {
	above := slices.DeleteFunc(slices.Clone(samples), func(x Sample) bool { return x.Mean == 0 })
	s, notes = m.measure(above)
	if len(above) == len(samples) {
		return s, notes
	}
	if s.kind == logarithmic {
		s.kind = logAndZero
		return s, notes
	}
	return m.measure(samples)
}

// roomyTicks keeps of a ticker's labels every k-th, with the least k for which an axis of some length has room.
type roomyTicks struct {
	plot.Ticker
	scale   scale
	length  vg.Length
	upright bool // the axis; labels then need their height
}

// Ticks implements plot.Ticker.
func (r roomyTicks) Ticks(low, high float64) []plot.Tick {
	ticks := slices.Clone(r.Ticker.Ticks(low, high))
	var labelled []int
	for i, t := range ticks {
		if !t.IsMinor() {
			labelled = append(labelled, i)
		}
	}
	slices.SortStableFunc(labelled, func(i, j int) int { return int(math.Copysign(1, ticks[i].Value-ticks[j].Value)) })
	fits := func(k int) bool {
		end := math.Inf(-1)
		for i := 0; i < len(labelled); i += k {
			t := ticks[labelled[i]]
			at, half := r.scale.at(t.Value)*float64(r.length), float64(tickText.Width(t.Label))/2+2
			if r.upright {
				half = float64(tickText.Font.Size) * 0.6
			}
			if at-half < end {
				return false
			}
			end = at + half
		}
		return true
	}
	k := 1
	for ; k < len(labelled) && !fits(k); k++ {
	}
	for i, j := range labelled {
		if i%k > 0 {
			ticks[j].Label = ""
		}
	}
	if vg.Length(len(ticks)) > r.length/3 { // they would be one black line
		ticks = slices.DeleteFunc(ticks, plot.Tick.IsMinor)
	}
	return ticks
}

// placed is a parameter on an axis: the place of each of its values.
type placed struct {
	Parameter
	scale scale
	at    []float64
	key   string // explains labels that had to be numbers
	ticks plot.Ticker
}

// place puts a parameter onto an axis of about a length.
func (p Parameter) place(length vg.Length) placed {
	a := placed{Parameter: p}
	if v, ok := p.numbers(); ok {
		kind := spacing(v)
		a.scale, a.at = onScale(kind, v), v
		a.ticks = roomyTicks{a.scale.ticker(max(3, int(length/70))), a.scale, length, false}
		if own := a.ownTicks(length, false); own != nil {
			a.ticks = own
		}
		return a
	}
	return p.side(length, 0)
}

// stand puts a parameter onto an upright axis of a height, with room of a width for labels.
func (p Parameter) stand(height, room vg.Length) placed {
	v, ok := p.numbers()
	if !ok {
		return p.side(height, room)
	}
	a := placed{Parameter: p, scale: onScale(spacing(v), v), at: v}
	a.ticks = roomyTicks{a.scale.ticker(8), a.scale, height, true}
	if own := a.ownTicks(height, true); own != nil {
		a.ticks = own
	}
	return a
}

// side puts the values of a parameter side by side on an axis of a length, upright if its labels have a width of their own.
func (p Parameter) side(length, room vg.Length) placed {
	a := placed{Parameter: p, scale: scale{named, -0.5, float64(len(p.Values)) - 0.5}}
	for i := range p.Values {
		a.at = append(a.at, float64(i))
	}
	numbers, numeric := p.numbers()
	slot := length / vg.Length(len(p.Values))
	if room > 0 {
		slot = room
	}
	labels := make([]string, len(p.Values))
	widest := vg.Length(0)
	for i, v := range p.Values {
		if labels[i] = oneLine(v); numeric {
			labels[i] = shortNumber(numbers[i])
		}
		widest = max(widest, tickText.Width(labels[i]))
	}
	if !numeric && widest > slot-4 {
		a.key = "Values of " + oneLine(p.Name) + ": "
		for i := range labels {
			if i > 0 {
				a.key += "; "
			}
			a.key += count(i+1) + " = " + labels[i]
			labels[i] = count(i + 1)
		}
		a.key += "."
	}
	var ticks plot.ConstantTicks
	for i, label := range labels {
		ticks = append(ticks, plot.Tick{Value: float64(i), Label: label})
	}
	a.ticks = roomyTicks{ticks, a.scale, length, room > 0}
	return a
}

// labelWidth is the width of the widest label.
func (a placed) labelWidth() (w vg.Length) {
	for _, t := range a.ticks.Ticks(a.scale.low, a.scale.high) {
		w = max(w, tickText.Width(t.Label))
	}
	return w
}

// shortNumber writes a value in full if that is short, or else to three digits.
func shortNumber(v float64) string {
	if s := number(v); len([]rune(s)) <= 7 {
		return s
	}
	return rounded(v, 3)
}

// narrow is the label of a tick, with an exponent where it would be wider than its room.
func narrow(t plot.Tick, room vg.Length) string {
	if v, err := strconv.ParseFloat(strings.ReplaceAll(strings.ReplaceAll(t.Label, ",", ""), "−", "-"), 64); err == nil &&
		v == t.Value && tickText.Width(t.Label) > room {
		return strconv.FormatFloat(t.Value, 'g', 2, 64)
	}
	return t.Label
}

// ownTicks marks an axis at the values themselves if these are few, short and far enough apart.
func (a placed) ownTicks(length vg.Length, upright bool) plot.Ticker {
	const few, short = 9, 7
	if len(a.at) > few {
		return nil
	}
	var ticks plot.ConstantTicks
	for _, v := range a.at {
		label := number(v)
		if len([]rune(label)) > short {
			return nil
		}
		ticks = append(ticks, plot.Tick{Value: v, Label: label})
	}
	r := roomyTicks{ticks, a.scale, length, upright}
	for _, t := range r.Ticks(a.scale.low, a.scale.high) {
		if t.IsMinor() {
			return nil
		}
	}
	return ticks
}

// apply gives the axis of the parameter to a plot.
func (a placed) apply(x *plot.Axis) {
	x.Min, x.Max, x.Scale, x.Tick.Marker = a.scale.low, a.scale.high, a.scale.normalizer(), a.ticks
}
