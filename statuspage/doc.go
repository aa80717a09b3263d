// Package statuspage is a status page for a [spillover.Transport], as an
// [http.Handler]: which deployments are available, and if not, until when and why;
// how many requests each serves, and how many spill to lower tiers.
//
//	page := statuspage.New(lb)
//	defer page.Close()
//	http.Handle("/status/", page)
//
// The page refreshes itself, and works without JavaScript too. Everything that it
// needs is embedded: a browser sends no request to another host. It shows names and
// URLs of backends and messages of services, but no credential and no content of a
// request. It authenticates nobody: serve it where only you can see it.
package statuspage
