//! Why a sender is not believed.

/// Why a request was turned away. The log, the metric and the list of rejections say which; the sender gets 401 alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Rejection {
    MissingSignature,
    MalformedSignature,
    WrongSignature,
    MissingTimestamp,
    MalformedTimestamp,
    StaleTimestamp,
    FutureTimestamp,
    MissingToken,
    MalformedToken,
    WrongToken,
    /// No secret of the scheme has a value that its encoding can read.
    UnusableSecret,
    /// There is no secret for who the request says it is from.
    NoSecret,
    /// The token is signed by an algorithm that the scheme does not take.
    WrongAlgorithm,
    /// The key that the token names is not among the sender's.
    UnknownKey,
    /// A claim of the token is missing or says something else.
    WrongClaim,
    /// The certificate is said to be where the provider has none.
    ForeignCertificate,
    /// The certificate is not valid now, or not the provider's.
    BadCertificate,
    /// The keys could not be fetched: nothing is known of the sender.
    KeyUnavailable,
    /// No handshake brought a secret for this source and path.
    NoSecretCaptured,
    /// What the scheme requires of a request is not there.
    MissingValue,
    /// What the scheme requires of a request is not so.
    WrongValue,
}

impl Rejection {
    /// Nothing was presented at all.
    pub(super) fn is_absence(self) -> bool {
        matches!(
            self,
            Rejection::MissingSignature
                | Rejection::MissingToken
                | Rejection::MissingValue
                // A branch that is for other requests.
                | Rejection::WrongValue
        )
    }

    /// The sender proved itself, at another time.
    pub(super) fn is_of_time(self) -> bool {
        matches!(self, Rejection::StaleTimestamp | Rejection::FutureTimestamp)
    }

    /// As it stands in log lines and metric labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Rejection::MissingSignature => "missing_signature",
            Rejection::MalformedSignature => "malformed_signature",
            Rejection::WrongSignature => "wrong_signature",
            Rejection::MissingTimestamp => "missing_timestamp",
            Rejection::MalformedTimestamp => "malformed_timestamp",
            Rejection::StaleTimestamp => "stale_timestamp",
            Rejection::FutureTimestamp => "future_timestamp",
            Rejection::MissingToken => "missing_token",
            Rejection::MalformedToken => "malformed_token",
            Rejection::WrongToken => "wrong_token",
            Rejection::UnusableSecret => "unusable_secret",
            Rejection::NoSecret => "no_secret",
            Rejection::WrongAlgorithm => "wrong_algorithm",
            Rejection::UnknownKey => "unknown_key",
            Rejection::WrongClaim => "wrong_claim",
            Rejection::ForeignCertificate => "foreign_certificate",
            Rejection::BadCertificate => "bad_certificate",
            Rejection::KeyUnavailable => "key_unavailable",
            Rejection::NoSecretCaptured => "no_secret_captured",
            Rejection::MissingValue => "missing_value",
            Rejection::WrongValue => "wrong_value",
        }
    }
}
