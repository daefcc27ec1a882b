package sim

import (
	"math"
	"testing"

	"evenkeel/moe"
)

// rowsOf makes steps with the given MaxVio, each repeated.
func rowsOf(levels ...[2]float64) (rows []StepRow) {
	for _, l := range levels {
		for range int(l[0]) {
			rows = append(rows, StepRow{Step: len(rows), MaxVio: l[1]})
		}
	}
	return rows
}

// After 20 steps at 2 the level is 0.5: the running mean 0.5 + 1.5·0.9^k comes under 1.5·0.5 with k = 18, at row 37.
func TestSettled(t *testing.T) {
	for _, c := range []struct {
		rows []StepRow
		at   int
		ok   bool
	}{
		{rowsOf([2]float64{20, 2}, [2]float64{80, 0.5}), 37, true},
		{rowsOf([2]float64{100, 0.5}), 0, true},
		{rowsOf([2]float64{88, 1}, [2]float64{12, 1.2}), 0, true},   // halves of the last quarter differ by 18 %
		{rowsOf([2]float64{87, 1}, [2]float64{13, 1.25}), 0, false}, // by 22 %
		{rowsOf([2]float64{7, 1}), 0, false},
	} {
		if at, ok := settled(c.rows); at != c.at || ok != c.ok {
			t.Errorf("settled(%d rows) = %d, %v, want %d, %v", len(c.rows), at, ok, c.at, c.ok)
		}
	}
}

func TestRecovery(t *testing.T) {
	// Each event is followed by 20 steps at 2 and 80 at 0.5, which take 37 rows; the second by 100 steps at its level.
	rows := rowsOf([2]float64{50, 0.5}, [2]float64{20, 2}, [2]float64{80, 0.5}, [2]float64{100, 0.5})
	for _, c := range []struct {
		events []moe.Mark
		want   float64
		ok     bool
	}{
		{[]moe.Mark{{Step: 50}, {Step: 150}}, 18.5, true},
		{[]moe.Mark{{Step: 50}, {Step: 50}, {Step: 150}}, 18.5, true}, // two events at one step count once
		{[]moe.Mark{{Step: 0}, {Step: 50}, {Step: 150}}, 18.5, true},  // a run begins with its first step
		{nil, 0, false},
	} {
		if got, ok := recovery(recoveries(rows, c.events)); ok != c.ok || ok && got != c.want {
			t.Errorf("recovery after %v is %v, %v, want %v, %v", c.events, got, ok, c.want, c.ok)
		}
	}
}

// Each event has its own figure, and one that nothing settled after has none.
func TestRecoveryOfEachEvent(t *testing.T) {
	rows := rowsOf([2]float64{50, 0.5}, [2]float64{20, 2}, [2]float64{80, 0.5}, [2]float64{88, 1}, [2]float64{12, 2}, [2]float64{100, 0.5})
	all := recoveries(rows, []moe.Mark{{Step: 0}, {Step: 50}, {Step: 150}, {Step: 250}})
	if len(all) != 3 || all[0] != 37 || !math.IsNaN(all[1]) || all[2] != 0 {
		t.Errorf("recoveries are %v, want 37, none, 0", all)
	}
	if _, ok := recovery(all); ok {
		t.Error("a mean of recoveries of which one is missing")
	}
}

func TestSignsOfLoadErrors(t *testing.T) {
	s := newSigns(2)
	for _, n := range [][]int64{{3, 1}, {1, 3}, {1, 3}, {2, 2}, {3, 1}} {
		s.observe(n)
	}
	// Both experts change sign from the first to the second step, and from the third over an even one to the last.
	if s.flips != 4 || s.all != 8 {
		t.Errorf("%d flips of %d, want 4 of 8", s.flips, s.all)
	}
}
