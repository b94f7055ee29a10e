//! How times, bytes and digests are spelled in JSON.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

/// RFC 3339 to the nanosecond.
pub(super) mod time {
    use jiff::Timestamp;

    use super::*;

    pub(in crate::store::portable) fn serialize<S: Serializer>(
        at: &Timestamp,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_str(at)
    }

    pub(in crate::store::portable) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Timestamp, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(|_| D::Error::custom(format!("`{text}` is no time (RFC 3339)")))
    }
}

/// The same where there may be none.
pub(super) mod maybe_time {
    use jiff::Timestamp;

    use super::*;

    pub(in crate::store::portable) fn serialize<S: Serializer>(
        at: &Option<Timestamp>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match at {
            Some(at) => serializer.collect_str(at),
            None => serializer.serialize_none(),
        }
    }

    pub(in crate::store::portable) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Timestamp>, D::Error> {
        let Some(text) = Option::<String>::deserialize(deserializer)? else { return Ok(None) };
        let at = text.parse();
        at.map(Some).map_err(|_| D::Error::custom(format!("`{text}` is no time (RFC 3339)")))
    }
}

/// Bytes as base64.
pub(super) mod base64_bytes {
    use bytes::Bytes;

    use super::*;

    pub(in crate::store::portable) fn serialize<S: Serializer>(
        bytes: &Bytes,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(bytes))
    }

    pub(in crate::store::portable) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Bytes, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = STANDARD.decode(text);
        bytes.map(Bytes::from).map_err(|error| D::Error::custom(format!("no base64: {error}")))
    }
}

/// So many bytes as hexadecimal digits.
pub(super) mod hex {
    use super::*;

    pub(in crate::store::portable) fn serialize<S: Serializer, const N: usize>(
        bytes: &[u8; N],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&::hex::encode(bytes))
    }

    pub(in crate::store::portable) fn deserialize<'de, D: Deserializer<'de>, const N: usize>(
        deserializer: D,
    ) -> Result<[u8; N], D::Error> {
        let text = String::deserialize(deserializer)?;
        let mut bytes = [0; N];
        ::hex::decode_to_slice(&text, &mut bytes).map_err(|_| {
            D::Error::custom(format!("`{text}` is not {} hexadecimal digits", 2 * N))
        })?;
        Ok(bytes)
    }
}

/// The same as a value, for lists.
pub(super) struct Hex<const N: usize>(pub(super) [u8; N]);

impl<const N: usize> Serialize for Hex<N> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        hex::serialize(&self.0, serializer)
    }
}

impl<'de, const N: usize> Deserialize<'de> for Hex<N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        hex::deserialize(deserializer).map(Self)
    }
}
