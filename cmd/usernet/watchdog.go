package main

import (
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"time"

	sd "github.com/coreos/go-systemd/v22/daemon"

	"github.com/usernet/usernet/internal/watchdog"
)

// mostBetweenRounds is how often the daemon looks for what hangs where the service manager would be content with less.
const mostBetweenRounds = 5 * time.Second

// serviceWatchdog tells the service manager that the daemon lives, at half of the time after which the manager would
// end it (systemd.service(5), WatchdogSec=; sd_watchdog_enabled(3)). Where no manager asks, hangs are only logged.
//
// WATCHDOG_PID names the process that the manager started. It is not compared with this one: a daemon that takes
// another's place inside the same service (MAINPID=) is watched in its stead, and to others the variable is not passed.
func serviceWatchdog(log *slog.Logger) (watchdog.Config, error) {
	text := os.Getenv("WATCHDOG_USEC")
	if text == "" || os.Getenv("NOTIFY_SOCKET") == "" {
		return watchdog.Config{}, nil
	}
	µs, err := strconv.ParseInt(text, 10, 64)
	if err != nil || µs <= 0 {
		return watchdog.Config{}, fmt.Errorf("WATCHDOG_USEC=%q is no time in microseconds", text)
	}
	return watchdog.Config{
		Interval: min(time.Duration(µs)*time.Microsecond/2, mostBetweenRounds),
		Alive:    func() { notify(log, sd.SdNotifyWatchdog) },
	}, nil
}
