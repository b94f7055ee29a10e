//! From a connection to an answer: the only place that knows hyper's server.
