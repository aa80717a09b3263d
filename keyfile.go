package spillover

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/spillover-go/spillover/internal/configfile"
	"github.com/spillover-go/spillover/internal/health"
	"github.com/spillover-go/spillover/internal/wire"
)

const (
	// maxKeyFile is the maximum size of a file with a key, in bytes.
	maxKeyFile = 64 << 10
	// keyFileInterval is how often requests look at the file of a backend. Kubernetes
	// updates a mounted Secret about once a minute.
	keyFileInterval = time.Second
)

// A keyFile is the file that a backend's key is read from.
type keyFile struct {
	path string
	due  health.Timestamp // when a request looks at it next

	reading  sync.Mutex // held by the request that looks at it; the others do not wait
	reported string     // the error that was logged last; "" since the file was valid
}

func newKeyFile(path string) *keyFile {
	f := &keyFile{path: path}
	f.due.Set(time.Now().Add(keyFileInterval))
	return f
}

// read returns the key, and whether its error is to be logged: a lasting error is
// logged once. The caller holds reading.
func (f *keyFile) read() (key string, log bool, err error) {
	if key, err = readKeyFile(f.path); err == nil {
		f.reported = ""
		return key, false, nil
	}
	log = f.reported != err.Error()
	f.reported = err.Error()
	return "", log, err
}

// readKeyFile returns the key that a file contains. Its errors have nothing of the
// content.
func readKeyFile(path string) (string, error) {
	text, err := configfile.Read(path, maxKeyFile)
	if err != nil {
		return "", err
	}
	key := strings.TrimSpace(string(text))
	switch {
	case key == "":
		return "", errors.New("is empty")
	case variableReference(key) != "":
		return "", errors.New("contains the name of a variable, not a key")
	}
	return key, checkKey(key)
}

// checkKey reports what cannot be a key, without the key.
func checkKey(key string) error {
	if !wire.IsPrintableASCII(key) || strings.Contains(key, " ") {
		return errors.New("contains a space, a line break or a character that is not ASCII")
	}
	return nil
}

// variableName matches references to variables, which are never keys: as shells,
// Kubernetes manifests, templates and the files of other gateways write them.
var variableName = regexp.MustCompile(`^(?:\$([A-Za-z_]\w{2,})|\$?\$\{([A-Za-z_]\w*).*|\$\(([A-Za-z_]\w*)\)|%([A-Za-z_]\w{2,})%|os\.environ/(\w*)|env[.:]([A-Za-z_]\w*)|\{\{.*\}\})$`)

// upperName matches names that cannot be mistaken for a key.
var upperName = regexp.MustCompile(`^[A-Z][A-Z0-9]*(_[A-Z0-9]+)*$`)

// variableReference returns what to write in a file instead of a key that is the
// name of a variable, or "" if the key is not.
func variableReference(key string) string {
	m := variableName.FindStringSubmatch(key)
	if m == nil {
		return ""
	}
	name := "NAME"
	for _, found := range m[1:] {
		if upperName.MatchString(found) && len(found) <= 64 {
			name = found
		}
	}
	return fmt.Sprintf("${%s}", name)
}
