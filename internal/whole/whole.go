// Package whole writes files that appear whole or not at all, reads files that are not larger than they may be, and says of an error
// of the file system, in one sentence, what it concerns. What the files hold is not known here.
package whole

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// prefix begins the names of files that are not whole yet.
const prefix = ".evenkeel-"

// Write writes a file. An error of write comes back as it is; any other says that the file was not written, and why. Whatever
// happens, what stood there before is still there, or the new file is, and nothing else is left.
func Write(name string, write func(io.Writer) error) error {
	f, err := Stage(name, write)
	if err != nil {
		return err
	}
	return f.Place()
}

// WriteBytes writes a file of the given content; see Write.
func WriteBytes(name string, content []byte) error {
	return Write(name, func(w io.Writer) error {
		_, err := w.Write(content)
		return err
	})
}

// Read reads a file of at most so many bytes, which somebody else may have made.
func Read(name string, most int) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, Located(err)
	}
	defer f.Close()
	content, err := io.ReadAll(io.LimitReader(f, int64(most)+1))
	if err != nil {
		return nil, Located(err)
	}
	if len(content) > most {
		return nil, fmt.Errorf("%s has more than %d bytes", name, most)
	}
	return content, nil
}

// File is on the disk under a temporary name, in the folder that it is for.
type File struct{ name, staged string }

// Stage does all of Write but give the file its name, for several files that shall appear together.
func Stage(name string, write func(io.Writer) error) (*File, error) {
	t, err := os.CreateTemp(filepath.Dir(name), prefix+"*")
	if err != nil {
		return nil, unwritten(name, err)
	}
	f := &File{name, t.Name()}
	b := bufio.NewWriterSize(t, 1<<20)
	failure := write(b)
	err = b.Flush() // what had failed before fails again: a full disk is no error of write
	if err == nil && failure == nil {
		if err = t.Chmod(0o644); err == nil {
			err = t.Sync()
		}
	}
	if closing := t.Close(); err == nil {
		err = closing
	}
	switch {
	case err != nil:
		f.Discard()
		return nil, unwritten(name, err)
	case failure != nil:
		f.Discard()
		return nil, failure
	}
	return f, nil
}

// Place gives the file its name, in place of what had it.
func (f *File) Place() error {
	if err := os.Rename(f.staged, f.name); err != nil {
		f.Discard()
		return unwritten(f.name, err)
	}
	return nil
}

// Discard removes the file, if it has not been placed.
func (f *File) Discard() { os.Remove(f.staged) }

// Check reports, before any work, whether files can be written into a folder.
func Check(dir string) error {
	t, err := os.CreateTemp(dir, prefix+"*")
	if err != nil {
		return Reason(err)
	}
	t.Close()
	return os.Remove(t.Name())
}

// Temporary reports whether a file's name is one of those that a process leaves if it dies while it writes.
func Temporary(name string) bool { return strings.HasPrefix(filepath.Base(name), prefix) }

func unwritten(name string, err error) error {
	return fmt.Errorf("%s was not written: %w", name, Reason(err))
}

// Reason is an error of the file system without the path that it concerns, for where that is said already or is a temporary one.
func Reason(err error) error {
	var path *fs.PathError
	if errors.As(err, &path) {
		return path.Err
	}
	var link *os.LinkError
	if errors.As(err, &link) {
		return link.Err
	}
	return err
}

// Located is an error of the file system as its path and the reason.
func Located(err error) error {
	var path *fs.PathError
	if errors.As(err, &path) {
		return fmt.Errorf("%s: %w", path.Path, path.Err)
	}
	return err
}
