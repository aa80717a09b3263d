// Package wire knows what the bytes of the services mean.
//
// It knows the API dialects and their paths, the table of operations, where requests and
// responses contain models and ids, JSON and multipart forms, server-sent events, usage,
// error objects, the headers that report rate limits, and the compression of responses.
//
// It does not know backends, deployments or time. It sends nothing, reads nothing but
// what it is given, and keeps no state between requests.
package wire
