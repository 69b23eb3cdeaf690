# Sourced by what runs in the virtual machine: expectations that are counted, and what `sluice` says of its objects.
passed=0 failed=0

# expect WHAT WANTED COMMAND…: the command's output comes to be the wanted one within a minute and a half.
expect() {
  what=$1 wanted=$2
  shift 2
  for _ in $(seq 90); do
    found=$("$@" 2>&1) || true
    [ "$found" != "$wanted" ] || break
    sleep 1
  done
  if [ "$found" = "$wanted" ]; then
    passed=$((passed + 1))
    echo "ok: $what"
  else
    failed=$((failed + 1))
    echo "NOT OK: $what: $found, not $wanted"
  fi
}
# verdict: the last line; fails when an expectation did.
verdict() {
  echo "$passed passed, $failed failed"
  [ $failed -eq 0 ]
}
# field NAME OBJECT…: the field's value in what inspect prints.
field() {
  key=$1
  shift
  sluice "$@" | sed -n "s/^ *\"$key\": \"\{0,1\}\([^\",]*\).*/\1/p" | head -n 1
}
state_of() { field phase container inspect "$1"; }
load_busybox() {
  node --input-type=module -e "process.stdout.write(await (await import('$PWD/src/lab/busybox.ts')).busyboxArchive())" |
    sluice image load >/dev/null
}
