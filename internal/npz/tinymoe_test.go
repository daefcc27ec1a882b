package npz

import (
	"math"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestTinyMoE(t *testing.T) {
	path := filepath.Join("..", "..", "..", "shared", "data", "tinymoe", "none.npz")
	if _, err := os.Stat(path); os.IsNotExist(err) {
		t.Skipf("SKIPPED, a real dump was NOT read: %v", err)
	}
	f, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	const layers, tokens, experts, width = 2, 16384, 64, 128
	for _, want := range []Header{
		{"logits", Float16, []int{layers, tokens, experts}},
		{"hidden", Float16, []int{layers, tokens, width}},
		{"router", Float32, []int{layers, experts, width}},
		{"bias", Float32, []int{layers, experts}},
		{"topk_ids", Uint8, []int{layers, tokens, 6}},
		{"token_id", Uint16, []int{tokens}},
		{"domain", Uint8, []int{tokens}},
		{"seq_lens", Int32, []int{128}},
	} {
		h, ok := f.Header(want.Name)
		if !ok || h.DType != want.DType || !slices.Equal(h.Shape, want.Shape) {
			t.Errorf("header %+v, %v, want %+v", h, ok, want)
		}
		if _, err := f.Raw(want.Name, 0, h.Len()); err != nil {
			t.Error(err)
		}
	}
	rows := func(array string, first, n, width int) []float32 {
		v, err := f.Float32s(array, first*width, (first+n)*width)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	for layer := range layers {
		router := rows("router", layer*experts, experts, width)
		for _, token := range []int{0, 1, 5000, tokens - 1} {
			hidden := rows("hidden", layer*tokens+token, 1, width)
			logits := rows("logits", layer*tokens+token, 1, experts)
			for e, logit := range logits {
				var dot float64
				for i, h := range hidden {
					dot += float64(h) * float64(router[e*width+i])
				}
				if !(math.Abs(dot-float64(logit)) <= 1e-2) {
					t.Errorf("layer %d token %d expert %d: hidden·router %v, logit %v", layer, token, e, dot, logit)
				}
			}
		}
	}
	lens, err := f.Int32s("seq_lens", 0, 128)
	if err != nil {
		t.Fatal(err)
	}
	var sum int32
	for _, n := range lens {
		sum += n
	}
	if sum != tokens {
		t.Errorf("sequences have %d tokens, want %d", sum, tokens)
	}
}
