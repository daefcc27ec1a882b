package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// mount gives a test a file system of its own.
func mount(t *testing.T, options string) (dir string, again func(flags uintptr, options string)) {
	t.Helper()
	dir = t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, options); err != nil {
		t.Skipf("SKIPPED: no file system can be mounted here (%v): run as root", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	return dir, func(flags uintptr, options string) {
		t.Helper()
		if err := syscall.Mount("tmpfs", dir, "tmpfs", syscall.MS_REMOUNT|flags, options); err != nil {
			t.Fatal(err)
		}
	}
}

// A disk that fills up while a sweep runs costs nothing that was finished: with more room it goes on.
func TestFullDisk(t *testing.T) {
	want, _ := undisturbed(t, tinySweep)
	disk, again := mount(t, "size=32k")
	dir := filepath.Join(disk, "out")
	before := -1
	for _, size := range []int{32, 48, 64} {
		again(0, fmt.Sprintf("size=%dk", size))
		code, said := end(t, process(tinySweep(dir)...))
		if code != exitFailed || !strings.Contains(said, "no space left on device") {
			t.Fatalf("with %d kB: exit %d: %s", size, code, said)
		}
		n := len(storedCells(t, dir))
		if n <= before || n == tinyCells {
			t.Fatalf("with %d kB %d cells are stored, after %d", size, n, before)
		}
		before = n
	}
	code, said := end(t, process("run", "--plan", filepath.Join(dir, "plan.json"), "--out", dir))
	if code != exitAgain || !strings.Contains(said, "no space left on device") {
		t.Errorf("run: exit %d, want %d: %s", code, exitAgain, said)
	}
	again(0, "size=88k") // for the results, not for the tables
	for range 2 {
		if code, said = end(t, process(tinySweep(dir)...)); code != exitFailed || !strings.Contains(said, "no space left on device") {
			t.Fatalf("without room for tables: exit %d: %s", code, said)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "manifest.json")); err == nil {
		t.Error("there is a manifest without its tables")
	}
	again(0, "size=10m")
	if code, said := end(t, process(tinySweep(dir)...)); code != 0 {
		t.Fatalf("with room: exit %d: %s", code, said)
	}
	sameOutcome(t, "after a full disk", outcome(t, dir), want)
	checkStored(t, dir, tinyCells)
}

// What cannot be written is named before anything runs; what is finished there can be read.
func TestReadOnlyFolder(t *testing.T) {
	disk, again := mount(t, "size=10m")
	dir := filepath.Join(disk, "out")
	if code, said := end(t, process(tinySweep(dir)...)); code != 0 {
		t.Fatal(said)
	}
	want := outcome(t, dir)
	again(syscall.MS_RDONLY, "")
	for _, x := range []struct {
		args []string
		code int
	}{
		{tinySweep(dir), exitRequest},
		{tinySweep(filepath.Join(disk, "another")), exitRequest},
		{[]string{"run", "--plan", filepath.Join(dir, "plan.json"), "--out", dir}, exitAgain},
		{[]string{"collect", dir}, exitAgain},
	} {
		code, said := end(t, process(x.args...))
		if code != x.code || !strings.Contains(said, "read-only file system; name another") || strings.Count(said, "\n") != 1 {
			t.Errorf("%s: exit %d, want %d: %s", x.args[0], code, x.code, said)
		}
	}
	if code, out, said := evenkeel(t, "table", dir); code != 0 || !strings.Contains(out, "loss-free") {
		t.Errorf("table: exit %d: %s", code, said)
	}
	sameOutcome(t, "read-only", outcome(t, dir), want)
}
