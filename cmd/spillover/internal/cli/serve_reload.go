package cli

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spillover-go/spillover"
	"github.com/spillover-go/spillover/cmd/spillover/internal/keys"
	"github.com/spillover-go/spillover/internal/configfile"
)

// watch reloads the files when they change, and on SIGHUP, until ctx ends.
func (s *server) watch(ctx context.Context) {
	files := []watchedFile{{"configuration", s.configPath, s.readConfig, s.reloadConfig}}
	if s.keysPath != "" {
		files = append(files, watchedFile{"keys", s.keysPath, func() ([]byte, error) { return keys.Read(s.keysPath) }, s.reloadKeys})
	}
	if s.certPath != "" {
		files = append(files, watchedFile{"certificate", s.certPath, s.readCertificate, s.loadCertificate})
	}
	for _, f := range files {
		initial, _ := f.read() // an error is reported by the Watcher
		known := sha256.Sum256(initial)
		w := configfile.Watcher{
			Period: reloadPeriod,
			Read:   f.read,
			Apply: func(text []byte) error {
				quiet := sha256.Sum256(text) == known // the Watcher applies what was read at the start once more
				known = [sha256.Size]byte{}
				return s.reload(f, quiet)
			},
			Report: func(err error) { s.notReloaded(f, err) },
		}
		go func() { _ = w.Run(ctx, nil) }() // it ends with ctx
	}
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	go func() {
		defer signal.Stop(hangup)
		for {
			select {
			case <-ctx.Done():
				return
			case <-hangup:
				for _, f := range files {
					if err := s.reload(f, false); err != nil {
						s.notReloaded(f, err)
					}
				}
			}
		}
	}()
}

// A watchedFile is a file that is reloaded.
type watchedFile struct {
	what, path string
	read       func() ([]byte, error)
	apply      func() error
}

func (s *server) reload(f watchedFile, quiet bool) error {
	s.reloading.Lock()
	defer s.reloading.Unlock()
	if err := f.apply(); err != nil {
		return err
	}
	if !quiet {
		s.log.Info(f.what+" reloaded", "path", f.path)
	}
	return nil
}

func (s *server) notReloaded(f watchedFile, err error) {
	s.log.Warn(f.what+" not loaded: the previous one stays in force", "path", f.path, "error", err.Error())
}

func (s *server) readConfig() ([]byte, error) {
	return configfile.Read(s.configPath, configfile.MaxSize)
}

func (s *server) reloadConfig() error {
	cfg, err := spillover.Load(s.configPath)
	if err == nil {
		err = s.checkCredentials(cfg)
	}
	if err == nil {
		err = s.transport.Reconfigure(s.complete(cfg))
	}
	if err == nil {
		s.config = cfg
	}
	return err
}

func (s *server) reloadKeys() error {
	set, err := keys.Load(s.keysPath)
	if err == nil {
		s.proxy.SetKeys(set)
	}
	return err
}

// readCertificate returns what changes when the certificate or its key does.
func (s *server) readCertificate() ([]byte, error) {
	var sums []byte
	for _, path := range []string{s.certPath, s.certKeyPath} {
		text, err := configfile.Read(path, configfile.MaxSize)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		sum := sha256.Sum256(text)
		sums = append(sums, sum[:]...)
	}
	return sums, nil
}

func (s *server) loadCertificate() error {
	certificate, err := tls.LoadX509KeyPair(s.certPath, s.certKeyPath)
	if err != nil {
		return fmt.Errorf("-tls-cert, -tls-key: %w", err)
	}
	s.certificate.Store(&certificate)
	return nil
}
