/*
Package entra authenticates backends of a [spillover.Transport] with Microsoft
Entra ID instead of keys.

# In a configuration file

Importing this package registers the name "entra" for [spillover.Backend.Auth]:

	import _ "github.com/spillover-go/spillover/entra"

	backends:
	  - url: https://ptu.openai.azure.com
	    auth: entra
	  - url: https://eastus.openai.azure.com
	    auth: entra
	    priority: 2

The tokens are those of azidentity's DefaultAzureCredential: a service principal
from environment variables, workload identity (in Kubernetes), a managed identity,
or the login of the Azure CLI and other developer tools. AZURE_TOKEN_CREDENTIALS
selects some of them. The credential is created when the first backend with this
Auth is configured, and shared by all backends of a cloud. If it cannot be created,
[spillover.New] and [spillover.Load] return a configuration error. If it returns no
token, the first request finds out and fails over.

The host of a backend decides the cloud, and with it the scope: Azure Government
for azure.us, azure-api.us and microsoft.us, Azure in China (21Vianet) for azure.cn
and azure-api.cn, and the public cloud for every other host. For another scope,
tenant or credential, use [Token].

# In a program

[Token] makes a [spillover.TokenFunc] of any [azcore.TokenCredential], such as those
of the module azidentity:

	cred, err := azidentity.NewDefaultAzureCredential(nil)
	if err != nil {
		return err
	}
	token := entra.Token(cred)
	lb, err := spillover.New(spillover.Config{Backends: []spillover.Backend{
		{URL: "https://ptu.openai.azure.com", Token: token},
		{URL: "https://eastus.openai.azure.com", Token: token, Priority: 2},
	}})

The identity needs a role at each resource that allows inference, such as
Cognitive Services OpenAI User.

# Scopes

A token is valid for one audience, which its scope names. The default scope,
https://cognitiveservices.azure.com/.default, is that of Azure OpenAI in the
public cloud. In Azure Government the scope is
https://cognitiveservices.azure.us/.default (both are the values of
AzureOpenAIAudience in Azure's SDK for .NET). In Azure in China it is
https://cognitiveservices.azure.cn/.default, as in KnownFormRecognizerAudience of
Azure's SDK for JavaScript. The credential must use the authority of that cloud,
too:

	cred, err := azidentity.NewDefaultAzureCredential(&azidentity.DefaultAzureCredentialOptions{
		ClientOptions: azcore.ClientOptions{Cloud: cloud.AzureGovernment},
	})
	if err != nil {
		return err
	}
	token := entra.Token(cred, "https://cognitiveservices.azure.us/.default")

Microsoft's page on the v1 API of Azure OpenAI
(https://learn.microsoft.com/azure/ai-services/openai/api-version-lifecycle)
uses https://ai.azure.com/.default in most languages. Its Go example, with
openai-go, uses the default scope above. Backends of different clouds or tenants
need a TokenFunc each.

# Caching

A TokenFunc caches one token, which all its callers and backends share. The
token is fetched with the first request. It is fetched again at the time that
the credential suggests (RefreshOn), or five minutes before it expires. That
happens in the background, while requests use the present token. Requests wait
only if there is no token or it has expired.

A token has expired as soon as the wall clock or the monotonic clock says so. If the
wall clock is set back, no expired token is used; if it is set forward, or the machine
has slept, a token is fetched.

There is at most one fetch at a time. A fetch is independent of the request that
caused it: it continues if that request is canceled, and does not get the values
of its context, such as a trace. A fetch may take a minute. Requests wait only
for its first ten seconds, and then fail over to a backend with another
credential. A token that arrives later is cached for later requests.

# Failures of the credential

While the cached token is valid it stays in use. The credential is called again
after 30 seconds, or when the token expires if that is sooner. If there is no
valid token, all waiting requests get the error, and so do all requests of the
next second. Then the credential is called again. These requests fail over to
other backends. If another backend answers, the backend without a token is
ejected: [spillover.Transport.Status] shows it as unavailable with the reason,
until a half-open probe finds that the credential works.
*/
package entra

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"

	"github.com/spillover-go/spillover"
)

const (
	defaultScope = "https://cognitiveservices.azure.com/.default"

	early     = 5 * time.Minute  // how long before it expires a token is renewed if the issuer suggests no time
	patience  = 10 * time.Second // how long requests wait for a fetch, from its start
	fetchTime = time.Minute      // the timeout of a fetch

	// The minimum of time between the end of a fetch and the start of the next:
	// shortPause without a valid token, up to longPause with one.
	shortPause = time.Second
	longPause  = 30 * time.Second
)

// errLate is the error of requests that have waited too long for a fetch.
var errLate = fmt.Errorf("entra: the credential gave no token within %v: %w", patience, os.ErrDeadlineExceeded)

// Token makes a TokenFunc of a credential. The scopes are passed to the credential.
// Several credentials of azidentity accept only one. Without scopes,
// https://cognitiveservices.azure.com/.default is used.
//
// The TokenFunc is safe for concurrent use. Use one for all backends of a tenant,
// because each call of Token makes one with a cache of its own. It starts a goroutine
// for each fetch and no others, so it need not be closed. A credential that ignores its
// context and never returns keeps at most one goroutine.
//
// The errors of the TokenFunc wrap the credential's error and include its text. They
// do not contain the token. If the caller's context ends while it waits, the error
// wraps the context's cause. After a wait of ten seconds the error is a timeout
// ([net.Error]). These cause an error with each call: a nil credential, an
// empty scope, a panic of the credential, and a token that is empty, has expired or has
// no time of expiry.
//
// Continuous access evaluation is off (EnableCAE is false): a client that enables it
// must answer the claims challenges of the service, and a TokenFunc does not see the
// responses of the service. So tokens have the usual short lifetime and are valid
// until they expire. For the same reason no claims are requested.
func Token(cred azcore.TokenCredential, scopes ...string) spillover.TokenFunc {
	if len(scopes) == 0 {
		scopes = []string{defaultScope}
	}
	s := &source{cred: cred, scopes: slices.Clone(scopes)}
	return s.get
}

// A source caches the token that all callers share.
type source struct {
	cred   azcore.TokenCredential
	scopes []string

	mu      sync.Mutex // guards what follows
	token   string     // the last one; empty before the first fetch
	expires time.Time  // when it expires
	err     error      // of the last fetch; nil if it succeeded
	due     time.Time  // when the next fetch is due
	pending *fetch     // nil if no fetch is running
}

// A fetch is one call of the credential.
type fetch struct {
	began time.Time
	done  chan struct{} // closed when the result is set
	token string
	err   error
}

// get returns the token. It is the TokenFunc.
func (s *source) get(ctx context.Context) (string, error) {
	now := time.Now()
	s.mu.Lock()
	valid := !passed(now, s.expires)
	if s.pending == nil && (passed(now, s.due) || !valid && s.err == nil) {
		s.pending = &fetch{began: now, done: make(chan struct{})}
		go s.fetch(s.pending)
	}
	token, err, pending := s.token, s.err, s.pending
	s.mu.Unlock()
	switch {
	case valid:
		return token, nil
	case pending == nil:
		return "", err
	}
	return pending.wait(ctx)
}

// wait waits for the result, until the fetch is as old as patience: a request that
// comes later does not wait for a fetch that hangs.
func (f *fetch) wait(ctx context.Context) (string, error) {
	late := time.NewTimer(time.Until(f.began.Add(patience)))
	defer late.Stop()
	select {
	case <-f.done:
		return f.token, f.err
	case <-ctx.Done():
		return "", fmt.Errorf("entra: waiting for a token: %w", context.Cause(ctx))
	case <-late.C:
		return "", errLate
	}
}

// fetch calls the credential and stores the result, whatever happens.
func (s *source) fetch(f *fetch) {
	var token azcore.AccessToken
	err := errors.New("entra: the credential ended its goroutine")
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("entra: the credential %T panicked: %v", s.cred, p)
		}
		s.settle(f, token, err)
	}()
	token, err = s.ask()
}

// ask calls the credential and checks its token.
func (s *source) ask() (azcore.AccessToken, error) {
	switch {
	case s.cred == nil:
		return azcore.AccessToken{}, errors.New("entra: the credential is nil")
	case slices.Contains(s.scopes, ""):
		return azcore.AccessToken{}, errors.New("entra: a scope is empty")
	}
	ctx, cancel := context.WithTimeout(context.Background(), fetchTime)
	defer cancel()
	token, err := s.cred.GetToken(ctx, policy.TokenRequestOptions{Scopes: slices.Clone(s.scopes)})
	switch {
	case err != nil:
		// Errorf formats the text here, once: the Error method of azidentity reads a
		// response, which must not happen in several goroutines at the same time.
		return azcore.AccessToken{}, fmt.Errorf("entra: the credential failed: %w", err)
	case token.Token == "":
		return azcore.AccessToken{}, errors.New("entra: the credential gave an empty token")
	case token.ExpiresOn.IsZero():
		return azcore.AccessToken{}, errors.New("entra: the credential gave a token that does not say when it expires")
	case !time.Now().Before(token.ExpiresOn):
		return azcore.AccessToken{}, fmt.Errorf("entra: the credential gave a token that expired at %s", token.ExpiresOn.UTC().Format(time.RFC3339))
	}
	return token, nil
}

// settle stores a result (an error has a zero token), passes it to the waiting
// requests, and sets when the next fetch is due. The pause before it prevents that every
// request calls a credential that fails or that keeps returning its old token.
func (s *source) settle(f *fetch, token azcore.AccessToken, err error) {
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil {
		s.token, s.expires = token.Token, now.Add(token.ExpiresOn.Sub(now))
	}
	pause := min(max(s.expires.Sub(now), shortPause), longPause)
	s.due = now.Add(max(pause, renewal(token).Sub(now)))
	s.err, s.pending = err, nil
	f.token, f.err = token.Token, err
	close(f.done)
}

// passed reports whether a time is over, by the monotonic clock or by the wall clock. So a
// token that has expired is not used after the wall clock was set back, nor after the
// machine slept, when the monotonic clock may stop. If the wall clock is set forward, a
// token is fetched too early.
func passed(now, t time.Time) bool {
	return !now.Before(t) || !now.Round(0).Before(t.Round(0))
}

// renewal returns when a token is to be renewed, before it expires.
func renewal(t azcore.AccessToken) time.Time {
	if !t.RefreshOn.IsZero() && t.RefreshOn.Before(t.ExpiresOn) {
		return t.RefreshOn
	}
	return t.ExpiresOn.Add(-early)
}
