package sweep

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// Folder is a sweep's folder, held by one process.
type Folder struct {
	Dir  string
	lock *os.File
}

// Hold makes the folder of a plan, or takes that of the same plan: for this process alone, or shared with others that run shards.
// To extend a folder is to give it another plan: the cells that both have are not run again.
func Hold(dir string, p *Plan, extend, shared bool) (*Folder, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, located(err)
	}
	f, err := os.OpenFile(filepath.Join(dir, ".lock"), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, fmt.Errorf("the folder of the sweep cannot be written: %w", located(err))
	}
	if lock(f, !shared) != nil {
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
		return writeWhole(name, func(w io.Writer) error { _, err := w.Write(p.Encode()); return err })
	}
	entries, err := os.ReadDir(h.Dir)
	if err != nil {
		return located(err)
	}
	for _, e := range entries {
		if e.Name() != ".lock" && !temporary(e.Name()) {
			return fmt.Errorf("%s is no folder of a sweep and holds other files, such as %s: name another", h.Dir, e.Name())
		}
	}
	return writeWhole(name, func(w io.Writer) error { _, err := w.Write(p.Encode()); return err })
}

// Release gives the folder back.
func (h *Folder) Release() { h.lock.Close() }
