package main

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/term"
)

// line is a status line on a terminal, and remarks above it, which are also written elsewhere.
type line struct {
	mu       sync.Mutex
	w        io.Writer
	terminal bool
	silent   bool
	begin    time.Time
	first    int // done when it began
	last     time.Time
	shown    bool
	unit     string // of what is counted
}

func newLine(w io.Writer, silent bool) *line {
	f, ok := w.(*os.File)
	return &line{w: w, silent: silent, terminal: ok && term.IsTerminal(int(f.Fd())), begin: time.Now(), first: -1, unit: "cell"}
}

// progress shows that done of total are over.
func (l *line) progress(done, total int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	if l.first < 0 {
		l.first = done
	}
	if l.silent || !l.terminal || now.Sub(l.last) < 100*time.Millisecond {
		return
	}
	l.last, l.shown = now, true
	fmt.Fprintf(l.w, "\r\x1b[K%s %d of %d", l.unit, done, total)
	if done > l.first {
		left := time.Duration(float64(now.Sub(l.begin)) / float64(done-l.first) * float64(total-done)).Round(time.Second)
		fmt.Fprintf(l.w, ", %s left", left)
	}
}

// say writes a remark.
func (l *line) say(text string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.silent {
		l.wipe()
		fmt.Fprintln(l.w, text)
	}
}

// clear removes the line.
func (l *line) clear() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.wipe()
}

func (l *line) wipe() {
	if l.shown {
		fmt.Fprint(l.w, "\r\x1b[K")
		l.shown = false
	}
}
