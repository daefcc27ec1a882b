// Package fit fits the synthetic stream of package scenarios to a trace of a real router, and says how well it fits.
//
// What is fitted is what balancing rules see: the choices a_te ∈ {0, 1} of experts, K for each token. Their variance is
// split into what all tokens share, what the tokens of a domain, of a document and of a token type share, and the rest
// (see [Components]); the energies of the synthetic stream are those under which streams drawn from it have, on average
// over worlds, the same split (a method of simulated moments). So traces of scores and of choices alone are fitted in the
// same way; where logits are known they give their spread τ as well, and a second split that the fit did not look at.
// Token ids give the exponent of their frequencies, the vocabulary and the tilt of domains (see [Vocabulary]).
//
// The documents of every domain are dealt in turns to two halves: one is fitted, the other, held back, judges the fit.
package fit
