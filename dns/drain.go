package dns

import "time"

// Drain returns when nothing is being asked outside any more, or after patience. New queries are not kept off: pause the
// sockets that they come from before, with a read deadline that has passed.
func (s *Server) Drain(patience time.Duration) {
	s.mu.Lock()
	idle := make(chan struct{})
	if s.total == 0 {
		close(idle)
	} else {
		s.drained = append(s.drained, idle)
	}
	s.mu.Unlock()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-idle:
	case <-timer.C:
	}
}

// tellDrained tells those who wait in Drain. The caller holds mu.
func (s *Server) tellDrained() {
	for _, idle := range s.drained {
		close(idle)
	}
	s.drained = nil
}
