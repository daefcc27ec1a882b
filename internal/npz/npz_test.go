package npz

import (
	"archive/zip"
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// pack returns the little-endian bytes of a slice of fixed-size values.
func pack(t testing.TB, values any) []byte {
	t.Helper()
	b, err := binary.Append(nil, binary.LittleEndian, values)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func archive(t testing.TB, arrays ...Array) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := Write(&b, arrays); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func openBytes(b []byte) (*File, error) {
	return NewReader(bytes.NewReader(b), int64(len(b)), "test.npz")
}

func mustOpen(t testing.TB, b []byte) *File {
	t.Helper()
	f, err := openBytes(b)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// npy makes a .npy entry by hand.
func npy(major byte, dict string, data []byte) []byte {
	b := append([]byte(magic), major, 0)
	if major == 1 {
		b = binary.LittleEndian.AppendUint16(b, uint16(len(dict)))
	} else {
		b = binary.LittleEndian.AppendUint32(b, uint32(len(dict)))
	}
	return append(append(b, dict...), data...)
}

// zipped makes a zip of name, content pairs.
func zipped(t testing.TB, method uint16, pairs ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	zw := zip.NewWriter(&b)
	for i := 0; i < len(pairs); i += 2 {
		w, err := zw.CreateHeader(&zip.FileHeader{Name: pairs[i], Method: method})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(pairs[i+1])); err != nil {
			t.Fatal(err)
		}
	}
	if err := zw.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// rawZip makes a one-entry zip whose directory claims the given sizes.
func rawZip(t testing.TB, h zip.FileHeader, content []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	zw := zip.NewWriter(&b)
	w, err := zw.CreateRaw(&h)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(content); err != nil {
		t.Fatal(err)
	}
	if err := zw.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func wantErr(t *testing.T, err error, parts ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want one with %q", parts)
	}
	for _, p := range parts {
		if !strings.Contains(err.Error(), p) {
			t.Errorf("error %q lacks %q", err, p)
		}
	}
}

var inf = float32(math.Inf(1))

var roundTrips = []struct {
	dtype  DType
	values any
	floats []float32
	ints   []int32 // nil if refused
}{
	{Bool, []uint8{0, 1, 2}, []float32{0, 1, 1}, []int32{0, 1, 1}},
	{Int8, []int8{-128, 0, 127}, []float32{-128, 0, 127}, []int32{-128, 0, 127}},
	{Int16, []int16{-32768, 1, 32767}, []float32{-32768, 1, 32767}, []int32{-32768, 1, 32767}},
	{Int32, []int32{math.MinInt32, 1, math.MaxInt32}, []float32{-0x1p31, 1, 0x1p31}, []int32{math.MinInt32, 1, math.MaxInt32}},
	{Int64, []int64{-0x80000000, 3, 0x7fffffff}, []float32{-0x1p31, 3, 0x1p31}, []int32{math.MinInt32, 3, math.MaxInt32}},
	{Int64, []int64{math.MinInt64, 1 << 31}, []float32{-0x1p63, 0x1p31}, nil},
	{Uint8, []uint8{0, 128, 255}, []float32{0, 128, 255}, []int32{0, 128, 255}},
	{Uint16, []uint16{0, 32768, 65535}, []float32{0, 32768, 65535}, []int32{0, 32768, 65535}},
	{Uint32, []uint32{0, 7, 0x7fffffff}, []float32{0, 7, 0x1p31}, []int32{0, 7, math.MaxInt32}},
	{Uint32, []uint32{math.MaxUint32}, []float32{0x1p32}, nil},
	{Uint64, []uint64{0, 9}, []float32{0, 9}, []int32{0, 9}},
	{Uint64, []uint64{math.MaxUint64, 1 << 63}, []float32{0x1p64, 0x1p63}, nil},
	{Float16, []uint16{0x3c00, 0xc000, 0x7c00, 0x0001}, []float32{1, -2, inf, 0x1p-24}, nil},
	{Float32, []float32{1.5, -inf, 0x1p-149}, []float32{1.5, -inf, 0x1p-149}, nil},
	{Float64, []float64{0.1, 1e300, 1 + 0x1p-24}, []float32{0.1, inf, 1}, nil},
}

func TestRoundTrip(t *testing.T) {
	for _, c := range roundTrips {
		data := pack(t, c.values)
		n := len(data) / c.dtype.Size()
		f := mustOpen(t, archive(t, Array{"x", c.dtype, []int{n}, data}))
		h, ok := f.Header("x")
		if !ok || h.Name != "x" || h.DType != c.dtype || !slices.Equal(h.Shape, []int{n}) || h.Len() != n {
			t.Errorf("%s: header %+v", c.dtype, h)
		}
		raw, err := f.Raw("x", 0, n)
		if err != nil || !bytes.Equal(raw, data) {
			t.Errorf("%s: raw %v, %v, want %v", c.dtype, raw, err, data)
		}
		floats, err := f.Float32s("x", 0, n)
		if err != nil || !slices.Equal(floats, c.floats) {
			t.Errorf("%s: floats %v, %v, want %v", c.dtype, floats, err, c.floats)
		}
		ints, err := f.Int32s("x", 0, n)
		if c.ints == nil {
			wantErr(t, err, "test.npz", `"x"`)
		} else if err != nil || !slices.Equal(ints, c.ints) {
			t.Errorf("%s: ints %v, %v, want %v", c.dtype, ints, err, c.ints)
		}
	}
}

func TestInt32sNamesTheIndex(t *testing.T) {
	values := make([]uint64, 20000)
	values[17000] = math.MaxUint64
	f := mustOpen(t, archive(t, Array{"x", Uint64, []int{20000}, pack(t, values)}))
	if _, err := f.Int32s("x", 5, 17000); err != nil {
		t.Error(err)
	}
	_, err := f.Int32s("x", 5, 20000)
	wantErr(t, err, "18446744073709551615", "index 17000")
}

func TestRanges(t *testing.T) {
	const n = 3*chunkSize/2 + 7
	values := make([]int16, n)
	for i := range values {
		values[i] = int16(i * 7)
	}
	f := mustOpen(t, archive(t, Array{"x", Int16, []int{n, 1}, pack(t, values)}))
	for _, r := range [][2]int{{0, 0}, {0, n}, {n, n}, {1, 2}, {chunkSize/2 - 1, chunkSize/2 + 1}, {3, n - 1}, {n - 1, n}} {
		got, err := f.Int32s("x", r[0], r[1])
		if err != nil || len(got) != r[1]-r[0] {
			t.Fatalf("%v: %d elements, %v", r, len(got), err)
		}
		for i, v := range got {
			if v != int32(values[r[0]+i]) {
				t.Fatalf("%v: element %d is %d, want %d", r, r[0]+i, v, values[r[0]+i])
			}
		}
	}
	for _, r := range [][2]int{{-1, 1}, {2, 1}, {0, n + 1}, {math.MinInt, math.MaxInt}} {
		_, err := f.Float32s("x", r[0], r[1])
		wantErr(t, err, "range")
	}
	_, err := f.Raw("y", 0, 1)
	wantErr(t, err, `no array "y"`, `["x"]`)
}

func TestNamesAndShapes(t *testing.T) {
	f := mustOpen(t, archive(t,
		Array{"z/ü", Uint8, []int{2, 0, 3}, nil},
		Array{"scalar", Float64, nil, pack(t, 2.5)},
		Array{"a", Int8, []int{1, 2, 1}, []byte{1, 2}}))
	if got, want := f.Names(), []string{"a", "scalar", "z/ü"}; !slices.Equal(got, want) {
		t.Errorf("names %q, want %q", got, want)
	}
	h, _ := f.Header("a")
	h.Shape[0] = 99
	if h, _ := f.Header("a"); !slices.Equal(h.Shape, []int{1, 2, 1}) {
		t.Errorf("shape %v, want [1 2 1]", h.Shape)
	}
	if h, _ := f.Header("scalar"); h.Len() != 1 || len(h.Shape) != 0 {
		t.Errorf("scalar %+v", h)
	}
	if v, err := f.Float32s("scalar", 0, 1); err != nil || v[0] != 2.5 {
		t.Errorf("scalar %v, %v", v, err)
	}
	if v, err := f.Raw("z/ü", 0, 0); err != nil || len(v) != 0 {
		t.Errorf("empty %v, %v", v, err)
	}
	if _, ok := f.Header("b"); ok {
		t.Error("header of an array that is not there")
	}
}

func TestOtherEntriesAreIgnored(t *testing.T) {
	entry := npy(1, "{'descr': '|u1', 'fortran_order': False, 'shape': (1,)}", []byte{5})
	f := mustOpen(t, zipped(t, zip.Store, "README.txt", "hello", "x.npy", string(entry)))
	if got := f.Names(); !slices.Equal(got, []string{"x"}) {
		t.Errorf("names %q", got)
	}
	if v, err := f.Int32s("x", 0, 1); err != nil || v[0] != 5 {
		t.Errorf("stored entry: %v, %v", v, err)
	}
}

func TestArchivesRefused(t *testing.T) {
	x := npy(1, "{'descr': '|u1', 'fortran_order': False, 'shape': (1,)}", []byte{5})
	size := uint64(len(x))
	bomb := npy(1, "{'descr': '|u1', 'fortran_order': False, 'shape': (1000000,)}", nil)
	cases := []struct {
		name  string
		b     []byte
		parts []string
	}{
		{"no zip", x, []string{"not an .npz archive"}},
		{"duplicate", zipped(t, zip.Store, "x.npy", string(x), "x.npy", string(x)), []string{`"x"`, "twice"}},
		{"no npy", zipped(t, zip.Store, "x.npy", "0123456789ab"), []string{`"x"`, "starts with"}},
		{"empty entry", zipped(t, zip.Store, "x.npy", ""), []string{"magic", "unexpected EOF"}},
		{"short magic", zipped(t, zip.Deflate, "x.npy", string(x[:7])), []string{"magic"}},
		{"short length", zipped(t, zip.Deflate, "x.npy", string(x[:9])), []string{"header length"}},
		{"short header", zipped(t, zip.Deflate, "x.npy", string(x[:20])), []string{"exceeds the entry"}},
		{"no data", zipped(t, zip.Deflate, "x.npy", string(x[:len(x)-1])), []string{"takes 1 bytes", "has 0"}},
		{"too much data", zipped(t, zip.Deflate, "x.npy", string(x)+"!"), []string{"takes 1 bytes", "has 2"}},
		{"encrypted", rawZip(t, zip.FileHeader{Name: "x.npy", Flags: 1, CompressedSize64: size, UncompressedSize64: size}, x), []string{"encrypted"}},
		{"method", rawZip(t, zip.FileHeader{Name: "x.npy", Method: 14, CompressedSize64: size, UncompressedSize64: size}, x), []string{"method 14"}},
		{"stored sizes", rawZip(t, zip.FileHeader{Name: "x.npy", CompressedSize64: size, UncompressedSize64: size + 1}, x), []string{"must be equal"}},
		{"outside the file", rawZip(t, zip.FileHeader{Name: "x.npy", CompressedSize64: 1 << 40, UncompressedSize64: 1 << 40}, x), []string{"exceeds the file"}},
		{"bomb", rawZip(t, zip.FileHeader{Name: "x.npy", Method: zip.Deflate, CompressedSize64: uint64(len(bomb)), UncompressedSize64: uint64(len(bomb)) + 1000000}, bomb), []string{"1032"}},
		{"largest bomb", rawZip(t, zip.FileHeader{Name: "x.npy", Method: zip.Deflate, CompressedSize64: 1, UncompressedSize64: math.MaxUint64}, x), []string{"1032"}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			_, err := openBytes(c.b)
			wantErr(t, err, append(c.parts, "test.npz")...)
		})
	}
}

func TestLargestDeflateRatioOpens(t *testing.T) {
	const n = 1 << 24
	f := mustOpen(t, archive(t, Array{"x", Uint8, []int{n}, make([]byte, n)}))
	if _, err := f.Raw("x", 0, n); err != nil {
		t.Error(err)
	}
}

func TestDamagedData(t *testing.T) {
	data := bytes.Repeat([]byte("incompressible? "), 64)
	x := npy(1, "{'descr': '|u1', 'fortran_order': False, 'shape': (1024,)}", data)
	damaged := zipped(t, zip.Store, "x.npy", string(x))
	damaged[bytes.Index(damaged, []byte("incomp"))] ^= 1
	f := mustOpen(t, damaged)
	if _, err := f.Raw("x", 0, 1023); err != nil {
		t.Errorf("prefix: %v", err)
	}
	_, err := f.Raw("x", 1000, 1024)
	wantErr(t, err, "test.npz", `"x"`, "[1000, 1024)", "checksum")

	// A deflate stream of half the data under a directory that claims it all.
	var packed bytes.Buffer
	half := zipped(t, zip.Deflate, "x.npy", string(x[:len(x)/2]))
	zr, err := zip.NewReader(bytes.NewReader(half), int64(len(half)))
	if err != nil {
		t.Fatal(err)
	}
	r, err := zr.File[0].OpenRaw()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := packed.ReadFrom(r); err != nil {
		t.Fatal(err)
	}
	f = mustOpen(t, rawZip(t, zip.FileHeader{Name: "x.npy", Method: zip.Deflate,
		CompressedSize64: uint64(packed.Len()), UncompressedSize64: uint64(len(x))}, packed.Bytes()))
	_, err = f.Float32s("x", 0, 1024)
	wantErr(t, err, "truncated", "unexpected EOF")
	_, err = f.Float32s("x", 1000, 1001)
	wantErr(t, err, "truncated", "unexpected EOF")
}

func TestTruncatedFile(t *testing.T) {
	b := archive(t, Array{"x", Uint8, []int{3}, []byte{1, 2, 3}})
	for n := range b {
		if f, err := openBytes(b[:n]); err == nil {
			t.Errorf("%d of %d bytes open as %q", n, len(b), f.Names())
		}
	}
}

func TestWriteIsDeterministic(t *testing.T) {
	a := Array{"x", Uint8, []int{3}, []byte{1, 2, 3}}
	b := archive(t, a)
	if !bytes.Equal(b, archive(t, a)) {
		t.Error("equal arrays give different bytes")
	}
	zr, err := zip.NewReader(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	if z := zr.File[0]; z.ModifiedDate != 0 || z.ModifiedTime != 0 || len(z.Extra) != 0 {
		t.Errorf("timestamp %d %d, extra %v", z.ModifiedDate, z.ModifiedTime, z.Extra)
	}
}

func TestWriteHeader(t *testing.T) {
	for _, c := range []struct {
		shape []int
		want  string
	}{
		{nil, "()"},
		{[]int{3}, "(3,)"},
		{[]int{2, 3}, "(2, 3)"},
		{[]int{2, 0, 4}, "(2, 0, 4)"},
		{slices.Repeat([]int{math.MaxInt}, maxDims), ""},
	} {
		b := Array{DType: Float16, Shape: c.shape}.header()
		want := fmt.Sprintf("{'descr': '<f2', 'fortran_order': False, 'shape': %s, }", c.want)
		if len(b)%64 != 0 || b[len(b)-1] != '\n' || int(binary.LittleEndian.Uint16(b[8:])) != len(b)-10 {
			t.Errorf("%v: header %q", c.shape, b)
		}
		if got := strings.TrimRight(string(b[10:]), " \n"); c.want != "" && got != want {
			t.Errorf("%v: %q, want %q", c.shape, got, want)
		}
	}
}

func TestWriteRefuses(t *testing.T) {
	ok := Array{"x", Uint8, []int{1}, []byte{1}}
	cases := []struct {
		arrays []Array
		part   string
	}{
		{[]Array{ok, ok}, "twice"},
		{[]Array{{"", Uint8, []int{1}, []byte{1}}}, "non-empty"},
		{[]Array{{"a\x00b", Uint8, []int{1}, []byte{1}}}, "NUL"},
		{[]Array{{"\xff", Uint8, []int{1}, []byte{1}}}, "UTF-8"},
		{[]Array{ok, {"y", 0, []int{1}, []byte{1}}}, "DType(0)"},
		{[]Array{{"x", 99, []int{1}, []byte{1}}}, "DType(99)"},
		{[]Array{{"x", Uint16, []int{1}, []byte{1}}}, "takes 2 bytes"},
		{[]Array{{"x", Uint8, []int{-1}, nil}}, "negative"},
		{[]Array{{"x", Uint8, []int{math.MaxInt, 2}, nil}}, "overflows"},
		{[]Array{{"x", Uint8, make([]int, 65), nil}}, "65 dimensions"},
	}
	for _, c := range cases {
		var b bytes.Buffer
		wantErr(t, Write(&b, c.arrays), c.part)
		if b.Len() != 0 {
			t.Errorf("%s: %d bytes written", c.part, b.Len())
		}
	}
}

func TestOpen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.npz")
	if _, err := Open(path); !os.IsNotExist(err) {
		t.Errorf("missing file: %v", err)
	}
	if err := os.WriteFile(path, archive(t, Array{"x", Uint8, []int{1}, []byte{1}}), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
	_, err = f.Raw("x", 0, 1)
	wantErr(t, err, path, "closed")
	if err := mustOpen(t, archive(t)).Close(); err != nil {
		t.Error(err)
	}
}

func TestHalf(t *testing.T) {
	for i := range 1 << 16 {
		h := uint16(i)
		exp, frac := int(h>>10&31), float64(h&1023)
		var want float64
		switch {
		case exp == 31 && frac != 0:
			want = math.NaN()
		case exp == 31:
			want = math.Inf(1)
		case exp == 0:
			want = math.Ldexp(frac, -24)
		default:
			want = math.Ldexp(1024+frac, exp-25)
		}
		got := float64(half(h))
		if math.IsNaN(want) {
			if !math.IsNaN(got) {
				t.Errorf("%#04x: %v, want NaN", h, got)
			}
			continue
		}
		want = math.Copysign(want, 0.5-float64(h>>15))
		if math.Float64bits(got) != math.Float64bits(want) {
			t.Errorf("%#04x: %v, want %v", h, got, want)
		}
	}
}

func FuzzOpen(f *testing.F) {
	f.Add(archive(f))
	for _, c := range roundTrips {
		data := pack(f, c.values)
		f.Add(archive(f, Array{"x", c.dtype, []int{len(data) / c.dtype.Size()}, data}, Array{"s", Uint8, nil, []byte{1}}))
	}
	f.Add(zipped(f, zip.Store, "x.npy", string(npy(3, "{'descr': '<f2', 'fortran_order': False, 'shape': (1, 1)}", []byte{1, 2}))))
	f.Fuzz(func(t *testing.T, b []byte) {
		file, err := openBytes(b)
		if err != nil {
			return
		}
		for _, name := range file.Names() {
			h, ok := file.Header(name)
			if !ok || !h.DType.valid() || h.Len() < 0 {
				t.Fatalf("header %+v, %v", h, ok)
			}
			n := h.Len()
			raw, err := file.Raw(name, 0, n)
			if err == nil && len(raw) != n*h.DType.Size() {
				t.Fatalf("%d bytes for %+v", len(raw), h)
			}
			if v, ferr := file.Float32s(name, 0, n); (ferr == nil) != (err == nil) || ferr == nil && len(v) != n {
				t.Fatalf("%d floats, %v, for %+v, %v", len(v), ferr, h, err)
			}
			if v, err := file.Int32s(name, n/2, n); err == nil && len(v) != n-n/2 {
				t.Fatalf("%d ints for %+v", len(v), h)
			}
		}
	})
}

func FuzzLiteral(f *testing.F) {
	f.Add("{'descr': '<f2', 'fortran_order': False, 'shape': (2, 3), }   \n")
	f.Add(`{"shape":(),"descr":"|u1","fortran_order":True}`)
	f.Fuzz(func(t *testing.T, text string) {
		lit, err := parseLiteral(text)
		if err != nil {
			return
		}
		for _, n := range lit.shape {
			if n < 0 {
				t.Fatalf("shape %v", lit.shape)
			}
		}
	})
}
