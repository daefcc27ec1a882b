package tracefile

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"testing"

	"evenkeel/internal/npz"
)

// random yields the same numbers in every run.
type random uint64

func (r *random) next(n int) int {
	*r = *r*6364136223846793005 + 1442695040888963407
	return int(uint64(*r>>33) % uint64(n))
}

// routes writes tokens of 8 experts in 24 layers, as the logging patches of vLLM do.
func routes(w io.Writer, tokens int) {
	var r random
	for t := range tokens {
		for layer := range 24 {
			fmt.Fprintf(w, `{"type": "route", "req_id": "request-%d", "token_idx": %d, "layer": %d, "topk_ids": [`, t/500, t%500, layer)
			for k := range 8 {
				if k > 0 {
					io.WriteString(w, ", ")
				}
				fmt.Fprint(w, k*16+r.next(16))
			}
			io.WriteString(w, `], "topk_weights": [`)
			for k := range 8 {
				if k > 0 {
					io.WriteString(w, ", ")
				}
				fmt.Fprint(w, float32(r.next(1<<20))/(1<<23))
			}
			io.WriteString(w, "]}\n")
		}
	}
}

// batches writes whole batches a line, as Megatron-LM does.
func batches(w io.Writer, steps int) {
	var r random
	for step := range steps {
		for layer := range 24 {
			fmt.Fprintf(w, `{"step": %d, "stage": "pre_dispatch", "block": "decoder", "layer": %d, "rank": 0, "num_tokens": 256, "topk": 8, "top_indices": [`, step, layer)
			for t := range 256 {
				if t > 0 {
					io.WriteString(w, ", ")
				}
				io.WriteString(w, "[")
				for k := range 8 {
					if k > 0 {
						io.WriteString(w, ", ")
					}
					fmt.Fprint(w, k*16+r.next(16))
				}
				io.WriteString(w, "]")
			}
			io.WriteString(w, "]}\n")
		}
	}
}

func table(w io.Writer, tokens int) {
	var r random
	io.WriteString(w, "layer,token,experts,weights\n")
	for t := range tokens {
		for layer := range 24 {
			fmt.Fprintf(w, `%d,%d,"[%d, %d, %d, %d]","[0.%d, 0.%d, 0.%d, 0.%d]"`+"\n", layer, t, r.next(16), 16+r.next(16), 32+r.next(16), 48+r.next(16),
				r.next(9999), r.next(9999), r.next(9999), r.next(9999))
		}
	}
}

func benchmarkText(b *testing.B, write func(w io.Writer)) {
	var text bytes.Buffer
	write(&text)
	b.SetBytes(int64(text.Len()))
	b.ReportAllocs()
	for b.Loop() {
		s, err := NewReader(bytes.NewReader(text.Bytes()), int64(text.Len()), "benchmark", Options{})
		if err != nil {
			b.Fatal(err)
		}
		s.Close()
	}
}

func BenchmarkRoutes(b *testing.B)   { benchmarkText(b, func(w io.Writer) { routes(w, 8000) }) }
func BenchmarkMegatron(b *testing.B) { benchmarkText(b, func(w io.Writer) { batches(w, 120) }) }
func BenchmarkCSV(b *testing.B)      { benchmarkText(b, func(w io.Writer) { table(w, 8000) }) }

// scores is 64 MiB of logits, near to normal with mean −1, as float32 or in two bytes.
func scores(size int) []byte {
	var r random
	out := make([]byte, 0, 64<<20)
	for len(out) < 64<<20 {
		v := float32(-5)
		for range 4 {
			v += float32(r.next(1<<24)) / (1 << 23)
		}
		if size == 4 {
			out = binary.LittleEndian.AppendUint32(out, math.Float32bits(v))
		} else { // as bfloat16
			out = binary.LittleEndian.AppendUint16(out, uint16(math.Float32bits(v)>>16))
		}
	}
	return out
}

func benchmarkArray(b *testing.B, text []byte, size int) {
	s, err := NewReader(bytes.NewReader(text), int64(len(text)), "benchmark", Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	h, _ := s.Header("logits")
	n := h.Len()
	b.SetBytes(int64(n * size))
	for b.Loop() {
		for from := 0; from < n; from += 1 << 20 {
			if _, err := s.Float32s("logits", from, min(n, from+1<<20)); err != nil {
				b.Fatal(err)
			}
		}
	}
}

// tensors writes a safetensors file of one tensor.
func tensors(kind string, data []byte, shape string) []byte {
	head := fmt.Sprintf(`{"logits": {"dtype": %q, "shape": %s, "data_offsets": [0, %d]}}`, kind, shape, len(data))
	return append(append(binary.LittleEndian.AppendUint64(nil, uint64(len(head))), head...), data...)
}

func BenchmarkSafetensorsF32(b *testing.B) {
	benchmarkArray(b, tensors("F32", scores(4), "[262144, 64]"), 4)
}

func BenchmarkSafetensorsBF16(b *testing.B) {
	benchmarkArray(b, tensors("BF16", scores(2), "[524288, 64]"), 2)
}

func benchmarkNpz(b *testing.B, d npz.DType, data []byte, write func(w io.Writer, a npz.Array) error) {
	var text bytes.Buffer
	if err := write(&text, npz.Array{Name: "logits", DType: d, Shape: []int{len(data) / d.Size() / 64, 64}, Data: data}); err != nil {
		b.Fatal(err)
	}
	benchmarkArray(b, text.Bytes(), d.Size())
}

func deflated(w io.Writer, a npz.Array) error { return npz.Write(w, []npz.Array{a}) }

func stored(w io.Writer, a npz.Array) error {
	z := npz.NewWriter(w)
	x, err := z.Create(a.Name, a.DType, a.Shape)
	if err == nil {
		_, err = x.Write(a.Data)
	}
	if err == nil {
		err = z.Close()
	}
	return err
}

func BenchmarkNpzStored(b *testing.B)   { benchmarkNpz(b, npz.Float32, scores(4), stored) }
func BenchmarkNpzFloat16(b *testing.B)  { benchmarkNpz(b, npz.Float16, scores(2), stored) }
func BenchmarkNpzDeflated(b *testing.B) { benchmarkNpz(b, npz.Float32, scores(4), deflated) }

func BenchmarkNpzDeflatedFloat16(b *testing.B) { benchmarkNpz(b, npz.Float16, scores(2), deflated) }

// Ids shrink by half, logits hardly.
func BenchmarkNpzDeflatedIDs(b *testing.B) {
	var r random
	ids := make([]byte, 64<<20)
	for i := 0; i < len(ids); i += 2 {
		ids[i] = byte(i/2%8*16 + r.next(16))
	}
	benchmarkNpz(b, npz.Int16, ids, deflated)
}
