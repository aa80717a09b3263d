package clients_test

import (
	"bytes"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover/spillovertest"
)

// curl runs curl with arguments and a chat as the body. The response is followed by a line with the
// version of HTTP and the status.
func (p *pool) curl(t *testing.T, body string, args ...string) (out string, exit int) {
	t.Helper()
	_, err := exec.LookPath("curl")
	require.NoError(t, err, "install curl")
	args = append([]string{"-sS", "-N", "-m", "60", "--noproxy", "*", "-w", "\nHTTP/%{http_version} %{http_code} %header{x-spillover-backend}", "-H", "Content-Type: application/json",
		"-H", "Authorization: Bearer " + p.key, "-d", body}, args...)
	run := exec.CommandContext(t.Context(), "curl", append(args, p.url+"/v1/chat/completions")...)
	text, err := run.Output()
	if err != nil {
		var failed *exec.ExitError
		require.ErrorAs(t, err, &failed)
		return string(text), failed.ExitCode()
	}
	return string(text), 0
}

const (
	chat   = `{"model":"gpt-4o","messages":[{"role":"user","content":"Hello"}]}`
	stream = `{"model":"gpt-4o","stream":true,"messages":[{"role":"user","content":"Hello"}]}`
)

func TestCurl(t *testing.T) {
	for version, flag := range map[string]string{"HTTP/1.1": "--http1.1", "HTTP/2": "--http2-prior-knowledge"} {
		for name, fault := range ptuFaults {
			p := newPool(t, spillovertest.Latency{})
			p.ptu.Set(fault)
			if !onlyInStreams(fault) {
				text, exit := p.curl(t, chat, flag)
				require.Zero(t, exit, name)
				require.True(t, strings.HasSuffix(text, "\n"+version+" 200 payg"), text)
				require.Contains(t, text, `"content":"`+answer+`"`)
			}
			text, exit := p.curl(t, stream, flag)
			require.Zero(t, exit, name)
			require.True(t, strings.HasSuffix(text, "data: [DONE]\n\n\n"+version+" 200 payg"), text)
			require.Equal(t, 1, strings.Count(text, `"content":" region"`))
		}
		// curl 7 loses what it has received over HTTP/2 together with the end of a stream.
		p := newPool(t, spillovertest.Latency{PerToken: 100 * time.Millisecond})
		p.ptu.Set(spillovertest.Fault{Kind: spillovertest.KindCut, After: 3})
		text, exit := p.curl(t, stream, flag)
		require.Contains(t, []int{18, 92}, exit, "CURLE_PARTIAL_FILE or CURLE_HTTP2_STREAM: %s", text)
		require.Contains(t, text, `"content":" region"`)
		require.NotContains(t, text, `"content":" is"`)
		p.key = "sk-wrong"
		text, exit = p.curl(t, chat, flag)
		require.Zero(t, exit)
		require.Contains(t, text, version+" 401")
	}
}

// A token is seen when it is sent, not at the end of the stream.
func TestCurlSeesTokensAtOnce(t *testing.T) {
	for _, flag := range []string{"--http1.1", "--http2-prior-knowledge"} {
		p := newPool(t, spillovertest.Latency{PerToken: time.Hour})
		run := exec.CommandContext(t.Context(), "curl", "-sSN", "--noproxy", "*", flag, "-H", "Content-Type: application/json", "-H", "Api-Key: "+p.key, "-d", stream, p.url+"/v1/chat/completions")
		out, err := run.StdoutPipe()
		require.NoError(t, err)
		require.NoError(t, run.Start())
		var text []byte
		for buf := make([]byte, 4<<10); !bytes.Contains(text, []byte(`"content":"when"`)); {
			n, err := out.Read(buf)
			require.NoError(t, err)
			text = append(text, buf[:n]...)
		}
		require.NoError(t, run.Process.Kill())
		require.Error(t, run.Wait())
		require.Eventually(t, func() bool { return p.ptu.Stats().Canceled == 1 }, patience, 10*time.Millisecond, "the PTU learns that curl has left")
	}
}
