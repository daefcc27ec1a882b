package strategies

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"

	"evenkeel/internal/nearest"
	"evenkeel/moe"
)

// presets is the registry: every rule that a user can name, in the order in which lists show them. Whole models that are
// made of them stand in recipes.go.
var presets = []*Preset{
	&none,
	&randomPreset,
	&roundRobinPreset,
	&auxLoss,
	&noisyTopK,
	&switchLoss,
	&gshardTop2,
	&deepSeekV2Loss,
	&skyworkLoss,
	&zLossPreset,
	&jitter,
	&remoe,
	&simBal,
	&varianceLossPreset,
	&progressiveKPreset,
	&lossFree,
	&multiplicativeBias,
	&smebu,
	&pidBias,
	&bip,
	&longCatBias,
	&quantileBalancing,
	&threshold,
	&budgetBias,
	&movingQuantilePreset,
	&topPPreset,
	&base,
	&sinkhorn,
	&expertChoice,
	&maxScore,
	&swipe,
	&hash,
	&moge,
	&capacityPreset,
	&nullExperts,
	&frozenRouter,
	&deepSeekV3,
	&balancedOptimum,
}

// Default is the comparison that runs when a user names no strategy: one loss at three coefficients shows what it trades.
func Default() []string {
	return []string{"none", "aux-loss:coeff=0.01", "aux-loss:coeff=0.1", "aux-loss:coeff=0.3", "loss-free", "balanced-optimum"}
}

// Preset is a named composition with its knobs and its documentation.
type Preset struct {
	Name    string
	Family  string
	Summary string // one line
	Formula string // the equations, in plain text
	Knobs   []Knob
	// Strength is the knob that trades quality for balance, if there is one. Zero, if not nil, is the strategy without it.
	Strength string
	// Sweep is the useful range of that knob, of which frontier draws the curve; zero for a factor of 30 to both sides of the
	// default.
	Sweep    [2]float64
	Zero     func(v Values) string
	Needs    string // what it asks of a stream or router
	Model    *Model // of which it is the recipe; nil for a rule alone
	Scenario string // on which it is best tried, and settings that it needs; empty for the default
	Changes  string // which experts, gates, gradient, capacity: as many as apply
	Fails    string // known failure modes, in a sentence or two
	Paper    string // with its year
	Read     string // how the rule was learnt: code, paper, the author's blog, or a note about it
	// Build makes the strategy for a layer. It may warn through Traits.Warnings; name and spec are filled in after it.
	Build func(v Values, l moe.Layer) (*strategy, error)

	// Revision counts the changes of what the preset computes, so that stored results of an older one are not taken for its own.
	Revision int

	file   string // of a strategy file
	source []byte
}

// Source returns the text of the strategy file that the preset comes from, or nil.
func (p *Preset) Source() []byte { return p.source }

// Presets returns the registry in order: rules, whole models, bounds. The caller must not change it.
func Presets() []*Preset { return ordered() }

var ordered = sync.OnceValue(func() []*Preset {
	var rules, bounds []*Preset
	for _, p := range presets {
		if p.Family == "bounds" {
			bounds = append(bounds, p)
		} else {
			rules = append(rules, p)
		}
	}
	return slices.Concat(rules, recipes(), bounds)
})

// Find returns the preset of a name, or of a strategy file, whose name ends in .yaml or .yml.
func Find(name string) (*Preset, error) {
	if isFile(name) {
		return ReadFile(name)
	}
	return builtIn(name)
}

func builtIn(name string) (*Preset, error) { return among(Presets(), name) }

func among(list []*Preset, name string) (*Preset, error) {
	for _, p := range list {
		if p.Name == name {
			return p, nil
		}
	}
	var known []string
	for _, p := range list {
		known = append(known, p.Name)
	}
	if at := strings.IndexAny(name, ", "); at > 0 {
		return nil, fmt.Errorf("there is no strategy %q: several take -s each, and knobs come behind a colon, such as -s none -s loss-free:rate=1e-3", name)
	}
	if hint := nearest.Name(name, known); hint != "" {
		return nil, fmt.Errorf("there is no strategy %q; did you mean %s? (evenkeel strategies lists them)", name, hint)
	}
	return nil, fmt.Errorf("there is no strategy %q: evenkeel strategies lists the known ones, and a strategy file's name ends in .yaml", name)
}

// spec is the preset with its defaults.
func (p *Preset) spec() (Spec, error) {
	s := Spec{p, Values{}}
	return s, s.complete()
}

// complete gives the knobs that have no value their defaults.
func (s Spec) complete() (err error) {
	for i := range s.Preset.Knobs {
		k := &s.Preset.Knobs[i]
		if _, given := s.Values[k.Name]; given {
			continue
		}
		if s.Values[k.Name], err = k.check(k.Default); err != nil {
			return fmt.Errorf("default of %s: %w", s.Preset.Name, err)
		}
	}
	return nil
}

func find(name string, defined []*Preset) (*Preset, error) {
	for _, p := range defined {
		if p.Name == name {
			return p, nil
		}
	}
	return Find(name)
}

// Knob is one parameter of a preset.
type Knob struct {
	Name    string
	Default string
	About   string   // what it is, with its unit
	Options []string // the words it may be; nil for a number
	Whole   bool     // a number must be whole
	Low     float64  // the smallest number
	High    float64  // the largest
}

// check returns a value in the form in which it is stored and printed.
func (k *Knob) check(value string) (string, error) {
	if k.Options != nil {
		if !slices.Contains(k.Options, value) {
			return "", fmt.Errorf("%s is %q%s: it must be one of %s", k.Name, value, nearest.Hint(value, k.Options), strings.Join(k.Options, ", "))
		}
		return value, nil
	}
	x, err := strconv.ParseFloat(value, 64)
	if err != nil && strings.Contains(value, "..") {
		return "", fmt.Errorf("%s is %q: ranges are for evenkeel frontier, here it must be a number", k.Name, value)
	}
	if err != nil || x != x {
		return "", fmt.Errorf("%s is %q: it must be a number", k.Name, value)
	}
	if k.Whole && x != float64(int64(x)) {
		return "", fmt.Errorf("%s is %s: it must be a whole number", k.Name, value)
	}
	if x < k.Low || x > k.High {
		return "", fmt.Errorf("%s is %s: it must be %g to %g", k.Name, value, k.Low, k.High)
	}
	var short [32]byte
	if b := strconv.AppendFloat(short[:0], x, 'g', -1, 64); string(b) != value {
		value = string(b)
	}
	return value, nil
}

// Values are the knobs of one strategy, checked.
type Values map[string]string

// Text returns a knob's word.
func (v Values) Text(knob string) string { return v[knob] }

// Number returns a knob's number.
func (v Values) Number(knob string) float64 {
	x, _ := strconv.ParseFloat(v[knob], 64)
	return x
}

// Whole returns a knob's whole number.
func (v Values) Whole(knob string) int { return int(v.Number(knob)) }

// On reports whether a knob with the options false and true is true.
func (v Values) On(knob string) bool { return v[knob] == "true" }

// Spec is a preset with values for its knobs.
type Spec struct {
	Preset *Preset
	Values Values
}

// Parse reads a strategy as a user writes it: name, or name:knob=value,knob=value. The name is one of defined or one that
// Find knows.
func Parse(text string, defined ...*Preset) (Spec, error) {
	name, knobs, given := strings.Cut(strings.TrimSpace(text), ":")
	p, err := find(name, defined)
	if err != nil {
		return Spec{}, err
	}
	s := Spec{p, Values{}}
	if !given {
		return s, s.complete()
	}
	for setting := range strings.SplitSeq(knobs, ",") {
		knob, value, ok := strings.Cut(setting, "=")
		if !ok {
			return Spec{}, fmt.Errorf("strategy %s: %q is no knob=value, such as %s", text, setting, p.example())
		}
		if _, twice := s.Values[knob]; twice {
			return Spec{}, fmt.Errorf("strategy %s: %s is given twice", text, knob)
		}
		if err := s.set(knob, value); err != nil {
			return Spec{}, fmt.Errorf("strategy %s: %w", text, err)
		}
	}
	return s, s.complete()
}

func (s *Spec) set(knob, value string) error {
	for i := range s.Preset.Knobs {
		if k := &s.Preset.Knobs[i]; k.Name == knob {
			v, err := k.check(value)
			s.Values[knob] = v
			return err
		}
	}
	var known []string
	for i := range s.Preset.Knobs {
		known = append(known, s.Preset.Knobs[i].Name)
	}
	if len(known) == 0 {
		return fmt.Errorf("it has no knobs, got %q", knob)
	}
	return fmt.Errorf("it has no knob %q%s: its knobs are %s", knob, nearest.Hint(knob, known), strings.Join(known, ", "))
}

// Try returns a command that shows the strategy beside no balancing.
func (p *Preset) Try() string {
	command := "evenkeel compare -s none"
	if p.Model != nil {
		command += " --model " + p.Name
	}
	if p.Scenario != "" {
		command += " --scenario " + p.Scenario
	}
	if p.Name == "none" {
		return command
	}
	if p.file != "" {
		return command + " -s " + p.file
	}
	return command + " -s " + p.Name
}

func (p *Preset) example() string {
	if len(p.Knobs) == 0 {
		return p.Name + " without knobs"
	}
	return p.Name + ":" + p.Knobs[0].Name + "=" + p.Knobs[0].Default
}

// With returns the spec with another value of one knob.
func (s Spec) With(knob, value string) (Spec, error) {
	c := Spec{s.Preset, maps.Clone(s.Values)}
	if err := c.set(knob, value); err != nil {
		return Spec{}, fmt.Errorf("strategy %s: %w", s, err)
	}
	return c, nil
}

// Plain returns the spec with the default of one knob.
func (s Spec) Plain(knob string) (Spec, error) {
	for i := range s.Preset.Knobs {
		if s.Preset.Knobs[i].Name == knob {
			return s.With(knob, s.Preset.Knobs[i].Default)
		}
	}
	return s.With(knob, "") // which says so
}

// Range returns the range of strengths that a frontier sweeps, which is empty where the strategy has no strength.
func (p *Preset) Range() (low, high float64) {
	for i := range p.Knobs {
		k := &p.Knobs[i]
		if k.Name != p.Strength {
			continue
		}
		if p.Sweep != [2]float64{} {
			return p.Sweep[0], p.Sweep[1]
		}
		d, _ := strconv.ParseFloat(k.Default, 64) // checked by Parse
		return max(k.Low, d/30), min(k.High, d*30)
	}
	return 0, 0
}

// String returns the canonical form: the knobs that differ from their defaults, in the preset's order.
func (s Spec) String() string { return s.without("") }

// Full returns the spec with every knob, so that it means the same when defaults change.
func (s Spec) Full() string {
	var b []byte
	b = append(b, s.Preset.Name...)
	separator := byte(':')
	for i := range s.Preset.Knobs {
		name := s.Preset.Knobs[i].Name
		b = append(append(b, separator), name...)
		b = append(append(b, '='), s.Values[name]...)
		separator = ','
	}
	return string(b)
}

// without is the canonical form that leaves a knob out.
func (s Spec) without(knob string) string {
	var set []string
	for i := range s.Preset.Knobs {
		k := &s.Preset.Knobs[i]
		if d, _ := k.check(k.Default); s.Values[k.Name] != d && k.Name != knob {
			set = append(set, k.Name+"="+s.Values[k.Name])
		}
	}
	if set == nil {
		return s.Preset.Name
	}
	return s.Preset.Name + ":" + strings.Join(set, ",")
}

// Build makes the strategy for a layer.
func (s Spec) Build(l moe.Layer) (moe.Strategy, error) {
	r, err := s.Preset.Build(s.Values, l)
	if err != nil {
		return nil, fmt.Errorf("strategy %s: %w", s, err)
	}
	t := &r.traits
	t.Name, t.Spec, t.Family = s.Preset.Name, s.String(), s.without(s.Preset.Strength)
	if s.Preset.Zero != nil {
		t.Zero = s.Preset.Zero(s.Values)
	}
	return r, nil
}

// scoreKnob lets a strategy's router score differently from the scenario's oracle.
var scoreKnob = Knob{Name: "score", Default: "scenario", Options: append([]string{"scenario"}, moe.ScoreNames()...),
	About: "score function of the router; scenario: as the scenario's"}

// publishedScore is the knob of a rule that was published for one score function.
func publishedScore(f moe.Score) Knob {
	k := scoreKnob
	k.Default, k.About = f.String(), "score function of the router, "+f.String()+" as published; scenario: as the scenario's"
	return k
}

// score returns the score function that a strategy's knob asks for, and what a reader must know about it.
func (v Values) score(l moe.Layer) (moe.Score, []string, error) {
	name := v.Text("score")
	if name == "scenario" {
		return l.Score, nil, nil
	}
	if l.Score == moe.Stored {
		return 0, nil, fmt.Errorf("score=%s needs logits, and this stream carries scores, which are used as they are: say score=scenario", name)
	}
	f, err := moe.ParseScore(name)
	if f == l.Score || err != nil {
		return f, nil, err
	}
	return f, []string{fmt.Sprintf("its router scores by %s, while the scenario's affinities are %s: kept affinity compares the two", f, l.Score)}, nil
}
