package scenarios

import (
	"math"
	"math/bits"
	"testing"

	"evenkeel/moe"
)

// fates returns of a stream's batches how many tokens there are, how many are of use, and how many counts see.
func fates(t *testing.T, name string, settings []string, look func(b *moe.Batch, tile *moe.Tile)) (total, useful, seen int) {
	t.Helper()
	s, err := Load(name, settings, -1)
	if err != nil {
		t.Fatal(err)
	}
	b, w, g := moe.NewBatch(s.Layer(), s.Tokens), moe.NewScratch(s.Layer()), s.Stream(1)
	for step := range 100 {
		g.Layout(b, moe.Moment{Step: step, Index: step})
		for i := range b.Tiles {
			g.Fill(b, i, w)
			if look != nil {
				look(b, &b.Tiles[i])
			}
		}
		waste, unseen := 0, 0
		for _, x := range b.Tiles {
			waste += bits.OnesCount64(x.Waste)
			unseen += bits.OnesCount64(x.Unseen)
		}
		if b.Useful != b.Total-waste || b.Seen != b.Total-unseen {
			t.Fatalf("%s: a batch of %d says that %d are of use and %d seen, and %d and %d are", name, b.Total, b.Useful, b.Seen, b.Total-waste, b.Total-unseen)
		}
		total, useful, seen = total+b.Total, useful+b.Useful, seen+b.Seen
	}
	return total, useful, seen
}

// The share of drafts that are kept is (1 − a^(n+1))/((1 − a)(n+1)), at four standard errors of whole windows.
func TestDrafts(t *testing.T) {
	for _, c := range []struct {
		length, window string
		n              float64
		a              float64
	}{{"1", "2", 1, 0.85}, {"3", "4", 3, 0.6}, {"2", "3", 2, 0}, {"2", "3", 2, 1}} {
		kept := (1 - math.Pow(c.a, c.n+1)) / ((1 - c.a) * (c.n + 1))
		if c.a == 1 {
			kept = 1
		}
		settings := []string{"tokens=384", "sequence_length=" + c.window, "synthetic.drafts.length=" + c.length, "synthetic.drafts.acceptance=" + map[float64]string{0.85: "0.85", 0.6: "0.6", 0: "0", 1: "1"}[c.a]}
		total, useful, seen := fates(t, "drafts", settings, nil)
		windows := float64(total) / (c.n + 1)
		tolerance := 4 * (c.n + 1) / 2 / math.Sqrt(windows) / (c.n + 1)
		if c.a == 0 || c.a == 1 {
			tolerance = 0
		}
		if got := float64(useful) / float64(total); math.Abs(got-kept) > tolerance {
			t.Errorf("%v drafts at %v: %.4f of the tokens are of use, want %.4f ± %.4f", c.n, c.a, got, kept, tolerance)
		}
		if seen != total {
			t.Errorf("%d of %d drafts are seen by counts, want all", seen, total)
		}
		d := Drafts{Length: int(c.n), Acceptance: c.a}
		if math.Abs(d.accepted()-kept) > 1e-12 {
			t.Errorf("accepted() is %v, want %v", d.accepted(), kept)
		}
	}
}

// Padding ends sequences, is a quarter of all tokens, all alike, and is seen by counts or not, as asked.
func TestPadding(t *testing.T) {
	for _, counted := range []string{"true", "false"} {
		var first []float32
		total, useful, seen := fates(t, "padding", []string{"synthetic.padding.counted=" + counted, "width=8"}, func(b *moe.Batch, tile *moe.Tile) {
			for l := range tile.Tokens {
				if tile.Waste>>l&1 == 0 {
					continue
				}
				x := make([]float32, 8)
				for k := range x {
					x[k] = tile.X[k*64+l]
				}
				if first == nil {
					first = x
				}
				for k := range x {
					if x[k] != first[k] {
						t.Fatal("padding differs")
					}
				}
				if at := (tile.Start + l) % 256; at < 255 && l < 63 && tile.Waste>>(l+1)&1 == 0 {
					t.Fatal("a token follows padding in its sequence")
				}
			}
		})
		// Parts drawn evenly from 0 to a half have a standard deviation of 0.144; there are 800 sequences.
		if got := 1 - float64(useful)/float64(total); math.Abs(got-0.25) > 4*0.144/math.Sqrt(800) {
			t.Errorf("%.4f of the tokens are padding, want 0.25", got)
		}
		if want := map[string]int{"true": total, "false": useful}[counted]; seen != want {
			t.Errorf("counted=%s: counts see %d of %d tokens, want %d", counted, seen, total, want)
		}
	}
}
