package plots

import (
	"image/color"
	"math"
	"strings"
	"unicode"

	"golang.org/x/image/font"
	"gonum.org/v1/plot"
	plotfont "gonum.org/v1/plot/font"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// The colours that are the same in every figure.
var (
	paper = color.White
	ink   = color.Gray{0x00}
	soft  = color.Gray{0x50} // captions, leaders
	faint = color.Gray{0xd8} // grid
	noise = color.Gray{0x70} // the sampling floor
)

// The text styles, large to small.
var (
	titleText   = textStyle(13, font.WeightBold, ink)
	panelText   = textStyle(10, font.WeightNormal, ink)
	labelText   = textStyle(10, font.WeightNormal, ink)
	tickText    = textStyle(9, font.WeightNormal, ink)
	eventText   = textStyle(8.5, font.WeightNormal, ink)
	captionText = textStyle(9, font.WeightNormal, soft)
)

func textStyle(size vg.Length, weight font.Weight, c color.Color) text.Style {
	return text.Style{
		Color:   c,
		Font:    plotfont.Font{Typeface: "Liberation", Variant: "Sans", Weight: weight, Size: size},
		Handler: plot.DefaultTextHandler,
	}
}

func aligned(s text.Style, x draw.XAlignment) text.Style { s.XAlign = x; return s }
func coloured(s text.Style, c color.Color) text.Style    { s.Color = c; return s }

// lineHeight is the distance between lines of running text.
func lineHeight(s text.Style) vg.Length { return s.Font.Size * 1.22 }

// look is how a strategy appears in every figure. Looks differ in colour, and in dashes and glyphs for those who print in
// grey.
type look struct {
	color  color.Color
	dashes []vg.Length
	glyph  draw.GlyphDrawer
}

// Colours of Okabe and Ito, without the yellow that no line on white survives.
var lookColors = []color.Color{
	color.RGBA{0x00, 0x72, 0xb2, 0xff}, // blue
	color.RGBA{0xd5, 0x5e, 0x00, 0xff}, // vermillion
	color.RGBA{0x00, 0x9e, 0x73, 0xff}, // bluish green
	color.RGBA{0xcc, 0x79, 0xa7, 0xff}, // reddish purple
	color.RGBA{0xe6, 0x9f, 0x00, 0xff}, // orange
	color.RGBA{0x56, 0xb4, 0xe9, 0xff}, // sky blue
	color.RGBA{0x00, 0x00, 0x00, 0xff}, // black
}

var lookDashes = [][]vg.Length{nil, {7, 2.5}, {2, 2}, {8, 2, 2, 2}, {12, 3}}

var lookGlyphs = []draw.GlyphDrawer{
	draw.CircleGlyph{}, draw.BoxGlyph{}, draw.PyramidGlyph{}, diamond{}, draw.RingGlyph{}, draw.SquareGlyph{},
	draw.TriangleGlyph{}, draw.CrossGlyph{},
}

// lookOf returns the look of the strategy at a place of the command line. The first 280 are different.
func lookOf(i int) look {
	return look{
		color:  lookColors[i%len(lookColors)],
		dashes: lookDashes[i%len(lookDashes)],
		glyph:  lookGlyphs[i%len(lookGlyphs)],
	}
}

// line is the style of a strategy's line.
func (l look) line(width vg.Length) draw.LineStyle {
	return draw.LineStyle{Color: l.color, Width: width, Dashes: l.dashes}
}

// veil is a colour made nearly transparent.
func veil(c color.Color, alpha uint8) color.Color {
	r, g, b, _ := c.RGBA()
	return color.NRGBA{uint8(r >> 8), uint8(g >> 8), uint8(b >> 8), alpha}
}

// diamond is a filled square that stands on a corner.
type diamond struct{}

// DrawGlyph implements draw.GlyphDrawer.
func (diamond) DrawGlyph(c *draw.Canvas, sty draw.GlyphStyle, at vg.Point) {
	r := sty.Radius * 1.25
	c.FillPolygon(sty.Color, []vg.Point{{X: at.X - r, Y: at.Y}, {X: at.X, Y: at.Y + r}, {X: at.X + r, Y: at.Y}, {X: at.X, Y: at.Y - r}})
}

// star is the hollow star that marks a bound.
type star struct{}

// DrawGlyph implements draw.GlyphDrawer.
func (star) DrawGlyph(c *draw.Canvas, sty draw.GlyphStyle, at vg.Point) {
	var p vg.Path
	for i := range 10 {
		r := float64(sty.Radius)
		if i%2 == 1 {
			r *= 0.42
		}
		sin, cos := math.Sincos(math.Pi/2 + float64(i)*math.Pi/5)
		corner := vg.Point{X: at.X + vg.Length(r*cos), Y: at.Y + vg.Length(r*sin)}
		if i == 0 {
			p.Move(corner)
		} else {
			p.Line(corner)
		}
	}
	p.Close()
	c.SetColor(paper)
	c.Fill(p)
	c.SetLineStyle(draw.LineStyle{Color: sty.Color, Width: 1.1})
	c.Stroke(p)
}

// newPlot returns an empty plot in the house style.
func newPlot(x, y string) *plot.Plot {
	p := plot.New()
	p.BackgroundColor = nil
	for _, a := range []*plot.Axis{&p.X, &p.Y} {
		a.Padding = 0
		a.Label.TextStyle.Font = labelText.Font
		a.Label.Padding = 3
		a.Tick.Label.Font = tickText.Font
		a.Tick.Length = 4
	}
	p.X.Label.Text, p.Y.Label.Text = x, y
	return p
}

// oneLine makes a name from outside fit for a picture: no line breaks, nothing that XML forbids.
func oneLine(s string) string {
	s = strings.Map(func(c rune) rune {
		if unicode.IsControl(c) || c == unicode.ReplacementChar || c == 0xfffe || c == 0xffff {
			return ' '
		}
		return c
	}, s)
	return strings.Join(strings.Fields(s), " ")
}

// wrap breaks a text into lines no wider than a width: behind a blank or, in a spec, a comma or colon; within a word only
// where nothing else helps.
func wrap(s string, style text.Style, width vg.Length) []string {
	var lines []string
	line := ""
	for _, piece := range pieces(s) {
		if line != "" && style.Width(strings.TrimSpace(line+piece)) > width {
			lines = append(lines, strings.TrimSpace(line))
			line = ""
		}
		line += piece
		for style.Width(strings.TrimSpace(line)) > width && len([]rune(line)) > 1 {
			n := fitting(line, style, width)
			lines = append(lines, line[:n])
			line = line[n:]
		}
	}
	if line = strings.TrimSpace(line); line != "" {
		lines = append(lines, line)
	}
	return lines
}

// pieces splits a text behind every place where a line may end.
func pieces(s string) []string {
	var p []string
	from := 0
	runes := []rune(s)
	for i, c := range runes {
		// A comma or colon inside a spec ends a piece too, but not one inside a number such as 2,048.
		inSpec := (c == ',' || c == ':') && i+1 < len(runes) && unicode.IsLetter(runes[i+1])
		if c == ' ' || inSpec {
			p = append(p, string(runes[from:i+1]))
			from = i + 1
		}
	}
	return append(p, string(runes[from:]))
}

// fitting is the number of bytes of the longest start of a line that fits a width, at least one character.
func fitting(line string, style text.Style, width vg.Length) int {
	fit := 0
	for i, c := range line {
		end := i + len(string(c))
		if fit > 0 && style.Width(line[:end]) > width {
			break
		}
		fit = end
	}
	return fit
}

// shorten cuts a text to a width and marks the cut.
func shorten(s string, style text.Style, width vg.Length) string {
	if style.Width(s) <= width {
		return s
	}
	return strings.TrimSpace(s[:fitting(s, style, width-style.Width("…"))]) + "…"
}
