//! `router send --handshake`: asks what the provider asks before it sends events, and looks whether the answer is the one
//! that it waits for.

use std::process::ExitCode;

use anyhow::{bail, ensure};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, Method};
use serde_json::Value as Json;

use super::super::{err, out, sample};
use super::{Args, Sender, key_text, provider, sender, shown, status_line};
use crate::config::{RouteSet, Source};
use crate::secret::Vault;
use crate::simulate::provider::Signed;
use crate::verify::challenge::{AskError, Asker, Challenge};
use crate::verify::handshake::{Answer, Handshake};
use crate::verify::sign::SignError;
use crate::verify::text::Selector;
use crate::world::World;
use crate::world::transport::WireResponse;

/// Makes all handshakes of the source, or that of `number`.
pub(super) async fn run(
    args: &Args,
    number: Option<usize>,
    set: &RouteSet,
    source: &Source,
    vault: Vault,
    world: &World,
) -> anyhow::Result<ExitCode> {
    let handshakes = &source.handshakes;
    ensure!(
        !handshakes.is_empty(),
        "the source `{}` answers no handshake: neither it nor its preset has a `handshake`, so there is nothing to ask",
        source.name
    );
    if let Some(number) = number {
        ensure!(
            number < handshakes.len(),
            "the source `{}` has no handshake {number}: {}",
            source.name,
            match handshakes.len() {
                1 => "it has one, number 0".to_owned(),
                count => format!("it has {count}, numbered from 0"),
            }
        );
    }
    let chosen: Vec<(usize, &Handshake)> = handshakes
        .iter()
        .enumerate()
        .filter(|(index, _)| number.is_none_or(|number| number == *index))
        .filter(|(_, handshake)| handshake.verify || !args.bad_signature)
        .collect();
    ensure!(
        !chosen.is_empty(),
        "this handshake is answered without a proof of the sender (`verify: false`), so none can be wrong: leave --bad-signature out"
    );

    let brings = brought(args, world)?;
    let is_signed = chosen.iter().any(|(_, handshake)| handshake.verify) && !args.bad_signature;
    let key = args.key.as_deref().filter(|_| takes_key(source));
    let sender = sender(vault, &source.verify.scheme, key, !is_signed)?;
    let mut as_meant = true;
    for (index, handshake) in chosen {
        let one = One { args, set, source, sender: &sender, world, brings: &brings };
        as_meant &= one.make(index, handshake).await?;
    }
    Ok(ExitCode::from(u8::from(!as_meant)))
}

fn takes_key(source: &Source) -> bool {
    let scheme = &source.verify.scheme;
    !scheme.public_keys().is_empty() || scheme.fetched_key().is_some() || scheme.uses_captured()
}

/// The secret for `capture_secret`: the router will trust it, so it must be one that nobody guesses.
fn brought(args: &Args, world: &World) -> anyhow::Result<String> {
    match &args.key {
        Some(path) => Ok(key_text(path)?.trim().to_owned()),
        None => {
            let mut bytes = [0; 16];
            world.random.fill(&mut bytes);
            Ok(hex::encode(bytes))
        }
    }
}

struct One<'a> {
    args: &'a Args,
    set: &'a RouteSet,
    source: &'a Source,
    sender: &'a Sender,
    world: &'a World,
    brings: &'a str,
}

impl One<'_> {
    async fn make(&self, index: usize, handshake: &Handshake) -> anyhow::Result<bool> {
        let Self { args, source, world, .. } = *self;
        let sample = sample::of_handshake(&args.sample, source, handshake, world)?;
        let provider = provider(args, self.set, source, &sample, self.sender, world)?;
        let mut made_up = [0; 12];
        world.random.fill(&mut made_up);
        let asker = Asker {
            scheme: &source.verify.scheme,
            handshakes: &source.handshakes,
            keys: provider.keys,
            now: world.clock.now(),
            which: args.secret,
            wrongly: args.bad_signature,
            made_up: &hex::encode(made_up),
            brings: self.brings,
        };
        let unsigned = provider.unsigned(&sample.notification);
        let challenge = match asker.challenge(handshake, &unsigned) {
            Ok(challenge) => challenge,
            Err(error) => bail!("handshake {index}: {error}{}", way_out(&error)),
        };
        if challenge.answered_by != Some(index) {
            match challenge.answered_by {
                Some(other) => bail!(
                    "handshake {index}: what it wants is what handshake {other} wants, too, which stands before it and answers; make `when` of one of them say more"
                ),
                None => bail!("handshake {index}: no request that is made here fits its `when`"),
            }
        }
        let signed = provider.placed(&sample.notification, challenge.proof.clone())?;
        self.announce(index, handshake, &challenge, &signed);
        let start = world.clock.monotonic();
        let answer = signed.send().await?;
        let took_ms = world.clock.monotonic().saturating_sub(start).as_millis();
        self.print(handshake, &answer, took_ms);
        Ok(match self.fault(handshake, &challenge, &signed, &answer) {
            None => {
                out("   as expected\n");
                if handshake.capture.is_some() {
                    out(&format!(
                        "   the router trusts this secret now; if this was a test, take it away: `router sources list` shows its id for `router sources drop {} ID`\n",
                        source.name
                    ));
                }
                true
            }
            Some(why) => {
                err(&format!("error: handshake {index}: {why}\n"));
                false
            }
        })
    }

    fn announce(
        &self,
        index: usize,
        handshake: &Handshake,
        challenge: &Challenge,
        signed: &Signed,
    ) {
        let target = &signed.url[url::Position::BeforePath..];
        let proof = match (handshake.verify, self.args.bad_signature) {
            (true, false) => "with a proof of the sender",
            (true, true) => "with a wrong proof of the sender",
            (false, _) => "without a proof of the sender",
        };
        out(&format!("handshake {index}: {} {target}, {proof}\n", signed.method));
        if let Some(at) = &handshake.capture {
            let which = match &self.args.key {
                Some(path) => format!("the secret in {}", path.display()),
                None => format!("a made-up secret, {}", self.brings),
            };
            out(&format!(
                "   it brings {which}, in {at}: the source takes it while `router sources arm {}` waits for one\n",
                self.source.name
            ));
        }
        if let Some(url) = &challenge.confirm {
            out(&match url {
                Some(url) => format!("   before it answers, the router will GET {url}\n"),
                None => {
                    "   the URL to confirm by is not the provider's: the router must answer 400\n"
                        .to_owned()
                }
            });
        }
    }

    fn print(&self, handshake: &Handshake, answer: &WireResponse, took_ms: u128) {
        out(&format!("   {}  {took_ms} ms\n", status_line(answer.status)));
        let named = |name| handshake.headers.iter().any(|(it, _)| it == name);
        for (name, value) in &answer.headers {
            if name == CONTENT_TYPE && !answer.body.is_empty() || named(name) {
                out(&format!("   {name}: {}\n", self.veiled(&shown(value.as_bytes()))));
            }
        }
        if !answer.body.is_empty() {
            out(&format!("   {}\n", self.veiled(&shown(&answer.body))));
        }
    }

    /// A secret out of a file is not shown.
    fn veiled(&self, text: &str) -> String {
        match &self.args.key {
            Some(_) if !self.brings.is_empty() => text.replace(self.brings, "[the secret]"),
            _ => text.to_owned(),
        }
    }

    /// What is wrong with the answer.
    fn fault(
        &self,
        handshake: &Handshake,
        challenge: &Challenge,
        signed: &Signed,
        answer: &WireResponse,
    ) -> Option<String> {
        let unverified = self.source.respond.unverified.as_u16();
        if self.args.bad_signature {
            let refused = answer.status == unverified;
            return (!refused)
                .then(|| format!("the proof is wrong, and it was not refused with {unverified}"));
        }
        let expected = match &challenge.answer {
            Ok(expected) if challenge.confirm != Some(None) => expected,
            Ok(_) | Err(_) if answer.status == 400 => return None,
            Ok(_) => return Some("the URL is not the provider's, and 400 did not come".to_owned()),
            Err(why) => {
                return Some(format!(
                    "this challenge cannot be answered ({}), and 400 did not come",
                    why.words()
                ));
            }
        };
        if answer.status != expected.status.as_u16() {
            return Some(self.wrong_status(handshake, expected, answer.status, unverified));
        }
        for (name, value) in &expected.headers {
            if answer.headers.get(name) != Some(value) {
                return Some(format!(
                    "the header {name} must be {}, and {}",
                    self.veiled(&shown(value.as_bytes())),
                    found(&answer.headers, name, &|text| self.veiled(text))
                ));
            }
        }
        // An answer to HEAD and one of 204 have none.
        let bodiless = signed.method == Method::HEAD || expected.status.as_u16() == 204;
        (!bodiless && !same(&expected.body, &answer.body)).then(|| {
            format!(
                "the body must be {}: does the router run with the same secrets and the same configuration?",
                match expected.body.is_empty() {
                    true => "empty".to_owned(),
                    false => self.veiled(&shown(&expected.body)),
                }
            )
        })
    }

    fn wrong_status(
        &self,
        handshake: &Handshake,
        expected: &Answer,
        status: u16,
        unverified: u16,
    ) -> String {
        let why = match status {
            401 if handshake.capture.is_some() => format!(
                "the source waits for no secret: arm it by `router sources arm {}`, and ask again while it waits",
                self.source.name
            ),
            503 if handshake.confirm.is_some() => {
                "the router could not GET the URL to confirm by; its log says why".to_owned()
            }
            404 => "there is no such source: does the router run this configuration?".to_owned(),
            405 => {
                "the router takes this for no challenge: does it run this configuration?".to_owned()
            }
            _ if handshake.verify && status == unverified => {
                "the router does not believe the sender: does it run with the same secrets?"
                    .to_owned()
            }
            _ => "the router's log says why".to_owned(),
        };
        format!("the status must be {}, and is {status}: {why}", expected.status.as_u16())
    }
}

fn found(headers: &HeaderMap, name: &http::HeaderName, veiled: &dyn Fn(&str) -> String) -> String {
    match headers.get(name) {
        Some(value) => format!("is {}", veiled(&shown(value.as_bytes()))),
        None => "is not there".to_owned(),
    }
}

/// The same bytes; of JSON, the same document.
fn same(expected: &[u8], found: &[u8]) -> bool {
    let json = |bytes| serde_json::from_slice::<Json>(bytes).ok();
    expected == found || matches!((json(expected), json(found)), (Some(a), Some(b)) if a == b)
}

/// How the user gives what cannot be made up.
fn way_out(error: &AskError) -> String {
    let give = |at: &Selector| match at {
        Selector::Header(name) => format!("`--header {name}:VALUE`"),
        Selector::ContentType => "`--header Content-Type:VALUE`".to_owned(),
        Selector::Query(name) => format!("`--query {name}=VALUE`"),
        Selector::PathPart(name) => format!("`--path {name}=VALUE`"),
        Selector::Json(_) | Selector::Form(_) => "`--payload FILE`".to_owned(),
    };
    match error {
        AskError::NoStandIn(at) | AskError::NoUrl(at) => {
            format!("; give it as the provider would, by {}", give(at))
        }
        AskError::Unfit(at) => format!("; give another by {}, or leave it out", give(at)),
        AskError::Sign(SignError::MissingPart(_)) => {
            "; give it as the provider would, by `--header`, `--query` or `--payload`".to_owned()
        }
        AskError::Sign(_) => String::new(),
    }
}
