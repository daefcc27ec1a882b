package main

import (
	"fmt"
	"math"
	"os"
	"strconv"
	"strings"

	"evenkeel/sim"
)

// checkMemory refuses a run that would not fit into the memory that is free, where the system says how much that is.
func checkMemory(c *sim.Config) error { return checkBytes(c.Memory()) }

// checkBytes refuses what would not fit.
func checkBytes(n int64) error {
	need, free := float64(n), freeMemory()
	if need <= free {
		return nil
	}
	const gib = 1 << 30
	return fmt.Errorf("this run needs about %.1f GiB of memory, and %.1f GiB are free: take fewer tokens a step, fewer strategies or fewer --workers",
		need/gib, free/gib)
}

// knownMemory is freeMemory, or 0 where the system says nothing.
func knownMemory() float64 {
	if free := freeMemory(); !math.IsInf(free, 1) {
		return free
	}
	return 0
}

// freeMemory is what Linux says is available, within the limit of a container; infinite where it says nothing.
func freeMemory() float64 {
	free := math.Inf(1)
	if text, err := os.ReadFile("/proc/meminfo"); err == nil {
		for line := range strings.Lines(string(text)) {
			f := strings.Fields(line)
			if len(f) < 2 || f[0] != "MemAvailable:" {
				continue
			}
			if kib, err := strconv.ParseFloat(f[1], 64); err == nil {
				free = kib * 1024
			}
		}
	}
	if text, err := os.ReadFile("/sys/fs/cgroup/memory.max"); err == nil {
		if limit, err := strconv.ParseFloat(strings.TrimSpace(string(text)), 64); err == nil {
			free = min(free, limit)
		}
	}
	return free
}
