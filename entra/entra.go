/*
Package entra lets the backends of a [spillover.Transport] be asked with tokens
of Microsoft Entra ID instead of keys. [Token] makes a [spillover.TokenFunc] of
any [azcore.TokenCredential], such as those of the module azidentity:

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

A token is for one audience, which its scope names. The default,
https://cognitiveservices.azure.com/.default, is that of Azure OpenAI in the
public cloud. In Azure Government it is
https://cognitiveservices.azure.us/.default (both are the values of
AzureOpenAIAudience in Azure's SDK for .NET), and the credential must ask that
cloud's authority, too:

	cred, err := azidentity.NewDefaultAzureCredential(&azidentity.DefaultAzureCredentialOptions{
		ClientOptions: azcore.ClientOptions{Cloud: cloud.AzureGovernment},
	})
	token := entra.Token(cred, "https://cognitiveservices.azure.us/.default")

Microsoft's page on the v1 API of Azure OpenAI (api-version-lifecycle) asks for
https://ai.azure.com/.default in most languages; the Go client it shows,
openai-go, asks for the default above. Backends of different clouds or tenants
need a TokenFunc each.

# How long a token is kept

One token serves all callers of a TokenFunc, however many backends share it.
It is fetched when it is first asked for, and anew from the time that the
credential suggests (RefreshOn), or else five minutes before it expires. That is
done in the background: requests go on with the token there is. Only where there
is none, or it has expired, do they wait.

Fetches never overlap. A fetch belongs to no caller: one that leaves does not
end it for the others, and the values of its context (a trace, for one) are not
passed on. A fetch has a minute. Callers wait for the first ten seconds of it
and no longer, so that a request moves on to a backend with another credential;
what the fetch brings later is kept for those who come then.

# When the credential fails

While the token at hand is valid it stays in use, and the credential is asked
again after 30 seconds, or when the token expires if that is sooner. Without
one, everybody who waits gets the error, and so does everybody within the next
second; then one fetch is tried again. Requests move on to other backends. Where
one of those answers, the backend without a token is out in
[spillover.Transport.Status], with that as the reason, until a probe finds that
its credential works.
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

	early     = 5 * time.Minute  // how long before it expires a token is renewed whose issuer suggests no time
	patience  = 10 * time.Second // how long after its beginning a fetch is waited for
	fetchTime = time.Minute      // what a fetch may take

	// What passes between the end of a fetch and the next, at least: the former
	// without a valid token, up to the latter with one.
	shortPause = time.Second
	longPause  = 30 * time.Second
)

// errLate is for those who waited for a fetch in vain.
var errLate = fmt.Errorf("entra: the credential gave no token within %v: %w", patience, os.ErrDeadlineExceeded)

// Token makes a TokenFunc of a credential. The scopes are those to ask for, one
// as a rule: several credentials of azidentity take no more. None means
// https://cognitiveservices.azure.com/.default.
//
// The function is safe for concurrent use, and meant to be shared: each call of
// Token makes one with a token of its own. It starts a goroutine for each fetch
// and no other, so nothing needs to be closed; a credential that does not
// return, against its context, keeps one goroutine at most.
//
// Its errors wrap the credential's own, whose text is passed on as it is; the
// token is not put into them. The error of a caller whose context ended while it waited wraps the context's cause; that
// of one who waited in vain for ten seconds is a timeout ([net.Error]). A nil
// credential and an empty scope are errors of each call, as are a panic of the
// credential, and a token that is empty, has expired or does not say when it
// expires.
//
// Continuous access evaluation is not asked for (EnableCAE is false): a client
// that enables it must answer the claims challenges of the service, and a
// TokenFunc does not see the service's answers. Tokens are therefore of the
// usual short life, and hold until they expire. For the same reason no claims
// are requested.
func Token(cred azcore.TokenCredential, scopes ...string) spillover.TokenFunc {
	if len(scopes) == 0 {
		scopes = []string{defaultScope}
	}
	s := &source{cred: cred, scopes: slices.Clone(scopes)}
	return s.get
}

// A source keeps the token that all callers share.
type source struct {
	cred   azcore.TokenCredential
	scopes []string

	mu      sync.Mutex         // guards what follows
	token   azcore.AccessToken // the latest; the zero value before the first
	err     error              // of the last fetch; nil when it brought a token
	due     time.Time          // when the next fetch is due
	pending *fetch             // nil when none is under way
}

// A fetch is one call of the credential.
type fetch struct {
	began time.Time
	done  chan struct{} // closed when the result is there
	token string
	err   error
}

// get is the token, as [spillover.TokenFunc] has it.
func (s *source) get(ctx context.Context) (string, error) {
	now := time.Now()
	s.mu.Lock()
	valid := now.Before(s.token.ExpiresOn)
	if s.pending == nil && (!now.Before(s.due) || !valid && s.err == nil) {
		s.pending = &fetch{began: now, done: make(chan struct{})}
		go s.fetch(s.pending)
	}
	token, err, pending := s.token.Token, s.err, s.pending
	s.mu.Unlock()
	switch {
	case valid:
		return token, nil
	case pending == nil:
		return "", err
	}
	return pending.wait(ctx)
}

// wait waits for the result, but only while the fetch is young: who comes to
// one that hangs has no more to wait.
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

// fetch asks the credential and settles the result, whatever happens.
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

// ask asks the credential for a token that can be used.
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
		// Errorf takes the text down here and once: that of an azidentity error
		// reads a response, which must not happen in many goroutines at a time.
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

// settle keeps a result (an error comes with a zero token), hands it to those
// who wait, and says when the next fetch is due. The pause after this one keeps a credential from being asked by
// every request: one that fails, and one that goes on giving its old token.
func (s *source) settle(f *fetch, token azcore.AccessToken, err error) {
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil {
		s.token = token
	}
	left := s.token.ExpiresOn.Sub(now)
	s.due = now.Add(min(max(left, shortPause), longPause))
	if at := renewal(token); at.After(s.due) {
		s.due = at
	}
	s.err, s.pending = err, nil
	f.token, f.err = token.Token, err
	close(f.done)
}

// renewal is when a token is to be renewed, ahead of its end.
func renewal(t azcore.AccessToken) time.Time {
	if !t.RefreshOn.IsZero() && t.RefreshOn.Before(t.ExpiresOn) {
		return t.RefreshOn
	}
	return t.ExpiresOn.Add(-early)
}
