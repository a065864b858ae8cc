package top

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/gdamore/tcell/v2"

	"github.com/usernet/usernet/api"
)

// Source is what Run asks; *api.Client is one.
type Source interface {
	Sample(ctx context.Context) (*api.Sample, error)
	CloseFlow(ctx context.Context, f api.Flow) error
}

// keys are those without a character.
var keys = map[tcell.Key]rune{
	tcell.KeyUp: KeyUp, tcell.KeyDown: KeyDown, tcell.KeyPgUp: KeyPageUp, tcell.KeyPgDn: KeyPageDown,
	tcell.KeyHome: KeyHome, tcell.KeyEnd: KeyEnd, tcell.KeyEnter: KeyEnter, tcell.KeyEscape: KeyEscape,
	tcell.KeyBackspace: KeyBackspace, tcell.KeyBackspace2: KeyBackspace, tcell.KeyTab: KeyTab,
	tcell.KeyBacktab: KeyBackTab, tcell.KeyCtrlC: 3,
}

// Run shows samples in s on the terminal every so often, until the user or ctx ends it. An error of the first sample
// ends it; later ones are shown.
func Run(ctx context.Context, src Source, s *State, every time.Duration) error {
	first, err := src.Sample(ctx)
	if err != nil {
		return err
	}
	s.Update(first)
	screen, err := tcell.NewScreen()
	if err == nil {
		err = screen.Init()
	}
	if err != nil {
		return fmt.Errorf("the terminal %q (TERM) cannot show it: %w; `usernet top | cat` prints it once",
			os.Getenv("TERM"), err)
	}
	defer screen.Fini()
	return (&loop{src, s, screen, every}).run(ctx)
}

// loop is one run.
type loop struct {
	src    Source
	s      *State
	screen tcell.Screen
	every  time.Duration
}

// result is what came of a request to the daemon.
type result struct {
	sample *api.Sample
	said   string
	closed bool // it was to close a flow
}

// patience is how long the daemon may take for a sample before that is said.
const patience = 3 * time.Second

func (l *loop) run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	events, done := make(chan tcell.Event, 16), make(chan struct{})
	go l.screen.ChannelEvents(events, done)
	results := make(chan result)
	defer func() {
		cancel()
		close(done)
	}()
	tick := time.NewTicker(l.every)
	defer tick.Stop()
	ask := func(f func() result) {
		go func() {
			select {
			case results <- f():
			case <-ctx.Done():
			}
		}()
	}
	var asked time.Time // when the sample was asked for that is under way; zero: none is
	l.draw()
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-tick.C:
			if asked.IsZero() {
				asked = now
				ask(func() result { return l.sample(ctx) })
			} else if late := now.Sub(asked); late >= patience {
				l.s.Say(fmt.Sprintf("the daemon has not answered for %v: usernet doctor", late.Round(time.Second)))
			}
		case r := <-results:
			if !r.closed {
				asked = time.Time{}
			}
			if r.sample != nil {
				l.s.Update(r.sample)
			} else {
				l.s.Say(r.said)
			}
		case e, ok := <-events:
			if !ok {
				return nil
			}
			a := l.event(e)
			if a.Quit {
				return nil
			}
			if f := a.Close; f != nil {
				ask(func() result { return l.close(ctx, *f) })
			}
		}
		l.draw()
	}
}

func (l *loop) sample(ctx context.Context) result {
	n, err := l.src.Sample(ctx)
	if err != nil {
		return result{said: err.Error()}
	}
	return result{sample: n}
}

func (l *loop) close(ctx context.Context, f api.Flow) result {
	said := "closed"
	if err := l.src.CloseFlow(ctx, f); err != nil {
		said = err.Error()
	}
	return result{said: said, closed: true}
}

func (l *loop) event(e tcell.Event) Action {
	switch e := e.(type) {
	case *tcell.EventResize:
		l.screen.Sync()
	case *tcell.EventKey:
		if e.Key() == tcell.KeyRune {
			return l.s.Key(e.Rune())
		}
		if k, ok := keys[e.Key()]; ok {
			return l.s.Key(k)
		}
	}
	return Action{}
}

// styleOf is a style on the terminal. Without colours (https://no-color.org) they differ by weight and reversal alone.
func styleOf(s Style) tcell.Style {
	colours := os.Getenv("NO_COLOR") == ""
	plain := tcell.StyleDefault
	switch s {
	case Heading:
		return plain.Bold(true)
	case Selected:
		return plain.Reverse(true)
	case Faint:
		return plain.Dim(true)
	case Alarm:
		if colours {
			return plain.Bold(true).Foreground(tcell.ColorMaroon)
		}
		return plain.Bold(true)
	}
	return plain
}

func (l *loop) draw() {
	width, height := l.screen.Size()
	l.screen.Clear()
	for y, line := range l.s.Render(width, height) {
		x, style := 0, styleOf(line.Style)
		for _, r := range line.Text {
			l.screen.SetContent(x, y, r, nil, style)
			x++
		}
	}
	l.screen.Show()
}
