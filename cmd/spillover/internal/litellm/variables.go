package litellm

import (
	"fmt"
	"regexp"
	"strings"

	"go.yaml.in/yaml/v3"
)

const environPrefix = "os.environ/"

var isVariable = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// variableOf is the variable that a text stands for.
func variableOf(s string) (name string, ok bool) {
	name, ok = strings.CutPrefix(s, environPrefix)
	return name, ok && isVariable.MatchString(name)
}

// collectVariables records the names of all variables of a file.
func (c *converter) collectVariables(n *yaml.Node, depth int) {
	if n == nil || depth > 1000 {
		return
	}
	if name, ok := variableOf(n.Value); ok {
		c.taken[name] = true
	}
	for _, child := range n.Content {
		c.collectVariables(child, depth+1)
	}
}

// variable is the reference to a variable in a file of spillover.
func (c *converter) variable(name string) string {
	c.used[name] = true
	return "${" + name + "}"
}

// ours is a text as a file of spillover has it.
func (c *converter) ours(s string) string {
	if name, ok := variableOf(s); ok {
		return c.variable(name)
	}
	return strings.ReplaceAll(s, "${", "$${")
}

// text is the text of a scalar as a file of spillover has it.
func (c *converter) text(v value) (string, bool) {
	s, ok := v.scalar()
	return c.ours(s), ok && s != ""
}

// secret is the reference to the variable that holds a secret. hint is for its name.
func (c *converter) secret(v value, hint string) string {
	s, _ := v.scalar()
	if name, ok := variableOf(s); ok {
		return c.variable(name)
	}
	name, ok := c.secrets[s]
	if !ok {
		name = c.newVariable(hint)
		c.secrets[s] = name
	}
	c.note(Set, v, "the value is a secret, so it was not copied: set the environment variable %s to it", name)
	return c.variable(name)
}

// newVariable is the name of a variable that nothing else uses.
func (c *converter) newVariable(hint string) string {
	name := variableName(hint)
	for i := 2; c.taken[name]; i++ {
		name = fmt.Sprintf("%s_%d", variableName(hint), i)
	}
	c.taken[name] = true
	return name
}

// optional is the variable for the key of a server that needs none.
func (c *converter) optional(url, hint string) string {
	name, ok := c.optionals[url]
	if !ok {
		name = c.newVariable(hint + "_KEY")
		c.optionals[url] = name
	}
	return name
}

var notOfVariables = regexp.MustCompile(`[^A-Z0-9]+`)

// variableName makes the name of a variable of a text.
func variableName(s string) string {
	s = strings.Trim(notOfVariables.ReplaceAllString(strings.ToUpper(s), "_"), "_")
	if s == "" || s[0] >= '0' && s[0] <= '9' {
		s = "LLM_" + s
	}
	return s
}
