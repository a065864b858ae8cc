package sandbox

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"slices"

	"github.com/usernet/usernet/internal/sockio"
	"github.com/usernet/usernet/sandbox/entry"
)

// Role is a role of another package's that the program of sandboxes plays besides this package's own: an agent that
// Helper.Enter sends into the user and network namespaces of a sandbox.
type Role struct {
	// Name is a word that no other role has.
	Name string
	// Run does the work; conn is connected to Agent.Conn. The process ends when it returns.
	Run func(conn *net.UnixConn) error
}

// argument is the name as the program's first argument.
func (r Role) argument() string { return "__" + r.Name }

// run is the role as Main plays it.
func (r Role) run() error {
	c, err := unixConn(controlFD)
	if err != nil {
		return fmt.Errorf("%s without a control socket: %w", r.Name, err)
	}
	defer c.Close()
	if err := entry.Result(); err != nil {
		return err
	}
	return r.Run(c)
}

// Agent is a process in a sandbox that plays a Role.
type Agent struct {
	Conn    *net.UnixConn // to the role's; messages are kept apart
	process *agentProcess
}

// Enter sends an agent into t. The role is one of those that the program's Main was called with.
func (h *Helper) Enter(t Target, role string) (*Agent, error) {
	ours, theirs, err := socketPair()
	if err != nil {
		return nil, err
	}
	defer theirs.Close()
	process, err := h.enter(t, Role{Name: role}.argument(), theirs)
	if err != nil {
		_ = ours.Close()
		return nil, err
	}
	return &Agent{ours, process}, nil
}

// Kill ends the agent at once.
func (a *Agent) Kill() { a.process.kill() }

// Close closes Conn, which is the role's end, and waits for that.
func (a *Agent) Close() {
	_ = a.Conn.Close()
	_, _ = a.process.wait() // what it has to say it has said
}

// SendMessage sends v, as JSON, and descriptors, which stay the caller's.
func SendMessage(c *net.UnixConn, v any, fds []int) error { return send(c, v, fds) }

// ReceiveMessage reads one message into v, and returns the descriptors that came with it, which are the caller's. At
// the end of the connection it returns io.EOF.
func ReceiveMessage(c *net.UnixConn, v any) (fds []int, err error) {
	buf := make([]byte, maxMessage)
	m, err := sockio.ReadRights(c, buf, sockio.MaxRights)
	if err != nil {
		return nil, err
	}
	if m.N == 0 {
		return nil, io.EOF
	}
	if err := json.Unmarshal(buf[:m.N], v); err != nil {
		sockio.Close(m.FDs)
		return nil, err
	}
	return m.FDs, nil
}

// agentRoles are the roles in which a sandbox may be entered for the daemon.
var agentRoles = []string{roleAgent}

// allow adds roles to agentRoles, and to those that Main plays.
func allow(roles []Role, played map[string]func() error) {
	for _, r := range roles {
		if !slices.Contains(agentRoles, r.argument()) {
			agentRoles = append(agentRoles, r.argument())
		}
		played[r.argument()] = r.run
	}
}
