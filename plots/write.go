package plots

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"evenkeel/internal/whole"
)

// file is the content that a file shall have.
type file struct {
	name    string
	content []byte
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
