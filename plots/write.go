package plots

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"evenkeel/internal/whole"
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
	staged := make([]*whole.File, 0, len(files))
	defer func() {
		for _, f := range staged[len(written):] {
			f.Discard()
		}
	}()
	for _, f := range files {
		s, err := whole.Stage(filepath.Join(dir, f.name), func(w io.Writer) error {
			_, err := w.Write(f.content)
			return err
		})
		if err != nil {
			return nil, err
		}
		staged = append(staged, s)
	}
	for i, f := range files {
		if err := staged[i].Place(); err != nil {
			return written, err
		}
		written = append(written, filepath.Join(dir, f.name))
	}
	for _, name := range obsolete {
		if err := os.Remove(filepath.Join(dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return written, err
		}
	}
	return written, nil
}
