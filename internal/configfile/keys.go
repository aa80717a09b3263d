package configfile

import (
	"cmp"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"unicode"
)

// keysOf returns the exported fields of a struct by their keys.
func keysOf(t reflect.Type) map[string]reflect.StructField {
	keys := map[string]reflect.StructField{}
	for _, f := range reflect.VisibleFields(t) {
		if f.IsExported() {
			keys[Key(f.Name)] = f
		}
	}
	return keys
}

// OnlyInCode reports whether a field of this type has no value that a file could
// hold: functions, interfaces and pointers.
func OnlyInCode(t reflect.Type) bool {
	return t.Kind() == reflect.Func || t.Kind() == reflect.Interface || t.Kind() == reflect.Pointer
}

// Key is the key of a field, its name in snake_case: APIKey has the key api_key.
func Key(field string) string {
	var b strings.Builder
	runes := []rune(field)
	for i, r := range runes {
		lower := func(i int) bool { return i < len(runes) && unicode.IsLower(runes[i]) }
		if i > 0 && unicode.IsUpper(r) && (lower(i-1) || lower(i+1)) {
			b.WriteByte('_')
		}
		b.WriteRune(unicode.ToLower(r))
	}
	return b.String()
}

// KeyReplacer replaces the names of a struct's fields by their keys, in texts
// that were written for programmers. Names of a single word, such as Name, stay:
// they may be words of the text. So do the names of fields that only code can set.
func KeyReplacer(t reflect.Type) *strings.Replacer {
	names := map[string]bool{}
	collectNames(t, names)
	longestFirst := slices.SortedFunc(maps.Keys(names), func(a, b string) int {
		return cmp.Or(cmp.Compare(len(b), len(a)), cmp.Compare(a, b))
	})
	var pairs []string
	for _, name := range longestFirst {
		pairs = append(pairs, name, Key(name))
	}
	return strings.NewReplacer(pairs...)
}

// collectNames adds the names that KeyReplacer replaces, those of nested structs
// included.
func collectNames(t reflect.Type, names map[string]bool) {
	for t.Kind() == reflect.Slice {
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct {
		return
	}
	for key, f := range keysOf(t) {
		if !OnlyInCode(f.Type) {
			if strings.Contains(key, "_") {
				names[f.Name] = true
			}
			collectNames(f.Type, names)
		}
	}
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

// Shorten limits what an error quotes to 64 characters.
func Shorten(s string) string {
	if runes := []rune(s); len(runes) > 64 {
		return string(runes[:64]) + "…"
	}
	return s
}

// Suggestion proposes the word that was probably meant, as the end of an error; ""
// if none is similar.
func Suggestion(word string, known []string) string { return proposal(nearest(word, known)) }

// proposal is how an error proposes a word; "" for none.
func proposal(word string) string {
	if word == "" {
		return ""
	}
	return fmt.Sprintf("; did you mean %q?", word)
}

// nearest returns the known word that was probably meant, or "".
func nearest(word string, known []string) string {
	flat := strings.NewReplacer("_", "", "-", "")
	word = flat.Replace(strings.ToLower(Shorten(word)))
	best, least := "", 3
	for _, k := range slices.Sorted(slices.Values(known)) {
		if d := distance(word, flat.Replace(k)); d < least && d < len(word) {
			best, least = k, d
		}
	}
	return best
}

// distance is the Levenshtein distance of two words, in bytes.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal, row[j+1] = row[j+1], min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
