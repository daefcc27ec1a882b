// Command evenkeel compares load-balancing strategies of Mixture-of-Experts routers on one stream of tokens: how even they
// keep the experts' loads, and what routing quality that costs.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
)

// Exit codes.
const (
	exitFailed      = 1   // the run failed
	exitRequest     = 2   // the request was wrong: everything that can be known before the first step
	exitInterrupted = 130 // by Ctrl-C: what was finished is written
	exitTerminated  = 143 // the same by SIGTERM, as Slurm and Kubernetes send before they take a machine away
)

// failure is an error with an exit code of its own; errors without one are wrong requests.
type failure struct {
	code int
	err  error
}

func (f failure) Error() string { return f.err.Error() }
func (f failure) Unwrap() error { return f.err }

func failed(err error) error { return failure{exitFailed, err} }

// errInterrupted ends a run that the user stopped.
var errInterrupted = errors.New("interrupted")

// errTerminated is the cause of a context that SIGTERM ended.
var errTerminated = errors.New("told to stop")

func main() {
	ctx, cancel := context.WithCancelCause(context.Background())
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		cause := errInterrupted
		if <-signals == syscall.SIGTERM {
			cause = errTerminated
		}
		signal.Stop(signals) // a second one ends the program at once
		cancel(cause)
	}()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// run is the whole program: results go to stdout, everything else to stderr. It returns the exit code.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := &cobra.Command{
		Use:   "evenkeel",
		Short: "Compare load-balancing strategies of Mixture-of-Experts routers",
		Long: `Evenkeel feeds one stream of tokens, synthetic or replayed from a real router, through
load-balancing strategies of Mixture-of-Experts routers, and measures how even the
expert load is and what routing quality it cost.`,
		Example: `  evenkeel compare                          what does balance cost, with a loss and with a bias?
  evenkeel compare --scenario tinymoe       the same on a router that was really trained
  evenkeel compare -s none -s loss-free:rate=3e-3 --set experts=128 --out results
  evenkeel frontier                         at equal imbalance, which rule keeps most quality?
  evenkeel strategies loss-free             formula, knobs, paper`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Version:       version(),
	}
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	root.AddCommand(compareCommand(stdout, stderr), frontierCommand(stdout, stderr), sweepCommand(os.Stdin, stdout, stderr), runCommand(stdout, stderr), collectCommand(stdout, stderr), clusterCommand(stdout, stderr), interruptible(tableCommand(stdout)), interruptible(plotCommand(stdout)), scenariosCommand(stdout), strategiesCommand(stdout), interruptible(inspectCommand(stdout)), convertCommand(stdout), fitCommand(stdout), benchCommand(stdout))
	root.SetFlagErrorFunc(flagError)
	root.SuggestionsMinimumDistance = 3
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	if text, ok := strings.CutPrefix(err.Error(), "unknown command "); ok {
		name, rest, _ := strings.Cut(text, " for ")
		_, meant, _ := strings.Cut(rest, "Did you mean this?")
		err = fmt.Errorf("there is no command %s: see evenkeel --help", name)
		if m := strings.Fields(meant); len(m) > 0 {
			err = fmt.Errorf("there is no command %s; did you mean %s?", name, m[0])
		}
	}
	for _, line := range strings.Split(err.Error(), "\n") {
		fmt.Fprintf(stderr, "evenkeel: %s\n", line)
	}
	var f failure
	var path *fs.PathError
	switch {
	case errors.As(err, &f) && f.code == exitAgain:
		return exitAgain
	case errors.Is(err, errInterrupted) || errors.Is(err, context.Canceled):
		if errors.Is(context.Cause(ctx), errTerminated) {
			return exitTerminated
		}
		return exitInterrupted
	case errors.As(err, &f):
		return f.code
	case errors.As(err, &path) && path.Op == "write": // of standard output
		return exitFailed
	}
	return exitRequest
}

// interruptible has a command end when its context does, though what it runs does not look: nothing needs to be put right after it.
func interruptible(c *cobra.Command) *cobra.Command {
	work := c.RunE
	c.RunE = func(cmd *cobra.Command, args []string) error {
		done := make(chan error, 1)
		go func() { done <- work(cmd, args) }()
		select {
		case err := <-done:
			return err
		case <-cmd.Context().Done():
			return errInterrupted
		}
	}
	return c
}

// version is the module's version and commit, as far as the build knows them.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	v := info.Main.Version
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && !strings.Contains(v, s.Value[:min(12, len(s.Value))]) {
			v += " " + s.Value[:min(12, len(s.Value))]
		}
	}
	return v
}
