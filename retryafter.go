package spillover

import (
	"math"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/spillover-go/spillover/internal/wire"
)

// renewal bounds a reset without a unit if the response names no renewal
// period: Azure's limits renew each minute.
const renewal = time.Minute

// retryAfter reads from an error response how long its sender wants to be left
// alone. It is zero if the response does not say, says "now", or says nothing
// usable. It is never negative and has no upper bound.
//
// The order is the one that the SDKs of OpenAI and Azure agree on: milliseconds
// before seconds, Retry-After before x-ratelimit-reset-*, and the text of the
// message last. A reset is when a limit is full again, not when a request fits.
// So it is only read from a 429, and only for a limit that is used up.
func retryAfter(status int, h http.Header, body []byte, now time.Time) time.Duration {
	for _, name := range [...]string{"Retry-After-Ms", "X-Ms-Retry-After-Ms"} {
		if d := longest(h, name, func(s string) time.Duration { return number(s, time.Millisecond) }); d > 0 {
			return d
		}
	}
	// A date is compared with the sender's own clock if the response has that.
	if date, err := http.ParseTime(wire.Header(h, "Date")); err == nil {
		now = date
	}
	d := longest(h, "Retry-After", func(s string) time.Duration {
		if d := number(s, time.Second); d > 0 {
			return d
		}
		if at, err := http.ParseTime(s); err == nil {
			return max(0, at.Sub(now))
		}
		return 0
	})
	if d > 0 || status != http.StatusTooManyRequests {
		return d
	}
	if d := reset(h); d > 0 {
		return d
	}
	return prose(body)
}

// reset is the longest x-ratelimit-reset-* of the limits that are used up, or
// whose rest is unknown. Some responses of Azure spell it x-rate-limit-reset-*.
func reset(h http.Header) time.Duration {
	var longestReset time.Duration
	for name := range h {
		const right, misspelt = "x-ratelimit-reset", "x-rate-limit-reset"
		lower := strings.ToLower(name)
		dimension, ok := strings.CutPrefix(lower, right)
		if !ok {
			dimension, ok = strings.CutPrefix(lower, misspelt)
		}
		if !ok {
			continue
		}
		// -1 is a placeholder that Azure's Responses API puts for "unknown".
		if limit, err := strconv.Atoi(h.Get("x-ratelimit-limit" + dimension)); err == nil && limit < 0 {
			continue
		}
		if remaining, err := strconv.Atoi(h.Get("x-ratelimit-remaining" + dimension)); err == nil && remaining > 0 {
			continue
		}
		ceiling := number(h.Get("x-ratelimit-renewalperiod"+dimension), time.Second)
		if ceiling <= 0 {
			ceiling = renewal
		}
		d := longest(h, name, func(s string) time.Duration {
			// A number without a unit has been milliseconds and seconds, depending on
			// region and date: it is read as seconds, within the renewal period.
			if d := number(s, time.Second); d > 0 {
				return min(d, ceiling)
			}
			d, _ := time.ParseDuration(s)
			return max(0, d)
		})
		longestReset = max(longestReset, d)
	}
	return longestReset
}

var (
	waitProse = regexp.MustCompile(`(?i)\b(?:retry after|try again (?:in|after)|wait)\s+((?:\d+(?:\.\d+)?\s*(?:milliseconds?|ms|hours?|h|minutes?|min|m|seconds?|sec|s)\b\s*)+|(?:\d+h)?(?:\d+m)?\d+(?:\.\d+)?s\b)`)
	waitPart  = regexp.MustCompile(`(?i)(\d+(?:\.\d+)?)\s*(ms|mil|h|m|s)`)
)

// prose reads "Please retry after 45 seconds." and "try again in 1m2.5s".
func prose(body []byte) time.Duration {
	m := waitProse.FindSubmatch(body)
	if m == nil {
		return 0
	}
	units := map[string]time.Duration{"ms": time.Millisecond, "mil": time.Millisecond, "s": time.Second, "m": time.Minute, "h": time.Hour}
	var total time.Duration
	for _, part := range waitPart.FindAllSubmatch(m[1], -1) {
		total = saturate(float64(total) + float64(number(string(part[1]), units[strings.ToLower(string(part[2]))])))
	}
	return total
}

// number reads a plain decimal as a count of units. It is zero for anything
// else, for numbers that are not positive, infinite or hexadecimal, and for
// words.
func number(s string, unit time.Duration) time.Duration {
	s = strings.TrimSpace(s)
	if s == "" || strings.Trim(s, "0123456789.eE+-") != "" {
		return 0
	}
	f, err := strconv.ParseFloat(s, 64)
	if (err != nil && !math.IsInf(f, 1)) || !(f > 0) {
		return 0
	}
	return saturate(f * float64(unit))
}

// saturate converts nanoseconds. What does not fit becomes the longest
// duration.
func saturate(ns float64) time.Duration {
	if ns >= math.MaxInt64 {
		return math.MaxInt64
	}
	return time.Duration(ns)
}

// longest is the longest of the values of a header, which may be repeated, or
// joined with commas by a proxy. A date contains a comma, so the whole value is
// tried first.
func longest(h http.Header, name string, parse func(string) time.Duration) time.Duration {
	var d time.Duration
	for _, value := range h[name] {
		if whole := parse(strings.TrimSpace(value)); whole > 0 {
			d = max(d, whole)
			continue
		}
		for part := range strings.SplitSeq(value, ",") {
			d = max(d, parse(strings.TrimSpace(part)))
		}
	}
	return d
}
