package main

import (
	"encoding/json"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/usernet/usernet/api"
)

// TestShutdownAsksNothingBehindIt has the daemon's process end while its socket goes on being listened at, as a service
// manager does it with a socket unit: each further request would start the daemon again.
func TestShutdownAsksNothingBehindIt(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "usernet.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	process := exec.Command("sleep", "1000")
	if err := process.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		process.Wait()
		close(ended)
	}()
	t.Cleanup(func() { process.Process.Kill() })
	var asked, behind atomic.Int32
	mux := http.NewServeMux()
	mux.HandleFunc("GET /usernet/info", func(w http.ResponseWriter, _ *http.Request) {
		pid := process.Process.Pid
		if asked.Load() > 0 {
			behind.Add(1)
			pid++ // another daemon
		}
		json.NewEncoder(w).Encode(api.Info{Pid: pid})
	})
	mux.HandleFunc("POST /usernet/shutdown", func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		process.Process.Kill()
		w.WriteHeader(http.StatusNoContent)
	})
	server := &http.Server{Handler: mux}
	go server.Serve(l)
	t.Cleanup(func() { server.Close() })

	before := host
	t.Cleanup(func() { host = before })
	host = "unix://" + socket
	c := shutdownCommand()
	c.SetArgs(nil)
	if err := c.Execute(); err != nil {
		t.Fatal(err)
	}
	<-ended
	if asked.Load() != 1 || behind.Load() != 0 {
		t.Errorf("asked to end %d times, and then asked %d times more; want 1 and 0", asked.Load(), behind.Load())
	}
}
