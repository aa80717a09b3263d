/*
Package keys knows the keys with which callers of the reverse proxy authenticate: what a
file of keys contains, and whether a credential is one of them.

It does not know HTTP, and never has a key itself longer than it takes to compare it.
*/
package keys

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"

	"github.com/spillover-go/spillover"
)

// A Key is an entry of a file of keys: who has the key, and what it allows.
type Key struct {
	// Name identifies the key in log records. It is not secret.
	Name string
	// Class is the class of the key's requests. A caller can lower it, and not raise it.
	Class spillover.Class
	// Tags are required of the backend of every request, in addition to those that the
	// caller asks for.
	Tags []string
	// Models are the models that callers may ask for. nil means all.
	Models []string
	// MaxInFlight is how many requests of the key may be in progress at a time. 0 means
	// no limit.
	MaxInFlight int
	// Admin is whether the key allows to read metrics and the status.
	Admin bool

	sum [sha256.Size]byte
}

// A Set is what a file of keys contains. It is not changed once it is made.
type Set struct {
	keys []Key
}

// MinLength is the minimum length of a key, in bytes. A shorter one could be guessed, and
// would occur in texts by chance.
const MinLength = 16

// Len is the number of keys.
func (s *Set) Len() int { return len(s.keys) }

// Find returns the entry of a key that a caller has presented, or nil. The time that it
// takes does not depend on the presented key, apart from its length. A key shorter than
// MinLength is never found.
func (s *Set) Find(presented string) *Key {
	if len(presented) < MinLength {
		return nil
	}
	sum := sha256.Sum256([]byte(presented))
	found := -1
	for i := range s.keys {
		equal := subtle.ConstantTimeCompare(sum[:], s.keys[i].sum[:])
		found = subtle.ConstantTimeSelect(equal, i, found)
	}
	if found < 0 {
		return nil
	}
	return &s.keys[found]
}

// New makes a key with 128 random bits, and its SHA-256 as a file of keys has it.
func New() (key, sum string) {
	key = prefix + rand.Text()
	return key, Sum(key)
}

// prefix begins every key, so that a key is recognized where it does not belong.
const prefix = "sk-spillover-"

// Sum is the SHA-256 of a key as a file of keys has it.
func Sum(key string) string {
	sum := sha256.Sum256([]byte(key))
	return hex.EncodeToString(sum[:])
}
