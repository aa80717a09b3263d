/*
Walljump prepares tests in which the wall clock jumps and the monotonic clock does not, as
when the time of a machine is corrected. It writes a copy of time.Now and the file of an
overlay, with which the tests are built:

	go run ./internal/walljump DIR
	go test -overlay DIR/overlay.json -tags walljump -run WallClock ./...

The copy has one more function, time.JumpWallClock, and adds to the wall clock what that
was called with. Files that call it have the build tag walljump.
*/
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: walljump DIR")
		os.Exit(2)
	}
	if err := write(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "walljump:", err)
		os.Exit(1)
	}
}

const (
	read    = "sec, nsec, mono := runtimeNow()\n"
	jumping = read + `	if mono == 0 { // in testing/synctest, whose times have no monotonic reading
		mono = runtimeNano()
	}
	sec += wallClockJump.Load()
`

	added = `package time

import "sync/atomic"

var wallClockJump atomic.Int64 // in seconds

// JumpWallClock changes the wall clock, and not the monotonic one. Fractions of a second are ignored.
func JumpWallClock(d Duration) { wallClockJump.Add(int64(d / Second)) }
`
)

// write writes the files and their overlay.
func write(dir string) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	root, err := exec.CommandContext(context.Background(), "go", "env", "GOROOT").Output()
	if err != nil {
		return err
	}
	original := filepath.Join(strings.TrimSpace(string(root)), "src", "time", "time.go")
	text, err := os.ReadFile(original)
	if err != nil {
		return err
	}
	before, after, ok := strings.Cut(string(text), "func Now() Time {\n\t"+read)
	if !ok {
		return errors.New("this version of Go has another time.Now")
	}
	changed := before + "func Now() Time {\n\t" + jumping + after
	overlay, err := json.Marshal(map[string]map[string]string{"Replace": {
		original: filepath.Join(dir, "time.go"),
		filepath.Join(filepath.Dir(original), "walljump.go"): filepath.Join(dir, "walljump.go"),
	}})
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o750); err != nil { //nolint:gosec // a developer names the directory
		return err
	}
	files, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer files.Close()
	return errors.Join(
		files.WriteFile("time.go", []byte(changed), 0o600),
		files.WriteFile("walljump.go", []byte(added), 0o600),
		files.WriteFile("overlay.json", overlay, 0o600),
	)
}
