package daemon

import (
	"encoding/json"

	"github.com/usernet/usernet/forwarder"
	"github.com/usernet/usernet/handover"
)

// DetachFlows detaches the TCP connections that bypass the gateways, for another daemon to resume, and begins no more.
// The descriptors are the caller's. Call it before Close.
func (d *Daemon) DetachFlows() []handover.Flow {
	var list []handover.Flow
	for _, b := range d.bridgeList() {
		for _, st := range b.DetachFlows() {
			state, err := json.Marshal(st)
			if err != nil {
				d.log.Warn("connection not handed over", "inside", st.Inside, "outside", st.Outside, "error", err)
				st.Close()
				continue
			}
			fds := st.FDs()
			list = append(list, handover.Flow{Network: b.record.ID, State: state, Count: len(fds), FDs: fds})
		}
	}
	return list
}

// resumeFlows takes up connections that another daemon has detached. Those of containers and networks that are gone are
// reset.
func (d *Daemon) resumeFlows(flows []handover.Flow) {
	for _, f := range flows {
		st := new(forwarder.State)
		err := json.Unmarshal(f.State, st)
		if err == nil {
			err = st.SetFDs(f.FDs)
		}
		if err != nil {
			d.log.Warn("a connection that was handed over is of no use", "error", err)
			f.Close()
			continue
		}
		b := d.bridge(f.Network)
		if b == nil {
			st.Close()
			continue
		}
		if err := b.ResumeFlow(st); err != nil {
			d.log.Warn("a connection that was handed over is not resumed", "inside", st.Inside, "outside", st.Outside,
				"error", err)
		}
	}
}
