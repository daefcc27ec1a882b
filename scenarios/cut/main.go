// Command cut makes the embedded trace of scenario tinymoe from the full one: layer 0 and the first sequences of each
// domain.
//
//	go run ./scenarios/cut none.npz scenarios/shipped/tinymoe.npz
package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"

	"evenkeel/internal/npz"
)

const perDomain = 16 // sequences

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: cut FULL.npz CUT.npz")
		os.Exit(2)
	}
	if err := cut(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "cut:", err)
		os.Exit(1)
	}
}

func cut(from, to string) error {
	f, err := npz.Open(from)
	if err != nil {
		return err
	}
	defer f.Close()
	h, _ := f.Header("seq_lens")
	lengths, err := f.Int32s("seq_lens", 0, h.Len())
	if err != nil {
		return err
	}
	h, _ = f.Header("domain")
	domain, err := f.Int32s("domain", 0, h.Len())
	if err != nil {
		return err
	}
	var kept [][2]int // token ranges
	var keptLengths []byte
	seen, at := map[int32]int{}, 0
	for _, n := range lengths {
		if d := domain[at]; seen[d] < perDomain {
			seen[d]++
			kept = append(kept, [2]int{at, at + int(n)})
			keptLengths = binary.LittleEndian.AppendUint32(keptLengths, uint32(n))
		}
		at += int(n)
	}
	out := []npz.Array{{Name: "seq_lens", DType: npz.Int32, Shape: []int{len(kept)}, Data: keptLengths}}
	for _, name := range []string{"logits", "hidden", "topk_ids", "token_id", "domain"} {
		a, err := tokens(f, name, len(domain), kept)
		if err != nil {
			return err
		}
		out = append(out, a)
	}
	for _, name := range []string{"router", "bias"} {
		h, _ := f.Header(name)
		n := h.Len() / h.Shape[0]
		data, err := f.Raw(name, 0, n)
		if err != nil {
			return err
		}
		out = append(out, npz.Array{Name: name, DType: h.DType, Shape: h.Shape[1:], Data: data})
	}
	var text bytes.Buffer
	if err := npz.Write(&text, out); err != nil {
		return err
	}
	return os.WriteFile(to, text.Bytes(), 0o644)
}

// tokens keeps ranges of tokens of an array, and of its first layer where it has layers.
func tokens(f *npz.File, name string, all int, kept [][2]int) (npz.Array, error) {
	h, ok := f.Header(name)
	if !ok {
		return npz.Array{}, fmt.Errorf("there is no array %q", name)
	}
	shape := h.Shape
	if len(shape) == 3 {
		shape = shape[1:]
	}
	width := 1
	if len(shape) == 2 {
		width = shape[1]
	}
	layer, err := f.Raw(name, 0, all*width)
	if err != nil {
		return npz.Array{}, err
	}
	size := len(layer) / all
	var data []byte
	n := 0
	for _, r := range kept {
		data = append(data, layer[r[0]*size:r[1]*size]...)
		n += r[1] - r[0]
	}
	return npz.Array{Name: name, DType: h.DType, Shape: append([]int{n}, shape[1:]...), Data: data}, nil
}
