package daemon

import (
	"github.com/usernet/usernet/handover"
)

// received are the descriptors that New got with its Config and nobody has taken yet. New owns them whatever becomes of it,
// so it closes at its end, on each way out, what is left here. Taking a descriptor removes it: it then belongs to the taker.
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
