package filter

import (
	"fmt"
	"net/netip"
	"strings"
)

// Options say what an expression may use.
type Options struct {
	// Lookup returns the addresses of a host that is called by name; none: it is not known. Nil: no name is.
	Lookup func(name string) []netip.Addr
}

// Bounds of an expression, since it may come from a form on a page.
const (
	maxLength = 4096 // bytes
	maxDepth  = 64   // of parentheses and negations
)

// Parse makes a filter of an expression; an empty one wants all frames.
func Parse(text string, o Options) (*Filter, error) {
	if len(text) > maxLength {
		return nil, fmt.Errorf("filter: the expression has %d bytes, %d are possible", len(text), maxLength)
	}
	tokens, err := lex(text)
	if err != nil {
		return nil, fmt.Errorf("filter %q: %w", text, err)
	}
	if len(tokens) == 0 {
		return &Filter{}, nil
	}
	p := &parser{tokens: tokens, end: len(text), o: o}
	match, err := p.expression()
	if err == nil && p.next < len(tokens) {
		err = p.errorf("%q was not expected", p.peek().text)
	}
	if err != nil {
		return nil, fmt.Errorf("filter %q: %w", text, err)
	}
	return &Filter{match: match}, nil
}

// parser reads tokens from the left.
type parser struct {
	tokens []token
	next   int // the token that is read next
	end    int // of the expression
	depth  int
	o      Options
	last   qualifiers // those of the primitive before, which one without any takes over
}

// qualifiers are what stands before an id: ip src host.
type qualifiers struct{ proto, dir, kind string }

func (p *parser) errorf(format string, args ...any) error {
	at := p.end
	if p.next < len(p.tokens) {
		at = p.tokens[p.next].at
	}
	return fmt.Errorf("position %d: "+format, append([]any{at}, args...)...)
}

// peek is the next token; an empty sign behind the last one.
func (p *parser) peek() token {
	if p.next < len(p.tokens) {
		return p.tokens[p.next]
	}
	return token{}
}

// accept goes over the next token if it is one of texts and no escaped name.
func (p *parser) accept(texts ...string) (string, bool) {
	t := p.peek()
	for _, text := range texts {
		if t.text == text && !t.escaped {
			p.next++
			return text, true
		}
	}
	return "", false
}

// enter counts a level of nesting, until leave.
func (p *parser) enter() error {
	if p.depth++; p.depth > maxDepth {
		return p.errorf("the expression is nested too deeply: %d levels are possible", maxDepth)
	}
	return nil
}

func (p *parser) leave() { p.depth-- }

// expression is terms with and and or between them, which bind equally, from the left.
func (p *parser) expression() (predicate, error) {
	left, err := p.term()
	for err == nil {
		or, and := false, false
		if _, or = p.accept("or", "||"); !or {
			_, and = p.accept("and", "&&")
		}
		if !or && !and {
			return left, nil
		}
		var right predicate
		if right, err = p.term(); err != nil {
			break
		}
		if a := left; or {
			left = func(k *Packet) bool { return a(k) || !k.short && right(k) }
		} else {
			left = func(k *Packet) bool { return a(k) && right(k) }
		}
	}
	return nil, err
}

// term is a negation, a relation, an expression in parentheses or a primitive.
func (p *parser) term() (predicate, error) {
	if err := p.enter(); err != nil {
		return nil, err
	}
	defer p.leave()
	if _, ok := p.accept("not", "!"); ok {
		inner, err := p.term()
		if err != nil {
			return nil, err
		}
		return func(k *Packet) bool { return !inner(k) }, nil
	}
	if p.startsRelation() {
		return p.relation()
	}
	if _, ok := p.accept("("); ok {
		inner, err := p.expression()
		if err != nil {
			return nil, err
		}
		if _, ok := p.accept(")"); !ok {
			return nil, p.errorf("a closing parenthesis is missing")
		}
		return inner, nil
	}
	return p.primitive()
}

// startsRelation says whether what comes is a comparison of numbers: whether a sign of comparison stands behind it
// before anything that only other terms have.
func (p *parser) startsRelation() bool {
	open := 0
	for i := p.next; i < len(p.tokens); i++ {
		t := p.tokens[i]
		behind := token{}
		if i+1 < len(p.tokens) {
			behind = p.tokens[i+1]
		}
		switch {
		case t.word && isNumeric(t, behind):
		case t.word:
			return false
		case t.text == "(":
			open++
		case t.text == ")":
			if open--; open < 0 {
				return false
			}
		case t.text == "[":
			i = p.closing(i)
		case comparisons[t.text] != nil:
			// "(len > 5 and ...)" is an expression in parentheses, "(len + 5) > 6" a relation.
			return open == 0
		case strings.Contains("+-*/%&|^<<>>", t.text) && t.text != "&&" && t.text != "||":
		default:
			return false
		}
	}
	return false
}

// closing is the index of the bracket that closes the one at i.
func (p *parser) closing(i int) int {
	depth := 0
	for ; i < len(p.tokens); i++ {
		switch p.tokens[i].text {
		case "[":
			depth++
		case "]":
			if depth--; depth == 0 {
				return i
			}
		}
	}
	return i
}

// isNumeric says whether a word is a number, or a protocol whose field follows in brackets.
func isNumeric(t, behind token) bool {
	if t.escaped {
		return false
	}
	_, constant := constants[t.text]
	_, plain := number(t.text)
	return plain || constant || t.text == "len" || behind.text == "[" && !behind.word
}
