package test

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// dashboard starts usernet dashboard for the length of a test. Its lines are links; a line that is sent makes another.
func (d *daemon) dashboard(flags ...string) *held {
	d.t.Helper()
	h := d.startTalk("usernet dashboard", append([]string{usernet, "dashboard"}, flags...)...)
	d.t.Cleanup(func() { h.cmd.Process.Signal(syscall.SIGTERM) })
	return h
}

// link is a link that nobody has used.
func (h *held) link() string {
	h.t.Helper()
	link := h.next()
	if !regexp.MustCompile(`^http://127\.0\.0\.1:\d+/#[\w-]{43}$`).MatchString(link) {
		h.t.Fatalf("the link is %q", link)
	}
	return link
}

// another is one more link.
func (h *held) another() string {
	h.t.Helper()
	fmt.Fprintln(h.in)
	return h.link()
}

// seen is what the dashboard's tests look at: containers, networks, a flow by name, a published port, refusals.
type seen struct {
	*daemon
	flow                  *held // of web to www.example.test:port
	port, published, more int
}

func dashboardScene(t *testing.T) *seen {
	t.Helper()
	s := &seen{daemon: startDaemon(t), port: freePort(), published: freePort(), more: freePort()}
	s.ok("network", "create", "mynet")
	s.ok("network", "create", "--internal", "backend")
	s.ok("network", "create", "--egress", "deny", "--allow-egress", "*.example.test:9", "closed")
	s.serve("db", []string{"--network", "mynet", "-p", fmt.Sprintf("127.0.0.1:%d:80", s.published)},
		helper, "httpserve", ":80")
	s.idle("web", "--network", "mynet")
	s.idle("build", "--network", "closed")
	s.idle("cache", "--network", "backend")
	endless := freePort()
	listen(t, fmt.Sprintf("%s:%d", host4, endless), func(c *net.TCPConn) {
		defer c.Close()
		fmt.Fprint(c, "HTTP/1.0 200 OK\r\n\r\n")
		pace := time.NewTicker(50 * time.Millisecond) // a steady rate, which no buffer turns into bursts
		defer pace.Stop()
		for zeros := make([]byte, 1<<14); ; <-pace.C {
			if _, err := c.Write(zeros); err != nil {
				return
			}
		}
	})
	s.container("mirror", []string{"--network", "mynet"}, "curl", "-s", "-o", "/dev/null",
		fmt.Sprintf("http://www.example.test:%d/", endless))
	listen(t, fmt.Sprintf("%s:%d", host4, s.port), echo)
	s.flow = s.hold("web", fmt.Sprintf("www.example.test:%d", s.port))
	s.flow.echoes("hello")
	if got := s.reaches("build", fmt.Sprintf("www.example.test:%d", s.port)); got != "ECONNREFUSED" {
		t.Errorf("a destination that no rule allows: %s", got)
	}
	s.exec("build", "dig", "+tries=1", "secret.example.org")
	s.exec("web", "dig", "+tries=1", "<b>markup</b>.example.test")
	return s
}

// endpoints are the networks that a container is on, for eventually.
func (s *seen) on(container, network string, want bool) error {
	out := s.ok("inspect", "-f", "{{json .NetworkSettings.Networks}}", container)
	if strings.Contains(out, `"`+network+`"`) != want {
		return fmt.Errorf("%s is on %s: want %v: %s", container, network, want, out)
	}
	return nil
}

// TestDashboard drives the page in Chromium with a pointer: it looks at everything, and does everything once.
func TestDashboard(t *testing.T) {
	t.Parallel()
	s := dashboardScene(t)
	h, b := s.dashboard(), startBrowser(t)
	link := h.link()
	b.open(link)
	b.shows("#container-table", "web", "mynet", "running", fmt.Sprintf("127.0.0.1:%d → 80/tcp", s.published))
	b.shows("#flow-table", fmt.Sprintf("www.example.test:%d", s.port), "tcp", "out")
	b.shows("#refusal-table", "build", fmt.Sprintf("www.example.test:%d", s.port),
		"--egress deny, and no --allow-egress is for it",
		fmt.Sprintf("--allow-egress www.example.test:%d/tcp", s.port),
		"secret.example.org", "--allow-egress secret.example.org")
	b.shows("#question-table", "www.example.test", "NOERROR", host4, "secret.example.org", "egress policy")
	b.shows("#question-table", "<b>markup</b>.example.test") // as text
	if got := b.value(`document.querySelectorAll("td b").length`); got != "0" {
		t.Errorf("a name that was asked for has become %s elements", got)
	}
	b.shows("#graph", "web", "db", "mynet", "backend", "outside", "kB/s in")
	eventually(t, func() error { // what mirror loads
		if got := b.value(`document.querySelectorAll("#graph .busy").length`); got != "2" {
			return fmt.Errorf("%s edges are busy; one to mynet and one out of it are to be", got)
		}
		return nil
	})
	if got := b.value("location.href"); strings.Contains(got, "#") {
		t.Errorf("the link stays in the address bar: %s", got)
	}
	t.Run("appearance", func(t *testing.T) { b := *b; b.t = t; testAppearance(&b) })
	t.Run("accessibility", func(t *testing.T) { b := *b; b.t = t; testAccessibility(&b) })
	t.Run("operations", func(t *testing.T) { b := *b; b.t = t; testOperations(t, &b, s) })
	t.Run("keyboard", func(t *testing.T) { b := *b; b.t = t; testKeyboard(t, &b, s) })
	t.Run("other sites", func(t *testing.T) { b := *b; b.t = t; testOtherSites(t, &b, s) })
	t.Run("sessions", func(t *testing.T) { b := *b; b.t = t; testSessions(t, &b, h, link) })
}

// testOperations does everything that the page can do.
func testOperations(t *testing.T, b *browser, s *seen) {
	b.click(`#graph [data-key="network mynet"]`)
	b.shows("#chosen", "network mynet")
	b.shows("#container-table", "web", "db")
	if got := b.value(`document.querySelector("#container-table").textContent`); strings.Contains(got, "cache") {
		t.Errorf("cache is not on mynet, and is shown: %s", got)
	}
	b.click("#all")
	b.shows("#container-table", "cache")

	b.click(`#connect-container option[value="web"]`)
	offered := `[...document.querySelectorAll("#connect-network option")].map(o => o.value).join(" ")`
	if got := strings.Fields(b.value(offered)); slices.Contains(got, "mynet") || !slices.Contains(got, "backend") {
		t.Errorf("networks to connect web to, which is on mynet: %q", got)
	}
	b.click(`#connect-network option[value="backend"]`)
	b.click("#connect button")
	b.shows("#said", "web is connected to backend")
	if err := s.on("web", "backend", true); err != nil {
		t.Error(err)
	}
	b.click(`[aria-label="Disconnect web from backend"]`)
	b.shows("#confirm", "Disconnect web from backend?")
	b.click(`#confirm [value="cancel"]`)
	if err := s.on("web", "backend", true); err != nil {
		t.Errorf("cancelled: %v", err)
	}
	// The browser tells of a dialog's end a while after it; a question that is asked before that is one of its own.
	b.run(nil, `const open = document.querySelector(arguments[0]);
		open.click();
		document.getElementById("confirm").close("cancel");
		open.click();`, `[aria-label="Disconnect web from backend"]`)
	b.click("#confirm-do")
	b.shows("#said", "web is disconnected from backend")
	if err := s.on("web", "backend", false); err != nil {
		t.Error(err)
	}

	testPorts(t, b, s)

	flow := fmt.Sprintf("Close the flow of web to www.example.test:%d", s.port)
	b.asks(`[aria-label="`+flow+`"]`, flow+"?")
	b.click("#confirm-do")
	if line := s.flow.next(); !strings.Contains(line, "reset") && !strings.Contains(line, "ECONNRESET") {
		t.Errorf("the container's connection ended with %q", line)
	}
	b.shows("#said", "is closed")
}

func testPorts(t *testing.T, b *browser, s *seen) {
	d := s.in(t)
	b.click(`#publish-container option[value="web"]`)
	b.click("#publish-port")
	b.press("no port")
	b.click("#publish button")
	b.shows("#alarm", "no port")
	b.run(nil, `document.getElementById("publish-port").value = ""`)
	b.click("#publish-port")
	b.press(fmt.Sprintf("127.0.0.1:%d:7", s.more))
	b.click("#publish button")
	b.shows("#said", "is published")
	if out := d.ok("port", "web"); out != fmt.Sprintf("7/tcp -> 127.0.0.1:%d", s.more) {
		t.Errorf("published: %s", out)
	}
	b.click(fmt.Sprintf(`[aria-label^="Unpublish 127.0.0.1:%d,"]`, s.more))
	b.click("#confirm-do")
	b.shows("#said", "is not published any more")
	if out := d.ok("port", "web"); out != "" {
		t.Errorf("published still: %s", out)
	}

	// The link to a published port. The container there is told nothing about the page.
	b.click(fmt.Sprintf(`#container-table a[href$=":%d/"]`, s.published))
	request := d.logged("db", "GET / HTTP/1.1")
	if strings.Contains(request, "usernet-dashboard") || strings.Contains(request, "Referer: http://127.0.0.1") {
		t.Errorf("a container's server is sent the page's cookie or address:\n%s", request)
	}
	if n := b.closeOtherWindows(); n != 2 {
		t.Errorf("%d windows after a link that opens another", n)
	}
}

// testKeyboard chooses, connects and disconnects without a pointer, seeing all the time where the focus is.
func testKeyboard(t *testing.T, b *browser, s *seen) {
	b.run(nil, `document.activeElement.blur(); window.scrollTo(0, 0)`)
	b.open(b.value("location.origin") + "/")
	b.shows("#container-table", "web")
	b.tabTo("Skip to the content")
	b.press(keyEnter)
	b.press(keyTab)
	at := b.focused()
	if !strings.Contains(at, ": container ") {
		t.Fatalf("Tab does not lead into the map, but to %q", at)
	}
	b.press(keyRight, keyDown, keyDown, keyDown, keyUp)
	if at = b.focused(); !strings.Contains(at, ": network ") {
		t.Fatalf("the arrow keys lead to %q", at)
	}
	name := strings.Fields(at)[0]
	b.press(keyEnter)
	b.shows("#said", "network "+name)
	b.press(keyEnter)
	b.shows("#said", "Everything is shown")
	b.press(keyLeft)
	if at = b.focused(); !strings.Contains(at, ": container ") {
		t.Errorf("the left arrow leads to %q", at)
	}
	testFormsByKeyboard(t, b, s)
}

func testFormsByKeyboard(t *testing.T, b *browser, s *seen) {
	b.tabTo("Container") // the select of the form to connect
	b.press("cache")
	b.press(keyTab, "mynet", keyTab, keyEnter)
	b.shows("#said", "cache is connected to mynet")
	if err := s.on("cache", "mynet", true); err != nil {
		t.Error(err)
	}
	b.tabTo("Disconnect cache from mynet")
	b.press(keyEnter)
	b.shows("#confirm", "Disconnect cache from mynet?")
	if at := b.focused(); at != "Cancel" {
		t.Errorf("in the dialog the focus is at %q", at)
	}
	b.press(keyEscape)
	eventually(t, func() error {
		if at := b.focused(); at != "Disconnect cache from mynet" {
			return fmt.Errorf("after the dialog the focus is at %q", at)
		}
		return nil
	})
	b.press(keyEnter)
	b.tabTo("Disconnect")
	b.press(keyEnter)
	b.shows("#said", "cache is disconnected from mynet")
	if err := s.on("cache", "mynet", false); err != nil {
		t.Error(err)
	}
	eventually(t, func() error {
		if at := b.value("document.activeElement.textContent"); at != "Containers" {
			return fmt.Errorf("the button is gone, and the focus is at %q", at)
		}
		return nil
	})
}

// testSessions: a link is good once, a session is one tab's, and the page says how to go on.
func testSessions(t *testing.T, b *browser, h *held, used string) {
	b.open("about:blank")
	b.open(strings.Replace(used, "127.0.0.1", "localhost", 1)) // another host, so without the cookie
	b.shows("#said", "this link was used")
	b.open(strings.Replace(h.another(), "127.0.0.1", "localhost", 1))
	b.shows("#container-table", "web")
	h.cmd.Process.Signal(syscall.SIGTERM)
	b.shows("#alarm", "usernet dashboard does not answer")
}

// testOtherSites has a site on another machine, and one at another port of the loopback, try to read and to drive a
// dashboard that is open in the same browser.
func testOtherSites(t *testing.T, b *browser, s *seen) {
	target := b.value("location.origin")
	for _, host := range []string{host4, "127.0.0.1"} {
		cookies := make(chan string, 100)
		site := fmt.Sprintf("%s:%d", host, freePort())
		listen(t, site, func(c *net.TCPConn) {
			defer c.Close()
			if r, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
				cookies <- r.Header.Get("Cookie")
			}
			fmt.Fprint(c, "HTTP/1.0 200 OK\r\nContent-Type: text/html\r\n\r\n<title>elsewhere</title>")
		})
		b.open("http://" + site + "/")
		var got map[string]string
		b.run(&got, `const target = arguments[0], body = JSON.stringify({container: "cache", network: "mynet"});
			const attempt = o => fetch(target + o.path, {credentials: "include", ...o}).then(r => r.type + " " + r.status, () => "failed");
			const load = (tag, src) => new Promise(done => {
				const e = document.createElement(tag);
				e.onload = () => done("loaded"), e.onerror = () => done("failed"), e.src = src;
				document.body.append(e);
			});
			const post = {path: "/do/connect", method: "POST", body};
			return (async () => ({
				read: await attempt({path: "/data"}),
				post: await attempt({...post, headers: {"Content-Type": "application/json", "Usernet-Key": "x"}}),
				blind: await attempt({...post, mode: "no-cors"}),
				script: await load("script", target + "/page.js"),
			}))()`, target)
		for _, what := range []string{"read", "post", "blind", "script"} {
			if got[what] != "failed" {
				t.Errorf("%s: %s: %s", site, what, got[what])
			}
		}
		if cookie := <-cookies; host != "127.0.0.1" && cookie != "" {
			t.Errorf("%s is sent the cookie %q", site, cookie)
		} else if host == "127.0.0.1" {
			// Browsers send cookies to all ports of a host: what is behind another port has it, and can do nothing.
			if !strings.HasPrefix(cookie, "usernet-dashboard=") {
				t.Errorf("%s is sent %q: is the key needed still?", site, cookie)
			}
			g := newGuest(t, target+"/")
			g.wants(401, "GET", "/data", "", "Cookie", cookie)
			g.wants(401, "POST", "/do/connect", `{"container": "cache", "network": "mynet"}`, "Cookie", cookie)
		}
	}
	if err := s.on("cache", "mynet", false); err != nil {
		t.Error(err)
	}
}
