package dashboard

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/usernet/usernet/api"
	"github.com/usernet/usernet/internal/leak"
	"github.com/usernet/usernet/network"
)

// many is a daemon with more of everything than a page shows; what is not overridden panics.
type many struct {
	Source
	asked *int
}

func (m many) Sample(context.Context) (*api.Sample, error) {
	*m.asked++
	s := &api.Sample{Time: time.Now()}
	for i := range 1000 {
		name := fmt.Sprintf("box%04d", i)
		s.Flows = append(s.Flows, api.Flow{Container: name, Created: time.Unix(int64(i), 0),
			Outside: netip.MustParseAddrPort("192.0.2.7:80")})
		s.Questions = append(s.Questions, api.DNSQuestion{Name: name + ".", Addrs: []netip.Addr{}})
		s.Refusals = append(s.Refusals, api.Refusal{Container: name})
	}
	return s, nil
}

func (many) NetworkRecords(context.Context) (list []*network.Network, err error) {
	for i := range 1000 {
		list = append(list, &network.Network{Name: fmt.Sprint("net", i), Driver: network.DriverBridge})
	}
	return append(list, &network.Network{Name: "host", Driver: network.DriverHost}), nil
}

func (many) ContainerRecords(context.Context) (list []*network.Container, err error) {
	for i := range 1000 {
		list = append(list, &network.Container{Name: fmt.Sprintf("box%04d", i), Env: []string{"SECRET=1"}})
	}
	return list, nil
}

func TestViewsAreBounded(t *testing.T) {
	v := &viewer{src: many{asked: new(int)}}
	got, err := v.get(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for kind, n := range map[string][2]int{
		"networks": {len(got.Networks), maxNetworks}, "containers": {len(got.Containers), maxContainers},
		"flows": {len(got.Flows), maxFlows}, "questions": {len(got.Questions), maxQuestions},
		"refusals": {len(got.Refusals), maxRefusals},
	} {
		if n[0] != n[1] || got.Left[kind] != 1000-n[1] {
			t.Errorf("%s: %d are shown and %d are said to be left out of 1000; %d are the most", kind, n[0], got.Left[kind],
				n[1])
		}
	}
	if got.Flows[0].Container != "box0999" || got.Questions[0].Name != "box0999" {
		t.Errorf("the latest are not first: %+v, %+v", got.Flows[0], got.Questions[0])
	}
	if got.Questions[0].Container != "(gone)" { // the sample has no name for it
		t.Errorf("who asked is called %q", got.Questions[0].Container)
	}
}

func TestManyPagesAskTheDaemonOnce(t *testing.T) {
	asked := 0
	v := &viewer{src: many{asked: &asked}}
	for range 50 {
		if _, err := v.get(t.Context()); err != nil {
			t.Fatal(err)
		}
		v.now.Time = time.Now() // however slow the machine is
	}
	if asked != 1 {
		t.Errorf("the daemon was asked %d times", asked)
	}
}

func TestLinksAndSessionsEnd(t *testing.T) {
	now := time.Now()
	s := newSessions()
	s.now = func() time.Time { return now }
	late := s.newLink()
	now = now.Add(linkLife)
	if _, _, ok := s.login(late); ok {
		t.Error("a link is good after its time")
	}
	login := func() (cookie, key string) {
		t.Helper()
		link := s.newLink()
		cookie, key, ok := s.login(link)
		if !ok {
			t.Fatal("a new link is refused")
		}
		if _, _, ok := s.login(link); ok {
			t.Error("a link is good twice")
		}
		return cookie, key
	}
	cookie, key := login()
	other, otherKey := login()
	for _, test := range []struct {
		cookie, key  string
		guest, owner bool
	}{{cookie, key, true, true}, {cookie, otherKey, true, false}, {other, key, true, false}, {cookie, "", true, false},
		{"", key, false, false}, {key, cookie, false, false}} {
		if guest, owner := s.knows(test.cookie, test.key); guest != test.guest || owner != test.owner {
			t.Errorf("%+v: guest %v, owner %v", test, guest, owner)
		}
	}
	now = now.Add(sessionIdle)
	s.knows(other, otherKey) // is used
	now = now.Add(time.Second)
	if guest, _ := s.knows(cookie, key); guest {
		t.Error("a session that was idle for an hour goes on")
	}
	for range maxSessions - 1 { // which push the idle one out, and then no other
		login()
	}
	if _, owner := s.knows(other, otherKey); !owner || len(s.open) != maxSessions {
		t.Errorf("a session that was used was pushed out; %d are open", len(s.open))
	}
}

// TestServeEnds with its context, whoever is connected, and leaves nothing.
func TestServeEnds(t *testing.T) {
	before, running := leak.Descriptors(t), leak.Goroutines()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	links, ended, more := make(chan string, 2), make(chan error), make(chan struct{})
	go func() {
		ended <- New(many{asked: new(int)}).Serve(ctx, l, more, func(link string) { links <- link })
	}()
	first := <-links
	more <- struct{}{}
	if second := <-links; second == first || !strings.HasPrefix(second, "http://"+l.Addr().String()+"/#") {
		t.Errorf("one more link is %s after %s", second, first)
	}
	close(more)
	silent, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{}}
	answer, err := client.Get("http://" + l.Addr().String())
	if err != nil || answer.StatusCode != http.StatusUnauthorized {
		t.Errorf("the page without a session: %v %v", answer, err)
	} else {
		answer.Body.Close()
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	silent.Close()
	client.CloseIdleConnections()
	before.NoneLeft(t)
	running.NoneLeft(t)
}
