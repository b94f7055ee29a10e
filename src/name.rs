//! The identifiers of the product, each its own type so that none can stand where another belongs.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

macro_rules! names {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {$(
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Arc<str>);

        impl $name {
            pub fn new(text: impl Into<Arc<str>>) -> Self {
                Self(text.into())
            }

            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self(text.into())
            }
        }

        impl From<String> for $name {
            fn from(text: String) -> Self {
                Self(text.into())
            }
        }
    )*};
}

names! {
    /// The provider's id of an event; unique with the source and its path parts, not by itself.
    EventId,
    /// A source: one ingress path with its verification.
    SourceName,
    /// A route: one YAML file.
    RouteName,
    /// A step of a route.
    StepName,
    /// What steps of one destination share: limits, and later circuits. The name of a destination of `router.yaml`, or
    /// `scheme://host:port` of a call with a whole URL.
    Lane,
    /// Carried from the receipt to the last call and sent downstream as a header.
    CorrelationId,
    /// SHA-256 (hex) of a route's revision text.
    RevisionHash,
}

/// The router's own id of an event: a UUID of version 7, so it sorts by the time of receipt.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Uid(pub Uuid);

impl fmt::Display for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One event carried out by one route. There is at most one per pair: replays go on with the same delivery.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct DeliveryId {
    pub uid: Uid,
    pub route: RouteName,
}

impl fmt::Display for DeliveryId {
    /// `UID:ROUTE`, as the API and the logs show it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.uid, self.route)
    }
}
