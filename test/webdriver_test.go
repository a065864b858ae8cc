package test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"io"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// browser is a Chromium, driven by the WebDriver protocol (https://www.w3.org/TR/webdriver2/) by way of chromedriver.
type browser struct {
	t       testing.TB
	session string // URL of the driver's session
}

// Keys without a character, as WebDriver has them.
const (
	keyTab, keyEnter   = "\ue004", "\ue007"
	keyLeft, keyUp     = "\ue012", "\ue013"
	keyRight, keyDown  = "\ue014", "\ue015"
	keyEscape          = "\ue00c"
	elementKey         = "element-6066-11e4-a52e-4f735466cecf"
	browserWindowWidth = 1280
)

// startBrowser starts one for the length of a test.
func startBrowser(t testing.TB) *browser {
	t.Helper()
	dir := t.TempDir()
	port := freePort()
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	driver := exec.Command("chromedriver", fmt.Sprint("--port=", port))
	driver.Env = append(os.Environ(), "HOME="+dir, "TMPDIR="+dir, "XDG_CONFIG_HOME="+dir, "XDG_CACHE_HOME="+dir)
	driver.Stdout, driver.Stderr = log, log
	driver.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := driver.Start(); err != nil {
		t.Fatal(err)
	}
	b := &browser{t: t}
	t.Cleanup(func() {
		if b.session != "" {
			b.request(http.MethodDelete, b.session, nil, nil)
		}
		syscall.Kill(-driver.Process.Pid, syscall.SIGKILL)
		driver.Wait()
		log.Close()
		if t.Failed() {
			t.Logf("the driver's log:\n%s", readFile(t, log.Name()))
		}
		// Processes that the browser has left still write there; what cannot be removed now is below the test's own
		// temporary directory.
		eventually(t, func() error { return os.RemoveAll(filepath.Join(dir, "profile")) })
	})
	root := fmt.Sprintf("http://127.0.0.1:%d", port)
	eventually(t, func() error { return b.request(http.MethodGet, root+"/status", nil, nil) })
	var made struct{ SessionID string }
	options := map[string]any{"args": []string{
		"--headless=new", "--no-sandbox", // which needs namespaces that the world does not give
		"--disable-dev-shm-usage", "--disable-gpu", "--disable-breakpad", "--no-first-run", "--hide-scrollbars",
		"--lang=en", "--force-color-profile=srgb", "--user-data-dir=" + filepath.Join(dir, "profile"),
		fmt.Sprintf("--window-size=%d,1500", browserWindowWidth),
	}}
	if err := b.request(http.MethodPost, root+"/session", map[string]any{"capabilities": map[string]any{
		"alwaysMatch": map[string]any{"browserName": "chrome", "goog:chromeOptions": options},
	}}, &made); err != nil {
		t.Fatal(err)
	}
	b.session = root + "/session/" + made.SessionID
	return b
}

// request sends one to the driver, and decodes the value of its answer.
func (b *browser) request(method, url string, body, out any) error {
	var in io.Reader
	if method == http.MethodPost {
		if body == nil {
			body = struct{}{}
		}
		text, err := json.Marshal(body)
		if err != nil {
			return err
		}
		in = bytes.NewReader(text)
	}
	r, err := http.NewRequest(method, url, in)
	if err != nil {
		return err
	}
	client := &http.Client{Timeout: patience}
	defer client.CloseIdleConnections()
	answer, err := client.Do(r)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	var v struct{ Value json.RawMessage }
	if err := json.NewDecoder(answer.Body).Decode(&v); err != nil {
		return err
	}
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("%s %s: %s: %s", method, url, answer.Status, v.Value)
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(v.Value, out)
}

// post is a command of the session, which has to succeed.
func (b *browser) post(command string, body, out any) {
	b.t.Helper()
	if err := b.request(http.MethodPost, b.session+command, body, out); err != nil {
		b.t.Fatal(err)
	}
}

func (b *browser) open(url string) {
	b.t.Helper()
	b.post("/url", map[string]any{"url": url}, nil)
}

// run runs JavaScript with a return statement in the page, and decodes what it returns, or what the promise is kept
// with.
func (b *browser) run(out any, script string, args ...any) {
	b.t.Helper()
	if args == nil {
		args = []any{}
	}
	b.post("/execute/sync", map[string]any{"script": script, "args": args}, out)
}

// value is a text that an expression of JavaScript has.
func (b *browser) value(expression string, args ...any) string {
	b.t.Helper()
	var s string
	b.run(&s, "return String("+expression+")", args...)
	return s
}

// shows waits until the text of the first element that a selector finds has all words.
func (b *browser) shows(selector string, words ...string) {
	b.t.Helper()
	eventually(b.t, func() error {
		text := b.value("document.querySelector(arguments[0])?.textContent", selector)
		for _, w := range words {
			if !strings.Contains(text, w) {
				return fmt.Errorf("%s lacks %q: %s\nthe page says %s", selector, w, text, b.said())
			}
		}
		return nil
	})
}

// said is what the page has told last.
func (b *browser) said() string {
	b.t.Helper()
	return b.value(`[...document.querySelectorAll("#said, #alarm")].map(e => e.textContent).join(" ")`)
}

// click clicks, as a user would, on the element that a selector finds once there is one.
func (b *browser) click(selector string) {
	b.t.Helper()
	eventually(b.t, func() error {
		var e map[string]string
		if err := b.request(http.MethodPost, b.session+"/element", map[string]any{
			"using": "css selector", "value": selector}, &e); err != nil {
			return err
		}
		return b.request(http.MethodPost, b.session+"/element/"+e[elementKey]+"/click", nil, nil)
	})
}

// asks clicks on what has the page ask a question. A driver clicks at the place where the element was when it was
// looked for: where rows come and go, another may be there by then.
func (b *browser) asks(selector, question string) {
	b.t.Helper()
	eventually(b.t, func() error {
		b.click(selector)
		asked := b.value(`document.querySelector("#confirm[open] #confirm-title")?.textContent ?? ""`)
		if asked != question {
			b.run(nil, `document.getElementById("confirm").close("cancel")`)
			return fmt.Errorf("the page asks %q, want %q", asked, question)
		}
		return nil
	})
}

// press presses keys one after another, wherever the focus is.
func (b *browser) press(keys ...string) {
	b.t.Helper()
	var actions []map[string]any
	for _, text := range keys {
		for _, k := range text {
			actions = append(actions, map[string]any{"type": "keyDown", "value": string(k)},
				map[string]any{"type": "keyUp", "value": string(k)})
		}
	}
	b.post("/actions", map[string]any{"actions": []any{
		map[string]any{"type": "key", "id": "keyboard", "actions": actions},
	}}, nil)
}

// devtools calls a method of Chromium's own protocol (https://chromedevtools.github.io/devtools-protocol/).
func (b *browser) devtools(method string, params map[string]any, out any) {
	b.t.Helper()
	if params == nil {
		params = map[string]any{}
	}
	b.post("/goog/cdp/execute", map[string]any{"cmd": method, "params": params}, out)
}

// prefers sets what the user prefers, such as "prefers-color-scheme", "dark".
func (b *browser) prefers(features ...string) {
	b.t.Helper()
	list := []map[string]string{}
	for i := 0; i < len(features); i += 2 {
		list = append(list, map[string]string{"name": features[i], "value": features[i+1]})
	}
	b.devtools("Emulation.setEmulatedMedia", map[string]any{"features": list}, nil)
}

// maxScreenshot bounds a file in docs/, in bytes.
const maxScreenshot = 150_000

// screenshot takes a picture of the whole page, and writes it to the directory USERNET_SCREENSHOTS where that is given.
func (b *browser) screenshot(name string) {
	b.t.Helper()
	var shot struct{ Data []byte }
	b.devtools("Page.captureScreenshot", map[string]any{"captureBeyondViewport": true}, &shot)
	picture, err := png.Decode(bytes.NewReader(shot.Data))
	if err != nil {
		b.t.Fatal(err)
	}
	var small bytes.Buffer
	encoder := png.Encoder{CompressionLevel: png.BestCompression}
	if err := encoder.Encode(&small, fewColours(picture)); err != nil {
		b.t.Fatal(err)
	}
	if small.Len() > maxScreenshot {
		b.t.Errorf("the screenshot %s has %d bytes; %d are the most", name, small.Len(), maxScreenshot)
	}
	if dir := os.Getenv("USERNET_SCREENSHOTS"); dir != "" {
		if err := os.WriteFile(filepath.Join(dir, name+".png"), small.Bytes(), 0o644); err != nil {
			b.t.Error(err)
		}
	}
}

// fewColours is a picture with the 256 colours that are there most, and the nearest of these for all others.
func fewColours(p image.Image) *image.Paletted {
	counts := map[color.Color]int{}
	at := p.Bounds()
	for y := at.Min.Y; y < at.Max.Y; y++ {
		for x := at.Min.X; x < at.Max.X; x++ {
			counts[p.At(x, y)]++
		}
	}
	palette := slices.SortedFunc(maps.Keys(counts), func(a, b color.Color) int { return counts[b] - counts[a] })
	palette = palette[:min(len(palette), 256)]
	few := image.NewPaletted(at, palette)
	index := map[color.Color]uint8{}
	for y := at.Min.Y; y < at.Max.Y; y++ {
		for x := at.Min.X; x < at.Max.X; x++ {
			c := p.At(x, y)
			i, known := index[c]
			if !known {
				i = uint8(few.Palette.Index(c))
				index[c] = i
			}
			few.SetColorIndex(x, y, i)
		}
	}
	return few
}

// closeOtherWindows says how many windows and tabs there are, and closes those beyond the first.
func (b *browser) closeOtherWindows() (count int) {
	b.t.Helper()
	var list []string
	if err := b.request(http.MethodGet, b.session+"/window/handles", nil, &list); err != nil {
		b.t.Fatal(err)
	}
	for _, h := range list[1:] {
		b.post("/window", map[string]any{"handle": h}, nil)
		if err := b.request(http.MethodDelete, b.session+"/window", nil, nil); err != nil {
			b.t.Fatal(err)
		}
	}
	b.post("/window", map[string]any{"handle": list[0]}, nil)
	return len(list)
}

// axNode is one of the accessibility tree: what a screen reader is told.
type axNode struct{ role, name string }

// accessible are the nodes of the page's accessibility tree.
func (b *browser) accessible() map[axNode]int {
	b.t.Helper()
	var tree struct {
		Nodes []struct {
			Ignored    bool
			Role, Name struct{ Value any }
		}
	}
	b.devtools("Accessibility.getFullAXTree", nil, &tree)
	nodes := map[axNode]int{}
	for _, n := range tree.Nodes {
		if !n.Ignored {
			nodes[axNode{text(n.Role.Value), text(n.Name.Value)}]++
		}
	}
	return nodes
}

func text(v any) string {
	if v == nil {
		return ""
	}
	return fmt.Sprint(v)
}

// tabTo presses Tab until the focused element's accessible name is one, as a keyboard's user would.
func (b *browser) tabTo(name string) {
	b.t.Helper()
	var seen []string
	for deadline := time.Now().Add(patience); len(seen) < 80 && time.Now().Before(deadline); {
		b.press(keyTab)
		at := b.focused()
		if at == name {
			return
		}
		seen = append(seen, at)
	}
	b.t.Fatalf("Tab does not lead to %q, but to %q", name, seen)
}

// focused is the name of what has the focus; it fails where that is not seen.
func (b *browser) focused() string {
	b.t.Helper()
	var f struct {
		Name    string
		Visible bool
	}
	b.run(&f, `if (document.activeElement === document.body) { return {Name: "", Visible: true}; } // nothing has
		const e = document.activeElement, label = e.labels?.[0]?.textContent, box = e.querySelector("rect") ?? e;
		const by = e.getAttribute("aria-labelledby");
		return {Name: e.getAttribute("aria-label") ?? label ?? (by ? document.getElementById(by) : e).textContent.trim(),
			Visible: getComputedStyle(e).outlineStyle !== "none" || parseFloat(getComputedStyle(box).strokeWidth) >= 3}`)
	if !f.Visible && f.Name != "" {
		b.t.Errorf("it is not seen that %q has the focus", f.Name)
	}
	return f.Name
}
