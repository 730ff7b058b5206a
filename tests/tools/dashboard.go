// SPDX-License-Identifier: ISC

// dashboard: checks a dashboard against the schema of Grafana, from which Grafana's own library is generated. The
// argument is its JSON file. Names each field that is unknown, missing or invalid.
package main

import (
	"fmt"
	"os"

	"github.com/grafana/grafana-foundation-sdk/go/cog/plugins"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
)

// failed prints an error. The library also returns lists without errors as errors.
func failed(err error) bool {
	if err == nil || err.Error() == "" {
		return false
	}
	fmt.Fprintln(os.Stderr, err)
	return true
}

func main() {
	// Without them, the options of panels are not checked.
	plugins.RegisterDefaultPlugins()
	var board dashboard.Dashboard
	text, err := os.ReadFile(os.Args[1])
	if failed(err) || failed(board.UnmarshalJSONStrict(text)) || failed(board.Validate()) {
		os.Exit(1)
	}
}
