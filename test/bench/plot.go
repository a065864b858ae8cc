package main

import (
	"fmt"
	"strings"
)

// Measures of the plot, in pixels.
const (
	plotWidth, plotLeft, plotRight = 900, 300, 80
	barHeight, barGap, cellGap     = 14, 2, 12
)

// colours of the tools, which differ in lightness as well.
var colours = []struct{ tool, colour string }{
	{"usernet", "#0b6e4f"},
	{"pasta", "#e39a2d"},
	{"slirp4netns", "#9aa5b1"},
	{kernel, "#d9dee4"},
}

// plot draws TCP throughput of one stream as bars, as SVG.
func (r *report) plot() string {
	var lines []cell
	most := 0.0
	for _, c := range r.group(groupTCP) {
		if strings.Contains(c.name, "streams") {
			continue
		}
		lines = append(lines, c)
		for _, t := range colours {
			most = max(most, r.value(t.tool, c))
		}
	}
	var b strings.Builder
	y := 50
	for i, t := range colours {
		fmt.Fprintf(
			&b,
			`<rect x="%d" y="18" width="12" height="12" fill="%s"/><text x="%d" y="28">%s</text>`+"\n",
			plotLeft+i*130,
			t.colour,
			plotLeft+i*130+18,
			t.tool,
		)
	}
	for _, c := range lines {
		top := y
		for _, t := range colours {
			v := r.value(t.tool, c)
			if v == 0 {
				continue
			}
			width := v / max(most, 1) * (plotWidth - plotLeft - plotRight)
			fmt.Fprintf(
				&b,
				`<rect x="%d" y="%d" width="%.1f" height="%d" fill="%s"/><text x="%.1f" y="%d">%.1f</text>`+"\n",
				plotLeft,
				y,
				width,
				barHeight,
				t.colour,
				plotLeft+width+4,
				y+barHeight-3,
				v,
			)
			y += barHeight + barGap
		}
		fmt.Fprintf(
			&b,
			`<text x="%d" y="%d" text-anchor="end">%s, MTU %d</text>`+"\n",
			plotLeft-10,
			(top+y)/2+3,
			escape(c.name),
			c.mtu,
		)
		y += cellGap
	}
	fmt.Fprintf(
		&b,
		`<text x="10" y="%d" fill="#555">One TCP stream, Gbit/s. %s, %s.</text>`+"\n",
		y+10,
		escape(r.Date),
		escape(r.Machine),
	)
	return fmt.Sprintf(
		`<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" font-family="sans-serif" font-size="12">`+"\n"+
			`<rect width="100%%" height="100%%" fill="white"/>`+"\n%s</svg>\n",
		plotWidth,
		y+25,
		b.String(),
	)
}

func escape(s string) string {
	return strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;").Replace(s)
}
