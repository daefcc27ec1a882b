package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"evenkeel/sweep/fleet"
)

func workCommand(stderr io.Writer) *cobra.Command {
	var a accessFlags
	var workers int
	var quiet bool
	c := &cobra.Command{
		Use:   "work --nats-url URL",
		Short: "Take tasks of the sweeps that some servers have, until told to stop",
		Long: `Work runs units of every sweep that the servers have, and waits for more. At a first SIGTERM or
Ctrl-C it finishes what it runs and takes nothing more; at a second it ends at once, and what it
held goes to others. It must be of the same build as the coordinator: another one is refused, since
figures of two programs are not mixed. A worker runs nothing but cells of a plan whose hash it has
checked.`,
		Example: `  evenkeel-fleet work --nats-url nats://127.0.0.1:4222
  evenkeel-fleet work --nats-url tls://head.example.org:4222 --tls-ca cert.pem --user ann --password-file pass
  evenkeel-fleet work --nats-url tls://nats.example.org:4222 --creds ann.creds --workers 64`,
		Args: none,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if workers < 0 {
				return fmt.Errorf("--workers is %d: it must be at least 1", workers)
			}
			nc, err := a.connect(true)
			if err != nil {
				return err
			}
			defer nc.Close()
			line := newLine(stderr, quiet)
			if !nc.IsConnected() {
				line.say("no server answers yet: waiting for one")
			}
			drain := cmd.Context()
			context.AfterFunc(drain, func() { line.say("finishing what runs; once more to end at once") })
			err = fleet.Work(context.WithoutCancel(drain), nc, fleet.WorkOptions{Workers: workers, Program: build(), Drain: drain.Done(), Log: line.say})
			nc.FlushTimeout(flushing)
			var refused *fleet.RefusedError
			if errors.As(err, &refused) {
				return err
			}
			return failedUnless(err)
		},
	}
	f := c.Flags()
	f.SortFlags = false
	a.add(f)
	f.IntVar(&workers, "workers", 0, "units that run at once (default: one for each processor)")
	f.BoolVar(&quiet, "quiet", false, "print no remarks")
	f.SetOutput(stderr)
	return c
}

func none(c *cobra.Command, args []string) error {
	if len(args) > 0 {
		return fmt.Errorf("%s takes no argument %q: see %s --help", c.Name(), args[0], c.CommandPath())
	}
	return nil
}
