package test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"strings"
	"testing"
	"time"
)

// connectBox is a body.
const connectBox = `{"container": "box", "network": "mynet"}`

// guest speaks to a dashboard without a browser.
type guest struct {
	t      *testing.T
	client *http.Client
	origin string // http://127.0.0.1:PORT
	key    string
}

func newGuest(t *testing.T, link string) *guest {
	jar, _ := cookiejar.New(nil)
	u, err := url.Parse(link)
	if err != nil {
		t.Fatal(err)
	}
	g := &guest{t: t, origin: "http://" + u.Host, client: &http.Client{Jar: jar, Timeout: patience,
		Transport: &http.Transport{DisableKeepAlives: true}}}
	return g
}

// login uses the link up.
func (g *guest) login(link string) int {
	g.t.Helper()
	secret, _ := json.Marshal(map[string]string{"link": link[strings.Index(link, "#")+1:]})
	status, text, _ := g.ask("POST", "/login", string(secret))
	var v struct{ Key string }
	if status == http.StatusOK {
		if err := json.Unmarshal([]byte(text), &v); err != nil || v.Key == "" {
			g.t.Errorf("login: %v: %s", err, text)
		}
		g.key = v.Key
	}
	return status
}

// ask sends a request as the page does, with what headers (NAME, VALUE...) change; "" takes one away.
func (g *guest) ask(method, path, body string, headers ...string) (status int, text string, head http.Header) {
	g.t.Helper()
	r, err := http.NewRequest(method, g.origin+path, strings.NewReader(body))
	if err != nil {
		g.t.Fatal(err)
	}
	r.Header.Set("Usernet-Key", g.key)
	r.Header.Set("Sec-Fetch-Site", "same-origin")
	if method == "POST" {
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("Origin", g.origin)
	}
	for i := 0; i < len(headers); i += 2 {
		switch {
		case headers[i] == "Host":
			r.Host = headers[i+1]
		case headers[i+1] == "":
			r.Header.Del(headers[i])
		default:
			r.Header.Set(headers[i], headers[i+1])
		}
	}
	answer, err := g.client.Do(r)
	if err != nil {
		return 0, err.Error(), nil
	}
	defer answer.Body.Close()
	b, _ := io.ReadAll(answer.Body)
	return answer.StatusCode, string(b), answer.Header
}

// wants asks for something that has to end with a status.
func (g *guest) wants(status int, method, path, body string, headers ...string) {
	g.t.Helper()
	if got, text, _ := g.ask(method, path, body, headers...); got != status {
		g.t.Errorf("%s %s %q %q: %d, want %d: %.200s", method, path, body, headers, got, status, text)
	}
}

// TestDashboardKeepsOthersOut attacks a dashboard as another site, another program and another user would.
func TestDashboardKeepsOthersOut(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	d.ok("network", "create", "mynet")
	d.idle("box", "-e", "PASSWORD=hunter2")
	d.fails("is for this machine", "dashboard", "--listen", "0.0.0.0:0")
	d.fails("is for this machine", "dashboard", "--listen", host4+":0")
	h := d.dashboard()
	link := h.link()
	g := newGuest(t, link)

	// Without a session there is the page that uses a link, and nothing else.
	for _, path := range []string{"/", "/data", "/page.js", "/tables.js"} {
		g.wants(401, "GET", path, "")
	}
	for _, name := range []string{"connect", "disconnect", "publish", "unpublish", "close"} {
		g.wants(401, "POST", "/do/"+name, connectBox)
	}
	if status := g.login("#" + strings.Repeat("A", 43)); status != 401 {
		t.Errorf("a wrong secret: %d", status)
	}
	if status := g.login(link); status != 200 {
		t.Fatalf("a wrong secret used the link up: %d", status)
	}
	if status := newGuest(t, link).login(link); status != 401 {
		t.Errorf("a link that was used: %d", status)
	}
	old := h.another()
	if status := newGuest(t, link).login(h.another()); status != 200 {
		t.Errorf("another link: %d", status)
	}
	if status := newGuest(t, link).login(old); status != 401 {
		t.Errorf("a link after which another was made: %d", status)
	}

	g.wantsHeaders()
	g.refusesWhatIsNotThePages()
	if out := d.ok("inspect", "-f", "{{json .NetworkSettings.Networks}}", "box"); strings.Contains(out, "mynet") {
		t.Errorf("somebody connected box: %s", out)
	}
	g.wants(200, "POST", "/do/connect", connectBox)

	// Another user of this machine.
	out := asRoot(t, "setpriv --reuid 2000 --regid 2000 --clear-groups "+
		"curl -sS -o /dev/null -w '%{http_code}' "+g.origin+"/data")
	if out != "401" {
		t.Errorf("another user is answered %s", out)
	}
}

// wantsHeaders looks at what keeps the page to itself, and at what it does not show.
func (g *guest) wantsHeaders() {
	g.t.Helper()
	status, text, head := g.ask("GET", "/data", "")
	if status != 200 || !strings.Contains(text, `"box"`) || strings.Contains(text, "hunter2") {
		g.t.Errorf("data: %d: %s", status, text)
	}
	for name, want := range map[string]string{
		"Content-Security-Policy": "default-src 'none'; script-src 'self'", "X-Content-Type-Options": "nosniff",
		"Cache-Control": "no-store", "Cross-Origin-Resource-Policy": "same-origin", "X-Frame-Options": "DENY",
	} {
		if got := head.Get(name); !strings.HasPrefix(got, want) {
			g.t.Errorf("%s: %q", name, got)
		}
	}
	csp := head.Get("Content-Security-Policy")
	if strings.Contains(csp, "unsafe") || !strings.Contains(csp, "frame-ancestors 'none'") {
		g.t.Errorf("Content-Security-Policy: %s", csp)
	}
	if got := head.Get("Access-Control-Allow-Origin"); got != "" {
		g.t.Errorf("Access-Control-Allow-Origin: %s", got)
	}
}

// refusesWhatIsNotThePages has the session, but asks as others would.
func (g *guest) refusesWhatIsNotThePages() {
	g.t.Helper()
	port := g.origin[strings.LastIndex(g.origin, ":"):]
	g.wants(401, "GET", "/data", "", "Usernet-Key", "") // a cookie alone, which goes to all ports of a host
	g.wants(401, "GET", "/data", "", "Usernet-Key", "wrong")
	g.wants(401, "POST", "/do/connect", connectBox, "Usernet-Key", "")
	for _, name := range []string{"evil.example" + port, "evil.example", "127.0.0.1", "127.0.0.1:1", "localhost",
		"0.0.0.0" + port} {
		g.wants(403, "GET", "/data", "", "Host", name)
		g.wants(403, "GET", "/", "", "Host", name)
	}
	for _, origin := range []string{"http://evil.example", "null", "http://127.0.0.1", "https://127.0.0.1" + port,
		"http://localhost" + port, "http://127.0.0.1:1", ""} {
		g.wants(403, "POST", "/do/connect", connectBox, "Origin", origin)
	}
	g.wants(403, "GET", "/data", "", "Origin", "http://evil.example")
	for _, site := range []string{"cross-site", "same-site"} {
		g.wants(403, "GET", "/data", "", "Sec-Fetch-Site", site)
		g.wants(403, "GET", "/", "", "Sec-Fetch-Site", site, "Sec-Fetch-Mode", "no-cors")
		g.wants(403, "POST", "/do/connect", connectBox, "Sec-Fetch-Site", site)
	}
	g.wants(415, "POST", "/do/connect", connectBox, "Content-Type", "text/plain")
	g.wants(400, "POST", "/do/connect", connectBox+connectBox)
	g.wants(400, "POST", "/do/connect", `{"container": "box", "network": "mynet", "force": true}`)
	g.wants(400, "POST", "/do/publish", `{"container": "`+strings.Repeat("x", 20000)+`"}`)
	g.wants(431, "GET", "/data", "", "X-Long", strings.Repeat("x", 20000))
	g.wants(404, "GET", "/usernet/info", "") // it is no proxy
	g.wants(404, "POST", "/do/shutdown", "{}")
	g.wants(404, "POST", "/do/connect", `{"container": "box", "network": "../../containers"}`)
}

// TestDashboardIsNotReachedFromContainers: not at all without --host-loopback, and then without a session.
func TestDashboardIsNotReachedFromContainers(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	d.idle("box")
	d.idle("trusted", "--host-loopback")
	link := d.dashboard().link()
	g := newGuest(t, link)
	port := g.origin[strings.LastIndex(g.origin, ":")+1:]
	gateway := net.JoinHostPort(d.gateway("box"), port)
	if got := d.reaches("box", gateway); got != "ECONNREFUSED" {
		t.Errorf("a container reaches the dashboard: %s", got)
	}
	for host, want := range map[string]string{gateway: "403", "127.0.0.1:" + port: "401"} {
		r := d.exec("trusted", "curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", "-H", "Host: "+host,
			"http://"+gateway+"/data")
		if r.stdout != want {
			t.Errorf("a container with --host-loopback, as %s: %v", host, r)
		}
	}
	if status := g.login(link); status != 200 {
		t.Errorf("the link is used up: %d", status)
	}
	// The reason is among the refusals, with what would change it.
	_, text, _ := g.ask("GET", "/data", "")
	if !strings.Contains(text, `"flag":"--host-loopback"`) {
		t.Errorf("no refusal names --host-loopback: %s", text)
	}
}

// TestDashboardHoldsFewConnections: who connects and says nothing keeps nobody out.
func TestDashboardHoldsFewConnections(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	link := d.dashboard().link()
	g := newGuest(t, link)
	if status := g.login(link); status != 200 {
		t.Fatalf("login: %d", status)
	}
	address := strings.TrimPrefix(g.origin, "http://")
	kept, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer kept.Close()
	jar := g.client.Jar.Cookies(&url.URL{Scheme: "http", Host: address})
	request := fmt.Sprintf("GET /data HTTP/1.1\r\nHost: %s\r\nUsernet-Key: %s\r\nCookie: %s\r\n\r\n", address, g.key, jar[0])
	exchange := func() {
		t.Helper()
		fmt.Fprint(kept, request)
		kept.SetReadDeadline(time.Now().Add(patience))
		var answer bytes.Buffer
		for !strings.Contains(answer.String(), "\r\n\r\n") || !strings.HasSuffix(answer.String(), "}\n") &&
			!strings.HasSuffix(answer.String(), "0\r\n\r\n") {
			if _, err := io.CopyN(&answer, kept, 1); err != nil {
				t.Fatalf("an open page loses its connection: %v: %.300s", err, answer.String())
			}
		}
		if !strings.HasPrefix(answer.String(), "HTTP/1.1 200") {
			t.Fatalf("an open page is answered %.300s", answer.String())
		}
	}
	exchange()
	for range 100 {
		c, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	exchange()
	eventually(t, func() error {
		if status, text, _ := g.ask("GET", "/data", ""); status != 200 {
			return fmt.Errorf("beside 100 silent connections: %d %s", status, text)
		}
		return nil
	})
}
