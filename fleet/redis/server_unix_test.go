//go:build unix && !linux

package redis_test

import "syscall"

// serverAttributes are none: only Linux can end a server with the tests.
var serverAttributes *syscall.SysProcAttr
