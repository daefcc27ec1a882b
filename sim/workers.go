package sim

import (
	"sync"
	"sync/atomic"
)

// workers run the replicates of a comparison. A worker that finds no replicate left helps the others: it takes contestants
// of their steps. Who computes what never changes a result, since contestants of a step share nothing that they write.
type workers struct {
	next atomic.Int64
	idle chan turn // received by helpers only
	busy sync.WaitGroup
}

// turn is one contestant's part of a step.
type turn struct {
	r    *replicate
	x    *contestant
	step int
}

func (t turn) run() { t.x.err = t.r.stepOne(t.x, t.step) }

// run calls f for 0 ≤ i < n on the given number of workers and returns when all calls have.
func (w *workers) run(count, n int, f func(i int)) {
	w.idle = make(chan turn)
	w.busy.Add(n)
	var helpers sync.WaitGroup
	for range max(1, count) {
		helpers.Go(func() {
			for i := w.next.Add(1) - 1; i < int64(n); i = w.next.Add(1) - 1 {
				f(int(i))
				w.busy.Done()
			}
			for t := range w.idle {
				t.run()
				t.r.away.Done()
			}
		})
	}
	w.busy.Wait()
	close(w.idle)
	helpers.Wait()
}

// take runs a turn, on a helper if one is idle. The replicate's away counts the turns that helpers have.
func (w *workers) take(t turn) {
	t.r.away.Add(1)
	select {
	case w.idle <- t:
	default:
		t.run()
		t.r.away.Done()
	}
}
