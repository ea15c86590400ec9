#!/bin/sh
# Gets the keys out of this backup with age (https://age-encryption.org) and nothing else.
#
#   age -d signet-HOST-DATE.tar.gz.age | tar xz     asks for the backup's passphrase
#   sh recover.sh                                   asks for those of the keyrings
#
# Keys of Docker's directory need nothing: they lie in docker/trust/private as docker and notary
# read them, each under its own passphrase. Try them with DOCKER_CONFIG=$PWD/docker, or copy
# docker/trust/private/*.key into ~/.docker/trust/private.
#
# Native keys are decrypted into recovered/ IN CLEAR. Import them at once and delete that directory:
#
#   notary key import recovered/ID.key              asks for a new passphrase
set -eu
cd "$(dirname "$0")"
umask 077
[ -d signet/keys ] || { echo "no native keys in this backup"; exit 0; }
mkdir recovered
trap 'rm -f recovered/keyring.txt recovered/root.txt' EXIT
for ring in keyring root; do
    [ -f "signet/$ring.age" ] || continue
    echo "passphrase of $ring.age:" >&2
    age -d -o "recovered/$ring.txt" "signet/$ring.age"
done
failed=0
for file in signet/keys/*.age; do
    [ -f "$file" ] || continue
    id=$(basename "$file" .age)
    opened=no
    for ring in keyring root; do
        [ -f "recovered/$ring.txt" ] || continue
        if age -d -i "recovered/$ring.txt" -o "recovered/$id.key" "$file" 2>/dev/null; then
            opened=yes
            break
        fi
    done
    if [ "$opened" = yes ]; then
        echo "recovered/$id.key"
    else
        echo "$id does not open" >&2
        failed=1
    fi
done
exit "$failed"
