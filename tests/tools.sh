#!/bin/bash
# SPDX-License-Identifier: ISC
# Builds the programs that the end-to-end tests use and Debian does not package, from the Go module
# proxy, and fetches the schemas that they need.
#
#   tests/tools.sh [--long]
#
# --long   also what only tests/run.sh --long uses, which takes many minutes
#
# Everything is in $TPI_TOOLS, by default ~/.cache/tpi-stream-tools; what is there already stays. Needs Go
# 1.26. Prints one line for each tool that is missing then: its tests are skipped. Exit status: 0 in either
# case, 64 wrong usage.

set -u -o pipefail
export LC_ALL=C.UTF-8 CGO_ENABLED=0 GOFLAGS=-mod=mod

here=$(cd "$(dirname "$0")" && pwd -P)
tools=${TPI_TOOLS-${HOME-/root}/.cache/tpi-stream-tools}

long=no
case ${1-} in
'') ;;
--long) long=yes ;;
--help)
	sed -n '3,/^$/s/^# \{0,1\}//p' "$0"
	exit 0
	;;
*)
	echo "tests/tools.sh: unknown option $1; see tests/tools.sh --help" >&2
	exit 64
	;;
esac

if ! go version 2>/dev/null | grep -Eq 'go1\.(2[6-9]|[3-9][0-9])'; then
	echo "tests/tools.sh: Go 1.26 or later is not installed: the tests that need helm and others are skipped"
	exit 0
fi

work=$(mktemp -d) && mkdir -p "$tools" || exit 0
trap 'chmod -R u+w "$work"; rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# tool NAME VERSION COMMAND...: runs the command, which leaves the tool in $work/out, unless this version
# is there.
tool()
{
	local name=$1 version=$2 start=$SECONDS
	shift 2
	[ "$(readlink "$tools/$name")" != ".$name-$version" ] || return 0
	mkdir -p "$work/$name" && cd "$work/$name" || exit
	out=$work/out
	rm -rf "$out"
	if "$@" >"$work/log" 2>&1 && rm -rf "$tools/.$name-$version" &&
	    mv "$out" "$tools/.$name-$version" && ln -sfn ".$name-$version" "$tools/$name"; then
		echo "$name $version: $((SECONDS - start)) s"
	else
		echo "tests/tools.sh: no $name $version: $(tail -n 1 "$work/log")"
	fi
}

# fetched MODULE@VERSION: prints the directory of a module, after fetching it.
fetched()
{
	timeout 300 go mod download -json "$1" | sed -n 's/^\t"Dir": "\(.*\)",$/\1/p' | grep .
}

# module MODULE VERSION: makes a module that requires it, and replaces and excludes what it does, except for
# directories of its repository that are modules themselves.
module()
{
	local from
	from=$(fetched "$1@$2") && install -m 644 "$from/go.mod" go.mod && sed -i '/=> \.\.\//d' go.mod &&
	    go mod edit -module=tool -require="$1@$2"
}

# build PACKAGE [LINKER-FLAG...]: builds a program of the modules that go.mod requires.
build()
{
	local package=$1
	shift
	timeout "$limit" go build -ldflags="-s $*" -o "$out" "$package"
}

# program MODULE VERSION PACKAGE [LINKER-FLAG...]: builds a program of a module.
program()
{
	module "$1" "$2" && build "$1$3" "${@:4}"
}

# Traefik's providers of certificates need modules that the proxy does not serve. No test needs them.
traefik()
{
	local lego=github.com/go-acme/lego/v4 from
	module github.com/traefik/traefik/v3 "$1" &&
	    from=$(fetched "$lego@$(awk -v m=$lego '$1 == m { print $2 }' go.mod)") &&
	    cp -R "$from" lego && chmod -R u+w lego &&
	    cat >lego/providers/dns/zz_gen_dns_providers.go <<-END &&
		package dns

		import (
			"errors"

			"$lego/challenge"
		)

		func NewDNSChallengeProviderByName(name string) (challenge.Provider, error) {
			return nil, errors.New("no DNS provider: " + name)
		}
	END
	    go mod edit -replace=$lego=./lego && build github.com/traefik/traefik/v3/cmd/traefik
}

# A program of Kubernetes, whose own modules are served under version 0 instead of 1.
kubernetes()
{
	module k8s.io/kubernetes "v1.$2" &&
	    sed -i -E "s,^(\tk8s\.io/[a-z-]+) => \./staging/.*,\1 => \1 v0.$2," go.mod &&
	    build "k8s.io/kubernetes/cmd/$1" -X "k8s.io/component-base/version.gitVersion=v1.$2"
}

# own FILE MODULE@VERSION...: builds a program of this directory.
own()
{
	cp "$here/tools/$1" . && go mod init "${1%.go}" && timeout 300 go get "${@:2}" && build .
}

# data MODULE@VERSION PATH: fetches a file or directory of a module.
data()
{
	local from
	from=$(fetched "$1") && cp -R "$from/$2" "$out" && chmod -R u+w "$out"
}

# The schemas of a release of Kubernetes, in the files that kubectl-validate expects.
schemas()
{
	local file name
	data "k8s.io/kubernetes@$1" api/openapi-spec/v3 && cd "$out" || return
	for file in api__*_openapi.json apis__*__*_openapi.json; do
		name=${file%_openapi.json}
		mkdir -p "$(dirname "${name//__/\/}")" && mv "$file" "${name//__/\/}.json" || return
	done
	rm -f ./*.json
}

# Seconds for a build.
limit=600
chartutil=helm.sh/helm/v3/pkg
tool helm v3.22.0 program helm.sh/helm/v3 v3.22.0 /cmd/helm \
    -X $chartutil/chartutil.k8sVersionMajor=1 -X $chartutil/chartutil.k8sVersionMinor=37 \
    -X $chartutil/lint/rules.k8sVersionMajor=1 -X $chartutil/lint/rules.k8sVersionMinor=37
# Compiled from much the same packages as helm.
tool manifests v0.37.0 own manifests.go k8s.io/pod-security-admission@v0.37.0 k8s.io/api@v0.37.0 \
    k8s.io/apimachinery@v0.37.0 k8s.io/client-go@v0.37.0
tool compose-spec.json v2.16.2 data github.com/compose-spec/compose-go/v2@v2.16.2 schema/compose-spec.json
[ $long = yes ] || exit 0

limit=3600
tool kubernetes-1.37 v1.37.2 schemas v1.37.2
tool kubectl-validate v0.0.4 program sigs.k8s.io/kubectl-validate v0.0.4 ''
tool grafana-dashboard v0.0.22 own dashboard.go github.com/grafana/grafana-foundation-sdk/go@v0.0.22
tool traefik v3.6.12 traefik v3.6.12
tool docker-compose v2.40.3 program github.com/docker/compose/v2 v2.40.3 /cmd
tool etcd v3.6.16 program go.etcd.io/etcd/server/v3 v3.6.16 ''
tool kubectl v1.37.2 kubernetes kubectl 37.2
tool kube-apiserver v1.37.2 kubernetes kube-apiserver 37.2
