/*
Package clients has tests only. They send requests of real clients through "spillover serve" to
simulated deployments with faults: OpenAI's SDK for Node, curl, and WebSocket clients.

The tests need node, npm and curl. With SPILLOVER_SKIP_NODE, those that need node are skipped
if it is missing.
*/
package clients
