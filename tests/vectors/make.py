"""Makes presets.json: requests of the providers, signed here from their descriptions and not from the presets.

Needs `cryptography` for public keys. Run in this folder: python3 make.py > presets.json
"""

import base64
import hashlib
import hmac
import json

AT = 1700000000
MS = str(AT * 1000)
S = str(AT)
ISO = "2023-11-14T22:13:20Z"
BODY = '{"id":"evt_1","type":"thing.made","name":"jön"}'
URL = "https://hooks.example.com/r"
TEXT_SECRET = "a secret as text"
RAW = bytes(range(1, 33))
vectors = []


def mac(key, text, hash_name="sha256"):
    return hmac.new(key, text.encode(), hash_name).digest()


def hexa(raw):
    return raw.hex()


def b64(raw):
    return base64.b64encode(raw).decode()


def b64url(raw):
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def add(provider, secret, headers, body=BODY, how="hmac"):
    vectors.append({
        "provider": provider, "source": f"computed by tests/vectors/make.py with Python's {how}",
        "secret": secret, "method": "POST", "url": URL, "body": body, "headers": headers, "at": AT,
    })


def standard(provider, secret, key, names="webhook-{}"):
    sign = lambda key: "v1," + b64(mac(key, f"msg_1.{S}.{BODY}"))
    for signature in [sign(key), "v1a,AAAA " + sign(b"an older key") + " " + sign(key).rstrip("=")]:
        add(provider, secret, {
            names.format("id"): "msg_1", names.format("timestamp"): S, names.format("signature"): signature})


WHSEC = "whsec_" + b64(RAW)
for name in ["standard-webhooks", "gitlab", "anthropic", "openai", "replicate", "liveblocks", "lithic", "increase",
             "render", "brex", "loops", "incident-io", "etsy", "gemini"]:
    standard(name, WHSEC, RAW)
for name in ["svix", "clerk", "resend", "stytch", "vanta"]:
    standard(name, WHSEC, RAW, "svix-{}")
standard("supabase", "v1," + WHSEC, RAW)
for name, secret in [("polar", "polar_whs_abc"), ("bigcommerce", TEXT_SECRET)]:
    standard(name, secret, secret.encode())
add("finch", b64(RAW), {"Finch-Event-Id": "msg_1", "Finch-Timestamp": S,
                        "Finch-Signature": "v1," + b64(mac(RAW, f"msg_1.{S}.{BODY}"))})

# provider, header, the value around the signature, its encoding, the hash, how the secret is written, the signed text
BODIES = [
    ("github", "X-Hub-Signature-256", "sha256=%s", hexa), ("bitbucket", "X-Hub-Signature", "sha256=%s", hexa),
    ("jira", "X-Hub-Signature", "sha256=%s", hexa), ("shopify", "X-Shopify-Hmac-Sha256", "%s", b64),
    ("razorpay", "X-Razorpay-Signature", "%s", hexa), ("paystack", "x-paystack-signature", "%s", hexa, "sha512"),
    ("flutterwave-v4", "flutterwave-signature", "%s", b64), ("lemon-squeezy", "X-Signature", "%s", hexa),
    ("coinbase-commerce", "X-CC-Webhook-Signature", "%s", hexa), ("nylas", "X-Nylas-Signature", "%s", hexa),
    ("intercom", "X-Hub-Signature", "sha1=%s", hexa, "sha1"), ("typeform", "Typeform-Signature", "sha256=%s", b64),
    ("sentry", "Sentry-Hook-Signature", "%s", hexa), ("vercel", "x-vercel-signature", "%s", hexa, "sha1"),
    ("heroku", "Heroku-Webhook-Hmac-SHA256", "%s", b64), ("circleci", "circleci-signature", "v1=%s,v2=00", hexa),
    ("pagerduty", "X-PagerDuty-Signature", "v1=" + "00" * 32 + ",v1=%s", hexa),
    ("launchdarkly", "X-LD-Signature", "%s", hexa),
    ("airtable", "X-Airtable-Content-MAC", "hmac-sha256=%s", hexa, "sha256", b64),
    ("woocommerce", "X-WC-Webhook-Signature", "%s", b64), ("cal-com", "X-Cal-Signature-256", "%s", hexa),
    ("mailersend", "Signature", "%s", hexa), ("mailtrap", "Mailtrap-Signature", "%s", hexa),
    ("mollie", "X-Mollie-Signature", "sha256=%s", hexa), ("modern-treasury", "X-Signature", "%s", hexa),
    ("adyen-platform", "HmacSignature", "%s", b64, "sha256", hexa), ("checkout-com", "Cko-Signature", "%s", hexa),
    ("dwolla", "X-Request-Signature-SHA-256", "%s", hexa), ("clickup", "X-Signature", "%s", hexa),
    ("attio", "X-Attio-Signature", "%s", hexa), ("checkr", "X-Checkr-Signature", "%s", hexa),
    ("doppler", "X-Doppler-Signature", "sha256=%s", hexa), ("sendbird", "x-sendbird-signature", "%s", hexa),
    ("dub", "Dub-Signature", "%s", hexa), ("pusher", "X-Pusher-Signature", "%s", hexa),
    ("chargify", "X-Chargify-Webhook-Signature-Hmac-Sha-256", "%s", hexa),
    ("ashby", "Ashby-Signature", "sha256=%s", hexa), ("cursor", "X-Webhook-Signature", "sha256=%s", hexa),
    ("aftership", "aftership-hmac-sha256", "%s", b64), ("tally", "Tally-Signature", "%s", b64),
    ("ably", "X-Ably-Signature", "%s", b64), ("bolt", "X-Bolt-Hmac-Sha256", "%s", b64),
    ("commerce-layer", "X-CommerceLayer-Signature", "%s", b64), ("fourthwall", "X-Fourthwall-Hmac-SHA256", "%s", b64),
    ("merge", "X-Merge-Webhook-Signature", "%s", b64url), ("cronofy", "Cronofy-HMAC-SHA256", b64(RAW) + ",%s", b64),
    ("segment", "X-Signature", "%s", hexa, "sha1"), ("autodesk", "x-adsk-signature", "sha1hash=%s", hexa, "sha1"),
    ("mongodb-atlas", "X-MMS-Signature", "%s", b64, "sha1"),
    ("onfleet", "X-Onfleet-Signature", "%s", hexa, "sha512", hexa),
    ("authorize-net", "X-ANET-Signature", "sha512=%s", lambda raw: raw.hex().upper(), "sha512", hexa),
    ("oracle-commerce", "X-Oracle-CC-WebHook-Signature", "%s", b64, "sha512"),
    ("squarespace", "Squarespace-Signature", "%s", hexa, "sha256", hexa),
    ("ms-teams", "Authorization", "HMAC %s", b64, "sha256", b64),
    ("linkedin", "X-LI-Signature", "%s", hexa, "sha256", None, "hmacsha256=" + BODY),
    ("deel", "x-deel-signature", "%s", hexa, "sha256", None, "POST" + BODY),
    ("square", "x-square-hmacsha256-signature", "%s", b64, "sha256", None, URL + BODY),
    ("trello", "X-Trello-Webhook", "%s", b64, "sha1", None, BODY + URL),
    ("x-twitter", "x-twitter-webhooks-signature", "sha256=%s", b64),
]
# The time stands beside the signature.
DOT, COLON = f"{S}.{BODY}", f"{S}:{BODY}"
BODIES += [
    ("stripe", "Stripe-Signature", f"t={S},v1={'00' * 32},v1=%s,v0=00", hexa, "sha256", None, DOT),
    ("paddle", "Paddle-Signature", f"ts={S};h1={'00' * 32};h1=%s", hexa, "sha256", None, COLON),
    ("workos", "WorkOS-Signature", f"t={MS}, v1=%s", hexa, "sha256", None, f"{MS}.{BODY}"),
    ("calendly", "Calendly-Webhook-Signature", f"t={S},v1=%s", hexa, "sha256", None, DOT),
    ("mux", "Mux-Signature", f"t={S},v1=%s", hexa, "sha256", None, DOT),
    ("elevenlabs", "ElevenLabs-Signature", f"t={S},v0=%s", hexa, "sha256", None, DOT),
    ("sanity", "sanity-webhook-signature", f"t={MS},v1=%s", b64url, "sha256", None, f"{MS}.{BODY}"),
    ("retell", "x-retell-signature", f"v={MS},d=%s", hexa, "sha256", None, BODY + MS),
    ("shippo", "Shippo-Auth-Signature", f"t={S},v1=%s", hexa, "sha256", None, DOT),
    ("recurly", "recurly-signature", f"{S},{'00' * 32},%s", hexa, "sha256", None, DOT),
    ("coinbase-cdp", "X-Hook0-Signature", f"t={S},v0=%s,h=a,v1=00", hexa, "sha256", None, DOT),
    ("cloudflare-stream", "Webhook-Signature", f"time={S},sig1=%s", hexa, "sha256", None, DOT),
    ("qonto", "X-Qonto-Signature", f"t={S},v1=%s", hexa, "sha256", None, DOT),
    ("buildkite", "X-Buildkite-Signature", f"timestamp={S},signature=%s", hexa, "sha256", None, DOT),
    ("tiktok", "TikTok-Signature", f"t={S},s=%s", hexa, "sha256", None, DOT),
    ("affirm", "X-Affirm-Signature", f"t={S},v0=%s", hexa, "sha512", None, DOT),
]
for provider, header, around, encode, *rest in BODIES:
    hash_name, written, text = (rest + [None] * 3)[:3]
    key = RAW if written else TEXT_SECRET.encode()
    signature = encode(mac(key, text or BODY, hash_name or "sha256"))
    add(provider, written(RAW) if written else TEXT_SECRET, {header: around.replace("%s", signature)})

# The time stands in a header of its own.
KEY = TEXT_SECRET.encode()
for provider, header, around, encode, time_header, time, text in [
    ("slack", "X-Slack-Signature", "v0=%s", hexa, "X-Slack-Request-Timestamp", S, f"v0:{S}:{BODY}"),
    ("zoom", "x-zm-signature", "v0=%s", hexa, "x-zm-request-timestamp", S, f"v0:{S}:{BODY}"),
    ("webflow", "x-webflow-signature", "%s", hexa, "x-webflow-timestamp", MS, f"{MS}:{BODY}"),
    ("zendesk", "X-Zendesk-Webhook-Signature", "%s", b64, "X-Zendesk-Webhook-Signature-Timestamp", ISO, ISO + BODY),
    ("box", "BOX-SIGNATURE-PRIMARY", "%s", b64, "BOX-DELIVERY-TIMESTAMP", ISO, BODY + ISO),
    ("box", "BOX-SIGNATURE-SECONDARY", "%s", b64, "BOX-DELIVERY-TIMESTAMP", ISO, BODY + ISO),
    ("lob", "Lob-Signature", "%s", hexa, "Lob-Signature-Timestamp", S, DOT),
    ("customer-io", "X-CIO-Signature", "%s", hexa, "X-CIO-Timestamp", S, f"v0:{S}:{BODY}"),
]:
    add(provider, TEXT_SECRET, {header: around % encode(mac(KEY, text)), time_header: time})
add("twitch", TEXT_SECRET, {
    "Twitch-Eventsub-Message-Id": "m1", "Twitch-Eventsub-Message-Timestamp": ISO,
    "Twitch-Eventsub-Message-Signature": "sha256=" + mac(KEY, "m1" + ISO + BODY).hex()})

# The time or the signature stands in the body.
body = '{"webhookTimestamp":%s,"type":"Issue"}' % MS
add("linear", TEXT_SECRET, {"Linear-Signature": mac(KEY, body).hex()}, body)
add("mailgun", TEXT_SECRET, {}, json.dumps({
    "signature": {"timestamp": S, "token": "tok", "signature": mac(KEY, S + "tok").hex()},
    "event-data": {"id": "a", "event": "opened"}}, separators=(",", ":")))

sha = lambda text: hashlib.sha256(text.encode()).hexdigest()
add("hubspot-v1", TEXT_SECRET, {"X-HubSpot-Signature": sha(TEXT_SECRET + BODY)}, how="hashlib")
add("hubspot-v2", TEXT_SECRET, {"X-HubSpot-Signature": sha(TEXT_SECRET + "POST" + URL + BODY)}, how="hashlib")
add("gitlab", TEXT_SECRET, {"X-Gitlab-Token": TEXT_SECRET}, how="own text")
add("telegram", TEXT_SECRET, {"X-Telegram-Bot-Api-Secret-Token": TEXT_SECRET}, how="own text")
add("flutterwave-v3", TEXT_SECRET, {"verif-hash": TEXT_SECRET}, how="own text")

from cryptography.hazmat.primitives import hashes, serialization as ser
from cryptography.hazmat.primitives.asymmetric import ed25519, padding

ed = ed25519.Ed25519PrivateKey.from_private_bytes(RAW)
public = ed.public_key().public_bytes(ser.Encoding.Raw, ser.PublicFormat.Raw)
add("discord", public.hex(), {"X-Signature-Timestamp": S,
                              "X-Signature-Ed25519": ed.sign((S + BODY).encode()).hex()}, how="cryptography")
add("telnyx", b64(public), {"telnyx-timestamp": S,
                            "telnyx-signature-ed25519": b64(ed.sign(f"{S}|{BODY}".encode()))}, how="cryptography")
with open("../../src/simulate/stand_in/rsa.pem", "rb") as file:
    rsa = ser.load_pem_private_key(file.read(), None)
pem = rsa.public_key().public_bytes(ser.Encoding.PEM, ser.PublicFormat.SubjectPublicKeyInfo).decode()
add("wise", pem, {"X-Signature-SHA256": b64(rsa.sign(BODY.encode(), padding.PKCS1v15(), hashes.SHA256()))},
    how="cryptography")

# DocuSign numbers a header for each active key; Box has two; the others are theirs alone.
for number in (1, 2, 3):
    add("docusign", TEXT_SECRET, {f"X-DocuSign-Signature-{number}": b64(mac(TEXT_SECRET.encode(), BODY))})
add("bitbucket-data-center", TEXT_SECRET, {"X-Hub-Signature": "sha256=" + hexa(mac(TEXT_SECRET.encode(), BODY))})
add("easypost", TEXT_SECRET, {"X-Hmac-Signature": "hmac-sha256-hex=" + hexa(mac(TEXT_SECRET.encode(), BODY))})
add("klaviyo", TEXT_SECRET, {"Klaviyo-Timestamp": S, "Klaviyo-Signature": hexa(mac(TEXT_SECRET.encode(), BODY + S))})
add("airwallex", TEXT_SECRET, {"x-timestamp": MS, "x-signature": hexa(mac(TEXT_SECRET.encode(), MS + BODY))})
add("front", TEXT_SECRET, {
    "X-Front-Request-Timestamp": MS, "X-Front-Signature": b64(mac(TEXT_SECRET.encode(), f"{MS}:{BODY}"))})
add("cloudinary", TEXT_SECRET, {
    "X-Cld-Timestamp": S, "X-Cld-Signature": hashlib.sha1((BODY + S + TEXT_SECRET).encode()).hexdigest()}, how="hashlib")
add("figma", TEXT_SECRET, {}, json.dumps({"event_type": "PING", "passcode": TEXT_SECRET}), how="json: the secret is shown")

# Several events in one POST.
SEVERAL = '{"events":[{"id":"1"},{"id":"2"}]}'
for name, header, write in [("line", "x-line-signature", b64), ("gocardless", "Webhook-Signature", hexa), ("xero", "x-xero-signature", b64)]:
    add(name, TEXT_SECRET, {header: write(mac(TEXT_SECRET.encode(), SEVERAL))}, SEVERAL)
from cryptography.hazmat.primitives.asymmetric import ec
with open("../../src/simulate/stand_in/p256.pem", "rb") as file:
    p256 = ser.load_pem_private_key(file.read(), None)
LINES = '[{"sg_event_id":"1","event":"open"}]\r\n'
spki = p256.public_key().public_bytes(ser.Encoding.DER, ser.PublicFormat.SubjectPublicKeyInfo)
add("sendgrid", b64(spki), {
    "X-Twilio-Email-Event-Webhook-Timestamp": S,
    "X-Twilio-Email-Event-Webhook-Signature": b64(p256.sign((S + LINES).encode(), ec.ECDSA(hashes.SHA256())))},
    LINES, how="cryptography")

print(json.dumps(vectors, indent=2, ensure_ascii=False))
