package main

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"evenkeel/internal/whole"
	"evenkeel/plots"
	"evenkeel/sweep"
)

// plotRequest is what the flags of plot ask for.
type plotRequest struct {
	metric, x, y, over, against, out string
	filters                          []string
}

func plotCommand(stdout io.Writer) *cobra.Command {
	var q plotRequest
	c := &cobra.Command{
		Use:   "plot DIR --x PARAMETER",
		Short: "Draw any part of a sweep",
		Long: `Plot draws a metric of a sweep along a parameter, with its interval over the seeds and the
sampling floor; with --over a panel for each value of a second parameter, with --y a heat map
over two. --against METRIC draws that metric of all settings against the first, and their front.
What a sweep draws by itself lies in the folder plots of its own.`,
		Example: `  evenkeel plot rates --x rate --metric churn --out churn.svg
  evenkeel plot rates --x rate --over tokens --filter strategy=loss-free --out rates.png
  evenkeel plot rates --x rate --y tokens --out map.png
  evenkeel plot rates --metric maxvio_batch --against output_error --out front.png`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return errors.New("plot needs the folder of one sweep: evenkeel plot DIR --x PARAMETER")
			}
			return nil
		},
		RunE: func(_ *cobra.Command, args []string) error { return q.run(args[0], stdout) },
	}
	f := c.Flags()
	f.SortFlags = false
	f.StringVar(&q.metric, "metric", "maxvio_global", "what is drawn")
	f.StringVar(&q.x, "x", "", "parameter along the axis")
	f.StringVar(&q.over, "over", "", "second parameter: a panel for each of its values")
	f.StringVar(&q.y, "y", "", "second parameter: a heat map over both")
	f.StringVar(&q.against, "against", "", "second metric: that of every setting against the first")
	f.StringArrayVar(&q.filters, "filter", nil, "cells to keep, such as rate<0.01, tokens>=4096 or strategy=none|loss-free; may be repeated")
	f.StringVar(&q.out, "out", "", "file of the picture: its name ends in .svg or .png")
	return c
}

func (q *plotRequest) run(dir string, stdout io.Writer) error {
	draw := plots.Picture.SVG
	switch filepath.Ext(q.out) {
	case ".svg":
	case ".png":
		draw = plots.Picture.PNG
	default:
		if q.out == "" {
			return errors.New("--out is missing: name the file of the picture, which ends in .svg or .png")
		}
		return fmt.Errorf("--out %s: a picture's name must end in .svg or .png", q.out)
	}
	chosen := 0
	for _, s := range []string{q.y, q.over, q.against} {
		if s != "" {
			chosen++
		}
	}
	if chosen > 1 {
		return errors.New("--over, --y and --against are different pictures: choose one")
	}
	r, err := sweep.OpenResults(dir)
	if err != nil {
		return err
	}
	defer r.Close()
	if len(r.Measured()) == 0 {
		return fmt.Errorf("%s: no cell could run, so that there is nothing to draw: the column failed of %s says why", dir, sweep.CellsTable)
	}
	if q.x == "" && q.against == "" {
		return fmt.Errorf("--x is missing: name a parameter along the axis, or two metrics by --metric and --against; the sweep varied %s", strings.Join(r.Varied(), ", "))
	}
	d := newSweptPictures(r, q.filters)
	for _, p := range []*string{&q.x, &q.y, &q.over} {
		if *p != "" {
			if *p, err = r.Column(*p); err != nil {
				return err
			}
		}
	}
	if q.x != "" && (q.x == q.y || q.x == q.over) {
		return fmt.Errorf("--x names %s, and so does its second parameter: name another, or leave one out", q.x)
	}
	if names := d.parameters(); q.against == "" {
		for _, p := range []string{q.x, q.y, q.over} {
			if p != "" && p != "strategy" && slices.Contains(r.Varied(), p) && !slices.Contains(names, p) && d.values(p) == 0 {
				return fmt.Errorf("no cell that --filter keeps has %s: keep others, or name one of %s", p, strings.Join(append(names, "strategy"), ", "))
			}
		}
	}
	var n plots.Named
	switch {
	case q.against != "":
		n, err = d.pareto(q.metric, q.against)
	case q.y != "":
		n, err = d.heatMap(q.metric, q.x, q.y)
	case q.over != "":
		n, err = d.multiples(q.metric, q.x, q.over)
	default:
		n, err = d.response(q.metric, q.x)
	}
	if errors.Is(err, plots.ErrNothing) {
		return fmt.Errorf("no cell that is kept has %s, so that there is nothing to draw: evenkeel table %s --metric %s says why", q.metric, dir, q.metric)
	}
	if err != nil {
		return err
	}
	content, err := draw(n.Picture)
	if err != nil {
		return failed(err)
	}
	if err := whole.WriteBytes(q.out, content); err != nil {
		return failed(err)
	}
	_, err = fmt.Fprintf(stdout, "Written to %s.\n", q.out)
	return err
}
