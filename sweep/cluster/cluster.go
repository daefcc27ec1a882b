// Package cluster hands the plan of a sweep to a scheduler that is there already: arrays of Slurm, Indexed Jobs of Kubernetes, job
// files of GNU parallel. All of them call evenkeel run for one shard at a time, and evenkeel collect at the end.
//
// What a shard computes and how its results are kept is decided in package sweep; queues, retries and nodes are the scheduler's.
package cluster

import (
	"math"
	"path/filepath"
	"strings"
	"time"
)

// Sweep is a sweep's folder as the machines of a cluster see it, and how it is cut.
type Sweep struct {
	Program string // evenkeel: an absolute path
	Dir     string // an absolute path, where plan.json is
	Shards  int
	Workers int // cells that a shard runs at once, on as many processors
}

// Shards returns into how many shards to cut units of work, which take a time in all on one processor, so that each takes about
// the given one on its workers. There are at most limit, unless that is 0, and never more than units.
func Shards(work, each time.Duration, workers, units, limit int) int {
	n := math.Ceil(float64(work) / (float64(each) * float64(workers)))
	if limit > 0 {
		n = min(n, float64(limit))
	}
	return int(max(1, min(n, float64(units))))
}

// name is what jobs of the folder are called: letters, digits and hyphens, at most 40, and what names it in lower case.
func (s Sweep) name() string {
	hyphen := func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z' || r >= '0' && r <= '9':
			return r
		case r >= 'A' && r <= 'Z':
			return r - 'A' + 'a'
		}
		return '-'
	}
	words := strings.FieldsFunc(strings.Map(hyphen, filepath.Base(s.Dir)), func(r rune) bool { return r == '-' })
	name := strings.Join(append([]string{"evenkeel"}, words...), "-")
	return strings.TrimRight(name[:min(len(name), 40)], "-")
}

// Quote writes words as a POSIX shell reads them, whatever they hold.
func Quote(words ...string) string {
	quoted := make([]string, len(words))
	for i, w := range words {
		plain := func(r rune) bool {
			return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("_./=:,+@%-", r)
		}
		if quoted[i] = w; w == "" || strings.TrimFunc(w, plain) != "" {
			quoted[i] = "'" + strings.ReplaceAll(w, "'", `'\''`) + "'"
		}
	}
	return strings.Join(quoted, " ")
}
