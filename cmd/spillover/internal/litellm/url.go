package litellm

import (
	"errors"
	"net/url"
	"regexp"
	"strings"
)

// urlWords is what names of variables with a URL say of that.
var urlWords = regexp.MustCompile(`(^|_)(API_)?(BASE_URL|BASE|URL|ENDPOINT|HOST)(_|$)`)

// hintOf is a short name of a URL: of its host, or of its variable.
func hintOf(s string) string {
	if m := reference.FindStringSubmatch(s); m != nil && m[1] == "" {
		return urlWords.ReplaceAllString(m[2], "_")
	}
	u, err := url.Parse(s)
	if err != nil {
		return ""
	}
	host := u.Hostname()
	labels := strings.Split(host, ".")
	switch {
	case strings.Trim(host, "0123456789.") == "" || strings.Contains(host, ":") || len(labels) == 1: // addresses, localhost
		return host + "-" + u.Port()
	case labels[0] == "api" || labels[0] == "www":
		return labels[1]
	default:
		return labels[0]
	}
}

// parseURL parses an absolute URL. Its error does not quote it: it may have a password.
func parseURL(s string) (*url.URL, error) {
	if !strings.HasPrefix(s, "https://") && !strings.HasPrefix(s, "http://") {
		return nil, errors.New("does not begin with https:// or http://")
	}
	u, err := url.Parse(s)
	switch {
	case err != nil || u.Hostname() == "":
		return nil, errors.New("is not a valid URL")
	case u.User != nil:
		return nil, errors.New("has user info, which spillover does not send")
	}
	return u, nil
}

// noteQuery reports a query that is left out, without its values.
func (c *converter) noteQuery(at value, u *url.URL) {
	if u.RawQuery != "" {
		c.note(LeftOut, at, "the query of the URL")
	}
}

var azureHost = regexp.MustCompile(`(?i)\.(openai|cognitiveservices|services\.ai)\.azure\.[a-z]+$`)

func isAzure(host string) bool { return azureHost.MatchString(host) }

func isFoundry(raw string) bool {
	u, err := parseURL(raw)
	return err == nil && isAzure(u.Hostname())
}
