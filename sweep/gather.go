package sweep

import (
	"bufio"
	"encoding/csv"
	"fmt"
	"io"
	"math"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/parquet-go/parquet-go"

	"evenkeel/internal/whole"
)

// Gather copies into a folder what others hold of the same plan.
func Gather(dir string, p *Plan, others []string) error {
	if len(others) == 0 {
		return nil
	}
	names, err := p.names()
	if err != nil {
		return err
	}
	cells := map[Name]Cell{}
	for _, u := range p.Units() {
		for _, c := range p.Of(u) {
			cells[names.of(c)] = c
		}
	}
	s, err := Open(dir, p, Shard{})
	if err != nil {
		return err
	}
	for _, other := range others {
		q, err := ReadPlan(filepath.Join(other, PlanFile))
		if err == nil && q.Hash() != p.Hash() {
			err = fmt.Errorf("%s holds the results of another plan (%s, not %s)", other, q.Hash(), p.Hash())
		}
		if err == nil {
			_, err = scan(other, func(n Name, record []byte, _ place) error {
				if _, ok := cells[n]; !ok {
					return nil
				}
				return s.append(n, record)
			})
		}
		if err != nil {
			s.Close()
			return err
		}
	}
	return s.Close()
}

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
