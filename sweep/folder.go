package sweep

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"evenkeel/internal/whole"
)

// Folder is a sweep's folder, held by one process.
type Folder struct {
	Dir  string
	lock *os.File
}

// Change says what may become of a folder that holds the results of another plan.
type Change int

// Changes of a folder's plan. In all, cells that both plans have are not run again.
const (
	Keep   Change = iota // none: another plan is refused
	Extend               // it gets this plan
	Grow                 // it gets this plan if the two differ in their points only, as a search's do
)

// ErrOtherPlan is that a folder holds something else, which no second attempt will change.
var ErrOtherPlan = errors.New("name another folder")

// PlanFile is the plan in a sweep's folder.
const PlanFile = "plan.json"

// errHeld is that another process holds a lock.
var errHeld = errors.New("held by another process")

// noLock is that a file system does not lock files.
func noLock(dir string, err error) error {
	return fmt.Errorf("files in %s cannot be locked (%w), so that two sweeps would not see each other: %w on another file system", dir, err, ErrOtherPlan)
}

// Hold makes the folder of a plan, or takes one: for this process alone, or shared with others that run shards of it.
func Hold(dir string, p *Plan, change Change, shared bool) (*Folder, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("the folder of the sweep cannot be made: %w; name another", whole.Located(err))
	}
	f, err := os.OpenFile(filepath.Join(dir, ".lock"), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, fmt.Errorf("the folder of the sweep cannot be written: %w; name another", whole.Located(err))
	}
	if err := lock(f, !shared); err != nil {
		f.Close()
		if !errors.Is(err, errHeld) {
			return nil, noLock(dir, err)
		}
		return nil, fmt.Errorf("%s is in use by another sweep: wait for it, or name another folder", dir)
	}
	h := &Folder{dir, f}
	if !shared {
		h.tidy()
	}
	if err := h.enter(p, change); err != nil {
		h.Release()
		return nil, err
	}
	return h, nil
}

// tidy removes what a process that died left half written. Nobody else writes here.
func (h *Folder) tidy() {
	entries, _ := os.ReadDir(h.Dir) // what cannot be read is in nobody's way
	for _, e := range entries {
		if whole.Temporary(e.Name()) && e.Type().IsRegular() {
			os.Remove(filepath.Join(h.Dir, e.Name()))
		}
	}
}

// enter writes the plan into the folder, or makes sure that the one that is there permits it.
func (h *Folder) enter(p *Plan, change Change) error {
	name := filepath.Join(h.Dir, PlanFile)
	old, err := ReadPlan(name)
	switch {
	case err == nil && old.Hash() == p.Hash():
		return nil
	case err == nil && change == Grow && !p.grows(old):
		return fmt.Errorf("%s holds another search (%s): %w", h.Dir, old.Design, ErrOtherPlan)
	case err == nil && change == Keep:
		return fmt.Errorf("%s holds the results of another plan (%s, not %s): %w, or give it this plan, and keep the cells that both have, by sweep --extend", h.Dir, old.Hash(), p.Hash(), ErrOtherPlan)
	case errors.Is(err, fs.ErrNotExist):
		if err := h.fresh(); err != nil {
			if _, gone := os.Stat(name); gone == nil { // another shard wrote the plan meanwhile
				return h.enter(p, change)
			}
			return err
		}
	case err != nil && change != Extend:
		return err
	}
	return whole.Write(name, func(w io.Writer) error { return p.writeWithin(w, maxPlan) })
}

// grows reports whether p differs from an older plan in its points only.
func (p *Plan) grows(old *Plan) bool {
	return p.Scenario == old.Scenario && slices.Equal(p.Settings, old.Settings) && maps.Equal(p.Files, old.Files) && p.Design == old.Design &&
		slices.Equal(p.Seeds, old.Seeds) && p.Steps == old.Steps && p.Loads == old.Loads
}

// fresh makes sure that a folder without a plan is no other's.
func (h *Folder) fresh() error {
	entries, err := os.ReadDir(h.Dir)
	if err != nil {
		return whole.Located(err)
	}
	for _, e := range entries {
		if e.Name() != ".lock" && !whole.Temporary(e.Name()) {
			return fmt.Errorf("%s is no folder of a sweep and holds other files, such as %s: %w", h.Dir, e.Name(), ErrOtherPlan)
		}
	}
	return nil
}

// Release gives the folder back.
func (h *Folder) Release() { h.lock.Close() }
