package top

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	"github.com/usernet/usernet/api"
	"github.com/usernet/usernet/observe/rates"
)

// column is one of a table.
type column struct {
	name   string
	number bool
	drop   int // columns with a higher number are left out first where the terminal is narrow; 0: never
}

// cell is a text and what it is sorted by, where that is a number.
type cell struct {
	text   string
	number float64
}

func (c cell) compare(o cell) int {
	return cmp.Or(cmp.Compare(c.number, o.number), cmp.Compare(c.text, o.text))
}

func text(s string) cell { return cell{text: printable(s)} }

// count is a number; zero is shown as a dash's lighter sister, a dot, so that what happens is seen.
func count(n float64) cell {
	if n == 0 {
		return cell{text: "."}
	}
	return cell{amount(n), n}
}

func age(t, now time.Time) cell {
	d := now.Sub(t)
	switch {
	case d < time.Minute:
		return cell{fmt.Sprintf("%.0fs", max(0, d.Seconds())), d.Seconds()}
	case d < time.Hour:
		return cell{fmt.Sprintf("%.0fm", d.Minutes()), d.Seconds()}
	}
	return cell{fmt.Sprintf("%.0fh", d.Hours()), d.Seconds()}
}

// printable keeps what others have sent from being obeyed by the terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 {
			return '?'
		}
		return r
	}, s)
}

// row is a line of a table.
type row struct {
	cells     []cell
	container string    // whose it is; "": nobody's
	flow      *api.Flow // of the view Flows
}

// table is a view: its columns and how its rows are made.
type table struct {
	columns []column
	sortBy  int // the column, at first
	rows    func(*State) []row
}

var tables = [views]table{
	Containers: {[]column{{"CONTAINER", false, 0}, {"NETWORKS", false, 2}, {"IN/s", true, 0}, {"OUT/s", true, 0},
		{"TCP", true, 0}, {"UDP", true, 3}, {"DROPS", true, 1}}, 2, containerRows},
	Flows: {[]column{{"CONTAINER", false, 0}, {"PROTO", false, 0}, {"DIR", false, 2}, {"PEER", false, 0},
		{"STATE", false, 4}, {"PATH", false, 3}, {"IN/s", true, 0}, {"OUT/s", true, 0}, {"IN", true, 5},
		{"OUT", true, 6}, {"AGE", true, 1}}, 6, flowRows},
	Questions: {[]column{{"AGE", true, 0}, {"CONTAINER", false, 0}, {"NAME", false, 0}, {"TYPE", false, 1},
		{"RESULT", false, 0}, {"FROM", false, 3}, {"ms", true, 2}}, 0, questionRows},
	Drops: {[]column{{"CONTAINER", false, 0}, {"NETWORK", false, 1}, {"REASON", false, 0}, {"FRAMES/s", true, 0},
		{"FRAMES", true, 0}}, 3, dropRows},
	Ports: {[]column{{"CONTAINER", false, 0}, {"HOST", false, 0}, {"PORT", true, 0}, {"PROTO", false, 0},
		{"FLOWS", true, 0}}, 0, portRows},
}

func containerRows(s *State) []row {
	type sums struct {
		networks        []string
		tcp, udp, drops float64
	}
	by := map[string]*sums{}
	var order []string
	for _, i := range s.now.Interfaces {
		n := by[i.Container]
		if n == nil {
			n = &sums{}
			by[i.Container] = n
			order = append(order, i.Container)
		}
		n.networks = append(n.networks, i.Network)
		for _, d := range i.Drops {
			n.drops += float64(d)
		}
	}
	for _, f := range s.now.Flows {
		if n := by[f.Container]; n != nil && f.Proto == "tcp" {
			n.tcp++
		} else if n != nil {
			n.udp++
		}
	}
	var rows []row
	for _, name := range order {
		n, t := by[name], s.rates.Containers[name]
		rows = append(rows, row{container: name, cells: []cell{text(name), text(strings.Join(n.networks, ",")),
			count(t.In), count(t.Out), count(n.tcp), count(n.udp), count(n.drops)}})
	}
	return rows
}

func flowRows(s *State) []row {
	var rows []row
	for i := range s.now.Flows {
		f := &s.now.Flows[i]
		t := s.rates.Flows[rates.KeyOf(f)]
		rows = append(rows, row{container: f.Container, flow: f, cells: []cell{text(f.Container), text(f.Proto),
			text(f.Direction), text(s.names.Of(f.Outside)), text(f.State), text(f.Path), count(t.In), count(t.Out),
			count(float64(f.BytesIn)), count(float64(f.BytesOut)), age(f.Created, s.now.Time)}})
	}
	return rows
}

func questionRows(s *State) []row {
	var rows []row
	for _, q := range s.now.Questions {
		a := age(q.Time, s.now.Time)
		a.number = -a.number // the latest first
		rows = append(rows, row{container: q.Container, cells: []cell{a, text(cmp.Or(q.Container, "(gone)")),
			text(strings.TrimSuffix(q.Name, ".")), text(q.Type), text(q.Rcode), text(q.Source),
			{fmt.Sprintf("%.1f", q.Duration.Seconds()*1000), q.Duration.Seconds()}}})
	}
	return rows
}

func dropRows(s *State) []row {
	var rows []row
	for _, i := range s.now.Interfaces {
		for reason, n := range i.Drops {
			rows = append(rows, row{container: i.Container, cells: []cell{text(i.Container), text(i.Network),
				text(reason), count(s.rates.Drops[[3]string{i.Container, i.Network, reason}]), count(float64(n))}})
		}
	}
	return rows
}

func portRows(s *State) []row {
	var rows []row
	for _, p := range s.now.Ports {
		flows := 0
		for _, f := range s.now.Flows {
			if f.Direction == "in" && f.Container == p.Container && f.HostSide.Port() == p.Host.Port() &&
				f.Proto == string(p.Proto) {
				flows++
			}
		}
		rows = append(rows, row{container: p.Container, cells: []cell{text(p.Container), text(p.Host.String()),
			{fmt.Sprint(p.Port), float64(p.Port)}, text(string(p.Proto)), count(float64(flows))}})
	}
	return rows
}
