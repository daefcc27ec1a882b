package npz

import (
	"archive/zip"
	"fmt"
	"slices"
	"strings"
	"testing"
)

func TestHeaders(t *testing.T) {
	cases := []struct {
		major byte
		dict  string
		dtype DType
		shape []int
		bytes int
	}{
		{1, "{'descr': '<f2', 'fortran_order': False, 'shape': (2, 3), }   \n", Float16, []int{2, 3}, 12},
		{2, "{'descr': '<i4', 'fortran_order': False, 'shape': (2,), }\n", Int32, []int{2}, 8},
		{3, "{'descr': '<u8', 'fortran_order': False, 'shape': (), }\n", Uint64, nil, 8},
		{1, `{"shape":(1,2,),"fortran_order":False,"descr":"|b1"}`, Bool, []int{1, 2}, 2},
		{1, "{ 'fortran_order' : True , 'descr' : '=f4' , 'shape' : ( 3 , ) , }", Float32, []int{3}, 12},
		{1, "{'descr': '<i1', 'fortran_order': True, 'shape': ()}", Int8, nil, 1},
		{1, "{'descr': '<f8', 'fortran_order': False, 'shape': (0, 9223372036854775807)}", Float64, nil, -1},
		{1, "{'descr': '<f8', 'fortran_order': False, 'shape': (0, 7)}", Float64, []int{0, 7}, 0},
	}
	for _, c := range cases {
		f, err := openBytes(zipped(t, zip.Deflate, "x.npy", string(npy(c.major, c.dict, make([]byte, max(c.bytes, 0))))))
		if c.bytes < 0 {
			wantErr(t, err, "overflow")
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", c.dict, err)
			continue
		}
		if h, _ := f.Header("x"); h.DType != c.dtype || !slices.Equal(h.Shape, c.shape) {
			t.Errorf("%s: %+v", c.dict, h)
		}
	}
}

func TestHeadersRefused(t *testing.T) {
	dict := func(descr, fortran, shape string) string {
		return fmt.Sprintf("{'descr': %s, 'fortran_order': %s, 'shape': %s, }\n", descr, fortran, shape)
	}
	shaped := func(shape string) string { return dict("'<f4'", "False", shape) }
	typed := func(descr string) string { return dict(descr, "False", "(1,)") }
	cases := []struct {
		dict  string
		parts string // separated by "; "
	}{
		{dict("'<f4'", "True", "(1, 1)"), "Fortran; np.ascontiguousarray"},
		{dict("'<f4'", "true", "(1,)"), "True or False"},
		{typed("'>f4'"), `">f4"; big endian; "<f4"`},
		{typed("'|O'"), `"|O"; object; accepted are`},
		{typed("'<U3'"), "string; accepted are"},
		{typed("'|S3'"), "string"},
		{typed("'|V2'"), "bfloat16; float32"},
		{typed("'<c8'"), "complex"},
		{typed("'<M8[ns]'"), "date"},
		{typed("'<f16'"), "unknown"},
		{typed("'f4'"), "unknown"},
		{typed("'?'"), "unknown"},
		{typed("''"), "unknown"},
		{typed("'<'"), "unknown"},
		{typed("[('a', '<f4'), ('b', '<i4')]"), "structured; ('a'"},
		{typed("('<f4', (2,))"), "structured"},
		{typed("4"), "quoted string"},
		{typed(`'<\x664'`), "without escapes"},
		{typed("'" + strings.Repeat("x", 1000) + "'"), "..."},
		{shaped("(-1,)"), "negative dimension -1"},
		{shaped("(2)"), "want (2,)"},
		{shaped("2"), "'('"},
		{shaped("[2]"), "'('"},
		{shaped("(,)"), "decimal"},
		{shaped("(01,)"), "decimal"},
		{shaped("(1L,)"), "')'"},
		{shaped("(1 2)"), "')'"},
		{shaped("(1.0,)"), "')'"},
		{shaped("(+1,)"), "decimal"},
		{shaped("(1, 1"), "decimal"},
		{shaped("(1, 1]"), "')'"},
		{shaped("(9223372036854775808,)"), "overflows"},
		{shaped("(4294967296, 4294967296)"), "overflows"},
		{shaped("(4611686018427387904, 1)"), "overflows"},
		{shaped("(0, 4611686018427387904, 4)"), "overflows"},
		{shaped("(4611686018427387904, 4, 0)"), "overflows"},
		{shaped("(" + strings.Repeat("1, ", 65) + ")"), "65 dimensions"},
		{shaped("(2,)"), "takes 8 bytes; has 4"},
		{shaped("(1099511627776,)"), "takes 4398046511104 bytes; has 4"},
		{"", "'{'"},
		{"{", "quoted string"},
		{"{}", "lacks"},
		{"{'descr': '<f4', 'shape': (1,)}", `lacks the key "fortran_order"`},
		{"{'descr': '<f4', 'descr': '<f4', 'fortran_order': False, 'shape': (1,)}", "repeats"},
		{"{'descr': '<f4', 'fortran_order': False, 'shape': (1,), 'x': 1}", "unknown key"},
		{"{'descr': '<f4' 'fortran_order': False, 'shape': (1,)}", "'}'"},
		{"{'descr' '<f4'}", "':'"},
		{shaped("(1,)") + "x", "nothing behind"},
		{shaped("(1,)") + "\x00", "nothing behind"},
	}
	for _, c := range cases {
		_, err := openBytes(zipped(t, zip.Store, "x.npy", string(npy(1, c.dict, make([]byte, 4)))))
		if err == nil {
			t.Errorf("%s opens", c.dict)
			continue
		}
		for _, p := range append(strings.Split(c.parts, "; "), "test.npz", `"x"`) {
			if !strings.Contains(err.Error(), p) {
				t.Errorf("%s: error %q lacks %q", c.dict, err, p)
			}
		}
	}
}

func TestVersionsRefused(t *testing.T) {
	x := npy(2, "{'descr': '|u1', 'fortran_order': False, 'shape': (1,)}", []byte{5})
	for _, v := range [][2]byte{{0, 0}, {4, 0}, {1, 1}} {
		x[6], x[7] = v[0], v[1]
		_, err := openBytes(zipped(t, zip.Store, "x.npy", string(x)))
		wantErr(t, err, fmt.Sprintf("version %d.%d", v[0], v[1]), "1.0, 2.0 and 3.0")
	}
	long := npy(2, strings.Repeat(" ", maxHeader+1), nil)
	_, err := openBytes(zipped(t, zip.Store, "x.npy", string(long)))
	wantErr(t, err, "at most 65536")
}
