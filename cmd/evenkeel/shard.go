package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"

	"github.com/spf13/cobra"

	"evenkeel/internal/vec"
	"evenkeel/sweep"
)

// exitAgain asks an engine to run the same shard again: it was told to stop, or the machine failed it.
const exitAgain = 75

func runCommand(stdout, stderr io.Writer) *cobra.Command {
	var plan, shard, dir, kernel string
	var workers int
	var quiet bool
	c := &cobra.Command{
		Use:   "run --plan PLAN --shard i/n --out DIR",
		Short: "Run one shard of a sweep's plan: what every engine calls",
		Long: `Run runs the cells of one shard of a plan that sweep --plan-only wrote. It is pure, idempotent
and resumable: what the folder holds already is not run again, several shards may write to one
folder at once, and the shards together are what the sweep would have written, byte for byte.
When all have run, evenkeel collect makes the tables.

Exit codes: 0 all cells of the shard are stored, 2 the request was wrong and will stay so,
75 try again: it was stopped, the folder was in use, or a file could not be written.`,
		Example: `  evenkeel sweep --vary loss-free.rate=log:1e-4..1e-1:13 --seeds 8 --out rates --plan-only
  evenkeel run --plan rates/plan.json --shard 3/16 --out rates
  evenkeel collect rates`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := vec.Use(kernel); err != nil {
				return err
			}
			if plan == "" || dir == "" {
				return errors.New("--plan and --out are needed: evenkeel run --plan rates/plan.json --shard 3/16 --out rates")
			}
			if workers < 0 {
				return fmt.Errorf("--workers is %d: it must be at least 1", workers)
			}
			p, err := sweep.ReadPlan(plan)
			if err != nil {
				return err
			}
			o := sweep.Options{Workers: workers, Memory: knownMemory()}
			if o.Shard, err = sweep.ParseShard(shard); err != nil {
				return err
			}
			return runOne(cmd.Context(), p, dir, o, quiet, stdout, stderr)
		},
	}
	f := c.Flags()
	f.SortFlags = false
	f.StringVar(&plan, "plan", "", "plan.json of a sweep")
	f.StringVar(&shard, "shard", "1/1", "which part of the plan: i/n")
	f.StringVar(&dir, "out", "", "folder of the results; several shards may share it")
	f.IntVar(&workers, "workers", 0, "cells that run at once (default: one for each processor)")
	f.StringVar(&kernel, "kernel", "auto", "arithmetic: auto, avx512, avx2 or portable; all give the same bits")
	f.BoolVar(&quiet, "quiet", false, "print no progress and no summary")
	f.SetOutput(stderr)
	return c
}

// runOne runs a shard. What may go better another time has the exit code that says so.
func runOne(ctx context.Context, p *sweep.Plan, dir string, o sweep.Options, quiet bool, stdout, stderr io.Writer) error {
	again := func(err error) error {
		if errors.Is(err, context.Canceled) {
			err = fmt.Errorf("%w: what is finished is kept, and the same command goes on from there", errInterrupted)
		}
		return failure{exitAgain, err}
	}
	folder, err := sweep.Hold(dir, p, sweep.Keep, true)
	if err != nil {
		if errors.Is(err, sweep.ErrOtherPlan) {
			return err
		}
		return again(err)
	}
	defer folder.Release()
	progress := newProgress(stderr, quiet)
	progress.unit = "cell"
	o.Progress = progress.show
	out, _, err := runShard(ctx, p, dir, o)
	progress.clear()
	if err != nil {
		return again(err)
	}
	if !quiet {
		_, err = fmt.Fprintf(stdout, "shard %s of plan %s: %s, of which %d ran now\n", o.Shard, p.Hash(), plural(out.Cells, "cell"), out.Ran)
	}
	return err
}

func collectCommand(stdout, stderr io.Writer) *cobra.Command {
	var csv bool
	c := &cobra.Command{
		Use:   "collect DIR [DIR...]",
		Short: "Make the tables of a sweep from what its shards stored",
		Long: `Collect makes the tables and the manifest of a sweep's folder from what its shards stored, in the
order of the plan: the same bytes, whoever ran what, and when. Of several folders of the same
plan, those of machines that share no disk, the results of the others are first copied into the
first. Cells that are not finished are counted as missing, and exit code 75 says that there are
some, or that shards still run; 1 that no cell could run.`,
		Example: `  evenkeel collect rates
  evenkeel collect rates node1/rates node2/rates`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return errors.New("collect needs the folder of a sweep: evenkeel collect DIR")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			return collect(cmd.Context(), args[0], args[1:], csv, stdout, stderr)
		},
	}
	c.Flags().BoolVar(&csv, "csv", false, "write the tables as CSV also")
	c.Flags().SetOutput(stderr)
	return c
}

func collect(ctx context.Context, dir string, others []string, csv bool, stdout, stderr io.Writer) error {
	p, err := sweep.ReadPlan(filepath.Join(dir, sweep.PlanFile))
	if err != nil {
		return err
	}
	folder, err := sweep.Hold(dir, p, sweep.Keep, false)
	if errors.Is(err, sweep.ErrOtherPlan) {
		return err
	} else if err != nil {
		return failure{exitAgain, err} // shards that still run
	}
	defer folder.Release()
	if err := sweep.Gather(dir, p, others); err != nil {
		return failed(err)
	}
	m, err := tabulate(ctx, dir, p, csv, newProgress(stderr, false))
	if err != nil {
		return err
	}
	if m.Missing > 0 {
		return failure{exitAgain, fmt.Errorf("of the %d cells of %s %d are missing: run their shards, or the whole by evenkeel run --plan %s --out %s", m.Cells, dir, m.Missing, filepath.Join(dir, sweep.PlanFile), dir)}
	}
	_, err = fmt.Fprintf(stdout, "%s: %s, %d of them without figures, collected into %s\n", p.Scenario.Name, plural(m.Cells, "cell"), m.Failed, dir)
	if err == nil {
		err = nothingRan(m, dir)
	}
	return err
}

// tabulate makes the tables of a folder.
func tabulate(ctx context.Context, dir string, p *sweep.Plan, csv bool, progress *progress) (*sweep.Manifest, error) {
	progress.unit = "row"
	m, err := sweep.Collect(ctx, dir, p, progress.show)
	progress.clear()
	if err == nil && csv {
		err = sweep.WriteCSV(dir, m)
	}
	if err != nil {
		return nil, stopped(err, dir)
	}
	return m, nil
}
