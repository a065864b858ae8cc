package main

import (
	"slices"
	"testing"

	"github.com/usernet/usernet/internal/errdefs"
	"github.com/usernet/usernet/sandbox"
)

func TestDoctorNamesPingSocketsOnce(t *testing.T) {
	var d doctor
	d.warned("ping sockets are not allowed for this user")
	d.lacks(sandbox.Requirement{Name: "ping sockets", Detail: "not allowed for group 1000"})
	d.lacks(sandbox.Requirement{Name: "user namespaces", Detail: "cannot be made"})
	d.lacks(sandbox.Requirement{Name: "user namespaces", Detail: "nothing can be mounted in them"})
	var got []errdefs.Topic
	for _, p := range d.problems {
		got = append(got, p.topic)
	}
	if want := []errdefs.Topic{errdefs.TopicPing, errdefs.TopicNamespaces, errdefs.TopicNamespaces}; !slices.Equal(got,
		want) {
		t.Errorf("problems %v, want %v", got, want)
	}
}

func TestSecretsAreTakenOutOfTexts(t *testing.T) {
	var r redactor
	r.add("hunter2", "hunter22", "abc", " s3cr3t\n")
	for text, want := range map[string]string{
		"the word hunter2 and hunter22":                      "the word (left out) and (left out)",
		"abc is too short to be looked for":                  "abc is too short to be looked for",
		"x=s3cr3t":                                           "x=(left out)",
		"etcd://root:pw@192.0.2.4:2379":                      "etcd://(left out)@192.0.2.4:2379",
		"https://token@host/path":                            "https://(left out)@host/path",
		"token-file = (left out), 21 bytes":                  "token-file = (left out), 21 bytes",
		"password=open sesame":                               "password=(left out) sesame",
		`"password": "open sesame", "other": 1`:              `"password": (left out), "other": 1`,
		`METRICS_TOKEN='a b' next`:                           `METRICS_TOKEN=(left out) next`,
		"Authorization: Bearer 0123456789abcdef":             "Authorization: Bearer (left out)",
		"http://127.0.0.1:1234/#token=abcdef":                "http://127.0.0.1:1234/(left out)",
		"key dGhpcyBpcyBhIGtleSBvZiAzMiBieXRlcywgeWVzISE=":   "key (left out)",
		"level=INFO msg=\"container started\" container=web": "level=INFO msg=\"container started\" container=web",
	} {
		if got := r.clean(text); got != want {
			t.Errorf("%s\nbecomes %s\nwant    %s", text, got, want)
		}
	}
}
