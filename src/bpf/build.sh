#!/bin/sh
# Compiles src/bpf/*.bpf.c to OUT (default dist/bpf) as NAME.o; does nothing where the objects are newer than every source.
#   src/bpf/build.sh [OUT]
set -eu
here=$(cd "$(dirname "$0")" && pwd)
out=${1:-$here/../../dist/bpf}
mkdir -p "$out"
for source in "$here"/*.bpf.c; do
  object=$out/$(basename "$source" .bpf.c).o
  if [ -f "$object" ] && [ -z "$(find "$here" \( -name '*.h' -o -name "$(basename "$source")" -o -name build.sh \) -newer "$object")" ]; then
    continue
  fi
  # A name of its own, then a rename: two builds at once never see half an object.
  clang -O2 -g -target bpf -mcpu=v3 -Wall -Werror -I"/usr/include/$(uname -m)-linux-gnu" -c "$source" -o "$object.$$"
  mv "$object.$$" "$object"
done
