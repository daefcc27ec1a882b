package sweep

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"reflect"
	"strings"

	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/format"

	"evenkeel/internal/whole"
)

// A column of a table. Every value but those of required columns may be null.
type column struct {
	name     string
	kind     kind
	required bool
}

type kind = reflect.Type

var (
	integers = reflect.TypeFor[int64]()
	seeds    = reflect.TypeFor[uint64]()
	floats   = reflect.TypeFor[float64]()
	texts    = reflect.TypeFor[string]()
)

// rowsPerGroup bounds the memory of writing and reading.
const rowsPerGroup = 1 << 16

// tableWriter writes a table as Parquet: equal rows give equal bytes. Texts have no dictionary, since the library writes indices
// into one otherwise on a processor with AVX2 than elsewhere.
type tableWriter struct {
	columns []column
	w       *parquet.GenericWriter[any]
	row     parquet.Row
	rows    int64
}

func newTableWriter(w io.Writer, columns []column) *tableWriter {
	fields := make([]reflect.StructField, len(columns))
	for i, c := range columns {
		tag := c.name + ",zstd"
		if !c.required {
			tag += ",optional"
		}
		fields[i] = reflect.StructField{Name: fmt.Sprintf("C%d", i), Type: c.kind, Tag: reflect.StructTag(fmt.Sprintf(`parquet:"%s"`, tag))}
	}
	schema := parquet.SchemaOf(reflect.New(reflect.StructOf(fields)).Interface())
	t := &tableWriter{columns: columns, row: make(parquet.Row, len(columns)),
		w: parquet.NewGenericWriter[any](w, schema, parquet.MaxRowsPerRowGroup(rowsPerGroup), parquet.CreatedBy("evenkeel", "", ""))}
	t.clear()
	return t
}

// clear makes all values of the row null.
func (t *tableWriter) clear() {
	for i := range t.row {
		t.row[i] = parquet.NullValue().Level(0, 0, i)
	}
}

func (t *tableWriter) set(i int, v parquet.Value) {
	defined := 1
	if t.columns[i].required {
		defined = 0
	}
	t.row[i] = v.Level(0, defined, i)
}

func (t *tableWriter) integer(i int, x int64) { t.set(i, parquet.Int64Value(x)) }
func (t *tableWriter) text(i int, s string)   { t.set(i, parquet.ByteArrayValue([]byte(s))) }

// float sets a number; one that is not finite is null.
func (t *tableWriter) float(i int, x float64) {
	if !math.IsNaN(x) && !math.IsInf(x, 0) {
		t.set(i, parquet.DoubleValue(x))
	}
}

func seedValue(s uint64) parquet.Value { return parquet.ValueOf(s) }

// end writes the row and begins the next.
func (t *tableWriter) end() error {
	_, err := t.w.WriteRows([]parquet.Row{t.row})
	t.rows++
	t.clear()
	return err
}

func (t *tableWriter) close() error { return t.w.Close() }

// Table is a table of a sweep, of which columns are read when they are asked for.
type Table struct {
	Rows  int
	Names []string // of the columns, in order
	file  *os.File
	p     *parquet.File
}

// maxRows bounds a table that somebody else may have written.
const maxRows = 1 << 28

// maxFooter bounds the description of a table, in bytes: some 100 for each column of each group of rows.
const maxFooter = 1 << 28

// believed is for how many rows there is room at once because a file says that it has them.
const believed = 1 << 22

// OpenTable opens a Parquet table.
func OpenTable(name string) (*Table, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, whole.Located(err)
	}
	t, err := newTable(f)
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("%s is no table of a sweep: %w", name, err)
	}
	return t, nil
}

func newTable(f *os.File) (t *Table, err error) {
	defer func() { // the library panics on some damaged files
		if r := recover(); r != nil {
			err = fmt.Errorf("it is damaged: %v", r)
		}
	}()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	// The library believes what a file's last bytes say of the size of its footer.
	var last [8]byte
	if _, err := f.ReadAt(last[:], info.Size()-int64(len(last))); err != nil || string(last[4:]) != "PAR1" {
		return nil, errors.New("it does not end as a Parquet file does")
	}
	if n := int64(binary.LittleEndian.Uint32(last[:])); n > min(maxFooter, info.Size()-12) {
		return nil, fmt.Errorf("it is damaged: its footer would have %d of %d bytes", n, info.Size())
	}
	p, err := parquet.OpenFile(f, info.Size(), parquet.SkipPageIndex(true), parquet.SkipBloomFilters(true))
	if err != nil {
		return nil, err
	}
	if err := familiar(p); err != nil {
		return nil, err
	}
	t = &Table{Rows: int(p.NumRows()), file: f, p: p}
	for _, path := range p.Schema().Columns() {
		t.Names = append(t.Names, strings.Join(path, "."))
	}
	return t, nil
}

// familiar makes sure that a file is laid out as tableWriter does it: of other ways the library's decoders take any amount of memory.
func familiar(p *parquet.File) error {
	if p.NumRows() > maxRows {
		return fmt.Errorf("it has %d rows, more than %d", p.NumRows(), maxRows)
	}
	columns := p.Root().Columns()
	for _, c := range columns {
		if !c.Leaf() || c.Repeated() {
			return fmt.Errorf("its column %q has lists or parts", c.Name())
		}
	}
	rows := int64(0)
	for i, g := range p.Metadata().RowGroups {
		if rows += g.NumRows; g.NumRows < 0 || g.NumRows > rowsPerGroup || len(g.Columns) != len(columns) {
			return fmt.Errorf("it is damaged: group %d has %d rows of %d columns", i, g.NumRows, len(g.Columns))
		}
		for _, c := range g.Columns {
			if m := c.MetaData; m.Codec != format.Zstd || m.NumValues != g.NumRows {
				return fmt.Errorf("it is damaged: group %d has %d values of %s by %s for %d rows by %s", i, m.NumValues, strings.Join(m.PathInSchema, "."), m.Codec, g.NumRows, format.Zstd)
			}
		}
	}
	if rows != p.NumRows() {
		return fmt.Errorf("it is damaged: its groups have %d of %d rows", rows, p.NumRows())
	}
	return nil
}

// Close closes the file.
func (t *Table) Close() error { return t.file.Close() }

// Numeric reports whether a column holds numbers.
func (t *Table) Numeric(name string) bool {
	c := t.column(name)
	return c != nil && c.Type().Kind() != parquet.ByteArray
}

func (t *Table) column(name string) *parquet.Column {
	for _, c := range t.p.Root().Columns() {
		if c.Name() == name && c.Leaf() {
			return c
		}
	}
	return nil
}

// Numbers reads a column of numbers, null as NaN.
func (t *Table) Numbers(name string) ([]float64, error) {
	list := make([]float64, 0, min(t.Rows, believed))
	err := t.each(name, func(v parquet.Value) {
		x := math.NaN()
		switch v.Kind() {
		case parquet.Double:
			x = v.Double()
		case parquet.Int64:
			x = float64(v.Int64())
		}
		list = append(list, x)
	})
	return list, err
}

// Whole reads a column of whole numbers, such as seeds.
func (t *Table) Whole(name string) ([]uint64, error) {
	list := make([]uint64, 0, min(t.Rows, believed))
	err := t.each(name, func(v parquet.Value) { list = append(list, v.Uint64()) })
	return list, err
}

// Texts reads a column of texts as indices into its distinct ones, null as the empty text.
func (t *Table) Texts(name string) (index []int32, distinct []string, err error) {
	seen := map[string]int32{}
	index = make([]int32, 0, min(t.Rows, believed))
	err = t.each(name, func(v parquet.Value) {
		n, ok := seen[string(v.Bytes())] // does not allocate
		if !ok {
			n = int32(len(distinct))
			distinct = append(distinct, string(v.Bytes()))
			seen[distinct[n]] = n
		}
		index = append(index, n)
	})
	return index, distinct, err
}

func (t *Table) each(name string, f func(parquet.Value)) (err error) {
	c := t.column(name)
	if c == nil {
		return fmt.Errorf("the table has no column %q: it has %s", name, strings.Join(t.Names, ", "))
	}
	defer func() { // the library panics on some damaged files
		if r := recover(); r != nil {
			err = fmt.Errorf("column %s is damaged: %v", name, r)
		}
	}()
	pages := c.Pages()
	defer pages.Close()
	buffer := make([]parquet.Value, 4096)
	rows := 0
	for {
		page, err := pages.ReadPage()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("column %s is damaged: %w", name, err)
		}
		if n := page.NumValues(); n > int64(t.Rows-rows) {
			return fmt.Errorf("column %s is damaged: it has more values than the %d rows", name, t.Rows)
		}
		values := page.Values()
		for {
			n, err := values.ReadValues(buffer)
			for _, v := range buffer[:n] {
				f(v)
			}
			rows += n
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				return fmt.Errorf("column %s is damaged: %w", name, err)
			}
		}
		parquet.Release(page)
	}
	if rows != t.Rows {
		return fmt.Errorf("column %s is damaged: it has %d values for %d rows", name, rows, t.Rows)
	}
	return nil
}
