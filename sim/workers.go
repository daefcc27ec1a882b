package sim

import (
	"sync"
	"sync/atomic"

	"evenkeel/moe"
)

// workers run the replicates of a comparison. A worker that finds no replicate left helps the others with the rounds of
// their steps. Who computes what never changes a result: the items of a round share nothing that they write.
type workers struct {
	next atomic.Int64
	idle chan *round // received by helpers only
	busy sync.WaitGroup
}

// run calls f for 0 ≤ i < n on the given number of workers, each with a scratch of its own, and returns when all calls have.
func (w *workers) run(count, n int, layer moe.Layer, f func(i int, s *moe.Scratch)) {
	w.idle = make(chan *round)
	w.busy.Add(n)
	var all sync.WaitGroup
	for range max(1, count) {
		all.Go(func() {
			s := moe.NewScratch(layer)
			for i := w.next.Add(1) - 1; i < int64(n); i = w.next.Add(1) - 1 {
				f(int(i), s)
				w.busy.Done()
			}
			for d := range w.idle {
				d.run(s)
				d.helpers.Done()
			}
		})
	}
	w.busy.Wait()
	close(w.idle)
	all.Wait()
}

// round is work on items that do not depend on each other. Every worker takes the next one until none is left.
type round struct {
	items   int
	do      func(item int, s *moe.Scratch)
	next    atomic.Int64
	helpers sync.WaitGroup
}

// share runs a round with those of w that are idle; w may be nil.
func (d *round) share(w *workers, s *moe.Scratch, items int, do func(item int, s *moe.Scratch)) {
	d.items, d.do = items, do
	d.next.Store(0)
	for asked := 1; w != nil && asked < items; asked++ {
		d.helpers.Add(1)
		select {
		case w.idle <- d:
			continue
		default:
			d.helpers.Done()
		}
		break
	}
	d.run(s)
	d.helpers.Wait()
}

func (d *round) run(s *moe.Scratch) {
	for i := d.next.Add(1) - 1; i < int64(d.items); i = d.next.Add(1) - 1 {
		d.do(int(i), s)
	}
}
