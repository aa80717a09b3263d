package simulation_test

import (
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover"
	"github.com/spillover-go/spillover/cmd/spillover/internal/simulation"
)

// start starts deployments and a transport for them, with the configuration as a file.
func start(t *testing.T, o simulation.Options) (*simulation.Simulation, *spillover.Transport) {
	t.Helper()
	s, err := simulation.Start(o)
	require.NoError(t, err)
	t.Cleanup(s.Close)
	text, err := s.Config()
	require.NoError(t, err)
	require.True(t, simulation.IsConfig(text))
	path := filepath.Join(t.TempDir(), "spillover.yaml")
	require.NoError(t, os.WriteFile(path, text, 0o600))
	cfg, err := spillover.Load(path)
	require.NoError(t, err)
	lb, err := spillover.New(cfg)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, lb.Close()) })
	return s, lb
}

// ask sends a request and returns its status and which backend has answered.
func ask(t *testing.T, lb *spillover.Transport, operation, body string) (status int, backend string) {
	t.Helper()
	resp, err := (&http.Client{Transport: lb}).Post("https://any.test/v1/"+operation, "application/json", strings.NewReader(body))
	require.NoError(t, err)
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	require.NoError(t, err)
	return resp.StatusCode, resp.Header.Get("X-Spillover-Backend")
}

const chat = `{"model":"gpt-4o","max_tokens":4,"messages":[{"role":"user","content":"Hello"}]}`

func TestEveryDeploymentAcceptsItsConfiguration(t *testing.T) {
	s, lb := start(t, simulation.Options{PTU: 2, PAYG: 3})
	names := []string{}
	for _, r := range lb.Check(t.Context()) {
		require.True(t, r.OK, "%+v", r)
		names = append(names, r.Backend)
	}
	require.Equal(t, []string{"ptu-1", "ptu-2", "payg-1", "payg-2", "payg-3"}, names)
	for _, d := range s.Deployments[:2] {
		require.NoError(t, lb.Drain(d.Name))
	}
	status, backend := ask(t, lb, "embeddings", `{"model":"text-embedding-3-small","input":"Hello"}`)
	require.Equal(t, 200, status)
	require.Contains(t, backend, "payg-")
}

func TestPTUIsUsedFirst(t *testing.T) {
	_, lb := start(t, simulation.Options{PTU: 1, PAYG: 2})
	status, backend := ask(t, lb, "chat/completions", chat)
	require.Equal(t, 200, status)
	require.Equal(t, "ptu", backend)
}

func TestFaultsFailOver(t *testing.T) {
	for _, fault := range append([]string{"401", "429", "503"}, "refuse", "reset") {
		_, lb := start(t, simulation.Options{PTU: 1, PAYG: 1, Faults: []string{"ptu=" + fault}})
		status, backend := ask(t, lb, "chat/completions", chat)
		require.Equal(t, 200, status, fault)
		require.Equal(t, "payg-1", backend, fault)
	}
}

func TestSpills(t *testing.T) {
	for _, c := range []struct {
		o    simulation.Options
		want bool
	}{
		{simulation.Options{PTU: 1, PAYG: 1}, true},
		{simulation.Options{PTU: 2, PAYG: 1}, false},
		{simulation.Options{PAYG: 2}, false},
		{simulation.Options{PTU: 1, PAYG: 1, Faults: []string{"ptu=429"}}, false},
	} {
		s, err := simulation.Start(c.o)
		require.NoError(t, err)
		require.Equal(t, c.want, s.Spills(), c.o)
		s.Close()
	}
}

func TestEveryFaultNameIsAFault(t *testing.T) {
	for _, fault := range simulation.FaultNames() {
		s, err := simulation.Start(simulation.Options{PAYG: 1, Faults: []string{"payg-1=" + fault}})
		require.NoError(t, err)
		require.Equal(t, fault, s.Deployments[0].Fault)
		s.Close()
	}
}

func TestWrongOptions(t *testing.T) {
	for want, o := range map[string]simulation.Options{
		"at least one deployment": {},
		"ptu: -1 is not between":  {PTU: -1},
		"payg: 101 is not":        {PAYG: 101},
		`there is no deployment "payg-2"; there are ptu, payg-1`: {PTU: 1, PAYG: 1, Faults: []string{"payg-2=429"}},
		`"200" is neither a status`:                              {PTU: 1, Faults: []string{"ptu=200"}},
		`"" is neither a status`:                                 {PTU: 1, Faults: []string{"ptu"}},
	} {
		_, err := simulation.Start(o)
		require.ErrorContains(t, err, want)
	}
}
