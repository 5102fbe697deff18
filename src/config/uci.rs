//! The UCI file format of OpenWrt, as libuci reads and writes it.
//!
//! A file is a list of sections (`config TYPE [NAME]`), each with options (`option NAME VALUE`) and lists
//! (`list NAME VALUE`, repeated). What libuci does in its strict mode is done here: words are bare, in `'…'` (nothing is
//! special inside) or in `"…"` (a backslash takes the next character literally), and pieces that touch are one word; a
//! quoted value may span lines; a backslash at the end of a line joins it with the next; `#` starts a comment, also at
//! the end of a bare word; `;` ends a command; the commands may be abbreviated to their first letter; a section whose
//! name was seen before is continued, one of another type is an error; a later `option` replaces an earlier one, a
//! `list` after an `option` makes both a list; an empty `option` is no option.
//!
//! In one thing this is stricter: after a bare word that ends in `;`, libuci drops the rest of the line without a word;
//! here it is read as the next command.
//!
//! Unlike libuci, [`parse`] does not stop at the first mistake: it reports it, skips the line and goes on, so that a
//! person sees all of them at once. Every section, option and value keeps its line. Input is bounded by [`MAX_BYTES`],
//! [`MAX_SECTIONS`] and [`MAX_OPTIONS`].

use std::fmt::{self, Write as _};

use zeroize::Zeroizing;

/// The largest file that is read, in bytes. OpenWrt's own files are below 100 kB.
pub const MAX_BYTES: usize = 1 << 20;

/// The largest number of sections in a file.
pub const MAX_SECTIONS: usize = 4096;

/// The largest number of differently named options in one section.
pub const MAX_OPTIONS: usize = 512;

/// The number of mistakes after which the rest of a file is not read.
pub const MAX_ERRORS: usize = 200;

/// A parsed file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Document {
    /// The name after `package`, which `uci export` writes and files in `/etc/config` lack.
    pub package: Option<String>,
    /// The sections in the order of the file; a continued section stands where it was first.
    pub sections: Vec<Section>,
}

/// One `config` block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section {
    /// The section's type: the first word after `config`.
    pub kind: String,
    /// The section's name; `None` when it is anonymous.
    pub name: Option<String>,
    /// The options, each name once.
    pub entries: Vec<Entry>,
    /// The line of its (first) `config`, from 1.
    pub line: usize,
}

/// One option or list of a section. `Debug` does not show the values of keys and passwords.
#[derive(Clone, PartialEq, Eq)]
pub struct Entry {
    /// The option's name.
    pub name: String,
    /// Whether it was written (at least once) as `list`.
    pub list: bool,
    /// The values: exactly one unless `list`.
    pub values: Vec<Value>,
}

/// One value and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Value {
    /// The text, without quotes; wiped from memory when dropped, since it may be a key.
    pub text: Zeroizing<String>,
    /// The line on which its command starts, from 1.
    pub line: usize,
}

/// A line that is not UCI.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {message}")]
pub struct SyntaxError {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub message: String,
}

impl Section {
    /// The option `name`, if the section has it.
    pub fn entry(&self, name: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.name == name)
    }
}

impl Entry {
    /// The line of the last value: the one that counts for an `option`.
    pub fn line(&self) -> usize {
        self.values.last().map_or(0, |value| value.line)
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Entry");
        shown.field("name", &self.name).field("list", &self.list);
        let secret = self.name.ends_with("_key") || self.name.contains("pass");
        if secret {
            return shown.finish_non_exhaustive();
        }
        let values: Vec<(usize, &str)> =
            self.values.iter().map(|value| (value.line, value.text.as_str())).collect();
        shown.field("values", &values).finish()
    }
}

impl Document {
    /// What to call the section at `index` in a message: its name, or `@TYPE[N]` as the `uci` command writes it.
    pub fn label(&self, index: usize) -> String {
        let Some(section) = self.sections.get(index) else { return String::new() };
        match &section.name {
            Some(name) => name.clone(),
            None => {
                let before =
                    self.sections.iter().take(index).filter(|other| other.kind == section.kind).count();
                format!("@{}[{before}]", section.kind)
            }
        }
    }

    /// The document as a file, in the layout of `uci export`. [`parse`] gives the same document back (but for lines).
    pub fn to_uci(&self) -> String {
        let mut text = String::new();
        if let Some(package) = &self.package {
            let _ = writeln!(text, "package {package}");
        }
        for section in &self.sections {
            if !text.is_empty() {
                text.push('\n');
            }
            text.push_str("config ");
            text.push_str(&type_word(&section.kind));
            if let Some(name) = &section.name {
                let _ = write!(text, " {}", quote(name));
            }
            text.push('\n');
            for entry in &section.entries {
                let command = if entry.list { "list" } else { "option" };
                for value in &entry.values {
                    let _ = writeln!(text, "\t{command} {} {}", entry.name, quote(&value.text));
                }
            }
        }
        text
    }
}

/// `text` as one word of UCI: in single quotes, with `'` as `'\''`.
pub fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

/// Types may hold characters that end a bare word; those are quoted.
fn type_word(kind: &str) -> String {
    let bare = kind.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte));
    if bare { kind.to_owned() } else { quote(kind) }
}

/// Reads a file. The document holds everything that could be understood; it is to be used only when there is no error.
pub fn parse(text: &str) -> (Document, Vec<SyntaxError>) {
    let (document, errors, _) = parse_statements(text);
    (document, errors)
}

/// One command of a file and the lines that it takes, for [`super::edit`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Statement {
    /// Its first line, from 1.
    pub(super) first: usize,
    /// Its last line.
    pub(super) last: usize,
    /// The section that it opens or belongs to, in [`Document::sections`].
    pub(super) section: Option<usize>,
    /// The option that it gives a value; `None` when it opens a section.
    pub(super) option: Option<String>,
}

/// As [`parse`], with all commands in their order.
pub(super) fn parse_statements(text: &str) -> (Document, Vec<SyntaxError>, Vec<Statement>) {
    let mut parser = Parser {
        lexer: Lexer { text, position: 0, line: 1 },
        document: Document::default(),
        current: None,
        errors: Vec::new(),
        statements: Vec::new(),
    };
    if text.len() > MAX_BYTES {
        parser.error(1, format!("the file is larger than {MAX_BYTES} bytes"));
    } else {
        parser.run();
    }
    (parser.document, parser.errors, parser.statements)
}

/// Where options go after a `config` command.
#[derive(Clone, Copy)]
enum Current {
    Section(usize),
    /// The `config` line was wrong: its options are read but kept nowhere.
    Broken,
}

struct Parser<'a> {
    lexer: Lexer<'a>,
    document: Document,
    current: Option<Current>,
    errors: Vec<SyntaxError>,
    statements: Vec<Statement>,
}

impl Parser<'_> {
    fn run(&mut self) {
        while self.errors.len() < MAX_ERRORS {
            self.lexer.skip_blank_lines();
            if self.lexer.peek().is_none() {
                return;
            }
            let (line, start) = (self.lexer.line, self.lexer.position);
            match self.command(line) {
                Ok(option) => {
                    let text = self.lexer.text.get(start..self.lexer.position).unwrap_or_default();
                    let breaks = text.trim_end_matches('\n').matches('\n').count();
                    let section = match self.current {
                        Some(Current::Section(index)) => Some(index),
                        _ => None,
                    };
                    self.statements.push(Statement { first: line, last: line + breaks, section, option });
                }
                Err(message) => {
                    self.error(line, message);
                    self.lexer.skip_line();
                }
            }
        }
        let line = self.lexer.line;
        self.error(line, "too many mistakes: the rest of the file is not read".into());
    }

    fn error(&mut self, line: usize, message: String) {
        self.errors.push(SyntaxError { line, message });
    }

    /// Carries out a command; gives the name of the option that it was about.
    fn command(&mut self, line: usize) -> Result<Option<String>, String> {
        match self.lexer.keyword() {
            "p" | "package" => self.package().map(|()| None),
            "c" | "config" => {
                self.current = Some(Current::Broken);
                self.config(line).map(|()| None)
            }
            "o" | "option" => self.option(line, false).map(Some),
            "l" | "list" => self.option(line, true).map(Some),
            "" => Err("a ';' with no command before it".into()),
            word => Err(format!("'{}' is not one of package, config, option, list", excerpt(word))),
        }
    }

    fn package(&mut self) -> Result<(), String> {
        let name = self.lexer.required_word("'package' needs a name")?;
        self.end_of_command()?;
        if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-') {
            return Err(format!(
                "package name '{}' may have only letters, digits, '_' and '-'",
                excerpt(&name)
            ));
        }
        match &self.document.package {
            Some(other) if *other != name => {
                Err(format!("a second package '{name}' in the file of '{other}'"))
            }
            _ => {
                self.document.package = Some(name);
                Ok(())
            }
        }
    }

    fn config(&mut self, line: usize) -> Result<(), String> {
        let kind = self.lexer.required_word("'config' needs a section type")?;
        let name = self.lexer.word()?.filter(|name| !name.is_empty());
        self.end_of_command()?;
        if !kind.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(format!(
                "section type '{}' may have only printable ASCII characters",
                excerpt(&kind)
            ));
        }
        if let Some(name) = &name {
            check_name("section", name)?;
            if let Some(index) = self.document.sections.iter().position(|s| s.name.as_ref() == Some(name)) {
                let before = &self.document.sections[index];
                if before.kind != kind {
                    return Err(format!(
                        "section '{name}' is of type '{}' here and of type '{}' in line {}",
                        kind, before.kind, before.line
                    ));
                }
                self.current = Some(Current::Section(index));
                return Ok(());
            }
        }
        if self.document.sections.len() >= MAX_SECTIONS {
            return Err(format!("more than {MAX_SECTIONS} sections"));
        }
        self.current = Some(Current::Section(self.document.sections.len()));
        self.document.sections.push(Section { kind, name, entries: Vec::new(), line });
        Ok(())
    }

    fn option(&mut self, line: usize, list: bool) -> Result<String, String> {
        let command = if list { "list" } else { "option" };
        let Some(current) = self.current else {
            return Err(format!("'{command}' before the first 'config'"));
        };
        let name =
            self.lexer.required_word(if list { "'list' needs a name" } else { "'option' needs a name" })?;
        let text = self.lexer.word()?.unwrap_or_default();
        self.end_of_command()?;
        check_name(command, &name)?;
        let Current::Section(index) = current else { return Ok(name) };
        let Some(section) = self.document.sections.get_mut(index) else { return Ok(name) };
        let value = Value { text: Zeroizing::new(text), line };
        let count = section.entries.len();
        match section.entries.iter_mut().find(|entry| entry.name == name) {
            _ if value.text.is_empty() && !list => {}
            Some(entry) if list => {
                entry.list = true;
                entry.values.push(value);
            }
            Some(entry) => {
                entry.list = false;
                entry.values = vec![value];
            }
            None if count >= MAX_OPTIONS => {
                return Err(format!("more than {MAX_OPTIONS} options in one section"));
            }
            None => section.entries.push(Entry { name: name.clone(), list, values: vec![value] }),
        }
        Ok(name)
    }

    fn end_of_command(&mut self) -> Result<(), String> {
        match self.lexer.word()? {
            None => {
                self.lexer.end_command();
                Ok(())
            }
            Some(word) if word.is_empty() => self.end_of_command(),
            Some(word) => {
                Err(format!("'{}' is one word too many: quote a value that has spaces", excerpt(&word)))
            }
        }
    }
}

fn check_name(what: &str, name: &str) -> Result<(), String> {
    if name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
        return Ok(());
    }
    Err(format!("{what} name '{}' may have only letters, digits and '_'", excerpt(name)))
}

/// The start of a word for a message, on one line.
fn excerpt(word: &str) -> String {
    let mut shown: String = word.chars().take(40).flat_map(char::escape_debug).collect();
    if word.chars().nth(40).is_some() {
        shown.push('…');
    }
    shown
}

struct Lexer<'a> {
    text: &'a str,
    position: usize,
    line: usize,
}

impl<'a> Lexer<'a> {
    fn rest(&self) -> &'a str {
        self.text.get(self.position..).unwrap_or("")
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let character = self.peek()?;
        self.position += character.len_utf8();
        if character == '\n' {
            self.line += 1;
        }
        Some(character)
    }

    fn skip_line(&mut self) {
        while self.next().is_some_and(|character| character != '\n') {}
    }

    /// Goes to the first character of the next command.
    fn skip_blank_lines(&mut self) {
        loop {
            match self.peek() {
                Some('#') => self.skip_line(),
                Some(character) if is_space(character) => {
                    self.next();
                }
                _ => return,
            }
        }
    }

    /// Skips white space within the line.
    fn skip_spaces(&mut self) {
        while self.peek().is_some_and(|character| is_space(character) && character != '\n') {
            self.next();
        }
    }

    /// The command's name: everything up to the next white space or `;`.
    fn keyword(&mut self) -> &'a str {
        let rest = self.rest();
        let length = rest.find(|character| is_space(character) || character == ';').unwrap_or(rest.len());
        self.position += length;
        rest.get(..length).unwrap_or("")
    }

    /// Leaves the `;` or the line that ends a command, so that the next one follows.
    fn end_command(&mut self) {
        match self.peek() {
            Some(';') => {
                self.next();
            }
            _ => self.skip_line(),
        }
    }

    fn required_word(&mut self, missing: &str) -> Result<String, String> {
        self.word()?.filter(|word| !word.is_empty()).ok_or_else(|| missing.to_owned())
    }

    /// The next word of the command; `None` at its end.
    fn word(&mut self) -> Result<Option<String>, String> {
        self.skip_spaces();
        if matches!(self.peek(), None | Some('\n' | '#' | ';')) {
            return Ok(None);
        }
        // Room for a key, so that no part of one is left behind where the word grew out of its place.
        let mut word = String::with_capacity(64);
        loop {
            match self.peek() {
                Some('\'') => self.quoted('\'', &mut word)?,
                Some('"') => self.quoted('"', &mut word)?,
                Some('\\') => self.escape(&mut word),
                Some('#' | ';') | None => break,
                Some('\0') => return Err("a NUL character".into()),
                Some(character) if is_space(character) => break,
                Some(character) => {
                    self.next();
                    word.push(character);
                }
            }
        }
        Ok(Some(word))
    }

    fn quoted(&mut self, mark: char, word: &mut String) -> Result<(), String> {
        let start = (self.position, self.line);
        self.next();
        loop {
            match self.peek() {
                Some(character) if character == mark => {
                    self.next();
                    return Ok(());
                }
                Some('\\') if mark == '"' => self.escape(word),
                Some('\0') => return Err("a NUL character".into()),
                Some(character) => {
                    self.next();
                    word.push(character);
                }
                None => {
                    // Only the line of the lost quote is skipped, so that what follows is still checked.
                    (self.position, self.line) = start;
                    return Err(format!("the quote {mark} is never closed"));
                }
            }
        }
    }

    /// A backslash: the next character as it is, or nothing where it joins two lines.
    fn escape(&mut self, word: &mut String) {
        self.next();
        let rest = self.rest();
        if rest.starts_with('\n') || rest.starts_with("\r\n") {
            while self.next().is_some_and(|character| character != '\n') {}
        } else if let Some(character) = self.peek().filter(|character| *character != '\0') {
            self.next();
            word.push(character);
        }
    }
}

/// White space of C's `isspace` in the C locale.
fn is_space(character: char) -> bool {
    matches!(character, ' ' | '\t' | '\n' | '\u{b}' | '\u{c}' | '\r')
}

#[cfg(test)]
mod tests;
