//! The loader as its users meet it: files in, findings out, each with the text that it marks.

use std::path::Path;

use super::*;

/// Loads `files`; each finding as `CODE message | marked text`.
pub(super) fn findings(files: &[(&str, &str)]) -> (Loaded, Vec<String>) {
    let mut set = Files::new(Path::new("/config"));
    for (name, text) in files {
        set.add(*name, *text);
    }
    let loaded = load(set);
    let shown = loaded
        .diagnostics
        .iter()
        .map(|it| {
            let text = &loaded.files.get(it.span.file).text;
            let marked = text.get(it.span.range()).unwrap_or("<no such place>");
            format!("{} {} | {marked}", it.code.as_str(), it.message)
        })
        .collect();
    (loaded, shown)
}

pub(super) fn check(files: &[(&str, &str)], expected: &[&str]) -> Loaded {
    let (loaded, shown) = findings(files);
    assert_eq!(shown, expected);
    let errors = loaded.diagnostics.iter().any(|it| it.severity == Severity::Error);
    assert_eq!(loaded.set.is_none(), errors, "a set exists exactly where there is no error");
    loaded
}

const SERVER: &str = "
destinations:
  fulfilment: { url: https://fulfil.example, auth: { bearer: { env: FULFIL_TOKEN } }, idempotency: { header: Idempotency-Key } }
  mail: { url: { env: MAIL_URL }, idempotency: { header: Idempotency-Key }, timeout: 5s }
  slack: { url: { env: SLACK_URL }, idempotency: none }
";

const MAIN: &str = r#"
route: store-orders
description: A paid order becomes one shipment and one receipt.
owner: fulfilment@example.com

source:
  path: /hooks/store
  verify: { provider: shopify, secret: { env: SHOPIFY_WEBHOOK_SECRET } }
  event:
    id: { header: X-Shopify-Event-Id }
    type: { header: X-Shopify-Topic }
    occurred_at: $.created_at

on: [orders/paid]

fields:
  order_id: $.id
  email: { from: $.customer.email, type: string }
  items:
    from: $.line_items[*]
    each: { sku: { from: $.sku, required: true }, quantity: { from: $.quantity, type: integer } }

steps:
  - name: create_shipment
    call:
      to: fulfilment
      post: /v1/shipments
      json:
        reference: "{{ fields.order_id }}"
        lines: "{{ fields.items }}"
    idempotency_key: "ship-{{ fields.order_id }}"
    save: { shipment_id: $.id }

  - name: email_receipt
    when: fields.email is not none
    call:
      to: mail
      post: /send
      json:
        to: "{{ fields.email }}"
        text: |
          Thank you! Your parcel {{ steps.create_shipment.shipment_id }} is on its way.
"#;

#[test]
fn the_main_example_loads() {
    let loaded = check(&[("router.yaml", SERVER), ("routes/store-orders.yaml", MAIN)], &[]);
    let set = loaded.set.unwrap();
    let route = set.routes.values().next().unwrap();
    assert_eq!(route.steps.len(), 2);
    assert_eq!(route.steps[1].needs.iter().copied().collect::<Vec<_>>(), [0]);
    assert_eq!(route.steps[1].timeout.as_secs(), 5);
    let source = set.sources.values().next().unwrap();
    assert_eq!(source.verify.provider.as_deref(), Some("shopify"));
    assert_eq!(source.name.as_str(), "store-orders");
    assert!(route.on.matches("orders/paid"));
    assert!(!route.on.matches(""));
}
