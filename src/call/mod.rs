//! HTTP client, egress rules, destination auth: the only place that knows reqwest.
