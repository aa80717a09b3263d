// Package fleet has what replicas of a program say to each other: notices, and how far
// a replica is believed.
package fleet

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"time"
)

// Kind is what a notice is about.
type Kind string

const (
	Throttled   Kind = "throttled"   // the service has refused a request because of a rate limit
	Ejected     Kind = "ejected"     // the deployment fails
	Recovered   Kind = "recovered"   // it has answered a request after one of these
	Utilization Kind = "utilization" // a PTU reports that it is nearly full
	Drained     Kind = "drained"     // it is taken out of use everywhere
	Resumed     Kind = "resumed"     // and back
)

// A Notice is what one replica says about a place. It has durations and no time of day,
// as clocks differ.
type Notice struct {
	Version     int    `json:"v"`
	Kind        Kind   `json:"k"`
	Place       string `json:"p"`           // see PlaceOf
	From        string `json:"f"`           // the replica
	LeftMS      int64  `json:"l,omitempty"` // for how long it holds, from when it was sent
	AgeMS       int64  `json:"a,omitempty"` // how long before that the attempt was sent
	Cause       string `json:"c,omitempty"` // of an ejection: for people
	Streak      int    `json:"s,omitempty"` // of an ejection: failures in a row
	Contradicts string `json:"o,omitempty"` // of a recovery: a replica whose report was wrong
	Utilization int64  `json:"u,omitempty"` // in thousandths
}

// MaxNotice is the size of the longest notice that is read, in bytes.
const MaxNotice = 256

const version = 1

// Left is for how long the notice holds.
func (n *Notice) Left() time.Duration { return time.Duration(n.LeftMS) * time.Millisecond }

// Age is how long before the notice its attempt was sent.
func (n *Notice) Age() time.Duration { return time.Duration(n.AgeMS) * time.Millisecond }

// Append encodes the notice.
func (n Notice) Append(b []byte) []byte {
	n.Version = version
	text, _ := json.Marshal(n) // strings and numbers always marshal
	return append(b, text...)
}

var errNotice = errors.New("fleet: not a notice of this version")

// maxDuration is the longest duration that is read: no notice holds for longer.
const maxDuration = time.Hour

// Parse reads a notice that another replica has sent, or something else.
func Parse(text []byte) (n Notice, err error) {
	if len(text) > MaxNotice || json.Unmarshal(text, &n) != nil || n.Version != version {
		return Notice{}, errNotice
	}
	if !isHex(n.Place, placeLength) || !isHex(n.From, senderLength) || n.Contradicts != "" && !isHex(n.Contradicts, senderLength) {
		return Notice{}, errNotice
	}
	switch n.Kind {
	case Throttled, Ejected, Recovered, Utilization, Drained, Resumed:
	default:
		return Notice{}, errNotice
	}
	most := int64(maxDuration / time.Millisecond)
	n.LeftMS, n.AgeMS = min(max(n.LeftMS, 0), most), min(max(n.AgeMS, 0), most)
	return n, nil
}

const (
	placeLength  = 16
	senderLength = 8
)

func isHex(s string, length int) bool {
	if len(s) != length {
		return false
	}
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

// PlaceOf names what a notice is about: the parts are hashed under a namespace, so that
// nobody who reads notices learns a host, a name or a key.
func PlaceOf(namespace string, parts ...string) string {
	h := hmac.New(sha256.New, []byte("spillover fleet "+namespace))
	for _, p := range parts {
		h.Write([]byte(p))
		h.Write([]byte{0})
	}
	return hex.EncodeToString(h.Sum(nil)[:placeLength/2])
}

// SenderOf is the name of a replica, from a random number.
func SenderOf(random uint64) string {
	b := [4]byte{byte(random >> 24), byte(random >> 16), byte(random >> 8), byte(random)}
	return hex.EncodeToString(b[:])
}
