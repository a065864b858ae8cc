package network

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// TestHealth follows a container through results of its check: + is success, - failure, each a second after the one
// before.
func TestHealth(t *testing.T) {
	started := time.Now()
	for name, test := range map[string]struct {
		period  time.Duration
		results string
		want    string
	}{
		"none yet":                    {0, "", "starting 0"},
		"success":                     {0, "+", "healthy 0"},
		"too few failures":            {0, "--", "starting 2"},
		"failures":                    {0, "---", "unhealthy 3"},
		"failures that go on":         {0, "-----", "unhealthy 5"},
		"better again":                {0, "---+", "healthy 0"},
		"a success between":           {0, "+--+--", "healthy 2"},
		"failures while it starts":    {4 * time.Second, "----", "starting 0"},
		"failures after its start":    {2 * time.Second, "-----", "unhealthy 3"},
		"a start that succeeds early": {9 * time.Second, "+---", "unhealthy 3"},
	} {
		check := HealthCheck{StartPeriod: test.period}.WithDefaults()
		h := Health{Status: HealthStarting}
		for i, r := range test.results {
			at := started.Add(time.Duration(i) * time.Second)
			h = h.After(check, started, HealthResult{Start: at, ExitCode: strings.IndexRune("+-", r)})
		}
		if got := fmt.Sprint(h.Status, " ", h.FailingStreak); got != test.want {
			t.Errorf("%s: %s, want %s", name, got, test.want)
		}
		if len(h.Log) != min(len(test.results), KeptHealthResults) {
			t.Errorf("%s: %d results are kept", name, len(h.Log))
		}
	}
}

func TestTimeToTheNextHealthCheck(t *testing.T) {
	started := time.Now()
	check := HealthCheck{Interval: time.Minute, StartPeriod: 10 * time.Second, StartInterval: time.Second}
	for _, test := range []struct {
		status HealthStatus
		after  time.Duration
		want   time.Duration
	}{
		{HealthStarting, 0, time.Second},
		{HealthStarting, 10 * time.Second, time.Minute},
		{HealthHealthy, 0, time.Minute},
		{HealthUnhealthy, time.Hour, time.Minute},
	} {
		if got := (Health{Status: test.status}).Wait(check, started, started.Add(test.after)); got != test.want {
			t.Errorf("%s after %s: %s, want %s", test.status, test.after, got, test.want)
		}
	}
}

func TestHealthChecksThatMakeNoSense(t *testing.T) {
	for text, h := range map[string]HealthCheck{
		"":                        {Command: "true", Interval: time.Second},
		"Interval in Healthcheck": {Interval: time.Microsecond},
		"Timeout in Healthcheck":  {Timeout: -1},
		"cannot be negative":      {Retries: -1},
	} {
		if err := h.Check(); (err == nil) != (text == "") || err != nil && !strings.Contains(err.Error(), text) {
			t.Errorf("%+v: %v", h, err)
		}
	}
}
