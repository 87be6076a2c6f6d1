#!/bin/sh
# Does the collector work on a bare system of each supported Debian? Makes one in a folder and tries there, on this kernel.
#   sh tests/roots.sh [--full] [RELEASE...]           RELEASE: bookworm, trixie; default both
# Without --full: the set-up, twice, then "intcollector doctor --load": that release's compiler, this kernel's verifier.
# With --full: the two commands of the README instead, each twice.
# What debootstrap makes is kept for 30 days in the cache folder; what is done to it is not.
set -eu
cd "$(dirname "$0")/.."
. intcollector/setup.sh

check_system
find_root
# shellcheck disable=SC2086
[ -z "$as_root" ] || exec sudo --preserve-env sh "$PWD/tests/roots.sh" "$@"

full=
releases=
for argument; do
	case $argument in
	--full) full=yes ;;
	bookworm | trixie) releases="$releases $argument" ;;
	*) fail "usage: sh tests/roots.sh [--full] [bookworm] [trixie]" ;;
	esac
done
packages debootstrap debian-archive-keyring
cache=${XDG_CACHE_HOME:-$HOME/.cache}/intcollector/roots
mkdir -p "$cache"
work=$(mktemp -d "$cache/work.XXXXXX")
# Mounts are made in a namespace of their own (see inside), so they are gone before anything is removed.
trap 'rm -rf --one-file-system "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
log=$work/log

# bare RELEASE FOLDER
bare() {
	kept=$cache/$1.tar
	if [ -z "$(find "$kept" -mtime -30 2>/dev/null)" ]; then
		unshare --mount debootstrap --variant=minbase "$1" "$2" >"$log" 2>&1 || {
			tail -n 20 "$log" >&2
			fail "debootstrap could not make a bare $1"
		}
		tar -C "$2" -cf "$work/tar" .
		mv "$work/tar" "$kept"
	else
		mkdir "$2"
		tar -C "$2" -xf "$kept"
	fi
}

# furnish FOLDER: the checkout, and this machine's way to the network: name servers, proxy and certificate authorities
furnish() {
	rm -f "$1/etc/resolv.conf"
	cp -L /etc/resolv.conf "$1/etc/resolv.conf"
	[ ! -f /etc/pip.conf ] || cp /etc/pip.conf "$1/etc/pip.conf"
	authorities=${PIP_CERT:-${SSL_CERT_FILE:-${REQUESTS_CA_BUNDLE:-}}}
	[ -z "$authorities" ] || cp -L "$authorities" "$1/etc/authorities.pem"
	mkdir "$1/checkout"
	# what a clone has, and nothing of .venv and caches; git may be missing, and so may folders that are still empty
	# shellcheck disable=SC2046
	tar -cf - --exclude=__pycache__ $(ls -d setup.py pyproject.toml requirements.txt README.md CHANGELOG.md .clang-format \
		.gitignore .ci intcollector bpf benchmark tests docs 2>/dev/null) | tar -C "$1/checkout" -xf - --no-same-owner
}

# inside FOLDER: runs $command in a shell with the root's own processes and mounts; both end with it, however it ends.
inside() {
	# shellcheck disable=SC2016
	unshare --mount --pid --fork --kill-child --propagation private sh -eu -c '
		mount --bind "$1" "$1" # a mount point, as the root of a system is one
		mount --rbind /dev "$1/dev"
		mount --rbind /sys "$1/sys"
		mount -t proc proc "$1/proc"
		root=$1
		shift
		exec env -i HOME=/root PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 "$@" \
			chroot "$root" sh -eu -c "cd /checkout; $command"
	' sh "$1" ${authorities:+PIP_CERT=/etc/authorities.pem} \
		${http_proxy:+"http_proxy=$http_proxy"} ${https_proxy:+"https_proxy=$https_proxy"} ${no_proxy:+"no_proxy=$no_proxy"} \
		${PIP_INDEX_URL:+"PIP_INDEX_URL=$PIP_INDEX_URL"} ${PIP_DEFAULT_TIMEOUT:+"PIP_DEFAULT_TIMEOUT=$PIP_DEFAULT_TIMEOUT"} \
		</dev/null
}

worst=0
# in_root RELEASE FOLDER COMMAND: says how long it took
in_root() {
	export command="$3"
	echo "== $1: $3"
	begin=$(date +%s)
	code=0
	inside "$2" || code=$?
	echo "== $1: $3: exit code $code after $(($(date +%s) - begin)) s"
	[ "$code" -le "$worst" ] || worst=$code
}

for release in ${releases:-bookworm trixie}; do
	begin=$(date +%s)
	root=$work/$release
	bare "$release" "$root"
	furnish "$root"
	echo "== $release: a bare root after $(($(date +%s) - begin)) s"
	if [ -n "$full" ]; then
		for _ in 1 2; do
			in_root "$release" "$root" "sh intcollector/demo.sh --seconds 5"
			in_root "$release" "$root" "sh tests/run.sh"
		done
	else
		in_root "$release" "$root" "sh intcollector/setup.sh"
		[ "$code" != 0 ] || in_root "$release" "$root" "unshare --net sh intcollector/setup.sh" # again: without a network
		[ "$code" != 0 ] || in_root "$release" "$root" ".venv/bin/intcollector doctor --load"
	fi
	rm -rf --one-file-system "$root"
done
exit "$worst"
