//! A downstream and a provider that a test or the demo owns.
