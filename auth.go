package spillover

import (
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"sync"

	"github.com/spillover-go/spillover/internal/configfile"
)

// authSources are the registered sources of bearer tokens, by name.
var authSources struct {
	sync.Mutex
	byName map[string]func(*url.URL) (TokenFunc, error)
}

// RegisterAuth registers a source of bearer tokens under a name for [Backend.Auth],
// usually in the init function of the package that implements it. Importing
// github.com/spillover-go/spillover/entra registers "entra".
//
// newToken returns the TokenFunc for a backend with the given URL. It is called by
// [New], [Load] and [Transport.Reconfigure], for each backend with that Auth, by
// many goroutines at once. It should therefore be fast, and return the same
// TokenFunc for backends that can share tokens. Its error is reported as an error
// of the configuration; it must not contain a secret.
//
// RegisterAuth panics if the name is empty or already registered, or if newToken is
// nil.
func RegisterAuth(name string, newToken func(backend *url.URL) (TokenFunc, error)) {
	authSources.Lock()
	defer authSources.Unlock()
	switch {
	case name == "":
		panic("spillover: RegisterAuth: the name is empty")
	case newToken == nil:
		panic("spillover: RegisterAuth: newToken is nil")
	case authSources.byName[name] != nil:
		panic(fmt.Sprintf("spillover: RegisterAuth: %q is already registered", name))
	}
	if authSources.byName == nil {
		authSources.byName = map[string]func(*url.URL) (TokenFunc, error){}
	}
	authSources.byName[name] = newToken
}

// entraModule registers "entra".
const entraModule = "github.com/spillover-go/spillover/entra"

// authSource returns a registered source. Its error says what to write instead, as
// what follows the name.
func authSource(name string) (func(*url.URL) (TokenFunc, error), error) {
	authSources.Lock()
	defer authSources.Unlock()
	if source := authSources.byName[name]; source != nil {
		return source, nil
	}
	registered := slices.Sorted(maps.Keys(authSources.byName))
	switch known := append([]string{"entra"}, registered...); {
	case name == "entra":
		return nil, fmt.Errorf("is not registered: the program must import _ %q", entraModule)
	case configfile.Suggestion(name, known) != "":
		return nil, errors.New("is not registered" + configfile.Suggestion(name, known))
	case len(registered) == 0:
		return nil, fmt.Errorf("is not registered: the program must import the package that registers it; %q registers \"entra\"", entraModule)
	}
	return nil, fmt.Errorf("is not registered: it must be %s, or the program must import the package that registers it", strings.Join(quoted(registered), " or "))
}

func quoted(names []string) (all []string) {
	for _, name := range names {
		all = append(all, fmt.Sprintf("%q", name))
	}
	return all
}
