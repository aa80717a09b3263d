package batch

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
)

// journalVersion is that of the format of the journal.
const journalVersion = 1

// A journalHeader is the first line of a journal: what the answers belong to.
type journalHeader struct {
	Version int     `json:"spillover_batch"`
	Input   inputID `json:"input"`
	Part    string  `json:"part"`
	Errors  bool    `json:"errors_file"` // failures have a file of their own
}

// A journalRecord is every other line: answers that are on disk, and how long the
// files are with them.
type journalRecord struct {
	Answered []int64 `json:"answered,omitempty"` // lines of the input
	Failed   []int64 `json:"failed,omitempty"`
	Output   int64   `json:"output"` // bytes
	Errors   int64   `json:"errors,omitempty"`
}

// A journal has the answers of a batch and remembers which lines they belong to, so
// that the batch can be killed at any time. An answer is first written to the output
// and synced, then recorded in the journal and synced. After a kill, complete answers
// in the output that the journal does not have are recorded, and the rest is cut off.
type journal struct {
	output, errors, log *os.File // errors is nil if failures go to the output
	header              journalHeader
	known               bitmap // lines with an answer
	committed           journalRecord
	answered, failed    int64 // requests with an answer, and those of them that failed
	recovered           int64 // answers that only the output had
	cut                 int64 // bytes of incomplete answers that were removed
	broken              error // of the write that failed

	write func(f *os.File, text []byte) error
	sync  func(f *os.File) error
}

func writeFile(f *os.File, text []byte) error {
	_, err := f.Write(text)
	return err
}

// openJournal opens the files of a batch, or continues with those of an earlier run.
func openJournal(o *Options, inputFile os.FileInfo, input inputID, lines int64) (*journal, error) {
	j := &journal{
		header: journalHeader{journalVersion, input, o.Part.String(), o.Errors != ""},
		known:  newBitmap(lines), write: o.write, sync: o.sync,
	}
	if err := j.open(o, inputFile); err != nil {
		j.close()
		return nil, err
	}
	return j, nil
}

// JournalSuffix is added to the name of the output for that of its journal.
const JournalSuffix = ".journal"

func (j *journal) open(o *Options, input os.FileInfo) (err error) {
	others := []os.FileInfo{input}
	if j.output, err = openLocked(o.Output, &others); err != nil {
		return err
	}
	if o.Errors != "" {
		if j.errors, err = openLocked(o.Errors, &others); err != nil {
			return err
		}
	}
	// The journal is last, so that an output that cannot be used leaves none behind.
	if j.log, err = openLocked(o.Output+JournalSuffix, &others); err != nil {
		return err
	}
	started, err := j.read()
	if err != nil {
		return fmt.Errorf("%s: %w", j.log.Name(), err)
	}
	if !started {
		if err := j.start(); err != nil {
			return err
		}
	}
	return j.recover()
}

// openLocked opens a file for one process at a time. It must be none of the others, under
// any name, and is added to them.
func openLocked(path string, others *[]os.FileInfo) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o666)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	switch {
	case err != nil:
	case !info.Mode().IsRegular():
		err = fmt.Errorf("%s is not a regular file: what is written there could not be continued after a kill", path)
	case slices.ContainsFunc(*others, func(other os.FileInfo) bool { return os.SameFile(info, other) }):
		err = errSameFile
	default:
		if err = lock(f); err != nil {
			err = fmt.Errorf("%s is in use by another process, or cannot be locked: %w", path, err)
		}
		*others = append(*others, info)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// start begins a journal. Its output must be empty: nobody knows what else is there.
func (j *journal) start() error {
	for _, f := range j.answers() {
		size, err := f.Seek(0, io.SeekEnd)
		if err != nil {
			return err
		}
		if size > 0 {
			// Without a line, the journal is of no use to a later run either.
			os.Remove(j.log.Name())
			return fmt.Errorf("%s is not empty, and has no journal %s: choose another file, or remove it", f.Name(), j.log.Name())
		}
	}
	text, err := json.Marshal(j.header)
	if err != nil {
		return err
	}
	if err := j.log.Truncate(0); err != nil {
		return err
	}
	if _, err := j.log.Seek(0, io.SeekStart); err != nil {
		return err
	}
	if err := j.write(j.log, append(text, '\n')); err != nil {
		return err
	}
	if err := j.sync(j.log); err != nil {
		return err
	}
	for _, f := range append(j.answers(), j.log) {
		syncDir(filepath.Dir(f.Name()))
	}
	return nil
}

// syncDir makes the names of new files durable, where the system can do that.
func syncDir(path string) {
	if dir, err := os.Open(path); err == nil {
		_ = dir.Sync() // not every file system can
		dir.Close()
	}
}

// answers are the files with answers.
func (j *journal) answers() []*os.File {
	if j.errors == nil {
		return []*os.File{j.output}
	}
	return []*os.File{j.output, j.errors}
}

// read reads the journal. started is false if it has no complete header.
func (j *journal) read() (started bool, err error) {
	in := bufio.NewReaderSize(j.log, readSize)
	var end int64 // of the last record that is complete
	for {
		text, err := in.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			if !started && !beginsHeader(text) {
				return false, errNoJournal
			}
			break
		}
		if err != nil {
			return false, err
		}
		if !started {
			var h journalHeader
			if json.Unmarshal(text, &h) != nil || h.Version == 0 {
				return false, errNoJournal
			}
			if err := j.header.check(h); err != nil {
				return false, err
			}
			started = true
		} else {
			var r journalRecord
			if json.Unmarshal(text, &r) != nil || !j.apply(r) {
				break // a power failure can leave anything after the last sync
			}
		}
		end += int64(len(text))
	}
	if started {
		if err := j.log.Truncate(end); err != nil {
			return false, err
		}
		_, err = j.log.Seek(end, io.SeekStart)
	}
	return started, err
}

var errNoJournal = errors.New("not a journal of this command: choose another output, or remove it")

// beginsHeader reports whether a text can be what a kill, or a power failure, has left of a
// header. Anything else is not overwritten.
func beginsHeader(text []byte) bool {
	const beginning = `{"spillover_batch":`
	text = bytes.TrimRight(text, "\x00")
	n := min(len(text), len(beginning))
	return string(text[:n]) == beginning[:n]
}

// check compares the header of this run with that of an earlier one.
func (h journalHeader) check(before journalHeader) error {
	switch {
	case before.Version != h.Version:
		return fmt.Errorf("its version is %d, and this program has %d", before.Version, h.Version)
	case before.Input != h.Input:
		return errors.New("the input has changed since the batch was started: continue with the original, or choose another output")
	case before.Part != h.Part:
		return fmt.Errorf("the batch was started with -part %s: continue with that, or choose another output", before.Part)
	case before.Errors != h.Errors:
		with := map[bool]string{true: "with", false: "without"}[before.Errors]
		return fmt.Errorf("the batch was started %s -errors: continue in the same way, or choose another output", with)
	}
	return nil
}

// apply counts what a record says. It is false if the record cannot be right.
func (j *journal) apply(r journalRecord) bool {
	if len(r.Answered)+len(r.Failed) == 0 || r.Output < j.committed.Output || r.Errors < j.committed.Errors || j.errors == nil && r.Errors > 0 {
		return false
	}
	lines := slices.Sorted(slices.Values(slices.Concat(r.Answered, r.Failed)))
	for i, line := range lines {
		if line < 1 || line > j.known.lines || j.known.has(line) || i > 0 && line == lines[i-1] {
			return false
		}
	}
	for _, line := range lines {
		j.known.set(line)
	}
	j.answered += int64(len(lines))
	j.failed += int64(len(r.Failed))
	j.committed = journalRecord{Output: r.Output, Errors: r.Errors}
	return true
}

// recover brings the files to what the journal has. Answers that a killed process has
// written, and not recorded, are kept.
func (j *journal) recover() error {
	var found journalRecord
	var err error
	if found.Output, err = j.tail(j.output, j.committed.Output, func(line int64, text []byte) {
		if j.errors == nil && hasFailed(text) {
			found.Failed = append(found.Failed, line)
		} else {
			found.Answered = append(found.Answered, line)
		}
	}); err != nil {
		return err
	}
	if j.errors != nil {
		if found.Errors, err = j.tail(j.errors, j.committed.Errors, func(line int64, _ []byte) {
			found.Failed = append(found.Failed, line)
		}); err != nil {
			return err
		}
	}
	j.recovered = int64(len(found.Answered) + len(found.Failed))
	if j.recovered == 0 {
		return nil
	}
	return j.record(found)
}

// tail reads the answers after the first size bytes of a file, cuts off what follows
// the last complete one, and returns the size of what remains.
func (j *journal) tail(f *os.File, size int64, found func(line int64, text []byte)) (int64, error) {
	actual, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return 0, err
	}
	if actual < size {
		return 0, fmt.Errorf("%s has %d bytes, and its journal says %d: answers were removed from it; restore it, or choose another output", f.Name(), actual, size)
	}
	if _, err := f.Seek(size, io.SeekStart); err != nil {
		return 0, err
	}
	in := bufio.NewReaderSize(f, readSize)
	for {
		text, err := in.ReadBytes('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			return 0, err
		}
		line, ok := lineOf(text)
		if err != nil || !ok || line > j.known.lines || j.known.has(line) {
			break
		}
		j.known.set(line)
		j.answered++
		found(line, text)
		size += int64(len(text))
	}
	if j.cut += actual - size; actual > size {
		if err := f.Truncate(size); err != nil {
			return 0, err
		}
	}
	_, err = f.Seek(size, io.SeekStart)
	return size, err
}

// hasFailed reports whether an answer is that of a request that failed.
func hasFailed(text []byte) bool {
	var a struct {
		Response struct {
			StatusCode int `json:"status_code"`
		} `json:"response"`
	}
	return json.Unmarshal(text, &a) != nil || a.Response.StatusCode < 200 || a.Response.StatusCode >= 300
}

// commit makes answers durable. Once it has returned, they are never asked for again.
// After an error the journal cannot be used any more. The next openJournal repairs what
// is incomplete.
func (j *journal) commit(answers []answer) error {
	if j.broken != nil {
		return j.broken
	}
	var output, failures bytes.Buffer
	r := journalRecord{Output: j.committed.Output, Errors: j.committed.Errors}
	for _, a := range answers {
		to, size, lines := &output, &r.Output, &r.Answered
		if a.failed {
			lines = &r.Failed
			if j.errors != nil {
				to, size = &failures, &r.Errors
			}
		}
		to.Write(a.text)
		*size += int64(len(a.text))
		*lines = append(*lines, a.line)
	}
	if output.Len() > 0 {
		j.broken = j.write(j.output, output.Bytes())
	}
	if failures.Len() > 0 && j.broken == nil {
		j.broken = j.write(j.errors, failures.Bytes())
	}
	if j.broken == nil {
		j.broken = j.record(r)
	}
	if j.broken == nil {
		j.answered += int64(len(answers))
	}
	return j.broken
}

// record syncs the answers, and then writes the record and syncs that.
func (j *journal) record(r journalRecord) error {
	for _, f := range j.answers() {
		if err := j.sync(f); err != nil {
			return err
		}
	}
	text, err := json.Marshal(r)
	if err != nil {
		return err
	}
	if err := j.write(j.log, append(text, '\n')); err != nil {
		return err
	}
	if err := j.sync(j.log); err != nil {
		return err
	}
	j.failed += int64(len(r.Failed))
	j.committed = journalRecord{Output: r.Output, Errors: r.Errors}
	return nil
}

func (j *journal) close() {
	for _, f := range []*os.File{j.log, j.output, j.errors} {
		if f != nil {
			f.Close() // releases the lock
		}
	}
}

// A bitmap has a bit for each line of the input.
type bitmap struct {
	bits  []uint64
	lines int64
}

func newBitmap(lines int64) bitmap { return bitmap{make([]uint64, lines/64+1), lines} }

func (b bitmap) has(line int64) bool { return b.bits[line/64]&(1<<(line%64)) != 0 }
func (b bitmap) set(line int64)      { b.bits[line/64] |= 1 << (line % 64) }
