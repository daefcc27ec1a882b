package strategies

import (
	"fmt"
	"strings"

	"evenkeel/internal/nearest"
	"evenkeel/moe"
)

// Model is the shape of a published model's layers, which goes with its recipe.
type Model struct {
	Experts, TopK, Groups, GroupsKept int
	Score                             string
	Gate                              string // normalised or raw
	GateScale                         float64
}

// Settings are the keys of a scenario that give it the model's shape.
func (m *Model) Settings() []string {
	list := []string{fmt.Sprintf("experts=%d", m.Experts), fmt.Sprintf("topk=%d", m.TopK), fmt.Sprintf("groups=%d", m.Groups)}
	if m.Groups > 1 { // 1 of 1 would be a limit of groups that are asked for beside the model
		list = append(list, fmt.Sprintf("groups_kept=%d", m.GroupsKept))
	}
	return append(list, "score="+m.Score, "gate="+m.Gate, fmt.Sprintf("gate_scale=%g", m.GateScale))
}

// Fits reports whether a layer has the model's shape.
func (m *Model) Fits(l moe.Layer) bool {
	return m.Experts == l.Experts && m.TopK == l.TopK && m.Groups == l.Groups && m.GroupsKept == l.GroupsKept
}

// Models lists the names of the strategies that are a model's whole recipe.
func Models() (names []string) {
	for _, p := range Presets() {
		if p.Model != nil {
			names = append(names, p.Name)
		}
	}
	return names
}

// FindModel returns the shape of a model.
func FindModel(name string) (*Model, error) {
	for _, p := range Presets() {
		if p.Name == name && p.Model != nil {
			return p.Model, nil
		}
	}
	return nil, fmt.Errorf("there is no model %q%s: the known ones are %s", name, nearest.Hint(name, Models()), strings.Join(Models(), ", "))
}
