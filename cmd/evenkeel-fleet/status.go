package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"evenkeel/sweep/fleet"
)

// flushing is how long the last words of a process may take.
const flushing = 2 * time.Second

func statusCommand(stdout, stderr io.Writer) *cobra.Command {
	var a accessFlags
	var follow, asJSON bool
	c := &cobra.Command{
		Use:   "status --nats-url URL",
		Short: "Show how far the sweeps are and who works at them",
		Long: `Status asks the servers, the coordinators and the workers, and prints what they say: of each sweep
the cells that are stored, the units that run, wait, came back or were given up, and of each worker
its version, what it runs and its rate.`,
		Example: `  evenkeel-fleet status --nats-url nats://127.0.0.1:4222
  evenkeel-fleet status --nats-url tls://nats.example.org:4222 --creds ann.creds --follow`,
		Args: none,
		RunE: func(cmd *cobra.Command, _ []string) error {
			nc, err := a.connect(false)
			if err != nil {
				return err
			}
			defer nc.Close()
			for ctx := cmd.Context(); ; {
				s, err := fleet.Ask(ctx, nc)
				switch {
				case ctx.Err() != nil:
					return errInterrupted
				case err != nil:
					return failedUnless(err)
				case asJSON:
					err = json.NewEncoder(stdout).Encode(s)
				default:
					err = printStatus(stdout, s)
				}
				if err != nil || !follow {
					return err
				}
				if pause(ctx, 2*time.Second) != nil {
					return errInterrupted
				}
			}
		},
	}
	f := c.Flags()
	f.SortFlags = false
	a.add(f)
	f.BoolVar(&follow, "follow", false, "again every two seconds, until stopped")
	f.BoolVar(&asJSON, "json", false, "print JSON, one object for each time")
	f.SetOutput(stderr)
	return c
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

func printStatus(w io.Writer, s *fleet.Status) error {
	var b strings.Builder
	if len(s.Sweeps) == 0 {
		b.WriteString("There is no sweep on these servers.\n")
	}
	for _, r := range s.Sweeps {
		if r.Host == "" {
			fmt.Fprintf(&b, "sweep %s of %s: no coordinator answers; its workers go on, and evenkeel-fleet run stores what they send\n", r.Plan, plural(r.Cells, "cell", "cells"))
		} else {
			fmt.Fprintf(&b, "sweep %s (%s, %s on %s): %d of %s stored, %.1f a second\n", r.Plan, r.Scenario, r.Program, r.Host, r.Done, plural(r.Cells, "cell", "cells"), rate(r.Ran, r.Seconds))
		}
		fmt.Fprintf(&b, "  units: %d run, %d wait, %d are computed and not yet stored, %d redelivered, %d garbage, %d given up", r.Running, r.Waiting, r.Results, r.Redelivered, r.Garbage, len(r.Dead))
		if len(r.Dead) > 0 {
			fmt.Fprintf(&b, " (%s)", strings.Trim(fmt.Sprint(r.Dead[:min(len(r.Dead), 20)]), "[]"))
		}
		if r.Refused > 0 {
			fmt.Fprintf(&b, "; %s not let in", plural(r.Refused, "worker was", "workers were"))
		}
		b.WriteString("\n")
	}
	if len(s.Workers) > 0 {
		slices.SortStableFunc(s.Workers, func(a, b fleet.WorkerReport) int { return strings.Compare(a.Name, b.Name) })
		t := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
		fmt.Fprintln(t, "worker\tversion\tslots\trunning\tleft behind\tcells\tcells/s")
		for _, r := range s.Workers {
			fmt.Fprintf(t, "%s\t%s\t%d\t%d\t%d\t%d\t%.1f\n", r.Name, r.Program, r.Slots, r.Running, r.Abandoned, r.Cells, rate(r.Cells, r.Seconds))
		}
		t.Flush()
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func rate(n int, seconds float64) float64 {
	if seconds <= 0 {
		return 0
	}
	return float64(n) / seconds
}
