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

func main() {
	// Without them, the options of panels are not checked.
	plugins.RegisterDefaultPlugins()
	text, err := os.ReadFile(os.Args[1])
	if err == nil {
		var board dashboard.Dashboard
		if err = board.UnmarshalJSONStrict(text); err == nil {
			err = board.Validate()
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
