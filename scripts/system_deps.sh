#!/bin/sh
# Install the servers that the tests use, where we may; whoever may not uses what PyPI ships.
set -eu

[ "$(id -u)" -eq 0 ] || exit 0
command -v apt-get >/dev/null || exit 0

command -v initdb >/dev/null && exit 0
ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 && exit 0
exec sh "$(dirname "$0")/apt_install.sh" postgresql
