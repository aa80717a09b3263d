package spillover

import (
	"errors"
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
	served    verdict = iota // the caller's, and the deployment is well
	rejected                 // the caller's: its own mistake, which no other deployment would mend
	throttled                // not here, not now
	declined                 // elsewhere, and nothing is said about the deployment
	failed                   // elsewhere, and the deployment is suspect
)

// An outcome is what happened in an attempt and what it says about the deployment.
type outcome struct {
	verdict          verdict
	wait             time.Duration // how long the deployment is to be left alone; 0 when the answer does not say
	cause            health.Cause  // of a failed attempt
	connect          bool          // there was no connection: the backend as a whole is suspect, and nothing was received
	status           int           // of the answer, or what an error in a stream stands for
	uncounted        bool          // MaxAttempts does not count it
	final            bool          // the caller's all the same: the request may have been carried out
	noDeployment     bool          // the deployment: the answer says so by name
	missing          bool          // the answer says that something does not exist
	responseNotFound bool          // and that it is the response that the request goes on from
	otherResource    bool          // the request is about something that another backend made
	message          string        // of an answer that is about something missing
	byChance         bool          // a refusal that the load of this deployment did not cause
	tooLarge         bool          // the request alone is more than the deployment's limit
	deploymentOnly   bool          // the trouble is this deployment's alone: another one may take the very same request
	notSent          bool          // the request was not sent: it is not to blame
	reason           string        // short, for people
	detail           string        // the service's message, or the error; as it came, until call.note
	requestID        string        // of the answer
}

// judge reads an answer. The body is its beginning, as far as it was read; of
// a 2xx or 3xx it is not looked at.
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
		o.missing, o.responseNotFound, o.message = e.SaysNotFound(), e.Code == wire.PreviousNotFound, string(e.Message)
	}
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
		// It is not the service that says so, but a firewall or a gateway before it.
		o.verdict, o.cause, o.wait = failed, health.Blocked, 0
	case status == http.StatusRequestTimeout, status == http.StatusConflict && o.wait > 0:
		o.verdict, o.wait = declined, 0
	case e.OtherResource():
		o.verdict, o.deploymentOnly, o.uncounted, o.otherResource, o.wait = declined, true, true, true, 0
	case status >= 500:
		o.verdict, o.cause = failed, health.ServerFailure
	default:
		o.verdict = rejected
	}
	return o
}

// errHeaderTimeout is the cause of an attempt's end after HeaderTimeout.
var errHeaderTimeout net.Error = timeoutError("no header of an answer, or no content of a stream, within HeaderTimeout")

// errConnectTimeout is the cause of a probe's end that could not connect.
var errConnectTimeout net.Error = timeoutError("no connection for a probe within the time that it has")

// judgeError reads why there was no answer.
func judgeError(err error) outcome {
	o := outcome{verdict: failed, cause: health.NoAnswer, reason: "no answer", detail: err.Error()}
	switch {
	case errors.Is(err, errHeaderTimeout), errors.Is(err, errIdleTimeout):
		o.reason = "no answer in time"
	case errors.Is(err, errUnfinished), errors.Is(err, io.ErrUnexpectedEOF):
		o.reason = "answer broke off"
	case unconnected(err), refusedHandshake(err):
		o.connect, o.cause, o.reason = true, health.Unreachable, "no connection"
	}
	return o
}

// unconnected tells of the errors that nothing but connecting makes.
func unconnected(err error) bool {
	var dns *net.DNSError
	op := opOf(err)
	return errors.Is(err, errConnectTimeout) || errors.As(err, &dns) || op == "dial" || op == "proxyconnect"
}

// refusedHandshake tells of the errors of a TLS handshake. Unless a base tells
// that it had a connection, see [sending.judgeError], they are taken for that.
func refusedHandshake(err error) bool {
	var record tls.RecordHeaderError
	var certificate *tls.CertificateVerificationError
	// As a Config.VerifyConnection returns them; crypto/tls itself wraps them.
	var authority x509.UnknownAuthorityError
	var host x509.HostnameError
	op := opOf(err) // of an alert that came, or that was sent
	return op == "remote error" || op == "local error" || errors.As(err, &record) ||
		errors.As(err, &certificate) || errors.As(err, &authority) || errors.As(err, &host) ||
		strings.HasSuffix(err.Error(), "TLS handshake timeout") // net/http has no type for it
}

// opOf is what a network connection was doing when it failed; "" for another error.
func opOf(err error) string {
	if op, ok := errors.AsType[*net.OpError](err); ok {
		return op.Op
	}
	return ""
}

// refusesPayment reports whether a status may come with a code about the account:
// 429 as a rule, but gateways and older APIs have others.
func refusesPayment(status int) bool {
	switch status {
	case http.StatusBadRequest, http.StatusForbidden, http.StatusTooManyRequests:
		return true
	}
	return false
}

// errUnfinished is what a stream ended with before it was complete.
var errUnfinished = errors.New("the stream ended before it was complete")

// errIdleTimeout is what an answer ends with that was silent for IdleTimeout.
var errIdleTimeout net.Error = timeoutError("spillover: the answer was silent for IdleTimeout")

type timeoutError string

func (e timeoutError) Error() string { return string(e) }

func (timeoutError) Timeout() bool { return true }

func (timeoutError) Temporary() bool { return true }

var errSlowBody = errors.New("spillover: the body of the error answer did not come in time")

// leaves tells of the statuses for which a request moves on, whatever the body.
func failsOver(status int) bool {
	return status == http.StatusUnauthorized || status == http.StatusForbidden || status == http.StatusRequestTimeout ||
		status == http.StatusTooManyRequests || status >= 500
}

// A Failure is why an attempt failed.
type Failure struct {
	Time   time.Time // when; the zero time: there was no failure
	Status int       // of the answer, or what an error in a stream stands for; 0 without an answer
	Reason string    // short, such as "401 invalid_api_key" or "no connection"
	// Cause is the service's own message, or the error of the credential or the
	// connection: at most 256 bytes of printable ASCII, with *** for whatever
	// looks like a credential. It may be empty.
	Cause string
}
