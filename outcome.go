package spillover

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"crypto/tls"
	"crypto/x509"

	"github.com/spillover-go/spillover/internal/wire"

	"github.com/spillover-go/spillover/internal/health"
)

// A verdict is what an attempt means for the request.
type verdict int

const (
	served    verdict = iota // a success: it goes to the caller
	rejected                 // the request itself is wrong: the error goes to the caller
	throttled                // rate-limited: the request fails over, the deployment cools down
	declined                 // the request fails over, and nothing is held against the deployment
	failed                   // the request fails over, and the failure counts against the deployment
)

func (v verdict) String() string {
	return [...]string{"served", "rejected", "throttled", "declined", "failed"}[v]
}

// An outcome is what happened in an attempt, and what that means for the
// request and for the deployment.
type outcome struct {
	verdict          verdict
	wait             time.Duration // how long the response asks to wait; 0 if it does not say
	cause            health.Cause  // of a failure
	connect          bool          // there was no connection: it counts against the whole backend, and nothing was sent
	status           int           // of the response, or what an error in a stream stands for
	uncounted        bool          // MaxAttempts does not count it
	final            bool          // it goes to the caller anyway, as the request may have been carried out
	noDeployment     bool          // the error says that the deployment does not exist
	missing          bool          // the error says that something does not exist
	responseNotFound bool          // and it is the previous response
	otherResource    bool          // the request refers to something of another resource
	elsewhere        bool          // what the request is about is not there, but may be at another resource: not a failure
	message          string        // of the error, if something is missing
	byChance         bool          // a refusal that this deployment's load has not caused
	contextLength    bool          // the request is too long for the model
	notForCaller     bool          // that is another model than the caller's own, which may take the request later
	filtered         bool          // a content filter has refused the request
	tooLarge         bool          // the request alone exceeds the deployment's limit
	deploymentOnly   bool          // the cause is this deployment: another one may take the same request
	callersBody      bool          // the caller's body could not be read
	notSent          bool          // the request was not sent, so it is not the cause
	transient        bool          // a failure that another attempt at once may not meet: a 5xx or a broken connection, but not a timeout
	reason           string        // short, for logs and Status
	detail           string        // the service's message or the error; not redacted until recordFailure
	requestID        string        // of the response
}

// judge is the one place that decides what a status and an error body mean.
// body is the part of it that was read; it is not used below 400. The rules are
// tried in order.
func judge(status int, h http.Header, body []byte, op string, now time.Time) outcome {
	if status < 400 {
		return outcome{verdict: served}
	}
	e := wire.ParseError(body)
	o := outcome{status: status, wait: retryAfter(status, h, body, now), reason: strconv.Itoa(status), detail: string(e.Message), requestID: wire.RequestID(h)}
	if e.Code != "" && string(e.Code) != o.reason {
		o.reason += " " + string(e.Code)
	}
	o.noDeployment = (status == http.StatusNotFound || status == http.StatusBadRequest) && e.DeploymentMissing()
	if status == http.StatusNotFound || status == http.StatusBadRequest {
		o.missing, o.responseNotFound, o.message = e.NotFound(), e.Code == wire.PreviousResponseNotFound, string(e.Message)
	}
	o.contextLength, o.filtered = e.ContextTooLong(status), e.ContentFiltered() || bytes.Contains(body, []byte(wire.FilteredByAzure))
	switch {
	case status == http.StatusPaymentRequired, e.OutOfQuota() && refusesPayment(status):
		o.verdict, o.cause, o.deploymentOnly, o.uncounted, o.wait = failed, health.OutOfQuota, true, true, 0
	case (status == http.StatusTooManyRequests || status == http.StatusRequestEntityTooLarge) && e.RequestTooLarge():
		o.verdict, o.deploymentOnly, o.tooLarge, o.wait = declined, true, true, 0
	case status == http.StatusTooManyRequests:
		o.verdict, o.uncounted, o.byChance = throttled, true, e.NoCapacity()
	case status == http.StatusUnauthorized, status == http.StatusForbidden && !e.NotFromService(), o.noDeployment,
		status == http.StatusBadRequest && e.OperationUnsupported(), status == http.StatusNotFound && wire.StatelessPaths[op] && !e.NotFromService():
		o.verdict, o.cause, o.deploymentOnly, o.wait = failed, health.Misconfigured, true, 0
	case status == http.StatusForbidden, status == http.StatusNotFound && wire.StatelessPaths[op]:
		// Not the service's own error: a firewall or a gateway in front of it has answered.
		o.verdict, o.cause, o.wait = failed, health.Blocked, 0
	case status == http.StatusRequestTimeout, status == http.StatusConflict && o.wait > 0:
		o.verdict, o.wait = declined, 0
	case e.IsOfOtherResource():
		o.verdict, o.deploymentOnly, o.uncounted, o.otherResource, o.wait = declined, true, true, true, 0
	case status >= 500:
		o.verdict, o.cause = failed, health.ServerFailure
		o.transient = o.wait == 0 && status != http.StatusGatewayTimeout
	default:
		o.verdict = rejected
	}
	return o
}

// errHeaderTimeout ends an attempt after HeaderTimeout.
var errHeaderTimeout net.Error = timeoutError("no header of an answer, or no content of a stream, within HeaderTimeout")

// errConnectTimeout ends a probe that cannot connect.
var errConnectTimeout net.Error = timeoutError("no connection for a probe within the time that it has")

// judgeError is the outcome of an attempt without a response.
func judgeError(err error) outcome {
	o := outcome{verdict: failed, cause: health.NoAnswer, reason: "no answer", detail: err.Error()}
	timeout, ok := errors.AsType[net.Error](err)
	o.transient = !ok || !timeout.Timeout()
	switch {
	case errors.Is(err, errHeaderTimeout), errors.Is(err, errIdleTimeout):
		o.reason = "no answer in time"
	case errors.Is(err, io.ErrUnexpectedEOF):
		o.reason = "answer broke off"
	case unconnected(err), refusedHandshake(err):
		o.connect, o.cause, o.reason, o.transient = true, health.Unreachable, "no connection", false
	}
	return o
}

// unconnected reports whether an error can only come from connecting.
func unconnected(err error) bool {
	var dns *net.DNSError
	op := opOf(err)
	return errors.Is(err, errConnectTimeout) || errors.As(err, &dns) || op == "dial" || op == "proxyconnect"
}

// refusedHandshake reports whether an error is of a TLS handshake. It counts as
// a failed connection unless the base reports that it had a connection, see
// [attempt.classifyError].
func refusedHandshake(err error) bool {
	var record tls.RecordHeaderError
	var certificate *tls.CertificateVerificationError
	// tls.Config.VerifyConnection may return these unwrapped; crypto/tls itself wraps them.
	var authority x509.UnknownAuthorityError
	var host x509.HostnameError
	op := opOf(err) // of a TLS alert, received or sent
	return op == "remote error" || op == "local error" || errors.As(err, &record) ||
		errors.As(err, &certificate) || errors.As(err, &authority) || errors.As(err, &host) ||
		strings.HasSuffix(err.Error(), "TLS handshake timeout") // net/http has no type for it
}

// opOf is the operation of a network connection that failed, or "".
func opOf(err error) string {
	if op, ok := errors.AsType[*net.OpError](err); ok {
		return op.Op
	}
	return ""
}

// refusesPayment reports whether a status may come with a code about the
// account: usually 429, but gateways and older APIs use others.
func refusesPayment(status int) bool {
	switch status {
	case http.StatusBadRequest, http.StatusForbidden, http.StatusTooManyRequests:
		return true
	}
	return false
}

// errUnfinished ends a stream that is incomplete, although its connection has ended
// regularly.
var errUnfinished = fmt.Errorf("the stream ended before it was complete: %w", io.ErrUnexpectedEOF)

// errTruncated is the same error for a caller that has a part of the stream.
var errTruncated = fmt.Errorf("spillover: %w", errUnfinished)

// errIdleTimeout ends a response that was silent for IdleTimeout.
var errIdleTimeout net.Error = timeoutError("spillover: the answer was silent for IdleTimeout")

type timeoutError string

func (e timeoutError) Error() string { return string(e) }

func (timeoutError) Timeout() bool { return true }

func (timeoutError) Temporary() bool { return true }

// errSlowBody ends an error response whose body does not arrive.
var errSlowBody = errors.New("spillover: the body of the error answer did not come in time")

// failsOver reports whether a request fails over after a status, whatever the
// body.
func failsOver(status int) bool {
	return status == http.StatusUnauthorized || status == http.StatusForbidden || status == http.StatusRequestTimeout ||
		status == http.StatusTooManyRequests || status >= 500
}

// A Failure is why an attempt failed.
type Failure struct {
	Time   time.Time `json:"time,omitzero"`    // when; the zero time if there was no failure
	Status int       `json:"status,omitempty"` // of the response, or what an error in a stream stands for; 0 without a response
	Reason string    `json:"reason,omitempty"` // short, such as "401 invalid_api_key" or "no connection"
	// Cause is the service's own message, or the error of the credential or the
	// connection: at most 256 bytes of printable ASCII, with *** for whatever
	// looks like a credential. It may be empty.
	Cause string `json:"cause,omitempty"`
}

// safeText is the cause of a failure for logs and spans. That of a client error is
// left out, as it may quote the request.
func (o outcome) safeText() string {
	if o.verdict == rejected || o.verdict == served {
		return ""
	}
	return o.detail
}
