package strategies

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"

	"evenkeel/internal/nearest"
	"evenkeel/moe"
)

// A strategy file describes a strategy in YAML, without Go, as a combination of known ones: each brings its parts.
//
//	name: even-and-soft
//	summary: a bias for the long run, a weak loss within sequences
//	parts:
//	  - loss-free: {rate: 1e-3, centre: true}
//	  - aux-loss: {coeff: 1e-4, scope: sequence, counts: unbiased}
//	gate: {normalised: true, scale: 2.5}
//	strength: loss-free.rate
//
// Every knob of a part is a knob of the strategy, named PART.KNOB.
type strategyFile struct {
	Name, Summary, Formula, Strength   string
	Needs, Changes, Fails, Paper, Read string
	Parts                              []filePart
	Gate                               *moe.Gate
	Model                              *Model
}

type filePart struct {
	preset *Preset
	values Values
}

// example of a strategy file, for messages.
const fileExample = "parts: [{loss-free: {rate: 1e-3}}, {aux-loss: {coeff: 1e-4, scope: sequence}}]"

var fileName = regexp.MustCompile(`^[a-z][a-z0-9-]*$`)

// isFile reports whether a strategy's name is that of a file.
func isFile(name string) bool {
	return strings.HasSuffix(name, ".yaml") || strings.HasSuffix(name, ".yml")
}

// ReadFile reads a strategy file and returns the preset that it describes.
func ReadFile(file string) (*Preset, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		var path *os.PathError
		if errors.As(err, &path) {
			err = path.Err
		}
		return nil, fmt.Errorf("strategy file %s: %w", file, err)
	}
	return Define(file, text)
}

// Define returns the preset that the text of a strategy file describes. Errors name the file and the line.
func Define(file string, text []byte) (*Preset, error) {
	f, err := parseFile(file, text)
	if err != nil {
		return nil, err
	}
	p := &Preset{Name: f.Name, Family: "files", Summary: f.Summary, Formula: f.Formula, Strength: f.Strength, Model: f.Model, Paper: f.Paper,
		Needs: cmp.Or(f.Needs, "what its parts need"), Changes: cmp.Or(f.Changes, "what its parts change"),
		Fails: cmp.Or(f.Fails, "as its parts do"), Read: cmp.Or(f.Read, file), file: file, source: text}
	var names []string
	for _, part := range f.Parts {
		names = append(names, part.preset.Name)
		p.Revision += part.preset.Revision // grows whenever what a part computes changes
		for _, k := range part.preset.Knobs {
			k.Name, k.Default = part.preset.Name+"."+k.Name, part.values[k.Name]
			p.Knobs = append(p.Knobs, k)
		}
	}
	if p.Summary == "" {
		p.Summary = "the parts of " + strings.Join(names, ", ")
	}
	p.Build = func(v Values, l moe.Layer) (*strategy, error) {
		var parts []*strategy
		for _, part := range f.Parts {
			own := Values{}
			for _, k := range part.preset.Knobs {
				own[k.Name] = v[part.preset.Name+"."+k.Name]
			}
			r, err := part.preset.Build(own, l)
			if err != nil {
				return nil, fmt.Errorf("part %s: %w", part.preset.Name, err)
			}
			parts = append(parts, r)
		}
		r, err := combine(l, parts, names)
		if err != nil {
			return nil, err
		}
		if f.Gate != nil {
			r.traits.Gate = *f.Gate
		}
		if f.Model != nil && !f.Model.Fits(l) {
			r.traits.Notes = append(r.traits.Notes, fmt.Sprintf("the recipe of a model of another shape than this scenario's: --model %s gives it the model's", f.Name))
		}
		return r, nil
	}
	return p, nil
}

// parseFile reads the YAML, strictly.
func parseFile(file string, text []byte) (*strategyFile, error) {
	var doc yaml.Node
	if err := yaml.Load(text, &doc); err != nil || len(doc.Content) == 0 {
		reason := "it is empty"
		if err != nil && !strings.Contains(err.Error(), "no documents") {
			reason = strings.TrimPrefix(strings.Join(strings.Fields(err.Error()), " "), "yaml: ")
		}
		return nil, fmt.Errorf("strategy file %s is not YAML with a name and parts: %s", file, reason)
	}
	f := &strategyFile{}
	wrong := func(n *yaml.Node, format string, args ...any) error {
		return fmt.Errorf("strategy file %s:%d: %s", file, n.Line, fmt.Sprintf(format, args...))
	}
	top := doc.Content[0]
	if top.Kind != yaml.MappingNode {
		return nil, wrong(top, "it must be keys such as name: my-rule and %s", fileExample)
	}
	words := map[string]*string{"name": &f.Name, "summary": &f.Summary, "formula": &f.Formula, "strength": &f.Strength,
		"needs": &f.Needs, "changes": &f.Changes, "fails": &f.Fails, "paper": &f.Paper, "read": &f.Read}
	known := []string{"name", "summary", "formula", "parts", "gate", "model", "strength", "needs", "changes", "fails", "paper", "read"}
	seen := map[string]bool{}
	for i := 0; i+1 < len(top.Content); i += 2 {
		key, value := top.Content[i], top.Content[i+1]
		if seen[key.Value] {
			return nil, wrong(key, "%s is given twice", key.Value)
		}
		seen[key.Value] = true
		switch word := words[key.Value]; {
		case word != nil && value.Kind == yaml.ScalarNode:
			*word = value.Value
		case word != nil:
			return nil, wrong(value, "%s must be a single value", key.Value)
		case key.Value == "gate":
			gate, err := parseGate(value, wrong)
			if err != nil {
				return nil, err
			}
			f.Gate = gate
		case key.Value == "model":
			f.Model = &Model{Groups: 1, GroupsKept: 1, Score: moe.Sigmoid.String(), Gate: "normalised", GateScale: 1}
			if err := parseModel(f.Model, value, wrong); err != nil {
				return nil, err
			}
		case key.Value == "parts":
			if value.Kind != yaml.SequenceNode || len(value.Content) == 0 {
				return nil, wrong(value, "parts must be a list, such as %s", fileExample)
			}
			for _, n := range value.Content {
				part, err := parsePart(n, wrong)
				if err != nil {
					return nil, err
				}
				for _, other := range f.Parts {
					if other.preset == part.preset {
						return nil, wrong(n, "part %s is given twice: a strategy has each once", part.preset.Name)
					}
				}
				f.Parts = append(f.Parts, part)
			}
		default:
			return nil, wrong(key, "unknown key %s%s: the known ones are %s", key.Value, nearest.Hint(key.Value, known), strings.Join(known, ", "))
		}
	}
	_, err := among(presets, f.Name)
	if slices.Contains(recipeNames, f.Name) && file != recipeFile(f.Name) {
		err = nil
	}
	switch {
	case f.Parts == nil:
		return nil, wrong(top, "it has no parts: write %s", fileExample)
	case !fileName.MatchString(f.Name):
		return nil, wrong(top, "name is %q: it must be lower-case letters, digits and dashes, such as my-rule", f.Name)
	case err == nil:
		return nil, wrong(top, "name is %s, which is a strategy of its own: choose another", f.Name)
	}
	if f.Strength != "" && !f.hasKnob(f.Strength) {
		return nil, wrong(top, "strength is %s, which is no knob of a part: write PART.KNOB, such as loss-free.rate", f.Strength)
	}
	return f, nil
}

func (f *strategyFile) hasKnob(name string) bool {
	for _, part := range f.Parts {
		if knob, ok := strings.CutPrefix(name, part.preset.Name+"."); ok {
			if _, ok := part.values[knob]; ok {
				return true
			}
		}
	}
	return false
}

type complaint func(n *yaml.Node, format string, args ...any) error

// parsePart reads NAME or NAME: {knob: value}.
func parsePart(n *yaml.Node, wrong complaint) (part filePart, err error) {
	name, knobs := n, (*yaml.Node)(nil)
	if n.Kind == yaml.MappingNode && len(n.Content) == 2 {
		name, knobs = n.Content[0], n.Content[1]
	}
	if name.Kind != yaml.ScalarNode {
		return part, wrong(n, "a part is a strategy's name, perhaps with knobs, such as loss-free: {rate: 1e-3}")
	}
	p, err := among(presets, name.Value)
	if err != nil {
		return part, wrong(name, "%s", err)
	}
	s, err := p.spec()
	if err != nil {
		return part, wrong(name, "%s", err)
	}
	if knobs != nil && knobs.Tag != "!!null" {
		if knobs.Kind != yaml.MappingNode {
			return part, wrong(knobs, "the knobs of %s must be keys, such as {rate: 1e-3}", name.Value)
		}
		for i := 0; i+1 < len(knobs.Content); i += 2 {
			if knobs.Content[i+1].Kind != yaml.ScalarNode {
				return part, wrong(knobs.Content[i+1], "%s must be a single value", knobs.Content[i].Value)
			}
			if err := s.set(knobs.Content[i].Value, knobs.Content[i+1].Value); err != nil {
				return part, wrong(knobs.Content[i], "part %s: %s", name.Value, err)
			}
		}
	}
	return filePart{s.Preset, s.Values}, nil
}

// parseModel reads the shape of a model's layers.
func parseModel(m *Model, n *yaml.Node, wrong complaint) error {
	if n.Kind != yaml.MappingNode {
		return wrong(n, "model must be keys, such as {experts: 64, topk: 8, score: softmax}")
	}
	fields := map[string]any{"experts": &m.Experts, "topk": &m.TopK, "groups": &m.Groups, "groups_kept": &m.GroupsKept,
		"score": &m.Score, "gate": &m.Gate, "gate_scale": &m.GateScale}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		field, ok := fields[key.Value]
		if !ok {
			return wrong(key, "model has no %s: it has experts, topk, groups, groups_kept, score, gate and gate_scale", key.Value)
		}
		if err := value.Decode(field); err != nil {
			return wrong(value, "model.%s is %s: %s", key.Value, value.Value, strings.Join(strings.Fields(err.Error()), " "))
		}
	}
	score, err := moe.ParseScore(m.Score)
	if err == nil {
		err = moe.Layer{Experts: m.Experts, TopK: m.TopK, Groups: m.Groups, GroupsKept: m.GroupsKept, Score: score}.Validate()
	}
	if err == nil && m.Gate != "normalised" && m.Gate != "raw" {
		err = fmt.Errorf("gate is %q: it must be normalised or raw", m.Gate)
	}
	if err == nil && !(m.GateScale > 0 && m.GateScale <= 1e6) {
		err = fmt.Errorf("gate_scale is %g: it must be above 0 and at most 1e6", m.GateScale)
	}
	if err != nil {
		return wrong(n, "model: %s", err)
	}
	return nil
}

func parseGate(n *yaml.Node, wrong complaint) (*moe.Gate, error) {
	g := &moe.Gate{Normalised: true, Scale: 1}
	if n.Kind != yaml.MappingNode {
		return nil, wrong(n, "gate must be keys, such as {normalised: true, scale: 2.5}")
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		var err error
		switch key.Value {
		case "normalised":
			err = value.Decode(&g.Normalised)
		case "scale":
			if err = value.Decode(&g.Scale); err == nil && !(g.Scale > 0 && g.Scale <= 1e6) {
				err = errors.New("it must be above 0 and at most 1e6")
			}
		default:
			return nil, wrong(key, "gate has no %s: it has normalised and scale", key.Value)
		}
		if err != nil {
			return nil, wrong(value, "gate.%s is %s: %s", key.Value, value.Value, strings.Join(strings.Fields(err.Error()), " "))
		}
	}
	return g, nil
}
