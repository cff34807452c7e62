package connector

import (
	"errors"
	"fmt"
	"strings"
)

// syntax is how a database's statements are written, as far as it takes to find the parameters in one: :name, outside of
// texts, quoted names and comments.
type syntax struct {
	parameter func(n int) string // the nth placeholder, from 1; nil = the database takes no statement of ours
	native    string             // characters that begin a placeholder of the database's own
	backslash bool               // \ escapes in every text (MySQL)
	escapes   bool               // \ escapes in E'…' (PostgreSQL)
	dollar    bool               // $tag$…$tag$ is a text (PostgreSQL)
	hash      bool               // # begins a comment, and -- only before a blank (MySQL)
	nested    bool               // /* */ nests
	brackets  bool               // […] is a name (SQLite, SQL Server)
	only      string             // the one verb that is taken, "" = any (SQL Server needs no semicolon between two statements)
	probe     probe
}

// statement is one statement, cut at its parameters: names[i] stands between pieces[i] and pieces[i+1].
type statement struct {
	pieces []string
	names  []string
	verb   string // its first word, in lower case
}

// text is the statement with the database's placeholders. Each has a number of its own, since a database may want
// another type at each place.
func (s statement) text(parameter func(n int) string) string {
	var b strings.Builder
	for i := range s.names {
		b.WriteString(s.pieces[i] + parameter(i+1))
	}
	return b.String() + s.pieces[len(s.names)]
}

// parseStatement takes one statement, which may end with a semicolon.
func parseStatement(text string, x syntax) (statement, error) {
	var s statement
	from, ended, empty := 0, false, true
	for i := 0; i < len(text); {
		n, k, err := x.token(text[i:])
		if err != nil {
			return s, err
		}
		switch {
		case k == blankToken:
		case k == endToken:
			ended = true
		case ended:
			return s, errors.New("has more than one statement")
		case k == parameterToken:
			s.pieces = append(s.pieces, text[from:i])
			s.names = append(s.names, text[i+1:i+n])
			from = i + n
		case k == wordToken && s.verb == "":
			s.verb = strings.ToLower(text[i : i+n])
		}
		empty = empty && (k == blankToken || k == endToken)
		i += n
	}
	if empty {
		return s, errors.New("is empty")
	}
	s.pieces = append(s.pieces, text[from:])
	return s, nil
}

type tokenKind int

const (
	otherToken tokenKind = iota
	blankToken           // or a comment
	wordToken
	parameterToken
	endToken
)

// token is the length and kind of what s begins with.
func (x syntax) token(s string) (int, tokenKind, error) {
	c := s[0]
	if n, err := x.comment(s); n > 0 || err != nil {
		return n, blankToken, err
	}
	switch {
	case strings.IndexByte(" \t\r\n\f\v", c) >= 0:
		return 1, blankToken, nil
	case c == '\'', c == '"':
		return quoted(s, 1, c, x.backslash)
	case c == '`':
		return quoted(s, 1, c, false)
	case c == '[' && x.brackets:
		return quoted(s, 1, ']', false)
	case c == '$' && x.dollar && dollarTag(s) > 0:
		n := dollarTag(s)
		length := strings.Index(s[n:], s[:n])
		if length < 0 {
			return 0, otherToken, errUnended
		}
		return n + length + n, otherToken, nil
	case isWord(c) && c != '$':
		n := wordLength(s)
		if x.escapes && strings.EqualFold(s[:n], "e") && strings.HasPrefix(s[n:], "'") {
			return quoted(s, n+1, '\'', true)
		}
		return n, wordToken, nil
	case strings.HasPrefix(s, "::"), strings.HasPrefix(s, ":="):
		return 2, otherToken, nil
	case c == ':' && len(s) > 1 && isWord(s[1]) && s[1] != '$' && !isDigit(s[1]):
		return 1 + wordLength(s[1:]), parameterToken, nil
	case c == ';':
		return 1, endToken, nil
	case strings.IndexByte(x.native, c) >= 0:
		return 0, otherToken, fmt.Errorf("has a parameter that begins with %c; write :name", c)
	}
	return 1, otherToken, nil
}

var errUnended = errors.New("has a text, a name or a comment that does not end")

// comment is the length of the comment that s begins with, 0 if it begins with none.
func (x syntax) comment(s string) (int, error) {
	dashes := strings.HasPrefix(s, "--")
	switch {
	case x.hash && dashes && len(s) > 2 && s[2] > ' ':
		return 0, nil
	case dashes, x.hash && s[0] == '#':
		if n := strings.IndexByte(s, '\n'); n >= 0 {
			return n, nil
		}
		return len(s), nil
	case !strings.HasPrefix(s, "/*"):
		return 0, nil
	case x.hash && (strings.HasPrefix(s, "/*!") || strings.HasPrefix(s, "/*M!")):
		return 0, errors.New("has a comment that the database would carry out")
	}
	depth := 0
	for i := 0; i+1 < len(s); i++ {
		switch two := s[i : i+2]; {
		case two == "/*" && (x.nested || depth == 0):
			depth++
			i++
		case two == "*/":
			depth--
			i++
		}
		if depth == 0 {
			return i + 1, nil
		}
	}
	return 0, errUnended
}

// quoted is the length of a text or name whose inside begins at from; the closing character twice is itself.
func quoted(s string, from int, closing byte, backslash bool) (int, tokenKind, error) {
	for i := from; i < len(s); i++ {
		switch {
		case backslash && s[i] == '\\':
			i++
		case s[i] == closing && i+1 < len(s) && s[i+1] == closing:
			i++
		case s[i] == closing:
			return i + 1, otherToken, nil
		}
	}
	return 0, otherToken, errUnended
}

// dollarTag is the length of $tag$ or $$ at the beginning of s, 0 if there is none.
func dollarTag(s string) int {
	for i := 1; i < len(s); i++ {
		switch {
		case s[i] == '$':
			return i + 1
		case !isWord(s[i]), i == 1 && isDigit(s[i]):
			return 0
		}
	}
	return 0
}

func wordLength(s string) int {
	n := 0
	for n < len(s) && isWord(s[n]) {
		n++
	}
	return n
}

// isWord holds for what names and numbers are made of; every character beyond ASCII may be in a name.
func isWord(c byte) bool {
	return c == '_' || c == '$' || c >= 0x80 || isDigit(c) || 'a' <= c|0x20 && c|0x20 <= 'z'
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }
