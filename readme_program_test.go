package spillover_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"maps"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover/spillovertest"
)

// The README's program compiles and runs as it is. Its URLs lead to simulated
// deployments, by way of a proxy and a certificate authority of this test.
func TestREADMEProgramRuns(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("a program takes its certificate authorities from SSL_CERT_FILE on Linux only")
	}
	if testing.Short() {
		t.Skip("links a program")
	}
	dir := t.TempDir()
	program := compileProgram(t, dir, readmeProgram(t))
	authority, certificate := selfSigned(t, dir, "ptu.openai.azure.com", "eastus.openai.azure.com", "api.openai.com")
	keys := []string{"PTU_KEY=key-of-ptu", "EASTUS_KEY=key-of-eastus", "OPENAI_API_KEY=key-of-openai"}

	for name, test := range map[string]struct {
		ptu, eastus []spillovertest.Fault
		from        string // which deployment answers
		log         string // a record in the log
	}{
		"the PTU answers":              {from: "ptu.openai.azure.com"},
		"the PTU is rate-limited":      {ptu: []spillovertest.Fault{{Status: 429, Header: http.Header{"Retry-After": {"7"}}}}, from: "eastus.openai.azure.com", log: "deployment cooling"},
		"the PTU has another key":      {ptu: []spillovertest.Fault{{Status: 401}}, from: "eastus.openai.azure.com", log: "deployment out"},
		"both on Azure are overloaded": {ptu: []spillovertest.Fault{{Status: 503}}, eastus: []spillovertest.Fault{{Status: 429}}, from: "api.openai.com"},
	} {
		t.Run(name, func(t *testing.T) {
			ptu := spillovertest.New(spillovertest.Config{Name: "ptu", Keys: []string{"key-of-ptu"}})
			eastus := spillovertest.New(spillovertest.Config{Name: "eastus", Keys: []string{"key-of-eastus"}})
			openAI := spillovertest.New(spillovertest.Config{Name: "openai", Dialect: spillovertest.OpenAI, Keys: []string{"key-of-openai"}})
			ptu.Set(test.ptu...)
			eastus.Set(test.eastus...)
			answers := make(chan string, 8) // of status 200
			proxy := proxyTo(t, certificate, answers, map[string]http.Handler{
				"ptu.openai.azure.com": ptu, "eastus.openai.azure.com": eastus, "api.openai.com": openAI,
			})
			stdout, stderr, err := runProgram(program, append(keys, "SSL_CERT_FILE="+authority, "HTTPS_PROXY="+proxy)...)
			require.NoError(t, err, stderr)
			content := regexp.MustCompile(`"content":"([^"]+)"`).FindStringSubmatch(<-answers)
			require.NotNil(t, content)
			require.Equal(t, content[1]+"\nfrom "+test.from+"\n", stdout)
			require.Contains(t, stderr, test.log)
			require.NotContains(t, stderr, "key-of-")
			require.Len(t, ptu.Requests(), 1)
		})
	}

	t.Run("a key is not set", func(t *testing.T) {
		_, stderr, err := runProgram(program, keys[1:]...)
		require.Error(t, err)
		require.Contains(t, stderr, "the environment variable PTU_KEY is not set")
	})
}

// readmeProgram is the README's block that is a program.
func readmeProgram(t testing.TB) string {
	text, err := os.ReadFile("README.md")
	require.NoError(t, err)
	_, program, ok := strings.Cut(string(text), "```go\npackage main\n")
	require.True(t, ok)
	program, _, ok = strings.Cut(program, "```")
	require.True(t, ok)
	return "package main\n" + program
}

// compileProgram compiles a program with the dependencies of this module.
func compileProgram(t testing.TB, dir, source string) (program string) {
	file := filepath.Join(dir, "main.go")
	require.NoError(t, os.WriteFile(file, []byte(source), 0o600))
	program = filepath.Join(dir, "program")
	vet, err := exec.Command("go", "vet", file).CombinedOutput()
	require.NoError(t, err, string(vet))
	output, err := exec.Command("go", "build", "-o", program, file).CombinedOutput()
	require.NoError(t, err, string(output))
	return program
}

func runProgram(program string, env ...string) (stdout, stderr string, err error) {
	var out, errs bytes.Buffer
	cmd := exec.Command(program)
	cmd.Env, cmd.Stdout, cmd.Stderr = env, &out, &errs
	err = cmd.Run()
	return out.String(), errs.String(), err
}

// selfSigned is a certificate for some hosts, and the file that a program trusts it by.
func selfSigned(t testing.TB, dir string, hosts ...string) (file string, _ tls.Certificate) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: hosts,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	require.NoError(t, err)
	file = filepath.Join(dir, "authority.pem")
	require.NoError(t, os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
	return file, tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// proxyTo is the URL of a proxy that connects every host to one TLS server, which hands each
// request to the handler of its host. Answers with status 200 are sent to answers.
func proxyTo(t testing.TB, certificate tls.Certificate, answers chan<- string, hosts map[string]http.Handler) (proxy string) {
	secure := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		recorder := httptest.NewRecorder()
		hosts[r.Host].ServeHTTP(recorder, r)
		maps.Copy(w.Header(), recorder.Header())
		if recorder.Code == http.StatusOK {
			answers <- recorder.Body.String()
		}
		w.WriteHeader(recorder.Code)
		_, _ = w.Write(recorder.Body.Bytes())
	}))
	secure.TLS = &tls.Config{Certificates: []tls.Certificate{certificate}}
	secure.StartTLS()
	t.Cleanup(secure.Close)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodConnect || hosts[strings.TrimSuffix(r.Host, ":443")] == nil {
			http.Error(w, "not a host of this test", http.StatusBadGateway)
			return
		}
		there, err := net.Dial("tcp", secure.Listener.Addr().String())
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		defer there.Close()
		w.WriteHeader(http.StatusOK)
		here, buffered, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer here.Close()
		done := make(chan error, 2)
		go func() { _, err := io.Copy(there, buffered); done <- err }()
		go func() { _, err := io.Copy(here, there); done <- err }()
		<-done
	}))
	t.Cleanup(server.Close)
	return server.URL
}
