package spillover_test

import (
	"bytes"
	"cmp"
	"fmt"
	"go/ast"
	"go/parser"
	"go/printer"
	"go/token"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover/internal/doctest"
)

// tunable is a constant that shapes behaviour: how it enters, why it has its value,
// and what benchmarks/lab shows without it or with another value. Its value comes
// from the sources.
type tunable struct{ name, unit, enters, why, measured string }

const notMeasured = "not measured"

// tunables are those that docs/security.md does not explain as bounds, by topic.
var tunables = []struct {
	title, text string
	rows        []tunable
}{
	{"Ramp-up after a cool-down (slow start)", "After `Retry-After`, requests are let in one by one. The gap between two of them is\n`gap · exp(-gapGrowth · (n / recovery)³)`, n requests after the last refusal, with\n`recovery = baseRecovery · max(1, recoveryPerTrip · trip / (gap + interval), min(1 + 2 · (wait - trip) / (gap + interval), maxWaitRecovery))`.\nA random part of the gap is added to `Retry-After`. The interval is the mean time that a\nrequest takes to arrive once it may be sent.", []tunable{
		{"health.gapGrowth", "", "a refusal multiplies the gap by e^gapGrowth; also in the formula above", "each refusal changes the gap by about a fifth: a single random refusal costs little", "without the ramp-up: wasted attempts 0.194 / 0.452 / 0.635 instead of 0.058 / 0.099 / 0.151 (M = 1 / 8 / 64, ρ = 0.9)"},
		{"health.baseRecovery", "requests", "`recovery`, the requests that undo a refusal", "the gap settles where one request in so many is refused", "a smaller one wastes less and uses less of a PTU that refuses at random; the differences are within the variation between seeds"},
		{"health.recoveryPerTrip", "per round trip", "`recovery`", "a refusal is known only some requests later: these must not each count as a success", notMeasured},
		{"health.maxWaitRecovery", "factor", "`recovery`", "a `Retry-After` that is longer than the gap is hardly random", "without it: wasted attempts at M = 8, ρ = 0.9 0.127 instead of 0.099"},
		{"health.minGapOfTrip", "round trips", "lower limit of the first gap", "a faster rate would send the next request before the refusal of the last is known", notMeasured},
		{"health.minGapOfInterval", "intervals", "lower limit of the first gap", "a gap that is much shorter than the time between requests limits nothing", notMeasured},
		{"health.maxGapOfInterval", "intervals", "upper limit of the gap, but at least maxGapFloor and at most maxGap", "more refusals must not close a deployment almost completely", "with a cool-down that grows up to a minute instead: served 0.06 instead of 0.989 where 30 % are refused at random (measured earlier, with a prototype)"},
		{"health.maxGapFloor", "", "as above", "where requests are frequent, a few seconds must be possible", notMeasured},
		{"health.maxGap", "", "as above", "a deployment is asked at least twice a minute", notMeasured},
		{"health.maxTrip", "", "upper limit of a round trip in `recovery` and in the first gap", "how long a service takes to refuse says little about the network", "with it, refusals that take 30 s: 1.000 served"},
		{"health.minGap", "", "a shorter gap ends the ramp-up; lower limit of the first gap", "timers are hardly finer, and requests take longer", notMeasured},
		{"health.minIdleCounted", "", "an idle time counts in the interval as at most this, or", "an idle hour says nothing about how fast requests arrive", notMeasured},
		{"health.idleFactor", "intervals", "as at most so many intervals, if that is more", "the interval can still grow where requests become rare", notMeasured},
		{"health.meanWeight", "", "a new value has 1/meanWeight in the means of interval, round trip and wait (EWMA)", "the means follow a change within some ten requests", notMeasured},
		{"health.relaxation", "divisor", "a served last resort divides the gap", "an attempt that only the ramp-up forbade, and that is served, shows that the gap is too long", "without it: served 0.528 instead of 0.995 where 30 % are refused at random"},
	}},
	{"Fleet", "What other replicas say orders deployments, see [fleet.md](fleet.md).", []tunable{
		{"health.doubtThrottled", "share of requests", "requests that ignore a report of a rate limit", "somebody has to find out whether it is true", notMeasured},
		{"health.doubtEjected", "share of requests", "requests that ignore a report of a failure", "an attempt at a deployment that fails costs more than a refusal", notMeasured},
		{"fleet.toleratedContradictions", "contradictions", "a replica is ignored after so many in a row", "a single one may be a notice that was late", notMeasured},
		{"fleet.throttleWitnesses", "replicas", "a replica is ignored after so many others have contradicted what it said of a rate limit", "true reports of rate limits are contradicted often, by small requests", "3 wasted 0.05 more in overload, see the [laboratory](../benchmarks/lab/FLEET.md)"},
		{"fleet.contradictionKept", "", "a contradiction is forgotten after this time", "every true report of a failure ends with a success", notMeasured},
		{"fleet.ignoredKept", "", "how often a replica was ignored is forgotten after this time", "it was repaired", notMeasured},
		{"spillover.reprobeTime", "", "the least time, on average, that replicas leave to the one that ejected a deployment, to probe it; half of the ejection if that is more", "another deployment must answer the request before a failure counts", "without it 994 requests touched a PTU that answers 500, instead of 372"},
		{"health.heardFullFor", "", "a PTU that another replica has found full is asked again within this time, at random", "the replicas together ask it one at a time, as one does alone", "wasted attempts 0.075 instead of 0.100 with three backends and 64 processes"},
		{"fleet.firstIgnored", "", "for how long it is ignored first; doubled with each repetition", "a minute of waste in an hour is bearable", notMeasured},
		{"fleet.longestIgnored", "", "the longest time for which it is ignored", "a replica that was repaired is believed again", notMeasured},
		{"spillover.tellUtilization", "thousandths", "utilization from which on the others are told", "below it a PTU takes every request", notMeasured},
		{"spillover.utilizationInterval", "", "time between two such notices about a deployment, of all replicas", "the rate of notices does not grow with the replicas", notMeasured},
		{"spillover.utilizationSlack", "thousandths", "by how much a report may exceed what the service says within a second", "utilization changes within a second", notMeasured},
		{"health.heardFor", "", "the second of the row above", "as above", notMeasured},
		{"spillover.recallTime", "", "what Recall may take", "it is off the request path", notMeasured},
		{"spillover.replicaSeen", "", "for how long Status shows a replica that tells nothing", "healthy replicas have nothing to tell", notMeasured},
	}},
	{"Retry budget", "It counts in fifths of a retry: a success earns one fifth.", []tunable{
		{"health.budgetFull", "successes", "what the budget holds at most: ten retries", "a burst on deployments that refuse must be served", "with 5 / 2 / 1 retries, refilled by a twentieth per success: added p99 55 / 48 / 44 ms instead of 71, goodput over the oracle's 0.997 / 0.996 / 0.990 instead of 1.000 (M = 8, ρ = 1.0)"},
		{"health.AttemptCost", "successes", "cost of a retry within a tier, and of a second attempt on the same deployment; those that are served are paid back", "one retry for five successes", "without the budget: wasted attempts at M = 8, ρ = 1.2 0.708 instead of 0.379"},
		{"health.LastResortCost", "successes", "cost of an attempt that only the ramp-up forbids; paid back if it is served", "more than a retry: it is free where the ramp-up is too cautious, and limited where it is not", "if retries that are served are not paid back: served 0.924 instead of 0.995 where 30 % are refused at random"},
	}},
	{"Ejection (outlier ejection)", "`ejectionRules` has three values for each cause: the failures in a row that are tolerated, the\nfirst ejection and the longest one. Each further failure doubles the time:\n`min(first · 2^(streak - tolerated - 1), longest) · (1 ± ejectionSpread)`.", []tunable{
		{"health.ejectionRules[ServerFailure]", "failures, first, longest", "5xx", "a PTU that answers one request in a hundred with a 500 must not stand idle", notMeasured},
		{"health.ejectionRules[NoAnswer]", "failures, first, longest", "broken connection, or no response in time", "resets are ordinary over HTTP/2 and on idle connections", "one reset a minute, answers of 50 s: PTU used over the oracle's 1.000"},
		{"health.ejectionRules[Blocked]", "failures, first, longest", "refused by a gateway or firewall", "a firewall refuses a prompt, not a caller: three different requests show that it refuses everything", notMeasured},
		{"health.ejectionRules[Silent]", "failures, first, longest", "no response for long; limits of the time between probes", "silence is established before: nothing to tolerate", "the PTU is silent, no timeout: 0.779 served during the fault"},
		{"health.ejectionRules[Unreachable]", "failures, first, longest", "no connection", "nothing was sent: the request is not the cause", notMeasured},
		{"health.ejectionRules[Misconfigured]", "failures, first, longest", "401, 403, 404 about a role, a deployment or an operation", "only a change repairs it; the longest ejection bounds how long a repaired key stays unused", "requests sent to a PAYG deployment that answers 401: 0.0126; 0.0107 with 45 s as the longest"},
		{"health.ejectionRules[OutOfQuota]", "failures, first, longest", "quota or billing", "it takes a person to repair", notMeasured},
		{"health.ejectionSpread", "share", "random part of an ejection, either way", "clients that saw the same failure do not probe at the same time", notMeasured},
		{"health.probeSpacing", "requests", "a half-open probe waits until so many requests were sent elsewhere since the failure", "a probe that fails costs its caller time: at most one request in eight pays", notMeasured},
		{"spillover.maxPassedOver", "deployments", "for so many deferred probes one request counts", "it bounds what a request costs after hundreds of deployments have failed; the others follow, or are probed after `health.maxProbeDelay`", notMeasured},
		{"health.maxProbeDelay", "", "but no longer than this after the failure", "with little traffic a deployment that has recovered is used again", notMeasured},
		{"health.probeClaim", "", "a half-open probe keeps other requests away for so long", "a probe that never ends must not keep the deployment closed", notMeasured},
		{"health.streakExpiry", "", "a failure this long after the last is the first in a row", "rare failures must not add up to an ejection", notMeasured},
		{"health.maxDoublings", "", "beyond it the ejection is the longest one", "keeps the shift from overflowing; every rule reaches its longest ejection earlier", "no effect"},
		{"health.silentProbeShare", "divisor", "a silent deployment is probed after 1/silentProbeShare of the silence so far", "probes become rarer the longer the silence lasts", notMeasured},
	}},
	{"Silence and pending connections", "", []tunable{
		{"health.minSilence", "", "silent after max(minSilence, silenceFactor · mean wait) without a response", "a shorter silence is ordinary for language models", notMeasured},
		{"health.silenceFactor", "mean waits", "as above; half of it starts a comparison on another deployment", "slow deployments must not be taken for silent ones", "the PTU is silent, no timeout: 0.779 served during the fault"},
		{"health.minUnanswered", "attempts", "so many attempts must wait, or have been left after waiting long", "one request alone may take long", notMeasured},
		{"health.ComparisonInterval", "", "time between two comparisons", "a comparison costs a request that is sent twice", notMeasured},
		{"health.waitWeight", "", "a new wait has 1/waitWeight in the mean wait (EWMA)", "one slow response must not change what counts as usual", notMeasured},
		{"spillover.pendingConnect", "", "a connection that is pending for longer keeps other requests away", "far above a usual TLS handshake, far below a timeout", "without it: share of the requests that are sent to a deployment that accepts no connections 0.0279 instead of 0.0229"},
		{"spillover.probeConnect", "", "the time that a half-open probe has to connect: probeConnect · 2^(probes that exceeded it)", "its caller waits for a deployment that is probably down", "without it: no measurable effect where `Base` gives up after 5 s"},
		{"spillover.probeDoublings", "", "the time that a probe has to connect doubles so often, then `Base`'s limit holds", "a slow network must be able to recover", notMeasured},
	}},
	{"Headroom, early spill and latency", "A tier compares two random deployments (power of two choices): first a slow one is avoided, then the one with more\nheadroom is preferred, then the one with fewer requests in flight by weight.", []tunable{
		{"health.spillFrom", "thousandths", "a PTU that reports a higher utilization passes on the share (utilization - spillFrom) / (spillAll - spillFrom)", "requests leave before they are refused", "without early spill: wasted attempts with the utilization header 0.099 instead of 0.015 (M = 8, ρ = 0.9)"},
		{"health.spillAll", "thousandths", "as above; from here on all but one request at a time", "100 %", notMeasured},
		{"health.utilizationFresh", "", "an older report of utilization is ignored", "a PTU is busy or idle within seconds", notMeasured},
		{"health.spilledFor", "", "a PTU counts as full this long after Azure served one of its requests elsewhere", "as long as a report of utilization", notMeasured},
		{"health.headroomDecay", "", "trust in a report of remaining tokens is exp(-age / headroomDecay)", "other clients use the same limit", notMeasured},
		{"health.SameHeadroom", "share of the limit", "a smaller difference is ignored", "all clients would follow it at once (herding)", "without comparing headroom: imbalance 0.063 instead of 0.043 (M = 8, ρ = 0.9)"},
		{"health.shortageFresh", "", "an older report of too few tokens no longer excludes a deployment", "limits renew within a minute", "without excluding them: no measurable effect"},
		{"health.limitWindow", "", "window of configured limits (`RPM`, `TPM`)", "they are limits per minute", "without headroom from configured limits: imbalance 0.074 instead of 0.041 (M = 1, ρ = 0.9, nothing reported)"},
		{"health.slowLogRatio", "", "a deployment whose latency is e^slowLogRatio times that of another is avoided", "smaller differences are noise", "without it: requests sent to a PAYG deployment that is five times slower 0.0350 instead of 0.0114"},
		{"health.latencyDecay", "", "an earlier latency counts exp(-age / latencyDecay)", "latencies change within a minute", notMeasured},
		{"health.minLatencyWeight", "", "a new latency counts at least so much", "many requests at the same time count as well", notMeasured},
		{"health.latencyFresh", "", "an older latency is measured again, by one request at a time", "a deployment that is avoided must be able to become fast again", notMeasured},
		{"health.FirstTokenCost", "tokens", "latency of a whole response = time / (FirstTokenCost + output tokens)", "the first token takes as long as about 20 later ones", "latencies of whole responses as they are, not per token: imbalance 0.051 instead of 0.044 (M = 8, ρ = 0.9)"},
		{"health.backgroundBelow", "thousandths", "a PTU that reports so much utilization takes no background request; with share = 1 - utilization / backgroundBelow, a response to one grants a credit of creditMost · share^creditExponent requests, and any other response (share^creditExponent)²", "interactive requests spill from 850 on: the distance is for bursts", "CLASSES.md"},
		{"health.creditExponent", "", "as above", "the credit is small long before the limit, however many reports there are", "if any report below 500 admits two: interactive requests spill 8 to 13 points more than alone; with 1 for background requests: 1.5 to 2 points instead of 0.5 to 1 (interactive load 0.75, M = 1 and 8)"},
		{"health.creditMost", "requests", "as above; the most credit that is kept", "the rate of background requests at most doubles with each round trip", notMeasured},
		{"health.creditFor", "", "an older report admits one background request at a time, if it was of less than a fifth of backgroundBelow or no longer counts (utilizationFresh)", "the credit of many clients must not be spent long after it was granted", notMeasured},
		{"health.backgroundReserve", "share of the limit", "a deployment with less left of a reported or configured limit takes no background request", "a burst of interactive requests", notMeasured},
		{"health.backgroundEvery", "", "a deployment that is reserved for interactive requests takes one background request in so long a time", "background requests never starve; with 60 clients it is two requests a second", notMeasured},
		{"spillover.draws", "", "random draws before every member of a tier is examined", "with half of a tier closed, one choice in 256 examines all", notMeasured},
		{"spillover.sessionBound", "mean", "a deployment gets requests for their session while it has less than so many times its share in flight", "prompt caches against balance", "with sessions: hit rate 0.915 instead of 0.794, requests in flight p99 1.29 instead of 1.12 times the mean (4 backends, 4 processes)"},
	}},
	{"Waiting and retries of the caller", "", []tunable{
		{"spillover.defaultCooldown", "", "`DefaultCooldown`: cool-down after a 429 without `Retry-After`", "long enough for some of the limit to renew, short enough for a wrong guess to cost little", notMeasured},
		{"spillover.wakeSpread", "", "requests that wait for the same time wake within it", "not all at once, and not so late that capacity is lost", "median wait at M = 1, ρ = 1.0: 1.8 s; 1.8 s with 1 s, 1.2 s with 3 s"},
		{"spillover.pollShare", "divisor", "a background request that waits for a report looks again after min(max(wait / pollShare, minPoll), maxPoll), and within wakeSpread of that", "nothing announces a report; the cost of many waiting requests is bounded", notMeasured},
		{"spillover.minPoll", "", "as above", "about the time between reports of a busy deployment", notMeasured},
		{"spillover.maxPoll", "", "as above", "capacity that is free for a second must be found", notMeasured},
		{"health.reservedMost", "", "`Retry-After` of a background request when nothing says when the reserve ends", "as long as a report of utilization counts", notMeasured},
		{"spillover.leastWait", "", "a shorter wait is not worth it", "a request that waits for its budget would look ever more often", notMeasured},
		{"spillover.checkTimeout", "", "`Check` of a backend without `HeaderTimeout`", "longer than a list takes, short enough for the start of a program", notMeasured},
		{"health.minPlaceWait", "", "lower limit of `Retry-After` where all deployments are full (`MaxInFlight`)", "many callers share the places: an earlier retry hardly finds one", notMeasured},
		{"health.maxPlaceWait", "", "its upper limit", "one long request must not keep callers away after others have ended", notMeasured},
		{"spillover.firstRetryWait", "", "`RetryClient` without `Retry-After`: min(firstRetryWait · 2^retries, mostRetryWait)", "as OpenAI's SDKs", notMeasured},
		{"spillover.mostRetryWait", "", "as above", "as OpenAI's SDKs", notMeasured},
	}},
	{"Estimated tokens", "Four bytes of text count as a token. Where `CountTokens` is set, it counts the prompt.", []tunable{
		{"wire.DefaultOutputTokens", "tokens", "output of a request without a maximum, or whose body is not read", "a short answer: to reserve too much leaves capacity unused", notMeasured},
		{"wire.MaxUnreadBytes", "bytes", "so much of a body that is not read counts as text", "a large body is mostly sound or images", notMeasured},
		{"wire.ImageTokens", "tokens", "an image", "as measured on OpenAI's counters", notMeasured},
		{"wire.bytesPerAudioToken", "bytes", "sound: bytes / bytesPerAudioToken", "ten tokens a second (OpenAI's guide to audio), about 16 KB a second", notMeasured},
		{"wire.pageTokens", "tokens", "a document: bytes / pageBytes · pageTokens", "a page costs its text and its image", notMeasured},
		{"wire.pageBytes", "bytes", "as above", "a usual page", notMeasured},
	}},
	{"Buffers", "", []tunable{
		{"replay.MaxKept", "bytes", "so much of a body with `GetBody` is kept while its response is awaited", "a larger one is requested again if it must be sent again", notMeasured},
		{"replay.maxAdded", "bytes", "room for the edits of a body that is kept in memory, beside the body", "the name of a deployment and a default field usually fit; longer edits get memory of their own", notMeasured},
		{"replay.MaxReused", "bytes", "buffers up to it are reused", "larger ones would keep memory that is rarely needed", notMeasured},
		{"wire.formWindow", "bytes", "how much of a form is examined at a time", "a few reads for a usual form", notMeasured},
		{"spillover.maxKnownPath", "bytes", "longer paths are not kept as parsed", "paths of callers must not fill memory", notMeasured},
		{"wire.MaxOperations", "operations", "operations with a state of their own; all others share one", "one bit each in a word", notMeasured},
	}},
	{"Log, metrics and files", "", []tunable{
		{"spillover.utilizationAge", "", "metrics show a reported utilization for so long", "long enough for a scrape", notMeasured},
		{"telemetry.warningPeriod", "", "a warning is repeated at most once in it, with the number of requests since", "a fault must not fill the log", notMeasured},
		{"telemetry.calmPeriod", "", "a cool-down less than it after another is logged at DEBUG; `deployment back` is logged at INFO after so long without one", "a PTU at its limit cools down dozens of times a minute", notMeasured},
		{"telemetry.maxReasons", "reasons", "reasons that have their own warnings; the others share one", "a service chooses its codes", notMeasured},
		{"telemetry.maxBackendNames", "names", "backends that a record names", "a record stays readable", notMeasured},
		{"telemetry.maxURL", "bytes", "longest URL in a span", "a span stays small", notMeasured},
		{"redact.MaxText", "bytes", "longest text of an error in logs, `Status` and errors", "enough for a message", notMeasured},
		{"redact.MaxValue", "bytes", "longest attribute value", "a model or deployment name", notMeasured},
		{"redact.maxBrief", "bytes", "longest text of a caller in a response", "enough to recognise it", notMeasured},
		{"redact.maxInput", "bytes", "so much of a text is searched for credentials", "more than what is shown of it", notMeasured},
		{"spillover.watchPeriod", "", "time between two looks at a watched file; two equal ones apply it", "a file that is being written is not applied", notMeasured},
	}},
}

// untunable are constants that are not settings.
var untunable = map[string]string{
	"spillover.noCredential": "identifies callers without a credential",
	"health.oneRequest":      "a unit",
	"fleet.version":          "of the format of notices",
}

// tunableSources are the values of the numeric package-level constants, and of the
// rules for ejections, by package and name.
func tunableSources(t *testing.T) map[string]string {
	set := token.NewFileSet()
	exprs := map[string]map[string]ast.Expr{} // by package
	files, err := filepath.Glob("*.go")
	require.NoError(t, err)
	internal, err := filepath.Glob("internal/*/*.go")
	require.NoError(t, err)
	for _, file := range append(files, internal...) {
		if strings.HasSuffix(file, "_test.go") || strings.HasPrefix(file, "internal/doctest/") || strings.HasPrefix(file, "internal/mutants/") || strings.HasPrefix(file, "internal/walljump/") {
			continue
		}
		f, err := parser.ParseFile(set, file, nil, parser.SkipObjectResolution)
		require.NoError(t, err)
		all := exprs[f.Name.Name]
		if all == nil {
			all = map[string]ast.Expr{}
			exprs[f.Name.Name] = all
		}
		for _, d := range f.Decls {
			d, ok := d.(*ast.GenDecl)
			if !ok {
				continue
			}
			for _, spec := range d.Specs {
				v, ok := spec.(*ast.ValueSpec)
				if !ok {
					continue
				}
				for i, value := range v.Values {
					if d.Tok == token.CONST {
						all[v.Names[i].Name] = value
					} else if v.Names[i].Name == "ejectionRules" {
						for _, e := range value.(*ast.CompositeLit).Elts {
							e := e.(*ast.KeyValueExpr)
							all["ejectionRules["+e.Key.(*ast.Ident).Name+"]"] = e.Value
						}
					}
				}
			}
		}
	}
	values := map[string]string{}
	for pkg, all := range exprs {
		var numeric func(e ast.Expr) bool
		numeric = func(e ast.Expr) bool {
			switch e := e.(type) {
			case *ast.BasicLit:
				return e.Kind == token.INT || e.Kind == token.FLOAT
			case *ast.BinaryExpr:
				return numeric(e.X) && numeric(e.Y)
			case *ast.ParenExpr:
				return numeric(e.X)
			case *ast.UnaryExpr:
				return numeric(e.X)
			case *ast.SelectorExpr:
				from, ok := e.X.(*ast.Ident)
				return ok && (from.Name == "time" || from.Name == "math")
			case *ast.Ident:
				return all[e.Name] != nil && numeric(all[e.Name])
			case *ast.CompositeLit:
				return !slices.ContainsFunc(e.Elts, func(e ast.Expr) bool { return !numeric(e) })
			}
			return false
		}
		for name, e := range all {
			if !numeric(e) {
				continue
			}
			parts := []ast.Expr{e}
			if c, ok := e.(*ast.CompositeLit); ok {
				parts = c.Elts
			}
			var texts []string
			for _, part := range parts {
				var text bytes.Buffer
				require.NoError(t, printer.Fprint(&text, set, part))
				texts = append(texts, readable(text.String()))
			}
			values[pkg+"."+name] = strings.Join(texts, ", ")
		}
	}
	return values
}

// readable is an expression of the sources as a table has it.
func readable(expr string) string {
	units := map[string]string{"Millisecond": "ms", "Second": "s", "Minute": "min", "Hour": "h"}
	if m := regexp.MustCompile(`^(?:(\d+) \* )?time\.(Millisecond|Second|Minute|Hour)$`).FindStringSubmatch(expr); m != nil {
		return cmp.Or(m[1], "1") + " " + units[m[2]]
	}
	if regexp.MustCompile(`^[\d.]+$`).MatchString(expr) {
		return expr
	}
	return "`" + strings.ReplaceAll(expr, "|", `\|`) + "`"
}

// Every constant that shapes behaviour is in docs/tunables.md, with its value.
func TestTunablesInDocs(t *testing.T) {
	values := tunableSources(t)
	security, err := os.ReadFile("docs/security.md")
	require.NoError(t, err)
	_, bounds, ok := strings.Cut(string(security), "| what | bound | constant |\n")
	require.True(t, ok)
	bounds, _, _ = strings.Cut(bounds, "\n\n")

	var page strings.Builder
	page.WriteString("# Tunables\n\n<!-- Generated from the sources and tunables_test.go: go test -run TestTunablesInDocs . -update -->\n\n" +
		"The constants that shape behaviour, with the package of each. They are not configurable, except for\n" +
		"the defaults of `Config`. *Measured* is what the [laboratory](../benchmarks/lab/README.md) shows without a mechanism or\n" +
		"with another value of its constant: ABLATIONS.md, README.md, GOALS.md, SESSIONS.md and CLASSES.md there have the\n" +
		"conditions. *Earlier controller* marks figures that are older than today's ramp-up. M is the\n" +
		"number of clients, ρ the load over the capacity, *wasted* the refused attempts for each success.\n")
	seen := map[string]bool{}
	for _, section := range tunables {
		fmt.Fprintf(&page, "\n## %s\n\n", section.title)
		if section.text != "" {
			page.WriteString(section.text + "\n\n")
		}
		page.WriteString("| constant | value | unit | where it enters | why | measured |\n|---|---|---|---|---|---|\n")
		for _, row := range section.rows {
			require.False(t, seen[row.name], "%s has two rows", row.name)
			seen[row.name] = true
			value, ok := values[row.name]
			require.True(t, ok, "%s is no numeric constant of the sources", row.name)
			for _, cell := range []string{row.enters, row.why, row.measured} {
				require.NotEmpty(t, cell, row.name)
			}
			fmt.Fprintf(&page, "| `%s` | %s | %s | %s | %s | %s |\n", row.name, value, row.unit, row.enters, row.why, row.measured)
		}
	}

	page.WriteString("\n## Bounds\n\n[security.md](security.md#bounds) explains them.\n\n| constant | value |\n|---|---|\n")
	for _, name := range slices.Sorted(maps.Keys(values)) {
		pkg, short, _ := strings.Cut(name, ".")
		if seen[name] || untunable[name] != "" {
			continue
		}
		require.Contains(t, bounds, "`"+short+"`", "%s of %s has no row in tunables_test.go, and docs/security.md does not list it as a bound", short, pkg)
		fmt.Fprintf(&page, "| `%s` | %s |\n", name, values[name])
	}
	for name := range untunable {
		require.Contains(t, values, name)
	}
	doctest.File(t, "docs/tunables.md", page.String())
}
