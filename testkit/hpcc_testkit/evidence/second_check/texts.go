package main

import (
	"crypto/sha256"
	_ "embed"
	"fmt"
	"strconv"
	"strings"
)

// The texts of an evidence file that follow from its rows: docs/spec/evidence.md.

//go:embed readme.txt
var readmeText string

func (e *evidence) readme() []byte {
	names := []string{}
	for _, worker := range sortedKeys(e.workers) {
		names = append(names, nameOf(worker))
	}
	workers := strings.Join(names, ", ")
	if workers == "" {
		workers = "none"
	}
	return []byte(strings.NewReplacer("DIGEST", e.making.digest, "ROWS", strconv.Itoa(len(e.rows)), "WORKERS", workers).Replace(readmeText))
}

func (e *evidence) summary(c *coverage) []byte {
	levels, verdict := []string{"FAILED"}, "FAILED"
	if c.isProved {
		verdict, levels = "PASSED", []string{"HPCC_OBJECTS_FROM_GUESTS", "SLSA_BUILD_LEVEL_UNEVALUATED"}
		if e.making.grade == "whole" {
			levels = sortedKeys(c.levels)
		}
	}
	attestations := []object{}
	for _, name := range sortedKeys(e.files) {
		if name != "vsa.dsse.json" {
			attestations = append(attestations, object{"uri": name, "digest": object{"sha256": hexOf(e.files[name])}})
		}
	}
	counts := object{"guests": numbers(c.guests), "leftOut": e.making.leftOut}
	for _, source := range []string{"guest", "served", "lto", "host", "unknown"} {
		counts[source] = c.counts[source]
	}
	return canonical(object{
		"_type":         statement1,
		"subject":       []object{{"name": e.making.name, "digest": object{"sha256": e.making.digest}}},
		"predicateType": "https://slsa.dev/verification_summary/v1",
		"predicate": object{
			"verifier": object{"id": site + "/attest"}, "timeVerified": e.at, "resourceUri": e.making.name,
			"policy":            object{"uri": site + "/policy/guest/v1", "annotations": object{"isolations": e.isolations}},
			"inputAttestations": attestations, "verificationResult": verdict, "verifiedLevels": levels,
			"dependencyLevels": numbers(c.levels), site + "/coverage": counts,
		},
	})
}

func numbers(counts map[string]int) object {
	found := object{}
	for key, value := range counts {
		found[key] = value
	}
	return found
}

func (e *evidence) sbom() []byte {
	m, components, refs := e.making, []object{}, map[string]bool{}
	add := func(ref string, item object) {
		item["bom-ref"], refs[ref] = ref, true
		components = append(components, item)
	}
	packages, images := map[string]bool{}, map[string]bool{}
	for i, p := range m.parts {
		item := object{"type": "file", "name": or(p.name, "part")}
		if p.digest != "" {
			item["hashes"] = hashes(p.digest)
		}
		add("part:"+strconv.Itoa(i), item)
		if p.pkg != "" {
			packages[p.pkg] = true
		}
	}
	for _, url := range sortedKeys(packages) {
		path, _, _ := strings.Cut(url, "?")
		name, version, _ := strings.Cut(path[strings.LastIndex(path, "/")+1:], "@")
		add(url, object{"type": "library", "name": name, "version": version, "purl": url})
	}
	for _, r := range e.rows {
		if digest := r.text("image_digest"); digestForm.MatchString(strings.TrimPrefix(digest, "sha256:")) {
			images[digest] = true
		}
	}
	for _, digest := range sortedKeys(images) {
		add("image:"+digest, object{
			"type": "container", "name": "toolchain image", "version": digest, "hashes": hashes(strings.TrimPrefix(digest, "sha256:")),
		})
	}
	serial := sha256.Sum256([]byte("hpcc-sbom-1\x00" + m.digest))
	serial[6], serial[8] = serial[6]&0x0F|0x40, serial[8]&0x3F|0x80
	id := fmt.Sprintf("%x-%x-%x-%x-%x", serial[:4], serial[4:6], serial[6:8], serial[8:10], serial[10:16])
	return append(canonical(object{
		"$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json", "bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1,
		"serialNumber": "urn:uuid:" + id,
		"metadata":     object{"component": object{"type": "file", "bom-ref": "subject", "name": or(m.name, "file"), "hashes": hashes(m.digest)}},
		"components":   components,
		"dependencies": []object{{"ref": "subject", "dependsOn": sortedKeys(refs)}},
	}), '\n')
}

func or(text, other string) string {
	if text == "" {
		return other
	}
	return text
}

func hashes(digest string) []object { return []object{{"alg": "SHA-256", "content": digest}} }
