package vec

// portable is plain Go, for every platform.
var portable = kernel{
	name:    "portable",
	panel:   portablePanel,
	product: productPortable,
	outer:   outerPortable,
}

// With seven sums the compiler keeps all of them in registers, with eight it spills one.
const portablePanel = 7

func productPortable(m *Matrix, z, x, scratch []float32) {
	h := scratch[:m.cols]
	for t := range Lanes {
		for c := range h {
			h[c] = x[c*Lanes+t]
		}
		for panel := range m.panels() {
			p := m.packed[panel*m.cols:][:len(h)]
			var a0, a1, a2, a3, a4, a5, a6 float32
			for c := range p {
				w, y := &p[c], h[c]
				a0 += float32(w[0] * y)
				a1 += float32(w[1] * y)
				a2 += float32(w[2] * y)
				a3 += float32(w[3] * y)
				a4 += float32(w[4] * y)
				a5 += float32(w[5] * y)
				a6 += float32(w[6] * y)
			}
			r := m.first(panel)
			if m.rows >= portablePanel {
				o := z[r*Lanes+t : r*Lanes+t+(portablePanel-1)*Lanes+1]
				o[0], o[Lanes], o[2*Lanes], o[3*Lanes] = a0, a1, a2, a3
				o[4*Lanes], o[5*Lanes], o[6*Lanes] = a4, a5, a6
				continue
			}
			sums := [portablePanel]float32{a0, a1, a2, a3, a4, a5, a6}
			for i := range m.rows {
				z[i*Lanes+t] = sums[i]
			}
		}
	}
}

func outerPortable(sum *Gradient, g, x, _ []float32) {
	for e := range sum.rows {
		gr, out := row(g, e), sum.Row(e)
		c := 0
		for ; c+4 <= len(out); c += 4 {
			x0, x1, x2, x3 := row(x, c), row(x, c+1), row(x, c+2), row(x, c+3)
			a0, a1, a2, a3 := out[c], out[c+1], out[c+2], out[c+3]
			for t, v := range gr {
				a0 += float32(v * x0[t])
				a1 += float32(v * x1[t])
				a2 += float32(v * x2[t])
				a3 += float32(v * x3[t])
			}
			out[c], out[c+1], out[c+2], out[c+3] = a0, a1, a2, a3
		}
		for ; c < len(out); c++ {
			xr, a := row(x, c), out[c]
			for t, v := range gr {
				a += float32(v * xr[t])
			}
			out[c] = a
		}
	}
}
