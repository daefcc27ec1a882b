package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"evenkeel/strategies"
	"evenkeel/sweep"
	"evenkeel/sweep/fleet"
)

// planned makes the folder of a small sweep, as evenkeel sweep --plan-only does.
func planned(t *testing.T) (dir string, p *sweep.Plan) {
	t.Helper()
	return plannedOf(t, "loss-free")
}

// plannedOf is planned for a strategy and further settings.
func plannedOf(t *testing.T, strategy string, settings ...string) (dir string, p *sweep.Plan) {
	t.Helper()
	spec, err := strategies.Parse(strategy)
	if err != nil {
		t.Fatal(err)
	}
	p, err = sweep.New(sweep.Base{Scenario: "uniform", Settings: append([]string{"experts=8", "topk=2", "tokens=64", "steps=4", "evaluation_tokens=128"}, settings...), Layer: -1,
		Strategies: []strategies.Spec{spec}, Seeds: []uint64{1, 2}}, nil, "grid", func(yield func(sweep.Point) bool) { yield(sweep.Point{}) })
	if err != nil {
		t.Fatal(err)
	}
	dir = t.TempDir()
	folder, err := sweep.Hold(dir, p, sweep.Keep, false)
	if err != nil {
		t.Fatal(err)
	}
	folder.Release()
	return dir, p
}

func command(args ...string) (code int, stdout, stderr string) {
	var out, err bytes.Buffer
	code = run(context.Background(), args, &out, &err)
	return code, out.String(), err.String()
}

func TestRun(t *testing.T) {
	dir, p := planned(t)
	code, stdout, stderr := command("run", dir, "--listen", "127.0.0.1:0")
	if code != 0 || !strings.Contains(stdout, "uniform: 2 cells, of which 2 ran now") || !strings.Contains(stderr, "workers may join at 127.0.0.1:") {
		t.Fatalf("exit %d\n%s%s", code, stdout, stderr)
	}
	m, err := sweep.ReadManifest(dir)
	if err != nil || m.Missing > 0 || m.Plan != p.Hash() {
		t.Errorf("%+v, %v", m, err)
	}
	if _, err := os.Stat(filepath.Join(dir, "fleet")); !os.IsNotExist(err) {
		t.Errorf("the state of the server is left: %v", err)
	}
	code, stdout, stderr = command("run", dir, "--json")
	var s summary
	if err := json.Unmarshal([]byte(stdout), &s); code != 0 || err != nil || stderr != "" || s.Cells != 2 || s.Ran != 0 || s.Missing != 0 {
		t.Errorf("exit %d, %v\n%s%s", code, err, stdout, stderr)
	}
}

func TestASweepWithoutFiguresFails(t *testing.T) {
	dir, _ := plannedOf(t, "aux-loss", "router.mode=frozen")
	if code, stdout, stderr := command("run", dir); code != exitFailed || !strings.Contains(stderr, "no cell could run") {
		t.Errorf("exit %d: %s%s", code, stdout, stderr)
	}
}

func TestAFolderInUseIsTriedAgain(t *testing.T) {
	dir, p := planned(t)
	folder, err := sweep.Hold(dir, p, sweep.Keep, false)
	if err != nil {
		t.Fatal(err)
	}
	defer folder.Release()
	if code, _, stderr := command("run", dir); code != exitAgain || !strings.Contains(stderr, "in use") {
		t.Errorf("exit %d: %s", code, stderr)
	}
}

func TestAnInterruptedRunSaysHowItGoesOn(t *testing.T) {
	dir, _ := planned(t)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	var stdout, stderr bytes.Buffer
	if code := run(ctx, []string{"run", dir}, &stdout, &stderr); code != exitInterrupted || !strings.Contains(stderr.String(), "the same command goes on") {
		t.Errorf("exit %d: %s", code, &stderr)
	}
}

func TestWrongRequests(t *testing.T) {
	dir, _ := planned(t)
	empty := filepath.Join(t.TempDir(), "empty")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args string
		code int
		want string
	}{
		{"run", 2, "the folder of one sweep"},
		{"run nowhere", 2, "--plan-only"},
		{"run " + dir + " --workers 0", 2, "leaves nobody"},
		{"run " + dir + " --workers -3", 2, "at least 0"},
		{"run " + dir + " --replicas 3", 2, "cluster of three"},
		{"run " + dir + " --replicas 2", 2, "1 or 3"},
		{"run " + dir + " --listen 127.0.0.1:0 --nats-url 127.0.0.1", 2, "one of them"},
		{"run " + dir + " --listen 0.0.0.0:4222", 2, "--tls-cert"},
		{"run " + dir + " --listen 4222", 2, "HOST:PORT"},
		{"run " + dir + " --nats-url nats://10.1.2.3:4222", 2, "not encrypted"},
		{"run " + dir + " --nats-url tls://10.1.2.3:4222", 2, "no credentials"},
		{"run " + dir + " --user ann", 2, "give both"},
		{"run " + dir + " --tls-cert a", 2, "give both"},
		{"run " + dir + " --user ann --password-file " + empty, 2, "empty"},
		{"run " + dir + " --user ann --password-file nowhere", 2, "no such file"},
		{"run " + dir + " --joining " + empty, 2, "--listen"},
		{"run " + dir + " --listen localhost:0 --joining " + empty, 2, "names no nkey"},
		{"run " + dir + " --ack-wait 1ms", 2, "--ack-wait"},
		{"run " + dir + " --nope", 2, "no flag --nope"},
		{"run " + dir + " --nats-url 127.0.0.1:1", 75, "cannot be reached"},
		{"work", 2, "--nats-url"},
		{"work more", 2, "no argument"},
		{"work --nats-url nats://example.org", 2, "not encrypted"},
		{"status", 2, "--nats-url"},
		{"status --nats-url 127.0.0.1:1", 75, "cannot be reached"},
		{"wrok", 2, "no command"},
	} {
		code, stdout, stderr := command(strings.Fields(c.args)...)
		if code != c.code || !strings.Contains(stderr, c.want) || stdout != "" || strings.Count(stderr, "\n") != 1 {
			t.Errorf("%s: exit %d, want %d and %q\n%s%s", c.args, code, c.code, c.want, stdout, stderr)
		}
	}
}

func TestStatusIsShown(t *testing.T) {
	var b bytes.Buffer
	err := printStatus(&b, &fleet.Status{Sweeps: []fleet.SweepReport{{Plan: "0123456789abcdef", Host: "head", Program: "v1", Scenario: "uniform", Cells: 100, Done: 40, Ran: 20, Seconds: 10,
		Redelivered: 2, Garbage: 1, Refused: 1, Dead: []int{7, 9}, Waiting: 3, Running: 2}, {Plan: "fedcba9876543210", Cells: 5}},
		Workers: []fleet.WorkerReport{{Name: "node-1", Program: "v1", Slots: 2, Running: 2, Cells: 20, Seconds: 10}}})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"40 of 100 cells stored, 2.0 a second", "2 run, 3 wait", "2 redelivered, 1 garbage, 2 given up (7 9)", "1 worker was not let in", "no coordinator answers", "node-1"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("%q is not in\n%s", want, &b)
		}
	}
}
