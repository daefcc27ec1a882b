package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

func TestShippedTraceIsTheCut(t *testing.T) {
	full := filepath.Join("..", "..", "..", "shared", "data", "tinymoe", "none.npz")
	if _, err := os.Stat(full); os.IsNotExist(err) {
		t.Skipf("SKIPPED, the shipped trace was NOT compared with its source: %v", err)
	}
	to := filepath.Join(t.TempDir(), "cut.npz")
	if err := cut(full, to); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(to)
	if err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile(filepath.Join("..", "shipped", "tinymoe.npz"))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("cutting %s gives other bytes than the shipped trace", full)
	}
}
