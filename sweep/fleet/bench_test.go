package fleet

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"evenkeel/sweep"
)

// alone is a plan of n cells, each a unit of its own.
func alone(b *testing.B, n int) *sweep.Plan {
	b.Helper()
	base := sweep.Base{Scenario: "uniform", Settings: []string{"experts=8", "topk=2", "tokens=64", "steps=4"}, Layer: -1}
	for i := range n {
		base.Seeds = append(base.Seeds, uint64(i+1))
	}
	p, err := sweep.New(base, []string{"loss-free.rate"}, "grid", func(yield func(sweep.Point) bool) { yield(sweep.Point{Values: []string{"1e-3"}}) })
	if err != nil {
		b.Fatal(err)
	}
	return p
}

// Trivial cells show what the engine takes for itself, flushing included: units of one cell and of 16, with the embedded server and
// with three servers that each keep everything.
func BenchmarkTrivialCells(b *testing.B) {
	ones, sixteens := alone(b, 4000), plan(b, 30, 250)
	for _, bench := range []struct {
		name     string
		p        *sweep.Plan
		replicas int
	}{{"alone", ones, 1}, {"by16", sixteens, 1}, {"alone3", ones, 3}, {"by16x3", sixteens, 3}} {
		b.Run(bench.name, func(b *testing.B) {
			for range b.N {
				f := open(b, b.TempDir(), bench.p)
				var nc *nats.Conn
				if bench.replicas > 1 {
					_, urls := cluster(b)
					nc = connect(b, urls)
				} else {
					nc = connected(b)
				}
				begin := time.Now()
				out, err := Run(context.Background(), nc, bench.p, f.store, Options{Workers: 2, Replicas: bench.replicas, Program: program, compute: stub})
				if err != nil || out.Ran != bench.p.Cells() {
					b.Fatal(out, err)
				}
				b.ReportMetric(float64(out.Ran)/time.Since(begin).Seconds(), "cells/s")
			}
		})
	}
}

// Cells of 100 ms beside the local pool, with as many workers.
func BenchmarkOverhead(b *testing.B) {
	p := alone(b, 400)
	asleep := func(ctx context.Context, cells []sweep.Cell) ([]*sweep.Record, error) {
		time.Sleep(time.Duration(len(cells)) * 100 * time.Millisecond)
		return stub(ctx, cells)
	}
	for _, workers := range []int{2, 8} {
		b.Run(fmt.Sprint(workers), func(b *testing.B) {
			for range b.N {
				f, nc := open(b, b.TempDir(), p), connected(b)
				begin := time.Now()
				if _, err := Run(context.Background(), nc, p, f.store, Options{Workers: workers, Private: true, Program: program, compute: asleep}); err != nil {
					b.Fatal(err)
				}
				ideal := time.Duration(p.Cells()) * 100 * time.Millisecond / time.Duration(workers) // what a pool without any cost takes
				b.ReportMetric(100*(float64(time.Since(begin))/float64(ideal)-1), "%overhead")
			}
		})
	}
}
