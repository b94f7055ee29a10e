//! Texts that many rows share, each kept once and named by a number.

use std::collections::BTreeMap;
use std::sync::Arc;

#[derive(Clone, Default)]
pub(crate) struct Words {
    texts: Vec<Arc<str>>,
    numbers: BTreeMap<Arc<str>, u32>,
}

impl Words {
    pub(crate) fn of(texts: impl IntoIterator<Item = Arc<str>>) -> Self {
        let mut words = Self::default();
        for text in texts {
            words.take(&text);
        }
        words
    }

    /// The number of a text, which gets one if it has none yet.
    pub(crate) fn take(&mut self, text: &str) -> u32 {
        if let Some(number) = self.numbers.get(text) {
            return *number;
        }
        let number = self.texts.len() as u32;
        let text: Arc<str> = text.into();
        self.texts.push(text.clone());
        self.numbers.insert(text, number);
        number
    }

    /// The same for texts that a sender may invent: beyond a bound they get none.
    pub(crate) fn take_bounded(&mut self, text: &str) -> Option<u16> {
        const WORDS_MAX: usize = 10_000;
        let known = self.numbers.get(text).copied();
        let number = known.or_else(|| (self.texts.len() < WORDS_MAX).then(|| self.take(text)))?;
        u16::try_from(number).ok()
    }

    pub(crate) fn number(&self, text: &str) -> Option<u32> {
        self.numbers.get(text).copied()
    }

    /// The text of a number that was given out here.
    pub(crate) fn text(&self, number: u32) -> Option<&Arc<str>> {
        self.texts.get(number as usize)
    }

    pub(crate) fn texts(&self) -> &[Arc<str>] {
        &self.texts
    }
}
