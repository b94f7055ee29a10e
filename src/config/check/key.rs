//! Explicit idempotency keys: what makes two events one action must not make strangers one.

use super::context::Checker;
use super::templates::Scope;
use crate::diag::Diagnostic;
use crate::diag::code::Code;
use crate::extract::{Extraction, From};
use crate::syntax::Node;
use crate::template::Template;

/// What a key may have to name.
pub(super) struct KeyContext<'a> {
    pub(super) path_parts: &'a [String],
    pub(super) fields: &'a [(String, Extraction)],
}

impl Checker {
    pub(super) fn idempotency_key(
        &mut self,
        node: &Node,
        scope: &Scope,
        context: &KeyContext<'_>,
    ) -> Option<Template> {
        let key = self.template(node, scope)?;
        let reads = key.reads();
        if reads.roots.is_empty() {
            self.push(
                Diagnostic::new(
                    Code::ConstantKey,
                    node.span,
                    "this key is the same for every event",
                )
                .label("the step would run once, ever")
                .help("name what is done, such as `ship-{{ fields.order_id }}`, or leave it out"),
            );
            return None;
        }
        let names_part = reads.roots.contains("path")
            || reads.fields.iter().any(|read| {
                context.fields.iter().any(|(name, extraction)| {
                    name == read && matches!(extraction.from, From::PathPart(_))
                })
            });
        if let [first, ..] = context.path_parts
            && !names_part
        {
            self.push(
                Diagnostic::new(
                    Code::SharedKey,
                    node.span,
                    format!("the source's path has `{{{first}}}`, and this key does not name it"),
                )
                .label("two tenants with the same number would share one action")
                .help(format!("add `{{{{ path.{first} }}}}`")),
            );
        }
        Some(key)
    }
}
