package npz

import (
	"encoding/binary"
	"fmt"
	"math"
	"strings"
)

// DType is the element type of an array. The zero DType is invalid.
type DType uint8

// The element types that can be read and written, all little endian.
const (
	Bool DType = iota + 1
	Int8
	Int16
	Int32
	Int64
	Uint8
	Uint16
	Uint32
	Uint64
	Float16
	Float32
	Float64
)

// dtypes gives each type its NumPy name, its descr and its bytes per element.
var dtypes = [...]struct {
	name, descr string
	size        int
}{
	Bool:    {"bool", "|b1", 1},
	Int8:    {"int8", "|i1", 1},
	Int16:   {"int16", "<i2", 2},
	Int32:   {"int32", "<i4", 4},
	Int64:   {"int64", "<i8", 8},
	Uint8:   {"uint8", "|u1", 1},
	Uint16:  {"uint16", "<u2", 2},
	Uint32:  {"uint32", "<u4", 4},
	Uint64:  {"uint64", "<u8", 8},
	Float16: {"float16", "<f2", 2},
	Float32: {"float32", "<f4", 4},
	Float64: {"float64", "<f8", 8},
}

const accepted = "accepted are bool, int8 to int64, uint8 to uint64 and float16 to float64, little endian"

// String returns the type's NumPy name, such as "float16".
func (d DType) String() string {
	if !d.valid() {
		return fmt.Sprintf("DType(%d)", uint8(d))
	}
	return dtypes[d].name
}

// Size returns the bytes per element, or 0 for an invalid type.
func (d DType) Size() int {
	if !d.valid() {
		return 0
	}
	return dtypes[d].size
}

func (d DType) valid() bool { return d >= Bool && d <= Float64 }

func (d DType) float() bool { return d >= Float16 && d <= Float64 }

// parseDescr maps a descr such as "<f4" to its type.
func parseDescr(descr string) (DType, error) {
	var order byte
	var code string
	if descr != "" {
		order, code = descr[0], descr[1:]
	}
	known := Bool
	for known.valid() && dtypes[known].descr[1:] != code {
		known++
	}
	switch {
	case known.valid() && strings.IndexByte("<|=", order) >= 0:
		return known, nil
	case known.valid() && order == '>':
		return 0, fmt.Errorf("dtype %q is big endian, save it with .astype(%q)", descr, dtypes[known].descr)
	}
	return 0, fmt.Errorf("dtype %s is %s, %s", clip(descr), family(code), accepted)
}

// family says in words what an unsupported type code stands for.
func family(code string) string {
	if code == "" {
		return "unknown"
	}
	switch code[0] {
	case 'O':
		return "an object type"
	case 'S', 'U', 'a':
		return "a string type"
	case 'V':
		return "a structured or raw type (bfloat16 is saved as V2, convert it to float32)"
	case 'c':
		return "complex"
	case 'M', 'm':
		return "a date or time type"
	}
	return "unknown"
}

// clip quotes s for an error, cutting what a hostile header made long.
func clip(s string) string {
	const most = 40
	if len(s) > most {
		return fmt.Sprintf("%q...", s[:most])
	}
	return fmt.Sprintf("%q", s)
}

// half widens an IEEE 754 binary16 value; every one is exact in float32.
func half(h uint16) float32 {
	sign := uint32(h&0x8000) << 16
	exp := uint32(h>>10) & 0x1f
	frac := uint32(h & 0x3ff)
	switch exp {
	case 0:
		// OR the sign in as a bit, so that -0 keeps it.
		return math.Float32frombits(sign | math.Float32bits(float32(frac)*0x1p-24))
	case 0x1f:
		return math.Float32frombits(sign | 0x7f800000 | frac<<13)
	}
	return math.Float32frombits(sign | (exp+127-15)<<23 | frac<<13)
}

// decodeFloat32s converts all elements in src into the front of dst.
func decodeFloat32s(dst []float32, src []byte, d DType) {
	n := len(src) / d.Size()
	dst = dst[:n]
	switch d {
	case Float16:
		for i := range dst {
			dst[i] = half(binary.LittleEndian.Uint16(src[2*i:]))
		}
	case Float32:
		for i := range dst {
			dst[i] = math.Float32frombits(binary.LittleEndian.Uint32(src[4*i:]))
		}
	case Float64:
		for i := range dst {
			dst[i] = float32(math.Float64frombits(binary.LittleEndian.Uint64(src[8*i:])))
		}
	case Uint64:
		for i := range dst {
			dst[i] = float32(binary.LittleEndian.Uint64(src[8*i:]))
		}
	default:
		for i := range dst {
			dst[i] = float32(integer(src, i, d))
		}
	}
}

// decodeInt32s converts all elements in src into the front of dst. It returns
// the index of the first value outside int32, or -1.
func decodeInt32s(dst []int32, src []byte, d DType) int {
	n := len(src) / d.Size()
	for i := range n {
		v := integer(src, i, d)
		// A uint64 past the int64 range arrives negative.
		if v != int64(int32(v)) || (d == Uint64 && v < 0) {
			return i
		}
		dst[i] = int32(v)
	}
	return -1
}

// integer returns element i of src; a uint64 keeps its bits, not its value.
func integer(src []byte, i int, d DType) int64 {
	switch d {
	case Bool:
		if src[i] != 0 {
			return 1
		}
		return 0
	case Int8:
		return int64(int8(src[i]))
	case Uint8:
		return int64(src[i])
	case Int16:
		return int64(int16(binary.LittleEndian.Uint16(src[2*i:])))
	case Uint16:
		return int64(binary.LittleEndian.Uint16(src[2*i:]))
	case Int32:
		return int64(int32(binary.LittleEndian.Uint32(src[4*i:])))
	case Uint32:
		return int64(binary.LittleEndian.Uint32(src[4*i:]))
	}
	return int64(binary.LittleEndian.Uint64(src[8*i:]))
}
