#!/bin/bash
# Makes the history that tests/tests/history.rs replays, with the real notary against a real
# notary-server and notary-signer (Debian: notary, openssl, curl). See README.md.
#
#   tests/data/history/record.sh      writes history.tar.gz beside itself
set -euo pipefail
umask 077

here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
cd "$work"
GUN=registry.example.com/acme/app
SERVER=24443
SIGNER=27899

# ---- a certificate authority, and the two peers
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=ca \
    -addext basicConstraints=critical,CA:TRUE -keyout ca.key -out ca.crt 2>/dev/null
for name in server signer client; do
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=$name \
        -keyout $name.key -out $name.csr 2>/dev/null
    printf 'subjectAltName=DNS:localhost,IP:127.0.0.1\nextendedKeyUsage=serverAuth,clientAuth\n' >ext
    openssl x509 -req -in $name.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile ext \
        -out $name.crt 2>/dev/null
done
cat >signer.json <<JSON
{"server":{"grpc_addr":"127.0.0.1:$SIGNER","tls_cert_file":"$work/signer.crt",
 "tls_key_file":"$work/signer.key","client_ca_file":"$work/ca.crt"},"storage":{"backend":"memory"}}
JSON
cat >server.json <<JSON
{"server":{"http_addr":"127.0.0.1:$SERVER","tls_cert_file":"$work/server.crt",
 "tls_key_file":"$work/server.key"},
 "trust_service":{"type":"remote","hostname":"127.0.0.1","port":"$SIGNER","key_algorithm":"ecdsa",
 "tls_ca_file":"$work/ca.crt","tls_client_cert":"$work/client.crt","tls_client_key":"$work/client.key"},
 "storage":{"backend":"memory"}}
JSON
cat >client.json <<JSON
{"trust_dir":"$work/trust","remote_server":{"url":"https://127.0.0.1:$SERVER","root_ca":"$work/ca.crt"}}
JSON
pids=
trap 'kill $pids 2>/dev/null; rm -rf "$work"' EXIT
notary-signer -config signer.json >signer.log 2>&1 & pids="$!"
until (exec 3<>/dev/tcp/127.0.0.1/$SIGNER) 2>/dev/null; do kill -0 $!; sleep 0.1; done
notary-server -config server.json >server.log 2>&1 & pids="$pids $!"
until (exec 3<>/dev/tcp/127.0.0.1/$SERVER) 2>/dev/null; do kill -0 $!; sleep 0.1; done

# ---- the client, with passphrases that are no secret
export NOTARY_ROOT_PASSPHRASE='history root passphrase' NOTARY_AUTH=bGFiOmxhYg==
export NOTARY_TARGETS_PASSPHRASE='history repository passphrase'
export NOTARY_SNAPSHOT_PASSPHRASE=$NOTARY_TARGETS_PASSPHRASE
export NOTARY_DELEGATION_PASSPHRASE=$NOTARY_TARGETS_PASSPHRASE
# A root rotation wants a yes.
n() { notary -c client.json "$@" >>notary.log 2>&1 <<<yes || { tail -5 notary.log; echo "failed: $*"; exit 1; }; }
url=https://127.0.0.1:$SERVER/v2/$GUN/_trust/tuf
got() { curl -sfS --cacert ca.crt "$url/$1.json"; }

# What the server has now, as far as it is new: steps/NNN/ROLE.json, and in steps/NNN/what the words.
step=0
mkdir -p steps keep/targets out/keys
record() {
    step=$((step + 1))
    local dir role file
    dir=steps/$(printf %03d $step)
    mkdir -p "$dir/targets"
    echo "$*" >"$dir/what"
    got timestamp >now.timestamp
    for role in root snapshot targets $(got snapshot | python3 -c '
import json, sys
print(*(r for r in json.load(sys.stdin)["signed"]["meta"] if r.startswith("targets/")))'); do
        file=$role.json
        got "$role" >new
        cmp -s new "keep/$file" || cp new "$dir/$file"
        cp new "keep/$file"
    done
    cp now.timestamp "$dir/timestamp.json"
    rmdir "$dir/targets" 2>/dev/null || true
    # A rotation removes the key that it replaces.
    cp trust/private/*.key out/keys/
}
hash() { printf '%s' "$1" | sha256sum | cut -d' ' -f1; }
put() { n addhash $GUN "$1" "${3:-528}" --sha256 "$(hash "$2")" "${@:4}"; }   # TAG CONTENT SIZE …
publish() { n publish $GUN; record "$@"; }
signer() {   # NAME: a key for a delegation, of which notary has both halves
    openssl ecparam -name prime256v1 -genkey -noout -out "$1-key.pem"
    openssl ec -in "$1-key.pem" -pubout -out "$1.pem" 2>/dev/null
    n key import "$work/$1-key.pem" --role "targets/$1"
}
id() {   # NAME: the ID of that key
    openssl pkey -pubin -in "$1.pem" -outform DER | python3 -c '
import base64, hashlib, sys
public = base64.b64encode(sys.stdin.buffer.read()).decode()
text = "{\"keytype\":\"ecdsa\",\"keyval\":{\"private\":null,\"public\":\"" + public + "\"}}"
print(hashlib.sha256(text.encode()).hexdigest())'
}

# ---- the history
n init $GUN;                                         publish init
put v0.1 0.1;                                        publish first tag
put v0.2 0.2; put latest 0.2;                        publish a release and latest
for minor in 3 4 5 6; do
    put v0.$minor 0.$minor; put latest 0.$minor;     publish "v0.$minor"
done
put v0.6 0.6-again 739;                              publish v0.6 made again
n remove $GUN v0.1;                                  publish v0.1 goes
for tag in 1 2 3; do put rc$tag rc$tag; done;        publish three candidates
for tag in 4 5 6 7; do put rc$tag rc$tag; done;      publish four candidates
for tag in $(seq 7); do n remove $GUN rc$tag; done;  publish all candidates go
put v1.0 1.0; put latest 1.0; n remove $GUN v0.2;    publish v1.0: one comes, one changes, one goes
n key rotate $GUN snapshot;                          record a new snapshot key
put v1.1 1.1;                                        publish v1.1
n key rotate $GUN targets;                           record a new targets key
put v1.2 1.2; put latest 1.2;                        publish v1.2, by the new key
signer alice
n delegation add $GUN targets/releases alice.pem --all-paths;   publish releases
n delegation add $GUN targets/alice alice.pem --all-paths;      publish alice
put v1.3 1.3 528 -r targets/releases -r targets/alice;          publish v1.3 by alice, in both
put v1.4 1.4 528 -r targets/releases -r targets/alice;          publish v1.4 by alice, in both
put v1.4 1.4-fixed 528 -r targets/releases;          publish v1.4 fixed in releases only
for tag in a b c d e f; do put "nightly-$tag" "$tag" 1024 -r targets/releases; done
                                                     publish six nightly builds in releases
n remove $GUN v1.3 -r targets/alice;                 publish alice takes v1.3 back
signer bob
n delegation add $GUN targets/releases bob.pem;      publish bob may release, too
n delegation add $GUN targets/bob bob.pem --paths v,rc; publish bob for v and rc
put v1.5 1.5 528 -r targets/bob;                     publish v1.5 by bob
put v1.6 1.6 528 -r targets/releases -r targets/bob; publish v1.6 by bob, in both
n delegation add $GUN targets/bob --paths nightly;   publish bob for nightly builds, too
n delegation remove $GUN targets/bob --paths rc;     publish not for candidates any more
n key rotate $GUN root;                              record a new root key
put v2.0 2.0;                                        publish v2.0
put v2.1 2.1 528 -r targets/releases;                publish v2.1 in releases
n delegation remove $GUN targets/releases "$(id alice)"; publish alice releases no more
n delegation remove $GUN targets/alice --yes;        publish alice goes
for patch in 1 2 3 4; do
    put v2.1.$patch 2.1.$patch 528 -r targets/releases; publish "v2.1.$patch in releases"
done
n key rotate $GUN timestamp -r;                      record a new timestamp key
put v2.2 2.2; put latest 2.2;                        publish v2.2
n key rotate $GUN snapshot -r;                       record the server keeps the snapshot from here on
put v2.3 2.3;                                        publish v2.3
put v2.4 2.4 528 -r targets/releases;                publish v2.4 in releases
for tag in $(seq 12); do put "lts-$tag" "lts $tag"; done; publish twelve at once
for tag in 1 2 3 4; do put "lts-$tag" "lts $tag again"; done
for tag in 9 10 11 12; do n remove $GUN "lts-$tag"; done
put lts-13 13;                                       publish four change, four go, one comes
n key rotate $GUN root;                              record a third root key
put v3.0 3.0; put latest 3.0;                        publish v3.0
n key rotate $GUN targets;                           record a third targets key
put v3.1 3.1;                                        publish v3.1
n delegation purge $GUN --key "$(id bob)";           publish bob is purged everywhere
put v3.2 3.2; n remove $GUN v0.3;                    publish v3.2
put 'v3.3-<&>' 3.3;                                  publish a name that Go escapes

# ---- kept: documents, the private keys as notary keeps them
mv steps out/steps
tar -C out --sort=name --owner=0 --group=0 --numeric-owner --mtime=@0 -cf - . | gzip -9n >"$here/history.tar.gz"
echo "$step steps, $(ls out/keys | wc -l) keys, $(stat -c %s "$here/history.tar.gz") bytes"
