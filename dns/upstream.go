package dns

import (
	"errors"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/fsnotify/fsnotify"
	"github.com/miekg/dns"
)

// Upstreams are the host's resolvers, as a file of resolv.conf(5)'s form names them now.
type Upstreams struct {
	path    string
	log     *slog.Logger
	watcher *fsnotify.Watcher // nil where the system gives none: then the file is looked at when it is needed
	done    chan struct{}

	mu      sync.Mutex
	checked time.Time
	servers []string
	search  []string
	changed func()
}

// NewUpstreams reads path and follows it from there: when it is written, replaced, or when it is a link, when the
// link or what it leads to is.
func NewUpstreams(path string, log *slog.Logger) *Upstreams {
	u := &Upstreams{path: path, log: log, done: make(chan struct{})}
	w, err := fsnotify.NewWatcher()
	if err != nil {
		log.Warn(
			"changes of the host's resolvers are noticed late: no inotify instance is left for this user (sysctl fs.inotify.max_user_instances)",
			"error",
			err,
		)
		close(u.done)
		u.read()
		return u
	}
	u.watcher = w
	u.watch()
	u.read()
	go u.follow()
	return u
}

// OnChange has f called after the servers have changed.
func (u *Upstreams) OnChange(f func()) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.changed = f
}

// Close frees what NewUpstreams took.
func (u *Upstreams) Close() error {
	if u.watcher == nil {
		return nil
	}
	err := u.watcher.Close()
	<-u.done
	return err
}

// watch watches the directories of all links on the way to the file, and its own; and the file itself, whose directory
// tells nothing of it where it is mounted over another, as in containers.
func (u *Upstreams) watch() {
	want := map[string]bool{}
	path := u.path
	for range 8 { // links that lead in a circle lead nowhere
		want[filepath.Dir(path)] = true
		to, err := os.Readlink(path)
		if err != nil {
			break
		}
		if !filepath.IsAbs(to) {
			to = filepath.Join(filepath.Dir(path), to)
		}
		path = to
	}
	want[path] = true
	for _, name := range u.watcher.WatchList() {
		if !want[name] || name == path { // a file of this name may be another now
			_ = u.watcher.Remove(name) // it may be gone
		}
	}
	for name := range want {
		if err := u.watcher.Add(name); err != nil {
			u.log.Debug("not watched", "path", name, "error", err)
		}
	}
}

// follow reads the file again after each change near it.
func (u *Upstreams) follow() {
	defer close(u.done)
	for {
		select {
		case _, ok := <-u.watcher.Events:
			if !ok {
				return
			}
		case err, ok := <-u.watcher.Errors:
			if !ok {
				return
			}
			u.log.Warn("watching the host's resolvers", "error", err)
		}
		u.watch()
		u.read()
	}
}

// read reads the file.
func (u *Upstreams) read() {
	var servers, search []string
	cfg, err := dns.ClientConfigFromFile(u.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		u.log.Warn("the host's resolvers cannot be read; those from before are asked on", "path", u.path, "error", err)
		return
	default:
		search = cfg.Search
		for _, s := range cfg.Servers {
			servers = append(servers, net.JoinHostPort(s, cfg.Port))
		}
	}
	u.mu.Lock()
	same := slices.Equal(servers, u.servers) && slices.Equal(search, u.search)
	u.servers, u.search, u.checked = servers, search, time.Now()
	changed := u.changed
	u.mu.Unlock()
	if same {
		return
	}
	u.log.Info("the host's resolvers", "servers", servers, "search", search)
	if changed != nil {
		changed()
	}
}

// refresh looks at the file where nobody watches it, at most once a second.
func (u *Upstreams) refresh() {
	if u.watcher != nil {
		return
	}
	u.mu.Lock()
	old := time.Since(u.checked) > time.Second
	u.mu.Unlock()
	if old {
		u.read()
	}
}

// Servers are the host's resolvers, with ports.
func (u *Upstreams) Servers() []string {
	u.refresh()
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.servers
}

// Search are the host's search domains.
func (u *Upstreams) Search() []string {
	u.refresh()
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.search
}
