/*
Package clients has tests only. They send requests of real clients through "spillover serve" to
simulated deployments with faults: OpenAI's SDKs for Node and Python, Vercel's AI SDK, LangChain,
curl, and WebSocket clients, some of them with nginx in front.

The tests need node, npm, curl and nginx. With SPILLOVER_SKIP_NODE, those that need node are
skipped if it is missing, and with SPILLOVER_SKIP_NGINX those that need nginx. Those of the SDK for Python are skipped if python3, or the interpreter that
SPILLOVER_PYTHON names, does not have the SDK and pip cannot install it.
*/
package clients
