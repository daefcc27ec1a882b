package sweep

import (
	"context"
	"fmt"
	"math"
	"path/filepath"
	"runtime"
	"strconv"
	"testing"
	"time"
)

// million is a base and points of a million cells, in one of two ways: a grid under eight seeds, or points that share no value, as of
// a sampled design.
func million(t testing.TB, sampled bool, n int) (Base, []string, func(yield func(Point) bool)) {
	b := small(t, "loss-free")
	axes := []string{"tokens", "loss-free.rate"}
	if sampled {
		b.Seeds = []uint64{1}
		return b, axes, func(yield func(Point) bool) {
			for i := range n {
				if !yield(Point{Values: []string{strconv.Itoa(32 + i%512), strconv.FormatFloat(1e-4*(1+float64(i)/float64(n)), 'g', -1, 64)}}) {
					return
				}
			}
		}
	}
	b.Seeds = []uint64{1, 2, 3, 4, 5, 6, 7, 8}
	var tokens, rates []string
	for i := range 125 {
		tokens = append(tokens, strconv.Itoa(32+i))
	}
	for i := range n / 1000 {
		rates = append(rates, strconv.FormatFloat(1e-4*float64(i+1), 'g', -1, 64))
	}
	return b, axes, grid(tokens, rates)
}

// plans does with a plan all that comes before the first cell runs: it is made, written, read by another process, cut into units and
// shards, and its cells are named and looked for in an empty folder.
func plans(t testing.TB, dir string, sampled bool, n int) *Plan {
	t.Helper()
	b, axes, points := million(t, sampled, n)
	p, err := New(b, axes, "bench", points)
	if err != nil {
		t.Fatal(err)
	}
	f, err := Hold(dir, p, Keep, false)
	if err != nil {
		t.Fatal(err)
	}
	f.Release()
	if p, err = ReadPlan(filepath.Join(dir, PlanFile)); err != nil {
		t.Fatal(err)
	}
	if p.Cells() != n {
		t.Fatalf("%d cells", p.Cells())
	}
	s, err := Open(dir, p, Shard{})
	if err != nil {
		t.Fatal(err)
	}
	missing := 0
	for _, u := range (Shard{1, 1}).Units(p) {
		missing += len(s.Missing(u))
	}
	if missing != n {
		t.Fatalf("%d cells are missing", missing)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return p
}

// heapPeak is the most that the heap held while f ran, looked at often.
func heapPeak(f func()) uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	base, peak := m.HeapAlloc, m.HeapAlloc
	done, over := make(chan bool), make(chan bool)
	go func() {
		defer close(over)
		for {
			select {
			case <-done:
				return
			case <-time.After(5 * time.Millisecond):
				var m runtime.MemStats
				runtime.ReadMemStats(&m)
				peak = max(peak, m.HeapAlloc)
			}
		}
	}()
	f()
	close(done)
	<-over
	return peak - base
}

// A plan of a million cells takes at most 500 MB, rubbish included. A sampled one, where each cell has a spec of its own, is looked at
// in part: BenchmarkMillionCells measures all of it.
func TestMillionCellsFit(t *testing.T) {
	for _, x := range []struct {
		sampled bool
		n       int
		most    uint64 // MB
	}{{false, 1_000_000, 500}, {true, 100_000, 50}} {
		dir := t.TempDir()
		peak := heapPeak(func() { plans(t, dir, x.sampled, x.n) })
		t.Logf("sampled %v: %d cells, %d MB", x.sampled, x.n, peak>>20)
		if peak > x.most<<20 {
			t.Errorf("sampled %v: a plan of %d cells took %d MB", x.sampled, x.n, peak>>20)
		}
	}
}

func BenchmarkMillionCells(b *testing.B) {
	for _, sampled := range []bool{false, true} {
		b.Run(map[bool]string{false: "grid", true: "sampled"}[sampled], func(b *testing.B) {
			peak := uint64(0)
			for b.Loop() {
				peak = max(peak, heapPeak(func() { plans(b, b.TempDir(), sampled, 1_000_000) }))
			}
			b.ReportMetric(float64(peak)/1e6, "peak-MB")
		})
	}
}

// stubbed fills a folder with records of a plan that cost nothing, and collects it.
func stubbed(t testing.TB, dir string, p *Plan) {
	t.Helper()
	f, err := Hold(dir, p, Keep, false)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Release()
	s, err := Open(dir, p, Shard{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Run(context.Background(), p, s, Options{compute: stub(0)}); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := Collect(context.Background(), dir, p, nil); err != nil {
		t.Fatal(err)
	}
}

// stub computes made-up records after some work for each cell.
func stub(work time.Duration) func(context.Context, []Cell) ([]*Record, error) {
	return func(_ context.Context, cells []Cell) ([]*Record, error) {
		records := make([]*Record, len(cells))
		for i, c := range cells {
			x := math.Mod(float64(c.Index)*0.6180339887, 1)
			records[i] = &Record{Values: map[string]float64{"maxvio_global": x, "affinity_kept": 1 - x}, Floors: map[string]float64{"maxvio_global": 0.01}}
			spin(work)
		}
		return records, nil
	}
}

// spin keeps a processor busy.
func spin(d time.Duration) {
	for begin := time.Now(); time.Since(begin) < d; {
	}
}

func BenchmarkMillionRows(b *testing.B) {
	base, axes, points := million(b, false, 1_000_000)
	p, err := New(base, axes, "bench", points)
	if err != nil {
		b.Fatal(err)
	}
	dir := b.TempDir()
	stubbed(b, dir, p)
	b.Run("project", func(b *testing.B) {
		for b.Loop() {
			r, err := OpenResults(dir)
			if err != nil {
				b.Fatal(err)
			}
			t, err := r.Project(Query{Rows: []string{"loss-free.rate"}, Columns: []string{"tokens"}, Metric: "maxvio_global"})
			if err != nil || len(t.RowLabels) != 1000 || len(t.ColumnLabels) != 125 || len(t.Groups[0][0].Values) != 8 {
				b.Fatal(err)
			}
			if err := r.Close(); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("collect", func(b *testing.B) {
		for b.Loop() {
			if _, err := Collect(context.Background(), dir, p, nil); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("open", func(b *testing.B) {
		for b.Loop() {
			s, err := Open(dir, p, Shard{})
			if err != nil {
				b.Fatal(err)
			}
			if err := s.Close(); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkEngine is the local pool alone: cells that cost nothing, each a unit of its own, and what it adds to cells of 100 ms.
func BenchmarkEngine(b *testing.B) {
	base := small(b, "none")
	base.Seeds = nil
	for i := range 20_000 {
		base.Seeds = append(base.Seeds, uint64(i))
	}
	one := func(yield func(Point) bool) { yield(Point{}) }
	p, err := New(base, nil, "bench", one)
	if err != nil {
		b.Fatal(err)
	}
	for _, workers := range []int{1, 2} {
		b.Run(fmt.Sprintf("trivial/workers=%d", workers), func(b *testing.B) {
			for b.Loop() {
				s, err := Open(b.TempDir(), p, Shard{})
				if err != nil {
					b.Fatal(err)
				}
				if _, err := Run(context.Background(), p, s, Options{Workers: workers, compute: stub(0)}); err != nil {
					b.Fatal(err)
				}
				if err := s.Close(); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(p.Cells())*float64(b.N)/b.Elapsed().Seconds(), "cells/s")
		})
	}
	base.Seeds = base.Seeds[:20]
	if p, err = New(base, nil, "bench", one); err != nil {
		b.Fatal(err)
	}
	b.Run("100ms", func(b *testing.B) {
		least := math.Inf(1)
		for b.Loop() {
			s, err := Open(b.TempDir(), p, Shard{})
			if err != nil {
				b.Fatal(err)
			}
			sleep := func(ctx context.Context, cells []Cell) ([]*Record, error) {
				time.Sleep(time.Duration(len(cells)) * 100 * time.Millisecond)
				return stub(0)(ctx, cells)
			}
			begin := time.Now()
			if _, err := Run(context.Background(), p, s, Options{Workers: 2, compute: sleep}); err != nil {
				b.Fatal(err)
			}
			if err := s.Close(); err != nil {
				b.Fatal(err)
			}
			least = min(least, float64(time.Since(begin)))
		}
		ideal := float64(p.Cells()) / 2 * float64(100*time.Millisecond)
		b.ReportMetric(100*(least/ideal-1), "%overhead")
	})
}

// BenchmarkTwoWorkers is real cells by one worker and by two; the best of all repetitions of each, as others may use the machine.
func BenchmarkTwoWorkers(b *testing.B) {
	base := small(b, "none", "loss-free", "aux-loss")
	base.Settings = []string{"experts=32", "topk=4", "tokens=1024", "steps=20", "evaluation_tokens=1024"}
	base.Seeds = []uint64{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}
	p, err := New(base, nil, "bench", func(yield func(Point) bool) { yield(Point{}) })
	if err != nil {
		b.Fatal(err)
	}
	best := [3]float64{1: math.Inf(1), 2: math.Inf(1)}
	for b.Loop() {
		for workers := 1; workers <= 2; workers++ {
			s, err := Open(b.TempDir(), p, Shard{})
			if err != nil {
				b.Fatal(err)
			}
			begin := time.Now()
			if _, err := Run(context.Background(), p, s, Options{Workers: workers}); err != nil {
				b.Fatal(err)
			}
			best[workers] = min(best[workers], time.Since(begin).Seconds())
			if err := s.Close(); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.ReportMetric(best[1]/best[2], "speedup")
}
