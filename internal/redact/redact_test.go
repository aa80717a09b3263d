package redact

import (
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
)

func TestTextMasksCredentialsAndKeepsTheRest(t *testing.T) {
	for text, want := range map[string]string{
		"dial tcp: lookup my-very-long-resource-name-1234567890.openai.azure.com: no such host":          "",
		"dial tcp 10.0.0.1:443: connect: connection refused":                                             "",
		"tls: failed to verify certificate: x509: certificate signed by unknown authority":               "",
		"The model gpt-4o-realtime-preview-2024-12-17 does not exist":                                    "",
		"open /var/run/secrets/azure/tokens/azure-identity-token: no such file":                          "",
		"AADSTS700016: Application with identifier '11111111-2222-3333-4444-555555555555' was not found": "",
		"token: no identity": "",
		"Requests have exceeded token rate limit. See https://aka.ms/oai/quotaincrease": "",
		"Incorrect API key provided: sk-abc***xyz. You can find it":                     "Incorrect API key provided: *** You can find it",
		"key 0123456789abcdef0123456789abcdef is wrong":                                 "key *** is wrong",
		"api-key=short&x=1":                                                "api-key=***&x=1",
		`{"client_secret": "a b", "access_token":"x"}`:                     `{"client_secret": "*** b", "access_token":"***"}`,
		`Post "https://me:pass/w@rd@proxy.example:3128/a?code=x&y=1": EOF`: `Post "https://***@proxy.example:3128/a?***": EOF`,
		"see https://aka.ms/oai?":                                          "",
		"it was secret-answer":                                             "it was ***",
		"Authorization: Bearer abc":                                        "Authorization: Bearer ***",
		"secret abc8Q~dEfGh.IjKlMnOp_QrStUvWxYz12":                         "secret ***",
		"ghp_16C7e42F292c6912E7710c838347Ae178B4a":                         "***",
		"a\r\nb\x00c\tüd":                                                  "a b?c ?d",
		strings.Repeat("word ", 100):                                       strings.Repeat("word ", 50) + "wor...",
	} {
		if want == "" {
			want = text
		}
		require.Equal(t, want, Text(text), text)
	}
}

func TestTextMasksGivenSecretsWhateverTheyLookLike(t *testing.T) {
	require.Equal(t, "wrong key: ***!", Text("wrong key: swordfish!", "", "swordfish"))
	require.Equal(t, "a key", Text("a key", "key"), "too short to be a secret")
	for _, secrets := range [][]string{{"sword", "swordfish"}, {"swordfish", "sword"}, {"word", "sword", "swordfish"}} {
		require.Equal(t, "wrong key: ***!", Text("wrong key: swordfish!", secrets...), "no part of a longer one is left")
	}
	require.Empty(t, Text(strings.Repeat("x", 5000)), "half a secret is not shown")
}

func TestSecretThatContainsAnotherIsMaskedAsAWhole(t *testing.T) {
	require.Equal(t, "id-***-1", mask("id-swordfish-1", []string{"sword", "swordfish"}))
}

func TestSanitizeLeavesPrintableTextOfBoundedLength(t *testing.T) {
	for value, want := range map[string]string{
		"gpt-4o":                       "gpt-4o",
		"modèle":                       "modèle",
		"a\r\nlevel=ERROR\x1b[m":       "a??level=ERROR?[m",
		"a\xff\u202eb":                 "a?b",
		strings.Repeat("x", 200):       strings.Repeat("x", 128),
		strings.Repeat("x", 127) + "é": strings.Repeat("x", 127), // no half a character
	} {
		require.Equal(t, want, Sanitize(value), "%q", value)
	}
}

func TestBriefShowsThatAValueWasCut(t *testing.T) {
	require.Equal(t, "m", Brief("m"))
	require.Equal(t, strings.Repeat("x", 100), Brief(strings.Repeat("x", 100)))
	require.Equal(t, strings.Repeat("x", 100)+"…", Brief(strings.Repeat("x", 101)))
	require.Equal(t, "a?b", Brief("a\nb"))
}

func FuzzText(f *testing.F) {
	for _, s := range []string{"plain", "Bearer x", "client_secret=abcd", strings.Repeat("x", 5000) + " swordfish", "sword\x00fish", "//a@b@c", "swordswordfishfish", "ключ=swordfish"} {
		f.Add(s, "swordfish")
	}
	f.Add("a wrong\x01 \tkey", "wrong? key")
	f.Add("the name is fish", "name is fi")
	f.Fuzz(func(t *testing.T, text, secret string) {
		shown := Text(text, secret)
		require.LessOrEqual(t, len(shown), MaxText)
		require.True(t, isPrintableASCII(shown), "%q", shown)
		if len(secret) >= 4 && !strings.ContainsAny(secret, "*.") && !strings.Contains(secret, "//") {
			require.NotContains(t, shown, secret)
			require.NotContains(t, Text(text+secret+text, secret), secret)
			require.NotContains(t, Text("key: "+secret+" "+text, secret), secret)
		}
		shown = Text(text+" https://user:hunter2/3@proxy.example/path?sv=1&other=swordfish2 "+text, secret)
		require.NotContains(t, shown, "hunter2")
		require.NotContains(t, shown, "swordfish2")
		const key = "sk-proj-0123456789abcdefABCDEF0123456789"
		require.NotContains(t, Text(text+" "+key+" "+text), key)
	})
}

func FuzzSanitize(f *testing.F) {
	for _, s := range []string{"gpt-4o", "a\nb", "\xff", "\u202e", strings.Repeat("é", 100)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, value string) {
		shown := Sanitize(value)
		require.LessOrEqual(t, len(shown), MaxValue)
		require.True(t, utf8.ValidString(shown))
		require.False(t, strings.ContainsFunc(shown, func(r rune) bool { return !unicode.IsPrint(r) }), "%q", shown)
		require.Equal(t, shown, Sanitize(shown))
	})
}
