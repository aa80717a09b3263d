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

// all returns a notice and those that follow it in the queue at this moment.
func (q queue) all(first ...string) []string {
	for {
		select {
		case notice := <-q:
			first = append(first, notice)
		default:
			return first
		}
	}
}
