//! The list of problems, while a file is read.

use std::fmt::Display;

use super::problem::{Problem, Severity};
use super::uci::Document;
use crate::bond::sorted::insert_by_key;

/// The number of problems after which no more are listed.
const MAX_PROBLEMS: usize = 500;

/// The problems found so far, and what is needed to say where.
pub(super) struct Log<'a> {
    file: &'a str,
    pub(super) document: &'a Document,
    /// Whether every line could be understood: only then does it make sense to say that something is missing.
    pub(super) whole: bool,
    /// In the order of their lines.
    pub(super) problems: Vec<Problem>,
    failed: bool,
}

impl<'a> Log<'a> {
    pub(super) fn new(file: &'a str, document: &'a Document, whole: bool) -> Self {
        Log { file, document, whole, problems: Vec::new(), failed: false }
    }

    /// Whether no more problems are listed, so that their words need not be found.
    pub(super) fn is_full(&self) -> bool {
        self.problems.len() > MAX_PROBLEMS
    }

    pub(super) fn error(&mut self, at: At<'_>, message: impl Display) {
        self.push(Severity::Error, at, &message);
    }

    pub(super) fn warning(&mut self, at: At<'_>, message: impl Display) {
        self.push(Severity::Warning, at, &message);
    }

    fn push(&mut self, severity: Severity, at: At<'_>, message: &dyn Display) {
        self.failed |= severity == Severity::Error;
        if self.is_full() {
            return;
        }
        let section = at.section.and_then(|index| self.document.sections.get(index));
        let entry = section.zip(at.option).and_then(|(section, name)| section.entry(name));
        let line = at.line.or(entry.map(|entry| entry.line())).or(section.map(|section| section.line));
        let mut problem = Problem {
            severity,
            file: self.file.to_owned(),
            line: line.unwrap_or(0),
            section: at.section.map(|index| self.document.label(index)),
            option: at.option.map(str::to_owned),
            message: message.to_string(),
        };
        if self.problems.len() == MAX_PROBLEMS {
            problem.section = None;
            problem.option = None;
            problem.message = "more problems follow, which are not listed".into();
        }
        if !self.problems.contains(&problem) {
            insert_by_key(&mut self.problems, problem, |problem| problem.line);
        }
    }

    pub(super) fn has_errors(&self) -> bool {
        self.failed
    }
}

/// A place in the file: a section by its index, an option by its name, a line where it is known better.
#[derive(Clone, Copy, Default)]
pub(super) struct At<'a> {
    pub(super) section: Option<usize>,
    pub(super) option: Option<&'a str>,
    pub(super) line: Option<usize>,
}

impl<'a> At<'a> {
    pub(super) fn section(index: usize) -> Self {
        At { section: Some(index), ..At::default() }
    }

    pub(super) fn option(index: usize, name: &'a str) -> Self {
        At { section: Some(index), option: Some(name), line: None }
    }
}
