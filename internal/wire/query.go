package wire

import "strings"

// EditQuery replaces the parameters of a raw query, byte for byte: edit is called for
// each with its name as it is written. Where it returns "" the parameter is removed.
func EditQuery(raw string, edit func(name, parameter string) string) string {
	var query string
	for parameter := range strings.SplitSeq(raw, "&") {
		name, _, _ := strings.Cut(parameter, "=")
		query = JoinQuery(query, edit(name, parameter))
	}
	return query
}
