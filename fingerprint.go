package spillover

import (
	"encoding/json"
	"hash/maphash"
	"reflect"

	"github.com/spillover-go/spillover/internal/configfile"
)

// A fingerprint has a hash of each field of a Backend, by its key in a file. It shows
// which fields a new configuration changes, and keeps no credential.
type fingerprint map[string]uint64

var fingerprintSeed = maphash.MakeSeed()

// fingerprintOf is the fingerprint of a normalized Backend. Functions cannot be
// compared: only whether there is one counts.
func fingerprintOf(b Backend) fingerprint {
	f := fingerprint{}
	v := reflect.ValueOf(b)
	for _, field := range reflect.VisibleFields(v.Type()) {
		value := v.FieldByIndex(field.Index)
		var text []byte
		if value.Kind() != reflect.Func {
			text, _ = json.Marshal(value.Interface()) // normalize has marshalled what may fail
		} else if !value.IsNil() {
			text = []byte("set")
		}
		f[configfile.Key(field.Name)] = maphash.Bytes(fingerprintSeed, text)
	}
	return f
}

// sameSetting compares a field of two Configs. Of what cannot be compared, such as a
// function, only whether it is set counts.
func sameSetting(a, b reflect.Value) bool {
	switch {
	case a.Kind() == reflect.Slice:
		return a.Len()+b.Len() == 0 || reflect.DeepEqual(a.Interface(), b.Interface())
	case a.Comparable() && b.Comparable():
		return a.Equal(b)
	}
	return a.IsZero() == b.IsZero()
}
