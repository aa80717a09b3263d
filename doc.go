/*
Package spillover is a client-side load balancer for programs that call Azure
OpenAI or OpenAI. It is an [http.RoundTripper] to set as the Transport of the
[http.Client] under any OpenAI SDK. Every request goes to the best available
deployment: to the provisioned one (PTU) while it has capacity, and to
pay-as-you-go deployments, in other regions too, as fallback. A request that is
rate-limited or fails is sent to another deployment (failover). When all
deployments are rate-limited you get a 429 that says how long to wait.

	lb, err := spillover.New(spillover.Config{Backends: []spillover.Backend{
		{URL: "https://ptu.openai.azure.com", APIKey: key1, Priority: 1},
		{URL: "https://eastus.openai.azure.com", APIKey: key2, Priority: 2},
		{URL: "https://westus.openai.azure.com", APIKey: key3, Priority: 2},
	}})
	client := &http.Client{Transport: lb}

# Configuration files

[Load] reads a YAML or JSON file into a [Config] and substitutes environment
variables. [Transport.Watch] reloads the file when it changes.

# How a deployment is chosen

A deployment is one model of one backend. It is the unit that is chosen,
throttled and measured, so that a 429 for one model does not affect another. A
tier is the set of backends with one priority. A lower tier (fallback tier) is
used only when no deployment of a higher one that serves the model is available.

Within a tier two deployments are drawn at random in proportion to their size,
and the one with more headroom is used (power of two choices). Size is the
weight where one is configured, otherwise the tokens per minute that are
configured or that responses report. Headroom is the remaining quota of the last
response, minus what was sent since; then the requests in flight decide. Before
that, a deployment is skipped if its latency is more than twice that of the
other, by their successful responses.

A deployment that is estimated to lack headroom for a request is skipped while
another one can take it. A PTU that reports more than 85 % utilization is
skipped with a probability that grows with its utilization: failing over a
little early costs less than being refused. Where the service reports no limits,
the RPM and TPM of a [Model] are counted here.

# Rate limits and ramp-up

A rate-limited deployment cools down for as long as its response says, to the
millisecond, and at most [Config.MaxCooldown]. Then traffic ramps up gradually
(slow start): requests are admitted one by one, so that waiting requests do not
all arrive at once. Each further refusal increases the interval between them, and
the interval shrinks while there is none. A refusal that the
deployment's own load did not cause, for example because its region is short of
capacity, changes nothing beyond its Retry-After.

# Session affinity

Requests of one session, see [WithSession], keep to one deployment of a tier by
rendezvous hashing, so that its prompt cache is used. All processes with the same
configuration choose the same deployment, and nothing is stored. A session moves
while its deployment is unavailable, or has a quarter more requests in flight
than its share.

# Waiting

With [Config.MaxWait], a request that finds every deployment rate-limited waits
for the first to become available, if that is due in time, and otherwise is
answered 429 at once. There is no queue: waiting requests are not ordered.
X-Spillover-Waited-Ms in the response says how long the request waited.

# Failover and retries

After a 429 a request is sent to every other deployment, if necessary. After a
5xx, a 408, a refused or broken connection, a timeout, a rejected credential or
a deployment that does not exist, it is sent to others until it has been sent
[Config.MaxAttempts] times in all. Any other 4xx is the caller's own mistake and
is passed through byte for byte.

Requests that create something at the service (files, batches, threads, …) are
not sent again once they may have been received. Retries within a tier have a
budget, so that they do not add load to a failing service: one for every five
successes, ten at most. Falling back to the next tier is not limited.

# Streams

An event stream of an operation that stores nothing (completions, responses,
images, speech, transcriptions) is held until the first content token: text,
reasoning, arguments, audio, a picture or a finished item. What comes before
(Azure's first chunk, the role, response.created, keep-alive events, announced
items, comments) is held, at most 256 KiB of it. An error event or a broken
connection there fails over like the status that it stands for. An unknown error
code is assumed to be about the request, unless it names the server, its load, a
rate, a quota or a capacity. From the first content on, every byte is passed on
as it arrives. A stream that breaks off or ends with an error then reaches the
caller as it is, counts against the deployment and is never started again. With
[Config.HoldStreams] a stream is buffered until it is complete. A background
response cannot be sent again: its stream is delivered from its first event.

A stream without a Content-Type is recognized by its beginning if the request
asked for one. Responses compressed with gzip or deflate are read like others and
passed on unchanged; other encodings are judged by status and header alone.

# Stored objects

Requests about a stored object (a response, a conversation, a file, a batch, a
thread, a vector store, …) are routed to the resource that created it, whether
its id is in the path or in the body. They do not fail over: the object exists
nowhere else. Backends with the same host and account are one resource. Ids are
read from responses, at most ten thousand of them, for a day. For an id that is
unknown, or not found where it should be, each backend is asked in turn until one
has it. docs/operations.md lists where models and ids are.

# Telemetry

[Config.Logger] gets a record for each state change of a deployment.
OpenTelemetry metrics and spans go to the configured providers, by default the
global ones. docs/telemetry.md lists all of them.

# Ejection and probes

A deployment that fails while another one answers the same requests is ejected
(outlier ejection, a circuit breaker for one deployment) for a short time, which
doubles with each repetition (exponential backoff). Then it is probed with one
request (half-open). The first failure is ignored where the request may have
caused it. If every deployment fails a request, the request is assumed to be the
cause and no deployment is ejected. Failures are held against one operation of a
deployment: one that does not have the Responses API keeps serving chat. A
deployment that accepts requests and answers none is skipped once others have
answered meanwhile; nothing is cancelled.

The retry budget, ramp-up and ejections only order and delay requests. The
transport itself answers 429 only when the service has refused requests at every
deployment that is left: they are cooling down, or have refused so many recent
requests that the retry budget of the tier is spent.

# How requests are rewritten

Callers and backends may speak different dialects, see [Dialect]. Host, path,
api-version, model name and credential are set for the backend, for each
attempt. JSON is never re-encoded: a different model name is spliced into the
body, and every other byte is the caller's. Requests that the package does not
recognise are passed through unchanged.

A body with GetBody, which every SDK sets, is not kept once it has been sent,
unless it is small (16 KiB). A body without GetBody is kept in memory up to
32 MiB; a larger one is streamed to the first deployment and cannot fail over
after that.

# Timeouts

Use the request's context and [Backend.HeaderTimeout], the first-token timeout of
one attempt. The Timeout of an http.Client includes reading the body: it cuts
long streams.

# Response headers

X-Spillover-Backend names the backend that gave the response, and is empty if
none did (a local reply: X-Spillover-Synthesized is true). X-Spillover-Attempts is
the number of sends. X-Ratelimit-Remaining-* and similar headers are passed
through: they describe that one deployment, not the pool.
*/
package spillover
