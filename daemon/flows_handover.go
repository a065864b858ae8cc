package daemon

import (
	"encoding/json"

	"github.com/usernet/usernet/forwarder"
	"github.com/usernet/usernet/handover"
)

// ReleaseFlows lets go of the TCP connections past the gateways, so that another daemon can carry them on, and begins no more.
// The descriptors are the caller's. Call it before Close.
func (d *Daemon) ReleaseFlows() []handover.Flow {
	var list []handover.Flow
	for _, b := range d.bridgeList() {
		for _, c := range b.Release() {
			state, err := json.Marshal(c)
			if err != nil {
				d.log.Warn("connection not handed over", "inside", c.Inside, "outside", c.Outside, "error", err)
				c.Close()
				continue
			}
			fds := c.FDs()
			list = append(list, handover.Flow{Network: b.record.ID, State: state, Count: len(fds), FDs: fds})
		}
	}
	return list
}

// carryOn takes up connections that another daemon has let go of. Those of containers and networks that are gone are reset.
func (d *Daemon) carryOn(flows []handover.Flow) {
	for _, f := range flows {
		c := new(forwarder.Carried)
		err := json.Unmarshal(f.State, c)
		if err == nil {
			err = c.SetFDs(f.FDs)
		}
		if err != nil {
			d.log.Warn("a connection that was handed over is of no use", "error", err)
			f.Close()
			continue
		}
		b := d.bridge(f.Network)
		if b == nil {
			c.Close()
			continue
		}
		if err := b.CarryOn(c); err != nil {
			d.log.Warn("a connection that was handed over is not carried on", "inside", c.Inside, "outside", c.Outside, "error", err)
		}
	}
}
