package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/spf13/cobra"

	"evenkeel/sweep"
	"evenkeel/sweep/fleet"
)

// runRequest is what the flags of run ask for.
type runRequest struct {
	accessFlags
	dir, listen string
	options     fleet.Options
	json, quiet bool
}

func runCommand(stdout, stderr io.Writer) *cobra.Command {
	q := runRequest{}
	c := &cobra.Command{
		Use:   "run DIR",
		Short: "Run what the folder of a sweep lacks, and make its tables",
		Long: `Run gives the units of the plan in DIR to workers and stores each cell of what comes back once.
Without --listen and --nats-url it starts a server inside itself, without a port, and works alone.
With --listen others may join; with --nats-url the servers are those of a team. It may be stopped
in any way: the same command goes on from what is stored.

A unit whose workers die, hang or send no result is given to another, --max-deliver times. Then a
letter goes to the subject evenkeel.PLAN.dead.UNIT, and the summary names it.`,
		Example: `  evenkeel sweep --vary loss-free.rate=log:1e-4..1e-1:13 --seeds 8 --out rates --plan-only
  evenkeel-fleet run rates
  evenkeel-fleet run rates --listen 0.0.0.0:4222 --tls-cert cert.pem --tls-key key.pem --user ann --password-file pass
  evenkeel-fleet run rates --nats-url tls://nats.example.org:4222 --creds ann.creds --replicas 3 --workers 0`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return errors.New("run needs the folder of one sweep: evenkeel-fleet run DIR")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			q.dir = args[0]
			if !cmd.Flags().Changed("workers") {
				q.options.Workers = -1
			} else if q.options.Workers < 0 {
				return fmt.Errorf("--workers is %d: it must be at least 0", q.options.Workers)
			}
			if q.options.Workers == 0 && q.listen == "" && q.url == "" {
				return errors.New("--workers 0 leaves nobody to work: give --listen or --nats-url, by which others join")
			}
			return q.run(cmd.Context(), stdout, stderr)
		},
	}
	f := c.Flags()
	f.SortFlags = false
	f.StringVar(&q.listen, "listen", "", "let workers join: HOST:PORT; beyond this machine with TLS and credentials only")
	q.add(f)
	f.StringVar(&q.joining, "joining", "", "file with the public nkeys that may join, for --listen")
	f.IntVar(&q.options.Workers, "workers", 0, "units that this process runs at once; 0 if only others work (default: one for each processor)")
	f.IntVar(&q.options.Replicas, "replicas", 1, "servers of --nats-url that keep each task and result: 1 or 3")
	f.DurationVar(&q.options.AckWait, "ack-wait", fleet.AckWait, "after so long without a heartbeat a task goes to another worker")
	f.DurationVar(&q.options.UnitTimeout, "unit-timeout", fleet.UnitTimeout, "how long a unit, at most 16 cells, may take")
	f.IntVar(&q.options.MaxDeliver, "max-deliver", fleet.MaxDeliver, "attempts at a unit before it is given up")
	f.BoolVar(&q.json, "json", false, "print the outcome as JSON and nothing else")
	f.BoolVar(&q.quiet, "quiet", false, "print no progress and no summary")
	f.SetOutput(stderr)
	return c
}

func (q *runRequest) run(ctx context.Context, stdout, stderr io.Writer) error {
	switch {
	case q.listen != "" && q.url != "":
		return errors.New("--listen starts a server and --nats-url names some that run: give one of them")
	case q.options.Replicas != 1 && q.options.Replicas != 3:
		return fmt.Errorf("--replicas is %d: it must be 1 or 3", q.options.Replicas)
	case q.options.Replicas > 1 && q.url == "":
		return errors.New("--replicas 3 needs a cluster of three servers: name it by --nats-url")
	case q.joining != "" && q.listen == "":
		return errors.New("--joining says who may join a server that listens: give --listen too")
	}
	if err := q.read(); err != nil {
		return err
	}
	if err := errors.Join(q.check(), q.options.Check()); err != nil {
		return err
	}
	p, err := sweep.ReadPlan(filepath.Join(q.dir, sweep.PlanFile))
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%s holds no plan: make one by evenkeel sweep ... --out %s --plan-only", q.dir, q.dir)
	} else if err != nil {
		return err
	}
	folder, err := sweep.Hold(q.dir, p, sweep.Keep, false)
	if errors.Is(err, sweep.ErrOtherPlan) {
		return err
	} else if err != nil {
		return failure{exitAgain, err}
	}
	defer folder.Release()
	begin := time.Now()
	out, err := q.engine(ctx, p, stderr)
	if err == nil {
		return q.finish(ctx, p, out, time.Since(begin), stdout, stderr)
	}
	if errors.Is(err, context.Canceled) {
		return failure{exitInterrupted, fmt.Errorf("%w: what is finished is kept in %s, and the same command goes on from there", errInterrupted, q.dir)}
	}
	return err
}

// check makes sure of the addresses before anything begins.
func (q *runRequest) check() error {
	switch {
	case q.url != "":
		return q.CheckURLs(q.url)
	case q.listen != "":
		return q.CheckListen(q.listen)
	}
	return nil
}

// engine runs what the folder lacks.
func (q *runRequest) engine(ctx context.Context, p *sweep.Plan, stderr io.Writer) (out fleet.Outcome, err error) {
	store, err := sweep.Open(q.dir, p, sweep.Shard{})
	if err != nil {
		return out, failure{exitAgain, err}
	}
	defer func() {
		if closing := store.Close(); err == nil && closing != nil {
			err = failure{exitFailed, closing}
		}
	}()
	line := newLine(stderr, q.quiet || q.json)
	defer line.clear()
	q.options.Program, q.options.Progress, q.options.Log = build(), line.progress, line.say
	q.options.Private = q.listen == "" && q.url == ""
	var nc *nats.Conn
	if q.url != "" {
		if nc, err = fleet.Connect(q.url, q.Access, false); err != nil {
			return out, err
		}
	} else {
		server, err := fleet.Serve(q.dir, q.listen, q.Access)
		if err != nil {
			return out, err
		}
		finished := false
		defer func() { server.Close(finished) }()
		if nc, err = server.Connect(); err != nil {
			return out, failure{exitFailed, err}
		}
		if q.listen != "" {
			line.say("workers may join at " + server.Address())
		}
		defer func() { finished = err == nil && len(out.Dead) == 0 }()
		defer nc.Close()
		out, err = fleet.Run(ctx, nc, p, store, q.options)
		return out, failedUnless(err)
	}
	defer nc.Close()
	out, err = fleet.Run(ctx, nc, p, store, q.options)
	return out, failedUnless(err)
}

// failedUnless is the failure of a run, but for errors that have exit codes of their own.
func failedUnless(err error) error {
	if err == nil || errors.Is(err, context.Canceled) || errors.Is(err, fleet.ErrAway) || errors.Is(err, fleet.ErrInUse) {
		return err
	}
	return failure{exitFailed, err}
}

// summary is the outcome as JSON.
type summary struct {
	Plan string `json:"plan"`
	fleet.Outcome
	Seconds float64 `json:"seconds"`
	Missing int     `json:"missing"`
}

// finish makes the tables and says what happened.
func (q *runRequest) finish(ctx context.Context, p *sweep.Plan, out fleet.Outcome, wall time.Duration, stdout, stderr io.Writer) error {
	line := newLine(stderr, q.quiet || q.json)
	line.unit = "row"
	m, err := sweep.Collect(ctx, q.dir, p, line.progress)
	line.clear()
	if errors.Is(err, context.Canceled) {
		return failure{exitInterrupted, fmt.Errorf("%w: every cell is stored, and the same command makes the tables", errInterrupted)}
	} else if err != nil {
		return failure{exitFailed, err}
	}
	switch {
	case q.json:
		e := json.NewEncoder(stdout)
		e.SetIndent("", "  ")
		err = e.Encode(summary{p.Hash(), out, wall.Seconds(), m.Missing})
	case !q.quiet:
		err = q.print(p, out, m, wall, stdout)
	}
	if err != nil {
		return err
	}
	if len(out.Dead) > 0 {
		return failure{exitFailed, fmt.Errorf("%s given up, and the tables lack %s: the same command tries them again", plural(len(out.Dead), "unit was", "units were"), plural(m.Missing, "cell", "cells"))}
	}
	if m.Failed == m.Cells {
		return failure{exitFailed, fmt.Errorf("no cell could run: the column failed of %s says why", filepath.Join(q.dir, sweep.CellsTable))}
	}
	return nil
}

func (q *runRequest) print(p *sweep.Plan, out fleet.Outcome, m *sweep.Manifest, wall time.Duration, stdout io.Writer) error {
	fmt.Fprintf(stdout, "%s: %s, of which %d ran now, in %s.\n", p.Scenario.Name, plural(out.Cells, "cell", "cells"), out.Ran, wall.Round(100*time.Millisecond))
	if m.Failed > 0 {
		fmt.Fprintf(stdout, "%s a reason instead of figures: see the column failed.\n", plural(m.Failed, "cell has", "cells have"))
	}
	if out.Redelivered > 0 {
		fmt.Fprintf(stdout, "%s came from a worker that was not the first to take the unit.\n", plural(out.Redelivered, "result", "results"))
	}
	if out.Garbage > 0 {
		fmt.Fprintf(stdout, "%s no result, and the units were run again.\n", plural(out.Garbage, "message was", "messages were"))
	}
	for _, r := range out.Refused {
		fmt.Fprintf(stdout, "Not let in: %s\n", r)
	}
	for _, l := range out.Dead {
		fmt.Fprintf(stdout, "Given up: unit %d (cells %d to %d, evenkeel.%s.dead.%d): %s\n", l.Unit, l.Cells[0], l.Cells[len(l.Cells)-1], l.Plan, l.Unit, l.Reason)
	}
	_, err := fmt.Fprintf(stdout, "Written to %s: %s and tables.\n", q.dir, sweep.ManifestFile)
	return err
}

func plural(n int, one, more string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprint(n, " ", more)
}
