package main

import (
	"strings"
	"testing"

	"evenkeel/plots"
)

// Tables and pictures must call a metric the same.
func TestColumnsAreCalledAsInPictures(t *testing.T) {
	for _, c := range columns {
		title := strings.ReplaceAll(c.title, "\n", " ")
		if m := plots.MetricOf(c.metric); m.Name != title {
			t.Errorf("%s is %q in tables and %q in pictures", c.metric, title, m.Name)
		}
	}
}
