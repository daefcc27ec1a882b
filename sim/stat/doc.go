// Package stat compares strategies over seeds. Its samples are paired: value i of each strategy comes from seed i, whose
// world and tokens both saw, so that what it tests are the differences within the pairs.
//
// Here live bootstrap intervals, exact signed-rank and sign tests, Holm's correction, effect sizes, the number of seeds that
// a test needs, the end of a warm-up, shares of variance in a factorial, and the verdict that puts them into one sentence.
// Not here: what is measured (package metrics), the t-intervals of a summary (metrics.MeanInterval), tests of unpaired samples.
//
// Everything is a pure function. Sums run in the order given and draws come from internal/rng, so the same seed gives the
// same resamples on any machine; quantiles and powers rest on gonum and the standard library's exp and log, whose last bits
// differ between processors: round what is stored (metrics.Round6).
package stat
