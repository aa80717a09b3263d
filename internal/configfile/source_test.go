package configfile_test

import (
	"fmt"
	"testing"

	"github.com/spillover-go/spillover/internal/configfile"
	"github.com/stretchr/testify/require"
)

func source(t *testing.T, text string) *configfile.Source {
	var cfg config
	s, _ := configfile.Decode("c.yaml", []byte(text), &cfg, environment, nil)
	require.NotNil(t, s)
	return s
}

func TestSourceFindsFields(t *testing.T) {
	s := source(t, "title: x\nservers:\n- name: east\n  ports: [{number: 1}]\n- {url: h}\n")
	for field, want := range map[string]configfile.Place{
		"":                           {1, 1, "", true},
		"Title":                      {1, 8, "title", true},
		"MaxRetries":                 {1, 1, "max_retries", false},
		"Servers":                    {3, 1, "servers", true},
		"Servers[0]":                 {3, 3, `servers["east"]`, true},
		"Servers[0].Name":            {3, 9, `servers["east"].name`, true},
		"Servers[0].APIKey":          {3, 3, `servers["east"].api_key`, false},
		"Servers[0].Ports[0].Number": {4, 20, `servers["east"].ports[0].number`, true},
		"Servers[1].APIKey":          {5, 3, "servers[1].api_key", false},
		"Servers[2].APIKey":          {3, 1, "servers[2].api_key", false},
	} {
		require.Equal(t, want, s.Find(field), field)
	}
}

func TestSourceKnowsWhatIsReliable(t *testing.T) {
	require.True(t, source(t, "title: x\nunknown: y\n").Complete())

	s := source(t, "title: 1\nservers:\n- {weight: x, extra: {a: .inf}}\n- {url: a, url: b}\n- 3\n- {}\n")
	require.False(t, s.Complete())
	require.False(t, s.Find("Title").Read)
	require.False(t, s.Find("Servers[1].URL").Read, "it is unknown which of the two is meant")
	for field, want := range map[string]bool{
		"Title": false, "Timeout": true, "Tit": true, "Servers": false,
		"Servers[0]": false, "Servers[0].Weight": false, "Servers[0].Extra": false, "Servers[0].Name": true,
		"Servers[1].URL": false, "Servers[1].Name": true, `Servers[0].Extra["a"]`: false, `Servers[0].Extra["b"]`: true, "Servers[2].Name": false, "Servers[3].Name": true, "Servers[3]": true,
	} {
		require.Equal(t, want, s.Reliable(field), field)
	}
	require.True(t, source(t, "title: a\ntitle: b\n").Reliable("Timeout"))
	require.False(t, source(t, "Servers: []\n").Reliable("Servers"), "what was meant by an unknown key is unknown")
	require.True(t, source(t, "servers: []\nServers: []\n").Reliable("Servers"), "unless it is there")
	require.True(t, source(t, "other: []\n").Reliable("Servers"))
}

// Whatever the verb, what variables gave is not printed.
func TestSourceRedactsVariables(t *testing.T) {
	s := source(t, "title: ${KEY}\nmax_retries: ${NEGATIVE}\ntimeout: -${MINUTE}\nmode: ${EMPTY}\ndry_run: true\nlabels: {team: \"a ${KEY}\"}\n")
	print := func(field, format string, args ...any) string { return fmt.Sprintf(format, s.Redact(field, args)...) }
	require.Equal(t, "${KEY} and … are bad", print("Title", "%q and … are bad", "sk-from-the-environment"))
	require.Equal(t, "${KEY}", print("Title", "%q", "from-the-ENV"), "a part of it")
	require.Equal(t, "${KEY}", print("Title", "%q", mode("https://sk-from-the-environment")), "with more around it")
	require.Equal(t, "${NEGATIVE} is negative", print("MaxRetries", "%d is negative", -7777))
	require.Equal(t, "${MINUTE} is negative", print("Timeout", "%v is negative", "-1m0s"), "as the field prints it")
	require.Equal(t, "…", print("DryRun", "%v", "sk-from-the-environment"), "from another field")
	require.Equal(t, `true and "short"`, print("DryRun", "%v and %q", true, "short"))
	require.Equal(t, `""`, print("Mode", "%q", ""), "nothing is no secret")
	s = source(t, "labels: {team: \"a ${KEY}\"}\n")
	require.Equal(t, "${KEY}", print(`Labels["team"]`, "%q", "a sk-from-the-environment"), "a member of a map")
}
