/*
Package spillover is a client-side load balancer with failover, for Go programs
that call Azure OpenAI or OpenAI. A [Transport] is an [http.RoundTripper]: set
it as the Transport of the [http.Client] under any OpenAI SDK. Each request goes
to the best available deployment: to the provisioned one (PTU) while that has
capacity, otherwise to pay-as-you-go deployments as fallback, also in other
regions. A request that is rate-limited or fails is sent to another deployment.
When all deployments are rate-limited, the caller gets a 429 that says how long
to wait.

	lb, err := spillover.New(spillover.Config{
		Backends: []spillover.Backend{
			{URL: "https://ptu.openai.azure.com", APIKey: os.Getenv("PTU_KEY"), Priority: 1},
			{URL: "https://eastus.openai.azure.com", APIKey: os.Getenv("EASTUS_KEY"), Priority: 2},
			{URL: "https://westus.openai.azure.com", APIKey: os.Getenv("WESTUS_KEY"), Priority: 2},
		},
		Logger: slog.Default(),
	})
	if err != nil {
		log.Fatal(err)
	}
	defer lb.Close()
	client := &http.Client{Transport: lb}

# Load balancing

A deployment is one model of one backend. Deployments are chosen, rate-limited
and measured separately, so a 429 for one model does not affect another. A tier
is the set of backends with one priority. A lower tier (fallback tier) is used
only when no deployment of a higher tier that serves the model is available.

Within a tier two deployments are picked at random in proportion to their size,
and the one with more headroom is used (power of two choices, P2C). The size is
the weight where one is configured, otherwise the tokens per minute that are
configured or that responses report. The headroom is the remaining quota of the
last response, minus what was sent since. If both have the same, the one with
fewer requests in flight is used. Before that comparison, a deployment is
skipped if the latency of its successful responses is more than twice that of
the other.

A deployment whose headroom is estimated to be too small for a request is
skipped while another one can take the request. A PTU that reports more than 85%
utilization is skipped with a probability that grows with its utilization: it
costs less to fail over a little early than to be refused. If the service
reports no limits, this package counts the RPM and TPM of a [Model].

# Rate limits and cool-downs

A rate-limited deployment cools down for as long as its response says
(Retry-After), to the millisecond, and at most for [Config.MaxCooldown]. Then
traffic ramps up gradually (slow start): requests are admitted one by one, so
that requests that have waited do not all arrive at once. Each further refusal
increases the interval between them, and the interval shrinks while there is no
refusal. A refusal that the deployment's own load did not cause, for example
because its region is short of capacity, has no effect beyond its Retry-After.

# Waiting

With [Config.MaxWait], a request that finds every deployment rate-limited waits
for the first one that becomes available. If none is due in time, the request is
answered 429 at once. There is no queue: waiting requests are not ordered. The
header X-Spillover-Waited-Ms of the response says how long the request waited.

# Failover and retries

After a 429 a request is sent to every other deployment, if necessary. After a
5xx, a 408, a refused or broken connection, a timeout, a rejected credential or
a deployment that does not exist, it is sent to other deployments until it has
been sent [Config.MaxAttempts] times in all. Before a first 5xx or broken
connection makes it fall back to a lower tier, it is sent once more within its
tier. Any other 4xx is the caller's own mistake and is passed through byte for
byte.

Requests that create something at the service (files, batches, threads, …) are
not sent again once they may have been received. Retries within a tier have a
retry budget, so that they do not add load to a failing service: one retry for
every five successes, at most ten saved up. Falling back to the next tier is not
limited.

# Outlier ejection

A deployment that fails while another one answers the same requests is ejected
for a short time (outlier ejection, a circuit breaker for one deployment). The
time doubles with each repetition (exponential backoff). Afterwards the
deployment is probed with one request (half-open). The first failure is ignored
where the request may have caused it. If every deployment fails a request, the
request is assumed to be the cause and no deployment is ejected. Failures count
against one operation of a deployment: a deployment without the Responses API
keeps serving chat. A deployment that accepts requests and answers none is
skipped as soon as others have answered in the meantime; requests that wait for
it are not canceled.

The retry budget, the ramp-up and ejections only order and delay requests. The
transport itself answers 429 only when the service has refused requests at every
deployment that is left: they are cooling down, or have refused so many recent
requests that the retry budget of the tier is spent.

# Streaming

An event stream (server-sent events) is held until the first content token:
text, reasoning, arguments, audio, a picture or a finished item. That applies to
all operations that store nothing, such as completions, responses, images,
speech and transcriptions. What comes before the content is held as well, at
most 256 KiB of it: Azure's first chunk, the role, response.created, keep-alive
events, announced items and comments. An error event or a broken connection
before the first content fails over like the status that it stands for. An
unknown error code is assumed to be about the request, unless it names the
server, its load, a rate, a quota or a capacity.

From the first content on, every byte is passed on as it arrives. A stream that
breaks off or ends with an error after that reaches the caller as it is, counts
against the deployment and is never started again. A stream that ends regularly
before it is complete, without a finish reason and without [DONE], ends with
[io.ErrUnexpectedEOF]. With [Config.HoldStreams] a
stream is buffered until it is complete. A background response cannot be sent
again, so its stream is delivered from its first event.

A stream without a Content-Type is recognized by its beginning if the request
asked for a stream. Responses compressed with gzip or deflate are read like
others and passed on unchanged. Other encodings are judged by status and header
alone.

# Session affinity

Requests of one session (see [WithSession]) go to the same deployment of a tier,
by rendezvous hashing, so that its prompt cache is used. All processes with the
same configuration choose the same deployment, and nothing is stored. A session
moves to another deployment while its own is unavailable, or has a quarter more
requests in flight than its share.

# Stored objects

Requests about a stored object (a response, a conversation, a file, a batch, a
thread, a vector store, …) are routed to the resource that created it, whether
its id is in the path or in the body. They do not fail over, because the object
exists nowhere else. Backends with the same host and account are one resource.
Ids are read from responses and kept for a day, at most ten thousand of them.
For an id that is unknown, or that its resource does not find, each backend is
asked in turn until one has the object. docs/operations.md lists the places of
models and ids.

# Fallback models and routing constraints

[Config.Fallbacks] lists models to try when no deployment of the model that a
request asks for can take it, or when the request is too long for that model.
[WithTags] restricts a request to backends that have some tags, for example to one
region. If there is no such backend, nothing is sent. docs/routing.md has the
details.

# Telemetry

[Config.Logger] gets a record for each state change of a deployment.
OpenTelemetry metrics and spans go to the configured providers, by default to
the global ones. [Transport.Status] returns a snapshot of all deployments. [WithTrail] and
[Transport.Explain] show why one request goes where it goes.
docs/telemetry.md lists records, metrics and spans.

# Configuration files

[Load] reads a YAML or JSON file into a [Config] and substitutes environment
variables. [Transport.Watch] reloads the file when it changes.
[Transport.Reconfigure] replaces the configuration in a running program.

# Rewriting requests

Callers and backends may use different dialects, see [Dialect]. Host, path,
api-version, model name and credential are set for each attempt as its backend
needs them. JSON is never re-encoded: a different model name is inserted into
the body, and every other byte is the caller's. Requests that the package does
not recognize are passed through unchanged.

A request body with GetBody, which every SDK sets, is not kept after it has been
sent, unless it is small (16 KiB). A body without GetBody is kept in memory up
to 32 MiB. A larger one is streamed to the first deployment, and the request
cannot fail over after that.

# Timeouts

[Backend.HeaderTimeout] limits the time to the first token of one attempt, and
[Backend.IdleTimeout] the pauses after it. Use the context of the request to
limit its total time. The Timeout of an http.Client includes reading the body,
so it cuts long streams.

# Response headers

X-Spillover-Backend names the backend that gave the response. It is empty for a
response that the transport generated itself, which has X-Spillover-Synthesized:
true. X-Spillover-Attempts is the number of sends. X-Spillover-Model names the model that was
used, if the requested one has fallbacks. X-Ratelimit-Remaining-* and
similar headers are passed through: they describe one deployment, not the pool.

# Testing

Package [github.com/spillover-go/spillover/spillovertest] simulates deployments
with limits and faults. The example "Synctest" shows a test in virtual time.
*/
package spillover
