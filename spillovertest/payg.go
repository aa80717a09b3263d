package spillovertest

import (
	"fmt"
	"maps"
	"math"
	"net/http"
	"strconv"
	"time"
)

// PAYG is the limit of a standard (pay-as-you-go) deployment.
//
// Tokens are a bucket of TPM that refills continuously. A request is admitted
// while there is anything in it and may take it into debt, as observed on Azure
// in August 2026; Retry-After is the time until the debt is paid. The charge
// is Azure's documented estimate, prompt characters/4 + max tokens, which is
// not corrected afterwards; a request without a maximum pays for its output
// when that has been written.
//
// Requests are counted in windows of ten seconds, each opened by the first
// request after the last and holding a sixth of RPM, rounded up (Azure
// evaluates RPM over 1 or 10 seconds: Azure's quota page).
type PAYG struct {
	// TPM is tokens per minute. 0: tokens are not limited.
	TPM int
	// RPM is requests per minute. 0 means 6 for every 1000 TPM, Azure's usual
	// ratio, or no limit when TPM is 0 too.
	RPM int
	// Window is how use is forgotten, where that is not as described above.
	Window Window
	// PromptOnly leaves the output out of the charge, as answers captured in
	// 2025 and 2026 suggest.
	PromptOnly bool
	// CountRefused lets refused requests use up RPM, as OpenAI documents.
	CountRefused bool
	// HideLimits leaves out the x-ratelimit-* headers.
	HideLimits bool
	// StaleLimits is for how long the x-ratelimit-* headers stay the same, as
	// caches in front of the service have been seen to keep them.
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

	told  http.Header // the headers as they are told
	until time.Time   // and for how long
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

// charge is what is taken at admission.
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

// remaining tokens; negative in debt.
func (p *payg) remaining(now time.Time) int {
	return p.TPM - int(math.Round(p.utilization(now)*float64(p.TPM)))
}

func (p *payg) header(now time.Time, dialect Dialect, h http.Header) {
	if p.HideLimits {
		return
	}
	if p.StaleLimits == 0 {
		p.tell(now, dialect, h)
		return
	}
	if !now.Before(p.until) {
		p.told, p.until = http.Header{}, now.Add(p.StaleLimits)
		p.tell(now, dialect, p.told)
	}
	maps.Copy(h, p.told.Clone())
}

func (p *payg) tell(now time.Time, dialect Dialect, h http.Header) {
	if p.requests != nil {
		p.requestHeader(now, dialect, h)
	}
	if p.tokens != nil {
		p.tokenHeader(now, dialect, h)
	}
}

// requestHeader reports the window. Azure's limit is the window's, with its
// length as the renewal period (seen on a gpt-4o deployment); OpenAI's is RPM.
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

// tokenHeader reports the tokens. Their reset is the time until the budget is
// full again, which in debt is more than a minute.
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

// seconds is d in whole seconds, rounded down.
func seconds(d time.Duration) string {
	return strconv.Itoa(int(d / time.Second))
}
