package main

import (
	"context"
	"errors"
	"testing"

	"github.com/spf13/cobra"
)

// A command that does not look at its context ends with it.
func TestInterruptedCommandsEnd(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	never := make(chan bool)
	defer close(never)
	c := interruptible(&cobra.Command{RunE: func(*cobra.Command, []string) error {
		cancel()
		<-never
		return nil
	}})
	c.SetArgs([]string{})
	if err := c.ExecuteContext(ctx); !errors.Is(err, errInterrupted) {
		t.Errorf("it ended with %v", err)
	}
	wrong := errors.New("wrong")
	c = interruptible(&cobra.Command{RunE: func(*cobra.Command, []string) error { return wrong }, SilenceErrors: true, SilenceUsage: true})
	c.SetArgs([]string{})
	if err := c.ExecuteContext(t.Context()); !errors.Is(err, wrong) {
		t.Errorf("it ended with %v", err)
	}
}
