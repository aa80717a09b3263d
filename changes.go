package spillover

import (
	"encoding/json"
	"hash/maphash"
	"reflect"
	"slices"
	"strings"

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

// changes are the differences between two configurations: the names of backends, and
// for each changed one its fields.
func (s *activeConfig) changes(old *activeConfig) (c configChanges) {
	before := map[string]fingerprint{}
	for _, b := range old.table.backends {
		before[b.name] = b.fingerprint
	}
	for _, b := range s.table.backends {
		was, known := before[b.name]
		delete(before, b.name)
		if !known {
			c.Added = append(c.Added, b.name)
			continue
		}
		var fields []string
		for key, hash := range b.fingerprint {
			if was[key] != hash {
				fields = append(fields, key)
			}
		}
		if slices.Sort(fields); len(fields) > 0 {
			c.Changed = append(c.Changed, b.name+": "+strings.Join(fields, ", "))
		}
	}
	for _, b := range old.table.backends {
		if _, gone := before[b.name]; gone {
			c.Removed = append(c.Removed, b.name)
		}
	}
	now, then := reflect.ValueOf(s.cfg), reflect.ValueOf(old.cfg)
	for _, field := range reflect.VisibleFields(now.Type()) {
		if !sameSetting(now.FieldByIndex(field.Index), then.FieldByIndex(field.Index)) {
			c.Settings = append(c.Settings, configfile.Key(field.Name))
		}
	}
	return c
}

// sameSetting compares a field of two Configs. Of what cannot be compared, such as a
// function, only whether it is set counts.
func sameSetting(a, b reflect.Value) bool {
	if a.Comparable() && b.Comparable() {
		return a.Equal(b)
	}
	return a.IsZero() == b.IsZero()
}
