package plots

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// file is the content that a file shall have.
type file struct {
	name    string
	content []byte
}

// Named is a picture with the name of its files, without extension.
type Named struct {
	Name string
	Picture
}

// Write writes pictures into an existing folder, each as NAME.svg and NAME.png, and returns the names of the files. All are
// drawn before the first is written, and each appears whole or not at all. The files of pictures called obsolete, such as those
// of an earlier sweep, are removed.
func Write(dir string, pictures []Named, obsolete ...string) (files []string, err error) {
	var drawn []file
	seen := map[string]bool{}
	for _, p := range pictures {
		if p.Name != filepath.Base(p.Name) || strings.HasPrefix(p.Name, ".") || seen[p.Name] {
			return nil, fmt.Errorf("%q cannot name a picture: names are those of files in one folder, and each stands for one", p.Name)
		}
		seen[p.Name] = true
		svg, err := p.SVG()
		if err != nil {
			return nil, fmt.Errorf("figure %s: %w", p.Name, err)
		}
		png, err := p.PNG()
		if err != nil {
			return nil, fmt.Errorf("figure %s: %w", p.Name, err)
		}
		drawn = append(drawn, file{p.Name + ".svg", svg}, file{p.Name + ".png", png})
	}
	var gone []string
	for _, name := range obsolete {
		if !seen[name] {
			gone = append(gone, name+".svg", name+".png")
		}
	}
	return writeFiles(dir, drawn, gone)
}

// writeFiles puts files into a folder and returns the names of those that are there. All are staged under temporary names
// first, so that a full disk is met before any of them appears. Obsolete ones are removed last.
func writeFiles(dir string, files []file, obsolete []string) (written []string, err error) {
	staged := make([]string, 0, len(files))
	defer func() {
		for _, name := range staged[len(written):] {
			os.Remove(name)
		}
	}()
	for _, f := range files {
		name, err := stage(dir, f)
		if err != nil {
			return nil, fmt.Errorf("%s was not written: %w", filepath.Join(dir, f.name), bare(err))
		}
		staged = append(staged, name)
	}
	for i, f := range files {
		name := filepath.Join(dir, f.name)
		if err := os.Rename(staged[i], name); err != nil {
			return written, err
		}
		written = append(written, name)
	}
	for _, name := range obsolete {
		if err := os.Remove(filepath.Join(dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return written, err
		}
	}
	return written, nil
}

// bare is an error without the temporary name that it speaks of.
func bare(err error) error {
	var path *fs.PathError
	if errors.As(err, &path) {
		return path.Err
	}
	return err
}

// stage writes a file under a temporary name in the folder it is for, and returns that name.
func stage(dir string, f file) (name string, err error) {
	t, err := os.CreateTemp(dir, "."+f.name+".*")
	if err != nil {
		return "", err
	}
	defer func() {
		if err != nil {
			os.Remove(t.Name())
		}
	}()
	_, err = t.Write(f.content)
	if err == nil {
		err = t.Chmod(0o644)
	}
	if e := t.Close(); err == nil {
		err = e
	}
	return t.Name(), err
}
