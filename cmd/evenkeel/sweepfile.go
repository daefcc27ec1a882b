package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/pflag"
	"go.yaml.in/yaml/v4"

	"evenkeel/internal/nearest"
	"evenkeel/internal/whole"
)

// maxSweepFile bounds a file of flags, in bytes.
const maxSweepFile = 1 << 20

// readFlags sets the flags that a YAML file names, but for those that were given beside it: a flag may be repeated as a list, and
// one of key=value be a mapping.
func readFlags(name string, flags *pflag.FlagSet) error {
	text, err := whole.Read(name, maxSweepFile)
	if err != nil {
		return err
	}
	if err := setFlags(text, flags); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

func setFlags(text []byte, flags *pflag.FlagSet) error {
	var file yaml.Node
	d := yaml.NewDecoder(bytes.NewReader(text))
	if err := d.Decode(&file); errors.Is(err, io.EOF) {
		return errors.New("it is empty: write words of evenkeel sweep, such as vary: {tokens: [1024, 4096]}")
	} else if err != nil {
		return fmt.Errorf("it is no YAML: %w", err)
	}
	var more yaml.Node
	if err := d.Decode(&more); !errors.Is(err, io.EOF) {
		return errors.New("it has more than one document: write one")
	}
	if len(file.Content) != 1 || file.Content[0].Kind != yaml.MappingNode {
		return errors.New("it must be a mapping of the words of evenkeel sweep, such as vary: {tokens: [1024, 4096]}")
	}
	top := file.Content[0].Content
	seen := map[string]bool{}
	given := map[string]bool{}
	flags.Visit(func(f *pflag.Flag) { given[f.Name] = true })
	for i := 0; i < len(top); i += 2 {
		key := top[i].Value
		f := flags.Lookup(key)
		switch {
		case f == nil || key == "help":
			var known []string
			flags.VisitAll(func(f *pflag.Flag) { known = append(known, f.Name) })
			return fmt.Errorf("line %d: there is no word %q%s: the words are those of the flags, see evenkeel sweep --help", top[i].Line, key, nearest.Hint(key, known))
		case seen[key]:
			return fmt.Errorf("line %d: %s is given twice", top[i].Line, key)
		}
		seen[key] = true
		values, err := words(top[i+1], f.Value.Type() == "stringArray")
		if err != nil {
			return fmt.Errorf("line %d: %s: %w", top[i+1].Line, key, err)
		}
		if given[key] {
			continue
		}
		for _, v := range values {
			if err := flags.Set(key, v); err != nil {
				return fmt.Errorf("line %d: %s is %q: it must be a value of type %s", top[i+1].Line, key, v, f.Value.Type())
			}
		}
	}
	return nil
}

// words are the values of a flag: one, or where it may be repeated a list, or a mapping as key=value.
func words(n *yaml.Node, repeated bool) (list []string, err error) {
	switch {
	case n.Kind == yaml.ScalarNode:
		return []string{n.Value}, nil
	case !repeated:
		return nil, errors.New("it must be one value")
	case n.Kind == yaml.SequenceNode:
		for _, item := range n.Content {
			if item.Kind != yaml.ScalarNode {
				return nil, fmt.Errorf("line %d: it must be a list of single values", item.Line)
			}
			list = append(list, item.Value)
		}
		return list, nil
	case n.Kind == yaml.MappingNode:
		for i := 0; i < len(n.Content); i += 2 {
			value, err := joined(n.Content[i+1])
			if err != nil {
				return nil, err
			}
			list = append(list, n.Content[i].Value+"="+value)
		}
		return list, nil
	}
	return nil, errors.New("it must be a value, a list or a mapping, without aliases")
}

// joined is a value, or a list of values with commas between.
func joined(n *yaml.Node) (text string, err error) {
	if n.Kind == yaml.ScalarNode {
		return n.Value, nil
	}
	if n.Kind != yaml.SequenceNode {
		return "", fmt.Errorf("line %d: it must be a value or a list of values, without aliases", n.Line)
	}
	for i, item := range n.Content {
		if item.Kind != yaml.ScalarNode {
			return "", fmt.Errorf("line %d: it must be a list of single values", item.Line)
		}
		if i > 0 {
			text += ","
		}
		text += item.Value
	}
	return text, nil
}
