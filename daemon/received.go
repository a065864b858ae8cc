package daemon

import (
	"golang.org/x/sys/unix"

	"github.com/usernet/usernet/api"
)

// received are the descriptors that New got with its Config and nobody has taken yet. New owns them whatever becomes of it,
// so it closes at its end, on each way out, what is left here. Taking a descriptor removes it: it then belongs to the taker.
type received struct {
	inherited []int
	adopted   []int
	sandboxes handed
	flows     []api.FlowFiles
}

// takeReceived moves all descriptors of cfg out of it.
func takeReceived(cfg *Config) *received {
	r := &received{
		inherited: cfg.Inherited,
		adopted:   cfg.Adopted,
		sandboxes: newHanded(cfg.Sandboxes),
		flows:     cfg.Flows,
	}
	cfg.Inherited, cfg.Adopted, cfg.Sandboxes, cfg.Flows = nil, nil, nil, nil
	return r
}

func (r *received) takeInherited() []int {
	list := r.inherited
	r.inherited = nil
	return list
}

func (r *received) takeAdopted() []int {
	list := r.adopted
	r.adopted = nil
	return list
}

func (r *received) takeFlows() []api.FlowFiles {
	list := r.flows
	r.flows = nil
	return list
}

// close closes what was not taken.
func (r *received) close() {
	left := append(r.takeInherited(), r.takeAdopted()...)
	for _, f := range r.takeFlows() {
		left = append(left, f.FDs...)
	}
	for _, fd := range left {
		_ = unix.Close(fd) // a copy, or a socket that no daemon will use
	}
	r.sandboxes.close()
}

// addReceivedPorts gives the sockets of published ports to the table of host ports, which owns them from then on.
func (d *Daemon) addReceivedPorts(r *received) {
	for _, fd := range r.takeInherited() {
		at, proto, err := d.shared.Inherit(fd)
		if err != nil {
			d.log.Warn("a socket that the daemon was started with is of no use", "error", err)
			continue
		}
		d.log.Info("published ports can use an inherited socket", "address", at, "proto", proto)
	}
	d.shared.KeepIn(d.cfg.Keeper)
	for _, fd := range r.takeAdopted() {
		if err := d.shared.Adopt(fd); err != nil {
			d.log.Warn("a socket that was handed over is of no use", "error", err)
		}
	}
}
