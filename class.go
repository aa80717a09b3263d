package spillover

import "fmt"

// A Class says how urgent a request is, see [WithClass].
//
// As text, such as in JSON, it is "interactive" or "background".
type Class int

const (
	// Interactive is for requests that somebody waits for. It is the zero value.
	Interactive Class = iota
	// Background is for requests that can wait, such as batch jobs and evaluations.
	// They use the capacity that interactive requests leave: see [WithClass].
	Background
)

var classNames = [...]string{Interactive: "interactive", Background: "background"}

// known is the class, or Interactive if it is not one of the constants.
func (c Class) known() Class {
	if c < 0 || int(c) >= len(classNames) {
		return Interactive
	}
	return c
}

// String returns "interactive" or "background".
func (c Class) String() string {
	if c.known() != c {
		return fmt.Sprintf("Class(%d)", int(c))
	}
	return classNames[c]
}

// MarshalText implements [encoding.TextMarshaler] with String. Other values than the
// constants are an error.
func (c Class) MarshalText() ([]byte, error) {
	if c.known() != c {
		return nil, fmt.Errorf("spillover: %v is not a class", c)
	}
	return []byte(c.String()), nil
}

// UnmarshalText implements [encoding.TextUnmarshaler]. The error names the texts that
// are allowed.
func (c *Class) UnmarshalText(text []byte) error {
	for i, name := range classNames {
		if string(text) == name {
			*c = Class(i)
			return nil
		}
	}
	return fmt.Errorf("spillover: %.40q is not a class: must be interactive or background", text)
}
