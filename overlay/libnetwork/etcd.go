package libnetwork

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/usernet/usernet/overlay/kv"
)

// etcd is a Store in etcd by version 2 of its API, which Docker's daemons speak; a server of version 3 has it with
// --enable-v2. Answers are bounded, which those of the client of that version are not.
type etcd struct {
	hosts          []string // http://host:port
	prefix         string
	user, password string
	client         *http.Client // without a limit of its own: calls have a context
}

// Error codes of version 2 of the API.
const (
	etcdNotFound   = 100
	etcdTestFailed = 101
	etcdNodeExists = 105
)

// etcdRetry is how long a watch waits after an error.
const etcdRetry = time.Second

func newEtcd(l kv.Location) (*etcd, error) {
	config, err := l.TLSConfig()
	if err != nil {
		return nil, err
	}
	scheme := "http"
	if l.TLS {
		scheme = "https"
	}
	s := &etcd{prefix: l.Prefix, user: l.User, password: l.Password}
	for _, h := range l.Hosts {
		s.hosts = append(s.hosts, scheme+"://"+h)
	}
	s.client = &http.Client{Transport: newTransport(config)}
	return s, nil
}

func newTransport(config *tls.Config) *http.Transport {
	return &http.Transport{TLSClientConfig: config, MaxIdleConnsPerHost: 4, IdleConnTimeout: time.Minute}
}

// etcdAnswer is an answer to any call.
type etcdAnswer struct {
	ErrorCode int      `json:"errorCode"`
	Message   string   `json:"message"`
	Node      etcdNode `json:"node"`
	index     uint64   // of the store
}

type etcdNode struct {
	Key      string     `json:"key"`
	Value    string     `json:"value"`
	Dir      bool       `json:"dir"`
	Nodes    []etcdNode `json:"nodes"`
	Modified uint64     `json:"modifiedIndex"`
}

// call asks the servers in turn until one answers.
func (s *etcd) call(ctx context.Context, method, key string, query url.Values) (etcdAnswer, error) {
	var errs []error
	for _, h := range s.hosts {
		a, err := s.ask(ctx, h, method, key, query)
		if err == nil {
			return a, a.err()
		}
		errs = append(errs, err)
		if ctx.Err() != nil {
			break
		}
	}
	return etcdAnswer{}, errors.Join(errs...)
}

func (s *etcd) ask(ctx context.Context, host, method, key string, query url.Values) (etcdAnswer, error) {
	var body io.Reader
	u := url.URL{Path: "/v2/keys/" + join(s.prefix, key)}
	if method == http.MethodPut {
		body = strings.NewReader(query.Encode())
	} else {
		u.RawQuery = query.Encode()
	}
	request, err := http.NewRequestWithContext(ctx, method, host+u.String(), body)
	if err != nil {
		return etcdAnswer{}, err
	}
	if body != nil {
		request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	if s.user != "" {
		request.SetBasicAuth(s.user, s.password)
	}
	ended := func(err error) error {
		if ctx.Err() != nil { // its cause says more than the error that Go makes of it
			return fmt.Errorf("etcd at %s: %w", host, context.Cause(ctx))
		}
		return err
	}
	response, err := s.client.Do(request)
	if err != nil {
		return etcdAnswer{}, ended(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer+1))
	switch {
	case err != nil:
		return etcdAnswer{}, ended(err)
	case len(text) > maxAnswer:
		return etcdAnswer{}, errTooMuch
	}
	var a etcdAnswer
	a.index, _ = strconv.ParseUint(response.Header.Get("X-Etcd-Index"), 10, 64)
	if len(text) == 0 && response.StatusCode == http.StatusOK { // a watch that the server has ended
		return a, nil
	}
	if err := json.Unmarshal(text, &a); err != nil || response.StatusCode >= 400 && a.ErrorCode == 0 {
		return etcdAnswer{}, fmt.Errorf("etcd at %s: %s to version 2 of its API; is it on (--enable-v2)?", host,
			response.Status)
	}
	return a, nil
}

// err is what an answer says went wrong.
func (a etcdAnswer) err() error {
	switch a.ErrorCode {
	case 0:
		return nil
	case etcdNotFound:
		return ErrNotFound
	case etcdTestFailed, etcdNodeExists:
		return ErrConflict
	}
	return fmt.Errorf("etcd: %.200s (error %d)", a.Message, a.ErrorCode)
}

// Get implements Store.
func (s *etcd) Get(ctx context.Context, key string) (Pair, error) {
	a, err := s.call(ctx, http.MethodGet, key, url.Values{"quorum": {"true"}})
	if err == nil && a.Node.Dir {
		err = ErrNotFound
	}
	if err != nil {
		return Pair{}, err
	}
	return s.pair(a.Node)
}

func (s *etcd) pair(n etcdNode) (Pair, error) {
	if len(n.Value) > maxValue {
		return Pair{}, errTooMuch
	}
	key := strings.TrimPrefix(strings.Trim(n.Key, "/"), s.prefix)
	return Pair{Key: strings.Trim(key, "/"), Value: []byte(n.Value), Index: n.Modified}, nil
}

// List implements Store.
func (s *etcd) List(ctx context.Context, dir string) ([]Pair, error) {
	a, err := s.call(ctx, http.MethodGet, dir, url.Values{"quorum": {"true"}, "recursive": {"true"}})
	if errors.Is(err, ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var list []Pair
	todo := a.Node.Nodes
	for len(todo) > 0 {
		n := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if n.Dir {
			todo = append(todo, n.Nodes...)
			continue
		}
		p, err := s.pair(n)
		if err != nil || len(list) == maxPairs {
			return nil, errTooMuch
		}
		list = append(list, p)
	}
	return list, nil
}

// Put implements Store.
func (s *etcd) Put(ctx context.Context, key string, value []byte, index uint64) error {
	form := url.Values{"value": {string(value)}, "prevExist": {"false"}}
	if index != 0 {
		form = url.Values{"value": {string(value)}, "prevIndex": {strconv.FormatUint(index, 10)}}
	}
	_, err := s.call(ctx, http.MethodPut, key, form)
	if errors.Is(err, ErrNotFound) {
		return ErrConflict
	}
	return err
}

// Delete implements Store.
func (s *etcd) Delete(ctx context.Context, key string, index uint64) error {
	_, err := s.call(ctx, http.MethodDelete, key, url.Values{"prevIndex": {strconv.FormatUint(index, 10)}})
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	return err
}

// Beat implements Store.
func (s *etcd) Beat(ctx context.Context, key, value string, ttl time.Duration) error {
	_, err := s.call(ctx, http.MethodPut, key, url.Values{"value": {value},
		"ttl": {strconv.Itoa(int(ttl.Seconds()))}})
	return err
}

// Watch implements Store. Each wait is a request that the server answers with the next change.
func (s *etcd) Watch(ctx context.Context, dir string, changed func()) {
	next := uint64(0) // the index from which changes are told; 0: not known
	for ctx.Err() == nil {
		if next == 0 {
			a, err := s.position(ctx, dir)
			if err != nil {
				kv.Sleep(ctx, etcdRetry)
				continue
			}
			next = a + 1
			changed()
		}
		a, err := s.call(ctx, http.MethodGet, dir, url.Values{
			"wait": {"true"}, "recursive": {"true"}, "waitIndex": {strconv.FormatUint(next, 10)},
		})
		switch {
		case err != nil:
			next = 0 // the events after it may not be kept any more (error 401)
			kv.Sleep(ctx, etcdRetry/10)
		case a.Node.Modified >= next:
			next = a.Node.Modified + 1
			changed()
		}
	}
}

// position is the store's index now.
func (s *etcd) position(ctx context.Context, dir string) (uint64, error) {
	ctx, cancel := within(ctx, callTimeout)
	defer cancel()
	for _, h := range s.hosts {
		if a, err := s.ask(ctx, h, http.MethodGet, dir, nil); err == nil && a.index > 0 {
			return a.index, nil
		}
	}
	return 0, errors.New("no server of etcd answers")
}

// Close implements Store.
func (s *etcd) Close() error {
	s.client.CloseIdleConnections()
	return nil
}
