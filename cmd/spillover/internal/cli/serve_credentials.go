package cli

import (
	"errors"
	"fmt"
	"net/http"

	"github.com/spillover-go/spillover"
)

// gatewayKeys are the headers of a backend that are a credential, as the transport knows them.
var gatewayKeys = map[string]bool{"Ocp-Apim-Subscription-Key": true, "X-Api-Key": true, "X-Functions-Key": true, "X-Goog-Api-Key": true}

func hasCredential(b spillover.Backend) bool {
	for name, value := range b.Headers {
		if gatewayKeys[http.CanonicalHeaderKey(name)] && value != "" {
			return true
		}
	}
	return b.APIKey != "" || b.APIKeyFile != "" || b.Auth != "" || b.Token != nil
}

// checkCredentials returns an error for each backend to which callers' credentials would
// be sent although that is not wanted.
func (s *server) checkCredentials(cfg spillover.Config) error {
	had := map[string]bool{}
	for _, b := range s.config.Backends {
		had[b.URL] = had[b.URL] || hasCredential(b)
	}
	var errs []error
	for i, b := range cfg.Backends {
		what := "has no credential: set api_key, api_key_file or auth. Callers' own credentials are sent to it only with -pass-credentials"
		switch {
		case hasCredential(b):
			continue
		case s.callers.PassCredentials && !had[b.URL]:
			continue
		case s.callers.PassCredentials:
			what = "has lost its credential: callers' own would be sent to it. Restart to confirm"
		}
		name := b.Name
		if name == "" {
			name = fmt.Sprint(i)
		}
		errs = append(errs, fmt.Errorf("%s: backends[%q] %s", s.configPath, name, what))
	}
	return errors.Join(errs...)
}
