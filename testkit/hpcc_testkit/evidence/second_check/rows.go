package main

import (
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// Rows and envelopes: docs/spec/audit.md, "Rows"; docs/spec/evidence.md, "Statement of a row".

const (
	recordType = "application/vnd.hpcc.audit-record+json"
	inToto     = "application/vnd.in-toto+json"
	site       = "https://hpcc.example"
	statement1 = "https://in-toto.io/Statement/v1"
	provenance = "https://slsa.dev/provenance/v1"
)

var (
	envelopeForm = regexp.MustCompile(`^\{"payload":"([A-Za-z0-9+/=]*)","payloadType":"([A-Za-z0-9./+-]{1,100})",` +
		`"signatures":\[\{"keyid":"([0-9a-f]{0,64})","sig":"([A-Za-z0-9+/=]{88})"\}\]\}$`)
	digestForm = regexp.MustCompile(`^[0-9a-f]{64}$`)
	// Fields of a row by kind; those of the second line may be absent.
	neededTexts = strings.Fields("row_id tenant principal build_id action_digest image_digest input_root_digest argv_digest" +
		" working_directory env_digest cache_status worker guest_id reuse isolation warden kernel_digest vmm_digest agent_digest scheduler client_version")
	otherTexts = strings.Fields("reason vmm_version jailer_digest snapshot_digest kernel_command_line vmm_jail sharing engine lease")
)

type envelope struct {
	payload, signature []byte
	kind, id           string
}

func readEnvelope(data []byte) (*envelope, error) {
	wrong := errors.New("no envelope in the one form")
	m := envelopeForm.FindSubmatch(data)
	if m == nil {
		return nil, wrong
	}
	payload, err := decode(string(m[1]))
	signature, bad := decode(string(m[4]))
	if err != nil || bad != nil || len(signature) != ed25519.SignatureSize {
		return nil, wrong
	}
	return &envelope{payload, signature, string(m[2]), string(m[3])}, nil
}

func (e *envelope) check(key []byte, kind string) error {
	message := fmt.Sprintf("DSSEv1 %d %s %d %s", len(e.kind), e.kind, len(e.payload), e.payload)
	if e.kind != kind || e.id != idOf(key) || !ed25519.Verify(key, []byte(message), e.signature) {
		return errors.New("an envelope has another type, key or signature")
	}
	return nil
}

func idOf(key []byte) string { return hexOf(key)[:32] }

type row struct {
	worker, previous string
	sequence         uint64
	body             object
	data, signature  []byte
	index            uint64
	proof            string
}

func readRow(data, signature []byte) (*row, error) {
	value, err := parse(data)
	if err != nil {
		return nil, err
	}
	table, _ := value.(object)
	found := &row{data: data, signature: signature}
	var ok [4]bool
	found.worker, ok[0] = table["worker"].(string)
	found.previous, ok[1] = table["previous"].(string)
	found.body, ok[2] = table["body"].(object)
	sequence, isNumber := table["sequence"].(number)
	found.sequence, err = strconv.ParseUint(string(sequence), 10, 63)
	ok[3] = isNumber && err == nil
	if ok != [4]bool{true, true, true, true} || table["format"] != number("1") || table["kind"] != "row" || len(table) != 6 {
		return nil, errors.New("a record is not a row")
	}
	if string(canonical(value)) != string(data) {
		return nil, errors.New("a record is not in canonical form")
	}
	return found, checkFields(found.body)
}

func checkFields(body object) error {
	count := 0
	need := func(ok bool, name string, isNeeded bool) error {
		if _, is := body[name]; is {
			count++
		} else if !isNeeded {
			return nil
		}
		if !ok {
			return errors.New("a row has another field or type: " + name)
		}
		return nil
	}
	var errs []error
	for i, names := range [][]string{neededTexts, otherTexts} {
		for _, name := range names {
			_, ok := body[name].(string)
			errs = append(errs, need(ok, name, i == 0))
		}
	}
	for name, isNeeded := range map[string]bool{"exit_code": true, "guest_execs_before": true, "argv_omitted": false} {
		text, _ := body[name].(number)
		_, err := strconv.ParseInt(string(text), 10, 64)
		errs = append(errs, need(err == nil && isInt.MatchString(string(text)), name, isNeeded))
	}
	for _, name := range []string{"started_at", "duration_seconds"} {
		text, _ := body[name].(number)
		value, err := strconv.ParseFloat(string(text), 64)
		isFloat := err == nil && !isInt.MatchString(string(text)) && value >= -(1<<63) && value < 1<<63
		errs = append(errs, need(isFloat, name, true))
	}
	for _, name := range []string{"argv", "injected_flags"} {
		_, ok := texts(body[name])
		errs = append(errs, need(ok, name, true))
	}
	pairs, ok := body["outputs"].([]any)
	for _, pair := range pairs {
		words, isTexts := texts(pair)
		ok = ok && isTexts && len(words) == 2
	}
	errs = append(errs, need(ok, "outputs", true))
	if err := errors.Join(errs...); err != nil {
		return err
	}
	if count != len(body) {
		return errors.New("a row has more fields than rows have")
	}
	return nil
}

func texts(value any) ([]string, bool) {
	items, ok := value.([]any)
	found := []string{}
	for _, item := range items {
		text, isText := item.(string)
		found, ok = append(found, text), ok && isText
	}
	return found, ok
}

func (r *row) text(name string) string { found, _ := r.body[name].(string); return found }

func (r *row) number(name string) number {
	if found, ok := r.body[name].(number); ok {
		return found
	}
	return "0"
}

func (r *row) words(name string) []string { found, _ := texts(r.body[name]); return found }

// released returns path and SHA-256 of each output that has one.
func (r *row) released() (found [][2]string) {
	for _, pair := range r.body["outputs"].([]any) {
		words, _ := texts(pair)
		if digest, _, _ := strings.Cut(words[1], "/"); digestForm.MatchString(digest) {
			found = append(found, [2]string{words[0], digest})
		}
	}
	return found
}

// named gives a thing its digest, or what stands in its place.
func named(name, digest string) object {
	found, _, _ := strings.Cut(strings.TrimPrefix(digest, "sha256:"), "/")
	if digestForm.MatchString(found) {
		return object{"name": name, "digest": object{"sha256": found}}
	}
	return object{"name": name, "annotations": object{"digest": digest}}
}

func statement(subject []object, predicate object) []byte {
	return canonical(cleaned(object{
		"_type": statement1, "subject": subject, "predicateType": provenance, "predicate": predicate,
	}))
}

func (r *row) statement() ([]byte, error) {
	subject := []object{}
	for _, pair := range r.body["outputs"].([]any) {
		words, _ := texts(pair)
		if item := named(words[0], words[1]); item["digest"] != nil {
			subject = append(subject, item)
		}
	}
	if len(subject) == 0 {
		return nil, errors.New("a row without outputs that have a digest")
	}
	parts := []object{}
	for _, name := range []string{"kernel", "agent", "vmm", "jailer", "snapshot"} {
		if digest := r.text(name + "_digest"); digest != "" {
			parts = append(parts, named(name, digest))
		}
	}
	inputs := named("inputs", r.text("input_root_digest"))
	inputs["mediaType"] = "application/vnd.hpcc.reapi-directory"
	started, _ := strconv.ParseFloat(string(r.number("started_at")), 64)
	took, _ := strconv.ParseFloat(string(r.number("duration_seconds")), 64)
	return statement(subject, object{
		"buildDefinition": object{
			"buildType": site + "/compile/v1",
			"externalParameters": object{
				"argv": r.words("argv"), "argvDigest": r.text("argv_digest"), "argvOmitted": r.number("argv_omitted"),
				"build": r.text("build_id"), "envDigest": r.text("env_digest"), "injectedFlags": r.words("injected_flags"),
				"workingDirectory": r.text("working_directory"),
			},
			"internalParameters": object{
				"action": r.text("action_digest"), "client": r.text("client_version"), "engine": r.text("engine"),
				"lease": r.text("lease"), "principal": r.text("principal"), "scheduler": r.text("scheduler"), "tenant": r.text("tenant"),
			},
			"resolvedDependencies": []object{named("image", r.text("image_digest")), inputs},
		},
		"runDetails": object{
			"builder": object{
				"id":                  site + "/worker/" + percent(clean(r.text("worker"))) + "#" + r.text("isolation"),
				"builderDependencies": parts,
			},
			"metadata":   object{"invocationId": r.text("row_id"), "startedOn": moment(started), "finishedOn": moment(started + took)},
			"byproducts": []object{r.byproduct()},
		},
	}), nil
}

func (r *row) byproduct() object {
	return object{
		"name":   "hpcc-row",
		"digest": object{"hpccAudit1": hexOf(append([]byte("hpcc-audit-1\x00"), r.data...))},
		"annotations": object{
			"execsBefore": r.number("guest_execs_before"), "exit": r.number("exit_code"), "guest": r.text("guest_id"),
			"isolation": r.text("isolation"), "kernelCommandLine": r.text("kernel_command_line"), "reason": r.text("reason"),
			"reuse": r.text("reuse"), "sequence": number(strconv.FormatUint(r.sequence, 10)), "sharing": r.text("sharing"),
			"signature": base64.StdEncoding.EncodeToString(r.signature), "status": r.text("cache_status"),
			"vmmJail": r.text("vmm_jail"), "vmmVersion": r.text("vmm_version"), "warden": r.text("warden"), "worker": r.worker,
		},
	}
}

// percent encodes all bytes but the unreserved ones of RFC 3986.
func percent(text string) string {
	var found strings.Builder
	for _, c := range []byte(text) {
		if c == '-' || c == '.' || c == '_' || c == '~' || c >= '0' && c <= '9' || c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z' {
			found.WriteByte(c)
		} else {
			fmt.Fprintf(&found, "%%%02X", c)
		}
	}
	return found.String()
}

// moment is a time in microseconds, the half to the even one, within 1970 and 9999.
func moment(seconds float64) string {
	whole, rest := math.Modf(min(max(seconds, 0), 253402000000))
	micros := int64(math.RoundToEven(rest * 1e6))
	return time.Unix(int64(whole), 0).UTC().Add(time.Duration(micros) * time.Microsecond).Format("2006-01-02T15:04:05.000000Z")
}
