package keys_test

import (
	"bytes"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"
	"pgregory.net/rapid"

	"github.com/spillover-go/spillover"
	"github.com/spillover-go/spillover/cmd/spillover/internal/keys"
)

func TestKeyIsFoundByItsHash(t *testing.T) {
	a, sumA := keys.New()
	b, sumB := keys.New()
	require.NotEqual(t, a, b)
	require.Greater(t, len(a), 32)
	set, err := keys.Parse([]byte("keys:\n- name: a\n  sha256: " + sumA + "\n- {name: b, sha256: " + strings.ToUpper(sumB) + ", class: background, tags: [x, y=z], models: [m], max_in_flight: 20, admin: true}\n"))
	require.NoError(t, err)
	require.Equal(t, 2, set.Len())
	found := set.Find(a)
	require.Equal(t, "a", found.Name)
	require.Equal(t, spillover.Interactive, found.Class)
	require.Nil(t, found.Models)
	require.Zero(t, found.MaxInFlight)
	require.False(t, found.Admin)
	found = set.Find(b)
	require.Equal(t, "b", found.Name)
	require.Equal(t, spillover.Background, found.Class)
	require.Equal(t, []string{"x", "y=z"}, found.Tags)
	require.Equal(t, []string{"m"}, found.Models)
	require.Equal(t, 20, found.MaxInFlight)
	require.True(t, found.Admin)
	for _, other := range []string{"", a[1:], a + " ", strings.ToLower(a), sumA} {
		require.Nil(t, set.Find(other), other)
	}
}

// All mistakes are reported at once, by entry and field.
func TestMistakesInAFile(t *testing.T) {
	const secret = "sk-spillover-SECRETSECRETSECRETSECRET"
	_, sum := keys.New()
	_, err := keys.Parse([]byte(`
keys:
  - name: a
    sha256: ` + secret + `
    class: urgent
    tags: []
    models: gpt-4o
    admin: maybe
    rights: all
    ` + secret + `: x
  - sha256: ` + sum + `
  - name: b
  - name: b
    sha256: ` + sum + `
    models: [m, m, "", 7, [x]]
    name: c
  - just text
  - {name: "` + secret + `", sha256: e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855}
`))
	require.Error(t, err)
	for _, want := range []string{
		`line 4: keys["a"].sha256 is not 64 hexadecimal digits`,
		`keys["a"].class must be interactive or background`,
		`keys["a"].tags is an empty list`,
		`keys["a"].models is not a list`,
		`keys["a"].admin must be true or false`,
		`keys[0] has the unknown key "rights"`,
		`keys[0] has the unknown key "(hidden)"`,
		`keys[1].name is missing`,
		`keys["b"].sha256 is missing`,
		`keys[3].name is listed twice`,
		`keys["b"].models[1] is listed twice`,
		`keys["b"].models[2] is empty`,
		`keys["b"].models[4] is not text`,
		`keys["b"] is there twice`,
		`.sha256 is the same as that of`,
		`keys[4] is not a mapping`,
		`keys[5].name contains a key`,
		`keys[5].sha256 is that of an empty key`,
	} {
		require.ErrorContains(t, err, want)
	}
	require.NotContains(t, err.Error(), secret)
	for _, limit := range []string{"0", "-1", "1.5", "many", "[1]", "~", "99999999999999999999"} {
		_, err := keys.Parse([]byte("keys: [{name: a, sha256: " + sum + ", max_in_flight: " + limit + "}]"))
		require.EqualError(t, err, `line 1: keys["a"].max_in_flight must be a whole number of at least 1: leave it out if there is no limit`, limit)
	}
}

func TestFilesWithoutKeys(t *testing.T) {
	for text, want := range map[string]string{
		"":                               "is empty",
		"# nothing":                      "is empty",
		"keys:":                          "keys is not a list",
		"keys: []":                       "keys has no entry",
		"key: []":                        `the file has the unknown key "key": it can have "keys"`,
		"[]":                             "is not a mapping",
		"{}":                             "keys is missing",
		"keys: []\n---\nkeys: []":        "has more than one YAML document",
		"keys: [":                        "is not valid YAML: line 1",
		"keys:\n  a: x\n \tb: secret: x": "is not valid YAML",
	} {
		_, err := keys.Parse([]byte(text))
		require.ErrorContains(t, err, want, text)
		require.NotContains(t, err.Error(), "secret")
	}
}

func TestErrorsNameTheFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.yaml")
	_, err := keys.Load(path)
	require.ErrorIs(t, err, os.ErrNotExist)
	require.ErrorContains(t, err, path)
	require.NoError(t, os.WriteFile(path, []byte("keys: 1"), 0o600))
	_, err = keys.Load(path)
	require.ErrorContains(t, err, path)
}

func TestOnlyListedKeysAreFound(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		all := rapid.SliceOfNDistinct(rapid.StringMatching(`.{1,40}`), 1, 20, rapid.ID).Draw(t, "keys")
		listed := rapid.IntRange(1, len(all)).Draw(t, "listed")
		var text strings.Builder
		text.WriteString("keys:\n")
		for i, key := range all[:listed] {
			text.WriteString("- {name: n" + string(rune('a'+i)) + ", sha256: " + keys.Sum(key) + "}\n")
		}
		set, err := keys.Parse([]byte(text.String()))
		require.NoError(t, err)
		for i, key := range all {
			found := set.Find(key)
			require.Equal(t, i < listed && len(key) >= keys.MinLength, found != nil)
			if found != nil {
				require.Equal(t, "n"+string(rune('a'+i)), found.Name)
			}
		}
	})
}

// An entry whose hash differs in one bit is that of another key.
func TestKeyIsComparedAsAWholeHash(t *testing.T) {
	key, sum := keys.New()
	find := func(sum []byte) *keys.Key {
		set, err := keys.Parse([]byte("keys:\n- {name: a, sha256: " + hex.EncodeToString(sum) + "}\n"))
		require.NoError(t, err)
		return set.Find(key)
	}
	raw, err := hex.DecodeString(sum)
	require.NoError(t, err)
	require.NotNil(t, find(raw))
	for i := range raw {
		for bit := range 8 {
			other := bytes.Clone(raw)
			other[i] ^= 1 << bit
			require.Nil(t, find(other), "bit %d of byte %d", bit, i)
		}
	}
}

// Whatever a file contains, an error shows no key, and what is accepted can be used as it
// is: a restriction is never lost.
func FuzzParse(f *testing.F) {
	key := "sk-spillover-" + strings.Repeat("A", 26)
	f.Add("keys:\n- {name: a, sha256: " + keys.Sum("a") + "}")
	f.Add("keys:\n- {name: a, sha256: " + keys.Sum(key) + ", class: background, tags: [a, b=c], models: [m], admin: true}")
	for _, entry := range []string{
		"{name: KEY, sha256: SUM}", "{name: a, sha256: KEY}", "{KEY: a, sha256: SUM}", "{name: a, sha256: SUM, class: KEY}", "{name: a, sha256: SUM, tags: [KEY]}", "{name: a, sha256: SUM, models: [KEY, KEY]}",
		"{name: a, sha256: SUM, admin: KEY}", "KEY", "{name: a, sha256: SUM, models: }", "{name: a, sha256: SUM, tags: !!set {KEY}}", "{name: *KEY, sha256: SUM}", "{name: a, sha256: SUM, tags: []}", "{name: \"a\\tKEY\", sha256: SUM}", "{[KEY]: a}",
	} {
		f.Add(strings.NewReplacer("KEY", key, "SUM", keys.Sum(key)).Replace("keys:\n- " + entry + "\n"))
	}
	f.Add("keys: &a [*a]")
	f.Add("keys:\n- <<: {name: a}\n  ? [x]\n  : y")
	f.Fuzz(func(t *testing.T, text string) {
		set, err := keys.Parse([]byte(text))
		if err != nil {
			require.NotContains(t, err.Error(), key[:len(key)-1])
			require.Less(t, len(err.Error()), 100_000)
			return
		}
		require.NotZero(t, set.Len())
		require.Nil(t, set.Find(""))
		require.Nil(t, set.Find(key+"A"))
		k := set.Find(key)
		if k == nil {
			return
		}
		require.NotEmpty(t, k.Name)
		var file struct {
			Keys []map[string]any `yaml:"keys"`
		}
		if yaml.Unmarshal([]byte(text), &file) != nil || len(file.Keys) != 1 {
			return // such as a merge of maps, which is refused here
		}
		entry := file.Keys[0]
		require.Equal(t, entry["models"] != nil, k.Models != nil)
		require.Equal(t, entry["tags"] != nil, len(k.Tags) > 0)
		require.True(t, entry["class"] != nil || k.Class == spillover.Interactive)
		require.True(t, entry["admin"] != nil || !k.Admin)
		require.True(t, entry["admin"] != true || k.Admin)
	})
}
