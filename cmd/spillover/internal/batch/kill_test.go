package batch_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover"
	"github.com/spillover-go/spillover/cmd/spillover/internal/batch"
)

// The environment of a process that only runs a batch.
const (
	childURL      = "SPILLOVER_BATCH_TEST_URL"
	childInput    = "SPILLOVER_BATCH_TEST_INPUT"
	childOutput   = "SPILLOVER_BATCH_TEST_OUTPUT"
	childErrors   = "SPILLOVER_BATCH_TEST_ERRORS"
	childInFlight = "SPILLOVER_BATCH_TEST_IN_FLIGHT"
)

func TestMain(m *testing.M) {
	if url := os.Getenv(childURL); url != "" {
		if err := runChild(url); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func runChild(url string) error {
	cfg := spillover.Config{Backends: []spillover.Backend{{Name: "server", URL: url, Dialect: spillover.OpenAI, APIKey: "sk-test"}}}
	wait := batch.Configure(&cfg)
	lb, err := spillover.New(cfg)
	if err != nil {
		return err
	}
	most, err := strconv.Atoi(os.Getenv(childInFlight))
	if err != nil {
		return err
	}
	b, err := batch.Open(context.Background(), batch.Options{
		Input: os.Getenv(childInput), Output: os.Getenv(childOutput), Errors: os.Getenv(childErrors),
		Transport: lb, TierWait: wait, MaxInFlight: most,
	})
	if err != nil {
		return err
	}
	defer b.Close()
	return b.Run(context.Background())
}

// A counter is a server that counts the requests of each user. Each tenth is an error.
type counter struct {
	*httptest.Server
	mu    sync.Mutex
	asked map[string]int
}

func newCounter(t *testing.T, seed uint64) *counter {
	c := &counter{asked: map[string]int{}}
	random := rand.New(rand.NewPCG(seed, 2))
	c.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var body struct {
			User string `json:"user"`
		}
		if text, err := io.ReadAll(r.Body); err != nil || json.Unmarshal(text, &body) != nil {
			return // the process was killed
		}
		c.mu.Lock()
		c.asked[body.User]++
		delay := time.Duration(random.IntN(3000)) * time.Microsecond
		c.mu.Unlock()
		time.Sleep(delay)
		w.Header().Set("Content-Type", "application/json")
		if n, _ := strconv.Atoi(body.User); n%10 == 0 {
			w.WriteHeader(http.StatusBadRequest)
		}
		fmt.Fprintf(w, "{\n  \"answer\": %q,\n \"filling\": %q}\n", body.User, bytes.Repeat([]byte("x"), 500))
	}))
	t.Cleanup(c.Close)
	return c
}

func (c *counter) counts() map[string]int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.asked)
}

// wait waits until n more requests have arrived, or none any more.
func (c *counter) wait(t *testing.T, n int) {
	sum := func() (n int) {
		for _, k := range c.counts() {
			n += k
		}
		return n
	}
	before, last, changed := sum(), 0, time.Now()
	for now := before; now < before+n; now = sum() {
		if now > last {
			last, changed = now, time.Now()
		}
		if last > before && time.Since(changed) > time.Second {
			return
		}
		require.Less(t, time.Since(changed), 30*time.Second)
		time.Sleep(time.Millisecond)
	}
}

// answered are the users in the complete lines of files.
func answered(t *testing.T, paths ...string) map[string]bool {
	found := map[string]bool{}
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if os.IsNotExist(err) {
			continue
		}
		require.NoError(t, err)
		for l := range bytes.Lines(text) {
			var o output
			if json.Unmarshal(l, &o) == nil {
				found[*o.CustomID] = true
			}
		}
	}
	return found
}

// A process is killed again and again. Each request is answered once in the end, and
// one whose answer was in the output is never sent again. Of the others, at most those
// in flight are sent again for each kill.
func TestABatchSurvivesKills(t *testing.T) {
	const inFlight, perKill = 20, 60
	kills := 12
	if testing.Short() {
		kills = 3
	}
	requests := kills * perKill
	for _, separate := range []bool{false, true} {
		seed := rand.Uint64()
		t.Logf("seed %d", seed)
		random := rand.New(rand.NewPCG(seed, 1))
		server, dir := newCounter(t, seed), t.TempDir()
		var lines bytes.Buffer
		for i := range requests {
			fmt.Fprintf(&lines, `{"custom_id":"%d","method":"POST","url":"/v1/chat/completions","body":{"model":"m","user":"%d"}}`+"\n", i, i)
		}
		in, out, errs := filepath.Join(dir, "in"), filepath.Join(dir, "out"), ""
		require.NoError(t, os.WriteFile(in, lines.Bytes(), 0o666))
		files := []string{out}
		if separate {
			errs = filepath.Join(dir, "errors")
			files = append(files, errs)
		}
		start := func() *exec.Cmd {
			cmd := exec.Command(os.Args[0])
			cmd.Env = append(os.Environ(), childURL+"="+server.URL, childInput+"="+in, childOutput+"="+out, childErrors+"="+errs, childInFlight+"="+strconv.Itoa(inFlight))
			cmd.Stderr = os.Stderr
			require.NoError(t, cmd.Start())
			return cmd
		}
		type snapshot struct {
			answered map[string]bool
			asked    map[string]int
		}
		var after []snapshot
		hits := 0
		for range kills {
			before := len(answered(t, files...))
			cmd := start()
			server.wait(t, 1+random.IntN(perKill))
			time.Sleep(time.Duration(random.IntN(5000)) * time.Microsecond)
			require.NoError(t, cmd.Process.Kill())
			cmd.Wait()
			s := snapshot{answered(t, files...), server.counts()}
			if len(s.answered) > before && len(s.answered) < requests {
				hits++
			}
			after = append(after, s)
		}
		cmd := start()
		require.NoError(t, cmd.Wait())

		asked := server.counts()
		for _, s := range after {
			for user := range s.answered {
				require.Equal(t, s.asked[user], asked[user], "%s was answered, and asked again", user)
			}
		}
		total := 0
		for _, n := range asked {
			total += n
		}
		t.Logf("%d of %d kills during the batch; %d requests sent for %d", hits, kills, total, requests)
		require.LessOrEqual(t, total, requests+kills*2*inFlight, "in flight, or answered and not written")
		require.Positive(t, hits)
		all := outputs(t, files...)
		require.Len(t, all, requests)
		for id, o := range all {
			require.Equal(t, fmt.Sprintf("batch_req_%d", 1+must(strconv.Atoi(*o.CustomID))), id)
			require.Contains(t, string(o.Response.Body), `"answer":"`+*o.CustomID+`"`)
		}
		if separate {
			require.Len(t, outputs(t, errs), requests/10)
		}
	}
}

func must(n int, err error) int {
	if err != nil {
		panic(err)
	}
	return n
}
