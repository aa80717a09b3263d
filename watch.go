package spillover

import (
	"context"
	"crypto/sha256"
	"fmt"
	"net"
	"os"
	"time"
)

// watchPeriod is how often [Transport.Watch] looks at its file.
const watchPeriod = 2 * time.Second

// Watch keeps the Transport to a configuration file. Every 2 s it looks at the
// file; what two looks in a row have found the same, and was not acted on last,
// is read as by [Load] and given to [Transport.Reconfigure]. So the file's first
// content is applied once, too, a change is in force after 2 to 4 s, and what is
// still being written is not applied by halves. The file may be written anew,
// renamed to, or swapped behind a symbolic link as Kubernetes does with a
// ConfigMap. Variables are read again with the file; a change of theirs alone is
// not seen.
//
// adjust, unless it is nil, sets what a file cannot say: Token, Base and the
// like. It is called before each Reconfigure with the new Config.
//
// A file that is wrong or missing changes nothing: the configuration before it
// stays in force. That is a warning in the log, and once only, until the file is
// another.
//
// Watch returns when ctx ends, with its error, or after [Transport.Close], with
// an error that wraps [net.ErrClosed]. It never returns nil.
func (t *Transport) Watch(ctx context.Context, path string, adjust func(*Config)) error {
	w := fileWatch{
		look: func() ([]byte, error) {
			text, err := readConfigFile(path, openFile)
			if err != nil {
				return nil, &LoadError{File: path, Err: err}
			}
			return text, nil
		},
		apply: func(text []byte) error {
			cfg, err := parseConfig(path, text, os.LookupEnv)
			if err != nil {
				return err
			}
			if adjust != nil {
				adjust(&cfg)
			}
			return t.Reconfigure(cfg)
		},
		report: func(err error) {
			t.setup.Load().log.WarnContext(ctx, "configuration not loaded", "path", path, "error", err.Error())
		},
	}
	return w.run(ctx, t.done)
}

// A fileWatch acts on what it sees twice in a row, and once.
type fileWatch struct {
	look   func() ([]byte, error)
	apply  func(text []byte) error
	report func(error)

	seen, acted glimpse
}

// A glimpse is what a look has found. The text itself may have keys, and is not
// kept.
type glimpse struct {
	sum    [sha256.Size]byte
	failed bool
}

func (w *fileWatch) run(ctx context.Context, closed <-chan struct{}) error {
	ticker := time.NewTicker(watchPeriod)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-closed:
			return fmt.Errorf("spillover: nothing to watch for: %w", net.ErrClosed)
		default:
			w.glance()
		}
		select {
		case <-ctx.Done():
		case <-closed:
		case <-ticker.C:
		}
	}
}

func (w *fileWatch) glance() {
	text, err := w.look()
	found := glimpse{sum: sha256.Sum256(text)}
	if err != nil {
		found = glimpse{sha256.Sum256([]byte(err.Error())), true}
	}
	before := w.seen
	w.seen = found
	if found != before || found == w.acted {
		return
	}
	w.acted = found
	if err == nil {
		err = w.apply(text)
	}
	if err != nil {
		w.report(err)
	}
}
