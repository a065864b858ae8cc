package main

import (
	"slices"
	"strings"
	"unicode/utf8"
)

// columnGap is the number of blanks between columns.
const columnGap = 3

// Widths to which cells are cut short, in columns of the terminal: first to the one, and where that is not enough to
// the other.
const narrow, narrowest = 12, 8

// uncut are columns whose cells are never cut: by names and ids the user goes on, and half an address leads nowhere.
var uncut = []string{"CONTAINER ID", "NETWORK ID", "NAME", "NAMES", "PORTS"}

// foldable are columns whose cells are lists that may go on in the next line, behind a comma.
var foldable = []string{"PORTS"}

// spare are columns that are left out where nothing else helps, in this order.
var spare = []string{"COMMAND", "CREATED"}

// grid is a table in which the columns are given their widths.
type grid struct {
	rows   [][]string // the first are the headings
	widths []int      // -1: the column is left out
}

// fit makes a table, whose cells are separated by tabs, no wider than width, as far as that is possible: it cuts
// cells short, folds lists, and at last leaves columns out. A width of 0 leaves it as it is.
func fit(text string, width int) string {
	g := newGrid(text)
	if width == 0 || g.total() <= width {
		return text
	}
	g.cut(width, narrow)
	g.fold(width)
	g.cut(width, narrowest)
	for _, name := range spare {
		if i := slices.Index(g.rows[0], name); i >= 0 && g.total() > width {
			g.widths[i] = -1
		}
	}
	return g.text()
}

func newGrid(text string) *grid {
	g := &grid{}
	for line := range strings.Lines(text) {
		row := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		for i, cell := range row {
			if i == len(g.widths) {
				g.widths = append(g.widths, 0)
			}
			g.widths[i] = max(g.widths[i], utf8.RuneCountInString(cell))
		}
		g.rows = append(g.rows, row)
	}
	return g
}

// total is the table's width.
func (g *grid) total() int {
	sum := -columnGap
	for _, w := range g.widths {
		if w >= 0 {
			sum += w + columnGap
		}
	}
	return sum
}

// cut narrows the widest columns that may be cut, down to least.
func (g *grid) cut(width, least int) {
	for g.total() > width {
		widest := -1
		for i, w := range g.widths {
			if !slices.Contains(uncut, g.heading(i)) && w > least && (widest < 0 || w > g.widths[widest]) {
				widest = i
			}
		}
		if widest < 0 {
			return
		}
		g.widths[widest]--
	}
}

// fold narrows the columns of lists, down to their longest item.
func (g *grid) fold(width int) {
	for i := range g.widths {
		if !slices.Contains(foldable, g.heading(i)) {
			continue
		}
		least := 0
		for _, row := range g.rows {
			for _, item := range strings.SplitAfter(g.cell(row, i), ", ") {
				least = max(least, utf8.RuneCountInString(strings.TrimSuffix(item, " ")))
			}
		}
		g.widths[i] = max(least, min(g.widths[i], g.widths[i]-(g.total()-width)))
	}
}

func (g *grid) heading(i int) string { return g.cell(g.rows[0], i) }

func (g *grid) cell(row []string, i int) string {
	if i < len(row) {
		return row[i]
	}
	return ""
}

// text is the table in its widths, cells separated by tabs again.
func (g *grid) text() string {
	var b strings.Builder
	for _, row := range g.rows {
		var cells [][]string
		height := 1
		for i, cell := range row {
			if g.widths[i] < 0 {
				continue
			}
			cells = append(cells, lines(cell, g.widths[i], slices.Contains(foldable, g.heading(i))))
			height = max(height, len(cells[len(cells)-1]))
		}
		for y := range height {
			line := make([]string, len(cells))
			for x, c := range cells {
				if y < len(c) {
					line[x] = c[y]
				}
			}
			b.WriteString(strings.Join(line, "\t") + "\n")
		}
	}
	return b.String()
}

// lines is a cell in lines of width: folded behind commas, or one line that is cut short.
func lines(cell string, width int, foldable bool) []string {
	if utf8.RuneCountInString(cell) <= width {
		return []string{cell}
	}
	if !foldable {
		return []string{string([]rune(cell)[:width-1]) + "…"}
	}
	list := []string{""}
	for _, item := range strings.SplitAfter(cell, ", ") {
		last := &list[len(list)-1]
		if *last != "" && utf8.RuneCountInString(strings.TrimSuffix(*last+item, " ")) > width {
			*last = strings.TrimSuffix(*last, " ")
			list = append(list, item)
			continue
		}
		*last += item
	}
	return list
}
