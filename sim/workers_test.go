package sim

import (
	"runtime"
	"sync/atomic"
	"testing"

	"evenkeel/moe"
)

// Every item of a round is done once, and idle workers take their share.
func TestIdleWorkersHelp(t *testing.T) {
	layer := moe.Layer{Experts: 4, TopK: 1, Groups: 1, GroupsKept: 1}
	w := new(workers)
	var helped atomic.Bool
	w.run(3, 1, layer, func(_ int, own *moe.Scratch) {
		var d round
		for i := 0; i < 1_000_000 && !helped.Load(); i++ { // helpers may not be there yet
			done := make([]atomic.Int32, 5)
			d.share(w, own, len(done), func(item int, s *moe.Scratch) {
				done[item].Add(1)
				if s != own {
					helped.Store(true)
				}
				runtime.Gosched()
			})
			for item := range done {
				if n := done[item].Load(); n != 1 {
					t.Fatalf("item %d was done %d times", item, n)
				}
			}
		}
	})
	if !helped.Load() {
		t.Error("nobody helped in a million rounds")
	}
}

func TestChunksCoverTheTiles(t *testing.T) {
	for tiles := 1; tiles < 70; tiles++ {
		next := 0
		for chunk := range gradientChunks {
			from, to := chunkOf(chunk, tiles)
			for i := from; i < to; i++ {
				if i != next || i*gradientChunks/tiles != chunk {
					t.Fatalf("tile %d of %d is in chunk %d", i, tiles, chunk)
				}
				next++
			}
		}
		if next != tiles {
			t.Fatalf("chunks hold %d of %d tiles", next, tiles)
		}
	}
}
