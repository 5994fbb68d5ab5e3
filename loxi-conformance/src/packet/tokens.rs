//! The words of a layer.

use std::str::FromStr;

/// A layer's name, its positional words and its fields. Every word must be
/// taken before [`Tokens::done`], so that a misspelt one is an error.
pub(super) struct Tokens<'a> {
    pub(super) name: &'a str,
    words: std::collections::VecDeque<&'a str>,
    fields: Vec<(&'a str, &'a str)>,
    pub(super) rest: &'a str,
}

impl<'a> Tokens<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        let (name, rest) = text.split_once(' ').unwrap_or((text, ""));
        let mut words = std::collections::VecDeque::new();
        let mut fields = Vec::new();
        for word in rest.split_whitespace() {
            match word.split_once('=') {
                Some(field) => fields.push(field),
                None => words.push_back(word),
            }
        }
        Self { name, words, fields, rest }
    }

    pub(super) fn word(&mut self, what: &str) -> Result<&'a str, String> {
        self.words.pop_front().ok_or_else(|| format!("{what} is missing"))
    }

    /// `A>B`.
    pub(super) fn pair<T: FromStr>(&mut self, what: &str) -> Result<(T, T), String> {
        let word = self.word(what)?;
        let (a, b) = word.split_once('>').ok_or_else(|| format!("`{word}` is not {what} as SRC>DST"))?;
        let one = |text: &str| text.parse().map_err(|_| format!("`{text}` is not {what}"));
        Ok((one(a)?, one(b)?))
    }

    /// A word that is there or not.
    pub(super) fn flag(&mut self, name: &str) -> bool {
        match self.words.iter().position(|word| *word == name) {
            Some(at) => {
                self.words.remove(at);
                true
            }
            None => false,
        }
    }

    /// `NAME=NUMBER`, decimal or 0x.
    pub(super) fn number(&mut self, name: &str) -> Result<Option<u64>, String> {
        let Some(at) = self.fields.iter().position(|(key, _)| *key == name) else { return Ok(None) };
        let (_, value) = self.fields.remove(at);
        number(value).map(Some)
    }

    pub(super) fn done(self) -> Result<(), String> {
        if let Some(word) = self.words.front() {
            return Err(format!("`{word}` is unknown here"));
        }
        match self.fields.first() {
            Some((key, _)) => Err(format!("field `{key}` is unknown here")),
            None => Ok(()),
        }
    }
}

pub(super) fn number(text: &str) -> Result<u64, String> {
    let parsed = match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16),
        None => text.parse(),
    };
    parsed.map_err(|_| format!("`{text}` is not a number"))
}
