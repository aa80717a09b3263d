package spillover

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"os"
	"reflect"
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
// What a file cannot say stays as it is: Base, Logger and the like, and the
// Token of a backend that has the same name and no api_key. adjust, unless it is
// nil, may change that and all else before it is applied, such as to give a new
// backend its Token.
//
// A file that is wrong or missing changes nothing: the configuration before it
// stays in force. That is a warning in the log, and once only, until the file is
// another. So it is with a file that would have a backend sent the callers' own
// credentials by mistake: one that had a credential and has none now, or that is
// new (renamed, perhaps) and has none while others have a Token.
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
			t.keepCode(&cfg)
			if adjust != nil {
				adjust(&cfg)
			}
			if err := t.losesCredentials(path, cfg); err != nil {
				return err
			}
			return t.Reconfigure(cfg)
		},
		report: func(err error) {
			t.setup.Load().log.WarnContext(ctx, "configuration not loaded", "path", path, "error", err.Error())
		},
	}
	return w.run(ctx, t.done)
}

// keepCode sets what no file can say to what is in force.
func (t *Transport) keepCode(cfg *Config) {
	s := t.setup.Load()
	was, is := reflect.ValueOf(s.cfg), reflect.ValueOf(cfg).Elem()
	for _, f := range fileKeys[was.Type()] {
		if onlyInCode(f.Type) {
			is.FieldByIndex(f.Index).Set(was.FieldByIndex(f.Index))
		}
	}
	tokens := map[string]TokenFunc{}
	for _, b := range s.table.backends {
		tokens[b.name] = b.token
	}
	for i := range cfg.Backends {
		b := cfg.Backends[i]
		b.normalize(func(string, string, ...any) {}) // for the name that it will have
		if b.APIKey == "" {
			cfg.Backends[i].Token = tokens[b.Name]
		}
	}
}

// losesCredentials tells of the backends that would be sent the callers' own
// credentials only because the file, or adjust, does not know of a Token.
func (t *Transport) losesCredentials(path string, cfg Config) error {
	before := map[string]*backend{}
	tokens := false
	for _, b := range t.setup.Load().table.backends {
		before[b.name] = b
		tokens = tokens || b.token != nil
	}
	var errs []error
	for i, b := range cfg.Backends {
		if b.normalize(func(string, string, ...any) {}); b.APIKey != "" || b.Token != nil {
			continue
		}
		was := before[b.Name]
		if was == nil && tokens || was != nil && !was.anonymous() {
			errs = append(errs, &LoadError{File: path, Path: fmt.Sprintf("backends[%d].api_key", i), Err: fmt.Errorf(
				"is missing, and backend %q has no Token: callers' own credentials would be sent to it; write api_key, keep the name that has the Token, or set the Token in the function that Watch is given", shorten(b.Name))})
		}
	}
	return errors.Join(errs...)
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
