package scenarios

import (
	"errors"
	"fmt"
	"math"
	"reflect"
	"slices"
	"sort"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"

	"evenkeel/internal/nearest"
)

// problems collects what is wrong with a file, so that its author sees every mistake at once.
type problems struct {
	file string
	list []problem
}

type problem struct {
	line int
	text string
}

func (p *problems) add(line int, path, format string, args ...any) {
	p.list = append(p.list, problem{line, path + ": " + fmt.Sprintf(format, args...)})
}

// err returns the problems in the order of their lines, or nil.
func (p *problems) err() error {
	sort.SliceStable(p.list, func(i, j int) bool { return p.list[i].line < p.list[j].line })
	var all []error
	for _, q := range p.list {
		where := p.file
		if q.line > 0 {
			where += ":" + strconv.Itoa(q.line)
		} else {
			where = "--set"
		}
		all = append(all, fmt.Errorf("%s: %s", where, q.text))
	}
	return errors.Join(all...)
}

// parse reads one YAML document (JSON is YAML too) and returns its top mapping.
func parse(file string, text []byte) (*yaml.Node, error) {
	var doc yaml.Node
	err := yaml.Load(text, &doc)
	switch {
	case len(doc.Content) == 0 && (err == nil || strings.Contains(err.Error(), "no documents")):
		return nil, fmt.Errorf("%s is empty: a scenario file holds at least one key, such as experts: 64", file)
	case err != nil:
		return nil, fmt.Errorf("%s is not YAML: %s", file, strings.TrimPrefix(oneLine(err), "yaml: "))
	}
	top := doc.Content[0]
	if top.Kind != yaml.MappingNode {
		return nil, fmt.Errorf("%s:%d: a scenario file is a list of keys, such as experts: 64", file, top.Line)
	}
	return top, nil
}

func oneLine(err error) string { return strings.Join(strings.Fields(err.Error()), " ") }

// set puts value at a dotted path below a mapping, making what is missing on the way. Numbers in the path index lists.
func set(top *yaml.Node, path, value string) error {
	var leaf yaml.Node
	if strings.TrimSpace(value) == "" {
		return fmt.Errorf("--set %s= has no value: write --set %s=VALUE", path, path)
	}
	if err := yaml.Load([]byte(value), &leaf); err != nil || len(leaf.Content) == 0 {
		return fmt.Errorf("--set %s=%s: the value is not valid YAML", path, value)
	}
	unplace(&leaf)
	node := top
	parts := strings.Split(path, ".")
	for i, part := range parts {
		child, err := step(node, part)
		if err != nil {
			return fmt.Errorf("--set %s: %s", path, err)
		}
		if i == len(parts)-1 {
			*child = *leaf.Content[0]
		} else if child.Kind == 0 {
			*child = yaml.Node{Kind: yaml.MappingNode, Tag: "!!map"}
		}
		node = child
	}
	return nil
}

// forgetLimit takes the groups_kept from a file to which settings give groups alone, if there were none before: 1 of 1 is no
// limit, and 1 of 8 would be one that nobody asked for.
func forgetLimit(top *yaml.Node, settings []string) {
	set := func(start string) bool {
		return slices.ContainsFunc(settings, func(s string) bool { return strings.HasPrefix(s, start) })
	}
	if !set("groups=") || set("groups_kept=") {
		return
	}
	kept, none := -1, true
	for i := 0; i < len(top.Content); i += 2 {
		switch top.Content[i].Value {
		case "groups":
			none = top.Content[i+1].Value == "1"
		case "groups_kept":
			kept = i
		}
	}
	if kept >= 0 && (none || slices.Contains(settings, "groups=1")) {
		top.Content = slices.Delete(top.Content, kept, kept+2)
	}
}

// unplace forgets the lines of a value that no file holds.
func unplace(n *yaml.Node) {
	n.Line = 0
	for _, c := range n.Content {
		unplace(c)
	}
}

func step(node *yaml.Node, part string) (*yaml.Node, error) {
	switch node.Kind {
	case yaml.MappingNode:
		for i := 0; i < len(node.Content); i += 2 {
			if node.Content[i].Value == part {
				return node.Content[i+1], nil
			}
		}
		child := &yaml.Node{}
		node.Content = append(node.Content, &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: part}, child)
		return child, nil
	case yaml.SequenceNode:
		i, err := strconv.Atoi(part)
		if err != nil || i < 0 || i >= len(node.Content) {
			return nil, fmt.Errorf("%q is no place in a list of %d, which are counted from 0", part, len(node.Content))
		}
		return node.Content[i], nil
	}
	return nil, fmt.Errorf("there is nothing below a plain value at %q", part)
}

// decode fills the struct v, which holds the defaults, from a mapping, and notes the line of every key in lines.
func decode(node *yaml.Node, v reflect.Value, path string, lines map[string]int, p *problems) {
	known := fields(v.Type())
	seen := map[string]bool{}
	for i := 0; i < len(node.Content); i += 2 {
		key, value := node.Content[i], node.Content[i+1]
		at := key.Value
		if path != "" {
			at = path + "." + key.Value
		}
		f, ok := known[key.Value]
		if !ok {
			p.add(key.Line, at, "unknown key%s", hint(key.Value, path, v.Type()))
			continue
		}
		if seen[key.Value] {
			p.add(key.Line, at, "given twice")
		}
		seen[key.Value] = true
		lines[at] = value.Line
		decodeValue(value, v.Field(f.Index[0]), f.Tag.Get("range"), at, lines, p)
	}
}

// hint proposes a key in place of an unknown one: one of the same name that lives elsewhere, or the nearest here.
func hint(key, path string, here reflect.Type) string {
	if path == "" {
		for _, known := range Keys() {
			if strings.HasSuffix(known, "."+key) {
				return " (did you mean " + known + "?)"
			}
		}
	}
	return nearest.Hint(key, names(here))
}

// Keys lists the paths of all keys that a scenario may have.
func Keys() []string { return keysOf(reflect.TypeFor[Scenario](), "") }

func keysOf(t reflect.Type, prefix string) (keys []string) {
	for i := range t.NumField() {
		f := t.Field(i)
		if !f.IsExported() {
			continue
		}
		key, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		inner := f.Type
		if inner.Kind() == reflect.Pointer {
			inner = inner.Elem()
		}
		if inner.Kind() == reflect.Struct {
			keys = append(keys, keysOf(inner, prefix+key+".")...)
			continue
		}
		keys = append(keys, prefix+key)
	}
	return keys
}

func decodeValue(node *yaml.Node, v reflect.Value, limits, path string, lines map[string]int, p *problems) {
	if node.Kind == yaml.AliasNode {
		p.add(node.Line, path, "aliases are not supported: write the value out")
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		if v.IsNil() {
			v.Set(reflect.New(v.Type().Elem()))
			if d, ok := v.Interface().(interface{ defaults() }); ok {
				d.defaults()
			}
		}
		decodeValue(node, v.Elem(), limits, path, lines, p)
	case reflect.Struct:
		if node.Kind != yaml.MappingNode {
			p.add(node.Line, path, "want keys such as %s", strings.Join(names(v.Type()), ", "))
			return
		}
		decode(node, v, path, lines, p)
	case reflect.Slice:
		if node.Kind != yaml.SequenceNode {
			p.add(node.Line, path, "want a list, such as [1, 2]")
			return
		}
		v.Set(reflect.MakeSlice(v.Type(), len(node.Content), len(node.Content)))
		for i, c := range node.Content {
			decodeValue(c, v.Index(i), limits, fmt.Sprintf("%s.%d", path, i), lines, p)
		}
	default:
		decodeScalar(node, v, limits, path, p)
	}
}

func decodeScalar(node *yaml.Node, v reflect.Value, limits, path string, p *problems) {
	if node.Kind != yaml.ScalarNode {
		p.add(node.Line, path, "want a single value")
		return
	}
	text := node.Value
	var number float64
	switch v.Kind() {
	case reflect.String:
		v.SetString(text)
		return
	case reflect.Int, reflect.Uint64:
		n, err := wholeNumber(text)
		if err != nil || v.Kind() == reflect.Uint64 && n < 0 {
			p.add(node.Line, path, "want a whole number, got %q", text)
			return
		}
		if number = float64(n); v.Kind() == reflect.Int {
			v.SetInt(n)
		} else {
			v.SetUint(uint64(n))
		}
	case reflect.Bool:
		x, err := strconv.ParseBool(text)
		if err != nil {
			p.add(node.Line, path, "want true or false, got %q", text)
			return
		}
		v.SetBool(x)
		return
	case reflect.Float64:
		x, err := strconv.ParseFloat(text, 64)
		if err != nil || math.IsNaN(x) || math.IsInf(x, 0) {
			p.add(node.Line, path, "want a number, got %q", text)
			return
		}
		number = x
		v.SetFloat(x)
	}
	if limits == "" {
		return
	}
	low, rest, _ := strings.Cut(limits, " ")
	high, unit, _ := strings.Cut(rest, " ")
	lo, _ := strconv.ParseFloat(low, 64)
	hi, _ := strconv.ParseFloat(high, 64)
	if number < lo || number > hi {
		p.add(node.Line, path, "%s is out of range: it must be %s to %s %s", text, low, high, unit)
	}
}

// wholeNumber accepts 4096, 4_096 and 1e6, but not 6.5.
func wholeNumber(text string) (int64, error) {
	if n, err := strconv.ParseInt(text, 0, 64); err == nil {
		return n, nil
	}
	x, err := strconv.ParseFloat(text, 64)
	if err != nil || x != math.Trunc(x) || math.Abs(x) > 1<<53 {
		return 0, fmt.Errorf("not a whole number")
	}
	return int64(x), nil
}

// fields returns the fields of a struct that a file may set, by key.
func fields(t reflect.Type) map[string]reflect.StructField {
	m := map[string]reflect.StructField{}
	for i := range t.NumField() {
		if f := t.Field(i); f.IsExported() {
			key, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			m[key] = f
		}
	}
	return m
}

// names returns the keys of a struct in the order of its fields.
func names(t reflect.Type) (keys []string) {
	for i := range t.NumField() {
		if f := t.Field(i); f.IsExported() {
			key, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			keys = append(keys, key)
		}
	}
	return keys
}
