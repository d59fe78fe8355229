package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"strconv"
	"strings"
)

// The file that evidence is about, and the members of a static library (docs/spec/evidence.md, "Libraries").

type part struct{ name, digest, pkg, note string }

type subject struct {
	digest    string
	isLibrary bool
	members   []part
}

var errLibrary = errors.New("the library is damaged")

// Symbol tables: bytes of a number; of BSD's, pairs of numbers in little-endian order.
var tables = map[string]int{"/": 4, "/SYM64/": 8, "__.SYMDEF": 4, "__.SYMDEF SORTED": 4, "__.SYMDEF_64": 8}

func readSubject(path string) (*subject, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	found := &subject{digest: hexOf(data)}
	if bytes.HasPrefix(data, []byte("!<thin>\n")) {
		return nil, errors.New("a thin archive has no objects")
	}
	if bytes.HasPrefix(data, []byte("!<arch>\n")) {
		found.isLibrary = true
		found.members, err = readMembers(data)
	}
	return found, err
}

func readMembers(data []byte) (found []part, err error) {
	var names []byte
	named, places := map[uint64]bool{}, map[uint64]bool{}
	// What may still be a table: 0 all, 1 a second "/" and names, 2 names, 3 nothing.
	stage := 0
	for at := 8; at < len(data); {
		if at+60 > len(data) || string(data[at+58:at+60]) != "`\n" {
			return nil, errLibrary
		}
		head := data[at : at+60]
		size, bad := strconv.ParseUint(strings.TrimRight(string(head[48:58]), " "), 10, 40)
		end := at + 60 + int(size)
		if bad != nil || end > len(data) {
			return nil, errLibrary
		}
		raw, body := strings.TrimRight(string(head[:16]), " "), data[at+60:end]
		place := uint64(at)
		at = end + int(size&1)
		if raw == "//" && stage < 3 {
			names, stage = body, 3
			continue
		}
		name, rest, bad := memberName(raw, names, body)
		if bad != nil {
			return nil, bad
		}
		table := name
		if raw == "/" || raw == "/SYM64/" {
			table = raw
		}
		if width := tables[table]; width > 0 && (stage == 0 || stage == 1 && table == "/") {
			if bad := readPlaces(table, width, rest, stage == 1, named); bad != nil {
				return nil, bad
			}
			if isSecond := stage == 1; table == "/" && !isSecond {
				stage = 1
			} else {
				stage = 2
			}
			continue
		}
		stage = 3
		places[place] = true
		found = append(found, part{name: strings.ToValidUTF8(name, "\uFFFD"), digest: hexOf(rest)})
	}
	for place := range named {
		if !places[place] {
			return nil, errors.New("a symbol table names a place without a member")
		}
	}
	return found, nil
}

func readPlaces(table string, width int, data []byte, isSecond bool, named map[uint64]bool) error {
	isBSD := strings.HasPrefix(table, "__")
	var order binary.ByteOrder = binary.BigEndian
	if isBSD || isSecond {
		order = binary.LittleEndian
	}
	read := func(at int) uint64 {
		if width == 8 {
			return order.Uint64(data[at:])
		}
		return uint64(order.Uint32(data[at:]))
	}
	if len(data) < width {
		return errLibrary
	}
	count, step := read(0), uint64(1)
	if count > uint64(len(data)) {
		return errLibrary
	}
	if isBSD {
		step, count = 2, count/uint64(width)
	}
	if uint64(width)*(count+1) > uint64(len(data)) || count%step != 0 || isBSD && read(0)%uint64(2*width) != 0 {
		return errLibrary
	}
	for i := step - 1; i < count; i += step {
		named[read(width*int(i+1))] = true
	}
	return nil
}

func memberName(raw string, names, body []byte) (string, []byte, error) {
	digits := func(text string) (int, bool) {
		n, err := strconv.ParseUint(text, 10, 31)
		return int(n), err == nil
	}
	if strings.HasPrefix(raw, "#1/") {
		if n, ok := digits(raw[3:]); ok {
			if n > len(body) {
				return "", nil, errLibrary
			}
			return strings.TrimRight(string(body[:n]), "\x00"), body[n:], nil
		}
	}
	if n, ok := digits(strings.TrimPrefix(raw, "/")); ok && strings.HasPrefix(raw, "/") {
		if n >= len(names) || bytes.IndexByte(names[n:], '\n') < 0 {
			return "", nil, errLibrary
		}
		name, _, _ := strings.Cut(string(names[n:]), "\n")
		return strings.TrimSuffix(name, "/"), body, nil
	}
	if raw == "/" || raw == "/SYM64/" {
		return raw, body, nil
	}
	return strings.TrimSuffix(raw, "/"), body, nil
}
