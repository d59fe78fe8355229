// A second check of hpcc's evidence, made from docs/spec/evidence.md and docs/spec/audit.md. A test only: it has to
// agree with `hpcc verify-evidence`.
//
//	second evidence EVIDENCE FILE PINNED    exit status 0 proved, 3 not proved, 5 refused, 1 called wrongly
//	second history FILE                     each line as `hpcc scheduler audit-history --json` prints it: 0 or 5
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
)

func parseLoose(data []byte) (value any, err error) {
	err = json.Unmarshal(data, &value)
	return value, err
}

func run(words []string) (int, error) {
	switch {
	case len(words) == 4 && words[0] == "evidence":
		data, err := os.ReadFile(words[1])
		if err != nil {
			return 1, err
		}
		file, err := readSubject(words[2])
		if err != nil {
			return 1, err
		}
		pinned, err := readPinned(words[3])
		if err != nil {
			return 1, err
		}
		found, err := verify(data, file, pinned)
		if err != nil {
			return 5, err
		}
		fmt.Println(found.counts)
		if !found.isProved {
			return 3, nil
		}
		return 0, nil
	case len(words) == 2 && words[0] == "history":
		data, err := os.ReadFile(words[1])
		if err != nil {
			return 1, err
		}
		for _, line := range bytes.Split(bytes.TrimSpace(data), []byte("\n")) {
			if err := checkHistory(line); err != nil {
				return 5, err
			}
		}
		return 0, nil
	}
	return 1, fmt.Errorf("usage: second evidence EVIDENCE FILE PINNED | history FILE")
}

func main() {
	status := 0
	// Many at once, because a start takes longer than a check: each line of stdin is a call.
	if len(os.Args) == 2 && os.Args[1] == "-" {
		decoder := json.NewDecoder(os.Stdin)
		for {
			var words []string
			if decoder.Decode(&words) != nil {
				return
			}
			status, err := run(words)
			fmt.Println("status", status, err)
		}
	}
	status, err := run(os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "second:", err)
	}
	os.Exit(status)
}
