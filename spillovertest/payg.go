package spillovertest

import (
	"fmt"
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
	// PromptOnly leaves the output out of the charge, as answers captured in
	// 2025 and 2026 suggest.
	PromptOnly bool
	// CountRefused lets refused requests use up RPM, as OpenAI documents.
	CountRefused bool
	// HideLimits leaves out the x-ratelimit-* headers.
	HideLimits bool
}

// requestWindow is the time over which Azure evaluates RPM.
const requestWindow = 10 * time.Second

func (l PAYG) check() error {
	if l.TPM < 0 || l.RPM < 0 {
		return fmt.Errorf("PAYG has a negative limit")
	}
	return nil
}

func (l PAYG) start() limiter {
	if l.RPM == 0 && l.TPM > 0 {
		l.RPM = max(1, l.TPM*6/1000)
	}
	return &payg{PAYG: l, tokens: bucket{perMinute: l.TPM}, size: (l.RPM + 5) / 6}
}

type payg struct {
	PAYG
	tokens bucket // what is missing from a full budget
	size   int    // requests in a window; 0: any number
	count  int    // requests in this window
	ends   time.Time
}

func (p *payg) admit(now time.Time, d demand) (refusal, bool) {
	if !now.Before(p.ends) {
		p.ends, p.count = now.Add(requestWindow), 0
	}
	no, refused := p.refuse(now, d)
	if !refused || p.CountRefused {
		p.count++
	}
	if !refused {
		p.tokens.add(now, p.charge(d))
	}
	return no, !refused
}

func (p *payg) refuse(now time.Time, d demand) (refusal, bool) {
	if p.size > 0 && p.count >= p.size {
		return refusal{
			by: byRequests, wait: p.ends.Sub(now),
			limit: p.RPM, used: p.RPM, requested: 1,
		}, true
	}
	if debt := p.tokens.depth(now) - time.Minute; p.TPM > 0 && debt >= 0 {
		return refusal{
			// Just after the debt is paid: an empty bucket admits nobody.
			by: byTokens, wait: debt + 1,
			limit: p.TPM, used: p.TPM - p.remaining(now), requested: p.charge(d),
		}, true
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
	p.tokens.add(now, written)
	return float64(d.prompt + written)
}

func (p *payg) utilization(now time.Time) float64 {
	return float64(p.tokens.depth(now)) / float64(time.Minute)
}

// remaining tokens; negative in debt.
func (p *payg) remaining(now time.Time) int {
	return p.TPM - int(math.Round(p.utilization(now)*float64(p.TPM)))
}

func (p *payg) header(now time.Time, dialect Dialect, h http.Header) {
	if p.HideLimits {
		return
	}
	if p.size > 0 {
		p.requestHeader(now, dialect, h)
	}
	if p.TPM > 0 {
		p.tokenHeader(now, dialect, h)
	}
}

// requestHeader reports the window. Azure's limit is the window's, with its
// length as the renewal period (seen on a gpt-4o deployment); OpenAI's is RPM.
func (p *payg) requestHeader(now time.Time, dialect Dialect, h http.Header) {
	left, reset := p.size-p.count, p.ends.Sub(now)
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

// tokenHeader reports the bucket. Its reset is the time until it is full
// again, which in debt is more than a minute.
func (p *payg) tokenHeader(now time.Time, dialect Dialect, h http.Header) {
	left, reset := p.remaining(now), p.tokens.depth(now)
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
