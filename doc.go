/*
Package spillover is a load balancer for Azure OpenAI and OpenAI that lives in
the caller's process: an [http.RoundTripper] to set as the Transport of the
[http.Client] under any OpenAI SDK. Every request goes to the best of several
deployments: the provisioned one (PTU) while it has room, pay-as-you-go ones
when it has not, another region when those are throttled, and, when all are,
straight back as a 429 that says how long to wait.

	lb, err := spillover.New(spillover.Config{Backends: []spillover.Backend{
		{URL: "https://ptu.openai.azure.com", APIKey: key1, Priority: 1},
		{URL: "https://eastus.openai.azure.com", APIKey: key2, Priority: 2},
		{URL: "https://westus.openai.azure.com", APIKey: key3, Priority: 2},
	}})
	client := &http.Client{Transport: lb}

# Configuration files

[Load] reads a [Config] from a file in YAML or JSON, with variables of the
environment; [Transport.Watch] keeps a Transport to the file as it changes.

# What is chosen

A deployment is one model of one backend: it is the unit that is chosen,
throttled and measured, so that a 429 for one model says nothing about another.
Among those that serve the model, a tier (the backends of one priority) is used
only when no tier above it has an available one. Within a tier two are drawn at
random in proportion to their sizes (weights where one is configured, else
tokens a minute as configured or as the answers tell) and the one with more
room is taken: what remained by the last answer, less what was sent since, then
the requests in flight. One whose good answers take more than twice as long as
the other's is left alone before that is looked at.

A deployment that is thought to lack the room for a request is passed over while
another one can take it, and so, more and more, is a PTU that reports to be used
to more than 85 %: spilling a little early costs less than being refused. Where
nothing is reported, the RPM and TPM of a [Model] are counted here.

# What is learnt from refusals

A throttled deployment is left alone for as long as its answer says, to the
millisecond, at most [Config.MaxCooldown]. Afterwards requests are let in one by
one (slow start), so that those who waited do not all come at once: the further
apart the more often they are refused, and ever closer while they are not. A
refusal that the deployment's own load did not cause, as where a region is short
of capacity, teaches nothing.

# Sessions

Requests of one session, see [WithSession], keep to one deployment of a tier by
rendezvous hashing, for the sake of prompt caches: every process that is
configured alike makes the same choice, and nothing is stored. A session moves
while its deployment is not available, or has a quarter more requests in flight
than its share.

# Waiting

With [Config.MaxWait] a request that finds every deployment throttled waits for
the soonest, if that is due in time, and is answered 429 at once if not. Waiting
is no queue. X-Spillover-Waited-Ms tells on the answer how long it was.

# What makes a request move on

A 429 sends it to every other deployment there is. A 5xx, a 408, a refused or
broken connection, a timeout, a credential that is not accepted, a deployment
that does not exist: to others, [Config.MaxAttempts] sends in all. Anything else
is the caller's: another 4xx is passed through byte for byte.

Requests that create something at the service (files, batches, threads, …) are
not sent again once they may have been received. Second attempts within a tier
have a budget, so that trouble is not doubled: each success earns a fifth of
one, at most ten are kept. Moving on to the next tier is free.

# Streams

An event stream of an operation that stores nothing (completions, responses,
images, speech, transcriptions) is the caller's from its first content on:
text, reasoning, arguments, audio, a picture or a finished item. What comes
before (the first chunk of Azure, the role, response.created, keep-alive events,
items that are only announced, comments) is held, at most 256 KiB of it, and an
error event or a broken connection there fails over like the status it stands
for. An error code that is not known is the request's own, unless it names the
server, its load, a rate, a quota or a capacity. Afterwards every byte is passed
on as it comes; a stream that breaks off, or ends with an error, is the caller's
to see, counts against the deployment and is never started again. With
[Config.HoldStreams] the hold lasts until the stream is complete. A background
response cannot be sent again: its stream is handed over at its first event.

A stream without a Content-Type is recognized by its beginning if the request
asked for one. Answers compressed with gzip or deflate are read like others and
passed on unchanged; other encodings are judged by status and header alone.

# Stored objects

What is about a stored object (a response, a conversation, a file, a batch, a
thread, a vector store, …) goes to the resource that made it, whether its id is in
the path or in the body, and waits for no other: it exists nowhere else. Backends
at the same place with the same account are one resource. Ids are learnt from the
answers that pass, at most ten thousand of them, for a day. For an id that is not
known, or not found where it should be, each backend is asked in turn while they
answer that it does not exist. docs/operations.md lists where models and ids are.

# What is told

[Config.Logger] gets a record for each change of a deployment's state, and
OpenTelemetry metrics and spans, by default at its global providers. docs/telemetry.md
has them all.

# What is remembered

A deployment that fails while another one answers the same requests is ejected for
a short time that doubles with each repetition (outlier ejection), and is probed
by one request (half-open). The first failure is ignored where the request may have
caused it. A request that fails everywhere is taken for the cause, and ejects
nothing. Failures are held against one operation of a deployment: one that does not
have the Responses API keeps serving chat. A deployment that accepts requests and
answers none is skipped once others have answered meanwhile; nothing is cancelled.

Our own limits (retry budget, ramp-up, ejections) order and delay. A request is
answered 429 by the transport only when the service itself has refused requests at
every deployment that is left: they are cooling down, or have refused so many of
late that the retry budget of the tier is spent.

# How requests are rewritten

Callers and backends may speak different dialects, see [Dialect]: host, path,
api-version, model name and credential are those of the backend, anew for each
attempt. JSON is never encoded again: another name for the model is spliced
into the body, and every other byte is the caller's. What is no request this
package knows is passed on untouched.

A body with GetBody, which every SDK sets, is not kept once it has been sent,
unless it is small (16 KiB). Another one is kept in memory up to 32 MiB; a larger
one is streamed to the first deployment and cannot move on after that.

# Timeouts

Use the request's context and [Backend.HeaderTimeout]. The Timeout of an
http.Client covers reading the body, too: it cuts long streams.

# What an answer carries

X-Spillover-Backend names the backend that gave the answer, and is empty when
none did; X-Spillover-Attempts is the number of sends. X-Ratelimit-Remaining-*
and the like are passed through: they are the word of that one deployment, not
of the pool.
*/
package spillover
