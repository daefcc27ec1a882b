package cluster

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"evenkeel/internal/whole"
	"evenkeel/sweep"
)

// Parallel is a job file for GNU parallel.
type Parallel struct {
	Sweep
	Plan string // its hash
}

// Jobs is the file: for each shard a line, which a shell runs.
func (p Parallel) Jobs() ([]byte, error) {
	if strings.ContainsAny(p.Dir+p.Program, "\n\r\x00") {
		return nil, errors.New("a job file has one command a line, and the path of the folder or of evenkeel has a line break: use other names")
	}
	var b bytes.Buffer
	for i := range p.Shards {
		b.WriteString(Quote(p.Program, "run", "--plan", filepath.Join(p.Dir, sweep.PlanFile), "--shard", fmt.Sprintf("%d/%d", i+1, p.Shards),
			"--out", p.Dir, "--workers", fmt.Sprint(p.Workers)))
		b.WriteByte('\n')
	}
	return b.Bytes(), nil
}

// Write writes the job file into the folder and returns its path. Its name has the hash of the plan and the number of shards, so
// that the log of one is never taken for that of another: GNU parallel knows jobs by their number alone.
func (p Parallel) Write() (string, error) {
	jobs, err := p.Jobs()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(p.Dir, "parallel")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", whole.Located(err)
	}
	name := filepath.Join(dir, fmt.Sprintf("%s-%d.jobs", p.Plan, p.Shards))
	return name, whole.WriteBytes(name, jobs)
}

// Commands are what to type when the job file is written: one that runs what is not done, and may be repeated, and one that
// collects.
func (p Parallel) Commands(file string) (run, collect string) {
	run = Quote("parallel", "--joblog", strings.TrimSuffix(file, ".jobs")+".log", "--resume-failed", "--retries", "3", "--arg-file", file)
	return run, Quote(p.Program, "collect", p.Dir)
}
