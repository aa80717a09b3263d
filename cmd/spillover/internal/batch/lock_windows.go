package batch

import (
	"os"

	"golang.org/x/sys/windows"
)

// lock locks a file until it is closed, or the process ends. It does not wait. The
// locked byte is beyond the end of any file, since others could not read it.
func lock(f *os.File) error {
	return windows.LockFileEx(windows.Handle(f.Fd()), windows.LOCKFILE_EXCLUSIVE_LOCK|windows.LOCKFILE_FAIL_IMMEDIATELY,
		0, 1, 0, &windows.Overlapped{OffsetHigh: 1 << 30})
}
