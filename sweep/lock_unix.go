//go:build unix

package sweep

import (
	"errors"
	"os"
	"syscall"
)

// lock takes a file for this process alone, or shared with others that share it, or fails at once: with errHeld if another
// process has it. The system gives it back when the process ends, however it ends.
func lock(f *os.File, alone bool) error {
	how := syscall.LOCK_SH
	if alone {
		how = syscall.LOCK_EX
	}
	err := syscall.Flock(int(f.Fd()), how|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return errHeld
	}
	return err
}
