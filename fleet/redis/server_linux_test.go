package redis_test

import "syscall"

// serverAttributes end a server with the tests, however they end.
var serverAttributes = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
