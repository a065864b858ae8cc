package daemon

import (
	"github.com/usernet/usernet/handover"
)

// received holds the descriptors that New got with its Config. New owns them, and closes on every return those that
// were not taken. Taking a descriptor removes it: the taker owns it then.
type received struct {
	*handover.Set
	flows []handover.Flow
}

// takeReceived moves all descriptors of cfg out of it.
func takeReceived(cfg *Config) *received {
	r := &received{cfg.Received, cfg.Flows}
	cfg.Received, cfg.Flows = nil, nil
	return r
}

func (r *received) takeFlows() []handover.Flow {
	list := r.flows
	r.flows = nil
	return list
}

// close closes what was not taken.
func (r *received) close() {
	flows := r.takeFlows()
	for i := range flows {
		flows[i].Close()
	}
	r.Set.Close()
}

// addReceivedPorts gives the sockets of published ports to the table of host ports, which owns them from then on.
func (d *Daemon) addReceivedPorts(r *received) {
	for _, fd := range r.TakeKind(handover.Inherited) {
		at, proto, err := d.shared.Inherit(fd)
		if err != nil {
			d.log.Warn("a socket that the daemon was started with is of no use", "error", err)
			continue
		}
		d.log.Info("published ports can use an inherited socket", "address", at, "proto", proto)
	}
	d.shared.SetFDStore(d.cfg.FDStore)
	for _, fd := range r.TakeKind(handover.Published) {
		if err := d.shared.Adopt(fd); err != nil {
			d.log.Warn("a socket that was handed over is of no use", "error", err)
		}
	}
}
