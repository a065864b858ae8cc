package sandbox

import (
	"context"
	"errors"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
)

func TestDoormanLetsManyInAtOnce(t *testing.T) {
	d, err := StartDoorman()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	text, code := output(t, Spec{Command: sh("ip -o link")}, Files{}, func(p *Process) {
		var group sync.WaitGroup
		for _, name := range []string{"eth0", "eth1", "eth2", "eth3"} {
			group.Go(func() {
				reply, err := d.Configure(t.Context(), Target{Pid: p.Pid()}, Request{
					Add: []Interface{{Name: name, MAC: net.HardwareAddr{2, 0, 0, 0, 0, name[3]}, MTU: 1500, Offload: true}},
				})
				if err != nil || reply.TAPs[name] == nil {
					t.Errorf("%s: %v", name, err)
				}
				reply.close()
			})
		}
		group.Wait()
	})
	for _, name := range []string{"eth0", "eth1", "eth2", "eth3"} {
		if code != 0 || !strings.Contains(text, name) {
			t.Errorf("%s is not in\n%s", name, text)
		}
	}
}

func TestDoormanSaysWhatWentWrong(t *testing.T) {
	d, err := StartDoorman()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.Configure(t.Context(), Target{NetNS: "/nowhere"}, Request{}); err == nil || !strings.Contains(err.Error(), "/nowhere") {
		t.Errorf("a namespace that does not exist: %v", err)
	}
	if _, _, err := d.Namespace("/nowhere"); !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "/nowhere") {
		t.Errorf("a namespace that does not exist: %v", err)
	}
	dev, ino, err := d.Namespace("/proc/self/ns/net")
	if wantDev, wantIno, err2 := (*Doorman)(nil).Namespace("/proc/self/ns/net"); err != nil || err2 != nil || dev != wantDev || ino != wantIno {
		t.Errorf("this namespace: %d %d %v, %d %d %v", dev, ino, err, wantDev, wantIno, err2)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := d.Configure(gone, Target{Pid: 1}, Request{}); err == nil {
		t.Error("entered a sandbox though nobody waits for it")
	}
	if err := d.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if _, err := d.cmd.Process.Wait(); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Configure(t.Context(), Target{Pid: 1}, Request{}); !errors.Is(err, errNoDoorman) {
		t.Errorf("without a doorman: %v", err)
	}
	if err := errors.Join(d.Close(), d.Close()); err != nil {
		t.Error(err)
	}
}
