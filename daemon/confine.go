package daemon

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/usernet/usernet/api"
	"github.com/usernet/usernet/confine"
	"github.com/usernet/usernet/overlay/uplink"
)

// confinement is what the process has given up.
type confinement struct {
	mu       sync.Mutex // guards the rest
	inForce  []string
	warnings []string
}

func (c *confinement) report() (inForce, warnings []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.inForce), slices.Clone(c.warnings)
}

// Confine takes from this process, for good, what a running daemon does not need. A daemon that is to be confined by
// Landlock or seccomp needs a Helper.
func (d *Daemon) Confine(measures []confine.Measure) {
	if len(measures) == 0 {
		return
	}
	// The resolvers' file is replaced by renaming, often where a link points to, so it is its directory that is read.
	read := []string{"/proc", "/etc", "/usr/share/zoneinfo", filepath.Dir(d.cfg.ResolvConf)}
	// Certificates for resolvers over TLS, read at the first use; those in /etc may be links.
	read = append(read, "/usr/share/ca-certificates", "/usr/local/share/ca-certificates", os.Getenv("SSL_CERT_FILE"))
	read = append(read, filepath.SplitList(os.Getenv("SSL_CERT_DIR"))...)
	if real, err := filepath.EvalSymlinks(d.cfg.ResolvConf); err == nil {
		read = append(read, filepath.Dir(real))
	}
	// No files are written beside the socket: its directory may have JobsDir in it, and what is in there is run.
	var sockets []string
	if d.cfg.Socket != "" {
		sockets = append(sockets, filepath.Dir(d.cfg.Socket))
		later := api.LaterDir(d.cfg.Socket)
		if err := os.Mkdir(later, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
			d.log.Warn("ends of attachments that are asked for while no daemon answers will not be seen", "error", err)
		}
		read = append(read, later)
	}
	inForce, warnings := confine.Daemon.With(measures).Apply(confine.Paths{
		Write: append(d.cgroupRoots(), d.cfg.StateDir), Sockets: sockets, Read: read, Devices: uplink.Nodes(),
	})
	d.confined.mu.Lock()
	defer d.confined.mu.Unlock()
	d.confined.inForce = confine.Names(inForce)
	for _, w := range warnings {
		d.confined.warnings = append(d.confined.warnings, w.Error())
		d.log.Warn(w.Error())
	}
}
