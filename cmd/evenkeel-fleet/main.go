// Command evenkeel-fleet runs a sweep of evenkeel on many machines, by way of NATS JetStream. It is a command of its own so that
// the other one stays small.
package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
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

	"evenkeel/sweep/fleet"
)

// Exit codes.
const (
	exitFailed      = 1   // the run failed, or units were given up
	exitRequest     = 2   // the request was wrong: another attempt will go no better
	exitAgain       = 75  // try again: the servers were away, or the folder was in use
	exitInterrupted = 130 // what was finished is stored
)

// failure is an error with an exit code of its own; errors without one are wrong requests.
type failure struct {
	code int
	err  error
}

func (f failure) Error() string { return f.err.Error() }
func (f failure) Unwrap() error { return f.err }

// errInterrupted ends a run that the user stopped.
var errInterrupted = errors.New("interrupted")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the program at once
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// run is the whole program: results go to stdout, everything else to stderr. It returns the exit code.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := &cobra.Command{
		Use:   "evenkeel-fleet",
		Short: "Run a sweep of evenkeel on many machines",
		Long: `Evenkeel-fleet runs the plan of a sweep on the processors of one machine, of a few, or of a
cluster that has NATS JetStream already. Workers come and go; every cell is stored once, in the
folder of the sweep, and the tables are those of evenkeel sweep, byte for byte.

Exit codes: 0 fine, 1 it failed or units were given up, 2 the request was wrong, 75 try again,
130 interrupted.`,
		Example: `  evenkeel sweep --vary loss-free.rate=log:1e-4..1e-1:13 --seeds 8 --out rates --plan-only
  evenkeel-fleet run rates                                   on this machine
  evenkeel-fleet run rates --listen 127.0.0.1:4222           others may join, such as through ssh -R
  evenkeel-fleet work --nats-url nats://127.0.0.1:4222       a worker that joins
  evenkeel-fleet status --nats-url nats://127.0.0.1:4222     how far it is`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Version:       build(),
	}
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	root.AddCommand(runCommand(stdout, stderr), workCommand(stderr), statusCommand(stdout, stderr))
	root.SuggestionsMinimumDistance = 3
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		if name, ok := strings.CutPrefix(err.Error(), "unknown flag: --"); ok {
			return fmt.Errorf("there is no flag --%s: see %s --help", name, c.CommandPath())
		}
		return err
	})
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	if text, ok := strings.CutPrefix(err.Error(), "unknown command "); ok {
		name, _, _ := strings.Cut(text, " for ")
		err = fmt.Errorf("there is no command %s: see evenkeel-fleet --help", name)
	}
	for _, line := range strings.Split(err.Error(), "\n") {
		fmt.Fprintf(stderr, "evenkeel-fleet: %s\n", line)
	}
	var f failure
	var path *fs.PathError
	switch {
	case errors.As(err, &f):
		return f.code
	case errors.Is(err, errInterrupted) || errors.Is(err, context.Canceled):
		return exitInterrupted
	case errors.Is(err, fleet.ErrAway) || errors.Is(err, fleet.ErrInUse):
		return exitAgain
	case errors.As(err, &path) && path.Op == "write": // of standard output
		return exitFailed
	}
	return exitRequest
}

// version is the module's version and commit, as far as the build knows them, and whether the commit says all.
func version() (text string, exact bool) {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown", false
	}
	v := info.Main.Version
	revision, modified := "", false
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			revision = s.Value[:min(12, len(s.Value))]
		case "vcs.modified":
			modified = s.Value == "true"
		}
	}
	if !strings.Contains(v, revision) {
		v += " " + revision
	}
	return v, revision != "" && !modified
}

// build names this program for those that it works with: who takes part in a sweep must have the same. Where no commit says what
// the program is made of, its own hash does.
func build() string {
	v, exact := version()
	if exact {
		return v
	}
	name, err := os.Executable()
	if err != nil {
		return v
	}
	f, err := os.Open(name)
	if err != nil {
		return v
	}
	defer f.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, f); err != nil {
		return v
	}
	return v + " build " + hex.EncodeToString(sum.Sum(nil)[:6])
}
