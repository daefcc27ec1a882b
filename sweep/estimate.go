package sweep

import (
	"context"
	"encoding/json"
	"runtime"
	"time"

	"evenkeel/sim"
)

// Estimate is what a plan will need, measured on a few of its units.
type Estimate struct {
	Time   time.Duration
	Bytes  int64 // of results and tables
	Units  int   // measured
	Cells  int   // of those units
	Failed int   // of those cells, that cannot run
}

// Estimates are cut short: so many units, so many steps, so long.
const (
	estimatedUnits = 6
	estimatedSteps = 8
	estimatedTime  = 5 * time.Second
)

// Estimate measures some units, spread over the plan, for a few steps each, and puts the rest in proportion: a unit takes what its
// evaluation takes, and its steps. Workers that are 0 are as many as there are processors.
func (p *Plan) Estimate(ctx context.Context, workers int) (*Estimate, error) {
	if workers == 0 {
		workers = runtime.GOMAXPROCS(0)
	}
	c := NewComputer(p)
	units := p.Units()
	e := &Estimate{}
	var busy time.Duration
	var bytes int64
	begin := time.Now()
	n := min(estimatedUnits, len(units))
	for i := range n {
		if i > 0 && time.Since(begin) > estimatedTime {
			break
		}
		cells := p.Of(units[i*(len(units)-1)/max(1, n-1)])
		took, size, failed, err := c.sample(ctx, cells)
		if err != nil {
			return nil, err
		}
		e.Units, e.Cells, e.Failed = e.Units+1, e.Cells+len(cells), e.Failed+failed
		busy, bytes = busy+took, bytes+size
	}
	e.Time = time.Duration(float64(busy) / float64(e.Units) * float64(len(units)) / float64(min(workers, len(units))))
	e.Bytes = bytes * int64(p.Cells()) / int64(e.Cells)
	return e, nil
}

// sample runs cells of a unit for few steps, twice, and returns what all steps would take and leave.
func (c *Computer) sample(ctx context.Context, cells []Cell) (took time.Duration, size int64, failed int, err error) {
	records := make([]*Record, len(cells))
	config, at, err := c.config(cells, records)
	if err != nil || len(at) == 0 {
		return 0, 200 * int64(len(cells)), len(cells), nil
	}
	all := config.Steps
	var times [2]time.Duration
	steps := [2]int{min(all, estimatedSteps/2), min(all, estimatedSteps)}
	var r *sim.Result
	for i, n := range steps {
		config.Steps = n
		begin := time.Now()
		if r, err = sim.Compare(ctx, config); err != nil {
			if ctx.Err() != nil {
				return 0, 0, 0, ctx.Err()
			}
			return times[0], 200 * int64(len(cells)), len(cells), nil
		}
		times[i] = time.Since(begin)
	}
	took = times[1]
	if more := steps[1] - steps[0]; more > 0 {
		took += max(0, times[1]-times[0]) / time.Duration(more) * time.Duration(all-steps[1])
	}
	for n := range at {
		record := c.p.record(r.Strategies[n])
		kept := len(record.Steps)
		whole, err := json.Marshal(record)
		if err != nil {
			return 0, 0, 0, err
		}
		record.Steps = nil
		bare, _ := json.Marshal(record)               // part of what could be encoded
		size += int64(len(bare)) + int64(len(bare))/3 // in a table, compressed
		if kept > 0 {
			size += int64(len(whole)-len(bare)) * int64(min(c.p.Steps, all)) / int64(kept) * 4 / 3
		}
	}
	return took, size, len(cells) - len(at), nil
}

// memoryVariants is how many variants are looked at for the memory that a plan needs.
const memoryVariants = 50

// Memory estimates the bytes that a run of the plan holds at once: of the largest unit, times the workers. Of a plan with many
// variants some are looked at, spread over it.
func (p *Plan) Memory(workers int) int64 {
	if workers == 0 {
		workers = runtime.GOMAXPROCS(0)
	}
	c := NewComputer(p)
	units := p.Units()
	most := int64(0)
	for i := range min(memoryVariants, len(units)) {
		cells := p.Of(units[i*(len(units)-1)/max(1, min(memoryVariants, len(units))-1)])
		if config, at, err := c.config(cells, make([]*Record, len(cells))); err == nil && len(at) > 0 {
			most = max(most, config.Memory())
		}
	}
	return most * int64(min(workers, len(units)))
}
