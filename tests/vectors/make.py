"""Makes presets.json: requests of the providers, signed here from their descriptions and not from the presets.

Needs `cryptography` for public keys. Run in this folder: python3 make.py > presets.json
What providers published stands in published.json, what their own libraries signed (each `source` names which) in
libraries.json; neither is made here.
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


def add(provider, secret, headers, body=BODY, how="hmac", method="POST", url=URL, config=None):
    vectors.append({
        "provider": provider, "source": f"computed by tests/vectors/make.py with Python's {how}",
        "secret": secret, "method": method, "url": url, "body": body, "headers": headers, "at": AT,
    } | ({"config": config} if config else {}))


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
    "X-Twilio-Email-Event-Webhook-Signature": b64(p256.sign((S + LINES).encode(), ec.ECDSA(hashes.SHA256(), deterministic_signing=True)))},
    LINES, how="cryptography")

# Forms and URLs. A form is written here as its sender would, and not as a library of ours would.
from urllib.parse import quote, quote_plus

FORM = {"Content-Type": "application/x-www-form-urlencoded"}
JSON = {"Content-Type": "application/json"}


def form(pairs):
    return "&".join(f"{quote_plus(name)}={quote_plus(value)}" for name, value in pairs)


def glued(pairs):
    """Name and value, sorted, of a repeated pair only one."""
    return "".join(name + value for name, value in sorted(set(pairs)))


def sign1(text):
    return b64(mac(KEY, text, "sha1"))


SMS = [("MessageSid", "SM1"), ("To", "+15550001"), ("Body", "jön & co"), ("Body", "again"), ("Body", "again"), ("From", "")]
PORT, LONG = "https://hooks.example.com:443/r", URL + "?a=1&b=%20x"
for signed_url in (URL, PORT):
    add("twilio", TEXT_SECRET, FORM | {"X-Twilio-Signature": sign1(signed_url + glued(SMS))}, form(SMS))
    shown = f"?bodySHA256={sha(BODY)}"
    add("twilio", TEXT_SECRET, JSON | {"X-Twilio-Signature": sign1(signed_url + shown)}, url=URL + shown)
    asked = "?MessageSid=SM1&MessageStatus=sent"
    add("twilio", TEXT_SECRET, {"X-Twilio-Signature": sign1(signed_url + asked)}, "", method="GET", url=URL + asked)
add("twilio", TEXT_SECRET, FORM | {"X-Twilio-Signature": sign1(LONG + glued(SMS))}, form(SMS), url=LONG)

MAIL = [("mandrill_events", '[{"event":"send","_id":"1","ts":1700000000},{"event":"open","_id":"1","ts":1700000001}]')]
add("mandrill", TEXT_SECRET, FORM | {"X-Mandrill-Signature": sign1(URL + glued(MAIL))}, form(MAIL))
EMPTY = [("mandrill_events", "[]")]
add("mandrill", TEXT_SECRET, FORM | {"X-Mandrill-Signature": sign1(URL + glued(EMPTY))}, form(EMPTY))

# URL and what is sorted of query and form behind it, then the nonce; a `?` also before a form alone, a `.` only between both.
CALL = [("To", "15550001"), ("CallUUID", "c 1"), ("From", "15550002")]
CALL_GLUED = "CallUUIDc 1From15550002To15550001"
for method, query, pairs, text in [
    ("POST", "", CALL, f"{URL}?{CALL_GLUED}"),
    ("POST", "?b=2&a=x%20y", CALL, f"{URL}?a=x y&b=2.{CALL_GLUED}"),
    ("GET", "?b=2&a=x%20y", [], f"{URL}?a=x y&b=2"),
    ("GET", "?b=2&b=2&b=1", [], f"{URL}?b=1&b=2&b=2"),
]:
    signature = b64(mac(KEY, f"{text}.n0"))
    for several in (signature, b64(mac(b"an older token", f"{text}.n0")) + "," + signature):
        add("plivo", TEXT_SECRET, (FORM if pairs else {}) | {
            "X-Plivo-Signature-V3": several, "X-Plivo-Signature-V3-Nonce": "n0"}, form(pairs), method=method, url=URL + query)

listed = {"x-contentful-signed-headers": "x-contentful-crn,x-contentful-signed-headers,x-contentful-timestamp,x-contentful-topic",
          "x-contentful-timestamp": MS, "x-contentful-topic": "Entry.publish", "x-contentful-crn": "crn:contentful:::x"}
lines = ";".join(f"{name}:{listed[name]}" for name in sorted(listed))
add("contentful", TEXT_SECRET, listed | {"x-contentful-signature": hexa(mac(KEY, f"POST\n/r\n{lines}\n{BODY}"))})

SEVERAL_HUB = '[{"eventId":1,"subscriptionId":2,"occurredAt":1700000000000},{"eventId":2,"subscriptionId":2,"occurredAt":1700000000000}]'
for sent, signed_url in [(URL, URL), (URL + "?a=b%40c%3Ad%20e%2Ff%26", URL + "?a=b@c:d%20e/f%26")]:
    add("hubspot-v3", TEXT_SECRET, {"X-HubSpot-Request-Timestamp": MS, "X-HubSpot-Signature-v3": b64(
        mac(KEY, f"POST{signed_url}{SEVERAL_HUB}{MS}"))}, SEVERAL_HUB, url=sent)

XML = "<notification><kind>subscription_canceled</kind><timestamp type=\"datetime\">2023-11-14T22:13:20Z</timestamp></notification>"
payload = base64.encodebytes(XML.encode()).decode()
digest = hashlib.sha1(KEY).digest()
for sent, signed_text in [(payload, payload), (payload.rstrip("\n"), payload), (payload.replace("\n", ""), payload.replace("\n", ""))]:
    signature = hexa(mac(digest, signed_text, "sha1"))
    for shown in ("our_key|" + signature, "their_key|" + "00" * 20 + "&our_key|" + signature):
        add("braintree", TEXT_SECRET, FORM, form([("bt_signature", shown), ("bt_payload", sent)]), config={"public_key": "our_key"})

# An absent part is left out with its name.
PAID = '{"id":"1","action":"payment.updated","data":{"id":"AB1"}}'
for data_id, query, request_id, time in [
    ("ab1", "?data.id=AB1&type=payment", "r1", S), ("ab1", "?data.id=AB1&type=payment", "r1", MS),
    ("AB1", "?data.id=AB1&type=payment", "r1", S), ("AB1", "?data.id=AB1", "r1", MS),
    ("", "", "r1", S), ("ab1", "?data.id=ab1", "", MS),
]:
    text = (f"id:{data_id};" if data_id else "") + (f"request-id:{request_id};" if request_id else "") + f"ts:{time};"
    add("mercado-pago", TEXT_SECRET, {"x-signature": f"ts={time},v1={hexa(mac(KEY, text))}"} | (
        {"x-request-id": request_id} if request_id else {}), PAID, url=URL + query)

group = lambda key, time: f"t={time},v1={hexa(mac(key, f'{time}.{BODY}'))}"
for groups in (group(KEY, S), group(b"an older secret", AT - 1) + " " + group(KEY, S), group(KEY, S) + " " + group(b"newer", S)):
    add("persona", TEXT_SECRET, {"Persona-Signature": groups})

SENT, CANONICAL = '{ "b": 1.0, "a": [1e2, "j\\u00f6n"] }', '{"a":[100,"jön"],"b":1}'
for secret in (TEXT_SECRET, "signkey-prod-" + TEXT_SECRET):
    add("inngest", secret, {"X-Inngest-Signature": f"t={S}&s={hexa(mac(KEY, CANONICAL + S))}"}, SENT)

ALERT = [("alert_id", "7"), ("alert_name", "payment_succeeded"), ("event_time", "2023-11-14 22:13:20"), ("customer_name", "jön")]
text = "".join(f's:{len(part.encode())}:"{part}";' for pair in sorted(ALERT) for part in pair)
signature = b64(rsa.sign((f"a:{len(ALERT)}:{{" + text + "}").encode(), padding.PKCS1v15(), hashes.SHA1()))
add("paddle-classic", pem, FORM, form([("p_signature", signature)] + ALERT), how="cryptography")

CHANGE = '{"object":"whatsapp_business_account","entry":[{"id":"1","changes":[{"field":"messages","value":{"text":"j\\u00f6n"}}]}]}'
add("meta", TEXT_SECRET, {"X-Hub-Signature-256": "sha256=" + hexa(mac(KEY, CHANGE))}, CHANGE, config={"verify_token": "chosen"})

def item(reference, **other):
    made = {"pspReference": reference, "merchantAccountCode": "Shop", "merchantReference": "ö:1",
            "amount": {"value": 1000, "currency": "EUR"}, "eventCode": "AUTHORISATION", "success": "true",
            "eventDate": "2023-11-14T22:13:20+01:00"} | other
    parts = [made["pspReference"], made.get("originalReference", ""), made["merchantAccountCode"], made.get("merchantReference", ""),
             str(made["amount"]["value"]), made["amount"]["currency"], made["eventCode"], made["success"]]
    made["additionalData"] = {"hmacSignature": b64(mac(RAW, ":".join(parts))), "other": "1"}
    return {"NotificationRequestItem": made}

for items in ([item("P1")], [item("P1"), item("P2", originalReference="P0", success="false")]):
    add("adyen", RAW.hex(), {}, json.dumps({"live": "false", "notificationItems": items}))

state = lambda number: {"id": str(number), "clientState": TEXT_SECRET, "changeType": "created", "resource": "Users/1"}
for values in ([state(1)], [state(1), state(2), state(3)]):
    add("microsoft-graph", TEXT_SECRET, JSON, json.dumps({"value": values}), how="json: the secret is shown")

hooked = json.dumps({"event": {"event_time": S, "event_type": "signature_request_signed",
                               "event_hash": hexa(mac(KEY, S + "signature_request_signed"))},
                     "signature_request": {"signature_request_id": "1"}})
add("dropbox-sign", TEXT_SECRET, FORM, form([("json", hooked)]))
add("dropbox-sign", TEXT_SECRET, {"Content-Type": "multipart/form-data; boundary=b1"},
    f'--b1\r\nContent-Disposition: form-data; name="json"\r\n\r\n{hooked}\r\n--b1--\r\n')

add("quickbooks", TEXT_SECRET, {"intuit-signature": b64(mac(KEY, '[{"id":"1"}]'))}, '[{"id":"1"}]')
add("quickbooks", TEXT_SECRET, {"intuit-signature": b64(mac(KEY, '{"eventNotifications":[]}'))}, '{"eventNotifications":[]}')
add("npm", TEXT_SECRET, {"x-npm-signature": "sha256=" + hexa(mac(KEY, BODY))})
for name in ("X-Signature-Primary", "X-Signature-Secondary"):
    add("primer", TEXT_SECRET, {name: b64(mac(KEY, BODY))})
add("framer", TEXT_SECRET, {"Framer-Webhook-Submission-Id": "s1", "Framer-Signature": "sha256=" + hexa(mac(KEY, BODY + "s1"))})
add("knock", TEXT_SECRET, {"x-knock-signature": f"t={MS},s={b64(mac(KEY, f'{MS}.{BODY}'))}"})
add("sinch", TEXT_SECRET, {
    "x-sinch-webhook-signature-nonce": "n1", "x-sinch-webhook-signature-timestamp": S,
    "x-sinch-webhook-signature-algorithm": "HmacSHA256", "x-sinch-webhook-signature": b64(mac(KEY, f"{BODY}.n1.{S}"))})
signature = b64(mac(KEY, f"d1{S}{BODY}"))
for several in (signature, b64(mac(b"an older key", f"d1{S}{BODY}")) + "," + signature):
    add("configcat", TEXT_SECRET, {
        "X-ConfigCat-Webhook-ID": "d1", "X-ConfigCat-Webhook-Timestamp": S, "X-ConfigCat-Webhook-Signature-V1": several})

# Secrets that are shown.
bearer, basic = {"Authorization": "Bearer " + TEXT_SECRET}, lambda user: {
    "Authorization": "Basic " + base64.b64encode(f"{user}:{TEXT_SECRET}".encode()).decode()}
SHOWN = "own text"
for name in ("chargebee", "postmark", "mixpanel", "mailjet"):
    add(name, TEXT_SECRET, basic("jön"), how=SHOWN, config={"user": "jön"})
add("sparkpost", TEXT_SECRET, basic("user"), '[{"msys":{"message_event":{"event_id":"1","type":"open"}}}]', how=SHOWN, config={"user": "user"})
add("brevo", TEXT_SECRET, bearer, how=SHOWN)
add("brevo", TEXT_SECRET, basic("user"), how=SHOWN, config={"user": "user"})
EVENTS = '{"data":{"events":[{"uuid":"1","eventType":"user.session.start"}]}}'
for config, name in ((None, "Authorization"), ({"header": "X-Ours"}, "X-Ours")):
    add("okta", TEXT_SECRET, {name: TEXT_SECRET}, EVENTS, how=SHOWN, config=config)
    for provider in ("auth0", "datadog", "new-relic", "zapier"):
        add(provider, TEXT_SECRET, {name: TEXT_SECRET}, how=SHOWN, config=config)
add("auth0", TEXT_SECRET, bearer, how=SHOWN)
add("auth0-logs", TEXT_SECRET, bearer, '[{"log_id":"1"}]', how=SHOWN)
add("auth0-logs", TEXT_SECRET, {"Authorization": TEXT_SECRET}, '[{"log_id":"1"}]', how=SHOWN)
add("cloudevents", TEXT_SECRET, bearer | {"ce-id": "1", "ce-source": "/a", "ce-type": "made"}, how=SHOWN)
shown = quote(TEXT_SECRET)
add("cloudevents", TEXT_SECRET, {"Content-Type": "application/cloudevents+json"}, how=SHOWN, url=f"{URL}?access_token={shown}")
for provider, name, body in (("event-grid", "code", '[{"id":"1"}]'), ("mailchimp", "key", "type=subscribe"), ("docker-hub", "key", BODY)):
    add(provider, TEXT_SECRET, {}, body, how=SHOWN, url=f"{URL}?{name}={shown}")
    add(provider, TEXT_SECRET, {}, body, how=SHOWN, url=f"{URL}?a=1&ours={shown}", config={"parameter": "ours"})
for provider, name in (("deepgram", "dg-token"), ("cloudflare-notifications", "cf-webhook-auth")):
    add(provider, TEXT_SECRET, {name: TEXT_SECRET}, how=SHOWN)
for provider in ("google-drive", "google-calendar"):
    add(provider, TEXT_SECRET, {"X-Goog-Channel-Token": TEXT_SECRET, "X-Goog-Channel-ID": "c1", "X-Goog-Message-Number": "1",
                                "X-Goog-Resource-State": "sync"}, "", how=SHOWN)

add("shopify-events", TEXT_SECRET, {"Shopify-Hmac-Sha256": b64(mac(KEY, BODY)), "Shopify-Event-Id": "e1", "Shopify-Topic": "orders/paid"})

print(json.dumps(vectors, indent=2, ensure_ascii=False))
