package plots

import (
	"bytes"
	"math"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgimg"
	"gonum.org/v1/plot/vg/vgsvg"
)

// pageWidth is the width of every picture: 1,000 pixels at 96 dots per inch.
const pageWidth = 750 * vg.Length(1)

// Picture is a drawn figure of a known size, in points of 1/72 inch.
type Picture struct {
	Width, Height vg.Length
	draw          func(draw.Canvas)
}

// SVG returns the picture as an SVG document. Its text is set in Liberation Sans or, where that is missing, in one of the
// fonts that have the same widths.
func (p Picture) SVG() ([]byte, error) {
	c := vgsvg.New(p.Width, p.Height)
	p.draw(draw.New(c))
	var out bytes.Buffer
	if _, err := c.WriteTo(&out); err != nil {
		return nil, err
	}
	return svgFixes.Replace(out.Bytes()), nil
}

// svgFixes mends what gonum's SVG says: one font without a substitute, and a wrong type of embedded images.
var svgFixes = replacements{
	{"font-family:Liberation Sans;", "font-family:'Liberation Sans',Arial,Helvetica,sans-serif;"},
	{"data:image/jpg;base64,", "data:image/png;base64,"},
}

type replacements [][2]string

// Replace applies all replacements in order.
func (r replacements) Replace(b []byte) []byte {
	for _, x := range r {
		b = bytes.ReplaceAll(b, []byte(x[0]), []byte(x[1]))
	}
	return b
}

// PNG returns the picture as a PNG image of 96 dots per inch.
func (p Picture) PNG() ([]byte, error) {
	c := vgimg.PngCanvas{Canvas: vgimg.New(p.Width, p.Height)}
	p.draw(draw.New(c))
	var out bytes.Buffer
	_, err := c.WriteTo(&out)
	return out.Bytes(), err
}

// sheet is the frame that all figures share: a title above, a caption below, and the figure's own body between them.
type sheet struct {
	title, caption string
	height         vg.Length // of the body
	body           func(draw.Canvas)
}

const (
	margin     = 12 * vg.Length(1)
	titleSpace = 26 * vg.Length(1)
)

// picture lays the sheet out.
func (s sheet) picture() Picture {
	inner := pageWidth - 2*margin
	caption := wrap(s.caption, captionText, inner)
	captionHeight := lineHeight(captionText) * vg.Length(len(caption))
	height := margin + titleSpace + s.height + 8 + captionHeight + margin
	return Picture{Width: pageWidth, Height: height, draw: func(c draw.Canvas) {
		c.SetColor(paper)
		c.Fill(c.Rectangle.Path())
		c = draw.Crop(c, margin, -margin, margin, -margin)
		writeLines(&c, aligned(titleText, draw.XLeft), vg.Point{X: c.Min.X, Y: c.Max.Y}, []string{shorten(s.title, titleText, inner)})
		writeLines(&c, captionText, vg.Point{X: c.Min.X, Y: c.Min.Y + captionHeight}, caption)
		s.body(draw.Crop(c, 0, 0, captionHeight+8, -titleSpace))
	}}
}

// writeLines writes lines of text downwards from a point at their top.
func writeLines(c *draw.Canvas, style text.Style, top vg.Point, lines []string) {
	style.YAlign = draw.YTop
	for _, line := range lines {
		c.FillText(style, vg.Point{X: top.X, Y: top.Y + style.FontExtents().Descent}, line)
		top.Y -= lineHeight(style)
	}
}

// writeUpwards writes a turned line of text, its foot at x and its middle at y.
func writeUpwards(c draw.Canvas, style text.Style, foot vg.Point, line string) {
	style.XAlign, style.YAlign, style.Rotation = draw.XCenter, draw.YBottom, math.Pi/2
	c.FillText(style, vg.Point{X: foot.X - style.FontExtents().Descent, Y: foot.Y}, line)
}

// drawLabelled draws a plot whose axes have no labels of their own, and labels them. gonum puts the label of a logarithmic
// axis at the middle of its values instead of its length, and makes room for it there.
func drawLabelled(c draw.Canvas, p *plot.Plot, x, y string) {
	line := lineHeight(labelText)
	inner := draw.Crop(c, line+2, 0, line+2, 0)
	p.Draw(inner)
	data := p.DataCanvas(inner)
	mid := data.Center()
	x = shorten(x, labelText, 2*min(mid.X-c.Min.X, c.Max.X-mid.X))
	y = shorten(y, labelText, 2*min(mid.Y-c.Min.Y, c.Max.Y-mid.Y))
	writeLines(&c, aligned(labelText, draw.XCenter), vg.Point{X: mid.X, Y: c.Min.Y + line}, []string{x})
	writeUpwards(c, labelText, vg.Point{X: c.Min.X + line, Y: mid.Y}, y)
}
