package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"evenkeel/sweep"
	"evenkeel/sweep/cluster"
)

func clusterCommand(stdout, stderr io.Writer) *cobra.Command {
	c := &cobra.Command{
		Use:   "cluster slurm|kubernetes|parallel DIR",
		Short: "Hand a sweep's plan to Slurm, Kubernetes or GNU parallel",
		Long: `Cluster hands the plan in a sweep's folder to a scheduler that is there already. It cuts the plan
into shards of some minutes each, by a measured sample; each is one evenkeel run, which may be
repeated and goes on where it was, and evenkeel collect makes the tables at the end: the same
bytes as by evenkeel sweep on one machine. The folder must be on a disk that all machines share,
and so must a trace that is replayed.`,
		Example: `  evenkeel sweep --vary loss-free.rate=log:1e-4..1e-1:13 --seeds 8 --out rates --plan-only
  evenkeel cluster slurm rates --partition short --time 30
  evenkeel cluster kubernetes rates --image registry.example/evenkeel:1 --claim sweeps
  evenkeel cluster parallel rates`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return fmt.Errorf("there is no cluster %s: name slurm, kubernetes or parallel", args[0])
			}
			return nil
		},
		RunE: func(*cobra.Command, []string) error {
			return errors.New("cluster needs a scheduler and the folder of a sweep: evenkeel cluster slurm DIR, and likewise kubernetes and parallel")
		},
	}
	c.AddCommand(slurmCommand(stdout, stderr), kubernetesCommand(stdout, stderr), parallelCommand(stdout, stderr))
	return c
}

// cut is what all schedulers are asked: how a plan is cut into shards, and what runs them.
type cut struct {
	shards  int
	minutes float64
	workers int
	program string

	plan *sweep.Plan
	sweep.Estimate
}

func (q *cut) flags(f *pflag.FlagSet, minutes float64, workers string) {
	f.SortFlags = false
	f.IntVar(&q.shards, "shards", 0, "cut the plan into so many shards (default: by --minutes)")
	f.Float64Var(&q.minutes, "minutes", minutes, "how long a shard shall take, by a sample that is measured here")
	f.IntVar(&q.workers, "cpus", 1, workers)
}

func (q *cut) programFlag(f *pflag.FlagSet) {
	f.StringVar(&q.program, "program", "", "evenkeel where the shards run (default: this program)")
}

// folderOfPlan is the argument of all three.
func folderOfPlan(c *cobra.Command, args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("cluster %s needs the folder of one sweep: make its plan by evenkeel sweep ... --out DIR --plan-only", c.Name())
	}
	return nil
}

// open reads the plan of a folder and checks the flags.
func (q *cut) open(dir string) (s cluster.Sweep, err error) {
	switch {
	case q.shards < 0:
		return s, fmt.Errorf("--shards is %d: it must be at least 1", q.shards)
	case !(q.minutes > 0) || math.IsInf(q.minutes, 0):
		return s, fmt.Errorf("--minutes is %v: it must be above 0", q.minutes)
	case q.workers < 1 || q.workers > 1<<16:
		return s, fmt.Errorf("--cpus is %d: it must be 1 to 65536", q.workers)
	}
	if q.plan, err = sweep.ReadPlan(filepath.Join(dir, sweep.PlanFile)); err != nil {
		if errors.Is(err, os.ErrNotExist) {
			err = fmt.Errorf("%w: make it by evenkeel sweep ... --out %s --plan-only", err, dir)
		}
		return s, err
	}
	s.Workers = q.workers
	if s.Dir, err = filepath.Abs(dir); err != nil {
		return s, err
	}
	if q.program != "" {
		s.Program, err = filepath.Abs(q.program)
		return s, err
	}
	if s.Program, err = os.Executable(); err == nil && strings.Contains(s.Program, "go-build") {
		err = errors.New("go run removes this program when it ends: build it by go build ./cmd/evenkeel and run that, or name one with --program")
	}
	return s, err
}

// count decides how many shards there are, at most limit unless that is 0.
func (q *cut) count(ctx context.Context, limit int) (int, error) {
	units := len(q.plan.Units())
	if q.shards > 0 {
		return min(q.shards, units), nil
	}
	e, err := q.plan.Estimate(ctx, 1)
	if err != nil {
		return 0, failure{exitInterrupted, fmt.Errorf("%w: nothing was written or submitted", errInterrupted)}
	}
	q.Estimate = *e
	return cluster.Shards(e.Time, time.Duration(q.minutes*float64(time.Minute)), q.workers, units, limit), nil
}

// words describe shards.
func (q *cut) words(shards int) string {
	switch {
	case q.shards > shards:
		return plural(shards, "shard") + ", since the plan has no more to share out"
	case q.Time == 0:
		return plural(shards, "shard")
	}
	return fmt.Sprintf("%s of about %s", plural(shards, "shard"), duration(q.Time/time.Duration(shards*q.workers)))
}

// traces are the files that cells read, which have to be where the cells run.
func (q *cut) traces() (files []string) {
	const key = "trace.file"
	for _, s := range q.plan.Settings {
		if file, ok := strings.CutPrefix(s, key+"="); ok {
			files = append(files, file)
		}
	}
	for _, a := range q.plan.Axes {
		if a.Name == key {
			files = append(files, a.Values...)
		}
	}
	return files
}

func slurmCommand(stdout, stderr io.Writer) *cobra.Command {
	var q cut
	var s cluster.Slurm
	var dryRun bool
	c := &cobra.Command{
		Use:   "slurm DIR",
		Short: "Submit an array of shards, and a job that collects after it",
		Long: `Slurm submits the shards that a sweep's folder still lacks as an array, and a job that makes the
tables when they are over. It reads from scontrol how large an array may be. A shard whose node
fails is queued again, as is one that asks for it (exit code 75), five times at most; what it had
finished is kept. The same command again submits what is missing then, and nothing while jobs of
the folder are in the queue. Scripts and logs are in DIR/slurm.

Exit codes: 0 submitted, or nothing is missing, 1 Slurm refused, 2 the request was wrong, 75 try again
when the jobs in the queue are over.`,
		Example: `  evenkeel cluster slurm rates --dry-run
  evenkeel cluster slurm rates --partition short --time 30 --concurrent 100
  evenkeel cluster slurm rates --cpus 8 --sbatch=--account=physics --sbatch=--mem=8G`,
		Args: folderOfPlan,
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			if s.Sweep, err = q.open(args[0]); err != nil {
				return err
			}
			if err := s.Check(); err != nil {
				return err
			}
			recut := cmd.Flags().Changed("shards") || cmd.Flags().Changed("minutes") || cmd.Flags().Changed("cpus")
			return submit(cmd.Context(), &q, &s, args[0], recut, dryRun, stdout)
		},
	}
	f := c.Flags()
	q.flags(f, 5, "processors of a shard, which runs as many cells at once")
	f.StringVarP(&s.Partition, "partition", "p", "", "partition of the jobs (default: the site's)")
	f.StringVarP(&s.Time, "time", "t", "", "limit of a shard's time, as sbatch reads it: 30 for minutes, 2:00:00 (default: the partition's)")
	f.IntVar(&s.Concurrent, "concurrent", 0, "run at most so many shards at once")
	f.StringArrayVar(&s.Arguments, "sbatch", nil, "one more argument of sbatch, such as --sbatch=--mem=8G; may be repeated")
	q.programFlag(f)
	f.BoolVar(&dryRun, "dry-run", false, "print what would be submitted")
	f.SetOutput(stderr)
	return c
}

// submit gives Slurm what a folder lacks. A plan that was submitted before is cut as it was, unless the flags say how.
func submit(ctx context.Context, q *cut, s *cluster.Slurm, dir string, recut, dryRun bool, stdout io.Writer) error {
	limits, err := cluster.ReadLimits(ctx)
	if err != nil {
		return failed(err)
	}
	last, err := cluster.ReadSubmitted(s.Dir)
	if err != nil {
		return err
	}
	if last != nil {
		queued, err := last.Queued(ctx)
		if err != nil {
			return failed(err)
		}
		if len(queued) > 0 && !dryRun {
			return failure{exitAgain, fmt.Errorf("jobs of %s are still in the queue: wait for them (squeue --jobs=%s), or end them by scancel %s", dir, strings.Join(queued, ","), strings.Join(queued, " "))}
		}
	}
	if last != nil && last.Plan == q.plan.Hash() && !recut {
		s.Shards = last.Shards
	} else if s.Shards, err = q.count(ctx, limits.Tasks()); err != nil {
		return err
	}
	if s.Shards > limits.Tasks() {
		return fmt.Errorf("%d shards are more than this site takes in an array: use at most --shards %d", s.Shards, limits.Tasks())
	}
	lacking, err := sweep.Lacking(dir, q.plan, s.Shards)
	if err != nil {
		return failed(err)
	}
	var list []int
	for i, cells := range lacking {
		if cells > 0 {
			list = append(list, i+1)
		}
	}
	if len(list) == 0 {
		_, err := fmt.Fprintf(stdout, "Nothing to submit: all %s of %s are stored. Their tables are made by:\n  %s\n", plural(q.plan.Cells(), "cell"), dir, cluster.Quote(s.Program, "collect", dir))
		return err
	}
	if dryRun {
		shards, collect := s.Commands(list, "ARRAY")
		script, last := s.Scripts()
		_, err := fmt.Fprintf(stdout, "%s, of which %d lack cells; this site takes %d.\n\n%s\n%s\n\n# slurm/shards.sh\n%s\n# slurm/collect.sh\n%s", q.words(s.Shards), len(list), limits.Tasks(),
			cluster.Quote(shards...), cluster.Quote(collect...), script, last)
		return err
	}
	now, err := s.Submit(ctx, q.plan.Hash(), list)
	if err != nil {
		if now != nil {
			err = fmt.Errorf("job %s was submitted and runs the shards, but none collects after it: %w; when it is over, run evenkeel collect", now.Array, err)
		}
		return failed(err)
	}
	_, err = fmt.Fprintf(stdout, `Submitted %d of %s as job %s; job %s collects after it.
  watch   squeue --jobs=%s,%s
  logs    %s
  stop    scancel %s %s
  resume  the same command again, when no job is left: it submits what is missing
`, len(list), q.words(s.Shards), now.Array, now.Collect, now.Array, now.Collect, cluster.Quote(filepath.Join(dir, "slurm", "logs")), now.Array, now.Collect)
	return err
}

func kubernetesCommand(stdout, stderr io.Writer) *cobra.Command {
	var q cut
	var k cluster.Kubernetes
	c := &cobra.Command{
		Use:   "kubernetes DIR",
		Short: "Write an Indexed Job of the shards, and a Job that collects",
		Long: `Kubernetes writes two manifests into DIR/kubernetes: an Indexed Job with a shard for each index, and
a Job that makes the tables. It talks to no cluster. The plan is in the manifest, as a ConfigMap,
unless it is larger than 1 MB; the results are in a folder of a PersistentVolumeClaim that several
nodes can write. A shard that fails is tried again five times; a wrong request (exit code 2) is not,
and a node that goes away does not count. Kubernetes 1.33 or later does all of that.`,
		Example: `  evenkeel cluster kubernetes rates --image registry.example/evenkeel:1 --claim sweeps
  kubectl create -f rates/kubernetes/shards.yaml`,
		Args: folderOfPlan,
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			q.program = "evenkeel" // of the image
			if k.Sweep, err = q.open(args[0]); err != nil {
				return err
			}
			if k.Concurrent < 0 {
				return fmt.Errorf("--concurrent is %d: it must be at least 1", k.Concurrent)
			}
			if err := k.Check(); err != nil {
				return err
			}
			if k.Shards, err = q.count(cmd.Context(), cluster.MaxIndexes); err != nil {
				return err
			}
			k.Plan = q.plan.Encode()
			return writeManifests(&q, k, args[0], stdout, stderr)
		},
	}
	f := c.Flags()
	f.SortFlags = false
	f.StringVar(&k.Image, "image", "", "image with evenkeel on its PATH, and a shell")
	f.StringVar(&k.Claim, "claim", "", "PersistentVolumeClaim that holds the results")
	f.StringVar(&k.Name, "name", "", "of the Jobs, and of the folder in the claim (default: after DIR)")
	q.flags(f, 5, "processors of a shard, which runs as many cells at once")
	f.StringVar(&k.Memory, "memory", "2Gi", "memory of a shard")
	f.IntVar(&k.Concurrent, "concurrent", 0, "run at most so many shards at once")
	f.SetOutput(stderr)
	return c
}

func writeManifests(q *cut, k cluster.Kubernetes, dir string, stdout, stderr io.Writer) error {
	shards, collect, err := k.Write()
	if err != nil {
		return failed(err)
	}
	for _, file := range q.traces() {
		fmt.Fprintf(stderr, "WARNING the cells replay %s: it must be under this path in the image\n", file)
	}
	if !k.Configured() {
		fmt.Fprintf(stderr, "WARNING the plan is too large for a ConfigMap: copy it into the claim first, as %s/%s\n", k.Title(), sweep.PlanFile)
	}
	shards, collect = relative(dir, shards), relative(dir, collect)
	_, err = fmt.Fprintf(stdout, `Written: %s.
  run      kubectl create -f %s
  watch    kubectl get job %s
  collect  kubectl create -f %s, when it is over; the tables are in folder %s of claim %s
  resume   kubectl replace --force -f %s: what is stored is not run again
`, q.words(k.Shards), cluster.Quote(shards), k.Title(), cluster.Quote(collect), k.Title(), k.Claim, cluster.Quote(shards))
	return err
}

// relative is a file in a folder, as the folder was named.
func relative(dir, file string) string {
	parent := filepath.Base(filepath.Dir(file))
	return filepath.Join(dir, parent, filepath.Base(file))
}

func parallelCommand(stdout, stderr io.Writer) *cobra.Command {
	var q cut
	c := &cobra.Command{
		Use:   "parallel DIR",
		Short: "Write a job file for GNU parallel",
		Long: `Parallel writes a job file into DIR/parallel, a shard on each line, and prints the command that has
GNU parallel run it, on this machine or by ssh on others that share the folder (--sshloginfile). The
printed command may be repeated: it runs what failed or was not reached.`,
		Example: `  evenkeel cluster parallel rates
  evenkeel cluster parallel rates --shards 200`,
		Args: folderOfPlan,
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			p := cluster.Parallel{}
			if p.Sweep, err = q.open(args[0]); err != nil {
				return err
			}
			if p.Shards, err = q.count(cmd.Context(), 0); err != nil {
				return err
			}
			p.Plan = q.plan.Hash()
			file, err := p.Write()
			if err != nil {
				return err
			}
			run, collect := p.Commands(file)
			_, err = fmt.Fprintf(stdout, "Written: %s, a line each.\n  run, resume  %s\n  collect      %s\n", q.words(p.Shards), run, collect)
			return err
		},
	}
	f := c.Flags()
	q.flags(f, 0.2, "processors of a shard, which runs as many cells at once; GNU parallel runs a shard on every processor unless told by --jobs")
	q.programFlag(f)
	f.SetOutput(stderr)
	return c
}
