package spillover

import (
	"errors"
	"io"
	"io/fs"
	"os"
)

// maxConfigFile is the size of a configuration file at most, in bytes.
const maxConfigFile = 1 << 20

// readConfigFile reads a file that holds still meanwhile. It does not wait: not
// for a pipe, and not for the one who writes.
func readConfigFile(path string, open func(string) (fs.File, error)) ([]byte, error) {
	for range 3 {
		text, still, err := readOnce(path, open)
		if err != nil {
			// The caller names the file.
			if e := (*fs.PathError)(nil); errors.As(err, &e) {
				err = e.Err
			}
			return nil, err
		}
		if still {
			return text, nil
		}
	}
	return nil, errors.New("changes while it is read")
}

// readOnce also tells whether the file was the same before and afterwards.
func readOnce(path string, open func(string) (fs.File, error)) (text []byte, still bool, err error) {
	before, err := os.Stat(path)
	switch {
	case err != nil:
		return nil, false, err
	case before.IsDir():
		return nil, false, errors.New("is a directory")
	case !before.Mode().IsRegular():
		return nil, false, errors.New("is not a regular file")
	}
	f, err := open(path)
	if err != nil {
		return nil, false, err
	}
	defer f.Close()
	text, err = io.ReadAll(io.LimitReader(f, maxConfigFile+1))
	if err != nil {
		return nil, false, err
	}
	if len(text) > maxConfigFile {
		return nil, false, errors.New("is larger than 1 MiB")
	}
	after, err := os.Stat(path)
	if err != nil {
		return nil, false, err
	}
	return text, os.SameFile(before, after) && before.Size() == after.Size() && before.ModTime().Equal(after.ModTime()), nil
}
