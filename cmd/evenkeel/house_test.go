package main

import (
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// mayImport is the plan of the house: the packages of this module that each may import. The way of a token leads from
// scenarios and strategies through sim and metrics to plots; who meets only in moe's interfaces may not know the other. A
// fit measures what scenarios yield, so scenarios/fit stands above scenarios and metrics, as sim does, and below plots.
var mayImport = map[string][]string{
	"moe":                {"internal/vec", "internal/rng"},
	"scenarios":          {"moe", "internal/vec", "internal/rng", "internal/npz", "internal/nearest", "internal/tracefile"},
	"scenarios/cut":      {"internal/npz"},
	"scenarios/fit":      {"scenarios", "metrics", "moe", "internal/vec", "internal/rng"},
	"strategies":         {"moe", "internal/vec", "internal/rng", "internal/nearest", "internal/order", "internal/transport"},
	"metrics":            {"moe", "internal/vec", "internal/rng"},
	"sim":                {"moe", "metrics", "internal/vec", "internal/rng", "internal/transport"},
	"sweep":              {"moe", "scenarios", "strategies", "sim", "sim/stat", "experiment", "sweep/design", "internal/nearest", "internal/whole"},
	"sweep/design":       {"internal/rng"},
	"sweep/cluster":      {"sweep", "internal/whole"},
	"sim/stat":           {"internal/rng"},
	"sweep/fleet":        {"sweep"},
	"experiment":         {"moe", "scenarios", "strategies", "sim"},
	"plots":              {"moe", "metrics", "sim", "scenarios/fit", "internal/whole"},
	"bench":              {"moe", "internal/vec", "internal/rng"},
	"cmd/evenkeel":       {"experiment", "sweep", "sweep/cluster", "sweep/design", "sim/stat", "bench", "internal/npz", "internal/tracefile", "moe", "scenarios", "scenarios/fit", "strategies", "metrics", "sim", "plots", "internal/vec", "internal/nearest", "internal/whole"},
	"cmd/evenkeel-fleet": {"sweep", "sweep/fleet"},
	"internal/vec":       {"internal/rng"},
	"internal/vec/gen":   {},
	"internal/rng":       {},
	"internal/npz":       {},
	"internal/nearest":   {},
	"internal/tracefile": {"internal/npz"},
	"internal/order":     {},
	"internal/whole":     {},
	"internal/transport": {"internal/order", "internal/vec"},
}

func TestImportsGoDownTheHouse(t *testing.T) {
	root := filepath.Join("..", "..")
	seen := map[string]bool{}
	err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
			return err
		}
		rel, err := filepath.Rel(root, name)
		if err != nil {
			return err
		}
		folder := path.Dir(filepath.ToSlash(rel))
		seen[folder] = true
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		for _, i := range file.Imports {
			target, err := strconv.Unquote(i.Path.Value)
			if err != nil {
				return err
			}
			target, ours := strings.CutPrefix(target, "evenkeel/")
			if ours && !slices.Contains(mayImport[folder], target) {
				t.Errorf("%s imports %s, which the plan of the house does not allow to %s", rel, target, folder)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for folder := range seen {
		if mayImport[folder] == nil {
			t.Errorf("package %s is not in the plan of the house", folder)
		}
	}
	for folder := range mayImport {
		if !seen[folder] {
			t.Errorf("the plan of the house has a package %s that does not exist", folder)
		}
	}
}
