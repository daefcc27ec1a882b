package tracefile

import (
	"archive/zip"
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"evenkeel/internal/npz"
)

func openBytes(text []byte, o Options) (Source, error) {
	return NewReader(bytes.NewReader(text), int64(len(text)), "test", o)
}

// readAll reads every array that is not large, and closes the source.
func readAll(s Source) error {
	defer s.Close()
	for _, name := range s.Names() {
		h, _ := s.Header(name)
		n := h.Len()
		if n > 1<<20 {
			continue
		}
		if _, err := s.Float32s(name, 0, n); err != nil {
			return err
		}
		if !h.DType.Float() {
			if _, err := s.Int32s(name, 0, n); err != nil && !strings.Contains(err.Error(), "outside int32") {
				return err
			}
		}
	}
	return nil
}

func read(text []byte, o Options) error {
	s, err := openBytes(text, o)
	if err != nil {
		return err
	}
	return readAll(s)
}

// files are the traces of one file in testdata.
func files(t testing.TB) map[string][]byte {
	all := map[string][]byte{}
	for _, c := range formatCases {
		text, err := os.ReadFile(filepath.Join("testdata", c.file))
		if err == nil {
			all[c.file] = text
		}
	}
	if len(all) < 15 {
		t.Fatalf("testdata has %d files", len(all))
	}
	return all
}

// A file that is cut off anywhere never panics, and in the middle it gives an error of one line that names the file.
func TestTruncated(t *testing.T) {
	for name, text := range files(t) {
		o := Options{Layers: 2, TopK: 3}
		for n := range text {
			err := read(text[:n], o)
			if n == len(text)*3/4 && err == nil {
				t.Errorf("%s cut off after %d bytes of %d was read", name, n, len(text))
			}
			if err != nil && (!strings.HasPrefix(err.Error(), "test") || strings.Contains(err.Error(), "\n")) {
				t.Fatalf("%s cut off after %d bytes: %q", name, n, err)
			}
		}
	}
}

// Any byte of a file may be wrong.
func TestDamaged(t *testing.T) {
	for name, text := range files(t) {
		for at := range text {
			bits := []byte{0x01, 0x80, 0xff}[at%3]
			text[at] ^= bits
			if err := read(text, Options{Layers: 2, TopK: 3}); err != nil && strings.Contains(err.Error(), "\n") {
				t.Fatalf("%s damaged at %d: %q", name, at, err)
			}
			text[at] ^= bits
		}
	}
}

func header(text string, data int) []byte {
	b := binary.LittleEndian.AppendUint64(nil, uint64(len(text)))
	return append(append(b, text...), make([]byte, data)...)
}

func npy(dict string) []byte {
	return append([]byte("\x93NUMPY\x01\x00"+string([]byte{byte(len(dict)), 0})), dict...)
}

func packed(t *testing.T, text []byte) []byte {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if _, err := z.Write(text); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// torchFile is an archive as torch.save writes it, around a pickle spelled out.
func torchFile(t testing.TB, pickle string, storages ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	add := func(name, text string) {
		w, err := z.CreateHeader(&zip.FileHeader{Name: "archive/" + name, Method: zip.Store})
		if err == nil {
			_, err = io.WriteString(w, text)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	add("data.pkl", pickle)
	for i, s := range storages {
		add(fmt.Sprintf("data/%d", i), s)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// tensorPickle is the pickle of an int32 tensor of storage 0.
func tensorPickle(elements, offset byte, shape, strides string) string {
	return "ctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storagectorch\nIntStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK" + string([]byte{elements}) +
		"tQK" + string([]byte{offset}) + shape + strides + "\x89ccollections\nOrderedDict\n)RtR"
}

// perPass is the pickle of a recording with one pass, whose counts have the given shape, and a map of two slots.
func perPass(shape, strides string) string {
	text := func(s string) string { return "X" + string([]byte{byte(len(s)), 0, 0, 0}) + s }
	return "}(" + text("records") + "](}(" + text("forward_pass_id") + "K\x00" + text("global_physical_count") + tensorPickle(4, 0, shape, strides) + "ue" +
		text("last_physical_to_logical_map") + tensorPickle(4, 0, "K\x01K\x02\x86", "K\x02K\x01\x86") + "u."
}

// compressed is an archive like that of torch.save, but deflated.
func compressed(t testing.TB) []byte {
	t.Helper()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	w, err := z.Create("archive/data.pkl")
	if err == nil {
		_, err = io.WriteString(w, strings.Repeat("N", 1<<20)+".")
	}
	if err == nil {
		err = z.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestBadFiles(t *testing.T) {
	row := `{"layer":0,"topk_ids":[1,2]}` + "\n"
	rows := func(lines ...string) []byte { return []byte(strings.Join(lines, "\n") + "\n") }
	raw := base64.StdEncoding.EncodeToString(make([]byte, 24))
	var wide bytes.Buffer
	if err := npz.Write(&wide, []npz.Array{{Name: "topk_ids", DType: npz.Int64, Shape: []int{1, 1}, Data: []byte{0, 0, 0, 0, 1, 0, 0, 0}}}); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		text []byte
		o    Options
		want string
	}{
		{"nothing", nil, Options{}, "is empty"},
		{"noise", []byte{1, 2, 3, 0, 5}, Options{}, "no format that is known"},
		{"prose", []byte("once upon a time"), Options{}, "no format that is known"},
		{"zip without arrays", torchFile(t, "")[:40], Options{}, "cut off"},
		{"bare pickle", []byte("\x80\x04cos\nsystem\n."), Options{}, "bare pickle"},
		{"legacy torch", []byte("\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."), Options{}, "before 1.6"},

		{"npy: shape overflows", npy("{'descr': '<f4', 'fortran_order': False, 'shape': (4294967296, 4294967296, 4294967296), }"), Options{}, "overflows"},
		{"npy: objects", npy("{'descr': '|O', 'fortran_order': False, 'shape': (1, 1), }"), Options{}, "object type"},
		{"npz: beyond int32", wide.Bytes(), Options{}, ""},

		{"safetensors: header beyond the file", append(binary.LittleEndian.AppendUint64(nil, 1<<40), "{\"a\":"...), Options{}, "claims 1099511627776 bytes"},
		{"safetensors: offsets beyond the file", header(`{"logits":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]}}`, 8), Options{}, "do not lie within the 8 bytes"},
		{"safetensors: offsets and shape disagree", header(`{"logits":{"dtype":"F32","shape":[2,2],"data_offsets":[0,8]}}`, 8), Options{}, "takes 16 bytes, but its data_offsets span 8"},
		{"safetensors: shape overflows", header(`{"logits":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}}`, 0), Options{}, "overflows"},
		{"safetensors: negative", header(`{"logits":{"dtype":"F32","shape":[-1],"data_offsets":[0,0]}}`, 0), Options{}, "overflows"},
		{"safetensors: unknown type", header(`{"logits":{"dtype":"F8_E4M3","shape":[2],"data_offsets":[0,2]}}`, 2), Options{}, `dtype "F8_E4M3"`},
		{"safetensors: overlap", header(`{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}}`, 3), Options{}, "overlap"},
		{"safetensors: twice", header(`{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}`, 2), Options{}, "occurs twice"},
		{"safetensors: deep", header(`{"a":`+strings.Repeat("[", 1000), 0), Options{}, "want an object"},
		{"safetensors: deep metadata", header(`{"__metadata__":`+strings.Repeat("[", 1000), 0), Options{}, "nested more than 64 deep"},
		{"safetensors: layers of different shapes", header(`{"l.1":{"dtype":"U8","shape":[1,2],"data_offsets":[0,2]},"l.2":{"dtype":"U8","shape":[2,1],"data_offsets":[2,4]}}`, 4), Options{Map: []string{"topk_ids=l.{layer}"}}, "shapes [1 2] in layer 1 and [2 1] in layer 2"},
		{"safetensors: no layers", header(`{"l.1":{"dtype":"U8","shape":[1,2],"data_offsets":[0,2]}}`, 2), Options{Map: []string{"topk_ids=m.{layer}"}}, "no array of a name like"},
		{"safetensors: text as ids", header(`{"topk_ids":{"dtype":"F32","shape":[1,1],"data_offsets":[0,4]}}`, 4), Options{}, ""},

		{"torch: calls a function", torchFile(t, "\x80\x02cposix\nsystem\nX\x05\x00\x00\x00false\x85R."), Options{}, `refers to "posix.system", which is refused`},
		{"torch: calls a function by the stack", torchFile(t, "\x80\x04\x8c\x08builtins\x8c\x04eval\x93\x8c\x011\x85R."), Options{}, `"builtins.eval"`},
		{"torch: makes an object", torchFile(t, "\x80\x02ccollections\nOrderedDict\n)\x81."), Options{}, "operation 0x81 is refused"},
		{"torch: calls a storage", torchFile(t, "\x80\x02ctorch\nIntStorage\n)R."), Options{}, "calls \"torch.IntStorage\""},
		{"torch: sets a state", torchFile(t, "\x80\x02K\x01}b."), Options{}, "sets the state"},
		{"torch: empty stack", torchFile(t, "\x80\x02."), Options{}, "value that is not there"},
		{"torch: no end", torchFile(t, "\x80\x02]"), Options{}, "cut off"},
		{"torch: long string", torchFile(t, "\x80\x02X\xff\xff\xff\x7fabc."), Options{}, "cut off"},
		{"torch: huge integer", torchFile(t, "\x80\x02\x8a\xff"+strings.Repeat("\x01", 255)+"."), Options{}, "too large"},
		{"torch: memo", torchFile(t, "\x80\x02j\xff\xff\xff\xff."), Options{}, "never kept"},
		{"torch: dict of dicts", torchFile(t, "\x80\x02}}}s."), Options{}, "key of type dict"},
		{"torch: marks", torchFile(t, "\x80\x02"+strings.Repeat("(", maxStack+1)), Options{}, "marks"},
		{"torch: stack", torchFile(t, "\x80\x02"+strings.Repeat("N", maxStack+1)), Options{}, "stacks more"},
		{"torch: a number", torchFile(t, "\x80\x02K\x05."), Options{}, "holds a int without tensors"},
		{"torch: tensor beyond storage", torchFile(t, tensorPickle(4, 0, "K\x02K\x03\x86", "K\x03K\x01\x86")+".", strings.Repeat("x", 16)), Options{}, "exceeds its storage of 4"},
		{"torch: offset beyond storage", torchFile(t, tensorPickle(4, 3, "K\x02K\x01\x86", "K\x01K\x01\x86")+".", strings.Repeat("x", 16)), Options{}, "exceeds its storage of 4"},
		{"torch: storage beyond archive", torchFile(t, tensorPickle(5, 0, "K\x02K\x02\x86", "K\x02K\x01\x86")+".", strings.Repeat("x", 16)), Options{}, "claims 5 elements, but holds 16 bytes"},
		{"torch: no storage", torchFile(t, tensorPickle(4, 0, "K\x02K\x02\x86", "K\x02K\x01\x86")+"."), Options{}, "not in the archive"},
		{"torch: transposed", torchFile(t, tensorPickle(4, 0, "K\x02K\x02\x86", "K\x01K\x02\x86")+".", strings.Repeat("x", 16)), Options{}, "not contiguous"},
		{"SGLang: record without pass", torchFile(t, "}X\x07\x00\x00\x00records]}as."), Options{}, "has no forward_pass_id"},
		{"SGLang: records of numbers", torchFile(t, "}X\x07\x00\x00\x00records]K\x01as."), Options{}, "record 0: it is a int"},
		{"SGLang: no record", torchFile(t, "}X\x07\x00\x00\x00records]s."), Options{}, "holds no record"},
		{"SGLang: flat counts", torchFile(t, "}X\x0d\x00\x00\x00logical_count"+tensorPickle(4, 0, "K\x02K\x02\x86", "K\x02K\x01\x86")+"s.", strings.Repeat("x", 16)), Options{}, "want [steps, layers, experts]"},

		{"torch: a huge memo", torchFile(t, "\x80\x04N"+strings.Repeat("\x94", maxMemo+1)), Options{}, "keeps more than"},
		{"torch: compressed", compressed(t), Options{}, "compressed, which torch.save never does"},
		{"SGLang: physical expert without a logical one", torchFile(t, perPass("K\x01K\x04\x86", "K\x04K\x01\x86"), strings.Repeat("\x01\x00\x00\x00", 4)), Options{}, "physical expert 2 of layer 0 is not in last_physical_to_logical_map"},
		{"SGLang: logical expert", torchFile(t, perPass("K\x01K\x04\x86", "K\x04K\x01\x86"), strings.Repeat("\xff", 16)), Options{}, "last_physical_to_logical_map has -1 at slot 0"},
		{"SGLang: counts of many layers", torchFile(t, perPass("J\xff\xff\xff\x7fK\x00\x86", "K\x00K\x01\x86"), strings.Repeat("\x01\x00\x00\x00", 4)), Options{}, "want at most 65536 layers"},

		{"load history: a word", []byte(`{"load_history":[{"logical_expert_load":"even"}]}`), Options{}, `"logical_expert_load": it has "even", want a whole number`},
		{"load history: negative", []byte(`{"load_history":[{"logical_expert_load":[[1,-1]]}]}`), Options{}, "cannot be negative"},
		{"load history: empty", []byte(`{"load_history":[]}`), Options{}, "no record with"},
		{"load history: cut off", []byte(`{"load_history":[{"logical_expert_load":[[1,2]]},`), Options{}, "cut off"},

		{"JSON: not closed", []byte(row + `{"layer":0,"topk_ids":[1,`), Options{}, "test:2: the object is cut off"},
		{"JSON: deep", []byte(`{"layer":0,"topk_ids":` + strings.Repeat("[", 10000)), Options{}, "nested more than 64 deep"},
		{"JSON: four lists", []byte(`{"topk_ids":[[[[1]]]]}`), Options{}, "more than three deep"},
		{"JSON: uneven depth", []byte(`{"topk_ids":[[1,2],3]}`), Options{}, `"topk_ids": it has "3]}", want a list`},
		{"JSON: words", []byte(`{"topk_ids":["a","b"]}`), Options{}, "want a whole number"},
		{"JSON: fractions", []byte(`{"topk_ids":[1.5,2]}`), Options{}, "want a whole number"},
		{"JSON: a large id", []byte(`{"topk_ids":[1,99999]}`), Options{}, "expert id is 99999"},
		{"JSON: a negative id", []byte(`{"topk_ids":[1,-2]}`), Options{}, "expert id is -2"},
		{"JSON: a huge number", []byte(`{"topk_ids":[1,1e999]}`), Options{}, "want a whole number"},
		{"JSON: layer", []byte(`{"layer":-1,"topk_ids":[1]}`), Options{}, "layer is -1"},
		{"JSON: layer in words", []byte(`{"layer":"first","topk_ids":[1]}`), Options{}, `"layer": it has "first", want a whole number`},
		{"JSON: weights", []byte(`{"topk_ids":[1,2],"topk_weights":[0.5]}`), Options{}, "1 weights for 2 experts"},
		{"JSON: more experts", rows(`{"topk_ids":[1,2]}`, `{"topk_ids":[1,2,3]}`), Options{}, "test:2: a token has 3 experts, but 2 were expected"},
		{"JSON: layers differ", rows(`{"layer":0,"topk_ids":[1,2]}`, `{"layer":1,"topk_ids":[1,2]}`, `{"layer":0,"topk_ids":[1,2]}`), Options{}, "1 tokens in layer 1, but 2 in layer 0"},
		{"JSON: tokens differ", rows(`{"layer":0,"token":1,"topk_ids":[1,2]}`, `{"layer":1,"token":2,"topk_ids":[1,2]}`), Options{}, "lists other tokens in layer 1"},
		{"JSON: both", rows(`{"layer":0,"topk_ids":[1,2]}`, `{"layer":0,"counts":[1,2]}`), Options{}, "choices of tokens and counts of experts"},
		{"JSON: no routing", rows(`{"a":1}`, `{"b":2}`), Options{}, `no record with topk_ids, logits, scores or counts: its columns are ["a" "b"]`},
		{"JSON: a list of numbers", []byte(`[1,2,3]`), Options{}, "want an object"},
		{"JSON: twice", []byte(`{"topk_ids":[1],"experts":[2]}`), Options{}, "holds it twice"},
		{"JSON: negative count", []byte(`{"counts":[1,-2]}`), Options{}, "cannot be negative"},
		{"JSON: counts overflow", rows(`{"expert":1,"count":9007199254740992}`, strings.Repeat(`{"expert":1,"count":9007199254740992}`+"\n", 1023)), Options{}, "counts overflow"},
		{"JSON: count without expert", []byte(`{"count":1}`), Options{}, "has no expert"},
		{"JSON: many steps and experts", rows(`{"step":0,"layer":0,"expert":32767,"count":1}`, manySteps(20000)), Options{}, "at most 268435456 are accepted"},
		{"JSON: map", []byte(row), Options{Map: []string{"topk_ids=experts"}}, "no record with topk_ids"},
		{"JSON: map of one more", []byte(row), Options{Map: []string{"token=place"}}, `no column "place"`},
		{"JSON: map of arrays", []byte(row), Options{Map: []string{"hidden=h"}}, "holds rows, which have no hidden"},
		{"ESFT: map", []byte("1\t2\t\t0.1\t0.2\n"), Options{Map: []string{"topk_ids=a"}}, "has nothing to map"},
		{"map without column", []byte(row), Options{Map: []string{"topk_ids"}}, "want name=column"},
		{"map of an unknown name", []byte(row), Options{Map: []string{"ids=experts"}}, `no "ids" to map to`},
		{"where without value", []byte(row), Options{Where: []string{"a"}}, "want column=value"},
		{"base64: no shape", []byte(`{"routed_experts":"` + raw + `"}`), Options{}, "add --set layers=L"},
		{"base64: wrong shape", []byte(`{"routed_experts":"` + raw + `"}`), Options{Layers: 4, TopK: 2}, "no whole number of tokens"},
		{"base64: none", []byte(`{"routed_experts":"a b c"}`), Options{}, "no base64"},
		{"base64: npy of floats", []byte(`{"routed_experts":"` + base64.StdEncoding.EncodeToString(append(npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1, 1, 1)}"), "1234"...)) + `"}`), Options{}, "want integers"},
		{"base64: lines", []byte(raw + "\n"), Options{Layers: 4, TopK: 2}, "no whole number of tokens"},

		{"CSV: no column", []byte("a,b\n1,2\n"), Options{}, `its columns are ["a" "b"]`},
		{"CSV: cells", []byte("layer,experts\n1,2,3\n"), Options{}, "test:2: it has 3 cells, but the first line names 2 columns"},
		{"CSV: words", []byte("layer,experts\n1,x\n"), Options{}, `test:2: column "experts": it has "x", want a whole number`},
		{"CSV: quote", []byte("layer,experts\n1,\"[1, 2\n"), Options{}, "test:2: "},
		{"CSV: two of a kind", []byte("topk_ids,experts\n1,2\n"), Options{}, "two columns mean the same"},

		{"ESFT: cut off", []byte("1\t2\t3\t4\t\t0.1\t0.2\t0.3\n"), Options{TopK: 2}, "test:1: it has 4 ids and 3 weights"},
		{"ESFT: K", []byte("1\t2\t3\t4\t\t0.1\t0.2\t0.3\t0.4\n"), Options{TopK: 3}, "no whole number of tokens of 3"},
		{"ESFT: words", []byte("1\t2\t\t0.1\tx\n"), Options{TopK: 2}, `weights: it has "x", want a number`},
		{"ESFT: second line", []byte("1\t2\t\t0.1\t0.2\n1\t2\n"), Options{TopK: 2}, "test:2: there is no empty field"},

		{"gzip: nothing", packed(t, nil), Options{}, "unpacks to nothing"},
		{"gzip: twice", packed(t, packed(t, []byte(row))), Options{}, "gzip twice"},
		{"gzip: cut off", packed(t, []byte(strings.Repeat(row, 100)))[:60], Options{}, "cut off"},
	} {
		err := read(c.text, c.o)
		if c.want == "" {
			continue // refused only by who asks for it, below
		}
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
	s, err := openBytes(wide.Bytes(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Int32s("topk_ids", 0, 1); err == nil || !strings.Contains(err.Error(), "outside int32") {
		t.Errorf("an id of 2^32: %v", err)
	}
	if s, err = openBytes(header(`{"topk_ids":{"dtype":"F32","shape":[1,1],"data_offsets":[0,4]}}`, 4), Options{}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Int32s("topk_ids", 0, 1); err == nil || !strings.Contains(err.Error(), "want an integer type") {
		t.Errorf("ids of float32: %v", err)
	}
}

func manySteps(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "{\"step\":%d,\"layer\":0,\"expert\":0,\"count\":1}\n", i+1)
	}
	return b.String()
}

// A file of 100 kB that unpacks to 100 MB of one endless row ends with an error and little memory.
func TestBombs(t *testing.T) {
	if testing.Short() {
		t.Skip("unpacks some hundred megabytes: run without -short")
	}
	bomb := func(head string, fill byte, size int) []byte {
		// Members of gzip follow each other, so one block serves for all.
		block := packed(t, bytes.Repeat([]byte{fill}, 1<<20))
		return append(packed(t, []byte(head)), bytes.Repeat(block, size>>20)...)
	}
	for name, c := range map[string]struct {
		text []byte
		want string
	}{
		"an endless string":  {bomb(`{"topk_ids":"`, 'a', 200<<20), "128 MiB"},
		"an endless cell":    {bomb("layer,experts\n1,\"", ' ', 200<<20), "128 MiB"},
		"an endless line":    {bomb("1\t2\t\t0.5\t0.5\n1", '\t', 200<<20), "128 MiB"},
		"endless blanks":     {bomb("{", ' ', 300<<20), "more than 400 times"},
		"endless zero bytes": {bomb("\x93NUMPY", 0, 300<<20), "more than 400 times"},
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		err := read(c.text, Options{})
		runtime.ReadMemStats(&after)
		if err == nil || !strings.Contains(err.Error(), c.want) && !strings.Contains(err.Error(), "128 MiB") {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
		if grown := (after.Sys - min(after.Sys, before.Sys)) >> 20; grown > 900 {
			t.Errorf("%s took %d MiB", name, grown)
		}
	}
}
