#!/bin/sh
# Compiles inside.c into dist/tools/inside, static: it changes its root before it executes. Run from anywhere; does nothing when nothing changed.
set -eu
cd "$(dirname "$0")"
out=../../dist/tools
mkdir -p "$out"
if [ ! -e "$out/inside" ] || [ -n "$(find inside.c build.sh -newer "$out/inside")" ]; then
  cc -std=gnu11 -O2 -Wall -Wextra -Werror -static -o "$out/inside.new" inside.c
  mv "$out/inside.new" "$out/inside"
fi
