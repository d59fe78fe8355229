package main

import (
	"fmt"
	"math"
	"regexp"
	"sort"
	"strconv"
	"strings"
	"unicode/utf8"
)

// The canonical JSON of docs/spec/audit.md: sorted keys, no spaces, ASCII with escapes. The standard
// library's reader loses halves of surrogate pairs and accepts two keys of one name, so this one is
// used. A half of a pair is kept as three bytes, as UTF-8 would write it.

type number string

type object = map[string]any

const maxDepth = 64

var isInt = regexp.MustCompile(`^(0|-?[1-9][0-9]{0,18})$`)

type reader struct {
	data []byte
	at   int
}

func parse(data []byte) (value any, err error) {
	defer func() {
		if said := recover(); said != nil {
			err = fmt.Errorf("not JSON: %v", said)
		}
	}()
	r := &reader{data: data}
	value = r.value(0)
	if r.at != len(data) {
		panic("bytes behind the value")
	}
	return value, nil
}

func (r *reader) value(depth int) any {
	if depth > maxDepth || r.at >= len(r.data) {
		panic("too deep, or cut")
	}
	switch c := r.data[r.at]; {
	case c == '"':
		return r.text()
	case c == '{':
		found := object{}
		r.list('}', func() {
			key := r.text()
			r.word(":")
			if _, ok := found[key]; ok {
				panic("a key twice")
			}
			found[key] = r.value(depth + 1)
		})
		return found
	case c == '[':
		found := []any{}
		r.list(']', func() { found = append(found, r.value(depth+1)) })
		return found
	case c == 't':
		r.word("true")
		return true
	case c == 'f':
		r.word("false")
		return false
	case c == 'n':
		r.word("null")
		return nil
	}
	start := r.at
	for r.at < len(r.data) && strings.IndexByte("+-.0123456789eE", r.data[r.at]) >= 0 {
		r.at++
	}
	text := string(r.data[start:r.at])
	if !isInt.MatchString(text) && !isCanonicalFloat(text) {
		panic("a number in another form")
	}
	return number(text)
}

func (r *reader) list(end byte, item func()) {
	r.at++
	for first := true; ; first = false {
		if r.at < len(r.data) && r.data[r.at] == end {
			r.at++
			return
		}
		if !first {
			r.word(",")
		}
		item()
	}
}

func (r *reader) word(text string) {
	if !strings.HasPrefix(string(r.data[r.at:min(r.at+len(text), len(r.data))]), text) {
		panic("another character than " + text)
	}
	r.at += len(text)
}

func (r *reader) text() string {
	r.word(`"`)
	var found strings.Builder
	for {
		c := r.data[r.at]
		r.at++
		switch {
		case c == '"':
			return found.String()
		case c == '\\':
			kind := r.data[r.at]
			r.at++
			if kind == 'u' {
				writeRune(&found, r.unit())
			} else if i := strings.IndexByte(`"\/bfnrt`, kind); i >= 0 {
				found.WriteByte("\"\\/\b\f\n\r\t"[i])
			} else {
				panic("another escape")
			}
		case c < 0x20:
			panic("a control character")
		default:
			found.WriteByte(c)
		}
	}
}

func (r *reader) unit() rune {
	high := r.hex()
	if high>>10 == 0x36 && r.at+6 <= len(r.data) && string(r.data[r.at:r.at+2]) == `\u` {
		back := r.at
		r.at += 2
		if low := r.hex(); low>>10 == 0x37 {
			return 0x10000 + (high-0xD800)<<10 + (low - 0xDC00)
		}
		r.at = back
	}
	return high
}

func (r *reader) hex() rune {
	n, err := strconv.ParseUint(string(r.data[r.at:r.at+4]), 16, 32)
	if err != nil {
		panic("another escape")
	}
	r.at += 4
	return rune(n)
}

func writeRune(to *strings.Builder, c rune) {
	if c>>11 == 0x1B { // half of a pair
		to.Write([]byte{0xE0 | byte(c>>12), 0x80 | byte(c>>6)&0x3F, 0x80 | byte(c)&0x3F})
		return
	}
	to.WriteRune(c)
}

// nextRune returns the first character of a text, also half of a pair, and its size.
func nextRune(text string) (rune, int) {
	c, size := utf8.DecodeRuneInString(text)
	if c == utf8.RuneError && size == 1 && len(text) >= 3 && text[0] == 0xED {
		return rune(text[0]&0xF)<<12 | rune(text[1]&0x3F)<<6 | rune(text[2]&0x3F), 3
	}
	return c, size
}

// clean replaces halves of pairs by question marks.
func clean(text string) string {
	var found strings.Builder
	for len(text) > 0 {
		c, size := nextRune(text)
		if c>>11 == 0x1B {
			c = '?'
		}
		found.WriteRune(c)
		text = text[size:]
	}
	return found.String()
}

func isCanonicalFloat(text string) bool {
	value, err := strconv.ParseFloat(text, 64)
	return err == nil && floatText(value) == text
}

// floatText spells a number as the shortest digits that give it again: with an exponent below
// 0.0001 and from 1e16 on, and always with a point or an exponent.
func floatText(value float64) string {
	if size := math.Abs(value); value != 0 && (size < 1e-4 || size >= 1e16) {
		return strconv.FormatFloat(value, 'e', -1, 64)
	}
	text := strconv.FormatFloat(value, 'f', -1, 64)
	if !strings.Contains(text, ".") {
		text += ".0"
	}
	return text
}

func canonical(value any) []byte {
	var to strings.Builder
	write(&to, value)
	return []byte(to.String())
}

func write(to *strings.Builder, value any) {
	switch v := value.(type) {
	case nil:
		to.WriteString("null")
	case bool:
		to.WriteString(strconv.FormatBool(v))
	case int:
		to.WriteString(strconv.Itoa(v))
	case number:
		to.WriteString(string(v))
	case string:
		writeText(to, v)
	case []string:
		writeList(to, len(v), func(i int) { writeText(to, v[i]) }, "[]")
	case []any:
		writeList(to, len(v), func(i int) { write(to, v[i]) }, "[]")
	case []object:
		writeList(to, len(v), func(i int) { write(to, v[i]) }, "[]")
	case object:
		keys := make([]string, 0, len(v))
		for key := range v {
			keys = append(keys, key)
		}
		sort.Strings(keys)
		writeList(to, len(keys), func(i int) {
			writeText(to, keys[i])
			to.WriteByte(':')
			write(to, v[keys[i]])
		}, "{}")
	default:
		panic(fmt.Sprintf("no JSON for %T", value))
	}
}

func writeList(to *strings.Builder, count int, item func(int), marks string) {
	to.WriteByte(marks[0])
	for i := 0; i < count; i++ {
		if i > 0 {
			to.WriteByte(',')
		}
		item(i)
	}
	to.WriteByte(marks[1])
}

func writeText(to *strings.Builder, text string) {
	to.WriteByte('"')
	for len(text) > 0 {
		c, size := nextRune(text)
		if i := strings.IndexRune("\"\\\b\f\n\r\t", c); i >= 0 {
			to.WriteByte('\\')
			to.WriteByte(`"\bfnrt`[i])
		} else if c >= ' ' && c <= '~' {
			to.WriteRune(c)
		} else if c >= 0x10000 {
			fmt.Fprintf(to, `\u%04x\u%04x`, 0xD800+(c-0x10000)>>10, 0xDC00+(c-0x10000)&0x3FF)
		} else {
			fmt.Fprintf(to, `\u%04x`, c)
		}
		text = text[size:]
	}
	to.WriteByte('"')
}

// cleaned returns a value without halves of pairs in its texts.
func cleaned(value any) any {
	switch v := value.(type) {
	case string:
		return clean(v)
	case []string:
		found := []any{}
		for _, item := range v {
			found = append(found, clean(item))
		}
		return found
	case []any:
		found := []any{}
		for _, item := range v {
			found = append(found, cleaned(item))
		}
		return found
	case []object:
		found := []any{}
		for _, item := range v {
			found = append(found, cleaned(item))
		}
		return found
	case object:
		found := object{}
		for key, item := range v {
			found[key] = cleaned(item)
		}
		return found
	}
	return value
}

// at returns what lies at a path of keys, nil if nothing does.
func at(value any, keys ...string) any {
	for _, key := range keys {
		table, _ := value.(object)
		value = table[key]
	}
	return value
}
