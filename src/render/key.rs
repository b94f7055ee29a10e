//! Idempotency keys as they are sent: the author's own, or one derived from what the call is for.

use sha2::{Digest, Sha256};

use crate::config::Step;
use crate::delivery::state::IdempotencyKey;
use crate::name::{RouteName, StepName};
use crate::template::RenderError;
use crate::template::context::Context;

/// The step's explicit key; `None` where the step names none (then the key is derived).
pub fn explicit_key(step: &Step, context: &Context) -> Result<Option<IdempotencyKey>, RenderError> {
    let Some(template) = &step.idempotency_key else { return Ok(None) };
    let fail = |message: &str| RenderError {
        message: message.to_owned(),
        expression: template.text().to_owned(),
    };
    match template.render_text(context)? {
        None => Err(fail("a key cannot be left out")),
        Some(text) if text.trim().is_empty() => Err(fail("the key is empty")),
        Some(text) => Ok(Some(IdempotencyKey { text: sendable(text), explicit: true })),
    }
}

const KEY_BYTES_MAX: usize = 255;

/// A key that every destination can take: visible ASCII of at most 255 bytes, else its SHA-256.
fn sendable(text: String) -> String {
    let safe = text.bytes().all(|b| (0x21..=0x7e).contains(&b) || b == b' ')
        && text.trim().len() == text.len();
    if safe && text.len() <= KEY_BYTES_MAX { text } else { hex::encode(Sha256::digest(text)) }
}

/// The key of a step that names none. Generation n > 1 is the first key followed by `~n`.
pub fn derived_key(
    key_base: &str,
    route: &RouteName,
    step: &StepName,
    element: Option<u32>,
    generation: u32,
) -> String {
    let mut hash = Sha256::new();
    let element = element.map_or_else(String::new, |element| element.to_string());
    for part in [key_base, route.as_str(), step.as_str(), &element] {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    let first = hex::encode(hash.finalize());
    if generation > 1 { format!("{first}~{generation}") } else { first }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn derived(base: &str, route: &str, step: &str, element: Option<u32>, n: u32) -> String {
        derived_key(base, &route.into(), &step.into(), element, n)
    }

    #[test]
    fn derived_keys_tell_calls_apart_and_never_change() {
        let keys = [
            derived("base", "orders", "ship", None, 1),
            derived("base2", "orders", "ship", None, 1),
            derived("base", "orders", "mail", None, 1),
            derived("base", "order", "sship", None, 1),
            derived("base", "orders", "ship", Some(0), 1),
            derived("base", "orders", "ship", Some(1), 1),
            derived("base", "orders", "ship", None, 2),
        ];
        for (at, key) in keys.iter().enumerate() {
            assert!(!keys[..at].contains(key), "{at}");
        }
        assert_eq!(keys[6], format!("{}~2", keys[0]));
        // Keys that were sent must be sent again, over all versions of the router.
        insta::assert_snapshot!(keys[0], @"a6331cab9e7c8bc22b1ab730f5fdf6782546cd0e23fc16960f124831b480dc4e");
    }

    #[test]
    fn keys_that_a_header_cannot_carry_are_hashed() {
        let hashed = |text: &str| hex::encode(Sha256::digest(text));
        for text in ["ship-1001", "with space", "~!", &"x".repeat(255)] {
            assert_eq!(sendable(text.to_owned()), text);
        }
        for text in [&"x".repeat(256), "grün", "a\nb", " a", "a ", "a\u{7f}"] {
            assert_eq!(sendable(text.to_owned()), hashed(text), "{text:?}");
        }
    }
}
