package sim

import (
	"testing"
	"time"
)

// AlwaysShare makes idle workers help with every step of a test, however short.
func AlwaysShare(t testing.TB) {
	before := worthHelp
	worthHelp = -time.Second
	t.Cleanup(func() { worthHelp = before })
}
