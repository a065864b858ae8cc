package main

import (
	"fmt"
	"log/slog"
	"os"

	"github.com/usernet/usernet/internal/logevents"
)

// logger writes to standard error.
func logger(level, format string) (*slog.Logger, error) {
	var l slog.Level
	if err := l.UnmarshalText([]byte(level)); err != nil {
		return nil, fmt.Errorf("log level %q: give debug, info, warn or error", level)
	}
	opts := &slog.HandlerOptions{Level: l}
	switch format {
	case "text":
		return slog.New(logevents.New(slog.NewTextHandler(os.Stderr, opts))), nil
	case "json":
		return slog.New(logevents.New(slog.NewJSONHandler(os.Stderr, opts))), nil
	}
	return nil, fmt.Errorf("log format %q: give text or json", format)
}
