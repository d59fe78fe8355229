package main

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Trees of docs/spec/audit.md: RFC 6962 and RFC 9162, heads as C2SP checkpoints.

const origin = "hpcc.example/audit/"

type hash = [32]byte

type head struct {
	size, first uint64
	root        hash
	signer      string
}

var (
	plainName = regexp.MustCompile(`^[A-Za-z0-9._-]{1,128}$`)
	decimal   = `(0|[1-9][0-9]{0,18})`
	headText  = regexp.MustCompile(`^([^\n]+)\n` + decimal + `\n([A-Za-z0-9+/=]{44})\nfirst ` + decimal +
		`\nchain ([0-9a-f]{64})\nat (-?[0-9.e+-]{1,32})\n$`)
)

// nameOf returns what stands for a worker in names of files, of keys and of its tree.
func nameOf(worker string) string {
	if plainName.MatchString(worker) {
		return worker
	}
	return "sha256-" + hexOf([]byte(clean(worker)))
}

func hexOf(data []byte) string {
	digest := sha256.Sum256(data)
	return hex.EncodeToString(digest[:])
}

// decode reads base64 in its one canonical form.
func decode(text string) ([]byte, error) {
	found, err := base64.StdEncoding.Strict().DecodeString(text)
	if err != nil || base64.StdEncoding.EncodeToString(found) != text {
		return nil, errors.New("base64 in another form")
	}
	return found, nil
}

func keyID(name string, key []byte) []byte {
	digest := sha256.Sum256(append([]byte(name+"\n\x01"), key...))
	return digest[:4]
}

func keyText(name string, key []byte) string {
	return fmt.Sprintf("%s+%x+%s", name, keyID(name, key),
		base64.StdEncoding.EncodeToString(append([]byte{1}, key...)))
}

// openHead checks a head: one signature, by one of these keys, which have names.
func openHead(data []byte, worker string, keys map[string][]byte) (*head, error) {
	wrong := fmt.Errorf("the checkpoint of %s: another form, key or signature", nameOf(worker))
	text, line, ok := strings.Cut(string(data), "\n\n")
	if !ok || len(data) > 2048 || !utf8.Valid(data) {
		return nil, wrong
	}
	text += "\n"
	match := headText.FindStringSubmatch(text)
	words := strings.SplitN(strings.TrimSuffix(line, "\n"), " ", 3)
	if match == nil || len(words) != 3 || words[0] != "\u2014" || words[2]+"\n" != line[len(line)-len(words[2])-1:] {
		return nil, wrong
	}
	if match[1] != origin+nameOf(worker) {
		return nil, wrong
	}
	value, err := decode(words[2])
	key := keys[words[1]]
	if err != nil || key == nil || len(value) != 68 || !bytes.Equal(value[:4], keyID(words[1], key)) ||
		!ed25519.Verify(key, []byte(text), value[4:]) {
		return nil, wrong
	}
	found := &head{signer: words[1]}
	found.size, _ = strconv.ParseUint(match[2], 10, 64)
	found.first, _ = strconv.ParseUint(match[4], 10, 64)
	root, err := decode(match[3])
	seconds, bad := strconv.ParseFloat(match[6], 64)
	if err != nil || bad != nil || math.IsInf(seconds, 0) || len(root) != 32 || found.size == 0 ||
		found.first > 1<<62 || found.size > 1<<62 {
		return nil, wrong
	}
	copy(found.root[:], root)
	return found, nil
}

func leafHash(leaf []byte) hash { return sha256.Sum256(append([]byte{0}, leaf...)) }

func nodeHash(left, right hash) hash {
	return sha256.Sum256(append(append([]byte{1}, left[:]...), right[:]...))
}

// startLeaf is leaf 0: the chain of `first` records that ends in `previous`.
func startLeaf(first uint64, previous []byte) hash {
	leaf := binary.BigEndian.AppendUint64([]byte("hpcc-audit-tree-1\x00"), first)
	return leafHash(append(leaf, previous...))
}

// isIncluded is RFC 9162, section 2.1.3.2.
func isIncluded(leaf hash, index, size uint64, root hash, proof []hash) bool {
	if index >= size {
		return false
	}
	fn, sn, r := index, size-1, leaf
	for _, p := range proof {
		if sn == 0 {
			return false
		}
		if fn&1 == 1 || fn == sn {
			r = nodeHash(p, r)
			for fn&1 == 0 && fn != 0 {
				fn, sn = fn>>1, sn>>1
			}
		} else {
			r = nodeHash(r, p)
		}
		fn, sn = fn>>1, sn>>1
	}
	return sn == 0 && r == root
}

// isConsistent is RFC 9162, section 2.1.4.2.
func isConsistent(old, new *head, proof []hash) bool {
	first, second := old.size, new.size
	if first == second {
		return len(proof) == 0 && old.root == new.root
	}
	if first > second || first == 0 {
		return false
	}
	if first&(first-1) == 0 {
		proof = append([]hash{old.root}, proof...)
	}
	if len(proof) == 0 {
		return false
	}
	fn, sn := first-1, second-1
	for fn&1 == 1 {
		fn, sn = fn>>1, sn>>1
	}
	fr, sr := proof[0], proof[0]
	for _, c := range proof[1:] {
		if sn == 0 {
			return false
		}
		if fn&1 == 1 || fn == sn {
			fr, sr = nodeHash(c, fr), nodeHash(c, sr)
			for fn&1 == 0 && fn != 0 {
				fn, sn = fn>>1, sn>>1
			}
		} else {
			sr = nodeHash(sr, c)
		}
		fn, sn = fn>>1, sn>>1
	}
	return sn == 0 && fr == old.root && sr == new.root
}

// checkHistory checks what `hpcc scheduler audit-history --json` prints of one worker: a held head,
// or two heads and the proof between them.
func checkHistory(line []byte) error {
	table, err := parseLoose(line)
	if err != nil {
		return err
	}
	worker, _ := at(table, "worker").(string)
	held, isPair := at(table, "held").(object)
	if !isPair {
		_, _, err := headOf(table, worker)
		return err
	}
	one, key, err := headOf(held, worker)
	if err != nil {
		return err
	}
	two, other, err := headOf(at(table, "new"), worker)
	if err != nil {
		return err
	}
	proof := []hash{}
	items, _ := at(table, "proof").([]any)
	for _, item := range items {
		text, _ := item.(string)
		value, err := decodeHash(text)
		if err != nil {
			return err
		}
		proof = append(proof, value)
	}
	if !bytes.Equal(key, other) || one.first != two.first || !isConsistent(one, two, proof) {
		return errors.New("the new head does not contain the held one")
	}
	return nil
}

func headOf(table any, worker string) (*head, []byte, error) {
	text, _ := at(table, "checkpoint").(string)
	digits, _ := at(table, "key").(string)
	key, err := hex.DecodeString(digits)
	if err != nil || len(key) != ed25519.PublicKeySize {
		return nil, nil, errors.New("a head without a key")
	}
	found, err := openHead([]byte(text), worker, map[string][]byte{origin + nameOf(worker): key})
	return found, key, err
}

func decodeHash(text string) (found hash, err error) {
	value, err := hex.DecodeString(text)
	if err != nil || len(value) != len(found) {
		return found, errors.New("a proof has something else in place of a hash")
	}
	copy(found[:], value)
	return found, nil
}
