package whole

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// holds fails a test unless a folder has these files and no other, of these contents.
func holds(t *testing.T, dir string, want map[string]string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != len(want) {
		t.Errorf("the folder holds %v, want %v, %v", entries, want, err)
	}
	for name, content := range want {
		if text, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(text) != content {
			t.Errorf("%s holds %q, want %q, %v", name, text, content, err)
		}
	}
}

func TestWrite(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "a")
	long := strings.Repeat("x", 3<<20)
	for _, content := range []string{"one", "", long} {
		if err := WriteBytes(name, []byte(content)); err != nil {
			t.Fatal(err)
		}
		holds(t, dir, map[string]string{"a": content})
	}
	info, err := os.Stat(name)
	if err != nil || info.Mode().Perm()&0o400 == 0 {
		t.Errorf("%v, %v: its owner cannot read it", info.Mode(), err)
	}
}

// An error of what writes comes back as it is, after however much was written, and what stood there stays.
func TestWriteThatFails(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "a")
	if err := WriteBytes(name, []byte("before")); err != nil {
		t.Fatal(err)
	}
	failure := errors.New("no more to say")
	for _, n := range []int{0, 10, 3 << 20} {
		err := Write(name, func(w io.Writer) error {
			if _, err := w.Write(make([]byte, n)); err != nil {
				t.Error(err)
			}
			return failure
		})
		if err != failure {
			t.Errorf("after %d bytes: %v", n, err)
		}
		holds(t, dir, map[string]string{"a": "before"})
	}
}

// What cannot be put there is said by the name that was asked for, and leaves nothing.
func TestUnwritable(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "taken"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{filepath.Join(dir, "taken"), filepath.Join(dir, "absent", "a")} {
		err := WriteBytes(name, []byte("text"))
		if err == nil || !strings.HasPrefix(err.Error(), name+" was not written: ") || strings.Contains(err.Error(), prefix) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := Check(filepath.Join(dir, "absent")); !errors.Is(err, fs.ErrNotExist) || strings.Contains(err.Error(), "absent") {
		t.Errorf("a folder that is not there can be written: %v", err)
	}
	if err := Check(dir); err != nil {
		t.Error(err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
}

// Files that are staged appear when they are placed, and not at all when they are discarded; Discard leaves what was placed.
func TestStage(t *testing.T) {
	dir := t.TempDir()
	var files []*File
	for _, name := range []string{"a", "b"} {
		f, err := Stage(filepath.Join(dir, name), func(w io.Writer) error { _, err := io.WriteString(w, name); return err })
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, f)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 2 || slices.ContainsFunc(entries, func(e fs.DirEntry) bool { return !Temporary(e.Name()) }) {
		t.Errorf("staged files: %v, %v", entries, err)
	}
	if err := files[0].Place(); err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		f.Discard()
	}
	holds(t, dir, map[string]string{"a": "a"})
}

func TestErrors(t *testing.T) {
	_, err := os.Open(filepath.Join("absent", "file"))
	wrapped := fmt.Errorf("it failed: %w", err)
	for _, err := range []error{Reason(wrapped), Located(wrapped)} {
		if !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%v is no longer of a file that does not exist", err)
		}
	}
	if got, want := Located(wrapped).Error(), filepath.Join("absent", "file")+": "+Reason(wrapped).Error(); got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if other := errors.New("of something else"); Reason(other) != other || Located(other) != other {
		t.Error("an error of something else is changed")
	}
}

func TestReadIsBounded(t *testing.T) {
	name := filepath.Join(t.TempDir(), "x")
	if err := WriteBytes(name, []byte("12345")); err != nil {
		t.Fatal(err)
	}
	if got, err := Read(name, 5); err != nil || string(got) != "12345" {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := Read(name, 4); err == nil || !strings.Contains(err.Error(), "more than 4 bytes") {
		t.Errorf("a larger file: %v", err)
	}
	if _, err := Read(name+"y", 5); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
}
