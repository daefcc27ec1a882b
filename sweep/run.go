package sweep

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
)

// Shard is one of several parts of a plan, 1 to Of. The zero value is the whole.
type Shard struct{ Index, Of int }

// String is 3/16, or 1/1 for the whole.
func (s Shard) String() string { return fmt.Sprintf("%d/%d", max(1, s.Index), max(1, s.Of)) }

// ParseShard reads 3/16.
func ParseShard(text string) (s Shard, err error) {
	index, of, _ := strings.Cut(text, "/")
	s.Index, _ = strconv.Atoi(index)
	s.Of, _ = strconv.Atoi(of)
	if s.Index < 1 || s.Index > s.Of || s.String() != text {
		return Shard{}, fmt.Errorf("shard %q: want i/n, such as 3/16, with i from 1 to n", text)
	}
	return s, nil
}

// Units returns the units of a shard: every n-th one, so that all shards have cells of all kinds.
func (s Shard) Units(p *Plan) (units []Unit) {
	for i, u := range p.Units() {
		if s.Of <= 1 || i%s.Of == s.Index-1 {
			units = append(units, u)
		}
	}
	return units
}

// Options of a run.
type Options struct {
	Shard    Shard
	Workers  int                   // they take units; 0: one for each processor
	Progress func(done, total int) // cells
	Memory   float64               // bytes that all workers together may take; 0: any

	compute func(context.Context, []Cell) ([]*Record, error) // stands for Plan.Compute where the engine alone is looked at
}

// Outcome is what a run of a shard did.
type Outcome struct {
	Cells int // of the shard
	Ran   int // of those, now
}

// Run runs the cells of a shard that the store does not hold yet. It may be stopped in any way and called again. When ctx ends,
// the error is ctx's, and what was finished is stored.
func Run(ctx context.Context, p *Plan, s *Store, o Options) (out Outcome, err error) {
	units := o.Shard.Units(p)
	for _, u := range units {
		out.Cells += len(p.Of(u))
	}
	workers := o.Workers
	if workers <= 0 {
		workers = runtime.GOMAXPROCS(0)
	}
	compute := o.compute
	if compute == nil {
		c := NewComputer(p)
		c.Memory = o.Memory / float64(min(workers, max(1, len(units))))
		compute = c.Compute
	}
	var next, finished, ran atomic.Int64
	var group sync.WaitGroup
	failures := make([]error, workers)
	stop, cancel := context.WithCancel(ctx)
	defer cancel()
	for i := range workers {
		group.Go(func() {
			for n := next.Add(1) - 1; n < int64(len(units)) && stop.Err() == nil; n = next.Add(1) - 1 {
				if cells := s.Missing(units[n]); len(cells) > 0 {
					records, err := compute(stop, cells)
					if err == nil {
						err = s.Put(cells, records)
					}
					if err != nil {
						failures[i] = err
						cancel()
						return
					}
					ran.Add(int64(len(cells)))
				}
				if done := finished.Add(int64(len(p.Of(units[n])))); o.Progress != nil {
					o.Progress(int(done), out.Cells)
				}
			}
		})
	}
	group.Wait()
	out.Ran = int(ran.Load())
	for _, f := range failures {
		if f != nil && !errors.Is(f, context.Canceled) {
			return out, f
		}
	}
	return out, ctx.Err()
}
