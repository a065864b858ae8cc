package main

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"os"
	"time"

	"github.com/usernet/usernet/internal/sockio"
	"github.com/usernet/usernet/overlay/uplink"
)

// A macvtap that is made anew has another file in /dev. Landlock has rules for files that there are, so a daemon that
// has confined itself cannot open it, and has the starter do so. What the starter opens by a name is the file of a
// macvtap in this network namespace and nothing else: a daemon that an attacker has taken over gains those devices that
// the administrator has given to this user, which it would have had after a restart.

// macvtapTimeout bounds how long the daemon waits for a device: there is nothing to wait for in opening it.
const macvtapTimeout = 5 * time.Second

// OpenMacvtap has the starter open a macvtap of the user's. The file is the caller's.
func (s *starter) OpenMacvtap(name string) (*os.File, error) {
	ctx, cancel := context.WithTimeout(context.Background(), macvtapTimeout)
	defer cancel()
	a, err := s.ask(ctx, starterMessage{Macvtap: name})
	switch {
	case err != nil:
		return nil, err
	case a.Error != "":
		err = errors.New(a.Error)
	case a.file == nil:
		err = errors.New("no descriptor came")
	default:
		return a.file, nil
	}
	a.close()
	return nil, err
}

// answerMacvtap is the starter's side.
func answerMacvtap(c *net.UnixConn, q starterMessage) {
	r := starterMessage{N: q.N}
	f, err := uplink.OpenMacvtap(q.Macvtap)
	var fds []int
	if err != nil {
		r.Error = err.Error()
		r.Error = r.Error[:min(len(r.Error), maxStarterMessage/8)] // JSON may make six bytes of one
	} else {
		defer f.Close()
		fds = append(fds, int(f.Fd()))
	}
	if b, err := json.Marshal(r); err == nil {
		_, _ = sockio.WriteRights(c, b, fds...) // the daemon may be gone
	}
}
