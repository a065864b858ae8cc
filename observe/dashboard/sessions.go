package dashboard

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"sync"
	"time"
)

const (
	linkLife    = 5 * time.Minute // of a link that nobody has used
	sessionIdle = time.Hour       // after which a page that asks for nothing has to be opened by a new link
	maxSessions = 8               // pages that are open; one more ends the one that has been idle for longest
)

// secret is 256 random bits as text.
func secret() string {
	b := make([]byte, 32)
	_, _ = rand.Read(b) // it never fails: crypto/rand
	return base64.RawURLEncoding.EncodeToString(b)
}

// digest of a secret: of one length, so that comparing two tells nothing.
type digest [sha256.Size]byte

func digestOf(s string) digest { return sha256.Sum256([]byte(s)) }

func (d digest) is(s string) bool {
	other := digestOf(s)
	return subtle.ConstantTimeCompare(d[:], other[:]) == 1
}

// session is a page that was opened by a link.
type session struct {
	cookie, key digest
	used        time.Time
}

// sessions are the link that is good now, and the pages that are open. Use newSessions.
type sessions struct {
	now func() time.Time

	mu    sync.Mutex // guards the rest
	link  digest
	until time.Time // of link; zero: it is used up
	open  []session
}

func newSessions() *sessions { return &sessions{now: time.Now} }

// newLink makes a secret for a link. The one before is no good any more.
func (s *sessions) newLink() string {
	link := secret()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.link, s.until = digestOf(link), s.now().Add(linkLife)
	return link
}

// login uses the link up, and returns the secrets of a new session.
func (s *sessions) login(link string) (cookie, key string, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	if !now.Before(s.until) || !s.link.is(link) {
		return "", "", false
	}
	s.until = time.Time{}
	cookie, key = secret(), secret()
	if len(s.open) == maxSessions {
		idlest := 0
		for i := range s.open {
			if s.open[i].used.Before(s.open[idlest].used) {
				idlest = i
			}
		}
		s.open = append(s.open[:idlest], s.open[idlest+1:]...)
	}
	s.open = append(s.open, session{digestOf(cookie), digestOf(key), now})
	return cookie, key, true
}

// knows says whether a cookie is a session's, and whether the key is the same session's.
func (s *sessions) knows(cookie, key string) (known, whole bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	for i := range s.open {
		one := &s.open[i]
		if !one.cookie.is(cookie) || now.Sub(one.used) > sessionIdle {
			continue
		}
		if whole = one.key.is(key); whole {
			one.used = now
		}
		return true, whole
	}
	return false, false
}
