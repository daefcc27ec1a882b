//go:build slurm

package cluster_test

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// site is Slurm with two nodes on this machine, all of it in one folder: a key, a socket, a configuration, daemons in the foreground.
type site struct {
	t       *testing.T
	dir     string
	config  string
	daemons map[string]*exec.Cmd
}

// startSite starts one, or skips the test where that cannot be.
func startSite(t *testing.T) *site {
	for _, program := range []string{"munged", "slurmctld", "slurmd", "sbatch", "scontrol", "squeue"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("SKIPPED: there is no %s: apt-get install slurmctld slurmd slurm-client munge", program)
		}
	}
	if os.Getuid() != 0 {
		t.Skip("SKIPPED: the daemons of Slurm are started by root only")
	}
	dir, err := os.MkdirTemp("/tmp", "slurm") // short, since paths of sockets are
	if err != nil {
		t.Fatal(err)
	}
	s := &site{t, dir, filepath.Join(dir, "slurm.conf"), map[string]*exec.Cmd{}}
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	for _, sub := range []string{"state", "n1", "n2"} {
		if err := os.Mkdir(filepath.Join(dir, sub), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	key := make([]byte, 1024)
	rand.Read(key)
	s.write("munge.key", string(key))
	s.write("slurm.conf", fmt.Sprintf(`ClusterName=evenkeel
SlurmctldHost=%[1]s(127.0.0.1)
SlurmctldPort=%[3]d
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=%[2]s/munge.socket,cred_expire=5
CredType=cred/munge
StateSaveLocation=%[2]s/state
SlurmdSpoolDir=%[2]s/%%n
SlurmctldPidFile=%[2]s/slurmctld.pid
SlurmdPidFile=%[2]s/%%n/slurmd.pid
SlurmdTimeout=10
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/builtin
SchedulerParameters=batch_sched_delay=0,sched_interval=2,sched_min_interval=0,default_queue_depth=100
MaxArraySize=101
ReturnToService=2
KillWait=5
MinJobAge=300
InactiveLimit=0
NodeName=n1 NodeHostname=%[1]s NodeAddr=127.0.0.1 Port=%[4]d CPUs=1 State=UNKNOWN
NodeName=n2 NodeHostname=%[1]s NodeAddr=127.0.0.1 Port=%[5]d CPUs=1 State=UNKNOWN
PartitionName=main Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP
`, host, dir, freePort(t), freePort(t), freePort(t)))
	s.write("cgroup.conf", "CgroupPlugin=cgroup/v1\nCgroupAutomount=no\n")
	t.Setenv("SLURM_CONF", s.config)
	t.Cleanup(s.stop)
	s.start("munged", "--foreground", "--force", "--key-file="+dir+"/munge.key", "--socket="+dir+"/munge.socket", "--pid-file="+dir+"/munged.pid",
		"--log-file="+dir+"/munged.log", "--seed-file="+dir+"/munged.seed")
	s.await("munged", 10*time.Second, func() bool {
		_, err := os.Stat(dir + "/munge.socket")
		return err == nil
	})
	s.start("slurmctld", "-D", "-f", s.config)
	for _, node := range []string{"n1", "n2"} {
		s.startNode(node)
	}
	s.await("two idle nodes", 60*time.Second, func() bool { return strings.Count(s.try("sinfo", "-h", "-N", "-o", "%T"), "idle") == 2 })
	return s
}

func (s *site) startNode(node string) { s.start("slurmd", "-D", "-f", s.config, "-N", node) }

func freePort(t *testing.T) int {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

func (s *site) write(name, text string) {
	if err := os.WriteFile(filepath.Join(s.dir, name), []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

func (s *site) start(words ...string) {
	name := words[0]
	if name == "slurmd" {
		name = words[len(words)-1]
	}
	log, err := os.Create(filepath.Join(s.dir, name+".out"))
	if err != nil {
		s.t.Fatal(err)
	}
	defer log.Close()
	c := exec.Command(words[0], words[1:]...)
	c.Stdout, c.Stderr = log, log
	if err := c.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.daemons[name] = c
}

// stop ends what was started, by number, nodes first. What they left is found by the configuration in its environment.
func (s *site) stop() {
	if s.t.Failed() {
		for _, name := range []string{"slurmctld", "n1", "n2"} {
			text, _ := os.ReadFile(filepath.Join(s.dir, name+".out"))
			lines := strings.Split(string(text), "\n")
			s.t.Logf("%s:\n%s", name, strings.Join(lines[max(0, len(lines)-60):], "\n"))
		}
	}
	for _, name := range []string{"n1", "n2", "slurmctld", "munged"} {
		if c := s.daemons[name]; c != nil {
			c.Process.Kill()
			c.Wait()
		}
	}
	kill(s.processes())
	os.RemoveAll(s.dir)
}

// processes returns those that have this site's configuration in their environment, and all of the words.
func (s *site) processes(words ...string) (list []int) {
	entries, _ := filepath.Glob("/proc/[0-9]*/environ")
	for _, e := range entries {
		pid, _ := strconv.Atoi(strings.Split(e, "/")[2])
		if pid == os.Getpid() {
			continue
		}
		text, _ := os.ReadFile(e)
		environment := strings.Split(string(text), "\x00")
		if !slices.ContainsFunc(append(words, "SLURM_CONF="+s.config), func(w string) bool { return !slices.Contains(environment, w) }) {
			list = append(list, pid)
		}
	}
	return list
}

// shards returns the processes that run a shard on a node.
func (s *site) shards(node string) []int {
	return slices.DeleteFunc(s.processes("SLURMD_NODENAME="+node), func(pid int) bool {
		name, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
		return strings.TrimSpace(string(name)) != "evenkeel"
	})
}

// parents returns those of processes that are managers of Slurm's steps.
func (s *site) parents(of []int) (list []int) {
	for _, pid := range of {
		status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		_, rest, _ := strings.Cut(string(status), "PPid:")
		words := strings.Fields(rest)
		if len(words) == 0 {
			continue
		}
		parent, _ := strconv.Atoi(words[0])
		if name, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", parent)); strings.TrimSpace(string(name)) == "slurmstepd" {
			list = append(list, parent)
		}
	}
	return list
}

func kill(list []int) {
	for _, pid := range list {
		syscall.Kill(pid, syscall.SIGKILL)
	}
}

// try runs a command and returns what it printed.
func (s *site) try(words ...string) string {
	out, _ := exec.Command(words[0], words[1:]...).CombinedOutput()
	return string(out)
}

func (s *site) await(what string, most time.Duration, done func() bool) {
	s.t.Helper()
	begin := time.Now()
	for !done() {
		if time.Since(begin) > most {
			s.t.Fatalf("%s: not after %v", what, most)
		}
		time.Sleep(50 * time.Millisecond)
	}
	s.t.Logf("%s: %.1f s", what, time.Since(begin).Seconds())
}

func TestSlurmLosesANode(t *testing.T) {
	s := startSite(t)
	program := filepath.Join(s.dir, "a 'program'", "evenkeel")
	if out, err := exec.Command("go", "build", "-o", program, "evenkeel/cmd/evenkeel").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	evenkeel := func(args ...string) string {
		t.Helper()
		out, err := exec.Command(program, args...).CombinedOutput()
		if err != nil {
			t.Fatalf("%q: %v: %s", args, err, out)
		}
		return string(out)
	}
	plan := func(dir string, more ...string) {
		evenkeel(append([]string{"sweep", "-s", "none", "-s", "loss-free", "--vary", "loss-free.rate=1e-4,1e-3,1e-2", "--vary", "tokens=1024,2048", "--seeds", "4",
			"--record-steps", "3", "--record-loads", "--steps", "400", "--out", dir}, more...)...)
	}
	local := filepath.Join(s.dir, "local")
	begin := time.Now()
	plan(local, "--workers", "2", "--quiet")
	t.Logf("local: %.1f s", time.Since(begin).Seconds())
	dir := filepath.Join(s.dir, "it's 100%a \"sweep\"\nof $HOME `x`")
	plan(dir, "--plan-only")
	t.Log(evenkeel("cluster", "slurm", dir, "--shards", "8", "--time", "10", "--sbatch=--comment=a b"))

	// The node n2 is lost: its daemon, the manager of its step, then what that ran.
	var tasks, managers []int
	s.await("a task on n2", 60*time.Second, func() bool {
		tasks = s.processes("SLURMD_NODENAME=n2")
		managers = s.parents(tasks)
		return len(managers) > 0
	})
	kill(managers)
	kill(tasks)
	lost := s.daemons["n2"]
	lost.Process.Kill()
	lost.Wait()
	// On n1 a shard that has just begun is killed, as for want of memory: Slurm does not queue that again.
	before := s.shards("n1")
	s.await("another task on n1", 60*time.Second, func() bool {
		begun := slices.DeleteFunc(s.shards("n1"), func(pid int) bool { return slices.Contains(before, pid) })
		kill(begun)
		return len(begun) > 0
	})
	over := func() bool { return strings.TrimSpace(s.try("squeue", "--noheader")) == "" }
	s.await("the array", 120*time.Second, over)
	if state := s.try("scontrol", "show", "job"); !strings.Contains(state, "Restarts=1") {
		t.Errorf("no task was queued again:\n%s", state)
	}
	if _, err := os.Stat(filepath.Join(dir, "manifest.json")); err != nil {
		t.Errorf("the collector did not run: %v", err)
	}
	printed := evenkeel("cluster", "slurm", dir)
	t.Log(printed)
	if !strings.HasPrefix(printed, "Submitted 1 of 8 shards") {
		t.Error("want the shard that was killed, and no other")
	}
	s.await("what was missing", 60*time.Second, over)
	if printed := evenkeel("cluster", "slurm", dir); !strings.HasPrefix(printed, "Nothing to submit: all 32 cells") {
		t.Error(printed)
	}
	for _, file := range []string{"manifest.json", "cells.parquet", "steps.parquet", "loads.parquet"} {
		want, err1 := os.ReadFile(filepath.Join(local, file))
		got, err2 := os.ReadFile(filepath.Join(dir, file))
		if err1 != nil || err2 != nil || !bytes.Equal(got, want) {
			t.Errorf("%s differs from that of one machine: %v %v", file, err1, err2)
		}
	}
}
