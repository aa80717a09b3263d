package configfile

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
)

// MaxSize is the maximum size of a configuration file, in bytes.
const MaxSize = 1 << 20

// Read returns the content of a regular file of at most limit bytes. If the
// file changes meanwhile it is read again, three times in all. Read never waits,
// neither for a pipe nor for whoever is writing. Its errors do not name the file.
func Read(path string, limit int) ([]byte, error) {
	return read(path, limit, func(path string) (fs.File, error) { return os.Open(path) })
}

func read(path string, limit int, open func(string) (fs.File, error)) ([]byte, error) {
	for range 3 {
		text, stable, err := readOnce(path, limit, open)
		if err != nil {
			if e := (*fs.PathError)(nil); errors.As(err, &e) {
				err = e.Err
			}
			return nil, err
		}
		if stable {
			return text, nil
		}
	}
	return nil, errors.New("keeps changing while it is read")
}

// readOnce also returns whether the file was the same before and afterwards.
func readOnce(path string, limit int, open func(string) (fs.File, error)) (text []byte, stable bool, err error) {
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
	text, err = io.ReadAll(io.LimitReader(f, int64(limit)+1))
	if err != nil {
		return nil, false, err
	}
	if len(text) > limit {
		return nil, false, errors.New("is larger than " + size(limit))
	}
	after, err := os.Stat(path)
	if err != nil {
		return nil, false, err
	}
	return text, os.SameFile(before, after) && before.Size() == after.Size() && before.ModTime().Equal(after.ModTime()), nil
}

// size is a number of bytes in words.
func size(n int) string {
	if n%(1<<20) == 0 {
		return fmt.Sprintf("%d MiB", n>>20)
	}
	return fmt.Sprintf("%d KiB", n>>10)
}
