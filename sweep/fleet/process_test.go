package fleet

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"evenkeel/sweep"
)

// TestMain is also the servers and workers that tests start as processes of their own.
func TestMain(m *testing.M) {
	switch os.Getenv("EVENKEEL_FLEET_TEST") {
	case "":
		os.Exit(m.Run())
	case "server":
		if _, err := Serve(os.Args[1], os.Args[2], Access{}); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		select {}
	case "worker":
		nc, err := Connect(os.Args[1], Access{}, true)
		if err == nil {
			err = Work(context.Background(), nc, WorkOptions{Workers: 1, Program: program})
		}
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	case "coordinator":
		fmt.Fprintln(os.Stderr, coordinate(os.Args[1]))
		os.Exit(1)
	}
}

// coordinate runs the sweep of a folder with a server of its own, slowly.
func coordinate(dir string) error {
	p, err := sweep.ReadPlan(filepath.Join(dir, sweep.PlanFile))
	if err != nil {
		return err
	}
	if _, err := sweep.Hold(dir, p, sweep.Keep, false); err != nil {
		return err
	}
	store, err := sweep.Open(dir, p, sweep.Shard{})
	if err != nil {
		return err
	}
	s, err := Serve(dir, "", Access{})
	if err != nil {
		return err
	}
	nc, err := s.Connect()
	if err != nil {
		return err
	}
	computer := sweep.NewComputer(p)
	_, err = Run(context.Background(), nc, p, store, Options{Workers: 2, Program: program, compute: func(ctx context.Context, cells []sweep.Cell) ([]*sweep.Record, error) {
		time.Sleep(50 * time.Millisecond)
		return computer.Compute(ctx, cells)
	}})
	return err
}

// process starts this binary in another role. It ends with the test at the latest.
func process(t *testing.T, role string, args ...string) *exec.Cmd {
	t.Helper()
	c := exec.Command(os.Args[0], args...)
	c.Env = append(os.Environ(), "EVENKEEL_FLEET_TEST="+role)
	c.Stderr = os.Stderr
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { kill(c) })
	return c
}

// kill is kill -9.
func kill(c *exec.Cmd) {
	c.Process.Kill()
	c.Wait()
}

func TestProcessesAreKilled(t *testing.T) {
	if testing.Short() {
		t.Skip("starts and kills processes: run without -short")
	}
	t.Parallel()
	p := plan(t, 40, 20)
	want := local(t, p)
	dir, address := t.TempDir(), fmt.Sprint("127.0.0.1:", ports(t, 1)[0])
	server := process(t, "server", dir, address)
	workers := []*exec.Cmd{process(t, "worker", address), process(t, "worker", address), process(t, "worker", address)}
	nc, err := Connect(address, Access{}, true)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	for begin := time.Now(); !nc.IsConnected(); time.Sleep(10 * time.Millisecond) {
		if time.Since(begin) > time.Minute {
			t.Fatal("the server does not answer")
		}
	}
	f := open(t, t.TempDir(), p)
	killed := 0
	out, err := Run(deadline(t), nc, p, f.store, quick(Options{AckWait: time.Second, MaxDeliver: 20, Progress: func(done, total int) {
		if done*4 < (killed+1)*total {
			return
		}
		switch killed++; killed {
		case 1, 3:
			kill(workers[killed/2])
		case 2:
			kill(server)
			server = process(t, "server", dir, address)
		}
	}}))
	if err != nil {
		t.Fatal(err)
	}
	if killed < 3 || out.Ran != p.Cells() || out.Garbage+len(out.Dead) > 0 {
		t.Errorf("%d kills, %+v", killed, out)
	}
	same(t, f.files(t), want)
	f.once(t)
}

func TestTheCoordinatorIsKilled(t *testing.T) {
	if testing.Short() {
		t.Skip("starts and kills processes: run without -short")
	}
	t.Parallel()
	p := plan(t, 40, 20)
	want := local(t, p)
	dir := t.TempDir()
	open(t, dir, p).close()
	lines := func() int {
		text, _ := os.ReadFile(filepath.Join(dir, "results", "shard-1-of-1.cells"))
		return bytes.Count(text, []byte{'\n'})
	}
	for range 4 {
		c := process(t, "coordinator", dir)
		before := lines()
		for begin := time.Now(); lines() < before+100; time.Sleep(5 * time.Millisecond) {
			if time.Since(begin) > time.Minute {
				t.Fatal("the coordinator stores nothing")
			}
		}
		kill(c)
	}
	if n := lines(); n < 400 || n >= p.Cells() {
		t.Fatalf("%d cells of %d were stored when it was killed for the last time", n, p.Cells())
	}
	f := open(t, dir, p)
	s, err := Serve(dir, "", Access{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close(true)
	nc, err := s.Connect()
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	if out, err := Run(deadline(t), nc, p, f.store, quick(Options{Workers: 2})); err != nil || len(out.Dead) > 0 {
		t.Fatalf("%+v, %v", out, err)
	}
	same(t, f.files(t), want)
}
