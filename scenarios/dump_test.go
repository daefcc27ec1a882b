package scenarios

import (
	"bytes"
	"math"
	"testing"

	"evenkeel/internal/npz"
)

// FuzzDump reads mutated archives: nothing panics, and what is accepted is consistent.
func FuzzDump(f *testing.F) {
	seed := func(arrays ...npz.Array) {
		var b bytes.Buffer
		if err := npz.Write(&b, arrays); err != nil {
			f.Fatal(err)
		}
		f.Add(b.Bytes(), 0)
	}
	bytesOf := func(name string, shape []int, data ...byte) npz.Array {
		return npz.Array{Name: name, DType: npz.Uint8, Shape: shape, Data: data}
	}
	seed(bytesOf("scores", []int{2, 3}, 1, 2, 3, 4, 5, 6), bytesOf("hidden", []int{2, 1}, 1, 2), bytesOf("router", []int{3, 1}, 1, 2, 3),
		bytesOf("seq_lens", []int{2}, 1, 1), bytesOf("domain", []int{2}, 0, 1), bytesOf("token_id", []int{2}, 9, 9), bytesOf("bias", []int{3}, 0, 0, 0))
	seed(bytesOf("topk_ids", []int{2, 2, 1}, 0, 1, 2, 3))
	seed(bytesOf("logits", []int{1, 2, 2}, 0, 1, 2, 3), bytesOf("topk_ids", []int{1, 2, 1}, 0, 1))
	seed(npz.Array{Name: "topk_ids", DType: npz.Int8, Shape: []int{1, 3}, Data: []byte{1, 255, 255}})
	seed(bytesOf("topk_ids", []int{2, 2}, 0, 1, 2, 3), npz.Array{Name: "topk_weights", DType: npz.Float16, Shape: []int{2, 2}, Data: []byte{0, 0x38, 0, 0x34, 0, 0x38, 0, 0x30}})
	seed(bytesOf("counts", []int{2, 1, 3}, 0, 1, 2, 3, 4, 5), bytesOf("layers", []int{1}, 3))
	f.Fuzz(func(t *testing.T, text []byte, layer int) {
		file, err := npz.NewReader(bytes.NewReader(text), int64(len(text)), "fuzz.npz")
		if err != nil {
			return
		}
		d, err := readDump(file, "fuzz.npz", layer)
		if err != nil {
			return
		}
		if d.Level == LevelScores && len(d.Scores) != d.Tokens*d.Experts || len(d.Hidden) != d.Tokens*d.Width || len(d.Choices) != 0 && len(d.Choices) != d.Tokens*d.TopK {
			t.Fatalf("an inconsistent dump was accepted: %+v", d)
		}
		if d.TopK > d.Experts {
			t.Fatalf("%d choices of %d experts were accepted", d.TopK, d.Experts)
		}
		at := 0
		for _, s := range d.Sequences {
			if s.From != at || s.Len() < 1 {
				t.Fatalf("sequences %v", d.Sequences)
			}
			at = s.To
		}
		for _, v := range d.Scores {
			if math.IsNaN(float64(v)) || math.IsInf(float64(v), 0) {
				t.Fatalf("score %v was accepted", v)
			}
		}
		if len(d.Counts) != d.Steps*d.Experts && d.Level == LevelCounts {
			t.Fatalf("%d counts of %d steps and %d experts", len(d.Counts), d.Steps, d.Experts)
		}
		for _, mass := range []float64{0, 0.5} {
			if d.Tokens*d.Experts > 1<<20 || d.complete(completePopularity, mass) != nil {
				continue
			}
			for i, v := range d.Scores {
				if !(v >= 0 && v <= 1.1) {
					t.Fatalf("completed score %v at %d", v, i)
				}
			}
		}
	})
}

func TestHiddenVectorsAreBroughtToUnitRMS(t *testing.T) {
	var b bytes.Buffer
	u8 := func(name string, shape []int, data ...byte) npz.Array {
		return npz.Array{Name: name, DType: npz.Uint8, Shape: shape, Data: data}
	}
	if err := npz.Write(&b, []npz.Array{u8("logits", []int{2, 2}, 40, 80, 80, 40), u8("hidden", []int{2, 1}, 40, 40), u8("router", []int{2, 1}, 1, 2)}); err != nil {
		t.Fatal(err)
	}
	file, err := npz.NewReader(bytes.NewReader(b.Bytes()), int64(b.Len()), "x")
	if err != nil {
		t.Fatal(err)
	}
	d, err := readDump(file, "x", 0)
	if err != nil {
		t.Fatal(err)
	}
	if d.Hidden[0] != 1 || d.Router[1] != 80 || len(d.Notes) != 2 {
		t.Errorf("hidden %v, router %v, notes %q", d.Hidden, d.Router, d.Notes)
	}
}
