package filter

import (
	"fmt"
	"strings"
)

// token is one word or sign of an expression.
type token struct {
	text    string
	at      int  // in the expression, in bytes
	word    bool // else a sign
	escaped bool // behind a backslash: a name, whatever word it is
}

// signs are all of them, the longer ones first.
var signs = []string{
	"&&", "||", "<<", ">>", "<=", ">=", "==", "!=",
	"(", ")", "[", "]", ":", "!", "<", ">", "=", "+", "-", "*", "/", "%", "&", "|", "^",
}

func isLetter(c byte) bool { return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '_' }
func isDigit(c byte) bool  { return c >= '0' && c <= '9' }

// lex splits an expression. A colon, a dash and a slash belong to a word where an address or a name can have them, and
// are signs inside of brackets.
func lex(text string) ([]token, error) {
	var list []token
	depth := 0
	for i := 0; i < len(text); {
		c := text[i]
		switch {
		case strings.IndexByte(" \t\r\n", c) >= 0:
			i++
			continue
		case c == '\\', isLetter(c), isDigit(c), depth == 0 && strings.HasPrefix(text[i:], "::"):
			t := token{at: i, word: true, escaped: c == '\\'}
			if t.escaped {
				i++
			}
			n := wordLength(text[i:], depth > 0)
			if n == 0 {
				return nil, fmt.Errorf("position %d: nothing behind the backslash", t.at)
			}
			t.text = text[i : i+n]
			i += n
			list = append(list, t)
			continue
		}
		sign := ""
		for _, s := range signs {
			if strings.HasPrefix(text[i:], s) {
				sign = s
				break
			}
		}
		switch sign {
		case "":
			return nil, fmt.Errorf("position %d: %q is no part of an expression", i, c)
		case "[":
			depth++
		case "]":
			depth--
		}
		list = append(list, token{text: sign, at: i})
		i += len(sign)
	}
	return list, nil
}

// wordLength is the length of the word at the beginning of text.
func wordLength(text string, bracket bool) int {
	address := false // a dot or a colon was in it
	for i := 0; i < len(text); i++ {
		c := text[i]
		next := byte(0)
		if i+1 < len(text) {
			next = text[i+1]
		}
		switch {
		case isLetter(c), isDigit(c):
		case c == '.', c == ':' && !bracket:
			address = true
		case c == '/' && !bracket && address && isDigit(next):
		case c == '-' && !bracket && i > 0 && isLetter(text[0]) && text[:i] != "len" &&
			(isLetter(next) || isDigit(next)):
		default:
			return i
		}
	}
	return len(text)
}
