package relay

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// State is a session between two sockets of the kernel in a form that another process can resume: as JSON, with the
// descriptors beside it (FDs). Who has it owns the descriptors.
type State struct {
	BytesIn    uint64 // moved towards the container
	BytesOut   uint64 // moved from it
	Directions [2]Direction
}

// Direction is one direction of a connection: what the container sends, or what the host's end does.
type Direction struct {
	FD      int   `json:"-"` // the socket that it comes from
	Ended   bool  // nothing more comes from that
	Pending int   `json:"-"` // a pipe with what was read and not passed on yet; -1: there is nothing
	Bytes   int64 // in Pending
}

// noDirections stand for a session that cannot be detached.
var noDirections = [2]Direction{{FD: -1, Pending: -1}, {FD: -1, Pending: -1}}

// FDs are all descriptors, in an order that SetFDs knows.
func (st *State) FDs() []int {
	fds := []int{st.Directions[0].FD, st.Directions[1].FD}
	for _, d := range st.Directions {
		if d.Pending >= 0 {
			fds = append(fds, d.Pending)
		}
	}
	return fds
}

// SetFDs gives a state that was read from JSON the descriptors that FDs had. The error says that they are not of it;
// then they stay the caller's.
func (st *State) SetFDs(fds []int) error {
	want := 2
	for i := range st.Directions {
		st.Directions[i].Pending = -1
		if st.Directions[i].Bytes > 0 {
			want++
		}
	}
	if len(fds) != want {
		return fmt.Errorf("a connection of %d descriptors came with %d", want, len(fds))
	}
	st.Directions[0].FD, st.Directions[1].FD, fds = fds[0], fds[1], fds[2:]
	for i := range st.Directions {
		if st.Directions[i].Bytes > 0 {
			st.Directions[i].Pending, fds = fds[0], fds[1:]
		}
	}
	return nil
}

// Close closes the descriptors, which resets the connection.
func (st *State) Close() {
	closeDirections(st.Directions)
	st.Directions = noDirections
}

func closeDirections(ds [2]Direction) {
	for _, d := range ds {
		for _, fd := range []int{d.FD, d.Pending} {
			if fd >= 0 {
				_ = unix.Close(fd)
			}
		}
	}
}

// halves are the directions as splicing has them. The pending pipes are read and closed. With an error all is closed.
func (st *State) halves() (halves [2]half, err error) {
	var errs []error
	for i := range st.Directions {
		d := &st.Directions[i]
		p, err := readPending(d.Pending, d.Bytes)
		d.Pending = -1
		errs = append(errs, err, unix.SetNonblock(d.FD, true))
		halves[i] = half{ended: d.Ended, pending: p}
	}
	if err := errors.Join(errs...); err != nil {
		st.Close()
		return halves, err
	}
	return halves, nil
}
