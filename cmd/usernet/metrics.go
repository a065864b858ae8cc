package main

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/spf13/pflag"

	"github.com/usernet/usernet/api"
)

// metricsOptions say where metrics are served beside the API's socket.
type metricsOptions struct {
	address, tokenFile string
	token              string // read from tokenFile
}

func (o *metricsOptions) add(f *pflag.FlagSet) {
	f.StringVar(&o.address, "metrics-listen", "", "serve metrics for Prometheus at this TCP `ADDRESS:PORT` as well")
	f.StringVar(&o.tokenFile, "metrics-token-file", "",
		"`FILE` with the token that is wanted there: Authorization: Bearer TOKEN")
}

// minToken is the least length of a token: 16 characters of base64 are 96 bits.
const minToken = 16

// check reads the token. It is called before the daemon gives up its files.
func (o *metricsOptions) check() error {
	switch {
	case o.address == "" && o.tokenFile == "":
		return nil
	case o.address == "":
		return errors.New("--metrics-token-file is for --metrics-listen: give both or none")
	case o.tokenFile == "":
		return errors.New("--metrics-listen needs --metrics-token-file, since everybody on this machine may connect there: " +
			"head -c 24 /dev/urandom | base64 >FILE; chmod 600 FILE")
	}
	info, err := os.Stat(o.tokenFile)
	if err != nil {
		return fmt.Errorf("token of metrics: %w", err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return fmt.Errorf("token of metrics: others can read %s: chmod 600 %s", o.tokenFile, o.tokenFile)
	}
	text, err := os.ReadFile(o.tokenFile)
	if err != nil {
		return fmt.Errorf("token of metrics: %w", err)
	}
	if o.token = strings.TrimSpace(string(text)); len(o.token) < minToken {
		return fmt.Errorf("token of metrics: the one in %s has %d characters; %d are the least", o.tokenFile, len(o.token),
			minToken)
	}
	return nil
}

// predecessorWait is how long a daemon that has taken over tries to listen where the one before still does.
const predecessorWait = 30 * time.Second

// metricsServer serves metrics until close.
type metricsServer struct {
	server *http.Server
	ended  chan struct{} // closed by close
	wg     sync.WaitGroup
}

// serve begins; a nil server is one that serves nothing. takeover says that another daemon may still listen there.
func (o *metricsOptions) serve(b api.Backend, log *slog.Logger, takeover bool) (*metricsServer, error) {
	if o.address == "" {
		return nil, nil
	}
	s := &metricsServer{server: api.MetricsServer(b, o.token, log), ended: make(chan struct{})}
	l, err := net.Listen("tcp", o.address)
	if err != nil && !takeover {
		return nil, fmt.Errorf("metrics: %w: choose another --metrics-listen", err)
	}
	s.wg.Go(func() {
		for began := time.Now(); err != nil; l, err = net.Listen("tcp", o.address) {
			if time.Since(began) > predecessorWait {
				log.Error("metrics are not served", "address", o.address, "error", err)
				return
			}
			select {
			case <-s.ended:
				return
			case <-time.After(100 * time.Millisecond):
			}
		}
		log.Info("metrics are served", "address", l.Addr().String())
		if err := s.server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			log.Error("metrics are not served any more", "error", err)
		}
	})
	return s, nil
}

func (s *metricsServer) close() {
	if s == nil {
		return
	}
	close(s.ended)
	_ = s.server.Close()
	s.wg.Wait()
}
