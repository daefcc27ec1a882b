package main

import (
	. "github.com/mmcloughlin/avo/build"
)

// peak is what the processor can do at most: fused multiply-adds on registers that depend on nothing. It computes nothing.
func (t tier) peak() {
	const chains = 12
	t.begin("peak", "func(n int)", "runs n times 12 fused multiply-adds of a vector.")
	sum, a, n := t.vectors(chains), t.vector(), param("n")
	zero(a)
	for _, s := range sum {
		zero(s)
	}
	loop("chains", n, func() {
		for _, s := range sum {
			VFMADD231PS(a, a, s)
		}
	})
	end()
}
