package main

import (
	"bytes"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"sort"
	"strconv"
	"strings"
)

// The check of an evidence file: docs/spec/evidence.md, "The check, in order".

const makerName = "hpcc-evidence"

var (
	fixed = strings.Fields("vsa.dsse.json link.dsse.json objects.intoto.jsonl records.dsse.jsonl rows.proofs.jsonl" +
		" README.txt keys.txt maker.pem sbom.cdx.json")
	timeForm  = regexp.MustCompile(`^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z$`)
	indexForm = regexp.MustCompile(`^index ` + decimal + `$`)
)

// keys are raw public keys: of makers, and of workers by what stands for their name.
type keys struct {
	makers  [][]byte
	workers map[string][]byte
}

func readPinned(path string) (*keys, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	if block, _ := pem.Decode(data); block != nil {
		key, err := x509.ParsePKIXPublicKey(block.Bytes)
		raw, ok := key.(ed25519.PublicKey)
		if err != nil || !ok {
			return nil, errors.New("not a key of Ed25519")
		}
		return &keys{[][]byte{raw}, nil}, nil
	}
	return parseKeys(data)
}

func parseKeys(data []byte) (*keys, error) {
	found, wrong := &keys{nil, map[string][]byte{}}, errors.New("keys in another form")
	for _, line := range strings.Split(string(data), "\n") {
		if line = strings.TrimSpace(line); line == "" || line[0] == '#' {
			continue
		}
		words := strings.SplitN(line, "+", 3)
		if len(words) != 3 {
			return nil, wrong
		}
		raw, err := decode(words[2])
		if err != nil || len(raw) != 33 || raw[0] != 1 || keyText(words[0], raw[1:]) != line {
			return nil, wrong
		}
		name, isWorker := strings.CutPrefix(words[0], origin)
		switch known := found.workers[name]; {
		case words[0] == makerName:
			found.makers = append(found.makers, raw[1:])
		case !isWorker || known != nil && !bytes.Equal(known, raw[1:]):
			return nil, wrong
		default:
			found.workers[name] = raw[1:]
		}
	}
	if len(found.makers) == 0 {
		return nil, wrong
	}
	return found, nil
}

type evidence struct {
	files       map[string][]byte
	maker       []byte
	making      *making
	workers     map[string][]byte // by name
	checkpoints map[string][]byte
	rows        []*row
	isolations  []string
	at          string
}

func verify(data []byte, file *subject, pinned *keys) (*coverage, error) {
	files, err := unpack(data)
	if err != nil {
		return nil, err
	}
	for _, name := range fixed {
		if files[name] == nil {
			return nil, errors.New("no file " + name)
		}
	}
	e := &evidence{files: files, workers: map[string][]byte{}, checkpoints: map[string][]byte{}}
	summary, err := e.readSummary(pinned)
	if err != nil {
		return nil, err
	}
	if err := e.readMaking(file); err != nil {
		return nil, err
	}
	if err := e.readRows(pinned); err != nil {
		return nil, err
	}
	found := cover(e.making, e.rows, e.isolations)
	if len(found.used) != len(e.rows) {
		return nil, errors.New("rows that no part needs")
	}
	if err := e.compare(); err != nil {
		return nil, err
	}
	if !bytes.Equal(e.summary(found), summary) {
		return nil, errors.New("the summary does not follow")
	}
	return found, nil
}

func (e *evidence) readSummary(pinned *keys) ([]byte, error) {
	sealed, err := readEnvelope(e.files["vsa.dsse.json"])
	if err != nil || len(e.files["vsa.dsse.json"]) > 1<<20 {
		return nil, errors.New("no summary")
	}
	for _, key := range pinned.makers {
		if e.maker == nil && sealed.check(key, inToto) == nil {
			e.maker = key
		}
	}
	if e.maker == nil {
		return nil, errors.New("not signed by a pinned key")
	}
	value, err := parse(sealed.payload)
	if err != nil {
		return nil, err
	}
	predicate := at(value, "predicate")
	e.at, _ = at(predicate, "timeVerified").(string)
	e.isolations, _ = texts(at(predicate, "policy", "annotations", "isolations"))
	if !timeForm.MatchString(e.at) || len(e.isolations) == 0 || !sort.StringsAreSorted(e.isolations) {
		return nil, errors.New("no time or policy")
	}
	for i, label := range e.isolations {
		if !kernels[label] && !containers[label] || i > 0 && label == e.isolations[i-1] {
			return nil, errors.New("another isolation")
		}
	}
	return sealed.payload, nil
}

func (e *evidence) readMaking(file *subject) error {
	sealed, err := readEnvelope(e.files["link.dsse.json"])
	if err == nil {
		err = sealed.check(e.maker, inToto)
	}
	if err != nil {
		return err
	}
	m, err := readMaking(sealed.payload)
	if err != nil {
		return err
	}
	e.making = m
	wanted := m.parts
	switch m.grade {
	case "members":
		wanted = file.members
	case "whole":
		wanted = []part{{name: m.name, digest: m.digest}}
	}
	if m.digest != file.digest || (m.grade == "members") != file.isLibrary || !slices.Equal(wanted, m.parts) {
		return errors.New("another file, or other members")
	}
	return nil
}

func (e *evidence) readRows(pinned *keys) error {
	named, err := parseKeys(e.files["keys.txt"])
	if err != nil {
		return err
	}
	if len(named.makers) != 1 || !bytes.Equal(named.makers[0], e.maker) {
		return errors.New("another maker")
	}
	for word, key := range named.workers {
		if len(pinned.workers) > 0 && !bytes.Equal(pinned.workers[word], key) {
			return errors.New("the key of " + word + " is not a pinned one")
		}
	}
	records, proofs := lines(e.files["records.dsse.jsonl"]), lines(e.files["rows.proofs.jsonl"])
	if len(records) != len(proofs) || len(records) > 32768 {
		return errors.New("other numbers of rows and proofs")
	}
	for i, line := range records {
		r, err := e.readRow(line, proofs[i], named)
		if err != nil {
			return fmt.Errorf("row %d: %w", i+1, err)
		}
		if i > 0 {
			if last := e.rows[i-1]; last.worker > r.worker || last.worker == r.worker && last.sequence >= r.sequence {
				return errors.New("a row in another place")
			}
		}
		e.rows = append(e.rows, r)
	}
	return nil
}

func (e *evidence) readRow(line, proof []byte, named *keys) (*row, error) {
	sealed, err := readEnvelope(line)
	if err != nil {
		return nil, err
	}
	if len(sealed.payload) > 1<<20 {
		return nil, errors.New("too large")
	}
	r, err := readRow(sealed.payload, sealed.signature)
	if err != nil {
		return nil, err
	}
	word := nameOf(r.worker)
	key := named.workers[word]
	if key == nil {
		return nil, errors.New("no key")
	}
	if err := sealed.check(key, recordType); err != nil {
		return nil, err
	}
	checkpoint := e.files["worker."+word+".checkpoint"]
	e.workers[r.worker], e.checkpoints[r.worker] = key, checkpoint
	top, err := openHead(checkpoint, r.worker, map[string][]byte{origin + word: key, makerName: e.maker})
	if err != nil {
		return nil, err
	}
	return r, r.prove(proof, checkpoint, top)
}

func (r *row) prove(line, checkpoint []byte, top *head) error {
	wrong := errors.New("a proof in another form, or a wrong one")
	value, err := parse(line)
	text, ok := value.(string)
	body, isSame := strings.CutSuffix(text, "\n"+string(checkpoint))
	words := strings.Split(strings.TrimSuffix(body, "\n"), "\n")
	if err != nil || !ok || !isSame || !strings.HasSuffix(body, "\n") || len(words) < 2 || len(words) > 66 ||
		words[0] != "c2sp.org/tlog-proof@v1" {
		return wrong
	}
	match := indexForm.FindStringSubmatch(words[1])
	if match == nil {
		return wrong
	}
	r.index, err = strconv.ParseUint(match[1], 10, 63)
	r.proof = text
	hashes := []hash{}
	for _, word := range words[2:] {
		raw, bad := decode(word)
		if bad != nil || len(raw) != 32 {
			return wrong
		}
		hashes = append(hashes, hash(raw))
	}
	leaf := leafHash(append(append([]byte{}, r.data...), r.signature...))
	if err != nil || r.index < 1 || r.sequence != top.first+r.index-1 || !isIncluded(leaf, r.index, top.size, top.root, hashes) {
		return wrong
	}
	return nil
}

// compare makes all files again but the summary, and compares them.
func (e *evidence) compare() error {
	wanted := map[string][]byte{
		"README.txt": e.readme(), "sbom.cdx.json": e.sbom(), "maker.pem": pemOf(e.maker),
		"link.dsse.json": e.files["link.dsse.json"], "vsa.dsse.json": e.files["vsa.dsse.json"],
		"records.dsse.jsonl": e.files["records.dsse.jsonl"], "objects.intoto.jsonl": e.files["objects.intoto.jsonl"],
	}
	text := keyText(makerName, e.maker) + "\n"
	for _, worker := range sortedKeys(e.workers) {
		word, key := nameOf(worker), e.workers[worker]
		text += keyText(origin+word, key) + "\n"
		wanted["worker."+word+".checkpoint"], wanted["worker."+word+".pem"] = e.checkpoints[worker], pemOf(key)
	}
	wanted["keys.txt"] = []byte(text)
	statements := lines(e.files["objects.intoto.jsonl"])
	proofs := []byte{}
	if len(statements) != len(e.rows) || !isWhole(e.files["records.dsse.jsonl"]) || !isWhole(e.files["objects.intoto.jsonl"]) {
		return errors.New("other numbers of statements")
	}
	for i, r := range e.rows {
		proofs = append(append(proofs, canonical(r.proof)...), '\n')
		sealed, err := readEnvelope(statements[i])
		if err == nil {
			err = sealed.check(e.maker, inToto)
		}
		payload, bad := r.statement()
		if err != nil || bad != nil || !bytes.Equal(payload, sealed.payload) {
			return fmt.Errorf("statement %d does not follow from its row", i+1)
		}
	}
	wanted["rows.proofs.jsonl"] = proofs
	if len(wanted) != len(e.files) {
		return errors.New("other files")
	}
	for name, data := range wanted {
		if found, ok := e.files[name]; !ok || !bytes.Equal(found, data) {
			return errors.New(name + " does not follow")
		}
	}
	return nil
}

func lines(data []byte) [][]byte {
	if len(data) == 0 {
		return nil
	}
	return bytes.Split(bytes.TrimSuffix(data, []byte("\n")), []byte("\n"))
}

func isWhole(data []byte) bool { return len(data) == 0 || data[len(data)-1] == '\n' }

func pemOf(key []byte) []byte {
	data, _ := x509.MarshalPKIXPublicKey(ed25519.PublicKey(key))
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: data})
}

func sortedKeys[V any](table map[string]V) (found []string) {
	for key := range table {
		found = append(found, key)
	}
	sort.Strings(found)
	return found
}
