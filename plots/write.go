package plots

import (
	"os"
	"path/filepath"
)

// file is the content that a file shall have.
type file struct {
	name    string
	content []byte
}

// writeFiles puts files into a folder and returns the names of those that are there. All are staged under temporary names
// first, so that a full disk is met before any of them appears.
func writeFiles(dir string, files []file) (written []string, err error) {
	staged := make([]string, 0, len(files))
	defer func() {
		for _, name := range staged[len(written):] {
			os.Remove(name)
		}
	}()
	for _, f := range files {
		name, err := stage(dir, f)
		if err != nil {
			return nil, err
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
	return written, nil
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
