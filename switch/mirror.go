package vswitch

import (
	"slices"
	"sync"
)

// MirrorFunc is shown frames. in is true for one that came from the port's device, as it came, also if it is dropped
// then; false for one on its way to the device. It is called by many goroutines at once, on the path of the frame: it
// must not block, change f, or keep it beyond the call.
type MirrorFunc func(p *Port, in bool, f *Frame)

// mirrors are those that are shown frames. It never changes once it is stored.
type mirrors []*MirrorFunc

// Mirror shows f all frames of all ports until stop is called, which may be done again. While nobody is shown anything
// this costs a frame one atomic load each way.
func (s *Switch) Mirror(f MirrorFunc) (stop func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list mirrors
	if old := s.mirror.Load(); old != nil {
		list = slices.Clone(*old)
	}
	list = append(list, &f)
	s.mirror.Store(&list)
	return sync.OnceFunc(func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		rest := slices.DeleteFunc(slices.Clone(*s.mirror.Load()), func(x *MirrorFunc) bool { return x == &f })
		if len(rest) == 0 {
			s.mirror.Store(nil)
			return
		}
		s.mirror.Store(&rest)
	})
}

// show shows a frame.
func (m *mirrors) show(p *Port, in bool, f *Frame) {
	for _, each := range *m {
		(*each)(p, in, f)
	}
}
