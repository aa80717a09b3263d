package statuspage

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// duration is a time such as "12 s" or "4 min 10 s", as the script has it.
func duration(d time.Duration) string {
	s := max(int((d+time.Second-1)/time.Second), 0)
	switch {
	case s < 60:
		return fmt.Sprintf("%d s", s)
	case s < 3600:
		return fmt.Sprintf("%d min %02d s", s/60, s%60)
	case s < 86400:
		return fmt.Sprintf("%d h %02d min", s/3600, s/60%60)
	}
	return fmt.Sprintf("%d d %02d h", s/86400, s/3600%24)
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return number(n) + " " + what + "s"
}

// number has a comma after each three digits.
func number[N int | int64 | uint64 | uint32](n N) string {
	s := strconv.FormatInt(int64(n), 10)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// decimal has a digit after the point if it is small.
func decimal(x float64) string {
	if x > 0 && x < 99.95 {
		return strings.TrimSuffix(strconv.FormatFloat(x, 'f', 1, 64), ".0")
	}
	return number(int64(x + 0.5))
}

// compact has three digits at most.
func compact(x float64) string {
	for _, unit := range []string{"", " k", " M", " G", " T"} {
		if x < 999.5 || unit == " T" {
			if unit == "" {
				return strconv.FormatFloat(x, 'f', 0, 64)
			}
			return decimal(x) + unit
		}
		x /= 1000
	}
	return ""
}

// percent is a share in percent, which is only 0 or 100 if it is exactly that.
func percent(share float64) string {
	switch {
	case share > 0 && share < 0.01:
		return "< 1 %"
	case share > 0.99 && share < 1:
		return "> 99 %"
	}
	return strconv.Itoa(int(share*100+0.5)) + " %"
}
