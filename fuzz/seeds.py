#!/usr/bin/env python3
"""Writes the first inputs of every target to fuzz/corpus/TARGET/: what tests/vectors has, and a few of each other form."""

import base64
import hashlib
import json
import pathlib
import subprocess
import tempfile

HERE = pathlib.Path(__file__).parent
VECTORS = HERE.parent / "tests" / "vectors"


def seed(target, data):
    data = data.encode() if isinstance(data, str) else data
    folder = HERE / "corpus" / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / ("seed-" + hashlib.sha256(data).hexdigest()[:16])).write_bytes(data)


def request(name, at, headers, body, method="POST", target="/r"):
    lines = [f"{name} {at}", f"{method} {target}"] + [f"{key}: {value}" for key, value in headers.items()]
    return "\n".join(lines).encode() + b"\n\n" + (body if isinstance(body, bytes) else body.encode())


def vectors():
    for vector in json.loads((VECTORS / "presets.json").read_text()):
        target = "/" + vector["url"].split("/", 3)[3]
        seed("signature", request(vector["provider"], vector["at"], vector["headers"], vector["body"],
                                  vector.get("method", "POST"), target))
        # What providers send is an event, and often a form, of the kind that comes.
        media = {key.lower(): value for key, value in vector["headers"].items()}.get("content-type", "")
        seed("event", request("json", vector["at"], vector["headers"], vector["body"]))
        seed("form", (media or "application/x-www-form-urlencoded") + "\n" + vector["body"])


def signatures():
    at, sig = 1700000000, "ab" * 32
    for name, headers, body, method, target in [
        ("own-form", {"content-type": "application/x-www-form-urlencoded"}, f"timestamp={at}&token=t&signature={sig}", "POST", "/r"),
        ("own-form", {"content-type": "multipart/form-data; boundary=b"}, f"--b\r\ncontent-disposition: form-data; name=signature\r\n\r\n{sig}\r\n--b--", "POST", "/r"),
        ("own-query", {}, "{}", "POST", "/r?sig=" + "A" * 86 + "&at=2023-11-14T22:13:20Z"),
        ("own-json", {}, json.dumps({"id": 1, "at": at * 1000, "proof": {"signature": "A" * 27 + "="}}), "POST", "/r"),
        ("own-each", {}, json.dumps({"events": [{"id": 1, "amount": 1.50, "signature": sig}] * 2}), "POST", "/r"),
        ("own-positional", {"X-Sig": f"{at},{sig},{sig}"}, "{}", "POST", "/r"),
        ("own-groups", {"X-Sig": f"t={at},v1={sig} t={at},v1={sig}"}, "{}", "POST", "/r"),
        ("own-list", {"X-Sig": f"sha256={sig};sha1=00;sha256={sig}"}, "{}", "POST", "/r"),
        ("own-basic", {"Authorization": "Basic dXNlcjpwYXNz"}, "{}", "POST", "/r"),
        ("own-token", {"Authorization": "Bearer t", "content-type": "application/json"}, '{"auth":{"token":"t"}}', "POST", "/r?token=t"),
        ("own-require", {"X-Token": "t", "content-type": "application/json; a=b"}, '{"type":"event"}', "POST", "/r?kind=abc"),
        ("slack", {}, '{"type":"url_verification","challenge":"c"}', "POST", "/r"),
        ("zoom", {}, '{"event":"endpoint.url_validation","payload":{"plainToken":"p"}}', "POST", "/r"),
        ("x-twitter", {}, "", "GET", "/r?crc_token=abc"),
    ]:
        seed("signature", request(name, at, headers, body, method, target))


def tokens():
    header = '{"alg":"HS256","typ":"JWT"}'
    claims = json.dumps({"iss": "a", "aud": ["https://hooks.example.com/r"], "ok": True, "exp": 1700000100,
                         "nbf": 1699999999.5, "iat": 1700000000, "jti": "1"})
    encode = lambda text: base64.urlsafe_b64encode(text.encode()).rstrip(b"=").decode()
    for place in range(6):
        algorithm = {2: "HS512"}.get(place, "HS256")
        own = header.replace("HS256", algorithm)
        if place == 4:
            own = '{"alg":"HS256","b64":false,"crit":["b64"]}'
        seed("jwt", bytes([place | 8]) + own.encode() + b"\n" + claims.encode())
        seed("jwt", bytes([place]) + f"{encode(own)}.{encode(claims)}.{'A' * 43}".encode())
    named = '{"alg":"ES256","kid":"k"}'
    seed("jwt", bytes([5]) + f"{encode(named)}.{encode(claims)}.{'A' * 86}".encode())


def keys():
    rsa = {"kty": "RSA", "kid": "a", "use": "sig", "alg": "RS256", "n": "A" + "z" * 341, "e": "AQAB"}
    p256 = {"kty": "EC", "crv": "P-256", "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
            "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}
    ed = {"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}
    for some in [[rsa], [p256], [ed], [rsa, p256, ed, {"kty": "oct", "k": "AA"}, {"kty": "EC", "crv": "P-521"}]]:
        seed("jwks", json.dumps({"keys": some}))


def certificates():
    with tempfile.TemporaryDirectory() as folder:
        for kind in (["rsa:2048"], ["ec", "-pkeyopt", "ec_paramgen_curve:P-256"]):
            pem = pathlib.Path(folder) / "c.pem"
            subprocess.run(["openssl", "req", "-x509", "-nodes", "-newkey", *kind, "-keyout", f"{folder}/k.pem", "-out", pem,
                            "-days", "3650", "-subj", "/CN=keys.example", "-addext", "subjectAltName=DNS:keys.example"],
                           check=True, capture_output=True)
            text = pem.read_text()
            seed("certificate", text)
            seed("certificate", text + text)
            seed("certificate", base64.b64decode("".join(text.splitlines()[1:-1])))


def bodies():
    form = "application/x-www-form-urlencoded"
    multipart = 'multipart/form-data; boundary="b"'
    part = '--b\r\nContent-Disposition: form-data; name="payload"; filename="a.json"\r\nContent-Type: application/json\r\n\r\n{"a":1}\r\n'
    for text in [f"{form}\npayload=%7B%22a%22%3A1%7D&a=1&a=2&%ff=+", f"{form}\ndata=e30%3D",
                 f"{multipart}\n{part}--b--\r\n", f"{multipart}\n{part}{part}--b--", "multipart/form-data\n--b",
                 "application/json\n{\"data\":\"e30=\"}"]:
        seed("form", text)
    for text in ['<?xml version="1.0" encoding="UTF-8"?><n xmlns:a="u" id="1"><kind>k</kind><items><item a="1">x</item><a:item><![CDATA[y]]>&amp;&#65;</a:item></items></n>',
                 "<!DOCTYPE n [<!ENTITY e \"x\">]><n>&e;</n>", "<n><kind/></n>", "<n id='&lt;'><!-- c --><?p i?><kind> a b </kind></n>"]:
        seed("xml", text)
        seed("event", request("xml", 1, {"content-type": "application/xml"}, text))
    at = 1700000000
    for name, headers, body, target in [
        ("json", {"content-type": "application/json"}, '{"id":1,"type":"t","at":1700000000.5}', "/r"),
        ("by-type", {"X-Id": "i", "X-Type": "t", "X-At": "1700000000000"}, '{"a":1,"b":[null]}', "/r?id=1&id=2"),
        ("split", {}, '[{"id":1,"at":"2023-11-14T22:13:20+01:00"},{"id":1},{"id":1},3]', "/r"),
        ("deep", {}, '{"a":[{"b":[{"type":"x"},1]},{"b":[]}]}', "/r"),
        ("path", {}, '{"items":[{"n":2,"kind":"k"}],"x":{"id":"\\u00e4"},"at":"14.11.2023 22:13"}', "/r"),
        ("form", {"content-type": form}, "id=1&type=t&type=u", "/r"),
        ("json-in", {"content-type": form}, "kind=k&payload=%7B%22id%22%3A1%7D", "/r"),
        ("base64-in", {}, '{"message":{"messageId":"1","data":"eyJ0eXBlIjoidCJ9"}}', "/r"),
        ("jwt", {}, "eyJhbGciOiJFUzI1NiJ9.eyJqdGkiOiJjMSJ9.c2ln", "/r"),
        ("text", {}, "text", "/r"), ("binary", {}, b"\xff\x00", "/r"),
    ]:
        seed("event", request(name, at, headers, body, target=target))


for write in (vectors, signatures, tokens, keys, certificates, bodies):
    write()
