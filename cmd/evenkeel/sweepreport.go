package main

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"evenkeel/sweep"
)

// reportedRows is how many rows a table after a sweep may have. Of more, table shows the part that somebody asks for.
const reportedRows = 40

// writeSweepReport prints imbalance and quality of a sweep that ran, what could not run, and warnings.
func writeSweepReport(w io.Writer, dir string, width int) error {
	r, err := sweep.OpenResults(dir)
	if err != nil {
		return err
	}
	defer r.Close()
	query := sweep.Query{}
	r.Defaults(&query)
	var list []*sweptTable
	for _, metric := range reportedMetrics(r) {
		query.Metric = metric
		p, err := r.Project(query)
		if err != nil {
			return err
		}
		t := &sweptTable{Projection: p, base: -1}
		if len(p.RowLabels) > reportedRows {
			fmt.Fprintf(w, "\nThe table of %s would have %d rows: evenkeel table %s --filter ... shows a part.\n", metric, len(p.RowLabels), dir)
			continue
		}
		list = append(list, t)
	}
	for _, t := range list {
		fmt.Fprintf(w, "\n%s\n", t.render(false, width))
	}
	if len(list) > 0 {
		for _, note := range list[0].notes(r.Manifest) {
			fmt.Fprintln(w, wrap(note, width))
		}
	}
	return writeReasons(w, r, width)
}

// reportedMetrics are imbalance and quality: task loss where experts learn.
func reportedMetrics(r *sweep.Results) (list []string) {
	for _, key := range []string{"maxvio_global", "task_loss", "affinity_kept"} {
		if slices.Contains(r.Measured(), key) && len(list) < 2 {
			list = append(list, key)
		}
	}
	return list
}

// writeReasons says why cells have no figures, and what their runs warn of, the most frequent first.
func writeReasons(w io.Writer, r *sweep.Results, width int) error {
	for _, column := range []struct{ name, words string }{{"failed", "could not run"}, {"warnings", "warn"}} {
		reasons, err := r.Count(column.name)
		if err != nil {
			return err
		}
		const most = 4
		for i, reason := range reasons {
			if i == most {
				fmt.Fprintf(w, "%d other reasons: see the column %s of %s.\n", len(reasons)-most, column.name, sweep.CellsTable)
				break
			}
			text := strings.ReplaceAll(reason.Text, "\n", "; ")
			fmt.Fprintln(w, wrap(fmt.Sprintf("%s %s: %s", plural(reason.Cells, "cell"), column.words, text), width))
		}
	}
	return nil
}
