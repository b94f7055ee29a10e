//! The egress fence: which addresses the router's calls may connect to. Pure: addresses and names in, a verdict out.

use crate::config::EgressRule;

/// What `egress.allow` lists, over the built-in refusal of addresses that are not public.
#[derive(Clone, Debug, Default)]
pub struct Fence {
    pub rules: Vec<EgressRule>,
}
