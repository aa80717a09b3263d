// Package browser has the tests of the status page in a real browser: Chromium, driven
// by chromedp. It is a module of its own, so that users do not get its dependencies.
package browser
