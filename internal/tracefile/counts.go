package tracefile

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"

	"evenkeel/internal/npz"
)

// counts collects the level counts, as lists over experts or in long form.
type counts struct {
	cells   map[cell]int64
	steps   map[uint64]int
	layers  map[int]bool
	experts int
	named   bool // layers have numbers
	domains bool // there is a domain, which was summed over
	auto    int  // steps of records that name none
	pool    *pool
}

type cell struct{ step, layer, expert int32 }

func newCounts(p *pool) *counts {
	return &counts{cells: map[cell]int64{}, steps: map[uint64]int{}, layers: map[int]bool{}, pool: p}
}

func (c *counts) any() bool { return len(c.cells) > 0 || len(c.layers) > 0 }

// set adds n to a cell; counts of the same cell are summed.
func (c *counts) set(step, layer, expert int, n int64) error {
	switch {
	case n < 0:
		return fmt.Errorf("the count of expert %d is %d: it cannot be negative", expert, n)
	case expert < 0 || expert > maxID:
		return fmt.Errorf("expert is %d: want 0 to %d", expert, maxID)
	case layer < 0 || layer >= maxLayers:
		return fmt.Errorf("layer is %d: want 0 to %d", layer, maxLayers-1)
	}
	if len(c.steps) > maxCells || c.auto > maxCells {
		return fmt.Errorf("there are more than %d steps: sum some of them first", maxCells)
	}
	c.layers[layer] = true
	c.experts = max(c.experts, expert+1)
	key := cell{int32(step), int32(layer), int32(expert)}
	if n == 0 {
		return nil
	}
	sum := c.cells[key] + n
	if sum < 0 {
		return errors.New("counts overflow")
	}
	c.cells[key] = sum
	if len(c.cells) > maxCells {
		return fmt.Errorf("there are more than %d counts of step, layer and expert: sum some of them first", maxCells)
	}
	return nil
}

func (c *counts) step(key uint64) int {
	n, ok := c.steps[key]
	if !ok {
		n = len(c.steps)
		c.steps[key] = n
	}
	return n
}

func (c *counts) add(r *record) error {
	step := 0
	switch {
	case r.has[colStep]:
		step = c.step(r.step)
	case r.has[colLoads] && (r.loads.depth == 2 || !r.has[colLayer]):
		step = c.auto
		c.auto++
	}
	c.named = c.named || r.has[colLayer]
	layer := 0
	if r.has[colLayer] {
		layer = int(r.layer)
	}
	if !r.has[colLoads] {
		if !r.has[colExpert] {
			return errors.New("a count has no expert: map the column that has it, by --map expert=COLUMN")
		}
		if r.expert < 0 || r.expert > maxID {
			return fmt.Errorf("expert is %d: want 0 to %d", r.expert, maxID)
		}
		return c.set(step, layer, int(r.expert), r.count)
	}
	if r.loads.depth == 2 && r.has[colLayer] || r.loads.depth == 3 {
		return errors.New("counts are lists within lists, and the layer is given too: want one list over experts")
	}
	for i := range r.loads.ends {
		from, to := r.loads.row(i)
		for e, n := range r.loads.ints[from:to] {
			if err := c.set(step, layer+i, e, n); err != nil {
				return err
			}
		}
	}
	return nil
}

// source writes the counts as [steps, L, E].
func (c *counts) source(s *arrays) error {
	layers := slices.Sorted(maps.Keys(c.layers))
	steps := max(1, len(c.steps), c.auto)
	if c.experts == 0 {
		return fmt.Errorf("%s counts no choice of any expert", s.name)
	}
	if total := steps * len(layers) * c.experts; total > 1<<28 {
		return fmt.Errorf("%s has counts of %d steps, %d layers and %d experts: at most %d are accepted", s.name, steps, len(layers), c.experts, 1<<28)
	}
	cells := slices.SortedFunc(maps.Keys(c.cells), func(a, b cell) int {
		return cmp.Or(cmp.Compare(a.step, b.step), cmp.Compare(a.layer, b.layer), cmp.Compare(a.expert, b.expert))
	})
	out := c.pool.spool()
	next := 0
	for step := range steps {
		for _, layer := range layers {
			for e := range c.experts {
				var n int64
				if next < len(cells) && cells[next] == (cell{int32(step), int32(layer), int32(e)}) {
					n = c.cells[cells[next]]
					next++
				}
				out.int64(n)
			}
		}
	}
	if out.err != nil {
		return out.err
	}
	if c.domains {
		s.note("counts are summed over domains: --map step=COLUMN keeps them apart, --where COLUMN=VALUE picks one")
	}
	s.list["counts"] = &array{[]int{steps, len(layers), c.experts}, npz.Int64, []segment{{out, 0, steps * len(layers) * c.experts}}}
	if c.named {
		p := c.pool.spool()
		for _, l := range layers {
			p.int32(int32(l))
		}
		s.list["layers"] = &array{[]int{len(layers)}, npz.Int32, []segment{{p, 0, len(layers)}}}
		noteLayers(s, layers)
	}
	return nil
}
