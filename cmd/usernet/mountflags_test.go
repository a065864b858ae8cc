package main

import (
	"fmt"
	"strings"
	"testing"

	"github.com/usernet/usernet/internal/errdefs"
)

func TestVolumes(t *testing.T) {
	t.Chdir("/")
	for text, want := range map[string]string{
		"/a:/b":             "{/a /b false}",
		"./a:/b/../c:ro":    "{/a /c true}",
		"/a:/b:rw,rprivate": "{/a /b false}",
		"/a":                "!give SOURCE:TARGET",
		":/b":               "!give SOURCE:TARGET",
		"/a:/b:ro:x":        "!give SOURCE:TARGET",
		"/a:/b:Z":           "!mode",
		"/a:b":              "!must be absolute",
		"/a:/proc":          "!inside /proc",
		"/a:/x/..":          "!destination can't be '/'",
		"name:/b":           "!no named volumes",
	} {
		v, err := parseVolume(text)
		got := fmt.Sprint(v)
		words, fails := strings.CutPrefix(want, "!")
		if fails && (err == nil || !strings.Contains(err.Error(), words)) || !fails && (err != nil || got != want) {
			t.Errorf("%s: %s, %v, want %s", text, got, err, want)
		}
	}
}

func TestTmpfs(t *testing.T) {
	for text, want := range map[string]string{
		"/a":                     "{/a map[] false false false}",
		"/a:size=1m,mode=0700":   "{/a map[mode:0700 size:1m] false false false}",
		"/a:exec,suid,ro,rw":     "{/a map[] true true true}",
		"/a:noexec,nosuid,nodev": "{/a map[] false false false}",
		"a":                      "!must be absolute",
		"/a:colour=red":          "!colour=red",
		"/a:size":                "!with a value",
		"/a:size=zzz":            "!size is bytes",
		"/a:size=50%,uid=0,gid=7,nr_inodes=1K,nr_blocks=9": "{/a map[gid:7 nr_blocks:9 nr_inodes:1K size:50% uid:0] " +
			"false false false}",
		"/a:mode=8":               "!mode is an octal number",
		"/a:uid=root":             "!uid is a number",
		"/a:nr_inodes=":           "!nr_inodes is a number",
		"/proc/sys:size=1m":       "!inside /proc",
		"/a:huge=always,size=16k": "!huge=always",
	} {
		v, err := parseTmpfs(text)
		if topic := topicOf(err); err != nil && topic != errdefs.TopicUsage {
			t.Errorf("%s: %v leads to the topic %s", text, err, topic)
		}
		got := fmt.Sprint(v)
		words, fails := strings.CutPrefix(want, "!")
		if fails && (err == nil || !strings.Contains(err.Error(), words)) || !fails && (err != nil || got != want) {
			t.Errorf("%s: %s, %v, want %s", text, got, err, want)
		}
	}
}
