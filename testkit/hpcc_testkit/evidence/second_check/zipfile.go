package main

import (
	"bytes"
	"compress/flate"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"regexp"
)

// The one form of an evidence file's zip file: docs/spec/evidence.md, "The zip file".

const (
	maxPacked = 64 << 20
	maxFiles  = 256
	maxTotal  = 256 << 20
)

var (
	errZip   = errors.New("not a zip file in the one form")
	fileName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._%~-]{0,199}$`)
	little   = binary.LittleEndian
)

type entry struct {
	name                      string
	crc, packed, size, offset uint32
}

func fields(to []byte, values ...any) []byte {
	for _, value := range values {
		to, _ = binary.Append(to, little, value)
	}
	return to
}

func (e *entry) local() []byte {
	return append(fields(nil, uint32(0x04034B50), uint16(20), uint16(0), uint16(8), uint16(0), uint16(0x21),
		e.crc, e.packed, e.size, uint16(len(e.name)), uint16(0)), e.name...)
}

func (e *entry) central() []byte {
	return append(fields(nil, uint32(0x02014B50), uint16(0x0314), uint16(20), uint16(0), uint16(8), uint16(0), uint16(0x21),
		e.crc, e.packed, e.size, uint16(len(e.name)), uint16(0), uint16(0), uint16(0), uint16(0), uint32(0x81A40000), e.offset), e.name...)
}

func unpack(data []byte) (map[string][]byte, error) {
	if len(data) < 22 || len(data) > maxPacked {
		return nil, errZip
	}
	end := data[len(data)-22:]
	count, size, start := int(little.Uint16(end[10:])), int(little.Uint32(end[12:])), int(little.Uint32(end[16:]))
	wanted := fields(nil, uint32(0x06054B50), uint16(0), uint16(0), uint16(count), uint16(count), uint32(size), uint32(start), uint16(0))
	if count == 0 || count > maxFiles || start+size+22 != len(data) || !bytes.Equal(end, wanted) {
		return nil, errZip
	}
	entries, at, total := []*entry{}, start, 0
	for i := 0; i < count; i++ {
		if at+46 > start+size {
			return nil, errZip
		}
		head := data[at:]
		name := int(little.Uint16(head[28:]))
		if at+46+name > start+size {
			return nil, errZip
		}
		e := &entry{string(head[46 : 46+name]), little.Uint32(head[16:]), little.Uint32(head[20:]), little.Uint32(head[24:]), little.Uint32(head[42:])}
		if !bytes.HasPrefix(head, e.central()) || !fileName.MatchString(e.name) || i > 0 && e.name <= entries[i-1].name {
			return nil, errZip
		}
		at, total, entries = at+46+name, total+int(e.size), append(entries, e)
	}
	if at != start+size || total > maxTotal {
		return nil, errZip
	}
	found, offset := map[string][]byte{}, 0
	for _, e := range entries {
		body := offset + 30 + len(e.name)
		next := body + int(e.packed)
		if int(e.offset) != offset || next > start || !bytes.Equal(data[offset:body], e.local()) {
			return nil, errZip
		}
		packed := bytes.NewReader(data[body:next])
		content, err := io.ReadAll(io.LimitReader(flate.NewReader(packed), int64(e.size)+1))
		if err != nil || packed.Len() != 0 || len(content) != int(e.size) || crc32.ChecksumIEEE(content) != e.crc {
			return nil, errZip
		}
		found[e.name], offset = content, next
	}
	if offset != start {
		return nil, errZip
	}
	return found, nil
}
