//! The sender's side of handshakes: a request that one of them fits, and the answer that it must get.

use jiff::Timestamp;
use url::Url;

use super::condition::{Condition, Conditions, Expected};
use super::draft::{Draft, Proof, Unsigned};
use super::handshake::{Answer, Asked, Body, Handshake, Unanswerable, find};
use super::request::{Found, Keys, Request};
use super::scheme::Scheme;
use super::sign::{SignError, Signer};
use super::text::{Part, Selector, Text};

/// Who asks.
pub struct Asker<'a> {
    pub scheme: &'a Scheme,
    /// Of the source, in order: the first that fits a request answers it.
    pub handshakes: &'a [Handshake],
    pub keys: Keys<'a>,
    pub now: Timestamp,
    /// Signs with this secret of the scheme.
    pub which: usize,
    /// Signs wrongly.
    pub wrongly: bool,
    /// What stands for a text that only the provider knows.
    pub made_up: &'a str,
    /// The secret that a handshake with `capture_secret` brings.
    pub brings: &'a str,
}

/// A challenge that can leave.
#[derive(Debug)]
pub struct Challenge {
    pub proof: Proof,
    /// What a router with the same secrets answers.
    pub answer: Result<Answer, Unanswerable>,
    /// The number of the handshake that answers it.
    pub answered_by: Option<usize>,
    /// The URL that the router asks for before it answers; `None` inside where it is not the provider's.
    pub confirm: Option<Option<Url>>,
}

#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum AskError {
    #[error("cannot sign: {0}")]
    Sign(#[from] SignError),
    #[error("nothing that is made up here is what the handshake wants in {0}")]
    NoStandIn(Selector),
    #[error("what stands in {0} is not what the handshake wants there")]
    Unfit(Selector),
    #[error("the URL in {0} is for the provider to give: the router would GET it")]
    NoUrl(Selector),
}

impl Handshake {
    /// Where it looks in a request, and what its answer takes up.
    pub fn places(&self) -> Vec<Selector> {
        let of_when = self.when.all.iter().map(|condition| &condition.at);
        let of_url = self.confirm.as_ref().map(|confirm| &confirm.url);
        of_when.chain(&self.capture).chain(of_url).cloned().chain(self.taken_up()).collect()
    }

    fn taken_up(&self) -> Vec<Selector> {
        let mut texts: Vec<&Text> = self.headers.iter().map(|(_, text)| text).collect();
        match &self.body {
            None => {}
            Some(Body::Text(text)) => texts.push(text),
            Some(Body::Json(tree)) => tree.texts(&mut texts),
        }
        let at = |part: &'_ Part| match part.source() {
            Part::At(at) => Some(at.clone()),
            _ => None,
        };
        texts.into_iter().flatten().filter_map(at).collect()
    }
}

impl Asker<'_> {
    /// One of the handshakes as a challenge: `unsigned` with all that it still lacks.
    pub fn challenge(
        &self,
        handshake: &Handshake,
        unsigned: &Unsigned,
    ) -> Result<Challenge, AskError> {
        let mut draft = Draft::of(unsigned);
        if let Some(at) = &handshake.capture {
            self.fill(at, self.brings, &mut draft)?;
        }
        for condition in &handshake.when.all {
            self.meet(&condition.at, &condition.expected, &mut draft)?;
        }
        if let Some(confirm) = &handshake.confirm
            && !self.has(&confirm.url, &draft)
        {
            return Err(AskError::NoUrl(confirm.url.clone()));
        }
        for at in &handshake.taken_up() {
            let is_unwanted = |condition: &Condition| {
                condition.at == *at && matches!(condition.expected, Expected::Absent)
            };
            if !handshake.when.all.iter().any(is_unwanted) {
                self.fill(at, self.made_up, &mut draft)?;
            }
        }
        if handshake.verify {
            self.signer(self.wrongly).sign(self.scheme, &mut draft)?;
        }
        let received = draft.received(self.now);
        let Self { scheme, keys, now, handshakes, .. } = *self;
        let asked = Asked { received: &received, scheme, keys, about: draft.about(), now };
        let answered_by = find(handshakes, asked)
            .and_then(|found| handshakes.iter().position(|it| std::ptr::eq(it, found)));
        let answer = handshake.answer(asked);
        let confirm = handshake.confirm.as_ref().map(|confirm| confirm.place(asked));
        Ok(Challenge { proof: draft.proof(), answer, answered_by, confirm })
    }

    fn signer(&self, wrongly: bool) -> Signer<'_> {
        Signer { keys: self.keys, now: self.now, which: self.which, wrongly }
    }

    fn has(&self, at: &Selector, draft: &Draft) -> bool {
        let received = draft.received(self.now);
        Request::new(&received, self.keys, draft.about(), self.now).find(at) != Found::Absent
    }

    /// What the request has stays.
    fn fill(&self, at: &Selector, value: &str, draft: &mut Draft) -> Result<(), AskError> {
        if self.has(at, draft) {
            return Ok(());
        }
        let content_type = Selector::Header("content-type".to_owned());
        let place = if *at == Selector::ContentType { &content_type } else { at };
        // Such as a path with `[0]` in a body that has no list: only the user knows what stands around it.
        draft.set(place, value.to_owned()).map_err(|_| AskError::NoStandIn(at.clone()))
    }

    fn meet(&self, at: &Selector, expected: &Expected, draft: &mut Draft) -> Result<(), AskError> {
        let unfit = || AskError::Unfit(at.clone());
        match expected {
            Expected::Absent => (),
            Expected::Present => self.fill(at, self.made_up, draft)?,
            Expected::Match(pattern) => {
                if !self.has(at, draft) {
                    let fits = |text: &&String| pattern.is_match(text.as_bytes());
                    let stand_ins = self.stand_ins();
                    let text = stand_ins.iter().find(fits);
                    let text = text.ok_or_else(|| AskError::NoStandIn(at.clone()))?;
                    self.fill(at, text, draft)?;
                }
            }
            Expected::Equal(text) => match (at, text.as_slice()) {
                (Selector::ContentType, [Part::Literal(media)]) => self.fill(at, media, draft)?,
                _ => {
                    // That it is there and another is found below.
                    let (at, expected) = (at.clone(), expected.clone());
                    let met = self.signer(false).meet_one(&Condition { at, expected }, draft);
                    if let Err(error) = met {
                        return Err(match error {
                            SignError::OtherRequest(_) => unfit(),
                            error => error.into(),
                        });
                    }
                }
            },
        }
        let received = draft.received(self.now);
        let request = Request::new(&received, self.keys, draft.about(), self.now);
        let condition = Condition { at: at.clone(), expected: expected.clone() };
        let alone = Conditions { method: None, all: vec![condition] };
        match alone.hold(&request) {
            true => Ok(()),
            false => Err(unfit()),
        }
    }

    /// What may match an expression: parts of what is made up, first as long as most ids and tokens are, then letters and
    /// digits alone.
    fn stand_ins(&self) -> Vec<String> {
        let lengths = || [24, 32, 16, 20, 40, 64, 36, 12].into_iter().chain(1..=64);
        let alphabets = [
            self.made_up,
            "abcdefghijklmnopqrstuvwxyz",
            "ABCDEFGHIJKLMNOPQRSTUVWXYZ",
            "1234567890",
        ];
        let cut = |alphabet: &str, length: usize| alphabet.chars().cycle().take(length).collect();
        let uuid = "0b8e3a52-5d0f-4c8e-9a55-3f1f0a4f7c11".to_owned();
        alphabets
            .into_iter()
            .flat_map(|alphabet| lengths().map(move |length| cut(alphabet, length)))
            .chain([uuid])
            .collect()
    }
}
