#!/bin/sh
# Compiles the load generators into dist/load/; does nothing when they are newer than their sources.
set -eu
cd "$(dirname "$0")"
out=../../dist/load
mkdir -p "$out"

# build NAME SOURCE…: compiled beside and moved into place, so that one that runs is never half written.
build() {
  name=$1
  shift
  [ -x "$out/$name" ] && [ -z "$(find . -name '*.[ch]' -newer "$out/$name")" ] && [ "$out/$name" -nt build.sh ] && return
  gcc -std=gnu11 -O2 -g -Wall -Wextra -Werror -pthread -o "$out/.$name.$$" "$@"
  mv -f "$out/.$name.$$" "$out/$name"
}

build connector connector.c hold.c udp.c load.c
build server server.c load.c
build hooks hooks.c load.c
