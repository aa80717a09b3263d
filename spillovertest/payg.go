package spillovertest

import (
	"fmt"
	"maps"
	"math"
	"net/http"
	"strconv"
	"time"
)

// PAYG is the limit of a standard (pay-as-you-go) deployment. The zero value limits
// nothing.
//
// Tokens are a bucket of TPM that refills continuously (a token bucket). A request is
// admitted as long as the bucket is not empty, and may take it below zero, as observed
// on Azure in August 2026. Retry-After is then the time until it is above zero again. The
// charge is Azure's documented estimate, characters of the prompt / 4 + maximum of
// output tokens, and is not corrected afterwards. A request without a maximum is charged
// for its output when that has been written.
//
// Requests are counted in windows of ten seconds. A window begins with the first
// request after the previous one, and admits a sixth of RPM, rounded up: Azure
// evaluates RPM over 1 or 10 seconds
// (https://learn.microsoft.com/azure/ai-services/openai/how-to/quota).
type PAYG struct {
	// TPM is the limit in tokens per minute. 0 means that tokens are not limited.
	TPM int
	// RPM is the limit in requests per minute. 0 means 6 for every 1000 TPM, which is
	// Azure's usual ratio, or no limit if TPM is 0, too.
	RPM int
	// Window is how the limit forgets what was used. The zero value is Refilling.
	Window Window
	// PromptOnly charges only for the prompt, as responses captured in 2025 and 2026
	// suggest.
	PromptOnly bool
	// CountRefused counts refused requests against RPM, as OpenAI documents
	// (https://platform.openai.com/docs/guides/rate-limits).
	CountRefused bool
	// HideLimits leaves out the x-ratelimit-* headers.
	HideLimits bool
	// StaleLimits is for how long the x-ratelimit-* headers stay the same, as caches
	// in front of the service have been seen to repeat them. 0 means that they are
	// always current.
	StaleLimits time.Duration
}

// requestWindow is the time over which Azure evaluates RPM.
const requestWindow = 10 * time.Second

func (l PAYG) check() error {
	if l.TPM < 0 || l.RPM < 0 || l.StaleLimits < 0 {
		return fmt.Errorf("PAYG has a negative limit")
	}
	return l.Window.check()
}

func (l PAYG) start() limiter {
	if l.RPM == 0 && l.TPM > 0 {
		l.RPM = max(1, l.TPM*6/1000)
	}
	p := &payg{PAYG: l, size: (l.RPM + 5) / 6}
	p.tokens, p.requests = l.Window.windows(l.TPM, p.size)
	return p
}

type payg struct {
	PAYG
	tokens   window // nil: not limited
	requests window // nil: not limited
	size     int    // requests in a window

	stale http.Header // the headers that are repeated
	until time.Time   // and until when
}

func (p *payg) admit(now time.Time, d demand) (refusal, bool) {
	no, refused := p.refuse(now, d)
	if p.requests != nil && (!refused || p.CountRefused) {
		p.requests.add(now, 1)
	}
	if p.tokens != nil && !refused {
		p.tokens.add(now, p.charge(d))
	}
	return no, !refused
}

func (p *payg) refuse(now time.Time, d demand) (refusal, bool) {
	if p.requests != nil {
		if wait := p.requests.wait(now, 1); wait > 0 {
			return refusal{by: byRequests, wait: wait, limit: p.RPM, used: p.RPM, requested: 1}, true
		}
	}
	if p.tokens != nil {
		if wait := p.tokens.wait(now, p.charge(d)); wait > 0 {
			return refusal{
				by: byTokens, wait: wait,
				limit: p.TPM, used: p.TPM - p.remaining(now), requested: p.charge(d),
			}, true
		}
	}
	return refusal{}, false
}

// charge returns the tokens that a request is charged when it is admitted.
func (p *payg) charge(d demand) int {
	if p.PromptOnly {
		return d.prompt
	}
	return d.prompt + d.max
}

func (p *payg) settle(now time.Time, d demand, written int) float64 {
	if d.max > 0 || p.PromptOnly {
		return float64(p.charge(d))
	}
	if p.tokens != nil {
		p.tokens.add(now, written)
	}
	return float64(d.prompt + written)
}

func (p *payg) utilization(now time.Time) float64 {
	if p.tokens == nil {
		return 0
	}
	return p.tokens.used(now)
}

// remaining returns the remaining tokens, which may be negative.
func (p *payg) remaining(now time.Time) int {
	return p.TPM - int(math.Round(p.utilization(now)*float64(p.TPM)))
}

func (p *payg) header(now time.Time, dialect Dialect, h http.Header) {
	if p.HideLimits {
		return
	}
	if p.StaleLimits == 0 {
		p.report(now, dialect, h)
		return
	}
	if !now.Before(p.until) {
		p.stale, p.until = http.Header{}, now.Add(p.StaleLimits)
		p.report(now, dialect, p.stale)
	}
	maps.Copy(h, p.stale.Clone())
}

func (p *payg) report(now time.Time, dialect Dialect, h http.Header) {
	if p.requests != nil {
		p.requestHeader(now, dialect, h)
	}
	if p.tokens != nil {
		p.tokenHeader(now, dialect, h)
	}
}

// requestHeader reports the window of requests. Azure reports the limit of the window,
// and its length as the renewal period (seen on a gpt-4o deployment). OpenAI reports RPM.
func (p *payg) requestHeader(now time.Time, dialect Dialect, h http.Header) {
	left := p.size - int(math.Round(p.requests.used(now)*float64(p.size)))
	reset := p.requests.reset(now)
	if dialect == OpenAI {
		h.Set("X-Ratelimit-Limit-Requests", strconv.Itoa(p.RPM))
		h.Set("X-Ratelimit-Remaining-Requests", strconv.Itoa(max(0, left)))
		h.Set("X-Ratelimit-Reset-Requests", reset.Round(time.Millisecond).String())
		return
	}
	h.Set("X-Ratelimit-Limit-Requests", strconv.Itoa(p.size))
	h.Set("X-Ratelimit-Remaining-Requests", strconv.Itoa(left))
	h.Set("X-Ratelimit-Reset-Requests", seconds(reset))
	h.Set("X-Ratelimit-Renewalperiod-Requests", seconds(requestWindow))
}

// tokenHeader reports the tokens. Their reset is the time until the bucket is full
// again. It is more than a minute if the bucket is below zero.
func (p *payg) tokenHeader(now time.Time, dialect Dialect, h http.Header) {
	left, reset := p.remaining(now), p.tokens.reset(now)
	h.Set("X-Ratelimit-Limit-Tokens", strconv.Itoa(p.TPM))
	if dialect == OpenAI {
		h.Set("X-Ratelimit-Remaining-Tokens", strconv.Itoa(max(0, left)))
		h.Set("X-Ratelimit-Reset-Tokens", reset.Round(time.Millisecond).String())
		return
	}
	h.Set("X-Ratelimit-Remaining-Tokens", strconv.Itoa(left))
	h.Set("X-Ratelimit-Reset-Tokens", seconds(reset))
	h.Set("X-Ratelimit-Renewalperiod-Tokens", seconds(time.Minute))
}

// seconds returns d in whole seconds, rounded down.
func seconds(d time.Duration) string {
	return strconv.Itoa(int(d / time.Second))
}
