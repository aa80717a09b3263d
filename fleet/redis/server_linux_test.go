package redis_test

import "syscall"

// A server ends with the tests, however they end.
func init() { serverAttributes = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }
