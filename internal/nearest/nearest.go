// Package nearest finds the known name that a mistyped one most resembles.
package nearest

import "fmt"

// Name returns the known name with the smallest edit distance to name, or "" if none is close enough to be meant.
func Name(name string, known []string) string {
	best, least := "", max(2, (len(name)+2)/3)+1
	for _, k := range known {
		if d := distance(name, k); d < least && d < len(k)/2+2 {
			best, least = k, d
		}
	}
	return best
}

// Hint returns " (did you mean X?)" for the nearest known name, or "" where none is near.
func Hint(name string, known []string) string {
	if n := Name(name, known); n != "" {
		return fmt.Sprintf(" (did you mean %s?)", n)
	}
	return ""
}

// distance counts the insertions, deletions, substitutions and swaps of neighbours that turn a into b.
func distance(a, b string) int {
	before, last := make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row := make([]int, len(b)+1)
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last = last, row
	}
	return last[len(b)]
}
