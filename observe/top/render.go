package top

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/usernet/usernet/observe/rates"
)

// Style is how a line looks. What it says is never in the style alone.
type Style int

// The styles.
const (
	Plain Style = iota
	Heading
	Selected
	Faint
	Alarm
)

// Line is a line of the screen.
type Line struct {
	Text  string
	Style Style
}

// MinWidth is the narrowest terminal, in columns.
const MinWidth = 60

// fixed are the lines around the rows: the summary, the views, the heading, and the footer.
const fixed = 4

// Render makes the lines of a terminal of a size.
func (s *State) Render(width, height int) []Line {
	lines := []Line{{s.summary(width), Plain}, {s.tabs(width), Plain}}
	switch {
	case width < MinWidth || height < fixed+1:
		return []Line{{clip(fmt.Sprintf("%d columns and %d lines are needed", MinWidth, fixed+1), width), Alarm}}
	case s.help:
		lines = append(lines, helpLines(width)...)
	case s.now == nil:
		lines = append(lines, Line{"waiting for the daemon", Faint})
	default:
		lines = append(lines, s.body(width, height-fixed)...)
	}
	for len(lines) < height-1 {
		lines = append(lines, Line{})
	}
	return append(lines[:height-1], s.footer(width))
}

// summary is the first line.
func (s *State) summary(width int) string {
	if s.now == nil {
		return clip("usernet", width)
	}
	var all rates.Traffic
	for _, t := range s.rates.Containers {
		all.In, all.Out = all.In+t.In, all.Out+t.Out
	}
	containers := map[string]bool{}
	for _, i := range s.now.Interfaces {
		containers[i.Container] = true
	}
	text := fmt.Sprintf("%s  %s  %s  in %sB/s  out %sB/s", s.now.Time.Format("15:04:05"),
		number(len(containers), "container"), number(len(s.now.Flows), "flow"), amount(all.In), amount(all.Out))
	switch {
	case s.paused:
		text = "PAUSED " + text
	case width >= len("usernet ")+len(text):
		text = "usernet " + text
	}
	return clip(text, width)
}

// tabs is the line with the views' names.
func (s *State) tabs(width int) string {
	var b strings.Builder
	for v := range views {
		if v == s.view {
			fmt.Fprintf(&b, "[%d %s] ", v+1, v)
		} else {
			fmt.Fprintf(&b, " %d %s  ", v+1, v)
		}
	}
	if s.container != "" {
		fmt.Fprintf(&b, " of %s", s.container)
	}
	return clip(b.String(), width)
}

func (s *State) footer(width int) Line {
	switch {
	case s.closing != nil:
		return Line{clip(fmt.Sprintf("close the connection of %s to %s? y/n", s.closing.Container,
			s.names.Of(s.closing.Outside)), width), Alarm}
	case s.typing:
		return Line{clip("filter: "+printable(s.filter)+"_", width), Heading}
	case s.message != "":
		return Line{clip(printable(s.message), width), Alarm}
	case s.filter != "":
		return Line{clip("filter: "+printable(s.filter)+"   Esc: without", width), Heading}
	}
	return Line{clip("?: help  q: quit  1-5: view  s: sort  r: reverse  /: filter  p: pause", width), Faint}
}

// body is the heading and the rows.
func (s *State) body(width, height int) []Line {
	rows := s.rows()
	s.selected = max(0, min(s.selected, len(rows)-1))
	s.first = max(0, min(s.first, s.selected, len(rows)-height))
	if s.selected >= s.first+height {
		s.first = s.selected - height + 1
	}
	shown := rows[s.first:min(len(rows), s.first+height)]
	l := s.layout(shown, width)
	lines := []Line{{clip(s.heading(l), width), Heading}}
	for i, r := range shown {
		style := Plain
		if s.first+i == s.selected {
			style = Selected
		}
		lines = append(lines, Line{pad(clip(l.line(r), width), width), style})
	}
	if len(rows) == 0 {
		lines = append(lines, Line{"nothing", Faint})
	}
	return lines
}

// layout is how wide the columns are; 0: a column is left out.
type layout struct {
	columns []column
	widths  []int
}

// layout measures the rows that are shown. Where they are too wide, columns are left out, but for the one that rows are
// sorted by, and then the widest texts are cut.
func (s *State) layout(rows []row, width int) layout {
	l := layout{columns: tables[s.view].columns}
	for i, c := range l.columns {
		w := utf8.RuneCountInString(c.name) + 1 // and the mark of sorting
		for _, r := range rows {
			w = max(w, utf8.RuneCountInString(r.cells[i].text))
		}
		l.widths = append(l.widths, w)
	}
	for l.total() > width {
		drop := -1
		for i, c := range l.columns {
			if i == s.sortBy[s.view] {
				continue
			}
			if l.widths[i] > 0 && c.drop > 0 && (drop < 0 || c.drop > l.columns[drop].drop) {
				drop = i
			}
		}
		if drop < 0 {
			break
		}
		l.widths[drop] = 0
	}
	for over := l.total() - width; over > 0; over = l.total() - width {
		widest := 0
		for i, w := range l.widths {
			if w > l.widths[widest] {
				widest = i
			}
		}
		l.widths[widest] = max(1, l.widths[widest]-over)
		if l.widths[widest] == 1 {
			break
		}
	}
	return l
}

const gap = 2 // blanks between columns

func (l layout) total() int {
	n := -gap
	for _, w := range l.widths {
		if w > 0 {
			n += w + gap
		}
	}
	return n
}

func (s *State) heading(l layout) string {
	names := row{}
	for i, c := range l.columns {
		name := c.name
		switch {
		case i != s.sortBy[s.view]:
		case s.reverse[s.view]:
			name += "^"
		default:
			name += "*"
		}
		names.cells = append(names.cells, cell{text: name})
	}
	return l.line(names)
}

func (l layout) line(r row) string {
	var parts []string
	for i, w := range l.widths {
		if w == 0 {
			continue
		}
		text := clip(r.cells[i].text, w)
		if l.columns[i].number {
			text = strings.Repeat(" ", w-utf8.RuneCountInString(text)) + text
		} else {
			text = pad(text, w)
		}
		parts = append(parts, text)
	}
	return strings.TrimRight(strings.Join(parts, strings.Repeat(" ", gap)), " ")
}

// clip is a text cut to a width, with a mark where something is missing.
func clip(s string, width int) string {
	if utf8.RuneCountInString(s) <= width {
		return s
	}
	if width <= 1 {
		return "~"[:max(0, width)]
	}
	return string([]rune(s)[:width-1]) + "~"
}

func pad(s string, width int) string {
	return s + strings.Repeat(" ", max(0, width-utf8.RuneCountInString(s)))
}

func helpLines(width int) []Line {
	var lines []Line
	for _, text := range []string{
		"",
		"1 2 3 4 5, Tab   containers, flows, DNS questions, drops, ports",
		"Up Down PgUp PgDn Home End   select a row",
		"Enter            only that container; its flows",
		"Esc              all containers; without the filter",
		"s < >            sort by another column",
		"r                the other way round",
		"/ text Enter     only rows with a text",
		"p, Space         pause",
		"k, then y        close the selected flow",
		"q, Ctrl-C        end",
		"",
		"IN and OUT are bytes as the container sees them.",
	} {
		lines = append(lines, Line{clip(text, width), Plain})
	}
	return lines
}

// Sample is the state as plain text, for what is no terminal: all views, one after another.
func (s *State) Sample() string {
	const wide = 1 << 10
	var b strings.Builder
	fmt.Fprintln(&b, s.summary(wide))
	for v := range views {
		s.show(v)
		rows := s.rows()
		fmt.Fprintf(&b, "\n%s\n", v)
		l := s.layout(rows, wide)
		fmt.Fprintln(&b, s.heading(l))
		for _, r := range rows {
			fmt.Fprintln(&b, l.line(r))
		}
	}
	return b.String()
}
