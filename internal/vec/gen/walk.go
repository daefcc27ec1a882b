package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// A block is vectors to which a kernel does the same. Each step is issued for all of them before the next one, so that the
// steps of one vector's chain need not wait for each other.
type block []VecVirtual

func (t tier) block(n int) block { return t.vectors(n) }

// each computes to = b op a, in the order of operands of Go's assembler.
func each(op func(...Op), a, b, to block) {
	for i := range to {
		op(a[i], b[i], to[i])
	}
}

// copies returns a block of n registers filled with a constant.
func (t tier) copies(c Mem, n int) block {
	b := t.block(n)
	for _, v := range b {
		VBROADCASTSS(c, v)
	}
	return b
}

// A walk goes through tiles, masks and rows of 64 tokens: column by column, n vectors wide, and through the rows of each.
type walk struct {
	t      tier
	n      int
	tiles  []string // parameters that point to tiles
	masks  []string // to one word for each row of a tile
	single []string // to one row
	base   map[string]GPVirtual
}

// walk takes a column as wide as the registers allow: for a block of four with 32, of two with 16.
func (t tier) walk(tiles, masks, single []string) *walk {
	w := &walk{t: t, n: 2, tiles: tiles, masks: masks, single: single, base: map[string]GPVirtual{}}
	if t.wide {
		w.n = 4
	}
	for _, list := range [][]string{tiles, masks, single} {
		for _, p := range list {
			w.base[p] = param(p)
		}
	}
	return w
}

// columns writes the rest of the kernel, in which body does one column.
func (w *walk) columns(body func()) {
	size := w.n * w.t.bytes()
	column := counter(rowBytes / size)
	loop("column", column, func() {
		body()
		if size == rowBytes {
			return
		}
		for _, list := range [][]string{w.tiles, w.single} {
			for _, p := range list {
				advance(w.base[p], size)
			}
		}
		for _, p := range w.masks {
			advance(w.base[p], size/32)
		}
	})
	end()
}

// rows calls body with the column's places in one row of each tile and mask.
func (w *walk) rows(label string, body func(m map[string]Mem)) {
	moving, m := map[string]GPVirtual{}, map[string]Mem{}
	for _, list := range [][]string{w.tiles, w.masks} {
		for _, p := range list {
			moving[p] = copied(w.base[p])
			m[p] = at(moving[p], 0)
		}
	}
	n := param("rows")
	loop(label, n, func() {
		body(m)
		for _, p := range w.tiles {
			advance(moving[p], rowBytes)
		}
		for _, p := range w.masks {
			advance(moving[p], 8)
		}
	})
}

// row is the column's place in a single row.
func (w *walk) row(name string) Mem { return at(w.base[name], 0) }

// load loads a column's block of one row.
func (w *walk) load(from Mem) block {
	b := w.t.block(w.n)
	for i, v := range b {
		VMOVUPS(from.Offset(i*w.t.bytes()), v)
	}
	return b
}

func (w *walk) store(b block, to Mem) {
	for i, v := range b {
		VMOVUPS(v, to.Offset(i*w.t.bytes()))
	}
}

// zeros returns a block of sums to be.
func (w *walk) zeros() block {
	b := w.t.block(w.n)
	for _, v := range b {
		zero(v)
	}
	return b
}

// lanes returns the tokens of vector i of a block whose bits a row's mask has, in the form that allowedOf gives them.
func (w *walk) lanes(mask Mem, i int) Register {
	return w.t.allowedOf(mask.Offset(i * w.t.bytes() / 32))
}
