//! Log fields and counters, named once.
