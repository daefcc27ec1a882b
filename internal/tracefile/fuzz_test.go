package tracefile

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"evenkeel/internal/npz"
)

// seeds adds the files of testdata whose names end so.
func seeds(f *testing.F, suffixes ...string) {
	for name, text := range files(f) {
		for _, s := range suffixes {
			if strings.HasSuffix(name, s) {
				f.Add(text)
			}
		}
	}
}

// accept reads all that a source claims to have.
func accept(t *testing.T, s *arrays, err error) {
	if err != nil {
		if strings.Contains(err.Error(), "\n") {
			t.Fatalf("an error of several lines: %q", err)
		}
		return
	}
	v, err := newView(s, Options{})
	if err != nil {
		return
	}
	_ = readAll(v)
}

func FuzzAny(f *testing.F) {
	seeds(f, "")
	f.Fuzz(func(t *testing.T, text []byte) {
		_ = read(text, Options{Layers: 2, TopK: 3, Padding: 255})
	})
}

func FuzzNumpy(f *testing.F) {
	seeds(f, ".npy", ".npz")
	f.Add(archive(f, ints("topk_ids", npz.Int32, []int{2, 4, 2, 2}, rl(0)...), ints("attention_mask", npz.Bool, []int{2, 4}, 1, 1, 1, 0, 0, 1, 1, 1)))
	f.Fuzz(func(t *testing.T, text []byte) {
		s, err := readNpy(bytes.NewReader(text), int64(len(text)), "fuzz")
		accept(t, s, err)
		s, err = readZip(bytes.NewReader(text), int64(len(text)), "fuzz")
		accept(t, s, err)
	})
}

func FuzzSafetensors(f *testing.F) {
	seeds(f, ".safetensors")
	f.Fuzz(func(t *testing.T, text []byte) {
		s, err := readSafetensors(bytes.NewReader(text), int64(len(text)), "fuzz")
		accept(t, s, err)
	})
}

// FuzzPickle runs mutated pickles over storages of 256 bytes each.
func FuzzPickle(f *testing.F) {
	for name, text := range files(f) {
		if i := bytes.Index(text, []byte("\x80\x02")); strings.HasSuffix(name, ".pt") && i >= 0 {
			f.Add(text[i : bytes.Index(text[i:], []byte("PK"))+i])
		}
	}
	f.Add([]byte(tensorPickle(4, 0, "K\x02K\x02\x86", "K\x02K\x01\x86") + "."))
	f.Fuzz(func(t *testing.T, text []byte) {
		storage := string(make([]byte, 256))
		_ = read(torchFile(t, string(text), storage, storage, storage, storage, storage), Options{})
	})
}

func FuzzJSON(f *testing.F) {
	seeds(f, ".jsonl", ".json")
	f.Add([]byte(`[{"layer":0,"logits":[1,2.5,-3e-2],"token_id":7},{"layer":0,"logits":[1,2,3]}]`))
	f.Add([]byte(`{"layer":0,"top_indices":[[1,2]],"block":"mtp","mtp_idx":0,"rank":0,"logit_offset":0,"logit_bytes":8,"logit_shape":[1,4]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		s, err := readJSON(bytes.NewReader(text), "fuzz", Options{Layers: 2, TopK: 3, Where: nil})
		accept(t, s, err)
	})
}

func FuzzCSV(f *testing.F) {
	seeds(f, ".csv")
	f.Fuzz(func(t *testing.T, text []byte) {
		line, _, _ := bytes.Cut(text, []byte("\n"))
		s, err := readCSV(bytes.NewReader(text), line, "fuzz", Options{})
		accept(t, s, err)
	})
}

func FuzzESFT(f *testing.F) {
	z, done, err := openText(filepath.Join("testdata", "expert_weights_3.txt.gz"))
	if err != nil {
		f.Fatal(err)
	}
	text, err := io.ReadAll(z)
	if err != nil {
		f.Fatal(err)
	}
	done()
	f.Add(text)
	f.Fuzz(func(t *testing.T, text []byte) {
		s, err := readESFT(bytes.NewReader(text), "fuzz", Options{})
		accept(t, s, err)
	})
}

func FuzzBase64(f *testing.F) {
	f.Add([]byte("AAAAAAEAAAACAAAAAwAAAAQAAAAFAAAA\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		s, err := readBase64(bytes.NewReader(text), "fuzz", Options{Layers: 2, TopK: 3})
		accept(t, s, err)
	})
}

func FuzzGzip(f *testing.F) {
	seeds(f, ".gz")
	f.Fuzz(func(t *testing.T, text []byte) {
		s, err := unpack(bytes.NewReader(text), int64(len(text)), "fuzz", Options{})
		accept(t, s, err)
	})
}

// FuzzFolder reads a rank of a Megatron-LM trace beside its sidecar, and a rank of TensorRT-LLM.
func FuzzFolder(f *testing.F) {
	trace, err := os.ReadFile(filepath.Join("testdata", "megatron", "router_trace_rank0.jsonl"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(trace, true)
	for _, name := range []string{"tensorrt/rank0.safetensors", "tensorrt-raw/rank0_raw.safetensors"} {
		text, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text, false)
	}
	f.Fuzz(func(t *testing.T, text []byte, megatron bool) {
		dir := t.TempDir()
		write := func(name string, text []byte) {
			if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if megatron {
			write("router_trace_rank0.jsonl", text)
			write("logits_rank0.bin", make([]byte, 96))
		} else {
			write("meta_info.json", text[:len(text)/2])
			write("rank0.safetensors", text)
			write("rank1_raw.safetensors", text)
		}
		s, err := Open(dir, Options{})
		if err == nil {
			_ = readAll(s)
		}
	})
}
