"""Makes tokens.json: requests with tokens, certificates and captured secrets, made here from the providers' descriptions.

Needs `cryptography`. Run in this folder: python3 tokens.py > tokens.json
"""

import base64
import datetime
import hashlib
import hmac
import json
import urllib.parse
import zlib

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization as ser
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.x509.oid import NameOID

AT = 1700000000
ISO = "2023-11-14T22:13:20Z"
URL = "https://hooks.example.com/r"
BODY = '{"id":"evt_1","type":"thing.made","name":"jön"}'
SECRET = "a secret as text"
vectors = []

with open("../../src/simulate/stand_in/rsa.pem", "rb") as file:
    rsa = ser.load_pem_private_key(file.read(), None)


def b64(raw):
    return base64.b64encode(raw).decode()


def b64url(raw):
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def number(value):
    return b64url(value.to_bytes((value.bit_length() + 7) // 8, "big"))


def sha(text):
    return hashlib.sha256(text.encode())


def hs256(key, signed):
    return hmac.new(key.encode(), signed, "sha256").digest()


def rs256(signed):
    return rsa.sign(signed, padding.PKCS1v15(), hashes.SHA256())


def token(claims, sign, **header):
    part = lambda thing: b64url(json.dumps(thing).encode())
    signed = f"{part({'typ': 'JWT', **header})}.{part(claims)}"
    return f"{signed}.{b64url(sign(signed.encode()))}"


def shared(claims, key=SECRET):
    return token(claims, lambda signed: hs256(key, signed), alg="HS256")


def add(provider, headers, body=BODY, how="Python's hmac", secret=SECRET, **more):
    vectors.append({
        "provider": provider, "source": f"computed by tests/vectors/tokens.py with {how}",
        **({"secret": secret} if secret else {}), "method": "POST", "url": URL, "body": body, "headers": headers, "at": AT, **more,
    })


def jwks():
    public = rsa.public_key().public_numbers()
    return json.dumps({"keys": [
        {"kid": "old", "kty": "RSA", "n": number(public.n - 2), "e": number(public.e)},
        {"kid": "k1", "kty": "RSA", "use": "sig", "alg": "RS256", "n": number(public.n), "e": number(public.e)},
    ]})


FRESH = {"iat": AT, "nbf": AT, "exp": AT + 300}
HEX, B64 = sha(BODY).hexdigest(), b64(sha(BODY).digest())
URL_HEX = sha(URL).hexdigest()

add("netlify", {"X-Webhook-Signature": shared({"iss": "netlify", "sha256": HEX})})
add("monday", {"Authorization": shared({"aud": URL, "exp": AT + 300})})
add("vonage", {"Authorization": "Bearer " + shared({"iss": "Vonage", "iat": AT, "payload_hash": HEX})})
add("messagebird", {"MessageBird-Signature-JWT": shared(
    {"iss": "MessageBird", "url_hash": URL_HEX, "payload_hash": HEX, "jti": "j", **FRESH})})
add("livekit", {"Authorization": shared({"iss": "key_1", "sha256": B64, **FRESH})}, config={"api_key": "key_1"})
for end in ["", "="]:
    claim = b64url(sha(BODY).digest()) + end
    add("qstash", {"Upstash-Signature": shared({"iss": "Upstash", "sub": URL, "body": claim, **FRESH}),
                   "Upstash-Message-Id": "msg_1"})
add("fusionauth", {"X-FusionAuth-Signature-JWT": shared({"request_body_sha256": B64, **FRESH})})

# Atlassian's own description of the canonical request.
target = URL + "?b=2&a=x%20y&a=1&jwt=dropped"
query = {}
for name, value in urllib.parse.parse_qsl(urllib.parse.urlsplit(target).query):
    if name != "jwt":
        query.setdefault(urllib.parse.quote(name, safe="-._~"), []).append(urllib.parse.quote(value, safe="-._~"))
canonical = "&".join(f"{name}={','.join(sorted(query[name]))}" for name in sorted(query))
for url, text in [(URL, "POST&/r&"), (target, "POST&/r&" + canonical)]:
    add("jira-connect", {"Authorization": "JWT " + shared({"iss": "client", "qsh": sha(text).hexdigest(), **FRESH})})
    vectors[-1]["url"] = url

# Signed by a key of a set; the body is the token, or beside it.
PUSH = json.dumps({"message": {"data": b64(b'{"a":1}'), "messageId": "1", "publishTime": ISO}, "subscription": "s"})
google = {"iss": "https://accounts.google.com", "aud": URL, "email": "pusher@example.iam.gserviceaccount.com",
          "email_verified": True, **FRESH}
settings = {"service_account": "pusher@example.iam.gserviceaccount.com"}
for header in [{"kid": "k1"}, {}]:
    for claims in [google, {**google, "iss": "accounts.google.com"}]:
        add("google-pubsub", {"Authorization": "Bearer " + token(claims, rs256, alg="RS256", **header)}, PUSH,
            "cryptography", None, config=settings, jwks=jwks())
other = {**google, "aud": "my audience"}
add("google-pubsub", {"Authorization": "Bearer " + token(other, rs256, alg="RS256", kid="k1")}, PUSH, "cryptography", None,
    config={**settings, "audience": "my audience"}, jwks=jwks())
add("kinde", {}, token({"event_id": "e1", "type": "user.created", "timestamp": ISO}, rs256, alg="RS256", kid="k1"),
    "cryptography", None, config={"domain": "example.kinde.com"}, jwks=jwks())
pem = rsa.public_key().public_bytes(ser.Encoding.PEM, ser.PublicFormat.SubjectPublicKeyInfo).decode()
add("wix", {}, token({"data": '{"eventType":"x"}', **FRESH}, rs256, alg="RS256"), "cryptography", pem)

# A certificate at a URL of the provider.
name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "sns.example.com")])
day = lambda year: datetime.datetime(year, 1, 1, tzinfo=datetime.timezone.utc)
certificate = (
    x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(rsa.public_key()).serial_number(1)
    .not_valid_before(day(2020)).not_valid_after(day(2090)).sign(rsa, hashes.SHA256())
).public_bytes(ser.Encoding.PEM).decode()

TOPIC = "arn:aws:sns:eu-west-1:1:orders"


def sns(version, members):
    message = {"TopicArn": TOPIC, "MessageId": "m1", "Timestamp": ISO, "Message": "it\nhappened", **members}
    kind = message["Type"]
    names = ["Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type"]
    if kind != "Notification":
        names = ["Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"]
    text = "".join(f"{name}\n{message[name]}\n" for name in names if name in message)
    hash = hashes.SHA1() if version == "1" else hashes.SHA256()
    message["Signature"] = b64(rsa.sign(text.encode(), padding.PKCS1v15(), hash))
    message["SignatureVersion"] = version
    message["SigningCertURL"] = "https://sns.eu-west-1.amazonaws.com/SimpleNotificationService-1.pem"
    add("aws-sns", {"Content-Type": "text/plain; charset=UTF-8"}, json.dumps(message), "cryptography", None,
        config={"topic_arn": TOPIC}, certificate=certificate)


for version in ["1", "2"]:
    sns(version, {"Type": "Notification"})
    sns(version, {"Type": "Notification", "Subject": "an order"})
    for kind in ["SubscriptionConfirmation", "UnsubscribeConfirmation"]:
        sns(version, {"Type": kind, "Token": "t", "SubscribeURL": "https://sns.eu-west-1.amazonaws.com/?a=b"})

text = f"t1|{ISO}|WH-1|{zlib.crc32(BODY.encode())}"
add("paypal", {
    "PAYPAL-TRANSMISSION-ID": "t1", "PAYPAL-TRANSMISSION-TIME": ISO, "PAYPAL-AUTH-ALGO": "SHA256withRSA",
    "PAYPAL-TRANSMISSION-SIG": b64(rs256(text.encode())),
    "PAYPAL-CERT-URL": "https://api.paypal.com/v1/notifications/certs/CERT-360caa42-fca2a594-1d93a270",
}, BODY, "cryptography and zlib", None, config={"webhook_id": "WH-1"}, certificate=certificate)

# The secret came in a handshake.
events = '{"events":[{"action":"changed","resource":{"gid":"1","resource_type":"task"}}]}'
add("asana", {"X-Hook-Signature": hs256("came by handshake", events.encode()).hex()}, events, secret=None,
    captured=["a later one", "came by handshake"])
add("notion", {"X-Notion-Signature": "sha256=" + hs256("secret_tok", BODY.encode()).hex()}, secret=None,
    captured=["secret_tok"])

print(json.dumps(vectors, indent=2, ensure_ascii=False))
