package spillover

import (
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover/internal/health"
)

// The table of what fails over in docs/failover.md says what judge decides, and its
// times are those of the ejections.
func TestDocsSayWhatFailsOver(t *testing.T) {
	type response struct {
		status int
		header string
		body   string
	}
	const serviceError = `{"error":{"code":"server_error","message":"x"}}`
	retryAfter := "Retry-After: 7"
	rows := map[string]struct {
		responses []response
		verdict   verdict
		cause     health.Cause
	}{
		"2xx, 3xx":                   {[]response{{status: 200}, {status: 206}, {status: 302}}, served, 0},
		"429 (rate limit)":           {[]response{{status: 429}, {429, retryAfter, ""}}, throttled, 0},
		"429 out of quota or credit": {[]response{{429, "", `{"error":{"code":"insufficient_quota"}}`}}, failed, health.OutOfQuota},
		"429, 413 request larger than the limit": {[]response{
			{429, "", `{"error":{"code":"rate_limit_exceeded","message":"Request too large for gpt-4o"}}`},
			{413, "", `{"error":{"message":"Request too large"}}`},
		}, declined, 0},
		"5xx with `Retry-After`":      {[]response{{500, retryAfter, ""}, {503, retryAfter, serviceError}}, failed, health.ServerFailure},
		"5xx without":                 {[]response{{500, "", serviceError}, {status: 502}, {status: 503}, {status: 504}}, failed, health.ServerFailure},
		"408; 409 with `Retry-After`": {[]response{{status: 408}, {409, retryAfter, ""}}, declined, 0},
		"401, 403, 404 for the deployment or the operation": {[]response{
			{401, "", serviceError}, {403, "", serviceError}, {404, "", serviceError}, {404, "", `{"error":{"code":"DeploymentNotFound"}}`},
		}, failed, health.Misconfigured},
		"403, 404 of a firewall or gateway (HTML)": {[]response{{403, "", "<html>"}, {404, "", "<html>"}}, failed, health.Blocked},
		"any other 4xx: content filter, context length, …": {[]response{
			{400, "", `{"error":{"code":"content_filter"}}`}, {400, "", `{"error":{"code":"context_length_exceeded"}}`}, {422, "", serviceError}, {409, "", serviceError},
		}, rejected, 0},
	}
	moves := map[verdict]string{served: "no", rejected: "no", throttled: "yes", declined: "yes", failed: "yes"}
	text, err := os.ReadFile("docs/failover.md")
	require.NoError(t, err)
	_, table, ok := strings.Cut(string(text), "| response | other deployments tried? |")
	require.True(t, ok)
	table, _, _ = strings.Cut(table, "\n\n")
	seen := 0
	for line := range strings.Lines(table) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), " | ")
		name := strings.TrimSpace(cells[0])
		row, ok := rows[name]
		if !ok {
			continue
		}
		seen++
		for _, r := range row.responses {
			h := http.Header{}
			if name, value, ok := strings.Cut(r.header, ": "); ok {
				h.Set(name, value)
			}
			o := judge(r.status, h, []byte(r.body), "chat/completions", time.Now())
			require.Equal(t, row.verdict, o.verdict, "%s: %v", name, r)
			require.Equal(t, row.cause, o.cause, "%s: %v", name, r)
		}
		require.True(t, strings.HasPrefix(cells[1], moves[row.verdict]), line)
		if row.cause != health.NoFailure && !strings.Contains(name, "with `Retry-After`") && row.cause != health.Blocked {
			require.Contains(t, cells[2], ejectionTimes(row.cause), name)
		}
	}
	require.Equal(t, len(rows), seen, "a row is missing")
	require.Contains(t, table, "| the whole backend is ejected for "+ejectionTimes(health.Unreachable))
	require.Contains(t, table, "| first one ignored; then ejected for "+ejectionTimes(health.NoAnswer))
}

// ejectionTimes is how long repeated failures eject, as the table writes it.
func ejectionTimes(cause health.Cause) string {
	var s health.State
	now := time.Now()
	var all []time.Duration
	for range 20 {
		s.Fail(now, health.FailedAttempt{Sent: now, Seen: now, Cause: cause}, 0.5)
		until, _, _ := s.Closed(now)
		if until.After(now) {
			all = append(all, until.Sub(now))
			now = until
			s.Admit(now, false)
		}
		now = now.Add(time.Millisecond)
	}
	if last := all[len(all)-1]; all[0] != last {
		return fmt.Sprintf("%v s, %v s, … %v s", all[0].Seconds(), all[1].Seconds(), last.Seconds())
	}
	return fmt.Sprintf("%v minutes", all[0].Minutes())
}
