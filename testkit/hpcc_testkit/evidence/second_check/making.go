package main

import (
	"errors"
	"strconv"
	"strings"
)

// The making of a file, and what rows prove of its parts: docs/spec/evidence.md, "Makings" and "Summary".

var makings = map[string]string{"members": "archive", "whole": "object", "claimed": "link"}

type making struct {
	name, digest, grade string
	leftOut             int
	facts, times        object
	argv                []string
	parts               []part
}

var errMaking = errors.New("the making has another form")

func readMaking(payload []byte) (*making, error) {
	value, err := parse(payload)
	if err != nil {
		return nil, err
	}
	m := &making{facts: object{}, times: object{}}
	subjects, _ := at(value, "subject").([]any)
	if len(subjects) != 1 {
		return nil, errMaking
	}
	m.name, _ = at(subjects[0], "name").(string)
	m.digest, _ = at(subjects[0], "digest", "sha256").(string)
	definition := at(value, "predicate", "buildDefinition")
	m.argv, _ = texts(at(definition, "externalParameters", "argv"))
	inner, _ := at(definition, "internalParameters").(object)
	for key, item := range inner {
		text, isText := item.(string)
		switch left, isNumber := item.(number); {
		case key == "grade" && isText:
			m.grade = text
		case key == "leftOut" && isNumber:
			if m.leftOut, err = strconv.Atoi(string(left)); err != nil {
				return nil, errMaking
			}
		case isText && key != "startedOn" && key != "finishedOn":
			m.facts[key] = text
		default:
			return nil, errMaking
		}
	}
	times, _ := at(value, "predicate", "runDetails", "metadata").(object)
	for _, key := range []string{"startedOn", "finishedOn"} {
		if text, ok := times[key].(string); ok {
			m.times[key] = text
		}
	}
	items, _ := at(definition, "resolvedDependencies").([]any)
	for _, item := range items {
		p := part{}
		p.name, _ = at(item, "name").(string)
		p.digest, _ = at(item, "digest", "sha256").(string)
		p.pkg, _ = at(item, "annotations", "package").(string)
		p.note, _ = at(item, "annotations", "note").(string)
		if p.digest != "" && !digestForm.MatchString(p.digest) {
			return nil, errMaking
		}
		m.parts = append(m.parts, p)
	}
	isBounded := len(m.parts) <= 131072 && m.leftOut >= 0 && m.leftOut < 1<<40
	// Whatever was not understood above is missing here.
	if !isBounded || makings[m.grade] == "" || !digestForm.MatchString(m.digest) || string(m.statement()) != string(payload) {
		return nil, errMaking
	}
	return m, nil
}

func (m *making) statement() []byte {
	inner, parts := object{"grade": m.grade, "leftOut": m.leftOut}, []object{}
	for key, value := range m.facts {
		inner[key] = value
	}
	for _, p := range m.parts {
		item, notes := object{"name": p.name}, object{}
		if p.digest != "" {
			item["digest"] = object{"sha256": p.digest}
		}
		if p.pkg != "" {
			notes["package"] = p.pkg
		}
		if p.note != "" {
			notes["note"] = p.note
		}
		if len(notes) > 0 {
			item["annotations"] = notes
		}
		parts = append(parts, item)
	}
	return statement([]object{{"name": m.name, "digest": object{"sha256": m.digest}}}, object{
		"buildDefinition": object{
			"buildType":            site + "/" + makings[m.grade] + "/v1",
			"externalParameters":   object{"argv": m.argv},
			"internalParameters":   inner,
			"resolvedDependencies": parts,
		},
		"runDetails": object{"builder": object{"id": site + "/client"}, "metadata": m.times},
	})
}

var (
	// Isolations with a separate kernel; the other two that a policy may accept are containers.
	kernels    = map[string]bool{"firecracker/kvm": true, "hyperv": true, "qemu/kvm": true, "qemu/tcg": true}
	containers = map[string]bool{"process/runc": true, "process/windows": true}
)

// score says how much a row proves: 0 nothing, 1 that a worker had its outputs, 2 an execution in another isolation.
func (r *row) score(accepted map[string]bool) int {
	status := r.text("cache_status")
	switch {
	case r.number("exit_code") != "0":
		return 0
	case status == "hit" || status == "joined" || status == "pack":
		return 1
	case status != "executed" && status != "verify" || r.text("guest_id") == "" || r.text("worker") != r.worker:
		return 0
	case !accepted[r.text("isolation")]:
		return 2
	}
	found := 3
	if r.text("reuse") == "exec" {
		found++
	}
	if status == "executed" {
		found += 2
	}
	return found
}

func (r *row) isForLTO() bool {
	last := ""
	for _, word := range r.words("argv") {
		if word == "-emit-llvm" || word == "-emit-llvm-bc" {
			return true
		}
		if word == "-flto" || word == "-fno-lto" || strings.HasPrefix(word, "-flto=") {
			last = word
		}
	}
	return last != "" && last != "-fno-lto"
}

type coverage struct {
	counts, guests, levels map[string]int
	used                   map[*row]bool
	isProved               bool
}

func cover(m *making, rows []*row, isolations []string) *coverage {
	accepted, best := map[string]bool{}, map[string]*row{}
	for _, label := range isolations {
		accepted[label] = true
	}
	for _, r := range rows {
		score := r.score(accepted)
		if score == 0 {
			continue
		}
		for _, output := range r.released() {
			if known := best[output[1]]; known == nil || known.score(accepted) < score {
				best[output[1]] = r
			}
		}
	}
	c := &coverage{map[string]int{}, map[string]int{}, map[string]int{}, map[*row]bool{}, false}
	for _, p := range m.parts {
		source, level := "unknown", "SLSA_BUILD_LEVEL_UNEVALUATED"
		if r := best[p.digest]; r != nil {
			c.used[r] = true
			switch {
			case r.score(accepted) <= 2:
				source = "served"
			case m.grade == "claimed" && r.isForLTO():
				source = "lto"
			default:
				source, level = "guest", "SLSA_BUILD_LEVEL_2"
				if r.text("reuse") == "exec" && kernels[r.text("isolation")] {
					level = "SLSA_BUILD_LEVEL_3"
				}
				c.guests[r.text("isolation")+", reuse "+r.text("reuse")]++
			}
		} else if p.pkg != "" && p.digest != "" {
			source = "host"
		}
		c.counts[source]++
		c.levels[level]++
	}
	c.isProved = c.counts["guest"] > 0 && c.counts["guest"]+c.counts["host"] == len(m.parts) && m.leftOut == 0
	return c
}
