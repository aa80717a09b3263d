package browser_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/require"
)

// browser is started by the first test, and ends with the last.
var browser struct {
	once sync.Once
	ctx  context.Context
	err  error
}

func TestMain(m *testing.M) {
	code := m.Run()
	if browser.ctx != nil {
		_ = chromedp.Cancel(browser.ctx)
	}
	os.Exit(code)
}

func start(t *testing.T) context.Context {
	browser.once.Do(func() {
		flags := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.WSURLReadTimeout(time.Minute), chromedp.Flag("font-render-hinting", "none"))
		if os.Getuid() == 0 {
			// Root has no sandbox. The pages are our own.
			flags = append(flags, chromedp.NoSandbox)
		}
		allocated, _ := chromedp.NewExecAllocator(context.Background(), flags...)
		browser.ctx, _ = chromedp.NewContext(allocated)
		browser.err = chromedp.Do(browser.ctx)
	})
	require.NoError(t, browser.err, "Chromium is required: apt-get install chromium")
	return browser.ctx
}

func serve(t *testing.T, h http.Handler) *httptest.Server {
	s := httptest.NewServer(h)
	t.Cleanup(func() {
		s.CloseClientConnections()
		s.Close()
	})
	return s
}

// options are those of a tab.
type options struct {
	width, height int64 // 0: 1280 by 900
	scheme        string
	features      map[string]string // media features
	phone         bool
	noScript      bool
	initScript    string // runs before those of the page
	serverLeaves  bool   // requests may fail
	prepare       func(*tab)
}

// A tab is a tab of the browser. It must log no error, violate no policy, and send
// requests to its own server only.
type tab struct {
	t   *testing.T
	ctx context.Context
}

// open opens a URL.
func open(t *testing.T, o options, url string) *tab {
	c, cancel := chromedp.NewContext(start(t))
	require.NoError(t, chromedp.Do(c))
	watched, stop := context.WithTimeout(c, 3*time.Minute)
	tab := &tab{t, watched}
	origin := strings.Join(strings.SplitN(url, "/", 4)[:3], "/") + "/"
	messages, requests := chromedp.Console(watched), chromedp.Events(watched, network.RequestWillBeSent)
	var watching sync.WaitGroup
	watching.Go(func() {
		for m, err := range messages {
			if err != nil {
				return
			}
			if o.serverLeaves && m.Source == "network" {
				continue
			}
			t.Errorf("console: %v %s", m, m.URL)
		}
	})
	sent := 0
	watching.Go(func() {
		for r, err := range requests {
			if err != nil {
				return
			}
			if sent++; !strings.HasPrefix(r.Request.URL, origin) {
				t.Errorf("a request to %s", r.Request.URL)
			}
		}
	})
	t.Cleanup(func() {
		stop()
		watching.Wait()
		_ = chromedp.Cancel(c)
		cancel()
		require.Positive(t, sent)
	})
	if o.width == 0 {
		o.width, o.height = 1280, 900
	}
	if o.scheme == "" {
		o.scheme = "light"
	}
	features := []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: o.scheme}}
	for name, value := range o.features {
		features = append(features, &emulation.MediaFeature{Name: name, Value: value})
	}
	scale := 1.0
	if o.phone {
		scale = 2
	}
	call(tab, network.Enable, network.EnableParams{})
	call(tab, emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{Width: o.width, Height: o.height, DeviceScaleFactor: scale, Mobile: o.phone})
	call(tab, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: features})
	call(tab, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: o.noScript})
	if o.initScript != "" {
		call(tab, page.AddScriptToEvaluateOnNewDocument, page.AddScriptToEvaluateOnNewDocumentParams{Source: o.initScript})
	}
	if o.prepare != nil {
		o.prepare(tab)
	}
	tab.do(chromedp.Navigate(url))
	return tab
}

// call runs a command of the protocol.
func call[P, R any](tab *tab, command cdp.Command[P, R], params P) R {
	tab.t.Helper()
	result, err := chromedp.Call(tab.ctx, command, params)
	require.NoError(tab.t, err)
	return result
}

func (tab *tab) do(actions ...chromedp.Action[chromedp.Void]) {
	tab.t.Helper()
	require.NoError(tab.t, chromedp.Do(tab.ctx, actions...))
}

// eval returns the value of an expression in the page, awaited if it is a promise.
func eval[V any](tab *tab, expression string) V {
	tab.t.Helper()
	v, err := chromedp.Run(tab.ctx, chromedp.Evaluate[V](expression, chromedp.EvalAwaitPromise))
	require.NoError(tab.t, err, expression)
	return v
}

func (tab *tab) text(selector string) string {
	tab.t.Helper()
	return eval[string](tab, "document.querySelector(`"+selector+"`).innerText")
}

// until waits for a condition.
func (tab *tab) until(condition string) {
	tab.t.Helper()
	require.Eventually(tab.t, func() bool {
		ok, err := chromedp.Run(tab.ctx, chromedp.Evaluate[bool]("Boolean("+condition+")"))
		return err == nil && ok
	}, time.Minute, 20*time.Millisecond, condition)
}
