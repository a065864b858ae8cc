package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"regexp"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/usernet/usernet/api"
	"github.com/usernet/usernet/docs"
	"github.com/usernet/usernet/internal/errdefs"
	"github.com/usernet/usernet/network"
	"github.com/usernet/usernet/sandbox"
)

// seeTopic is before the topic at the end of an error.
const seeTopic = "See: usernet explain "

func explainCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "explain [TOPIC]",
		Short: "Show what an error means and what to do: a section of docs/troubleshooting.md",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				for _, s := range docs.Sections(docs.Troubleshooting) {
					fmt.Printf("%-46s %s\n", s.Anchor, s.Heading)
				}
				return nil
			}
			want := strings.ToLower(strings.TrimPrefix(args[0], "#"))
			for _, s := range docs.Sections(docs.Troubleshooting) {
				if s.Anchor == want {
					fmt.Printf("%s\n\n%s\n\n(docs/troubleshooting.md#%s)\n", s.Heading, plainText(s.Text), s.Anchor)
					return nil
				}
			}
			return fmt.Errorf("there is no topic %q: `usernet explain` lists them", args[0])
		},
	}
}

// plainText is a section for a terminal: links are named by the page of docs/ that they lead to.
func plainText(text string) string {
	links := regexp.MustCompile(`\[([^]]+)\]\(([^)]*)\)`)
	text = links.ReplaceAllStringFunc(text, func(link string) string {
		m := links.FindStringSubmatch(link)
		if topic, here := strings.CutPrefix(m[2], "#"); here {
			return m[1] + " (usernet explain " + topic + ")"
		}
		return m[1] + " (docs/" + m[2] + ")"
	})
	return strings.NewReplacer("**", "", "`", "").Replace(text)
}

// topics complete the argument of explain.
var topics = completer{names: func(context.Context, *api.Client) []string {
	var list []string
	for _, s := range docs.Sections(docs.Troubleshooting) {
		list = append(list, s.Anchor)
	}
	return list
}}

// noSuchObject says that there is neither a container nor a network of that name.
func noSuchObject(ref string) error { return errdefs.NotFound("no such object: %s", ref) }

// topicOf is the topic of an error that a command ends with.
func topicOf(err error) errdefs.Topic {
	var given interface{ TopicOf() errdefs.Topic }
	var exit *sandbox.ExitError
	var number syscall.Errno
	var path *fs.PathError
	switch {
	case errors.As(err, &given):
		return given.TopicOf()
	case errors.Is(err, api.ErrNoDaemon):
		return errdefs.TopicNoDaemon
	case errors.Is(err, api.ErrDaemonEnded):
		return errdefs.TopicDaemonEnded
	case errors.Is(err, network.ErrLocked), errors.Is(err, errInUse):
		return errdefs.TopicOtherDaemon
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, api.ErrDaemonSilent):
		return errdefs.TopicDaemonHangs
	case errors.As(err, &exit) && exit.Code > 125:
		return errdefs.TopicCommand
	case errors.As(err, &exit), errors.As(err, &number), errors.As(err, &path):
		return errdefs.TopicInternal
	case errdefs.Classified(err):
		return errdefs.TopicOf(err)
	}
	return errdefs.TopicUsage // the rest is what commands say about their arguments
}
