//! Route + fields → the request as it will leave.

/// A request as it will leave, secrets in it, and its redacted likeness.
#[derive(Debug)]
pub struct OutgoingRequest;
