package plots

import (
	"image"
	"image/color"
	"math"
	"strings"
	"testing"

	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// layout is a canvas that keeps where text stands and whatever leaves the page.
type layout struct {
	page    vg.Rectangle
	turn    []float64 // by level of Push
	texts   []placedText
	outside []string
}

type placedText struct {
	box  vg.Rectangle
	text string
}

func newLayout(p Picture) *layout {
	l := &layout{page: vg.Rectangle{Max: vg.Point{X: p.Width, Y: p.Height}}, turn: []float64{0}}
	p.draw(draw.NewCanvas(l, p.Width, p.Height))
	return l
}

func (l *layout) SetLineWidth(vg.Length)             {}
func (l *layout) SetLineDash([]vg.Length, vg.Length) {}
func (l *layout) SetColor(color.Color)               {}
func (l *layout) Rotate(a float64)                   { l.turn[len(l.turn)-1] += a }
func (l *layout) Translate(vg.Point)                 { panic("no figure translates") }
func (l *layout) Scale(_, _ float64)                 { panic("no figure scales") }
func (l *layout) Push()                              { l.turn = append(l.turn, l.turn[len(l.turn)-1]) }
func (l *layout) Pop()                               { l.turn = l.turn[:len(l.turn)-1] }
func (l *layout) Stroke(p vg.Path)                   { l.path(p) }
func (l *layout) Fill(p vg.Path)                     { l.path(p) }
func (l *layout) DrawImage(r vg.Rectangle, _ image.Image) {
	l.inside(r.Min, "an image")
	l.inside(r.Max, "an image")
}

// FillString keeps the box of the ink: from below the baseline to the top of a capital.
func (l *layout) FillString(f font.Face, at vg.Point, s string) {
	if strings.TrimSpace(s) == "" {
		return
	}
	sin, cos := math.Sincos(l.turn[len(l.turn)-1])
	box := vg.Rectangle{Min: vg.Point{X: vg.Length(math.Inf(1)), Y: vg.Length(math.Inf(1))}, Max: vg.Point{X: vg.Length(math.Inf(-1)), Y: vg.Length(math.Inf(-1))}}
	for _, x := range []vg.Length{0, f.Width(s)} {
		for _, y := range []vg.Length{-0.2 * f.Font.Size, 0.72 * f.Font.Size} {
			u, v := float64(at.X+x), float64(at.Y+y)
			corner := vg.Point{X: vg.Length(u*cos - v*sin), Y: vg.Length(u*sin + v*cos)}
			box.Min.X, box.Min.Y = min(box.Min.X, corner.X), min(box.Min.Y, corner.Y)
			box.Max.X, box.Max.Y = max(box.Max.X, corner.X), max(box.Max.Y, corner.Y)
		}
	}
	l.inside(box.Min, s)
	l.inside(box.Max, s)
	l.texts = append(l.texts, placedText{box, s})
}

func (l *layout) path(p vg.Path) {
	for _, x := range p {
		if x.Type == vg.MoveComp || x.Type == vg.LineComp {
			l.inside(x.Pos, "a line")
		}
	}
}

func (l *layout) inside(at vg.Point, what string) {
	const hair = 0.5
	if !(at.X >= l.page.Min.X-hair && at.X <= l.page.Max.X+hair && at.Y >= l.page.Min.Y-hair && at.Y <= l.page.Max.Y+hair) {
		l.outside = append(l.outside, what)
	}
}

// checkLayout fails where text covers text or something leaves the page.
func checkLayout(t *testing.T, name string, p Picture) {
	t.Helper()
	l := newLayout(p)
	if len(l.outside) > 0 {
		t.Errorf("%s: %d things leave the page, first %s", name, len(l.outside), l.outside[0])
	}
	for i, a := range l.texts {
		for _, b := range l.texts[:i] {
			if overlap(inset(a.box, 0.4), inset(b.box, 0.4)) > 0 {
				t.Errorf("%s: %q covers %q", name, a.text, b.text)
			}
		}
	}
}

// says checks that a picture says so.
func says(t *testing.T, name string, p Picture, wants ...string) {
	t.Helper()
	var all []string
	for _, x := range newLayout(p).texts {
		all = append(all, x.text)
	}
	text := strings.Join(all, " ")
	for _, want := range wants {
		if !strings.Contains(text, want) {
			t.Errorf("%s does not say %q: %s", name, want, text)
		}
	}
}
