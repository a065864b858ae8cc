package main

import (
	"fmt"
	"maps"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"text/template"
	"time"

	"github.com/moby/moby/api/types/events"
	"github.com/spf13/cobra"

	"github.com/usernet/usernet/api"
)

// eventsCommand is `events`, and with kind "network" `network events`, which shows only these.
func eventsCommand(kind string) *cobra.Command {
	var since, until, format string
	var filter []string
	short := "Show events as they happen"
	if kind != "" {
		short = "Show events of networks as they happen"
	}
	c := &cobra.Command{
		Use:   "events [flags]",
		Short: short,
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			f, err := parseFilters(filter)
			if err != nil {
				return err
			}
			if kind != "" {
				f["type"] = []string{kind}
			}
			var t *template.Template
			switch format {
			case "":
			case "json":
				format = "{{json .}}"
				fallthrough
			default:
				if t, err = parseTemplate(format); err != nil {
					return err
				}
			}
			cl, err := client()
			if err != nil {
				return err
			}
			ctx, stop := signal.NotifyContext(c.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			return cl.Events(
				ctx,
				api.EventOptions{Since: since, Until: until, Filters: f},
				func(m events.Message) error {
					if t == nil {
						_, err := fmt.Println(eventLine(m))
						return err
					}
					if err := t.Execute(os.Stdout, m); err != nil {
						return fmt.Errorf("template: %w", err)
					}
					_, err := fmt.Println()
					return err
				},
			)
		}}
	c.Flags().StringVar(
		&since,
		"since",
		"",
		"begin with what happened since then: a date, or how long ago, such as 10m",
	)
	c.Flags().StringVar(&until, "until", "", "end then")
	c.Flags().StringVar(&format, "format", "", "json or TEMPLATE")
	c.Flags().StringArrayVarP(&filter, "filter", "f", nil, "show those that match: KEY=VALUE")
	return c
}

// eventLine is Docker's line for an event.
func eventLine(m events.Message) string {
	s := fmt.Sprintf("%s %s %s %s", time.Unix(0, m.TimeNano).Format(logTime), m.Type, m.Action, m.Actor.ID)
	var list []string
	for _, k := range slices.Sorted(maps.Keys(m.Actor.Attributes)) {
		list = append(list, k+"="+m.Actor.Attributes[k])
	}
	if len(list) > 0 {
		s += " (" + strings.Join(list, ", ") + ")"
	}
	return s
}
