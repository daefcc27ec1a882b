package plots

import "evenkeel/scenarios/fit"

// Fit draws.
func Fit(r *fit.Result) (Picture, error) { return Picture{}, errNothing }
