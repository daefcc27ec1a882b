package main

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"sync"
	"time"

	"golang.org/x/term"
)

// progress is a status line on a terminal; anywhere else it stays silent.
type progress struct {
	mu    sync.Mutex
	w     io.Writer // nil if silent
	begin time.Time
	last  time.Time
	shown bool
	unit  string // of what is counted
}

func newProgress(w io.Writer, silent bool) *progress {
	p := &progress{begin: time.Now(), unit: "step"}
	if f, ok := w.(*os.File); ok && !silent && term.IsTerminal(int(f.Fd())) {
		p.w = w
	}
	return p
}

// show reports that done of total are over.
func (p *progress) show(done, total int) {
	if p.w == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	if now.Sub(p.last) < 100*time.Millisecond {
		return
	}
	p.last, p.shown = now, true
	left := time.Duration(float64(now.Sub(p.begin)) / float64(done) * float64(total-done)).Round(time.Second)
	fmt.Fprintf(p.w, "\r\x1b[K%s %d of %d, %s left", p.unit, done, total, left)
}

// clear removes the line.
func (p *progress) clear() {
	if p.shown {
		fmt.Fprint(p.w, "\r\x1b[K")
	}
}

// terminalWidth is the width of the terminal that w is, or what COLUMNS says, or 100.
func terminalWidth(w io.Writer) int {
	if n, err := strconv.Atoi(os.Getenv("COLUMNS")); err == nil && n > 20 {
		return n
	}
	if f, ok := w.(*os.File); ok {
		if n, _, err := term.GetSize(int(f.Fd())); err == nil && n > 20 {
			return n
		}
	}
	return 100
}
