package network

import (
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/usernet/usernet/internal/errdefs"
)

// RestartMode says after which ends a container runs again.
type RestartMode string

// Docker's modes.
const (
	RestartNo            RestartMode = "no" // as "" is
	RestartOnFailure     RestartMode = "on-failure"
	RestartAlways        RestartMode = "always"
	RestartUnlessStopped RestartMode = "unless-stopped"
)

// RestartPolicy is when a container runs again after its end.
type RestartPolicy struct {
	Mode RestartMode `json:"mode,omitempty"`
	Max  int         `json:"max,omitempty"` // with on-failure, how often; 0: without end
}

// ParseRestartPolicy reads a value of --restart: a mode, and with on-failure how often: on-failure:N.
func ParseRestartPolicy(s string) (RestartPolicy, error) {
	mode, count, counted := strings.Cut(s, ":")
	p := RestartPolicy{Mode: RestartMode(mode)}
	if counted {
		n, err := strconv.Atoi(count)
		if err != nil {
			return RestartPolicy{}, errdefs.Invalid("invalid restart policy format: maximum retry count must be an integer")
		}
		p.Max = n
	}
	return p, p.Check()
}

// Check refuses policies that there are not, in Docker's words.
func (p RestartPolicy) Check() error {
	switch p.Mode {
	case RestartAlways, RestartUnlessStopped, RestartNo, "":
		if p.Max != 0 {
			return errdefs.Invalid(
				"invalid restart policy: maximum retry count can only be used with '%s'", RestartOnFailure)
		}
	case RestartOnFailure:
		if p.Max < 0 {
			return errdefs.Invalid("invalid restart policy: maximum retry count cannot be negative")
		}
	default:
		return errdefs.Invalid("invalid restart policy: unknown policy '%s'; use one of '%s', '%s', '%s', or '%s'",
			p.Mode, RestartNo, RestartAlways, RestartOnFailure, RestartUnlessStopped)
	}
	return nil
}

// IsNone says that a container with the policy does not run again.
func (p RestartPolicy) IsNone() bool { return p.Mode == "" || p.Mode == RestartNo }

// InLife says whether c runs, or is about to run again.
func (c *Container) InLife() bool { return c.Status == Running || c.Status == Restarting }

// RunsAgain says whether the policy has c run again after it ended with a status.
func (c *Container) RunsAgain(code int) bool {
	switch {
	case c.Stopped, c.AutoRemove, c.Attached:
		return false
	case c.Restart.Mode == RestartOnFailure:
		return code != 0 && (c.Restart.Max == 0 || c.RestartCount < c.Restart.Max)
	}
	return !c.Restart.IsNone()
}

// RunsAtBoot says whether the policy has c, which has ended, run again when a daemon starts.
func (c *Container) RunsAtBoot() bool {
	return c.Restart.Mode == RestartAlways || c.Restart.Mode == RestartUnlessStopped && !c.Stopped
}

// StartAgain gives an ended container addresses, those that it had where they are free, and makes it Restarting: all of
// it, or with an error nothing. A container that is Restarting already stays as it is.
func (m *Model) StartAgain(ref string) (c *Container, err error) {
	was, err := m.ContainerWithoutPorts(ref)
	if err != nil {
		return nil, err
	}
	reserved, err := m.reserveAgain(was)
	if err != nil {
		return nil, err
	}
	c, err = m.UpdateContainer(was.ID, func(c *Container) error { return m.addressAgain(c, reserved) })
	if err != nil {
		for _, r := range reserved {
			m.release(r)
		}
	}
	return c, err
}

// reserveAgain reserves addresses of c's endpoints by their ids, where their networks' drivers have an Allocator: those
// that they had, or else others.
func (m *Model) reserveAgain(c *Container) (map[string]*reservation, error) {
	list := map[string]*reservation{}
	for _, e := range c.Endpoints {
		if c.Status != Exited {
			break
		}
		asked := EndpointSpec{IPv4: e.WantIPv4, IPv6: e.WantIPv6, MAC: e.WantMAC, VLAN: e.VLAN, DHCP: e.DHCP,
			SelfAddressed: e.SelfAddressed, hostname: c.NameOutside()}
		spec := asked
		if !spec.IPv4.IsValid() {
			spec.IPv4 = e.LastIPv4
		}
		if !spec.IPv6.IsValid() {
			spec.IPv6 = e.LastIPv6
		}
		err := m.reserveFor(e.NetworkID, &spec, e.ID)
		if err != nil && (spec.IPv4 != e.WantIPv4 || spec.IPv6 != e.WantIPv6) {
			spec = asked
			err = m.reserveFor(e.NetworkID, &spec, e.ID)
		}
		if err != nil {
			for _, r := range list {
				m.release(r)
			}
			return nil, err
		}
		list[e.ID] = spec.reserved
	}
	return list, nil
}

func (m *Model) addressAgain(c *Container, reserved map[string]*reservation) error {
	switch c.Status {
	case Restarting:
		return nil
	case Created: // one with limits is started so the first time, with the addresses that it was made with
		if c.Resources.IsZero() {
			return errdefs.Conflict("container %s is %s", c.Name, c.Status)
		}
		c.Status = Restarting
		return nil
	case Exited:
	default:
		return errdefs.Conflict("container %s is %s", c.Name, c.Status)
	}
	if c.Attached {
		return errdefs.Forbidden("container %s was attached: what has started it starts it again", c.Name)
	}
	for _, e := range c.Endpoints {
		n := m.networks[e.NetworkID]
		switch {
		case n == nil:
			return errdefs.NotFound("network %s not found", e.Network)
		case !n.HasInterfaces():
			continue
		}
		if err := m.address(n, e, reserved[e.ID]); err != nil {
			return err
		}
		if e.Interface == "" { // it was connected after the container's end
			e.Interface = freeInterface(c, n)
		}
	}
	c.Status, c.Stopped = Restarting, false
	return nil
}

// StopSeconds is how long a container may take to end, of a number of seconds as in Docker's API: a negative one is
// without end, and one above 68 years is 68 years.
func StopSeconds(n int) time.Duration {
	return time.Duration(min(max(n, -1), math.MaxInt32)) * time.Second
}
