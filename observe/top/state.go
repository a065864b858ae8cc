package top

import (
	"slices"
	"strings"

	"github.com/usernet/usernet/api"
	"github.com/usernet/usernet/observe/rates"
)

// View is one of the tables.
type View int

// The tables, in the order of their keys 1 to 5.
const (
	Containers View = iota
	Flows
	Questions
	Drops
	Ports
	views
)

var viewNames = [views]string{"Containers", "Flows", "DNS", "Drops", "Ports"}

func (v View) String() string { return viewNames[v] }

// State is what is shown. Make it with New. It is for one goroutine.
type State struct {
	view      View
	container string // only its rows; "": all
	filter    string // only rows with this text
	typing    bool   // the filter is being typed
	sortBy    [views]int
	reverse   [views]bool
	selected  int // index of a row
	first     int // the row that is shown first
	paused    bool
	help      bool
	closing   *api.Flow // to be closed once it is confirmed
	message   string    // about what was done last

	now, before *api.Sample // nil: there is none yet
	rates       rates.Rates
	names       rates.Names
}

// New returns a state without samples, which shows containers.
func New() *State {
	s := &State{}
	for v := range views {
		s.sortBy[v] = tables[v].sortBy
	}
	return s
}

// Only shows what belongs to a container, as if it had been selected and opened.
func (s *State) Only(container string) {
	s.container = container
	s.show(Flows)
}

// Update shows another sample, unless the view is paused.
func (s *State) Update(n *api.Sample) {
	s.message = ""
	if s.paused {
		return
	}
	s.before, s.now = s.now, n
	s.rates = rates.Of(s.before, s.now)
	s.names.Learn(n)
}

// Say shows a message until the next sample.
func (s *State) Say(text string) { s.message = text }

// Action is what a key asks the caller for.
type Action struct {
	Quit  bool
	Close *api.Flow // a flow to be closed
}

// Keys without a character.
const (
	KeyUp = -iota - 1
	KeyDown
	KeyPageUp
	KeyPageDown
	KeyHome
	KeyEnd
	KeyEnter
	KeyEscape
	KeyBackspace
	KeyTab
	KeyBackTab
)

// page is how far PageUp and PageDown go.
const page = 10

// maxFilter bounds the text of a filter.
const maxFilter = 64

// Key does what a key stands for: a character, or one of the constants.
func (s *State) Key(k rune) Action {
	switch {
	case s.closing != nil:
		return s.confirm(k)
	case s.typing:
		s.typeKey(k)
		return Action{}
	case s.help:
		s.help = false
		return Action{}
	}
	switch k {
	case 'q', 3: // Ctrl-C
		return Action{Quit: true}
	case '?', 'h':
		s.help = true
	case '1', '2', '3', '4', '5':
		s.show(View(k - '1'))
	case KeyTab:
		s.show((s.view + 1) % views)
	case KeyBackTab:
		s.show((s.view + views - 1) % views)
	case 's', '>':
		s.sort(1)
	case '<':
		s.sort(-1)
	case 'r':
		s.reverse[s.view] = !s.reverse[s.view]
	case 'p', ' ':
		s.paused = !s.paused
	case '/':
		s.typing, s.filter = true, ""
	case KeyEnter:
		s.drillDown()
	case KeyEscape, KeyBackspace:
		s.leave()
	case 'k', 'x':
		s.askToClose()
	default:
		s.move(k)
	}
	return Action{}
}

func (s *State) show(v View) { s.view, s.selected, s.first = v, 0, 0 }

func (s *State) sort(by int) {
	n := len(tables[s.view].columns)
	s.sortBy[s.view] = (s.sortBy[s.view] + by + n) % n
	s.reverse[s.view] = false
}

// move selects another row; keys that are none of these do nothing.
func (s *State) move(k rune) {
	switch k {
	case KeyUp:
		s.selected--
	case KeyDown, 'j':
		s.selected++
	case KeyPageUp:
		s.selected -= page
	case KeyPageDown:
		s.selected += page
	case KeyHome, 'g':
		s.selected = 0
	case KeyEnd, 'G':
		s.selected = 1 << 30
	}
	s.selected = max(0, min(s.selected, len(s.rows())-1))
}

// typeKey is a key while the filter is typed.
func (s *State) typeKey(k rune) {
	switch k {
	case KeyEnter:
		s.typing = false
	case KeyEscape, 3:
		s.typing, s.filter = false, ""
	case KeyBackspace:
		if r := []rune(s.filter); len(r) > 0 {
			s.filter = string(r[:len(r)-1])
		}
	default:
		if k >= ' ' && len(s.filter) < maxFilter {
			s.filter += string(k)
		}
	}
	s.selected, s.first = 0, 0
}

// drillDown shows the flows of the selected row's container.
func (s *State) drillDown() {
	if r := s.selectedRow(); r != nil && r.container != "" && s.container == "" {
		s.container = r.container
		if s.view == Containers {
			s.show(Flows)
		}
		s.selected, s.first = 0, 0
	}
}

// leave goes back to all containers, or takes the filter away.
func (s *State) leave() {
	switch {
	case s.filter != "":
		s.filter = ""
	case s.container != "":
		s.container = ""
		s.show(Containers)
	}
}

// askToClose asks whether the selected flow is to be closed.
func (s *State) askToClose() {
	r := s.selectedRow()
	switch {
	case s.view != Flows:
		s.message = "flows can be closed: press 2, and select one"
	case r != nil:
		s.closing = r.flow
	}
}

func (s *State) confirm(k rune) (a Action) {
	if k == 'y' || k == 'Y' {
		a.Close = s.closing
	}
	s.closing = nil
	return a
}

func (s *State) selectedRow() *row {
	rows := s.rows()
	if s.selected < 0 || s.selected >= len(rows) {
		return nil
	}
	return &rows[s.selected]
}

// rows are those of the view that are wanted, sorted.
func (s *State) rows() []row {
	if s.now == nil {
		return nil
	}
	rows := slices.DeleteFunc(tables[s.view].rows(s), func(r row) bool {
		if s.container != "" && r.container != s.container {
			return true
		}
		return s.filter != "" && !slices.ContainsFunc(r.cells, func(c cell) bool {
			return strings.Contains(strings.ToLower(c.text), strings.ToLower(s.filter))
		})
	})
	by := s.sortBy[s.view]
	numeric := tables[s.view].columns[by].number
	slices.SortStableFunc(rows, func(a, b row) int {
		n := a.cells[by].compare(b.cells[by])
		if numeric {
			n = -n // the most first
		}
		if s.reverse[s.view] {
			n = -n
		}
		return n
	})
	return rows
}
