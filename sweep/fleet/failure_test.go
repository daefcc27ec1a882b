package fleet

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"evenkeel/sweep"
)

// ports returns free ones of this machine.
func ports(t testing.TB, n int) (list []int) {
	t.Helper()
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		list = append(list, l.Addr().(*net.TCPAddr).Port)
	}
	return list
}

// cluster starts three servers in this process.
func cluster(t testing.TB) (servers []*server.Server, urls string) {
	t.Helper()
	routes := ports(t, 3)
	var text, list []string
	for _, port := range routes {
		text = append(text, fmt.Sprintf("nats://127.0.0.1:%d", port))
	}
	for i, port := range routes {
		s, err := server.NewServer(&server.Options{ServerName: fmt.Sprint("s", i), Host: "127.0.0.1", Port: server.RANDOM_PORT, JetStream: true, StoreDir: t.TempDir(), SyncAlways: true,
			NoLog: true, NoSigs: true, Cluster: server.ClusterOpts{Name: "test", Host: "127.0.0.1", Port: port}, Routes: server.RoutesFromStr(strings.Join(text, ","))})
		if err != nil {
			t.Fatal(err)
		}
		s.Start()
		t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
		servers = append(servers, s)
	}
	for _, s := range servers {
		if !s.ReadyForConnections(10 * time.Second) {
			t.Fatal("a server of the cluster does not start")
		}
		list = append(list, s.ClientURL())
	}
	leads := func(s *server.Server) bool { return s.JetStreamIsLeader() }
	for begin := time.Now(); !slices.ContainsFunc(servers, leads); time.Sleep(10 * time.Millisecond) {
		if time.Since(begin) > time.Minute {
			t.Fatal("the cluster elects no leader")
		}
	}
	return servers, strings.Join(list, ",")
}

func connect(t testing.TB, urls string) *nats.Conn {
	t.Helper()
	nc, err := Connect(urls, Access{}, false)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	return nc
}

// working starts a process's worth of workers that end with the test.
func working(t testing.TB, nc *nats.Conn, o WorkOptions) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var group sync.WaitGroup
	group.Go(func() { Work(ctx, nc, o) })
	t.Cleanup(func() { cancel(); group.Wait() })
}

func TestTheLeaderIsStoppedInTheMiddle(t *testing.T) {
	t.Parallel()
	p := plan(t, 40, 12)
	want := local(t, p)
	servers, urls := cluster(t)
	f := open(t, t.TempDir(), p)
	working(t, connect(t, urls), WorkOptions{Workers: 2, Program: program})
	nc := connect(t, urls)
	js, _ := jetstream.New(nc)
	var stopped atomic.Bool
	out, err := Run(deadline(t), nc, p, f.store, quick(Options{Workers: 1, Replicas: 3, Progress: func(done, total int) {
		if done < total/3 || stopped.Swap(true) {
			return
		}
		info, err := js.Stream(context.Background(), stream(p.Hash()))
		if err != nil {
			t.Error(err)
			return
		}
		for _, s := range servers {
			if s.Name() == info.CachedInfo().Cluster.Leader {
				s.Shutdown()
				return
			}
		}
		t.Errorf("no server is the leader %s", info.CachedInfo().Cluster.Leader)
	}}))
	if err != nil {
		t.Fatal(err)
	}
	if !stopped.Load() || out.Ran != p.Cells() || len(out.Dead) > 0 {
		t.Errorf("%+v", out)
	}
	same(t, f.files(t), want)
	f.once(t)
}

// stub stands for simulation: every cell has one figure.
func stub(_ context.Context, cells []sweep.Cell) (records []*sweep.Record, err error) {
	for _, c := range cells {
		records = append(records, &sweep.Record{Values: map[string]float64{"maxvio_global": float64(c.Index)}})
	}
	return records, nil
}

// first is a stub that does something else for the first units that it is given.
func first(n int64, otherwise compute) compute {
	var count atomic.Int64
	return func(ctx context.Context, cells []sweep.Cell) ([]*sweep.Record, error) {
		if count.Add(1) <= n {
			return otherwise(ctx, cells)
		}
		return stub(ctx, cells)
	}
}

func TestAWorkerHangs(t *testing.T) {
	t.Parallel()
	p := plan(t, 20, 3)
	release := make(chan struct{})
	defer close(release)
	for name, hang := range map[string]compute{
		"and heeds its end": func(ctx context.Context, _ []sweep.Cell) ([]*sweep.Record, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		},
		"and heeds nothing": func(context.Context, []sweep.Cell) ([]*sweep.Record, error) {
			<-release
			return nil, errors.New("released")
		},
		"and panics": func(context.Context, []sweep.Cell) ([]*sweep.Record, error) { panic("at once") },
	} {
		t.Run(name, func(t *testing.T) {
			nc := connected(t)
			f := open(t, t.TempDir(), p)
			working(t, nc, WorkOptions{Workers: 1, Program: program, compute: first(2, hang), grace: 20 * time.Millisecond})
			out, err := Run(deadline(t), nc, p, f.store, quick(Options{AckWait: 300 * time.Millisecond, UnitTimeout: 100 * time.Millisecond}))
			if err != nil {
				t.Fatal(err)
			}
			if out.Ran != p.Cells() || out.Redelivered == 0 || len(out.Dead) > 0 {
				t.Errorf("%+v", out)
			}
			f.once(t)
		})
	}
}

// A process that stops altogether sends no heartbeat: what it holds goes to another when the wait is over.
func TestATakenTaskComesBack(t *testing.T) {
	t.Parallel()
	p := plan(t, 20, 3)
	nc := connected(t)
	f := open(t, t.TempDir(), p)
	ctx := deadline(t)
	go func() {
		js, _ := jetstream.New(nc)
		held := map[uint64]bool{}
		for ctx.Err() == nil && len(held) < 3 {
			c, err := js.Consumer(ctx, stream(p.Hash()), takers)
			if err != nil {
				continue
			}
			message, err := c.Next(jetstream.FetchMaxWait(100 * time.Millisecond))
			if err != nil {
				continue
			}
			if m, err := message.Metadata(); err == nil {
				held[m.Sequence.Stream] = true
			}
		}
		working(t, nc, WorkOptions{Workers: 2, Program: program, compute: stub})
	}()
	out, err := Run(ctx, nc, p, f.store, quick(Options{AckWait: 500 * time.Millisecond}))
	if err != nil {
		t.Fatal(err)
	}
	if out.Ran != p.Cells() || out.Redelivered != 3 {
		t.Errorf("%+v, want 3 redelivered", out)
	}
	f.once(t)
}

// liar answers the first tasks with what make returns, and then leaves.
func liar(ctx context.Context, t testing.TB, nc *nats.Conn, p *sweep.Plan, times int, make func(task) []byte) {
	t.Helper()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Error(err)
		return
	}
	for ctx.Err() == nil && times > 0 {
		c, err := js.Consumer(ctx, stream(p.Hash()), takers)
		if err != nil {
			time.Sleep(10 * time.Millisecond)
			continue
		}
		msg, err := c.Next(jetstream.FetchMaxWait(time.Second))
		if err != nil {
			continue
		}
		o, err := decodeTask(msg.Data())
		if err != nil {
			t.Error(err)
		}
		if body := make(o); body != nil {
			if _, err := js.Publish(ctx, subject(p.Hash(), resultKind, fmt.Sprint(o.Unit)), body); err != nil && !exists(err) {
				t.Error(err)
			}
		}
		msg.DoubleAck(ctx)
		times--
	}
}

func TestGarbageIsRunAgain(t *testing.T) {
	t.Parallel()
	p := plan(t, 20, 3)
	wire, err := sweep.NewWire(p)
	if err != nil {
		t.Fatal(err)
	}
	units := p.Units()
	real := func(o task, program string, change func([]sweep.Cell, []*sweep.Record) []sweep.Cell) []byte {
		cells := p.Of(units[o.Unit])
		records, _ := stub(context.Background(), cells)
		cells = change(cells, records)
		lines, err := wire.EncodeRecords(cells, records)
		if err != nil {
			t.Fatal(err)
		}
		return append(append(encode(header{Plan: o.Plan, Unit: o.Unit, Format: sweep.Format, Program: program, Worker: "liar\x1b[2J"}), '\n'), lines...)
	}
	keep := func(cells []sweep.Cell, _ []*sweep.Record) []sweep.Cell { return cells }
	for name, make := range map[string]func(task) []byte{
		"noise": func(task) []byte { return []byte("\x00\xff garbage\n") },
		"empty": func(task) []byte { return []byte{} },
		"cut":   func(o task) []byte { b := real(o, program, keep); return b[:len(b)-7] },
		"flipped": func(o task) []byte {
			b := real(o, program, keep)
			b[len(b)-5] ^= 1
			return b
		},
		"other cells": func(o task) []byte {
			return real(o, program, func(c []sweep.Cell, _ []*sweep.Record) []sweep.Cell { slices.Reverse(c); return c })
		},
		"other plan":    func(o task) []byte { o.Plan = "0123456789abcdef"; return real(o, program, keep) },
		"other unit":    func(o task) []byte { o.Unit = (o.Unit + 1) % len(units); return real(o, program, keep) },
		"other program": func(o task) []byte { return real(o, "v2 other", keep) },
		"other object": func(o task) []byte {
			return append(encode(header{Plan: o.Plan, Unit: o.Unit, Format: sweep.Format, Program: program, Object: planObject}), '\n')
		},
		"no object": func(o task) []byte {
			return append(encode(header{Plan: o.Plan, Unit: o.Unit, Format: sweep.Format, Program: program, Object: fmt.Sprint("result-", o.Unit, "-1-x")}), '\n')
		},
		"silence": func(task) []byte { return nil },
	} {
		t.Run(name, func(t *testing.T) {
			nc := connected(t)
			f := open(t, t.TempDir(), p)
			ctx := deadline(t)
			go func() {
				liar(ctx, t, nc, p, 2, make)
				Work(ctx, nc, WorkOptions{Workers: 1, Program: program, compute: stub})
			}()
			var mu sync.Mutex
			var remarks []string
			out, err := Run(ctx, nc, p, f.store, quick(Options{Log: func(s string) { mu.Lock(); defer mu.Unlock(); remarks = append(remarks, s) }}))
			if err != nil {
				t.Fatal(err)
			}
			garbage := 2
			if name == "silence" {
				garbage = 0
			}
			if out.Ran != p.Cells() || out.Garbage != garbage || len(out.Dead) > 0 {
				t.Errorf("%+v, want %d of garbage", out, garbage)
			}
			mu.Lock()
			defer mu.Unlock()
			if len(remarks) < 2 || strings.ContainsRune(strings.Join(remarks, ""), 0x1b) {
				t.Errorf("remarks: %q", remarks)
			}
			f.once(t)
		})
	}
}

func TestAfterItsAttemptsAUnitIsGivenUpByName(t *testing.T) {
	t.Parallel()
	p := plan(t, 20, 3)
	poison := p.Of(p.Units()[1])[0].Index
	nc := connected(t)
	dir := t.TempDir()
	f := open(t, dir, p)
	var tries atomic.Int64
	o := quick(Options{Workers: 2, MaxDeliver: 2, AckWait: time.Second, compute: func(ctx context.Context, cells []sweep.Cell) ([]*sweep.Record, error) {
		if cells[0].Index == poison {
			tries.Add(1)
			panic("poison")
		}
		return stub(ctx, cells)
	}})
	out, err := Run(deadline(t), nc, p, f.store, o)
	if err != nil {
		t.Fatal(err)
	}
	cells := len(p.Of(p.Units()[1]))
	if len(out.Dead) != 1 || out.Dead[0].Unit != 1 || len(out.Dead[0].Cells) != cells || out.Dead[0].Reason != "it panicked: poison" || tries.Load() != 2 || out.Ran != p.Cells()-cells {
		t.Errorf("%+v after %d attempts", out, tries.Load())
	}
	js, _ := jetstream.New(nc)
	s, err := js.Stream(deadline(t), stream(p.Hash()))
	if err != nil {
		t.Fatal(err)
	}
	letter, err := s.GetLastMsgForSubject(deadline(t), subject(p.Hash(), deadKind, "1"))
	if err != nil {
		t.Fatal(err)
	}
	if l, err := decode[Letter](letter.Data, maxReport); err != nil || l.Reason != out.Dead[0].Reason {
		t.Errorf("the letter is %s: %v", letter.Data, err)
	}
	// Another run tries it again.
	o.compute = stub
	if out, err = Run(deadline(t), nc, p, f.store, o); err != nil || out.Ran != cells || len(out.Dead) > 0 {
		t.Errorf("%+v, %v", out, err)
	}
	f.once(t)
}

func TestGarbageIsGivenUpInTheEnd(t *testing.T) {
	t.Parallel()
	p := plan(t, 1, 1)
	nc := connected(t)
	f := open(t, t.TempDir(), p)
	ctx, cancel := context.WithCancel(deadline(t))
	defer cancel()
	go liar(ctx, t, nc, p, 1000, func(task) []byte { return []byte("garbage") })
	out, err := Run(ctx, nc, p, f.store, quick(Options{MaxDeliver: 3}))
	if err != nil {
		t.Fatal(err)
	}
	if units := len(p.Units()); len(out.Dead) != units || out.Garbage != 3*units || out.Ran != 0 || !strings.Contains(out.Dead[0].Reason, "no header") {
		t.Errorf("%+v", out)
	}
}

func TestAnotherProgramIsRefusedByName(t *testing.T) {
	t.Parallel()
	p := plan(t, 2, 1)
	nc := connected(t)
	f := open(t, t.TempDir(), p)
	ctx := deadline(t)
	refused := make(chan error, 1)
	go func() {
		refused <- Work(ctx, nc, WorkOptions{Workers: 1, Program: "v2 other"})
		Work(ctx, nc, WorkOptions{Workers: 1, Program: program})
	}()
	out, err := Run(ctx, nc, p, f.store, quick(Options{}))
	if err != nil {
		t.Fatal(err)
	}
	var refusal *RefusedError
	if err := <-refused; !errors.As(err, &refusal) || !strings.Contains(err.Error(), "v2 other") || !strings.Contains(err.Error(), program) {
		t.Errorf("the worker ended with %v", err)
	}
	if len(out.Refused) != 1 || !strings.Contains(out.Refused[0], "v2 other") || out.Ran != p.Cells() {
		t.Errorf("%+v", out)
	}
}

func TestAnotherPlanUnderTheSameNameIsRefused(t *testing.T) {
	t.Parallel()
	p, other := plan(t, 2, 1), plan(t, 3, 1)
	nc := connected(t)
	f := open(t, t.TempDir(), p)
	c, err := newCoordinator(nc, p, f.store, quick(Options{}))
	if err != nil {
		t.Fatal(err)
	}
	ctx := deadline(t)
	if c.js, err = jetstream.New(nc); err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func() error{
		"another plan": func() error { _, err := c.queue.Load().objects.PutBytes(ctx, planObject, other.Encode()); return err },
		"no plan": func() error {
			_, err := c.queue.Load().objects.PutBytes(ctx, planObject, []byte("#!/bin/sh"))
			return err
		},
		"other names": func() error {
			c.card.Fingerprint = "0000"
			return c.set(ctx)
		},
		"a card of the future": func() error {
			config := c.queue.Load().stream.CachedInfo().Config
			config.Metadata = map[string]string{cardKey: `{"plan":"` + p.Hash() + `","format":2,"news":true}`}
			_, err := c.js.UpdateStream(ctx, config)
			return err
		},
	} {
		if err := c.set(ctx); err != nil {
			t.Fatal(err)
		}
		if err := spoil(); err != nil {
			t.Fatal(err)
		}
		var refusal *RefusedError
		err := Work(ctx, nc, WorkOptions{Workers: 1, Program: program, compute: func(context.Context, []sweep.Cell) ([]*sweep.Record, error) {
			t.Error(name, " was run")
			return nil, nil
		}})
		if !errors.As(err, &refusal) || !strings.Contains(err.Error(), p.Hash()) {
			t.Errorf("%s: %v", name, err)
		}
		c.card.Fingerprint = c.wire.Fingerprint()
	}
}

func TestACoordinatorThatStopsGoesOn(t *testing.T) {
	t.Parallel()
	p := plan(t, 40, 6)
	want := local(t, p)
	nc := connected(t)
	dir := t.TempDir()
	computer := sweep.NewComputer(p)
	ran := 0
	for i := range 4 {
		f := open(t, dir, p)
		ctx, cancel := context.WithCancel(deadline(t))
		var begun atomic.Int64
		out, err := Run(ctx, nc, p, f.store, quick(Options{Workers: 2, Progress: func(done, total int) {
			if i < 3 && done >= (i+1)*total/5 {
				cancel()
			}
		}, compute: func(ctx context.Context, cells []sweep.Cell) ([]*sweep.Record, error) {
			if i < 3 && begun.Add(1) > 11 { // of 36 units: enough to be stopped by, too few to be done in three runs
				<-ctx.Done()
				return nil, ctx.Err()
			}
			return computer.Compute(ctx, cells)
		}}))
		cancel()
		if i < 3 && !errors.Is(err, context.Canceled) || i == 3 && err != nil {
			t.Fatalf("run %d: %v", i, err)
		}
		ran += out.Ran
		if i < 3 {
			f.close()
			continue
		}
		if ran != p.Cells() {
			t.Errorf("%d cells were stored, of %d", ran, p.Cells())
		}
		same(t, f.files(t), want)
		f.once(t)
	}
}

// Workers need no coordinator for what it has published: their results wait for it.
func TestWorkersGoOnWithoutTheCoordinator(t *testing.T) {
	t.Parallel()
	p := plan(t, 20, 3)
	nc := connected(t)
	dir := t.TempDir()
	f := open(t, dir, p)
	ctx, cancel := context.WithCancel(deadline(t))
	defer cancel()
	var units atomic.Int64
	published := make(chan struct{})
	go func() {
		defer cancel() // the coordinator
		for ctx.Err() == nil {
			if s, err := Ask(ctx, nc); err == nil && len(s.Sweeps) > 0 && s.Sweeps[0].Waiting == len(p.Units()) {
				close(published)
				return
			}
		}
	}()
	if _, err := Run(ctx, nc, p, f.store, quick(Options{})); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	<-published
	working(t, nc, WorkOptions{Workers: 2, Program: program, compute: func(ctx context.Context, cells []sweep.Cell) ([]*sweep.Record, error) {
		units.Add(1)
		return stub(ctx, cells)
	}})
	for ctx := deadline(t); ; {
		s, err := Ask(ctx, nc)
		if err != nil {
			t.Fatal(err)
		}
		if len(s.Sweeps) == 1 && s.Sweeps[0].Results == len(p.Units()) && s.Sweeps[0].Host == "" {
			break
		}
	}
	out, err := Run(deadline(t), nc, p, f.store, quick(Options{}))
	if err != nil || out.Ran != p.Cells() || units.Load() != int64(len(p.Units())) {
		t.Errorf("%+v, %v: %d units were computed, of %d", out, err, units.Load(), len(p.Units()))
	}
	f.once(t)
}

func TestOneServerKeepsNoThreeCopies(t *testing.T) {
	t.Parallel()
	p := plan(t, 1, 1)
	f := open(t, t.TempDir(), p)
	if _, err := Run(deadline(t), connected(t), p, f.store, quick(Options{Replicas: 3})); err == nil || errors.Is(err, ErrAway) || !strings.Contains(err.Error(), "--replicas 1") {
		t.Error(err)
	}
}

func TestTwoCoordinators(t *testing.T) {
	t.Parallel()
	p := plan(t, 1, 1)
	nc := connected(t)
	dir := t.TempDir()
	f := open(t, dir, p)
	if _, err := sweep.Hold(dir, p, sweep.Keep, false); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("a second one in the same folder: %v", err)
	}
	ctx, cancel := context.WithCancel(deadline(t))
	var group sync.WaitGroup
	group.Go(func() { Run(ctx, nc, p, f.store, quick(Options{})) })
	defer group.Wait()
	defer cancel()
	for {
		reports, err := ask(nc, 100*time.Millisecond)
		if err != nil || ctx.Err() != nil {
			t.Fatal(err, ctx.Err())
		}
		if len(reports) > 0 {
			break
		}
	}
	g := open(t, t.TempDir(), p)
	if _, err := Run(ctx, nc, p, g.store, quick(Options{})); !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), p.Hash()) {
		t.Errorf("a second one of the same plan: %v", err)
	}
}

func TestDrainFinishesWhatRuns(t *testing.T) {
	t.Parallel()
	p := plan(t, 20, 3)
	nc := connected(t)
	f := open(t, t.TempDir(), p)
	ctx := deadline(t)
	drain := make(chan struct{})
	var once sync.Once
	var begun, ended atomic.Int64
	drained := make(chan error, 1)
	go func() {
		drained <- Work(ctx, nc, WorkOptions{Workers: 2, Program: program, Drain: drain, compute: func(ctx context.Context, cells []sweep.Cell) ([]*sweep.Record, error) {
			begun.Add(1)
			once.Do(func() { close(drain) })
			time.Sleep(50 * time.Millisecond)
			defer ended.Add(1)
			return stub(ctx, cells)
		}})
		Work(ctx, nc, WorkOptions{Workers: 1, Program: program, compute: stub})
	}()
	out, err := Run(ctx, nc, p, f.store, quick(Options{}))
	if err != nil {
		t.Fatal(err)
	}
	if err := <-drained; err != nil || begun.Load() != ended.Load() || begun.Load() > 4 {
		t.Errorf("drained with %v after %d begun and %d ended", err, begun.Load(), ended.Load())
	}
	if out.Redelivered != 0 || out.Ran != p.Cells() {
		t.Errorf("%+v: what ran was not finished", out)
	}
}

func TestLargeResultsGoThroughTheObjectStore(t *testing.T) {
	t.Parallel()
	p := plan(t, 2, 1)
	nc := connected(t)
	f := open(t, t.TempDir(), p)
	large := func(_ context.Context, cells []sweep.Cell) (records []*sweep.Record, err error) {
		for range cells {
			records = append(records, &sweep.Record{Warnings: []string{strings.Repeat("long ", payload/16)}})
		}
		return records, nil
	}
	out, err := Run(deadline(t), nc, p, f.store, quick(Options{Workers: 1, compute: large}))
	if err != nil || out.Ran != p.Cells() || out.Garbage > 0 {
		t.Fatalf("%+v, %v", out, err)
	}
	f.once(t)
}

func TestStatus(t *testing.T) {
	t.Parallel()
	p := plan(t, 20, 3)
	nc := connected(t)
	f := open(t, t.TempDir(), p)
	ctx, cancel := context.WithCancel(deadline(t))
	var group sync.WaitGroup
	defer group.Wait()
	defer cancel()
	begun := make(chan struct{}, 100)
	working(t, nc, WorkOptions{Workers: 2, Program: program, compute: func(ctx context.Context, _ []sweep.Cell) ([]*sweep.Record, error) {
		begun <- struct{}{}
		<-ctx.Done()
		return nil, ctx.Err()
	}})
	group.Go(func() { Run(ctx, nc, p, f.store, quick(Options{})) })
	<-begun
	<-begun
	s, err := Ask(ctx, nc)
	if err != nil {
		t.Fatal(err)
	}
	units := len(p.Units())
	if len(s.Sweeps) != 1 || s.Sweeps[0].Plan != p.Hash() || s.Sweeps[0].Cells != p.Cells() || s.Sweeps[0].Running != 2 || s.Sweeps[0].Waiting != units-2 || s.Sweeps[0].Program != program {
		t.Errorf("sweeps: %+v", s.Sweeps)
	}
	if len(s.Workers) != 1 || s.Workers[0].Running != 2 || s.Workers[0].Program != program || !slices.Equal(s.Workers[0].Plans, []string{p.Hash()}) {
		t.Errorf("workers: %+v", s.Workers)
	}
}

// A slot that took several units because the last was short does not hold the others while a long one runs.
func TestShortUnitsBeforeLongOnes(t *testing.T) {
	t.Parallel()
	p := plan(t, 20, 3) // 12 units
	nc := connected(t)
	f := open(t, t.TempDir(), p)
	var calls atomic.Int64
	ran := map[int]int{}
	var mu sync.Mutex
	out, err := Run(deadline(t), nc, p, f.store, quick(Options{Workers: 2, AckWait: 500 * time.Millisecond,
		compute: func(ctx context.Context, cells []sweep.Cell) ([]*sweep.Record, error) {
			mu.Lock()
			ran[cells[0].Index]++
			mu.Unlock()
			if calls.Add(1) > 2 {
				time.Sleep(700 * time.Millisecond)
			}
			return stub(ctx, cells)
		}}))
	if err != nil {
		t.Fatal(err)
	}
	if len(out.Dead) > 0 || out.Ran != p.Cells() {
		t.Errorf("%+v", out)
	}
	for cell, n := range ran {
		if n > 1 {
			t.Errorf("the unit of cell %d was run %d times", cell, n)
		}
	}
	f.once(t)
}

// Who goes on with another build takes no task or result of the earlier one: they would be refused until their units are given up.
func TestAnotherBuildGoesOn(t *testing.T) {
	t.Parallel()
	p := plan(t, 4, 2)
	nc := connected(t)
	dir := t.TempDir()
	f := open(t, dir, p)
	ctx, cancel := context.WithCancel(deadline(t))
	o := quick(Options{Workers: 1, compute: func(ctx context.Context, _ []sweep.Cell) ([]*sweep.Record, error) {
		cancel()
		<-ctx.Done()
		return nil, ctx.Err()
	}})
	o.Program = "v0 earlier"
	if _, err := Run(ctx, nc, p, f.store, o); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	f.close()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	result := append(encode(header{Plan: p.Hash(), Format: sweep.Format, Program: o.Program, Worker: "earlier", Attempt: 1}), '\n')
	if _, err := js.Publish(deadline(t), subject(p.Hash(), resultKind, "0"), result); err != nil {
		t.Fatal(err)
	}
	f = open(t, dir, p)
	out, err := Run(deadline(t), nc, p, f.store, quick(Options{Workers: 1, MaxDeliver: 1, compute: stub}))
	if err != nil || len(out.Dead) > 0 || out.Garbage > 0 || out.Ran != p.Cells() {
		t.Errorf("%v, %+v", err, out)
	}
}

// A worker of an earlier build stops taking tasks when the coordinator comes back with another one.
func TestAWorkerOfAnEarlierBuildIsLeftOut(t *testing.T) {
	t.Parallel()
	p := plan(t, 4, 2)
	nc := connected(t)
	dir := t.TempDir()
	f := open(t, dir, p)
	ctx, cancel := context.WithCancel(deadline(t))
	ended := make(chan error, 1)
	late := deadline(t)
	go func() {
		ended <- Work(late, nc, WorkOptions{Workers: 4, Program: "v0 earlier", compute: func(ctx context.Context, _ []sweep.Cell) ([]*sweep.Record, error) {
			cancel()
			<-ctx.Done()
			return nil, ctx.Err()
		}})
	}()
	o := quick(Options{})
	o.Program = "v0 earlier"
	if _, err := Run(ctx, nc, p, f.store, o); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	f.close()
	f = open(t, dir, p)
	go func() { // the new one comes when the old one is gone
		err := <-ended
		var refusal *RefusedError
		if !errors.As(err, &refusal) {
			t.Errorf("the worker ended with %v", err)
		}
		Work(late, nc, WorkOptions{Workers: 1, Program: program, compute: stub})
	}()
	out, err := Run(late, nc, p, f.store, quick(Options{}))
	if err != nil || len(out.Dead) > 0 || out.Ran != p.Cells() {
		t.Errorf("%v, %+v", err, out)
	}
}

// A task whose acknowledgement never comes is published again.
func TestLostAcknowledgementsAreNotWaitedFor(t *testing.T) {
	t.Parallel()
	p := plan(t, 1, 2)
	nc := connected(t)
	f := open(t, t.TempDir(), p)
	c, err := newCoordinator(nc, p, f.store, quick(Options{Private: true}))
	if err != nil {
		t.Fatal(err)
	}
	ctx := deadline(t)
	if err := errors.Join(c.attach(), c.alone(), c.set(ctx)); err != nil {
		t.Fatal(err)
	}
	sub, err := nc.SubscribeSync(subject(p.Hash(), taskKind, "*")) // who takes what is published, and says nothing
	if err != nil {
		t.Fatal(err)
	}
	defer sub.Unsubscribe()
	whole := c.queue.Load().stream.CachedInfo().Config
	deaf := whole
	deaf.Subjects = []string{subject(p.Hash(), resultKind, "*"), subject(p.Hash(), deadKind, "*")}
	if err := c.js.DeleteConsumer(ctx, whole.Name, takers); err != nil {
		t.Fatal(err)
	}
	if _, err := c.js.UpdateStream(ctx, deaf); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- c.publishAll(ctx) }()
	for range c.units {
		if _, err := sub.NextMsg(10 * time.Second); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := c.js.UpdateStream(ctx, whole); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-done:
		info, bad := c.queue.Load().stream.Info(ctx)
		if err != nil || bad != nil || info.State.Msgs != uint64(len(c.units)) {
			t.Errorf("%v, %v, %+v", err, bad, info)
		}
	case <-time.After(30 * time.Second):
		t.Error("it waits for an acknowledgement that was lost")
	}
}
