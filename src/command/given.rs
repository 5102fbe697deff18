//! What stands behind a command, sorted by what the command takes.

use std::ffi::OsString;
use std::path::PathBuf;

use lexopt::Error;
use lexopt::prelude::*;

use super::text::clean;

/// Options that have a letter, too.
const LETTERS: [(char, &str); 2] = [('c', "config"), ('w', "watch")];

/// What a command takes besides `--help`.
pub(super) struct Takes {
    /// Options without a value.
    pub(super) flags: &'static [&'static str],
    /// Options with a value.
    pub(super) values: &'static [&'static str],
    /// Words besides options, at most.
    pub(super) words: usize,
}

impl Takes {
    /// Sorts what is left of a command line; `None` when it asks for help.
    ///
    /// # Errors
    ///
    /// When there is something that the command does not take, or an option without its value.
    pub(super) fn read(&self, parser: &mut lexopt::Parser) -> Result<Option<Given>, Error> {
        let mut given = Given::default();
        while let Some(argument) = parser.next()? {
            let named = |name: &&&'static str| match argument {
                Long(long) => long == **name,
                Short(letter) => LETTERS.contains(&(letter, **name)),
                Value(_) => false,
            };
            let (flag, option) = (self.flags.iter().find(named), self.values.iter().find(named));
            match argument {
                Short('h') | Long("help") => return Ok(None),
                Value(word) if given.words.len() < self.words => given.words.push(word),
                other => match (flag, option) {
                    (Some(flag), _) => given.flags.push(flag),
                    (_, Some(option)) => given.values.push((option, parser.value()?)),
                    _ => return Err(other.unexpected()),
                },
            }
        }
        Ok(Some(given))
    }
}

/// What was typed, in its order.
#[derive(Default)]
pub(super) struct Given {
    flags: Vec<&'static str>,
    pub(super) values: Vec<(&'static str, OsString)>,
    words: Vec<OsString>,
}

impl Given {
    /// Whether an option without a value is there.
    pub(super) fn has(&self, flag: &str) -> bool {
        self.flags.contains(&flag)
    }

    /// The value of an option; the last one counts.
    pub(super) fn value(&self, option: &str) -> Option<OsString> {
        self.values.iter().rfind(|(name, _)| *name == option).map(|(_, value)| value.clone())
    }

    /// The path that is an option's value.
    pub(super) fn path(&self, option: &str) -> Option<PathBuf> {
        self.value(option).map(PathBuf::from)
    }

    /// The values of an option.
    ///
    /// # Errors
    ///
    /// When one is not UTF-8.
    pub(super) fn texts(&self, option: &str) -> Result<Vec<String>, Error> {
        let values = self.values.iter().filter(|(name, _)| *name == option);
        values.map(|(_, value)| value.clone().string()).collect()
    }

    /// The values of an option, as `read` understands them.
    ///
    /// # Errors
    ///
    /// When it does not: that a value is not `expected`.
    pub(super) fn all<T>(
        &self,
        option: &str,
        expected: &str,
        read: impl Fn(&str) -> Option<T>,
    ) -> Result<Vec<T>, Error> {
        let mut all = Vec::new();
        for text in self.texts(option)? {
            all.push(read(&text).ok_or_else(|| refused(&text, expected))?);
        }
        Ok(all)
    }

    /// The words that are no options.
    ///
    /// # Errors
    ///
    /// When one is not UTF-8.
    pub(super) fn words(&self) -> Result<Vec<String>, Error> {
        self.words.iter().cloned().map(ValueExt::string).collect()
    }

    /// The file that is either a word or the value of `--config`.
    ///
    /// # Errors
    ///
    /// When it is missing, or there are two.
    pub(super) fn file(&self) -> Result<PathBuf, Error> {
        match (self.words.first(), self.value("config")) {
            (Some(file), None) => Ok(file.into()),
            (None, Some(file)) => Ok(file.into()),
            (None, None) => Err("which file?".into()),
            (Some(_), Some(_)) => Err("which file? Leave out --config, or the other one".into()),
        }
    }
}

fn refused(text: &str, expected: &str) -> Error {
    format!("'{}' is not {expected}", clean(text)).into()
}
