// Package fleet runs a sweep on many machines by way of NATS JetStream: a coordinator that holds the sweep's folder publishes the
// units of its plan as tasks, workers that come and go compute them, and the coordinator stores each cell once.
//
// A sweep is one stream: its tasks, the results that the coordinator has not stored yet, and the letters of units that were given
// up. The plan and results too large for a message lie in an object store beside it. Delivery is at least once, and the store keeps
// a cell once, so nothing more is asked of the server. What cells compute, what their names are and how they are stored is decided
// in package sweep; here is only who runs them.
package fleet

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"evenkeel/sweep"
)

// Subjects of a sweep are root.PLAN.kind.UNIT; those without a unit are questions and remarks, which no stream keeps.
const (
	root         = "evenkeel"
	statusAsked  = root + ".status"
	taskKind     = "task"
	resultKind   = "result"
	deadKind     = "dead"
	noteKind     = "note"
	cardKey      = "evenkeel-sweep" // of the stream's metadata
	streamPrefix = "EVENKEEL_"
	takers       = "workers"     // the consumer of tasks
	storer       = "coordinator" // the consumer of results
	planObject   = "plan"
)

func stream(plan string) string { return streamPrefix + plan }

func subject(plan, kind, last string) string { return root + "." + plan + "." + kind + "." + last }

// Limits on what others send.
const (
	maxTask   = 1 << 10
	maxCard   = 4 << 10
	maxNote   = 4 << 10
	maxReport = 64 << 10
	maxHeader = 1 << 10 // of a result
	maxResult = 1 << 28 // lines of a unit
	maxPlan   = 1 << 28 // as package sweep reads

	leastTime       = 10 * time.Millisecond
	mostAckWait     = 24 * time.Hour
	mostUnitTimeout = 365 * 24 * time.Hour
)

// Defaults of Options.
const (
	AckWait     = 30 * time.Second
	UnitTimeout = time.Hour
	MaxDeliver  = 5
)

// ErrAway is that the servers cannot be reached, or have no leader, for longer than a failover takes. Another attempt goes on from
// what is stored.
var ErrAway = errors.New("the NATS servers cannot be reached")

// ErrInUse is that another coordinator runs the same plan.
var ErrInUse = errors.New("wait for it, or help it by evenkeel-fleet work")

// patience is how long servers may be away: electing a leader takes seconds.
const patience = 2 * time.Minute

// compute is what a worker does with the cells of a unit.
type compute func(context.Context, []sweep.Cell) ([]*sweep.Record, error)

// exists reports whether a publication was refused because the subject has its message already: streams of sweeps keep one of each.
func exists(err error) bool {
	var api *jetstream.APIError
	return errors.As(err, &api) && strings.Contains(api.Description, "maximum messages per subject")
}

// again calls f until it goes well, ctx ends, or the servers have been away for too long.
func again(ctx context.Context, f func(context.Context) error) error {
	begin := time.Now()
	for wait := 50 * time.Millisecond; ; wait = min(2*wait, 2*time.Second) {
		attempt, cancel := context.WithTimeout(ctx, 5*time.Second)
		err := f(attempt)
		cancel()
		switch {
		case err == nil || ctx.Err() == nil && final(err):
			return err
		case ctx.Err() != nil:
			return ctx.Err()
		case time.Since(begin) > patience:
			return errors.Join(ErrAway, err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
	}
}

// Errors of the servers about copies of a stream: none of the others is up yet, and there are no others.
const (
	noPeers    = 10005
	noReplicas = 10074
)

// final reports whether an error of the servers will stay: not that there is no leader now, or nobody who answers.
func final(err error) bool {
	var api *jetstream.APIError
	if errors.As(err, &api) {
		switch {
		case api.ErrorCode == noPeers:
			return false
		case api.ErrorCode == noReplicas || api.ErrorCode == jetstream.JSErrCodeJetStreamNotEnabledForAccount:
			return true
		}
		return api.Code >= 400 && api.Code < 500 && api.Code != 408 && api.Code != 429
	}
	return errors.Is(err, jetstream.ErrObjectNotFound) || errors.Is(err, jetstream.ErrDigestMismatch)
}
