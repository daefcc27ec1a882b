package cluster_test

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"evenkeel/sweep/cluster"
)

var update = flag.Bool("update", false, "rewrite golden files")

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), string(got)); d != "" {
		t.Errorf("%s differs (-want +got); if that is meant, run with -update:\n%s", file, d)
	}
}

var plain = cluster.Sweep{Program: "/opt/evenkeel", Dir: "/data/rates", Shards: 40, Workers: 2}

// hostile are names of folders that a shell, Slurm or YAML might read as something else.
var hostile = []string{"a b", "it's", `"`, "$HOME", "`id`", "$(id)", "a\nb", "-x", "%A_%a", "#", "~", "*", "a;b", "a&b", "{}", "é", "\x01", "'; id; '", "a: b", "\\", "{{.}}"}

func TestShardsLastAboutAsLongAsAsked(t *testing.T) {
	for _, c := range []struct {
		work                 time.Duration
		workers, units, most int
		want                 int
	}{
		{time.Hour, 1, 1000, 0, 12},
		{time.Hour, 4, 1000, 0, 3},
		{61 * time.Minute, 1, 1000, 0, 13},
		{time.Hour, 1, 7, 0, 7},
		{time.Hour, 1, 1000, 5, 5},
		{0, 1, 1000, 1000, 1},
		{1<<63 - 1, 1, 1 << 28, 1000, 1000},
	} {
		if got := cluster.Shards(c.work, 5*time.Minute, c.workers, c.units, c.most); got != c.want {
			t.Errorf("%+v: %d", c, got)
		}
	}
}

func TestAShellReadsWhatWasQuoted(t *testing.T) {
	words := append([]string{"", "a", "a=b/c"}, hostile...)
	out, err := exec.Command("sh", "-c", `printf '%s\0' `+cluster.Quote(words...)).Output()
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(strings.Join(words, "\x00")+"\x00", string(out)); d != "" {
		t.Error(d)
	}
}

func FuzzQuote(f *testing.F) {
	for _, w := range hostile {
		f.Add(w)
	}
	f.Fuzz(func(t *testing.T, word string) {
		if strings.Contains(word, "\x00") {
			t.Skip("no word of a shell")
		}
		out, err := exec.Command("sh", "-c", `printf '%s.' `+cluster.Quote(word)).Output()
		if err != nil || string(out) != word+"." {
			t.Errorf("%q was read as %q, %v", word, out, err)
		}
	})
}

func TestSlurmScripts(t *testing.T) {
	s := &cluster.Slurm{Sweep: plain, Partition: "short", Time: "30", Concurrent: 10, Arguments: []string{"--mem=8G", "--comment=a b"}}
	shard, collect := s.Scripts()
	golden(t, "shards.sh", shard)
	golden(t, "collect.sh", collect)
	first, second := s.Commands([]int{1, 2, 3, 7, 9, 10}, "12")
	golden(t, "sbatch.txt", fmt.Appendf(nil, "%s\n%s\n", cluster.Quote(first...), cluster.Quote(second...)))
}

// script is a program that a test puts in place of another.
func script(t *testing.T, name, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte("#!/bin/sh\n"+text), 0o755); err != nil {
		t.Fatal(err)
	}
}

// Whatever folder and program are called, the scripts call the program with the folder.
func TestScriptsOfHostileNames(t *testing.T) {
	for _, name := range hostile {
		base := filepath.Join(t.TempDir(), name)
		s := &cluster.Slurm{Sweep: cluster.Sweep{Program: filepath.Join(base, "p", name), Dir: filepath.Join(base, name), Shards: 3, Workers: 1}}
		script(t, s.Program, `printf '%s\0' "$@"`)
		shard, collect := s.Scripts()
		for _, c := range []struct {
			script []byte
			want   []string
		}{
			{shard, []string{"run", "--plan", filepath.Join(s.Dir, "plan.json"), "--shard", "2/3", "--out", s.Dir, "--workers", "4"}},
			{collect, []string{"collect", s.Dir}},
		} {
			run := exec.Command("sh", "-c", string(c.script))
			run.Env = append(os.Environ(), "SLURM_ARRAY_TASK_ID=2", "SLURM_CPUS_PER_TASK=4")
			out, err := run.Output()
			if want := strings.Join(c.want, "\x00") + "\x00"; err != nil || string(out) != want {
				t.Errorf("%q: ran %q, want %q, %v", name, out, want, err)
			}
		}
	}
}

// Exit code 75 asks for another try five times, and every exit code is the script's.
func TestShardsAskForAnotherTry(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	script(t, filepath.Join(dir, "scontrol"), `echo "$@"`)
	s := &cluster.Slurm{Sweep: cluster.Sweep{Program: filepath.Join(dir, "evenkeel"), Dir: dir, Shards: 3}}
	shard, _ := s.Scripts()
	for _, c := range []struct {
		code     int
		restarts string
		want     string
	}{
		{0, "", ""}, {2, "", ""}, {75, "", "requeue 12_3\n"}, {75, "4", "requeue 12_3\n"}, {75, "5", ""}, {1, "1", ""},
	} {
		script(t, s.Program, fmt.Sprint("exit ", c.code))
		run := exec.Command("sh", "-c", string(shard))
		run.Env = append(os.Environ(), "SLURM_ARRAY_JOB_ID=12", "SLURM_ARRAY_TASK_ID=3")
		if c.restarts != "" {
			run.Env = append(run.Env, "SLURM_RESTART_COUNT="+c.restarts)
		}
		out, err := run.Output()
		if run.ProcessState.ExitCode() != c.code || string(out) != c.want {
			t.Errorf("%+v: exit %d, %q, %v", c, run.ProcessState.ExitCode(), out, err)
		}
	}
}

func TestSlurmChecks(t *testing.T) {
	for want, s := range map[string]cluster.Slurm{
		"backslash":       {Sweep: cluster.Sweep{Dir: `/a\b`}},
		"at least 1":      {Sweep: plain, Concurrent: -1},
		"one argument of": {Sweep: plain, Arguments: []string{"8G"}},
	} {
		if err := s.Check(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v", s, err)
		}
	}
}

func TestLimits(t *testing.T) {
	config, err := os.ReadFile(filepath.Join("testdata", "scontrol-config.txt"))
	if err != nil {
		t.Fatal(err)
	}
	l, err := cluster.ParseLimits(config)
	if err != nil || l != (cluster.Limits{ArraySize: 1001, Jobs: 10000}) || l.Tasks() != 1000 {
		t.Error(l, err)
	}
	for text, want := range map[string]string{
		"":                                      "does not say",
		"MaxArraySize = 1001\n":                 "does not say",
		"MaxArraySize=x\nMaxJobCount=1":         "no number",
		"MaxArraySize = -1\nMaxJobCount = 1":    "no number",
		"MaxArraySize = 0\nMaxJobCount = 10000": "permits no job arrays",
		"MaxArraySize = 1\nMaxJobCount = 10000": "permits no job arrays",
		"MaxArraySize = 9\nMaxJobCount = 99999999999999999999": "no number",
	} {
		if _, err := cluster.ParseLimits([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
	if l, err := cluster.ParseLimits([]byte("MaxJobCount = 500\r\nMaxArraySize=4000001")); err != nil || l.Tasks() != 250 {
		t.Error(l, err)
	}
}

func FuzzParseLimits(f *testing.F) {
	config, _ := os.ReadFile(filepath.Join("testdata", "scontrol-config.txt"))
	f.Add(config)
	f.Add([]byte("MaxArraySize = 2\nMaxJobCount = 2\nMaxJobCount = 0"))
	f.Fuzz(func(t *testing.T, config []byte) {
		l, err := cluster.ParseLimits(config)
		if err == nil && (l.Tasks() < 1 || l.Tasks() >= l.ArraySize || l.Tasks() > l.Jobs) {
			t.Errorf("%+v permits %d tasks", l, l.Tasks())
		}
	})
}

// fakeSlurm puts programs in place of Slurm's. Submissions are in the file log, and get numbers from 7.
func fakeSlurm(t *testing.T, sbatch string) (log string) {
	t.Helper()
	dir := t.TempDir()
	log = filepath.Join(dir, "log")
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	if sbatch == "" {
		sbatch = fmt.Sprintf("for a; do printf '%%s\\n' \"$a\"; done >>%[1]s; echo --- >>%[1]s; echo welcome; echo \"$((6 + $(grep -c -e --- %[1]s)));main\"\n", log)
	}
	script(t, filepath.Join(dir, "sbatch"), sbatch)
	return log
}

func TestSubmit(t *testing.T) {
	log := fakeSlurm(t, "")
	s := &cluster.Slurm{Sweep: plain}
	s.Dir = t.TempDir()
	now, err := s.Submit(context.Background(), "abc", []int{2, 5})
	if err != nil || now.Array != "7" || now.Collect != "8" {
		t.Fatal(now, err)
	}
	text, _ := os.ReadFile(log)
	for _, want := range []string{"--array=2,5\n", "--dependency=afterany:7\n", "--requeue\n", "--open-mode=append\n"} {
		if !strings.Contains(string(text), want) {
			t.Errorf("sbatch got no %s", want)
		}
	}
	if again, err := cluster.ReadSubmitted(s.Dir); err != nil || *again != *now {
		t.Errorf("%+v was noted as %+v, %v", now, again, err)
	}
}

func TestSubmitFails(t *testing.T) {
	for text, want := range map[string]string{
		"echo >&2 'Batch job submission failed: Job violates accounting/QOS policy'; exit 1": "violates accounting",
		"echo none":  "no number of a job",
		"echo 12abc": "no number of a job",
		"exit 3":     "exit status 3",
	} {
		fakeSlurm(t, text+"\n")
		s := &cluster.Slurm{Sweep: plain}
		s.Dir = t.TempDir()
		if now, err := s.Submit(context.Background(), "abc", []int{1}); now != nil || err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, %v", text, now, err)
		}
		if last, err := cluster.ReadSubmitted(s.Dir); last != nil || err != nil {
			t.Errorf("%s: %v was noted, %v", text, last, err)
		}
	}
	// The array is there and nothing collects after it: that must not be forgotten.
	fakeSlurm(t, "case \"$*\" in *afterany*) exit 1;; *) echo 12;; esac\n")
	s := &cluster.Slurm{Sweep: plain}
	s.Dir = t.TempDir()
	if now, err := s.Submit(context.Background(), "abc", []int{1}); err == nil || now == nil || now.Array != "12" {
		t.Error(now, err)
	}
	if last, err := cluster.ReadSubmitted(s.Dir); err != nil || last == nil || last.Array != "12" || last.Collect != "" {
		t.Error(last, err)
	}
}

func TestSubmittedIsDecodedStrictly(t *testing.T) {
	for _, text := range []string{"", "{}", `{"format":2,"shards":1}`, `{"format":1,"shards":0}`, `{"format":1,"shards":1,"x":1}`, "null"} {
		dir := t.TempDir()
		if err := os.MkdirAll(filepath.Join(dir, "slurm"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "slurm", "jobs.json"), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if last, err := cluster.ReadSubmitted(dir); err == nil {
			t.Errorf("%q was read as %+v", text, last)
		}
	}
}

func TestWithoutSlurm(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	if _, err := cluster.ReadLimits(context.Background()); err == nil || !strings.Contains(err.Error(), "there is no scontrol here") {
		t.Error(err)
	}
}

func TestManifests(t *testing.T) {
	k := cluster.Kubernetes{Sweep: plain, Image: "registry.example:5000/evenkeel@sha256:0123", Claim: "sweeps", Memory: "2Gi", Concurrent: 16,
		Plan: []byte(`{"format":1,"settings":["a: 'b' #"],"design":"\"é\u0085` + "\u0085" + `"}` + "\n")}
	shards, collect, err := k.Manifests()
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "shards.yaml", shards)
	golden(t, "collect.yaml", collect)
	k.Plan, k.Name, k.Concurrent, k.Shards = make([]byte, 1_000_001), "0", 0, 1
	if shards, _, err = k.Manifests(); err != nil {
		t.Fatal(err)
	}
	golden(t, "large-shards.yaml", shards)
}

// Names of folders become names that Kubernetes takes.
func TestManifestsOfHostileNames(t *testing.T) {
	for _, name := range append(hostile, strings.Repeat("long-", 40), "UPPER", "...", "-") {
		k := cluster.Kubernetes{Sweep: plain, Image: "evenkeel", Claim: "c", Memory: "1Gi"}
		k.Dir = filepath.Join("/", name)
		if _, _, err := k.Manifests(); err != nil {
			t.Errorf("%q: %v", name, err)
		}
	}
	for _, bad := range hostile {
		for flag, k := range map[string]cluster.Kubernetes{
			"--image":  {Image: bad, Claim: "c", Memory: "1Gi"},
			"--claim":  {Image: "i", Claim: bad, Memory: "1Gi"},
			"--memory": {Image: "i", Claim: "c", Memory: bad},
			"--name":   {Image: "i", Claim: "c", Memory: "1Gi", Name: bad},
		} {
			k.Sweep = plain
			if _, _, err := k.Manifests(); err == nil || !strings.Contains(err.Error(), flag) {
				t.Errorf("%s %q: %v", flag, bad, err)
			}
		}
	}
	k := cluster.Kubernetes{Sweep: plain, Image: "i", Claim: "c", Memory: "1Gi"}
	if k.Shards = cluster.MaxIndexes + 1; k.Check() == nil {
		t.Error("more shards than Kubernetes takes")
	}
}

func TestJobFile(t *testing.T) {
	p := cluster.Parallel{Sweep: plain, Plan: "abc"}
	p.Shards = 3
	jobs, err := p.Jobs()
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "abc-3.jobs", jobs)
	p.Dir = "/a\nb"
	if _, err := p.Jobs(); err == nil {
		t.Error("a command of two lines was written")
	}
}

// GNU parallel runs every line as it is meant, and again only what failed.
func TestParallelRunsTheJobFile(t *testing.T) {
	if out, err := exec.Command("parallel", "--version").Output(); err != nil || !strings.HasPrefix(string(out), "GNU parallel") {
		t.Skip("SKIPPED: there is no GNU parallel: apt-get install parallel")
	}
	together := strings.Map(func(r rune) rune {
		if r == '\n' {
			return '_' // for which there is no job file
		}
		return r
	}, strings.Join(hostile, " "))
	for _, name := range []string{together, "-x", "{}"} {
		base := t.TempDir()
		t.Setenv("HOME", base) // parallel keeps something there
		p := cluster.Parallel{Sweep: cluster.Sweep{Program: filepath.Join(base, "p", name), Dir: filepath.Join(base, name), Shards: 3, Workers: 1}, Plan: "abc"}
		log := filepath.Join(base, "log")
		fail := filepath.Join(base, "fail")
		// Shard 2 fails as long as the file is there.
		script(t, p.Program, fmt.Sprintf("line=$(printf '%%s|' \"$@\"); echo \"$line\" >>%[1]s\ncase \"$*\" in *' 2/3 '*) if [ -e %[2]s ]; then exit 75; fi;; esac\n", log, fail))
		script(t, fail, "")
		if err := os.MkdirAll(p.Dir, 0o755); err != nil {
			t.Fatal(err)
		}
		file, err := p.Write()
		if err != nil {
			t.Fatal(err)
		}
		run, _ := p.Commands(file)
		line := func(shard int) string {
			return fmt.Sprintf("run|--plan|%s|--shard|%d/3|--out|%s|--workers|1|\n", filepath.Join(p.Dir, "plan.json"), shard, p.Dir)
		}
		for i, want := range [][3]int{{1, 3, 1}, {1, 4, 1}, {1, 4, 1}} {
			out, err := exec.Command("sh", "-c", run).CombinedOutput()
			if (err != nil) != (i == 0) {
				t.Errorf("%q, run %d: %v: %s", name, i, err, out)
			}
			text, _ := os.ReadFile(log)
			for shard, n := range want {
				if got := strings.Count(string(text), line(shard+1)); got != n {
					t.Errorf("%q, run %d: shard %d was run %d times, want %d:\n%s%s", name, i, shard+1, got, n, text, out)
				}
			}
			os.Remove(fail)
		}
	}
}
