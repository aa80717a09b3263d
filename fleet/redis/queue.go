package redis

// A queue is a bounded buffer of notices. It never blocks who puts one in.
type queue chan string

// push appends a notice and returns how many of the oldest were dropped for it.
func (q queue) push(notice string) (dropped int) {
	for {
		select {
		case q <- notice:
			return dropped
		default:
		}
		select {
		case <-q:
			dropped++
		default: // the reader was faster
		}
	}
}

// all returns the notices that are in the queue, behind those given; together not more
// than the queue can hold.
func (q queue) all(notices ...string) []string {
	for len(notices) < cap(q) {
		select {
		case notice := <-q:
			notices = append(notices, notice)
		default:
			return notices
		}
	}
	return notices
}
