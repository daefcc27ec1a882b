package main

import (
	"errors"
	"fmt"
	"io"
	"regexp"
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
		if errors.Is(err, sweep.ErrTooLarge) {
			fmt.Fprintf(w, "\n%s is not shown: %s: evenkeel table %s shows a part.\n", metric, err, dir)
			continue
		} else if err != nil {
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
	said := map[string]bool{}
	for i, t := range list {
		for _, note := range t.notes(r.Manifest) {
			if said[note] {
				continue
			}
			said[note] = true
			if i > 0 {
				note = t.Metric + ": " + note
			}
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

// writeReasons says why cells have no figures, and what their runs warn of, the most frequent first. Texts that differ in numbers
// alone are one.
func writeReasons(w io.Writer, r *sweep.Results, width int) error {
	for _, column := range []struct{ name, words string }{{"failed", "could not run"}, {"warnings", "warn"}} {
		reasons, err := r.Count(column.name)
		if err != nil {
			return err
		}
		var kinds []sweep.Reason
		at := map[string]int{}
		several := map[int]bool{}
		for _, reason := range reasons {
			for line := range strings.SplitSeq(reason.Text, "\n") {
				key := anyNumber.ReplaceAllString(line, "#")
				i, ok := at[key]
				if !ok {
					i = len(kinds)
					at[key] = i
					kinds = append(kinds, sweep.Reason{Text: line})
				} else if kinds[i].Text != line {
					several[i] = true
				}
				kinds[i].Cells += reason.Cells
			}
		}
		for i, k := range kinds {
			such := ""
			if several[i] {
				such = ", such as"
			}
			fmt.Fprintln(w, wrap(fmt.Sprintf("%s %s%s: %s.", plural(k.Cells, "cell"), column.words, such, strings.TrimSuffix(strings.TrimPrefix(k.Text, "--set: "), ".")), width))
		}
	}
	return nil
}

var anyNumber = regexp.MustCompile(`[0-9.]+(e[-+]?[0-9]+)?`)
