package scenarios

import (
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"evenkeel/internal/nearest"
	"evenkeel/internal/tracefile"
	"evenkeel/moe"
)

//go:embed shipped/*.yaml shipped/*.npz
var shipped embed.FS

// order lists the shipped scenarios as a newcomer should read them.
var order = []string{"pretraining", "tinymoe", "fitted-tinymoe", "fitted-deepseek-v2-lite", "cold-start", "shift", "drift", "burst", "day-night", "curriculum", "fine-tuning", "distillation", "benchmark-mix", "packed", "unpacked", "padding",
	"many-ranks", "decode", "drafts", "learned-experts", "collapse", "deepseek-v3", "huge-batch", "sparse",
	"uniform", "independent", "w0-balanced", "w1-hot-set", "w2-hot-rank", "w3-spread", "w4-ragged", "w5-idle-half", "w6-rotating", "w7-burst"}

// Names lists the shipped scenarios.
func Names() []string { return slices.Clone(order) }

// Source returns the YAML text of a shipped scenario.
func Source(name string) ([]byte, error) {
	text, err := shipped.ReadFile("shipped/" + name + ".yaml")
	if err != nil {
		return nil, fmt.Errorf("there is no scenario %q%s: the shipped ones are %s", name, nearest.Hint(name, order), strings.Join(order, ", "))
	}
	return text, nil
}

// Text is a scenario as it was written, before settings and defaults.
type Text struct {
	File string `json:"file"` // for messages, and where paths in it begin
	Name string `json:"name"` // unless the text says otherwise
	YAML string `json:"text"`
}

// Find returns the text of a reference: the name of a shipped scenario, a YAML file, hot:PERCENT:EXPERTS,
// or trace:FILE with a file of any format of traces.
func Find(reference string) (Text, error) {
	t := Text{File: reference, Name: strings.TrimSuffix(filepath.Base(reference), filepath.Ext(reference))}
	generated := func(keys map[string]any) {
		text, _ := json.Marshal(keys) // plain values only
		t.YAML = string(text)
	}
	switch trace, isTrace := strings.CutPrefix(reference, "trace:"); {
	case isTrace:
		if trace == "" {
			return t, errors.New("--scenario trace: names no file: write trace:FILE")
		}
		t.File, t.Name = trace, "trace:"+filepath.Base(trace)
		generated(map[string]any{"trace": map[string]any{"file": trace}})
	case strings.HasPrefix(reference, "hot:"):
		percent, number, err := parseHot(reference)
		if err != nil {
			return t, err
		}
		t.File, t.Name = "hot.yaml", reference
		generated(map[string]any{"hot": map[string]any{"share": percent / 100, "experts": number}})
	case strings.HasSuffix(reference, ".yaml") || strings.HasSuffix(reference, ".yml") || strings.HasSuffix(reference, ".json"):
		text, err := os.ReadFile(reference)
		if err != nil {
			return t, unwrapPath(err)
		}
		t.YAML = string(text)
	default:
		text, err := Source(reference)
		if err != nil {
			if _, there := os.Stat(reference); there == nil || strings.HasSuffix(reference, ".npz") {
				return t, fmt.Errorf("%s is a trace: write --scenario trace:%s", reference, reference)
			}
			return t, err
		}
		t.File, t.YAML = reference+".yaml", string(text)
	}
	return t, nil
}

// Load reads the text. Settings are key=value with the path of a key and win over it. layer, if not negative, picks the layer of
// a trace. The error names every mistake with its file and line.
func (t Text) Load(settings []string, layer int) (*Scenario, error) {
	return read(t.File, t.Name, []byte(t.YAML), settings, layer, nil)
}

// LoadPinned is Load of a text and settings that somebody else may have written: the file of a trace is used only if it has the
// checksum that they name, else the error is OtherTrace, or that of the file system, and says nothing of what the file holds.
func (t Text) LoadPinned(settings []string) (*Scenario, error) {
	return read(t.File, t.Name, []byte(t.YAML), settings, -1, (*Scenario).openPinned)
}

// Load finds and loads a scenario; see Find and Text.Load.
func Load(reference string, settings []string, layer int) (*Scenario, error) {
	t, err := Find(reference)
	if err != nil {
		return nil, err
	}
	return t.Load(settings, layer)
}

// LoadFrom is Load for a layer of a trace that is open, by [Scenario.OpenTrace] of the same reference and settings: many layers
// are then read from one opening, and the file's checksum is computed once.
func LoadFrom(f *TraceFile, reference string, settings []string, layer int) (*Scenario, error) {
	t, err := Find(reference)
	if err != nil {
		return nil, err
	}
	return read(t.File, t.Name, []byte(t.YAML), settings, layer, func(*Scenario) (*TraceFile, func() error, error) {
		return f, func() error { return nil }, nil
	})
}

// OpenTrace opens the trace that the scenario replays, whose Trace must not be nil. The caller closes it.
func (s *Scenario) OpenTrace() (*TraceFile, error) { return OpenTrace(s.Trace.File, s.reading()) }

// parseHot reads hot:80:4, of which 80 % of the tokens want 4 experts.
func parseHot(reference string) (percent float64, experts int, err error) {
	parts := strings.Split(reference, ":")
	if len(parts) == 3 {
		percent, err = strconv.ParseFloat(parts[1], 64)
		if err == nil {
			experts, err = strconv.Atoi(parts[2])
		}
	}
	if len(parts) != 3 || err != nil || !(percent >= 0 && percent <= 100) || experts < 1 {
		return 0, 0, fmt.Errorf("--scenario %s: want hot:PERCENT:EXPERTS, such as hot:80:4, where 80 %% of the tokens want 4 experts", reference)
	}
	return percent, experts, nil
}

// Resolved returns the scenario that json describes, as Marshal wrote it into a manifest.
func Resolved(file string, text []byte) (*Scenario, error) { return read(file, "", text, nil, -1, nil) }

func unwrapPath(err error) error {
	var path *fs.PathError
	if errors.As(err, &path) {
		return fmt.Errorf("%s: %w", path.Path, path.Err)
	}
	return err
}

// Defaults returns the scenario whose values stand for every key that a file leaves out.
func Defaults() *Scenario {
	return &Scenario{
		Experts: 64, TopK: 6, Groups: 1, GroupsKept: 1, Score: "sigmoid", Gate: gateNormalised, GateScale: 1, Width: 64,
		Tokens: 2048, SequenceLength: 256, MicroBatches: 4, Ranks: 1, Steps: 500, Seeds: []uint64{1, 2, 3},
		EvaluationTokens: 65536,
		Router:           Router{Mode: "auto", Rate: 1e-2, Init: "random"},
		Task:             Task{Experts: "fixed", Rate: 3e-3, Hidden: 16, Regions: 64, Shared: true},
		lines:            map[string]int{},
	}
}

func (y *Synthetic) defaults() {
	*y = Synthetic{
		LogitScale: 1.4, CommonEnergy: 0.13,
		Energy:     Energy{Type: 0.50, Domain: 0.13, Sequence: 0.04, Noise: 0.33},
		Vocabulary: 4096, Zipf: 1.15, DomainTilt: 0.7,
		Domains: []Domain{{"a", 0.45}, {"b", 0.25}, {"c", 0.20}, {"d", 0.10}},
	}
}

func (y *Independent) defaults() {
	*y = Independent{Draws: "logits", Distribution: "normal", Scale: 1, Means: "quantiles", Spread: 0.5}
}

// read reads a scenario, and its trace from what open opens and closes; nil opens the file that it names.
func read(file, name string, text []byte, settings []string, layer int, open opening) (*Scenario, error) {
	top, err := parse(file, text)
	if err != nil {
		return nil, err
	}
	forgetLimit(top, settings)
	for _, s := range settings {
		path, value, ok := strings.Cut(s, "=")
		if !ok || path == "" {
			return nil, fmt.Errorf("--set %s: want key=value, such as --set experts=128", s)
		}
		if err := set(top, path, value); err != nil {
			return nil, err
		}
	}
	s := Defaults()
	s.file, s.Name = file, name
	p := &problems{file: file}
	decode(top, reflect.ValueOf(s).Elem(), "", s.lines, p)
	if s.given("groups") && !s.given("groups_kept") {
		s.GroupsKept = s.Groups // groups alone are devices, and limit nothing
	}
	if s.Task.Experts == "learned" && !s.given("router.rate") {
		s.Router.Rate = s.Task.Rate
	}
	if s.Synthetic == nil && s.Independent == nil && s.Hot == nil && s.Trace == nil {
		s.Synthetic = &Synthetic{}
		s.Synthetic.defaults()
	}
	if layer >= 0 {
		if s.Trace == nil {
			return nil, fmt.Errorf("--layer picks a layer of a trace, and scenario %s is not one", s.Name)
		}
		s.Trace.Layer = layer
	}
	if p.list == nil && s.Trace != nil {
		if local := s.Trace.File; name != "" && strings.HasSuffix(file, ".yaml") && !filepath.IsAbs(local) && !strings.HasPrefix(local, embedded) {
			s.Trace.File = filepath.Join(filepath.Dir(file), local) // as seen from the YAML file
		}
		if err := s.readTrace(open); err != nil {
			return nil, err
		}
	}
	if p.list == nil {
		s.validate(p)
	}
	return s, p.err()
}

// reading is what the scenario says of its trace.
func (s *Scenario) reading() Reading {
	reading := Reading{Options: tracefile.Options{Map: s.Trace.Map, Where: s.Trace.Where, Layers: s.Trace.Layers, Padding: s.Trace.Padding},
		Complete: s.Trace.Complete, Mass: s.Trace.Mass}
	if s.given("topk") {
		reading.TopK = s.TopK
	}
	if s.given("experts") {
		reading.Experts = s.Experts
	}
	return reading
}

// opening opens the trace of a scenario, and says how it is closed.
type opening func(*Scenario) (f *TraceFile, done func() error, err error)

// open opens the file that the scenario names.
func (s *Scenario) open() (*TraceFile, func() error, error) {
	f, err := s.OpenTrace()
	if err != nil {
		return nil, nil, err
	}
	return f, f.Close, nil
}

// openPinned opens it only if it has the checksum that the scenario names, and says nothing of another one.
func (s *Scenario) openPinned() (*TraceFile, func() error, error) {
	pin, other := s.Trace.SHA256, OtherTrace{s.Trace.File, s.Trace.SHA256}
	if s.Trace.Embedded() {
		return s.open()
	}
	if pin == "" {
		return nil, nil, fmt.Errorf("the trace %s is named without its checksum: add trace.sha256", s.Trace.File)
	}
	f, err := s.OpenTrace()
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrPermission) {
			err = other
		}
		return nil, nil, err
	}
	sum, err := f.SHA256()
	if err == nil && sum != pin {
		err = other
	}
	if err != nil {
		f.Close()
		return nil, nil, err
	}
	return f, f.Close, nil
}

// readTrace loads the trace, and takes from it what the scenario does not say.
func (s *Scenario) readTrace(open opening) error {
	if open == nil {
		open = (*Scenario).open
	}
	f, done, err := open(s)
	if err != nil {
		return err
	}
	defer done()
	d, sum, err := f.layer(s.Trace.Layer)
	if err != nil {
		return err
	}
	if d.Level == LevelCounts {
		return fmt.Errorf("%s holds counts only, which say nothing of any token: record each token's choices with their weights, or the router's logits; evenkeel inspect shows the counts", s.Trace.File)
	}
	if s.Trace.SHA256 != "" && s.Trace.SHA256 != sum {
		return fmt.Errorf("%s has changed: its SHA-256 is %s, and the scenario was made with %s", s.Trace.File, sum, s.Trace.SHA256)
	}
	s.Trace.data, s.Trace.SHA256 = d, sum
	if !s.Aggregate || !s.given("evaluation_tokens") {
		s.EvaluationTokens = d.Tokens
	}
	for _, k := range []struct {
		key   string
		value *int
		file  int
	}{{"experts", &s.Experts, d.Experts}, {"topk", &s.TopK, d.TopK}, {"width", &s.Width, d.Width}} {
		given := s.given(k.key)
		switch {
		case k.key == "topk" && !given && d.TopK == 0:
			return fmt.Errorf("%s has no topk_ids, so it does not say how many experts a token chooses: add --set topk=K", s.Trace.File)
		case k.key != "topk" && given && *k.value != k.file:
			return fmt.Errorf("%s is %d, but the trace %s has %d: leave the key out", k.key, *k.value, s.Trace.File, k.file)
		case !given:
			*k.value = k.file
		}
	}
	if !s.given("tokens") {
		s.Tokens = min(4096, d.Tokens)
	}
	if !s.given("steps") {
		s.Steps = 0
	}
	return nil
}

// given reports whether the file or a setting has the key.
func (s *Scenario) given(key string) bool {
	_, ok := s.lines[key]
	return ok
}

// SettleSteps gives a trace that does not say how long it runs its default: 1,000 steps of a frozen router, 500 of one
// that learns.
func (s *Scenario) SettleSteps(frozen bool) {
	if s.Steps == 0 {
		s.Steps = 500
		if frozen {
			s.Steps = 1000
		}
	}
}

// embedded begins the name of a trace that the program carries.
const embedded = "embedded:"

// oneOf reports a value that is none of the allowed ones.
func (s *Scenario) oneOf(p *problems, path, value string, allowed ...string) {
	if !slices.Contains(allowed, value) {
		p.add(s.lines[path], path, "%q is none of %s%s", value, strings.Join(allowed, ", "), nearest.Hint(value, allowed))
	}
}

// validate checks what concerns several keys at once.
func (s *Scenario) validate(p *problems) {
	s.oneOf(p, "score", s.Score, moe.ScoreNames()...)
	s.oneOf(p, "gate", s.Gate, gateNormalised, gateRaw)
	s.oneOf(p, "router.mode", s.Router.Mode, "auto", "frozen", "learned")
	s.oneOf(p, "task.experts", s.Task.Experts, "fixed", "learned")
	s.oneOf(p, "router.init", s.Router.Init, "random", "oracle")
	kinds := 0
	for _, given := range []bool{s.Synthetic != nil, s.Independent != nil, s.Hot != nil, s.Trace != nil} {
		if given {
			kinds++
		}
	}
	if kinds > 1 {
		p.add(1, "synthetic, independent, hot, trace", "a scenario has one of them")
	}
	if len(p.list) == 0 {
		if err := s.Layer().Validate(); err != nil {
			key, rest, _ := strings.Cut(err.Error(), " ")
			p.add(s.lines[key], key, "%s", strings.TrimPrefix(rest, "is "))
		}
	}
	s.validateAggregate(p)
	if s.MicroBatches%s.Ranks != 0 {
		p.add(s.lines["ranks"], "ranks", "%d does not divide micro_batches, which is %d", s.Ranks, s.MicroBatches)
	}
	s.validateSeeds(p)
	if s.Synthetic != nil {
		s.validateSynthetic(p)
	}
	if y := s.Independent; y != nil {
		s.oneOf(p, "independent.draws", y.Draws, "logits", "scores")
		s.oneOf(p, "independent.distribution", y.Distribution, "normal", "uniform")
		s.oneOf(p, "independent.means", y.Means, "quantiles", "normal", "uniform")
	}
	if h := s.Hot; h != nil {
		s.oneOf(p, "hot.place", h.Place, placeBlock, placeSpread, placeLast, placeCycle)
		most := s.Experts
		if h.Place == placeSpread {
			most = (s.Experts + 1) / 2
		}
		if n := h.number(s.Layer()); n > most {
			p.add(s.lines["hot.experts"], "hot.experts", "%d: there is room for %d hot experts at most", n, most)
		}
	}
	s.validateEvents(p)
}

// mostTokens is the largest number of tokens that a batch may hold one by one.
const mostTokens = 1 << 24

func (s *Scenario) validateAggregate(p *problems) {
	if !s.Aggregate {
		for key, n := range map[string]int{"tokens": s.Tokens, "evaluation_tokens": s.EvaluationTokens} {
			if n > mostTokens {
				p.add(s.lines[key], key, "%d is more than %d, the most that are drawn one by one: aggregate=true draws any number, from a trace or from token types", n, mostTokens)
			}
		}
		return
	}
	at := s.lines["aggregate"]
	switch y := s.Synthetic; {
	case y == nil && s.Trace == nil:
		p.add(at, "aggregate", "the tokens of an independent stream are all different: use a synthetic stream or a trace")
	case y != nil && (y.Padding != nil || y.Drafts != nil):
		p.add(at, "aggregate", "padding and drafts belong to sequences, and aggregated tokens have none: leave them out")
	case y != nil && (y.Energy.Noise > 0 || y.Energy.Sequence > 0):
		p.add(at, "aggregate", "tokens with parts of noise and sequence are all different: set synthetic.energy.noise and synthetic.energy.sequence to 0, and give their shares to type and domain")
	case s.Synthetic != nil && slices.ContainsFunc(s.Events, func(e Event) bool { return e.Kind == burst }):
		p.add(at, "aggregate", "a burst is of a sequence, and aggregated tokens have none: leave out the event or aggregate")
	}
	s.MicroBatches, s.Ranks = 1, 1 // such tokens have no place in a batch
}

func (s *Scenario) validateSeeds(p *problems) {
	if len(s.Seeds) == 0 {
		p.add(s.lines["seeds"], "seeds", "want at least one seed, such as [1]")
	}
	seen := map[uint64]bool{}
	for _, seed := range s.Seeds {
		if seen[seed] {
			p.add(s.lines["seeds"], "seeds", "%d is given twice: equal seeds give equal runs, which no interval should count twice", seed)
		}
		seen[seed] = true
	}
}

func (s *Scenario) validateSynthetic(p *problems) {
	y := s.Synthetic
	if sum := y.Energy.Type + y.Energy.Domain + y.Energy.Sequence + y.Energy.Noise; math.Abs(sum-1) > 1e-9 {
		p.add(s.lines["synthetic.energy"], "synthetic.energy", "the shares sum to %.6g: they must sum to 1", sum)
	}
	if y.Padding != nil && y.Drafts != nil {
		p.add(s.lines["synthetic.drafts"], "synthetic.drafts", "a stream has padding or drafts, not both")
	}
	if d := y.Drafts; d != nil && s.SequenceLength%(d.Length+1) != 0 {
		p.add(s.lines["synthetic.drafts"], "synthetic.drafts", "sequence_length is %d: it must be a multiple of %d, a token and its %d drafts", s.SequenceLength, d.Length+1, d.Length)
	}
	if len(y.Domains) == 0 || len(y.Domains) > 255 {
		p.add(s.lines["synthetic.domains"], "synthetic.domains", "there are %d: want 1 to 255", len(y.Domains))
		return
	}
	var sum float64
	for i := range y.Domains {
		sum += y.Domains[i].Share
		if y.Domains[i].Name == "" {
			y.Domains[i].Name = fmt.Sprintf("domain %d", i)
		}
	}
	if math.Abs(sum-1) > 1e-9 {
		p.add(s.lines["synthetic.domains"], "synthetic.domains", "the shares sum to %.6g: they must sum to 1", sum)
	}
}

func (s *Scenario) validateEvents(p *problems) {
	if len(s.Events) > 0 && s.Synthetic == nil {
		p.add(s.lines["events"], "events", "only a synthetic stream has events")
		return
	}
	domains := 0
	if s.Synthetic != nil {
		domains = len(s.Synthetic.Domains)
	}
	for i := range s.Events {
		s.validateEvent(p, i, &domains)
	}
}

func (s *Scenario) validateEvent(p *problems, i int, domains *int) {
	e, path := &s.Events[i], fmt.Sprintf("events.%d", i)
	var kinds []string
	needs := []string(nil)
	for _, k := range eventKeys {
		kinds = append(kinds, k.kind)
		if k.kind == e.Kind {
			needs = k.keys
		}
	}
	if !slices.Contains(kinds, e.Kind) {
		s.oneOf(p, path+".kind", e.Kind, kinds...)
		return
	}
	for _, key := range names(reflect.TypeFor[Event]()) {
		needed := slices.Contains(needs, key) || key == "at" || key == "kind"
		switch given := s.given(path + "." + key); {
		case needed && !given:
			p.add(s.lines[path+".kind"], path, "an event of kind %s needs the key %s", e.Kind, key)
			return
		case given && !needed:
			p.add(s.lines[path+"."+key], path+"."+key, "an event of kind %s has no such key", e.Kind)
			return
		}
	}
	at := func(key string) (int, string) { return s.lines[path+"."+key], path + "." + key }
	if i > 0 && e.At < s.Events[i-1].At {
		line, key := at("at")
		p.add(line, key, "step %d comes before that of the event above it, %d: list events in the order of their steps", e.At, s.Events[i-1].At)
	}
	if e.At >= s.Steps {
		line, key := at("at")
		p.add(line, key, "step %d is never reached, since the run has steps 0 to %d: give it at least %d by --steps, or an earlier step by --set %s=STEP",
			e.At, s.Steps-1, e.At+1, key)
	}
	if slices.Contains(needs, "until") && e.Until <= e.At {
		line, key := at("until")
		p.add(line, key, "%d must be after at, which is %d", e.Until, e.At)
	}
	if slices.Contains(needs, "period") && e.Period < 1 {
		line, key := at("period")
		p.add(line, key, "%d must be at least 1 step", e.Period)
	}
	if slices.Contains(needs, "shares") {
		line, key := at("shares")
		var sum float64
		for _, v := range e.Shares {
			sum += v
			if !(v >= 0) {
				p.add(line, key, "%g: a share cannot be negative", v)
			}
		}
		if len(e.Shares) != *domains || math.Abs(sum-1) > 1e-9 {
			p.add(line, key, "want %d shares that sum to 1, one for each domain; got %d that sum to %.6g", *domains, len(e.Shares), sum)
		}
	}
	if e.Kind == newDomain {
		*domains++
	}
}

// Marshal returns the scenario in the form that Resolved reads.
func (s *Scenario) Marshal() ([]byte, error) {
	text, err := json.Marshal(s)
	if err != nil {
		return nil, err
	}
	var keys map[string]json.RawMessage
	if err := json.Unmarshal(text, &keys); err != nil {
		return nil, err
	}
	if s.Layer().Width == 0 {
		delete(keys, "width") // a stream without latent vectors has no such key
	}
	return json.Marshal(keys)
}
