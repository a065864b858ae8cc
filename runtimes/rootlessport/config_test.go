package rootlessport

import (
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// recorded is what Podman 4.3 wrote, with descriptors of the test's.
const recorded = `{"Mappings":[{"host_ip":"","container_port":80,"host_port":18098,"range":2,"protocol":"tcp"},
{"host_ip":"127.0.0.1","container_port":53,"host_port":18053,"range":1,"protocol":"tcp,udp"},
{"host_ip":"::1","container_port":90,"host_port":18090,"range":1,"protocol":"udp"}],
"NetNSPath":"/run/user/1004/netns/netns-1","ExitFD":%d,"ReadyFD":%d,"TmpDir":"/run/user/1004/libpod/tmp","ChildIP":"10.99.0.2",
"ContainerID":"0123","RootlessCNI":true,"Unknown":1}`

func TestPodmansConfigIsRead(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	c, err := readConfig(strings.NewReader(fmt.Sprintf(recorded, r.Fd(), w.Fd())))
	if err != nil {
		t.Fatal(err)
	}
	ports, err := c.ports()
	if err != nil || c.ChildIP != "10.99.0.2" || !c.RootlessCNI {
		t.Fatalf("%+v, %v", c, err)
	}
	want := "[tcp 0.0.0.0:18098 tcp 0.0.0.0:18099 tcp 127.0.0.1:18053 udp 127.0.0.1:18053 udp [::1]:18090]"
	if got := fmt.Sprint(ports); got != want || ports[1].container != 81 {
		t.Errorf("%s, want %s", got, want)
	}
}

func TestErrorsAreInPodmansWords(t *testing.T) {
	p := port{"tcp", netip.MustParseAddrPort("0.0.0.0:80"), 80}
	for err, want := range map[error]string{
		unix.EADDRINUSE: "listen tcp 0.0.0.0:80: bind: address already in use",
		unix.EACCES:     "cannot expose privileged port 80, you can add 'net.ipv4.ip_unprivileged_port_start=80' to /etc/sysctl.conf (currently ",
	} {
		if got := explain(p, err).Error(); !strings.HasPrefix(got, want) {
			t.Errorf("%q does not begin with %q", got, want)
		}
	}
}

// FuzzConfig: whatever is read, ports are those that exist.
func FuzzConfig(f *testing.F) {
	f.Add(fmt.Sprintf(recorded, 1, 2))
	f.Add(`{"NetNSPath":"/x","ExitFD":1,"ReadyFD":2,"Mappings":[{"host_port":65535,"container_port":65535,"range":2,"protocol":"tcp"}]}`)
	f.Fuzz(func(t *testing.T, text string) {
		c := new(Config)
		if read, err := readConfig(strings.NewReader(text)); err == nil {
			c = read
		}
		ports, err := c.ports()
		if err != nil {
			return
		}
		for _, p := range ports {
			if p.host.Port() == 0 || p.container == 0 || !p.host.Addr().IsValid() {
				t.Fatalf("%+v of %s", p, text)
			}
		}
	})
}
