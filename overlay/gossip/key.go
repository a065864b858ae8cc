package gossip

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
)

// keyLen is the length of a key in bytes: AES-256.
const keyLen = 32

// maxKeys is how many keys a file may have while one replaces another.
const maxKeys = 4

// NewKey draws a key, as a line of a key file.
func NewKey() string {
	var key [keyLen]byte
	_, _ = rand.Read(key[:]) // crypto/rand does not fail (Go 1.24)
	return base64.StdEncoding.EncodeToString(key[:]) + "\n"
}

// ParseKeys reads a key file: a key on each line, and lines that begin with #. Messages are sealed with the first, and
// opened with any: a key is replaced by adding the new one below the old on all hosts, then putting it first, then
// removing the old one.
func ParseKeys(text []byte) ([][]byte, error) {
	var keys [][]byte
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		key, err := base64.StdEncoding.Strict().DecodeString(line)
		if err != nil || len(key) != keyLen {
			return nil, fmt.Errorf(
				"a line of the cluster's key file is not %d bytes in base64: make one with `usernet cluster key`",
				keyLen,
			)
		}
		if keys = append(keys, key); len(keys) > maxKeys {
			return nil, fmt.Errorf("the cluster's key file has more than %d keys", maxKeys)
		}
	}
	if len(keys) == 0 {
		return nil, errors.New("the cluster's key file has no key: make one with `usernet cluster key`")
	}
	return keys, nil
}
