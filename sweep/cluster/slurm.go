package cluster

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"evenkeel/internal/whole"
	"evenkeel/sweep"
)

// Slurm submits the shards of a sweep as the tasks of an array, and a job that collects after them.
type Slurm struct {
	Sweep
	Partition  string   // empty: the site's default
	Time       string   // of a task; empty: the partition's default
	Concurrent int      // tasks at once; 0: as many as the site runs
	Arguments  []string // of sbatch, beside those that are set here
}

// Limits are a site's.
type Limits struct {
	ArraySize int // MaxArraySize: indices of an array stay below it
	Jobs      int // MaxJobCount: jobs that the controller keeps, of all users; a task of an array is one
}

// Tasks is how many an array may have, half the controller's jobs at most.
func (l Limits) Tasks() int { return max(0, min(l.ArraySize-1, l.Jobs/2)) }

// ParseLimits reads what scontrol show config prints.
func ParseLimits(config []byte) (l Limits, err error) {
	found := map[string]int{}
	lines := bufio.NewScanner(bytes.NewReader(config))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		key, value, _ := strings.Cut(lines.Text(), "=")
		key = strings.TrimSpace(key)
		if key != "MaxArraySize" && key != "MaxJobCount" {
			continue
		}
		n, err := strconv.ParseUint(strings.TrimSpace(value), 10, 31)
		if err != nil {
			return l, fmt.Errorf("scontrol show config says %s = %s, which is no number", key, strings.TrimSpace(value))
		}
		found[key] = int(n)
	}
	size, ok1 := found["MaxArraySize"]
	jobs, ok2 := found["MaxJobCount"]
	if !ok1 || !ok2 || lines.Err() != nil {
		return l, errors.New("scontrol show config does not say MaxArraySize and MaxJobCount: is this Slurm's scontrol?")
	}
	l = Limits{size, jobs}
	if l.Tasks() == 0 {
		return l, fmt.Errorf("this site permits no job arrays: MaxArraySize is %d and MaxJobCount %d", size, jobs)
	}
	return l, nil
}

// ReadLimits asks scontrol for the site's limits.
func ReadLimits(ctx context.Context) (l Limits, err error) {
	config, err := command(ctx, "scontrol", "show", "config")
	if err != nil {
		if _, missing := exec.LookPath("scontrol"); missing == nil {
			err = fmt.Errorf("Slurm does not say its limits, so run this on a login node of a cluster that works: %w", err)
		}
		return l, err
	}
	return ParseLimits(config)
}

// command runs one of Slurm's commands and returns what it printed.
func command(ctx context.Context, words ...string) ([]byte, error) {
	if _, err := exec.LookPath(words[0]); err != nil {
		return nil, fmt.Errorf("there is no %s here: run this where Slurm's commands are, on a login node of the cluster; "+
			"without Slurm there are evenkeel cluster parallel and evenkeel cluster kubernetes, and evenkeel sweep on one machine", words[0])
	}
	c := exec.CommandContext(ctx, words[0], words[1:]...)
	var complaint bytes.Buffer
	c.Stderr = &complaint
	out, err := c.Output()
	if err != nil {
		if text := strings.TrimSpace(complaint.String()); text != "" {
			return nil, fmt.Errorf("%s: %s", words[0], strings.ReplaceAll(strings.TrimPrefix(text, words[0]+": "), "\n", "; "))
		}
		return nil, fmt.Errorf("%s failed: %w", Quote(words...), err)
	}
	return out, nil
}

// Files in a sweep's folder.
const (
	slurmFolder   = "slurm"
	shardsScript  = "shards.sh"
	collectScript = "collect.sh"
	logsFolder    = "logs"
	jobsFile      = "jobs.json"
)

// restarts is how often a shard that asks for another try gets one; a node that fails counts also.
const restarts = 5

// Scripts are what Slurm runs for a shard, and at the end.
func (s *Slurm) Scripts() (shard, collect []byte) {
	shard = fmt.Appendf(nil, `#!/bin/sh
# evenkeel cluster slurm wrote this. A task of the array is a shard of the sweep; exit code 75 asks for another try.
program=%s
dir=%s
"$program" run --plan "$dir/%s" --shard "$SLURM_ARRAY_TASK_ID/%d" --out "$dir" --workers "${SLURM_CPUS_PER_TASK:-1}" &
child=$!
late=
trap 'late=yes; kill -TERM "$child"' USR1 # the limit of time is near
wait "$child"
code=$?
if [ "$late" ]; then
	wait "$child" # the signal ended the first wait
	code=$?
fi
if [ "$code" -eq 75 ] && [ "${SLURM_RESTART_COUNT:-0}" -lt %d ]; then
	scontrol requeue "${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID"
fi
exit "$code"
`, Quote(s.Program), Quote(s.Dir), sweep.PlanFile, s.Shards, restarts)
	collect = fmt.Appendf(nil, `#!/bin/sh
# evenkeel cluster slurm wrote this. It runs when no shard is left, whatever became of them.
exec %s
`, Quote(s.Program, "collect", s.Dir))
	return shard, collect
}

// sbatch is the command that submits a script.
func (s *Slurm) sbatch(script string, own ...string) []string {
	words := append([]string{"sbatch", "--parsable"}, s.Arguments...)
	words = append(words, "--job-name="+s.name(), "--chdir="+s.Dir, "--open-mode=append", "--requeue")
	if s.Partition != "" {
		words = append(words, "--partition="+s.Partition)
	}
	if s.Time != "" {
		words = append(words, "--time="+s.Time)
	}
	words = append(words, own...)
	return append(words, filepath.Join(s.Dir, slurmFolder, script))
}

// Commands are what submits the array of some shards, and the job that collects after job array.
func (s *Slurm) Commands(shards []int, array string) (submit, collect []string) {
	list := ranges(shards)
	if s.Concurrent > 0 {
		list += fmt.Sprint("%", s.Concurrent)
	}
	logs := "--output=" + strings.ReplaceAll(filepath.Join(s.Dir, slurmFolder, logsFolder), "%", "%%") + "/"
	return s.sbatch(shardsScript, fmt.Sprint("--cpus-per-task=", s.Workers), "--signal=B:USR1@60", logs+"%A_%a.log", "--array="+list),
		s.sbatch(collectScript, "--cpus-per-task=1", logs+"%j.log", "--dependency=afterany:"+array)
}

// ranges writes ascending numbers as 1-3,7.
func ranges(list []int) string {
	var b strings.Builder
	for i := 0; i < len(list); {
		end := i
		for end+1 < len(list) && list[end+1] == list[end]+1 {
			end++
		}
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(strconv.Itoa(list[i]))
		if end > i {
			fmt.Fprint(&b, "-", list[end])
		}
		i = end + 1
	}
	return b.String()
}

// Submitted is what was given to Slurm for a folder.
type Submitted struct {
	Format  int    `json:"format"`
	Plan    string `json:"plan"` // its hash
	Shards  int    `json:"shards"`
	Array   string `json:"array"`   // job
	Collect string `json:"collect"` // job
}

// ReadSubmitted returns what was submitted last for a folder, or nil.
func ReadSubmitted(dir string) (*Submitted, error) {
	name := filepath.Join(dir, slurmFolder, jobsFile)
	text, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, whole.Located(err)
	}
	last := new(Submitted)
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(last); err != nil || last.Format != 1 || last.Shards < 1 {
		return nil, fmt.Errorf("%s does not say which jobs were submitted: see squeue --me that none of them is left, and remove the file", name)
	}
	return last, nil
}

func (last *Submitted) jobs() (list []string) {
	for _, id := range []string{last.Array, last.Collect} {
		if id != "" {
			list = append(list, id)
		}
	}
	return list
}

// Queued returns which of the jobs are still waiting or running.
func (last *Submitted) Queued(ctx context.Context) (list []string, err error) {
	out, err := command(ctx, "squeue", "--noheader", fmt.Sprint("--user=", os.Getuid()), "--format=%F")
	if err != nil {
		return nil, err
	}
	here := strings.Fields(string(out))
	for _, id := range last.jobs() {
		if slices.Contains(here, id) {
			list = append(list, id)
		}
	}
	return list, nil
}

// Check says what Slurm would refuse.
func (s *Slurm) Check() error {
	switch {
	case strings.Contains(s.Dir, `\`):
		return fmt.Errorf("%s: Slurm writes no logs where a path has a backslash: use another folder", s.Dir)
	case s.Concurrent < 0:
		return fmt.Errorf("--concurrent is %d: it must be at least 1", s.Concurrent)
	}
	for _, a := range s.Arguments {
		if !strings.HasPrefix(a, "-") {
			return fmt.Errorf("--sbatch %q: want one argument of sbatch with its value, such as --sbatch=--mem=8G", a)
		}
	}
	return nil
}

// Write writes the scripts into the folder.
func (s *Slurm) Write() error {
	dir := filepath.Join(s.Dir, slurmFolder)
	if err := os.MkdirAll(filepath.Join(dir, logsFolder), 0o755); err != nil {
		return whole.Located(err)
	}
	shard, collect := s.Scripts()
	if err := whole.WriteBytes(filepath.Join(dir, shardsScript), shard); err != nil {
		return err
	}
	return whole.WriteBytes(filepath.Join(dir, collectScript), collect)
}

// Submit writes the scripts and submits some shards of a plan, and the job that collects after them. If that job is refused, what
// was submitted comes back with the error.
func (s *Slurm) Submit(ctx context.Context, plan string, shards []int) (*Submitted, error) {
	if err := s.Write(); err != nil {
		return nil, err
	}
	words, _ := s.Commands(shards, "")
	array, err := s.submit(ctx, words)
	if err != nil {
		return nil, err
	}
	now := &Submitted{Format: 1, Plan: plan, Shards: s.Shards, Array: array}
	if err := s.note(now); err != nil {
		return now, err
	}
	_, words = s.Commands(shards, array)
	if now.Collect, err = s.submit(ctx, words); err != nil {
		return now, err
	}
	return now, s.note(now)
}

func (s *Slurm) note(now *Submitted) error {
	text, _ := json.MarshalIndent(now, "", "  ") // plain values only
	return whole.WriteBytes(filepath.Join(s.Dir, slurmFolder, jobsFile), append(text, '\n'))
}

// submit runs sbatch and returns the number of the job.
func (s *Slurm) submit(ctx context.Context, words []string) (string, error) {
	out, err := command(ctx, words...)
	if err != nil {
		return "", err
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	id, _, _ := strings.Cut(lines[len(lines)-1], ";") // the name of a cluster
	if _, err := strconv.ParseUint(id, 10, 32); err != nil {
		return "", fmt.Errorf("sbatch printed %q and no number of a job: see squeue --me whether it was submitted", string(out))
	}
	return id, nil
}
