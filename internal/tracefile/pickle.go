package tracefile

import (
	"archive/zip"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"

	"evenkeel/internal/npz"
)

// A pickle is a program for a stack machine that can call anything. This reader knows the few operations that build
// tensors, dicts, lists, tuples, numbers and strings, and refuses everything else by its name before it has any effect.

const (
	maxPickle = 128 << 20 // bytes
	maxStack  = 1 << 20   // values between a mark and the operation that takes them; Python batches by 1,000
	maxMemo   = 1 << 22
)

// The values of a pickle are nil, bool, int64, float64, string, *tensor, *pickleList, *pickleDict, *pickleTuple and, on the
// way to a tensor, pickleGlobal and *storage.
type (
	pickleGlobal string
	pickleTuple  struct{ items []any }
	// pickleList holds ints apart while there is nothing else in it.
	pickleList struct {
		ints  []int64
		items []any
	}
	pickleDict struct {
		keys   []any
		values map[any]any
	}
)

// storage is a run of elements in the archive.
type storage struct {
	segment
	dtype npz.DType
}

// tensor is a contiguous tensor.
type tensor struct {
	shape []int
	dtype npz.DType
	segment
}

func (t *tensor) array(shape ...int) *array { return &array{shape, t.dtype, []segment{t.segment}} }

func (l *pickleList) add(v any) {
	if n, ok := v.(int64); ok && l.items == nil {
		l.ints = append(l.ints, n)
		return
	}
	l.items = append(l.all(), v)
	l.ints = nil
}

// all returns the list's values.
func (l *pickleList) all() []any {
	if l.items == nil {
		for _, n := range l.ints {
			l.items = append(l.items, n)
		}
		l.ints = nil
	}
	return l.items
}

func (d *pickleDict) set(key, value any) error {
	switch key.(type) {
	case string, int64:
	default:
		return fmt.Errorf("a dict has a key of type %s: want strings or ints", kindOf(key))
	}
	if _, ok := d.values[key]; !ok {
		d.keys = append(d.keys, key)
	}
	d.values[key] = value
	return nil
}

func kindOf(v any) string {
	switch v := v.(type) {
	case nil:
		return "None"
	case bool:
		return "bool"
	case int64:
		return "int"
	case float64:
		return "float"
	case string:
		return "str"
	case *tensor:
		return "tensor"
	case *pickleList:
		return "list"
	case *pickleDict:
		return "dict"
	case *pickleTuple:
		return "tuple"
	case pickleGlobal:
		return string(v)
	case *storage:
		return "storage"
	}
	return "mark"
}

// torchStorages are the classes of a storage; torch names the element type by them.
var torchStorages = map[pickleGlobal]npz.DType{"torch.BoolStorage": npz.Bool, "torch.CharStorage": npz.Int8, "torch.ByteStorage": npz.Uint8,
	"torch.ShortStorage": npz.Int16, "torch.IntStorage": npz.Int32, "torch.LongStorage": npz.Int64, "torch.HalfStorage": npz.Float16,
	"torch.BFloat16Storage": bfloat16, "torch.FloatStorage": npz.Float32, "torch.DoubleStorage": npz.Float64}

const (
	rebuildTensor = pickleGlobal("torch._utils._rebuild_tensor_v2")
	orderedDict   = pickleGlobal("collections.OrderedDict")
)

type pickle struct {
	text    []byte
	at      int
	stack   []any
	marks   []int
	memo    map[uint32]any
	storage func(key string, d npz.DType, n int64) (*storage, error)
}

// openTorch returns the value that torch.save wrote into an archive.
func openTorch(r io.ReaderAt, size int64, z *zip.Reader, name string) (any, error) {
	files := map[string]*zip.File{}
	prefix := ""
	for _, f := range z.File {
		files[f.Name] = f
		if p, ok := strings.CutSuffix(f.Name, "data.pkl"); ok {
			prefix = p
		}
	}
	// place finds the bytes of a stored entry.
	place := func(f *zip.File) (int64, int64, error) {
		at, err := f.DataOffset()
		n := f.UncompressedSize64
		switch {
		case err != nil:
			return 0, 0, err
		case f.Method != zip.Store || f.CompressedSize64 != n:
			return 0, 0, errors.New("it is compressed, which torch.save never does")
		case at > size || n > uint64(size-at):
			return 0, 0, fmt.Errorf("its %d bytes exceed the file of %d", n, size)
		}
		return at, int64(n), nil
	}
	if f := files[prefix+"byteorder"]; f != nil {
		at, n, err := place(f)
		order := make([]byte, min(n, 8))
		if err == nil {
			_, err = r.ReadAt(order, at)
		}
		if err != nil || string(order) != "little" {
			return nil, fmt.Errorf("%s: the byte order is %q: want little", name, order)
		}
	}
	at, n, err := place(files[prefix+"data.pkl"])
	if err == nil && n > maxPickle {
		err = fmt.Errorf("it has %d bytes, at most %d are accepted", n, maxPickle)
	}
	text := make([]byte, max(0, min(n, maxPickle)))
	if err == nil {
		_, err = r.ReadAt(text, at)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: data.pkl cannot be read: %w", name, err)
	}
	p := &pickle{text: text, memo: map[uint32]any{}, storage: func(key string, d npz.DType, n int64) (*storage, error) {
		f := files[prefix+"data/"+key]
		if f == nil {
			return nil, fmt.Errorf("storage %s is not in the archive", clip(key))
		}
		at, bytes, err := place(f)
		if err != nil {
			return nil, fmt.Errorf("storage %s: %w", clip(key), err)
		}
		if n < 0 || n > bytes/int64(sizeOf(d)) {
			return nil, fmt.Errorf("storage %s claims %d elements, but holds %d bytes", clip(key), n, bytes)
		}
		return &storage{segment{r, at, int(n)}, d}, nil
	}}
	v, err := p.run()
	if err != nil {
		return nil, fmt.Errorf("%s: data.pkl, byte %d: %w", name, p.at, err)
	}
	return v, nil
}

func (p *pickle) take(n int) ([]byte, error) {
	if n < 0 || n > len(p.text)-p.at {
		return nil, errors.New("the pickle is cut off")
	}
	p.at += n
	return p.text[p.at-n : p.at], nil
}

// number reads a little-endian unsigned integer of n bytes.
func (p *pickle) number(n int) (uint64, error) {
	b, err := p.take(n)
	if err != nil {
		return 0, err
	}
	var v uint64
	for i, c := range b {
		v |= uint64(c) << (8 * i)
	}
	return v, nil
}

func (p *pickle) text8(width int) (string, error) {
	n, err := p.number(width)
	if err != nil {
		return "", err
	}
	b, err := p.take(int(min(n, math.MaxInt32)))
	return string(b), err
}

func (p *pickle) line() (string, error) {
	n := bytes.IndexByte(p.text[p.at:], '\n')
	b, err := p.take(n)
	if err != nil || n > 256 {
		return "", errors.New("the pickle is cut off or a name is too long")
	}
	p.at++
	return string(b), nil
}

func (p *pickle) push(v any) error {
	if len(p.stack) >= maxStack {
		return fmt.Errorf("the pickle stacks more than %d values", maxStack)
	}
	p.stack = append(p.stack, v)
	return nil
}

func (p *pickle) pop() (any, error) {
	low := 0
	if len(p.marks) > 0 {
		low = p.marks[len(p.marks)-1]
	}
	if len(p.stack) <= low {
		return nil, errors.New("the pickle takes a value that is not there")
	}
	v := p.stack[len(p.stack)-1]
	p.stack = p.stack[:len(p.stack)-1]
	return v, nil
}

// popMark returns what was pushed since the last mark; it is valid until the next push.
func (p *pickle) popMark() ([]any, error) {
	if len(p.marks) == 0 {
		return nil, errors.New("the pickle takes a mark that is not there")
	}
	low := p.marks[len(p.marks)-1]
	p.marks = p.marks[:len(p.marks)-1]
	items := p.stack[low:]
	p.stack = p.stack[:low]
	return items, nil
}

// run executes the pickle up to its end.
func (p *pickle) run() (any, error) {
	for {
		op, err := p.take(1)
		if err != nil {
			return nil, err
		}
		if op[0] == '.' {
			return p.pop()
		}
		if err := p.step(op[0]); err != nil {
			return nil, err
		}
	}
}

func (p *pickle) step(op byte) error {
	switch op {
	case 0x80: // PROTO
		v, err := p.number(1)
		if err == nil && v > 5 {
			err = fmt.Errorf("pickle protocol %d is unknown", v)
		}
		return err
	case 0x95: // FRAME
		_, err := p.take(8)
		return err
	case 'N':
		return p.push(nil)
	case 0x88, 0x89: // NEWTRUE, NEWFALSE
		return p.push(op == 0x88)
	case 'K', 'M', 'J': // BININT1, BININT2, BININT
		v, err := p.number(map[byte]int{'K': 1, 'M': 2, 'J': 4}[op])
		if err != nil {
			return err
		}
		if op == 'J' {
			return p.push(int64(int32(v)))
		}
		return p.push(int64(v))
	case 0x8a: // LONG1
		n, err := p.number(1)
		if err == nil && n > 8 {
			err = fmt.Errorf("an integer of %d bytes is too large", n)
		}
		if err != nil {
			return err
		}
		v, err := p.number(int(n))
		if err != nil {
			return err
		}
		if n > 0 && n < 8 { // the sign
			v = uint64(int64(v<<(64-8*n)) >> (64 - 8*n))
		}
		return p.push(int64(v))
	case 'G': // BINFLOAT
		b, err := p.take(8)
		if err != nil {
			return err
		}
		return p.push(math.Float64frombits(binary.BigEndian.Uint64(b)))
	case 'X', 0x8c, 0x8d: // BINUNICODE, SHORT_BINUNICODE, BINUNICODE8
		s, err := p.text8(map[byte]int{'X': 4, 0x8c: 1, 0x8d: 8}[op])
		if err != nil {
			return err
		}
		return p.push(s)
	case '(':
		if len(p.marks) >= maxStack {
			return fmt.Errorf("the pickle stacks more than %d marks", maxStack)
		}
		p.marks = append(p.marks, len(p.stack))
		return nil
	case '0': // POP
		_, err := p.pop()
		return err
	case 'q', 'r', 0x94, 'h', 'j':
		return p.remember(op)
	case ')', ']', '}', 't', 0x85, 0x86, 0x87, 'l', 'd', 'a', 'e', 's', 'u':
		return p.collect(op)
	case 'c', 0x93, 'Q', 'R', 'b':
		return p.object(op)
	}
	return fmt.Errorf("pickle operation 0x%02x is refused: only tensors, dicts, lists, tuples, numbers and strings are read", op)
}

// remember handles the memo: BINPUT, LONG_BINPUT, MEMOIZE, BINGET, LONG_BINGET.
func (p *pickle) remember(op byte) error {
	key := uint64(len(p.memo))
	if op != 0x94 {
		var err error
		if key, err = p.number(map[byte]int{'q': 1, 'h': 1, 'r': 4, 'j': 4}[op]); err != nil {
			return err
		}
	}
	if op == 'h' || op == 'j' {
		v, ok := p.memo[uint32(key)]
		if !ok {
			return fmt.Errorf("the pickle recalls value %d, which it never kept", key)
		}
		return p.push(v)
	}
	if len(p.stack) == 0 {
		return errors.New("the pickle keeps a value that is not there")
	}
	if len(p.memo) >= maxMemo {
		return fmt.Errorf("the pickle keeps more than %d values", maxMemo)
	}
	p.memo[uint32(key)] = p.stack[len(p.stack)-1]
	return nil
}

// collect handles the operations on lists, tuples and dicts.
func (p *pickle) collect(op byte) error {
	var items []any
	var err error
	switch op {
	case ')':
		return p.push(&pickleTuple{})
	case ']':
		return p.push(&pickleList{})
	case '}':
		return p.push(&pickleDict{values: map[any]any{}})
	case 0x85, 0x86, 0x87, 'a', 's': // TUPLE1 to TUPLE3, APPEND, SETITEM
		n := map[byte]int{0x85: 1, 0x86: 2, 0x87: 3, 'a': 1, 's': 2}[op]
		items = make([]any, n)
		for i := n - 1; i >= 0; i-- {
			if items[i], err = p.pop(); err != nil {
				return err
			}
		}
	default: // TUPLE, LIST, DICT, APPENDS, SETITEMS
		if items, err = p.popMark(); err != nil {
			return err
		}
	}
	switch op {
	case 't', 0x85, 0x86, 0x87:
		return p.push(&pickleTuple{append([]any(nil), items...)})
	case 'l', 'd':
		// The items lie where the push goes.
		items = append([]any(nil), items...)
		if op == 'l' {
			err = p.push(&pickleList{})
		} else {
			err = p.push(&pickleDict{values: map[any]any{}})
		}
		if err != nil {
			return err
		}
	}
	if len(p.stack) == 0 {
		return errors.New("the pickle adds to a value that is not there")
	}
	top := p.stack[len(p.stack)-1]
	if op == 'a' || op == 'e' || op == 'l' {
		l, ok := top.(*pickleList)
		if !ok {
			return fmt.Errorf("the pickle appends to a %s", kindOf(top))
		}
		for _, v := range items {
			l.add(v)
		}
		return nil
	}
	d, ok := top.(*pickleDict)
	if !ok || len(items)%2 != 0 {
		return fmt.Errorf("the pickle sets %d items of a %s", len(items), kindOf(top))
	}
	for i := 0; i < len(items); i += 2 {
		if err := d.set(items[i], items[i+1]); err != nil {
			return err
		}
	}
	return nil
}

// object handles what could run a program, and lets tensors and ordered dicts through.
func (p *pickle) object(op byte) error {
	switch op {
	case 'c', 0x93: // GLOBAL, STACK_GLOBAL
		var module, name string
		var err error
		if op == 'c' {
			if module, err = p.line(); err == nil {
				name, err = p.line()
			}
		} else {
			var a, b any
			if b, err = p.pop(); err == nil {
				a, err = p.pop()
			}
			module, _ = a.(string)
			name, _ = b.(string)
		}
		if err != nil {
			return err
		}
		g := pickleGlobal(module + "." + name)
		if _, ok := torchStorages[g]; !ok && g != rebuildTensor && g != orderedDict {
			return fmt.Errorf("the pickle refers to %s, which is refused: only tensors, dicts, lists, tuples, numbers and strings are read", clip(string(g)))
		}
		return p.push(g)
	case 'Q': // BINPERSID: ("storage", class, key, location, elements)
		v, err := p.pop()
		if err != nil {
			return err
		}
		t, _ := v.(*pickleTuple)
		if t == nil || len(t.items) != 5 || t.items[0] != "storage" {
			return errors.New("the pickle refers to something that is no storage of a tensor")
		}
		class, _ := t.items[1].(pickleGlobal)
		key, _ := t.items[2].(string)
		n, ok := t.items[4].(int64)
		d, known := torchStorages[class]
		if !known || !ok {
			return fmt.Errorf("a storage has class %s: want one such as torch.FloatStorage", clip(kindOf(t.items[1])))
		}
		s, err := p.storage(key, d, n)
		if err != nil {
			return err
		}
		return p.push(s)
	case 'b': // BUILD: the state of an OrderedDict, which says nothing here
		_, err := p.pop()
		if err != nil {
			return err
		}
		if len(p.stack) == 0 {
			return errors.New("the pickle builds a value that is not there")
		}
		if _, ok := p.stack[len(p.stack)-1].(*pickleDict); !ok {
			return errors.New("the pickle sets the state of an object, which is refused")
		}
		return nil
	}
	args, err := p.pop() // REDUCE: a call
	if err != nil {
		return err
	}
	f, err := p.pop()
	if err != nil {
		return err
	}
	t, _ := args.(*pickleTuple)
	switch {
	case f == orderedDict && t != nil && len(t.items) == 0:
		return p.push(&pickleDict{values: map[any]any{}})
	case f == rebuildTensor && t != nil:
		v, err := newTensor(t.items)
		if err != nil {
			return err
		}
		return p.push(v)
	}
	return fmt.Errorf("the pickle calls %s, which is refused", clip(kindOf(f)))
}

// newTensor checks (storage, offset, shape, strides, ...).
func newTensor(args []any) (*tensor, error) {
	if len(args) < 4 {
		return nil, errors.New("a tensor is built from too few values")
	}
	s, ok1 := args[0].(*storage)
	offset, ok2 := args[1].(int64)
	size, ok3 := args[2].(*pickleTuple)
	strides, ok4 := args[3].(*pickleTuple)
	if !ok1 || !ok2 || !ok3 || !ok4 || len(size.items) != len(strides.items) || len(size.items) > 64 {
		return nil, errors.New("a tensor is not built from storage, offset, shape and strides")
	}
	t := &tensor{dtype: s.dtype, shape: []int{}}
	for _, v := range size.items {
		n, ok := v.(int64)
		if !ok || n < 0 {
			return nil, errors.New("the shape of a tensor is not made of whole numbers")
		}
		t.shape = append(t.shape, int(n))
	}
	n, ok := elements(t.shape, sizeOf(s.dtype))
	if !ok || offset < 0 || int64(n) > int64(s.n)-offset {
		return nil, fmt.Errorf("a tensor of shape %v at offset %d exceeds its storage of %d elements", clipped(t.shape), offset, s.n)
	}
	for i, want := len(t.shape)-1, 1; i >= 0 && n > 0; i-- {
		if stride, _ := strides.items[i].(int64); t.shape[i] > 1 && stride != int64(want) {
			return nil, fmt.Errorf("a tensor of shape %v is not contiguous: save it with .contiguous()", clipped(t.shape))
		}
		want *= t.shape[i]
	}
	t.segment = segment{s.r, s.at + offset*int64(sizeOf(s.dtype)), n}
	return t, nil
}
