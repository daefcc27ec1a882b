package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// slurmStandsIn puts programs in place of Slurm's: sbatch keeps its words in the file sbatch, squeue prints the file queue.
func slurmStandsIn(t *testing.T) (dir string) {
	t.Helper()
	dir = t.TempDir()
	for name, text := range map[string]string{
		"scontrol": "echo 'MaxArraySize = 5'; echo 'MaxJobCount = 10000'",
		"sbatch":   `echo "$*" >>"${0%/*}/submitted"; wc -l <"${0%/*}/submitted"`,
		"squeue":   `cat "${0%/*}/queue" 2>/dev/null; true`,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"+text+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	return dir
}

// plannedSweep is the folder of a plan of eight units, of a cell each.
func plannedSweep(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "a sweep")
	code, _, stderr := evenkeel(t, "sweep", "--scenario", "uniform", "-s", "none", "--vary", "tokens=32,64", "--seeds", "4", "--steps", "2", "--set", "experts=8",
		"--set", "topk=2", "--set", "evaluation_tokens=64", "--out", dir, "--plan-only")
	if code != 0 {
		t.Fatal(stderr)
	}
	return dir
}

func TestClusterSlurm(t *testing.T) {
	slurm := slurmStandsIn(t)
	dir := plannedSweep(t)
	submit := func(wantCode int, want string, more ...string) {
		t.Helper()
		code, out, stderr := evenkeel(t, append([]string{"cluster", "slurm", dir, "--program", "/opt/evenkeel"}, more...)...)
		if code != wantCode || !strings.Contains(out+stderr, want) {
			t.Errorf("%q: exit %d: %s%s, want %d and %s", more, code, out, stderr, wantCode, want)
		}
	}
	last := func(want ...string) {
		t.Helper()
		text, _ := os.ReadFile(filepath.Join(slurm, "submitted"))
		lines := strings.Split(strings.TrimSpace(string(text)), "\n")
		array := lines[max(0, len(lines)-2)]
		for _, w := range want {
			if !strings.Contains(array+" ", w+" ") {
				t.Errorf("submitted %s, want %s", array, w)
			}
		}
	}
	submit(2, "use at most --shards 4", "--shards", "5")
	submit(0, "4 shards, of which 4 lack cells; this site takes 4", "--shards", "4", "--dry-run")
	if _, err := os.Stat(filepath.Join(dir, "slurm")); err == nil {
		t.Error("--dry-run wrote something")
	}
	submit(0, "Submitted 4 of 4 shards as job 1; job 2 collects after it", "--shards", "4", "--concurrent", "2", "--sbatch=--mem=1G", "-p", "short")
	last("--array=1-4%2", "--mem=1G", "--partition=short")

	if err := os.WriteFile(filepath.Join(slurm, "queue"), []byte("9\n2\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	submit(75, "still in the queue: wait for them (squeue --jobs=2)")
	os.Remove(filepath.Join(slurm, "queue"))
	for _, shard := range []string{"1/4", "3/4"} {
		if code, _, stderr := evenkeel(t, "run", "--plan", filepath.Join(dir, "plan.json"), "--shard", shard, "--out", dir); code != 0 {
			t.Fatal(stderr)
		}
	}
	submit(0, "Submitted 2 of 4 shards as job 3; job 4 collects after it")
	last("--array=2,4")
	submit(0, "Submitted 1 of 1 shard", "--minutes", "1000") // cut anew, by a sample
	last("--array=1")
	if code, _, stderr := evenkeel(t, "run", "--plan", filepath.Join(dir, "plan.json"), "--out", dir); code != 0 {
		t.Fatal(stderr)
	}
	submit(0, "Nothing to submit: all 8 cells")

	t.Setenv("PATH", t.TempDir())
	submit(1, "there is no scontrol here")
}

func TestClusterWrites(t *testing.T) {
	dir := plannedSweep(t)
	code, out, stderr := evenkeel(t, "cluster", "kubernetes", dir, "--image", "evenkeel:1", "--claim", "sweeps", "--shards", "100")
	if code != 0 || !strings.Contains(out, "Written: 8 shards, since the plan has no more to share out.") {
		t.Errorf("exit %d: %s%s", code, out, stderr)
	}
	code, out, stderr = evenkeel(t, "cluster", "parallel", dir, "--shards", "3", "--program", "/opt/evenkeel")
	if code != 0 || !strings.Contains(out, "--resume-failed --retries 3") {
		t.Errorf("exit %d: %s%s", code, out, stderr)
	}
	for pattern, want := range map[string]string{
		"kubernetes/shards.yaml":  "completions: 8\n",
		"kubernetes/collect.yaml": "name: \"evenkeel-a-sweep-collect\"\n",
		"parallel/*-3.jobs":       fmt.Sprintf("/opt/evenkeel run --plan '%s/plan.json' --shard 3/3 --out '%s' --workers 1\n", dir, dir),
	} {
		files, _ := filepath.Glob(filepath.Join(dir, pattern))
		if len(files) != 1 {
			t.Fatalf("%s: %v", pattern, files)
		}
		if text, err := os.ReadFile(files[0]); err != nil || !strings.Contains(string(text), want) {
			t.Errorf("%s has no %s:\n%s", pattern, want, text)
		}
	}
	// What is beside the results is no obstacle to them.
	if code, _, stderr := evenkeel(t, "run", "--plan", filepath.Join(dir, "plan.json"), "--out", dir); code != 0 {
		t.Error(stderr)
	}
}

func TestClusterRefuses(t *testing.T) {
	slurmStandsIn(t)
	dir := plannedSweep(t)
	empty := t.TempDir()
	for want, args := range map[string][]string{
		"cluster needs a scheduler":              {},
		"there is no cluster nomad":              {"nomad", dir},
		"needs the folder of one sweep":          {"slurm"},
		"plan.json: no such file":                {"slurm", empty},
		"--out " + empty + " --plan-only":        {"parallel", empty},
		"--shards is -1":                         {"parallel", dir, "--shards", "-1"},
		"--minutes is 0":                         {"parallel", dir, "--minutes", "0"},
		"--minutes is NaN":                       {"parallel", dir, "--minutes", "NaN"},
		"--cpus is 0":                            {"parallel", dir, "--cpus", "0"},
		"--image is missing":                     {"kubernetes", dir, "--claim", "c"},
		"--claim is missing":                     {"kubernetes", dir, "--image", "i"},
		"--memory \"2 Gi\"":                      {"kubernetes", dir, "--image", "i", "--claim", "c", "--memory", "2 Gi"},
		"--concurrent is -1":                     {"slurm", dir, "--program", "/opt/evenkeel", "--concurrent", "-1"},
		"want one argument of sbatch":            {"slurm", dir, "--program", "/opt/evenkeel", "--sbatch", "8G"},
		"go run removes this program when it en": {"slurm", dir, "--program", ""},
	} {
		if want == "go run removes this program when it en" && !strings.Contains(os.Args[0], "go-build") {
			continue // a test program that was built for later
		}
		code, _, stderr := evenkeel(t, append([]string{"cluster"}, args...)...)
		if code != exitRequest || !strings.Contains(stderr, want) {
			t.Errorf("%q: exit %d: %s, want %s", args, code, stderr, want)
		}
	}
}

// A shard that is stopped, as schedulers do by a signal, asks for another try, which goes on from there.
func TestStoppedShardAsksForAnotherTry(t *testing.T) {
	dir := plannedSweep(t)
	ctx, stop := context.WithCancel(context.Background())
	stop()
	var out, stderr bytes.Buffer
	if code := run(ctx, []string{"run", "--plan", filepath.Join(dir, "plan.json"), "--out", dir}, &out, &stderr); code != exitAgain {
		t.Errorf("exit %d: %s", code, stderr.String())
	}
	if code, out, _ := evenkeel(t, "run", "--plan", filepath.Join(dir, "plan.json"), "--out", dir); code != 0 || !strings.Contains(out, "of which 8 ran now") {
		t.Errorf("exit %d: %s", code, out)
	}
}

// A trace that is not on this machine may be on another: nothing is stored, and another try is asked for.
func TestShardWithoutItsTraceAsksForAnotherTry(t *testing.T) {
	dir := t.TempDir()
	trace := filepath.Join(dir, "trace.npz")
	text, err := os.ReadFile(filepath.Join("..", "..", "scenarios", "shipped", "tinymoe.npz"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(trace, text, 0o644); err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(dir, "out")
	if code, _, stderr := evenkeel(t, "sweep", "--scenario", "trace:"+trace, "-s", "none", "--seeds", "1", "--steps", "2", "--set", "topk=2", "--out", out, "--plan-only"); code != 0 {
		t.Fatal(stderr)
	}
	shard := []string{"run", "--plan", filepath.Join(out, "plan.json"), "--out", out}
	if err := os.Remove(trace); err != nil {
		t.Fatal(err)
	}
	if code, _, stderr := evenkeel(t, shard...); code != exitAgain || !strings.Contains(stderr, trace) {
		t.Errorf("exit %d: %s", code, stderr)
	}
	if err := os.WriteFile(trace, text, 0o644); err != nil {
		t.Fatal(err)
	}
	if code, printed, stderr := evenkeel(t, shard...); code != 0 || !strings.Contains(printed, "of which 1 ran now") {
		t.Errorf("exit %d: %s%s", code, printed, stderr)
	}
}
