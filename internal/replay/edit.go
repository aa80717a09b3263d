package replay

import "github.com/spillover-go/spillover/internal/wire"

// An Edit replaces a range of the body while it is sent.
type Edit struct {
	At   wire.Span
	Text string
}

// Edits are up to two replacements, in the order of their position. A zero Edit changes
// nothing.
type Edits [2]Edit

// Sorted returns the edits in the order of their position.
func (e Edits) Sorted() Edits {
	if e[1] != (Edit{}) && e[1].At.From < e[0].At.From {
		e[0], e[1] = e[1], e[0]
	}
	return e
}
