package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"evenkeel/internal/npz"
	"evenkeel/internal/tracefile"
	"evenkeel/internal/whole"
	"evenkeel/scenarios"
)

// columnFlags say where a trace holds what, for every command that reads one.
type columnFlags struct {
	columns, rows []string
}

func (c *columnFlags) add(f *pflag.FlagSet) {
	f.StringArrayVar(&c.columns, "map", nil, "name=column: where a trace holds what, such as topk_ids=experts (names: see\nevenkeel convert --help)")
	f.StringArrayVar(&c.rows, "where", nil, "column=value: only such rows of a trace in JSONL or CSV")
}

// reading is what the flags and the settings topk, experts, layers and padding say of a trace.
func (c *columnFlags) reading(given map[string]int) scenarios.Reading {
	return scenarios.Reading{Experts: given["experts"],
		Options: tracefile.Options{Map: c.columns, Where: c.rows, TopK: given["topk"], Layers: given["layers"], Padding: given["padding"]}}
}

// settings is what the flags say as settings of a scenario.
func (c *columnFlags) settings() (list []string) {
	for key, values := range map[string][]string{"trace.map": c.columns, "trace.where": c.rows} {
		if len(values) == 0 {
			continue
		}
		quoted := make([]string, len(values))
		for i, v := range values {
			quoted[i] = strconv.Quote(v)
		}
		list = append(list, key+"=["+strings.Join(quoted, ", ")+"]")
	}
	return list
}

func convertCommand(stdout io.Writer) *cobra.Command {
	var columns columnFlags
	var settings []string
	var out string
	c := &cobra.Command{
		Use:   "convert TRACE --out FILE.npz",
		Short: "Write a trace of any format as npz, and say what it holds",
		Long: `Convert reads a trace and writes its arrays as npz, in constant memory. Formats are told
apart by content, plain or packed by gzip: npz, npy, safetensors, torch .pt, JSONL, CSV;
router traces of Megatron-LM, expert distributions and routed experts of SGLang and vLLM,
statistics of TensorRT-LLM, expert weights of ESFT. A trace of several files is named by
its folder. inspect and --scenario trace:FILE read the same formats without conversion.

Columns and tensors with usual names are found; --map says where others are:
  arrays   logits, scores, topk_ids, topk_weights, hidden, router, bias, token_id,
           domain, seq_lens, counts, layers
  rows     layer, token, sequence, step, expert, count, and the names above
{layer} in a tensor's name stands for a number: --map logits=layers.{layer}.logits`,
		Example: `  evenkeel convert router_trace_rank0.jsonl --out trace.npz
  evenkeel convert routes.jsonl --map topk_ids=experts --map topk_weights=probs --out trace.npz
  evenkeel convert responses.jsonl --set layers=58 --set topk=8 --out trace.npz
  evenkeel convert loads.csv --map step=domain --where model=olmoe --out counts.npz`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return fmt.Errorf("convert takes one trace, got %d: name a file, or the folder of a trace of several files", len(args))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			given, err := convertSettings(settings)
			if err != nil {
				return err
			}
			if out == "" {
				return fmt.Errorf("convert needs the file to write: add --out %s.npz", strings.TrimSuffix(filepath.Base(args[0]), filepath.Ext(args[0])))
			}
			reading := columns.reading(given)
			reading.Interrupt = cmd.Context().Err
			return convert(strings.TrimPrefix(args[0], "trace:"), out, reading, stdout)
		},
	}
	c.Flags().SortFlags = false
	c.Flags().StringVar(&out, "out", "", "the npz file to write")
	columns.add(c.Flags())
	c.Flags().StringArrayVar(&settings, "set", nil, "topk=K, layers=L or padding=ID, where the file does not say")
	return c
}

func convertSettings(settings []string) (map[string]int, error) {
	given := map[string]int{}
	for _, s := range settings {
		key, value, _ := strings.Cut(s, "=")
		if key != "topk" && key != "layers" && key != "padding" {
			return nil, fmt.Errorf("--set %s: convert knows topk, layers and padding", s)
		}
		n, err := strconv.Atoi(value)
		if err != nil || n < 1 {
			return nil, fmt.Errorf("--set %s: want a whole number of at least 1", s)
		}
		given[key] = n
	}
	return given, nil
}

// convert writes a trace as npz and prints what it holds.
func convert(name, out string, reading scenarios.Reading, stdout io.Writer) error {
	f, err := scenarios.OpenTrace(name, reading)
	if errors.Is(err, context.Canceled) {
		return fmt.Errorf("%w: nothing was written", errInterrupted)
	}
	if err != nil {
		return err
	}
	defer f.Close()
	d, err := f.Shape() // what no command could read is not worth a file
	if err != nil {
		return err
	}
	if err := whole.Check(filepath.Dir(out)); err != nil {
		return fmt.Errorf("--out %s cannot be written: %w", out, err)
	}
	var failure error // of the trace, not of the file
	err = whole.Write(out, func(w io.Writer) error {
		failure = writeTrace(w, f, reading.Interrupt)
		return failure
	})
	switch {
	case failure != nil && errors.Is(err, failure):
		return failure
	case err != nil:
		return failed(err)
	}
	fmt.Fprintf(stdout, "%s: %s, a trace of %s, %s", name, f.Format(), d.Level, plural(d.Layers, "layer"))
	if d.Level == scenarios.LevelCounts {
		fmt.Fprintf(stdout, ", %s, %d experts.\n", plural(d.Steps, "step"), d.Experts)
	} else {
		fmt.Fprintf(stdout, ", %d tokens.\n", d.Tokens)
	}
	for _, n := range f.Notes() {
		fmt.Fprintf(stdout, "- %s\n", n)
	}
	fmt.Fprintf(stdout, "Written to %s:\n", out)
	for _, array := range f.Names() {
		h, _ := f.Header(array)
		fmt.Fprintf(stdout, "  %-12s %-8s %v\n", array, written(h.DType), h.Shape)
	}
	return nil
}

// writeTrace writes all arrays of a trace.
func writeTrace(w io.Writer, s tracefile.Source, interrupt func() error) error {
	z := npz.NewWriter(w)
	for _, array := range s.Names() {
		if err := writeArray(z, s, array, interrupt); err != nil {
			return err
		}
	}
	if err := z.Close(); err != nil {
		return failed(err)
	}
	return nil
}

// written is the type that an array is written as: integers that reach beyond int32 are not of this world.
func written(d npz.DType) npz.DType {
	if d == npz.Float64 {
		return npz.Float32
	}
	if d == npz.Int64 || d == npz.Uint64 || d == npz.Uint32 {
		return npz.Int32
	}
	return d
}

// writeArray copies an array a piece at a time.
func writeArray(z *npz.Writer, s tracefile.Source, array string, interrupt func() error) error {
	h, _ := s.Header(array)
	d := written(h.DType)
	w, err := z.Create(array, d, h.Shape)
	if err != nil {
		return failed(err)
	}
	const piece = 1 << 18 // elements
	buf := make([]byte, 0, piece*4)
	for from, n := 0, h.Len(); from < n; from += piece {
		if err := interrupt(); err != nil {
			return fmt.Errorf("%w: nothing was written", errInterrupted)
		}
		to := min(n, from+piece)
		buf = buf[:0]
		if d.Float() {
			x, err := s.Float32s(array, from, to)
			if err != nil {
				return err
			}
			if d == npz.Float16 {
				for _, v := range x {
					buf = binary.LittleEndian.AppendUint16(buf, float16Bits(v))
				}
			} else {
				for _, v := range x {
					buf = binary.LittleEndian.AppendUint32(buf, math.Float32bits(v))
				}
			}
		} else {
			x, err := s.Int32s(array, from, to)
			if err != nil {
				return err
			}
			for _, v := range x {
				for i := range d.Size() {
					buf = append(buf, byte(v>>(8*i)))
				}
			}
		}
		if _, err := w.Write(buf); err != nil {
			return failed(err)
		}
	}
	return nil
}

// float16Bits returns the bits of a float16 that was widened to v.
func float16Bits(v float32) uint16 {
	b := math.Float32bits(v)
	sign, exponent, fraction := uint16(b>>16)&0x8000, int(b>>23&0xff)-127+15, b&0x7fffff
	switch {
	case b<<1 == 0:
		return sign
	case b>>23&0xff == 0xff:
		return sign | 0x7c00 | uint16(fraction>>13)
	case exponent <= 0:
		return sign | uint16((fraction|1<<23)>>(14-exponent))
	}
	return sign | uint16(exponent)<<10 | uint16(fraction>>13)
}
