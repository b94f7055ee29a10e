//! Ed25519, ECDSA and RSA, against keys and signatures that OpenSSL made (`tests/vectors/keys`).

use super::*;

struct Pair {
    kind: PublicKey,
    private: &'static str,
    public: &'static str,
    signature: &'static str,
}

const PAIRS: [Pair; 3] = [
    Pair {
        kind: PublicKey::Ed25519,
        private: include_str!("../../simulate/stand_in/ed25519.pem"),
        public: include_str!("../../simulate/stand_in/ed25519.pub.pem"),
        signature: include_str!("../../../tests/vectors/keys/ed25519.signature"),
    },
    Pair {
        kind: PublicKey::EcdsaP256Sha256,
        private: include_str!("../../simulate/stand_in/p256.pem"),
        public: include_str!("../../simulate/stand_in/p256.pub.pem"),
        signature: include_str!("../../../tests/vectors/keys/p256.signature"),
    },
    Pair {
        kind: PublicKey::RsaSha256,
        private: include_str!("../../simulate/stand_in/rsa.pem"),
        public: include_str!("../../simulate/stand_in/rsa.pub.pem"),
        signature: include_str!("../../../tests/vectors/keys/rsa.signature"),
    },
];

const TIME: i64 = 1_700_000_000;
const BODY: &str = r#"{"id":"e1"}"#;

fn now() -> Timestamp {
    Timestamp::from_second(TIME).unwrap()
}

fn signing(kind: PublicKey, keys: &[&str], encoding: SecretEncoding) -> Signing {
    Signing {
        algorithm: Algorithm::PublicKey(kind),
        secret_encoding: encoding,
        timestamp: Some(TimestampAt {
            selector: header("x-timestamp"),
            unit: TimeUnit::UnixSeconds,
        }),
        ..timed(plain(keys), vec![Part::Timestamp, Part::Body])
    }
}

fn base64_of(pem: &str) -> String {
    pem.lines().filter(|line| !line.starts_with('-')).collect()
}

fn verdict(signing: &Signing, keys: &[&str], signature: &str, body: &str) -> Verdict {
    let time = TIME.to_string();
    let mut received = bare(&[("x-signature", signature), ("x-timestamp", &time)], &[], body);
    received.received_at = now();
    run(signing, received, &vault(keys), now())
}

#[test]
fn signatures_of_openssl_verify_and_changed_ones_do_not() {
    for (pair, other) in PAIRS.iter().zip(PAIRS.iter().cycle().skip(1)) {
        let kind = pair.kind;
        let signature = pair.signature.trim();
        let der = base64_of(pair.public);
        for (key, encoding) in
            [(pair.public, SecretEncoding::Utf8), (der.as_str(), SecretEncoding::Base64)]
        {
            let scheme = signing(kind, &[key], encoding);
            assert_eq!(verdict(&scheme, &[key], signature, BODY), Ok(()), "{kind:?}");
            let tampered = verdict(&scheme, &[key], signature, r#"{"id":"e2"}"#);
            assert_eq!(tampered, Err(Rejection::WrongSignature), "{kind:?}");
            for at in [0, 20, signature.len() - 2] {
                let mut wrong = signature.as_bytes().to_vec();
                wrong[at] = if wrong[at] == b'0' { b'1' } else { b'0' };
                let wrong = String::from_utf8(wrong).unwrap();
                let wrong = verdict(&scheme, &[key], &wrong, BODY);
                assert_eq!(wrong, Err(Rejection::WrongSignature), "{kind:?} {at}");
            }
            let short = verdict(&scheme, &[key], "00112233445566778899", BODY);
            assert_eq!(short, Err(Rejection::WrongSignature));
            let late = now() + SignedDuration::from_secs(301);
            let time = TIME.to_string();
            let received = bare(&[("x-signature", signature), ("x-timestamp", &time)], &[], BODY);
            let stale = run(&scheme, received, &vault(&[key]), late);
            assert_eq!(stale, Err(Rejection::StaleTimestamp));
        }
        // The key of another algorithm is none.
        for key in [
            other.public,
            pair.private,
            "",
            "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----",
        ] {
            let scheme = signing(kind, &[key], SecretEncoding::Utf8);
            let unusable = verdict(&scheme, &[key], signature, BODY);
            assert_eq!(unusable, Err(Rejection::UnusableSecret), "{kind:?} {key}");
            // While keys are rotated the right one beside it counts.
            let keys = [key, pair.public];
            let scheme = signing(kind, &keys, SecretEncoding::Utf8);
            assert_eq!(verdict(&scheme, &keys, signature, BODY), Ok(()), "{kind:?}");
        }
    }
}

#[test]
fn a_bare_key_is_read_too() {
    let pair = &PAIRS[0];
    let key = "5bfc12bdc66d88a69dc7f84c71fa7698c0611369d5ae485c4f9ad9ba34425203";
    let scheme = signing(pair.kind, &[key], SecretEncoding::Hex);
    assert_eq!(verdict(&scheme, &[key], pair.signature.trim(), BODY), Ok(()));
}

/// A public key never serves as a shared secret: the algorithm is the scheme's, and nothing of the request chooses it.
#[test]
fn a_mac_made_with_the_public_key_does_not_verify() {
    for pair in &PAIRS {
        let key = pair.public;
        let message = format!("{TIME}{BODY}");
        let mac =
            crate::verify::algorithm::mac(Hash::Sha256, key.as_bytes(), &[message.as_bytes()]);
        let scheme = signing(pair.kind, &[key], SecretEncoding::Utf8);
        let forged = verdict(&scheme, &[key], &hex::encode(mac), BODY);
        assert_eq!(forged, Err(Rejection::WrongSignature));
    }
}

#[test]
fn the_private_key_signs_what_the_public_key_takes() {
    for pair in &PAIRS {
        let reference = secret("the key");
        let scheme = Signing {
            secrets: vec![reference.clone()].into(),
            ..signing(pair.kind, &[], SecretEncoding::Utf8)
        };
        let has = |text: &str| {
            let mut vault = Vault::default();
            vault.insert(reference.clone(), SecretValue::new(text));
            vault
        };
        let unsigned = Unsigned {
            method: Method::POST,
            url: "https://hooks.example/hooks/a".parse().unwrap(),
            path: Vec::new(),
            headers: HeaderMap::new(),
            body: BODY.into(),
            id: "e1".to_owned(),
            body_rule: None,
        };
        let whole = Scheme::Signing(scheme.clone());
        let proof = sign(&whole, Keys::of(&has(pair.private)), &unsigned, now(), 0).unwrap();
        let headers: Vec<(&str, &str)> =
            proof.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let received = bare(&headers, &[], BODY);
        assert_eq!(run(&scheme, received, &has(pair.public), now()), Ok(()), "{:?}", pair.kind);
        let refused = sign(&whole, Keys::of(&has(pair.public)), &unsigned, now(), 0);
        assert!(matches!(refused, Err(super::super::sign::SignError::NoPrivateKey { .. })));
    }
}
