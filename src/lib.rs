//! `router` turns webhooks into finished business actions, exactly once, and can prove it.
//!
//! Two chains of types are the whole house. Each stage has its own type, made in one place only, so no step can be
//! skipped.
//!
//! **At run time: bytes in → recorded**
//!
//! | stage | type | made by |
//! | --- | --- | --- |
//! | bytes in | [`verify::Received`] | [`ingress`] |
//! | the sender proved itself | [`verify::Verified`] | [`verify`] |
//! | the kept form | [`envelope::Envelope`] | [`envelope`] |
//! | durable, unique | [`delivery::DeliveryState`], one per route | [`store`] |
//! | a worker's hold | [`store::Claim`] | [`store`] |
//! | fields extracted | [`extract::Mapped`] | [`extract`] |
//! | request as it will leave | [`render::OutgoingRequest`] | [`render`] |
//! | its intent recorded: key, digest, generation | [`store::Intended`] | [`store`] |
//! | what came back | [`delivery::Outcome`] | [`call`] |
//! | written down; the only thing that starts the next step | [`store::Recorded`] | [`delivery`] decides, [`store`] records |
//!
//! **At load time: YAML text → checked route**
//!
//! | stage | type | made by |
//! | --- | --- | --- |
//! | text with a name | [`files::SourceText`] | [`files`] |
//! | tree in which every key and value knows its place | [`syntax::Node`] | [`syntax`] |
//! | checked and compiled | [`config::Route`], [`config::RouteSet`] | [`config`] |

pub mod cli;

pub mod admin;
pub mod engine;
pub mod ingress;

pub mod call;
pub mod extract;
pub mod render;
pub mod store;

pub mod body;
pub mod config;
pub mod delivery;
pub mod envelope;
pub mod verify;

pub mod diag;
pub mod files;
pub mod secret;
pub mod syntax;
pub mod template;

pub mod arming;
pub mod name;
pub mod simulate;
pub mod telemetry;
pub mod world;
