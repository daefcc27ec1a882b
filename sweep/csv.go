package sweep

import (
	"bufio"
	"encoding/csv"
	"io"
	"math"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/parquet-go/parquet-go"

	"evenkeel/internal/whole"
)

// WriteCSV writes the tables of a folder as CSV, under their names.
func WriteCSV(dir string, m *Manifest) error {
	for _, file := range m.Tables {
		name := filepath.Join(dir, strings.TrimSuffix(file.File, ".parquet")+".csv")
		t, err := OpenTable(filepath.Join(dir, file.File))
		if err != nil {
			return err
		}
		err = whole.Write(name, t.writeCSV)
		t.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

func (t *Table) writeCSV(out io.Writer) error {
	b := bufio.NewWriter(out)
	w := csv.NewWriter(b)
	if err := w.Write(t.Names); err != nil {
		return err
	}
	row := make([]string, len(t.Names))
	for _, group := range t.p.RowGroups() {
		rows := group.Rows()
		buffer := make([]parquet.Row, 256)
		for {
			n, err := rows.ReadRows(buffer)
			for _, values := range buffer[:n] {
				for i, v := range values {
					row[i] = csvValue(v)
				}
				if err := w.Write(row); err != nil {
					rows.Close()
					return err
				}
			}
			if err == io.EOF {
				break
			}
			if err != nil {
				rows.Close()
				return err
			}
		}
		if err := rows.Close(); err != nil {
			return err
		}
	}
	w.Flush()
	if err := w.Error(); err != nil {
		return err
	}
	return b.Flush()
}

// csvValue prints a value so that reading it gives the same bits; null is an empty cell.
func csvValue(v parquet.Value) string {
	switch {
	case v.IsNull():
		return ""
	case v.Kind() == parquet.Double:
		if x := v.Double(); !math.IsNaN(x) {
			return strconv.FormatFloat(x, 'g', -1, 64)
		}
		return ""
	case v.Kind() == parquet.Int64:
		return strconv.FormatInt(v.Int64(), 10)
	}
	return string(v.Bytes())
}
