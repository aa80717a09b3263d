/*
Package redis connects the replicas of a program through Redis or Valkey, so that
each learns within milliseconds what a service told another one: that a deployment
is rate-limited, fails or has recovered. An [Engine] is a spillover.Fleet:

	engine, err := redis.Open("rediss://:password@redis.example.com:6380", redis.Options{})
	if err != nil {
		return err
	}
	defer engine.Close()
	lb, err := spillover.New(spillover.Config{Backends: backends, Fleet: engine})

Nothing waits for Redis: [Engine.Publish] only puts a notice into a buffer. While Redis
is slow, down or wiped, each replica works alone, as it does without an Engine.

# What is sent

Each notice is published on the channel spillover:{group}. A notice that holds for two
seconds or longer is also stored, under the key spillover:{group}:place, until it
expires. A replica that starts later, or was disconnected, reads what is stored.
Notices contain durations, numbers and hashes, but no host, name or key. A fleet sends
about ten a second at most, with about 100 bytes each.

Redis needs no persistence. An ACL user needs these rights:

	ACL SETUSER spillover on >password resetchannels &spillover:* ~spillover:* +publish +subscribe +ping +set +getrange +pttl +del

Whoever can write to the channel can make replicas prefer other deployments, so use
a password and TLS on a network that others share.

# Clients

[Open] makes a client of a URL. [New] takes any client of go-redis: for a cluster,
Sentinel, TLS certificates or Microsoft Entra ID. Pass its options through
[ClientOptions], since go-redis by default dials five times, tries each command four
times and waits for five seconds. Plain channels are used on a cluster, too, not
sharded ones. The braces around the group keep all its keys in one slot. There the ACL
user needs +cluster|slots, too.

go-redis itself writes a line to stderr for some failed connections, through a logger
that is global to the process. This package does not change it. A program that wants
other output calls SetLogger of go-redis.

# Failures

Every operation has a time limit, see [Options].Timeout. A failed notice is not sent
again, because it may have arrived nevertheless. After three failures in a row nothing
is published for a second, which doubles up to 30 s. Then a test message decides whether
publishing resumes. The subscription is opened again in the same intervals, and pinged
when nothing was received for three seconds. After it is restored, stored notices are
read again.

# Telemetry

The Logger receives one record for each change: "fleet up" (Info) and "fleet down"
(Warn). These metrics are recorded in the scope
github.com/spillover-go/spillover/fleet/redis:

  - spillover.fleet.engine.notices (counter, {notice}): notices by spillover.direction (sent,
    received or dropped). For dropped ones, error.type says why: buffer_full (Publish
    was called faster than Redis accepts), unavailable (Redis is down), failed (an
    attempt to publish failed), size (empty, or longer than 256 bytes), or
    slow_subscriber (256 notices wait for a subscriber).
  - spillover.fleet.engine.up (gauge, {engine}): 1 while the last operation of each kind succeeded
    (publish, subscribe, read), else 0.
*/
package redis

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"sync"
	"sync/atomic"
	"time"

	goredis "github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
	"go.opentelemetry.io/otel/metric"
)

const (
	maxNotice  = 256 // bytes
	outboxSize = 64  // notices that wait to be published
	inboxSize  = 256 // notices that wait for one subscriber
	maxPlaces  = 4096
	minKept    = 2 * time.Second     // notices that hold for a shorter time are not stored
	maxKept    = 30 * 24 * time.Hour // Redis refuses times that overflow
	idleTime   = 3 * time.Second     // after which the subscription is pinged
	closeTime  = time.Second         // how long Close waits

	failuresToOpen = 3 // failures in a row after which nothing is published
	firstPause     = time.Second
	longestPause   = 30 * time.Second

	defaultGroup   = "default"
	defaultTimeout = 200 * time.Millisecond
	openFactor     = 10 // times the timeout is for what may have to open a connection first
)

var validGroup = regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`)

// Options configure an [Engine]. The zero value is valid.
type Options struct {
	// Group separates replicas that share a Redis server: an Engine hears only those
	// with the same Group. It has at most 64 letters, digits, and the characters
	// ".", "_" and "-". The default is "default". Programs that use the same
	// deployments should have the same Group: they share their quota, too.
	Group string

	// Timeout is how long one attempt to publish may take. Opening a connection and
	// reading stored notices may take ten times as long. The default is 200 ms. It
	// needs to be longer if the server is far away. The timeouts of the client
	// apply, too.
	Timeout time.Duration

	// Logger receives one record for each change of the connection. nil means no
	// logging.
	Logger *slog.Logger

	// MeterProvider receives the metrics listed in the package comment, until
	// [Engine.Close]. nil means the global one of OpenTelemetry, which may be set
	// later.
	MeterProvider metric.MeterProvider
}

// An Engine carries notices between the replicas of a program. It implements
// spillover.Fleet. Its methods are safe for concurrent use, and several Transports
// can share it. It uses two connections: one to publish and one to subscribe.
type Engine struct {
	client  goredis.UniversalClient
	owned   bool   // Close closes the client
	channel string // and the prefix of keys
	timeout time.Duration
	outbox  queue
	health  *health

	ctx     context.Context // until Close
	end     context.CancelFunc
	running sync.WaitGroup

	mu          sync.Mutex // guards what follows
	closed      bool
	subscribers map[*subscriber]bool
	places      map[string]bool // that Recall was called with, for reading them again

	missed atomic.Bool // stored notices are to be read again
}

// New connects through a client of go-redis, whose options should come from
// [ClientOptions]. It returns at once. If the server cannot be reached, connecting is
// tried again until it succeeds. The errors are a nil client, an invalid Group or
// Timeout, and those of the MeterProvider. [Engine.Close] does not close the client.
func New(client goredis.UniversalClient, opts Options) (*Engine, error) {
	setDefault(&opts.Group, defaultGroup)
	setDefault(&opts.Timeout, defaultTimeout)
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	var mistakes []error
	if client == nil {
		mistakes = append(mistakes, errors.New("fleet/redis: the client is nil"))
	}
	if !validGroup.MatchString(opts.Group) {
		mistakes = append(mistakes, fmt.Errorf(`fleet/redis: Group %q must have 1 to 64 letters, digits, ".", "_" and "-"`, opts.Group))
	}
	if opts.Timeout < 0 {
		mistakes = append(mistakes, fmt.Errorf("fleet/redis: Timeout %v must not be negative", opts.Timeout))
	}
	if err := errors.Join(mistakes...); err != nil {
		return nil, err
	}
	h, err := newHealth(opts)
	if err != nil {
		return nil, err
	}
	e := &Engine{
		client:      client,
		channel:     "spillover:{" + opts.Group + "}",
		timeout:     opts.Timeout,
		outbox:      make(queue, outboxSize),
		health:      h,
		subscribers: map[*subscriber]bool{},
		places:      map[string]bool{},
	}
	e.ctx, e.end = context.WithCancel(context.Background())
	e.running.Go(e.publishUntilClosed)
	e.running.Go(e.receiveUntilClosed)
	return e, nil
}

// Open is [New] with a client of its own for one server, which [Engine.Close] closes.
// The URL is one that go-redis accepts, such as
//
//	rediss://user:password@redis.example.com:6380/0
//
// with redis instead of rediss for a connection without TLS, and unix for a socket.
// Settings in the query replace those of [ClientOptions], for example
// read_timeout=500ms. In addition to New's errors there is one for an invalid URL. It
// does not contain the URL, because that has the password.
func Open(url string, opts Options) (*Engine, error) {
	o, err := goredis.ParseURL(url)
	if err != nil {
		// The text of err may contain parts of the password.
		return nil, errors.New("fleet/redis: the URL is not valid; it must be like rediss://user:password@host:6380/0, " +
			"with special characters of the password escaped (%2F for /, %40 for @)")
	}
	d := ClientOptions(goredis.UniversalOptions{})
	setDefault(&o.DialTimeout, d.DialTimeout)
	setDefault(&o.DialerRetries, d.DialerRetries)
	setDefault(&o.MaxRetries, d.MaxRetries)
	setDefault(&o.ReadTimeout, d.ReadTimeout)
	setDefault(&o.WriteTimeout, d.WriteTimeout)
	setDefault(&o.PoolSize, d.PoolSize)
	setDefault(&o.PipelinePoolSize, d.PipelinePoolSize)
	o.MaintNotificationsConfig = d.MaintNotificationsConfig
	o.ContextTimeoutEnabled, o.DisableIdentity = true, true
	client := goredis.NewClient(o)
	e, err := New(client, opts)
	if err != nil {
		_ = client.Close()
		return nil, err
	}
	e.owned = true
	return e, nil
}

// ClientOptions returns options for [New]'s client, for any kind of server:
//
//	client := goredis.NewUniversalClient(redis.ClientOptions(goredis.UniversalOptions{Addrs: addresses}))
//
// The fields that are not set get values for notices, which are worthless when they
// are late: DialTimeout 1 s, DialerRetries 1, MaxRetries -1 (none), ReadTimeout and
// WriteTimeout 2 s, PoolSize 4, no pool for pipelines (PipelinePoolSize -1), and no
// maintenance notifications, which would lengthen the timeouts. DisableIdentity is
// always set, and so is ContextTimeoutEnabled, which makes [Options].Timeout effective.
func ClientOptions(o goredis.UniversalOptions) *goredis.UniversalOptions {
	setDefault(&o.DialTimeout, time.Second)
	setDefault(&o.DialerRetries, 1)
	setDefault(&o.MaxRetries, -1)
	setDefault(&o.ReadTimeout, openFactor*defaultTimeout)
	setDefault(&o.WriteTimeout, openFactor*defaultTimeout)
	setDefault(&o.PoolSize, 4)
	setDefault(&o.PipelinePoolSize, -1)
	if o.MaintNotificationsConfig == nil {
		o.MaintNotificationsConfig = &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
	}
	o.ContextTimeoutEnabled = true
	o.DisableIdentity = true
	return &o
}

func setDefault[T comparable](field *T, value T) {
	var unset T
	if *field == unset {
		*field = value
	}
}

// Close ends the Engine: afterwards Publish, Subscribe and Recall do nothing. It sends
// the notices that are still in the buffer, unless Redis is down, and waits until
// all goroutines of the Engine have ended, for at most a second: a subscriber that
// blocks can keep one for longer. Close may be called more than once. Its error is that
// of closing the client of [Open].
func (e *Engine) Close() error {
	e.mu.Lock()
	closed := e.closed
	e.closed = true
	e.mu.Unlock()
	if closed {
		return nil
	}
	e.end()
	e.health.unobserve()
	ended := make(chan struct{})
	go func() {
		e.running.Wait()
		close(ended)
	}()
	select {
	case <-ended:
	case <-time.After(closeTime):
	}
	if e.owned {
		return e.client.Close()
	}
	return nil
}
