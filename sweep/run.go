package sweep

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"

	"evenkeel/experiment"
	"evenkeel/internal/whole"
	"evenkeel/moe"
	"evenkeel/sim"
	"evenkeel/strategies"
)

// Shard is one of several parts of a plan, 1 to Of. The zero value is the whole.
type Shard struct{ Index, Of int }

// String is 3/16, or 1/1 for the whole.
func (s Shard) String() string { return fmt.Sprintf("%d/%d", max(1, s.Index), max(1, s.Of)) }

// ParseShard reads 3/16.
func ParseShard(text string) (s Shard, err error) {
	var rest string
	if n, _ := fmt.Sscanf(text+" ", "%d/%d%s", &s.Index, &s.Of, &rest); n != 2 || s.Of < 1 || s.Index < 1 || s.Index > s.Of {
		return s, fmt.Errorf("shard %q: want i/n, such as 3/16, with i from 1 to n", text)
	}
	return s, nil
}

// Options of a run.
type Options struct {
	Shard    Shard
	Workers  int // they take units; 0: one for each processor
	Progress func(done, total int)
}

// Outcome is what a run of a shard did.
type Outcome struct {
	Cells  int // of the shard
	Ran    int // of those, now
	Failed int // of all that are stored, cells that have a reason instead of figures
	Found  Found
}

// Run runs the cells of a shard that the folder does not hold yet. It may be stopped in any way and called again; cells that are
// stored whole are not run again, and damaged ones are. When ctx ends, the error is ctx's.
func Run(ctx context.Context, p *Plan, dir string, o Options) (*Outcome, error) {
	names := newNames(p)
	units := p.shard(o.Shard)
	out := &Outcome{}
	done, err := stored(p, dir, out)
	if err != nil {
		return nil, err
	}
	w, err := newWriter(dir, fmt.Sprintf("shard-%d-of-%d", max(1, o.Shard.Index), max(1, o.Shard.Of)))
	if err != nil {
		return nil, err
	}
	for _, u := range units {
		out.Cells += u.To - u.From
	}
	var finished, ran, failed atomic.Int64
	report := func(cells int) {
		if n := finished.Add(int64(cells)); o.Progress != nil {
			o.Progress(int(n), out.Cells)
		}
	}
	workers := o.Workers
	if workers <= 0 {
		workers = runtime.GOMAXPROCS(0)
	}
	var next atomic.Int64
	var group sync.WaitGroup
	failures := make([]error, workers)
	stop, cancel := context.WithCancel(ctx)
	defer cancel()
	for i := range workers {
		group.Go(func() {
			for n := next.Add(1) - 1; n < int64(len(units)) && stop.Err() == nil; n = next.Add(1) - 1 {
				u := units[n]
				missing := p.missing(u, names, done)
				if len(missing) > 0 {
					bad, err := p.runUnit(stop, missing, names, w)
					if err != nil {
						failures[i] = err
						cancel()
						return
					}
					ran.Add(int64(len(missing)))
					failed.Add(int64(bad))
				}
				report(u.To - u.From)
			}
		})
	}
	group.Wait()
	err = w.close()
	out.Ran = int(ran.Load())
	out.Failed += int(failed.Load())
	for _, f := range failures {
		if f != nil && !errors.Is(f, context.Canceled) {
			return out, f
		}
	}
	if err != nil {
		return out, err
	}
	return out, ctx.Err()
}

// shard returns the units of a shard: every n-th one, so that all shards have cells of all kinds.
func (p *Plan) shard(s Shard) (units []Unit) {
	for i, u := range p.Units() {
		if s.Of <= 1 || i%s.Of == s.Index-1 {
			units = append(units, u)
		}
	}
	return units
}

// stored returns the cells that a folder holds.
func stored(p *Plan, dir string, out *Outcome) (map[Name]bool, error) {
	done := map[Name]bool{}
	found, err := scan(dir, func(n Name, record []byte) error {
		if !done[n] && isFailure(record) {
			out.Failed++
		}
		done[n] = true
		return nil
	})
	out.Found = found
	return done, err
}

// isFailure reports whether a record has a reason instead of figures.
func isFailure(record []byte) bool {
	const begin = `{"failed"`
	return len(record) > len(begin) && string(record[:len(begin)]) == begin
}

// missing returns the cells of a unit that are not done.
func (p *Plan) missing(u Unit, names *names, done map[Name]bool) (cells []Cell) {
	for i := u.From; i < u.To; i++ {
		c := p.Cell(i*len(p.Seeds) + u.Seed)
		if !done[names.of(c)] {
			cells = append(cells, c)
		}
	}
	return cells
}

// runUnit runs cells of one variant and seed and stores them. It returns how many have no figures.
func (p *Plan) runUnit(ctx context.Context, cells []Cell, names *names, w *writer) (failed int, err error) {
	records, err := p.Compute(ctx, cells)
	if err != nil {
		return 0, err
	}
	list := make([]Name, len(cells))
	for i, c := range cells {
		list[i] = names.of(c)
		if records[i].Failed != "" {
			failed++
		}
	}
	return failed, w.put(list, records)
}

// Compute runs cells of one variant and seed side by side and returns their records. What cannot act there has a record that
// says why. The error is of what stops a whole sweep: ctx.
func (p *Plan) Compute(ctx context.Context, cells []Cell) ([]*Record, error) {
	records := make([]*Record, len(cells))
	fail := func(err error) {
		for i := range records {
			if records[i] == nil {
				records[i] = &Record{Failed: err.Error()}
			}
		}
	}
	x, at, err := p.experiment(cells, records)
	if err != nil {
		fail(err)
		return records, nil
	}
	if len(at) == 0 {
		return records, nil
	}
	r, err := sim.Compare(ctx, x)
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if err != nil {
		fail(err)
		return records, nil
	}
	for n, i := range at {
		records[i] = p.record(r.Strategies[n].Runs[0])
	}
	return records, nil
}

// experiment makes the configuration of those cells that can act on their variant, and lists them; of the others it fills the
// records.
func (p *Plan) experiment(cells []Cell, records []*Record) (c *sim.Config, at []int, err error) {
	settings := slices.Concat(p.Settings, p.Variants[cells[0].Variant], []string{"seeds=[" + strconv.FormatUint(cells[0].Seed, 10) + "]"})
	s, err := p.Scenario.Load(settings, -1)
	if err != nil {
		return nil, nil, err
	}
	layer := s.Layer()
	var specs []strategies.Spec
	var traits []moe.Traits
	for i, cell := range cells {
		r, err := p.specs[cell.Spec].Build(layer)
		if err != nil {
			records[i] = &Record{Failed: err.Error()}
			continue
		}
		specs, traits, at = append(specs, p.specs[cell.Spec]), append(traits, r.Traits()), append(at, i)
	}
	if len(specs) == 0 {
		return nil, nil, nil
	}
	x, err := experiment.New(s, specs)
	if err != nil {
		return nil, nil, err
	}
	if c, err = x.Config(1); err != nil {
		return nil, nil, err
	}
	all, list := at, c.Strategies
	at, c.Strategies = nil, nil
	for n, i := range all {
		if err := c.Refuse(traits[n]); err != nil {
			records[i] = &Record{Failed: err.Error()}
			continue
		}
		at, c.Strategies = append(at, i), append(c.Strategies, list[n])
	}
	return c, at, nil
}

// record keeps what a plan asks for of a run.
func (p *Plan) record(run *sim.Run) *Record {
	r := &Record{Values: finite(run.Values)}
	if p.Steps == 0 {
		return r
	}
	shots := run.Shots
	n := len(run.Steps)
	for i := range min(p.Steps, n) {
		row := &run.Steps[(i+1)*n/min(p.Steps, n)-1]
		s := StepOfCell{Step: row.Step, Values: finite(stepValues(row))}
		if p.Loads {
			if j, ok := slices.BinarySearchFunc(shots, row.Step, func(s sim.Shot, step int) int { return s.Step - step }); ok {
				s.Loads = shots[j].Load
			} else if j > 0 {
				s.Loads = shots[j-1].Load
			}
		}
		r.Steps = append(r.Steps, s)
	}
	return r
}

// finite leaves out what JSON has no number for.
func finite(values map[string]float64) map[string]float64 {
	for k, v := range values {
		if math.IsNaN(v) || math.IsInf(v, 0) {
			delete(values, k)
		}
	}
	return values
}

// stepValues are the figures of a step, by the names of steps.csv.
func stepValues(r *sim.StepRow) map[string]float64 {
	return map[string]float64{"maxvio": r.MaxVio, "maxvio_sequence": r.MaxVioSequence, "maxvio_device": r.MaxVioDevice, "load_variance": r.LoadVariance,
		"drop_rate": r.DropRate, "affinity_kept": r.AffinityKept, "layer_error": r.LayerError, "balance_loss": r.BalanceLoss,
		"regret_to_optimum": r.RegretToOptimum, "bias_spread": r.BiasSpread, "bias_mean": r.BiasMean}
}

// Folder is a sweep's folder, held by one process.
type Folder struct {
	Dir  string
	lock *os.File
}

// Hold makes the folder of a plan, or takes that of the same plan, for this process alone. To extend a folder is to give it another
// plan: the cells that both have are not run again.
func Hold(dir string, p *Plan, extend bool) (*Folder, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, whole.Located(err)
	}
	f, err := os.OpenFile(filepath.Join(dir, ".lock"), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, fmt.Errorf("the folder of the sweep cannot be written: %w", whole.Located(err))
	}
	if lock(f) != nil {
		f.Close()
		return nil, fmt.Errorf("%s is in use by another sweep: wait for it, or name another folder", dir)
	}
	h := &Folder{dir, f}
	if err := h.enter(p, extend); err != nil {
		h.Release()
		return nil, err
	}
	return h, nil
}

// enter writes the plan into the folder, or checks that it is the one that is there.
func (h *Folder) enter(p *Plan, extend bool) error {
	name := filepath.Join(h.Dir, "plan.json")
	if _, err := os.Stat(name); err == nil {
		old, err := ReadPlan(name)
		if err != nil {
			return err
		}
		if old.Hash() == p.Hash() {
			return nil
		}
		if !extend {
			return fmt.Errorf("%s holds the results of another plan (%s, not %s): name another folder, or give it this plan, and keep the cells that both have, by --extend", h.Dir, old.Hash(), p.Hash())
		}
		return whole.WriteBytes(name, p.Encode())
	}
	entries, err := os.ReadDir(h.Dir)
	if err != nil {
		return whole.Located(err)
	}
	for _, e := range entries {
		if e.Name() != ".lock" && !whole.Temporary(e.Name()) {
			return fmt.Errorf("%s is no folder of a sweep and holds other files, such as %s: name another", h.Dir, e.Name())
		}
	}
	return whole.WriteBytes(name, p.Encode())
}

// Release gives the folder back.
func (h *Folder) Release() { h.lock.Close() }
