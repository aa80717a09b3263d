package spillover

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"unicode"
)

// fileKeys are the fields of the structs of a file by their keys.
var fileKeys = func() map[reflect.Type]map[string]reflect.StructField {
	all := map[reflect.Type]map[string]reflect.StructField{}
	for _, t := range []reflect.Type{reflect.TypeFor[Config](), reflect.TypeFor[Backend](), reflect.TypeFor[Model]()} {
		all[t] = map[string]reflect.StructField{}
		for _, f := range reflect.VisibleFields(t) {
			if f.IsExported() {
				all[t][snake(f.Name)] = f
			}
		}
	}
	return all
}()

// onlyInCode tells whether a field is what no file could say.
func onlyInCode(t reflect.Type) bool {
	return t.Kind() == reflect.Func || t.Kind() == reflect.Interface || t.Kind() == reflect.Pointer
}

// snake is a field's name as a key: APIKey is api_key.
func snake(name string) string {
	var b strings.Builder
	runes := []rune(name)
	for i, r := range runes {
		lower := func(i int) bool { return i < len(runes) && unicode.IsLower(runes[i]) }
		if i > 0 && unicode.IsUpper(r) && (lower(i-1) || lower(i+1)) {
			b.WriteByte('_')
		}
		b.WriteRune(unicode.ToLower(r))
	}
	return b.String()
}

// goNames puts keys in the place of those names of fields that are no words.
var goNames = func() *strings.Replacer {
	var pairs []string
	for _, fields := range fileKeys {
		for key, f := range fields {
			if strings.Contains(key, "_") && !onlyInCode(f.Type) {
				pairs = append(pairs, f.Name, key)
			}
		}
	}
	return strings.NewReplacer(pairs...)
}()

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

// shorten keeps what an error quotes from filling the screen.
func shorten(s string) string {
	if runes := []rune(s); len(runes) > 64 {
		return string(runes[:64]) + "…"
	}
	return s
}

// similar proposes the key that was meant.
func similar(key string, known map[string]reflect.StructField) string {
	flat := strings.NewReplacer("_", "", "-", "")
	key = flat.Replace(strings.ToLower(shorten(key)))
	best, least := "", 3
	for _, k := range slices.Sorted(maps.Keys(known)) {
		if d := distance(key, flat.Replace(k)); d < least && d < len(key) {
			best, least = k, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf("; did you mean %q?", best)
}

// distance is how many letters two words differ in, by Levenshtein.
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
