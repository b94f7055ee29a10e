#!/bin/sh
# Makes the certificates of these tests, with openssl: an authority, one that it issued, and one that nobody issued.
set -eu
new() { openssl req -new -newkey rsa:2048 -noenc -keyout "$1.key" -out "$1.csr" -subj "/CN=$2" 2>/dev/null; }
openssl req -x509 -newkey rsa:2048 -noenc -keyout ca.key -out ca.pem -days 36500 -subj "/CN=test authority" \
    -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign 2>/dev/null
new leaf signer.example.com
printf 'subjectAltName=DNS:signer.example.com\nextendedKeyUsage=serverAuth\n' > ext
openssl x509 -req -in leaf.csr -CA ca.pem -CAkey ca.key -days 36500 -extfile ext -out leaf.pem 2>/dev/null
openssl req -x509 -newkey rsa:2048 -noenc -keyout own.key -out own.pem -days 36500 -subj "/CN=signer.example.com" \
    -addext subjectAltName=DNS:signer.example.com 2>/dev/null
openssl x509 -in leaf.pem -pubkey -noout > leaf.pub.pem
printf 'signed' > message
openssl dgst -sha256 -sign leaf.key -out leaf.sha256 message
openssl dgst -sha1 -sign leaf.key -out leaf.sha1 message
rm -f ./*.csr ext ./*.srl ca.key own.key leaf.key message
