package spillover

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"reflect"
	"time"

	"github.com/spillover-go/spillover/internal/configfile"
)

// watchPeriod is how often [Transport.Watch] reads its file.
const watchPeriod = 2 * time.Second

// Watch reloads a configuration file when it changes. It reads the file every 2 s.
// A content that was read twice in a row, and is not the one applied last, is
// loaded as by [Load] and passed to [Transport.Reconfigure]. So the first content
// of the file is applied once, too, a change takes effect after 2 to 4 s, and a
// file that is still being written is never applied partially. The file may be
// rewritten in place, replaced by a rename, or swapped behind a symbolic link as
// Kubernetes does with a ConfigMap. Environment variables are read again with the
// file; a change of a variable alone is not noticed.
//
// What cannot be set in a file stays as it is: Base, Logger and the like, and the
// Token of a backend that keeps its name and has no api_key, api_key_file and auth.
// adjust, if not nil, may change these and everything else before the configuration
// is applied, for example to give a new backend its Token.
//
// A file that is invalid or missing changes nothing: the previous configuration
// stays in force. A warning is logged, once until the file or its error changes.
// The file is tried again every 2 s, since a file that it refers to, such as an
// api_key_file, may arrive later. The same applies to a file that would send
// callers' own credentials to a backend by mistake: one that had a credential and
// has none now, or a new one (possibly renamed) that has none while others have a
// Token.
//
// Watch returns when ctx ends, with its error, or after [Transport.Close], with
// an error that wraps [net.ErrClosed]. It never returns nil.
func (t *Transport) Watch(ctx context.Context, path string, adjust func(*Config)) error {
	w := configfile.Watcher{
		Period: watchPeriod,
		Read:   func() ([]byte, error) { return readConfigFile(path) },
		Apply: func(text []byte) error {
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
		Report: func(err error) {
			t.setup.Load().recorder.ConfigurationNotLoaded(ctx, path, err)
		},
	}
	if err := w.Run(ctx, t.done); err != nil {
		return err
	}
	return fmt.Errorf("spillover: the watched Transport is closed: %w", net.ErrClosed)
}

// keepCode copies what cannot be set in a file from the configuration in force.
func (t *Transport) keepCode(cfg *Config) {
	s := t.setup.Load()
	inForce, loaded := reflect.ValueOf(s.cfg), reflect.ValueOf(cfg).Elem()
	for _, f := range reflect.VisibleFields(inForce.Type()) {
		if configfile.OnlyInCode(f.Type) {
			loaded.FieldByIndex(f.Index).Set(inForce.FieldByIndex(f.Index))
		}
	}
	tokens := map[string]TokenFunc{}
	for _, b := range s.table.backends {
		if b.auth == "" {
			tokens[b.name] = b.token
		}
	}
	for i := range cfg.Backends {
		b := cfg.Backends[i]
		b.normalize(ignoreErrors) // for the name that it will have
		if b.APIKey == "" && b.APIKeyFile == "" && b.Auth == "" {
			cfg.Backends[i].Token = tokens[b.Name]
		}
	}
}

// losesCredentials returns an error for each backend to which callers' own
// credentials would be sent only because neither the file nor adjust sets a Token.
func (t *Transport) losesCredentials(path string, cfg Config) error {
	before := map[string]*backend{}
	tokens := false
	for _, b := range t.setup.Load().table.backends {
		before[b.name] = b
		tokens = tokens || b.token != nil && b.auth == ""
	}
	var errs []error
	for i, b := range cfg.Backends {
		if b.normalize(ignoreErrors); b.hasCredential() {
			continue
		}
		was := before[b.Name]
		if was == nil && tokens || was != nil && !was.usesCallerCredential() {
			errs = append(errs, &LoadError{File: path, Path: fmt.Sprintf("backends[%d].api_key", i), Err: fmt.Errorf(
				"is missing, and backend %q has no other credential: callers' own credentials would be sent to it; set api_key, api_key_file or auth, or, if the program sets its Token, keep the name of the backend that has it or set it in the function that Watch calls", configfile.Shorten(b.Name))})
		}
	}
	return errors.Join(errs...)
}
