//go:build unix

package main

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"evenkeel/sweep"
)

// What the test binary is told by its environment: to be the command, and the largest file that it may write.
const (
	asCommand = "EVENKEEL_TEST_AS_COMMAND"
	fileLimit = "EVENKEEL_TEST_FILE_LIMIT"
)

func TestMain(m *testing.M) {
	if os.Getenv(asCommand) == "" {
		os.Exit(m.Run())
	}
	if n, err := strconv.ParseUint(os.Getenv(fileLimit), 10, 64); err == nil {
		signal.Ignore(syscall.SIGXFSZ) // so that writing fails, as it does on a full disk
		if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: n, Max: n}); err != nil {
			panic(err)
		}
	}
	main()
}

// process is the command with some arguments, as a process of its own.
func process(args ...string) *exec.Cmd {
	c := exec.Command(os.Args[0], args...)
	c.Env = append(os.Environ(), asCommand+"=yes")
	return c
}

// exitOf waits for a process and returns its exit code, or -1 where a signal ended it.
func exitOf(t *testing.T, c *exec.Cmd) int {
	t.Helper()
	err := c.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return c.ProcessState.ExitCode()
}

// end runs a process and returns its exit code and what it said.
func end(t *testing.T, c *exec.Cmd) (int, string) {
	t.Helper()
	var said bytes.Buffer
	c.Stderr = &said
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	return exitOf(t, c), said.String()
}

// tinySweep is a sweep of 60 cells that take a moment each.
func tinySweep(dir string, more ...string) []string {
	return append([]string{"sweep", "-s", "none", "-s", "loss-free", "-s", "aux-loss", "--vary", "loss-free.rate=1e-4,1e-3,1e-2", "--vary", "tokens=32,64,96,128",
		"--set", "experts=8", "--set", "topk=2", "--set", "width=8", "--set", "sequence_length=16", "--set", "micro_batches=1", "--set", "evaluation_tokens=64",
		"--steps", "8", "--seeds", "3", "--record-steps", "3", "--record-loads", "--workers", "2", "--quiet", "--out", dir}, more...)
}

// slowSweep is one whose cells take a second or so: long enough to be met at work.
func slowSweep(dir string, more ...string) []string {
	return append([]string{"sweep", "-s", "none", "-s", "loss-free", "--vary", "tokens=512,640,768", "--set", "experts=32", "--set", "topk=4",
		"--set", "evaluation_tokens=512", "--steps", "60", "--seeds", "2", "--workers", "1", "--quiet", "--out", dir}, more...)
}

// outcome reads what a sweep is to leave, byte for byte.
func outcome(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	for _, name := range []string{sweep.PlanFile, sweep.ManifestFile, sweep.CellsTable, sweep.StepsTable, sweep.LoadsTable} {
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		files[name] = string(text)
	}
	if files[sweep.ManifestFile] == "" || files[sweep.CellsTable] == "" {
		t.Fatalf("%s has no tables", dir)
	}
	return files
}

func sameOutcome(t *testing.T, what string, got, want map[string]string) {
	t.Helper()
	for name := range want {
		if got[name] != want[name] {
			t.Fatalf("%s: %s is not that of the undisturbed sweep", what, name)
		}
	}
}

// storedCells counts the whole lines of result files by the names of their cells. The format is written out once more: a checksum
// of what follows in eight digits, the name, the record.
func storedCells(t *testing.T, dir string) map[string]int {
	t.Helper()
	files, _ := filepath.Glob(filepath.Join(dir, "results", "*.cells"))
	stored := map[string]int{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			sum, rest, ok := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
			if ok && sum == fmt.Sprintf("%08x", crc32.Checksum([]byte(rest), crc32.MakeTable(crc32.Castagnoli))) {
				name, _, _ := strings.Cut(rest, " ")
				if _, err := hex.DecodeString(name); err != nil {
					t.Fatalf("%s has a cell of the name %q", file, name)
				}
				stored[name]++
			}
		}
	}
	return stored
}

// checkStored makes sure that every cell is stored, once.
func checkStored(t *testing.T, dir string, cells int) {
	t.Helper()
	stored := storedCells(t, dir)
	if len(stored) != cells {
		t.Fatalf("%s holds %d cells, want %d", dir, len(stored), cells)
	}
	for name, n := range stored {
		if n != 1 {
			t.Fatalf("%s holds cell %s %d times", dir, name, n)
		}
	}
}

const tinyCells = 4 * 5 * 3

// undisturbed runs a sweep that nobody stops.
func undisturbed(t *testing.T, args func(string, ...string) []string) (files map[string]string, took time.Duration) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "undisturbed")
	begin := time.Now()
	if code, said := end(t, process(args(dir)...)); code != 0 {
		t.Fatalf("exit %d: %s", code, said)
	}
	return outcome(t, dir), time.Since(begin)
}

// A sweep that is killed at any moment, and begun again until it is through, leaves what an undisturbed one does.
func TestKilledSweepsGoOn(t *testing.T) {
	kills := 100
	if testing.Short() {
		kills = 10
		t.Logf("-short: %d kills instead of 100", kills)
	}
	want, took := undisturbed(t, tinySweep)
	r := rand.New(rand.NewPCG(9, 9))
	dir := filepath.Join(t.TempDir(), "killed")
	killed, finished := 0, 0
	for attempt := 0; killed < kills || attempt > 0; attempt++ {
		c := process(tinySweep(dir)...)
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		if killed < kills { // else it may end in peace
			moment := time.AfterFunc(time.Duration(r.Float64()*1.1*float64(took)), func() { c.Process.Kill() })
			defer moment.Stop()
		}
		switch code := exitOf(t, c); code {
		case -1:
			killed++
			continue
		case 0:
		default:
			t.Fatalf("attempt %d ended with exit code %d", attempt, code)
		}
		sameOutcome(t, fmt.Sprintf("after %d kills", attempt), outcome(t, dir), want)
		checkStored(t, dir, tinyCells)
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if strings.HasPrefix(e.Name(), ".evenkeel-") {
				t.Fatalf("a killed process left %s", e.Name())
			}
		}
		finished++
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
		attempt = -1
	}
	t.Logf("%d kills, %d sweeps came through", killed, finished)
}

// begun waits until a process has stored something.
func begun(t *testing.T, dir string) {
	t.Helper()
	for range 6000 {
		files, _ := filepath.Glob(filepath.Join(dir, "results", "*.cells"))
		for _, file := range files {
			if info, err := os.Stat(file); err == nil && info.Size() > 0 {
				return
			}
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Fatal("nothing was stored within 30 s")
}

// What is told to stop stops with the exit code that says so, keeps what it finished, and goes on.
func TestStoppedSweepsGoOn(t *testing.T) {
	want, _ := undisturbed(t, slowSweep)
	for _, x := range []struct {
		signal syscall.Signal
		shard  bool
		code   int
	}{{syscall.SIGINT, false, exitInterrupted}, {syscall.SIGTERM, false, exitTerminated}, {syscall.SIGINT, true, exitAgain}, {syscall.SIGTERM, true, exitAgain}} {
		dir := filepath.Join(t.TempDir(), "stopped")
		args := slowSweep(dir)
		if x.shard {
			if code, said := end(t, process(slowSweep(dir, "--plan-only")...)); code != 0 {
				t.Fatal(said)
			}
			args = []string{"run", "--plan", filepath.Join(dir, "plan.json"), "--out", dir, "--workers", "1"}
		}
		c := process(args...)
		var said bytes.Buffer
		c.Stderr = &said
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		begun(t, dir)
		if err := c.Process.Signal(x.signal); err != nil {
			t.Fatal(err)
		}
		if code := exitOf(t, c); code != x.code || !strings.Contains(said.String(), "the same command goes on from there") {
			t.Fatalf("%s ended by %s has exit code %d, want %d, and says %q", args[0], x.signal, code, x.code, said.String())
		}
		before := len(storedCells(t, dir))
		if before == 0 || before == 12 {
			t.Fatalf("%d cells were stored when it was stopped", before)
		}
		if code, said := end(t, process(args...)); code != 0 {
			t.Fatalf("going on: exit %d: %s", code, said)
		}
		if x.shard {
			if code, said := end(t, process("collect", dir)); code != 0 {
				t.Fatalf("collect: exit %d: %s", code, said)
			}
		}
		sameOutcome(t, fmt.Sprint("stopped by ", x.signal), outcome(t, dir), want)
		checkStored(t, dir, 12)
	}
}

// Of two sweeps in one folder the second is refused, by name, and the first unharmed; the same for two runs of one shard.
// Different shards write side by side.
func TestTwoInOneFolder(t *testing.T) {
	want, _ := undisturbed(t, slowSweep)
	dir := filepath.Join(t.TempDir(), "shared")
	first := process(slowSweep(dir)...)
	if err := first.Start(); err != nil {
		t.Fatal(err)
	}
	begun(t, dir)
	first.Process.Signal(syscall.SIGSTOP) // so that it is at work however slow the machine is
	for _, x := range []struct {
		args []string
		code int
	}{
		{slowSweep(dir), exitRequest},
		{slowSweep(dir, "--extend"), exitRequest},
		{[]string{"collect", dir}, exitAgain},
		{[]string{"run", "--plan", filepath.Join(dir, "plan.json"), "--out", dir}, exitAgain},
	} {
		if code, said := end(t, process(x.args...)); code != x.code || !strings.Contains(said, dir+" is in use by another sweep") {
			t.Errorf("%s beside a sweep: exit %d, want %d: %s", x.args[0], code, x.code, said)
		}
	}
	first.Process.Signal(syscall.SIGCONT)
	if code := exitOf(t, first); code != 0 {
		t.Fatalf("the first ended with exit code %d", code)
	}
	sameOutcome(t, "beside others", outcome(t, dir), want)

	dir = filepath.Join(t.TempDir(), "shards")
	if code, said := end(t, process(slowSweep(dir, "--plan-only")...)); code != 0 {
		t.Fatal(said)
	}
	shard := func(s string) []string {
		return []string{"run", "--plan", filepath.Join(dir, "plan.json"), "--shard", s, "--out", dir, "--workers", "1"}
	}
	first = process(shard("1/2")...)
	if err := first.Start(); err != nil {
		t.Fatal(err)
	}
	begun(t, dir)
	first.Process.Signal(syscall.SIGSTOP)
	if code, said := end(t, process(shard("1/2")...)); code != exitAgain || !strings.Contains(said, "shard-1-of-2.cells is being written by another process") {
		t.Errorf("the same shard twice: exit %d: %s", code, said)
	}
	if code, said := end(t, process(shard("2/2")...)); code != 0 {
		t.Errorf("the other shard beside it: exit %d: %s", code, said)
	}
	if code, said := end(t, process("collect", dir)); code != exitAgain || !strings.Contains(said, "in use") {
		t.Errorf("collect while a shard runs: exit %d: %s", code, said)
	}
	first.Process.Signal(syscall.SIGCONT)
	if code := exitOf(t, first); code != 0 {
		t.Fatalf("the first shard ended with exit code %d", code)
	}
	if code, said := end(t, process("collect", dir)); code != 0 {
		t.Fatalf("collect: exit %d: %s", code, said)
	}
	sameOutcome(t, "two shards at once", outcome(t, dir), want)
	checkStored(t, dir, 12)
}

// Where the disk is full, what was finished is kept, and more room is all that the rest needs.
func TestFilesThatMayNotGrow(t *testing.T) {
	want, _ := undisturbed(t, tinySweep)
	dir := filepath.Join(t.TempDir(), "limited")
	before := 0
	for _, limit := range []int{12000, 24000, 48000} { // the plan fits, the results do not
		c := process(tinySweep(dir)...)
		c.Env = append(c.Env, fmt.Sprint(fileLimit, "=", limit))
		code, said := end(t, c)
		if code != exitFailed || !strings.Contains(said, "shard-1-of-1.cells: file too large: what was finished is kept") {
			t.Fatalf("with files of at most %d bytes: exit %d: %s", limit, code, said)
		}
		n := len(storedCells(t, dir))
		if n <= before || n == tinyCells {
			t.Fatalf("with files of at most %d bytes %d cells are stored, after %d", limit, n, before)
		}
		before = n
	}
	if code, said := end(t, process(tinySweep(dir)...)); code != 0 {
		t.Fatalf("with room: exit %d: %s", code, said)
	}
	sameOutcome(t, "after small files", outcome(t, dir), want)
	checkStored(t, dir, tinyCells)
}

// A folder below something that is none is refused before anything runs.
func TestFolderThatCannotBe(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	code, _, said := evenkeel(t, tinySweep(filepath.Join(file, "out"))...)
	if code != exitRequest || !strings.Contains(said, file) || !strings.Contains(said, "not a directory; name another") {
		t.Errorf("exit %d: %s", code, said)
	}
}

// Nothing depends on what the clock of the machine says, which may jump: all files come from the future, or from 1970.
func TestTimesOfFilesDoNotMatter(t *testing.T) {
	want, _ := undisturbed(t, tinySweep)
	for _, when := range []time.Time{time.Date(2106, 2, 7, 0, 0, 0, 0, time.UTC), time.Unix(1, 0)} {
		dir := filepath.Join(t.TempDir(), "times")
		if code, said := end(t, process(tinySweep(dir, "--plan-only")...)); code != 0 {
			t.Fatal(said)
		}
		plan := filepath.Join(dir, "plan.json")
		for _, shard := range []string{"1/2", "2/2", "1/2"} {
			if code, _, said := evenkeel(t, "run", "--plan", plan, "--shard", shard, "--out", dir, "--quiet"); code != 0 {
				t.Fatal(said)
			}
			err := filepath.WalkDir(dir, func(name string, _ os.DirEntry, err error) error {
				return errors.Join(err, os.Chtimes(name, when, when))
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		if code, _, said := evenkeel(t, tinySweep(dir)...); code != 0 {
			t.Fatal(said)
		}
		sameOutcome(t, fmt.Sprint("files of ", when.Year()), outcome(t, dir), want)
		checkStored(t, dir, tinyCells)
	}
}

// A context that ended before anything ran is an interruption, whatever the command.
func TestStoppedBeforeTheFirstStep(t *testing.T) {
	ctx, cancel := context.WithCancelCause(context.Background())
	cancel(errTerminated)
	var out, said bytes.Buffer
	if code := run(ctx, append(small, "-s", "none"), &out, &said); code != exitTerminated {
		t.Errorf("compare: exit %d, want %d: %s", code, exitTerminated, said.String())
	}
	dir := filepath.Join(t.TempDir(), "out")
	if code := run(ctx, tinySweep(dir), &out, &said); code != exitTerminated {
		t.Errorf("sweep: exit %d, want %d: %s", code, exitTerminated, said.String())
	}
}

// A search that is killed again and again asks for the same points as an undisturbed one, and leaves the same bytes.
func TestKilledSearchesGoOn(t *testing.T) {
	search := func(dir string, _ ...string) []string {
		return sweeping(dir, "--workers", "2", "--vary", "loss-free.rate=log:1e-4..1e-1", "--vary", "width=int:4..16", "--design", "nsga2:6x4", "--objective", "maxvio_global", "--objective", "affinity_kept")
	}
	read := func(dir string) map[string]string {
		files := outcome(t, dir)
		text, err := os.ReadFile(filepath.Join(dir, sweep.SearchFile))
		if err != nil {
			t.Fatal(err)
		}
		files[sweep.SearchFile] = string(text)
		return files
	}
	dir := filepath.Join(t.TempDir(), "undisturbed")
	begin := time.Now()
	if code, said := end(t, process(search(dir)...)); code != 0 {
		t.Fatalf("exit %d: %s", code, said)
	}
	took, want := time.Since(begin), read(dir)
	kills := 20
	if testing.Short() {
		kills = 4
		t.Logf("-short: %d kills instead of 20", kills)
	}
	r := rand.New(rand.NewPCG(4, 4))
	dir = filepath.Join(t.TempDir(), "killed")
	for killed, attempt := 0, 0; ; attempt++ {
		c := process(search(dir)...)
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		if killed < kills {
			moment := time.AfterFunc(time.Duration(r.Float64()*float64(took)), func() { c.Process.Kill() })
			defer moment.Stop()
		}
		switch code := exitOf(t, c); {
		case code == -1:
			killed++
			continue
		case code != 0:
			t.Fatalf("attempt %d ended with exit code %d", attempt, code)
		}
		sameOutcome(t, fmt.Sprintf("after %d kills", attempt), read(dir), want)
		for name, n := range storedCells(t, dir) {
			if n != 1 {
				t.Fatalf("cell %s is stored %d times", name, n)
			}
		}
		if killed == kills {
			return
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
	}
}

// Another program chooses by lines of JSON, and may ask again for what it had.
func TestAskedPointsAreAnswered(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "asked")
	ask := func(lines string) []string {
		c := process(sweeping(dir, "--vary", "loss-free.rate=log:1e-4..1e-1", "--vary", "width=int:4..16", "--design", "ask")...)
		c.Stdin = strings.NewReader(lines)
		var said bytes.Buffer
		c.Stderr = &said
		out, err := c.Output()
		if err != nil {
			t.Fatalf("%v: %s", err, said.String())
		}
		return strings.Split(strings.TrimSuffix(string(out), "\n"), "\n")
	}
	const first = `{"id":1,"set":{"loss-free.rate":1e-3,"width":8}}`
	const third = `{"id":"x","set":{"loss-free.rate":0.01,"width":4},"seeds":1,"steps":3}`
	answers := ask(first + "\n" + `{"id":2,"set":{"loss-free.rate":7,"width":8}}` + "\nnonsense\n" + third + "\n" + `{"id":3,"set":{"loss-free.rate":0.01,"width":4},"seeds":9}` + "\n")
	if len(answers) != 5 || !strings.HasPrefix(answers[0], `{"id":1,"values":{"affinity_kept":{"mean":`) || !strings.Contains(answers[1], "loss-free.rate is 7") ||
		!strings.Contains(answers[2], "is no JSON") || !strings.Contains(answers[3], `"half_width":null`) || !strings.Contains(answers[4], "seeds is 9") {
		t.Fatalf("answers are\n%s", strings.Join(answers, "\n"))
	}
	want := outcome(t, dir)
	again := ask(third + "\n" + first + "\n")
	if again[0] != answers[3] || again[1] != answers[0] {
		t.Errorf("asked again:\n%s", strings.Join(again, "\n"))
	}
	checkStored(t, dir, 4)
	if again := ask(first + "\n" + third + "\n"); again[0] != answers[0] {
		t.Errorf("asked once more:\n%s", strings.Join(again, "\n"))
	}
	sameOutcome(t, "asked again in the first order", outcome(t, dir), want)
}
