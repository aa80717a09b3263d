// Package connections makes the transport of net/http over which requests reach deployments,
// for configurations without a Base and for the commands.
package connections

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"time"
)

// NewTransport is a clone of [http.DefaultTransport]. If a program has replaced that
// by another type, as instrumentation does, it has net/http's own settings. A
// pool sends everything to a few hosts, so as many idle connections are kept
// for one host as for all.
func NewTransport() *http.Transport {
	// The settings of net/http's DefaultTransport.
	base := &http.Transport{
		Proxy: http.ProxyFromEnvironment, DialContext: (&net.Dialer{Timeout: 30 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
		ForceAttemptHTTP2: true, MaxIdleConns: 100, IdleConnTimeout: 90 * time.Second,
		TLSHandshakeTimeout: 10 * time.Second, ExpectContinueTimeout: time.Second,
	}
	if t, ok := http.DefaultTransport.(*http.Transport); ok {
		base = t.Clone()
	}
	if base.OnProxyConnectResponse == nil {
		base.OnProxyConnectResponse = refusedByProxy
	}
	if base.MaxIdleConnsPerHost == 0 {
		base.MaxIdleConnsPerHost = base.MaxIdleConns
	}
	if base.WriteBufferSize == 0 {
		base.WriteBufferSize = 20 << 10 // a body that is sent from memory, and a header
	}
	return base
}

// refusedByProxy is the error of a connection that a proxy refuses. net/http has only
// the text of the status for it, which does not show that nothing was sent.
func refusedByProxy(_ context.Context, _ *url.URL, _ *http.Request, resp *http.Response) error {
	if resp.StatusCode == http.StatusOK {
		return nil
	}
	return &net.OpError{Op: "proxyconnect", Net: "tcp", Err: fmt.Errorf("the proxy answered %d %s", resp.StatusCode, http.StatusText(resp.StatusCode))}
}
