//! Changes a UCI file in the place where it stands: comments, order and layout that nobody asked to change stay as a
//! person wrote them.
//!
//! Works on whole lines. A line that holds several commands (`option a 1; option b 2`) is left alone and named.

use zeroize::Zeroizing;

use super::uci::{self, Document, Statement, SyntaxError, quote};

/// Why a file cannot be changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EditError {
    /// It is not UCI.
    #[error("{0}; correct it first")]
    Syntax(#[from] SyntaxError),
    /// A line holds something besides what is to be changed.
    #[error("line {0} holds several commands: put each on a line of its own first")]
    SharedLine(usize),
}

/// A file while it is changed.
#[derive(Clone)]
pub struct Editor {
    text: Zeroizing<String>,
    document: Document,
    statements: Vec<Statement>,
}

impl Editor {
    /// Takes the text of a file; the empty text is a file too.
    ///
    /// # Errors
    ///
    /// [`EditError::Syntax`].
    pub fn new(text: &str) -> Result<Editor, EditError> {
        let mut editor = Editor {
            text: Zeroizing::new(String::new()),
            document: Document::default(),
            statements: Vec::new(),
        };
        editor.take(Zeroizing::new(text.to_owned()))?;
        Ok(editor)
    }

    /// What the file holds now.
    pub fn document(&self) -> &Document {
        &self.document
    }

    /// The file's text now.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The section of this type that `is_wanted` likes: its index in [`Document::sections`].
    pub fn find(&self, kind: &str, is_wanted: impl Fn(&uci::Section) -> bool) -> Option<usize> {
        self.document.sections.iter().position(|section| section.kind == kind && is_wanted(section))
    }

    /// The first section of a type, made at the end of the file with this name where there is none: its index.
    ///
    /// # Errors
    ///
    /// [`EditError::Syntax`] when `name` is one of a section of another type.
    pub fn only(&mut self, kind: &str, name: &str) -> Result<usize, EditError> {
        match self.find(kind, |_| true) {
            Some(index) => Ok(index),
            None => self.append(kind, name),
        }
    }

    /// Adds a section at the end of the file: its index.
    ///
    /// # Errors
    ///
    /// [`EditError::Syntax`] when `name` is no name, or one of a section of another type.
    pub fn append(&mut self, kind: &str, name: &str) -> Result<usize, EditError> {
        let mut text = copy_with_room(&self.text, kind.len() + name.len() + 16);
        if !text.is_empty() {
            if !text.ends_with('\n') {
                text.push('\n');
            }
            if !text.ends_with("\n\n") {
                text.push('\n');
            }
        }
        text.push_str("config ");
        text.push_str(kind);
        text.push(' ');
        text.push_str(&quote(name));
        text.push('\n');
        self.take(text)?;
        Ok(self.find(kind, |section| section.name.as_deref() == Some(name)).unwrap_or_default())
    }

    /// Gives an option its value.
    ///
    /// # Errors
    ///
    /// [`EditError::SharedLine`].
    pub fn set(&mut self, section: usize, option: &str, value: &str) -> Result<(), EditError> {
        self.replace(section, option, "option", &[value])
    }

    /// Gives a list its values; without any it is removed.
    ///
    /// # Errors
    ///
    /// [`EditError::SharedLine`].
    pub fn set_list(&mut self, section: usize, option: &str, values: &[&str]) -> Result<(), EditError> {
        self.replace(section, option, "list", values)
    }

    /// Removes an option, if it is there.
    ///
    /// # Errors
    ///
    /// [`EditError::SharedLine`].
    pub fn remove(&mut self, section: usize, option: &str) -> Result<(), EditError> {
        self.replace(section, option, "option", &[])
    }

    /// Removes a section with all its options, and the comments and empty lines between them. Sections behind it move up
    /// by one.
    ///
    /// # Errors
    ///
    /// [`EditError::SharedLine`].
    pub fn remove_section(&mut self, section: usize) -> Result<(), EditError> {
        let mut doomed: Vec<(usize, usize)> = Vec::new();
        let mut inside = false;
        for statement in &self.statements {
            let ours = statement.section == Some(section);
            if ours {
                self.check_alone(statement)?;
                match doomed.last_mut() {
                    // What stands between two commands of one section belongs to it.
                    Some((_, last)) if inside => *last = statement.last,
                    _ => doomed.push((statement.first, statement.last)),
                }
            }
            inside = ours;
        }
        let mut text = copy_with_room(&self.text, 0);
        text.clear();
        let mut empty = true;
        for (number, line) in (1..).zip(self.text.split_inclusive('\n')) {
            let gone = doomed.iter().any(|(first, last)| (*first..=*last).contains(&number));
            // One empty line in the place of two.
            let blank = line.trim().is_empty();
            let after_gone = doomed.iter().any(|(_, last)| last + 1 == number);
            if gone || (blank && after_gone && empty) {
                continue;
            }
            text.push_str(line);
            empty = blank;
        }
        self.take(text)
    }

    fn replace(
        &mut self,
        section: usize,
        option: &str,
        command: &str,
        values: &[&str],
    ) -> Result<(), EditError> {
        let of_section = || self.statements.iter().filter(|statement| statement.section == Some(section));
        let mut old = Vec::new();
        for statement in of_section().filter(|statement| statement.option.as_deref() == Some(option)) {
            self.check_alone(statement)?;
            old.push((statement.first, statement.last));
        }
        let Some(end) = of_section().next_back() else { return Ok(()) };
        if old.is_empty() {
            if values.is_empty() {
                return Ok(());
            }
            self.check_last_on_line(end)?;
        }
        // New lines stand where the first old one stood, or behind the section's last command.
        let (at, before) = old.first().map_or((end.last, false), |(first, _)| (*first, true));
        let room: usize = values.iter().map(|value| value.len() + option.len() + 16).sum();
        let mut text = copy_with_room(&self.text, room);
        text.clear();
        let insert = |text: &mut String| {
            for value in values {
                if !text.is_empty() && !text.ends_with('\n') {
                    text.push('\n');
                }
                for part in ["\t", command, " ", option, " ", &Zeroizing::new(quote(value)), "\n"] {
                    text.push_str(part);
                }
            }
        };
        for (number, line) in (1..).zip(self.text.split_inclusive('\n')) {
            if number == at && before {
                insert(&mut text);
            }
            if !old.iter().any(|(first, last)| (*first..=*last).contains(&number)) {
                text.push_str(line);
            }
            if number == at && !before {
                insert(&mut text);
            }
        }
        self.take(text)
    }

    /// Whether a command has its lines for itself.
    fn check_alone(&self, statement: &Statement) -> Result<(), EditError> {
        let shared = |other: &&Statement| {
            !std::ptr::eq(*other, statement) && other.first <= statement.last && statement.first <= other.last
        };
        match self.statements.iter().find(shared) {
            Some(_) => Err(EditError::SharedLine(statement.first)),
            None => Ok(()),
        }
    }

    /// Whether no command of another section begins on the line on which this one ends.
    fn check_last_on_line(&self, statement: &Statement) -> Result<(), EditError> {
        let shared = |other: &Statement| other.section != statement.section && other.first == statement.last;
        if self.statements.iter().any(shared) {
            return Err(EditError::SharedLine(statement.last));
        }
        Ok(())
    }

    fn take(&mut self, text: Zeroizing<String>) -> Result<(), EditError> {
        let (document, errors, statements) = uci::parse_statements(&text);
        if let Some(error) = errors.into_iter().next() {
            return Err(error.into());
        }
        (self.text, self.document, self.statements) = (text, document, statements);
        Ok(())
    }
}

/// A copy that can grow by `room` bytes without leaving a key behind in memory that was given back.
fn copy_with_room(text: &str, room: usize) -> Zeroizing<String> {
    let mut copy = Zeroizing::new(String::with_capacity(text.len() + room + 64));
    copy.push_str(text);
    copy
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "\
# Ours.
config globals 'globals'
\toption enabled '0' # off

config interface 'bond'
\t# The addresses.
\tlist ipaddr '10.0.0.2/24'
\toption ifname 'bond0'
\tlist ipaddr '10.0.1.2/24'
# The end.
";

    #[test]
    fn only_what_is_asked_for_changes() {
        let mut editor = Editor::new(FILE).unwrap();
        let globals = editor.only("globals", "globals").unwrap();
        let bond = editor.only("interface", "bond").unwrap();
        editor.set(globals, "enabled", "1").unwrap();
        editor.set(globals, "log_level", "it's").unwrap();
        editor.set_list(bond, "ipaddr", &["10.9.0.2/24", "10.8.0.2/24"]).unwrap();
        editor.remove(bond, "ifname").unwrap();
        editor.remove(bond, "mtu").unwrap();
        assert_eq!(
            editor.text(),
            "# Ours.\nconfig globals 'globals'\n\toption enabled '1'\n\toption log_level 'it'\\''s'\n\n\
             config interface 'bond'\n\t# The addresses.\n\tlist ipaddr '10.9.0.2/24'\n\tlist ipaddr '10.8.0.2/24'\n\
             # The end.\n"
        );
    }

    #[test]
    fn an_empty_file_grows() {
        let mut editor = Editor::new("").unwrap();
        let link = editor.only("link", "wan").unwrap();
        editor.set(link, "interface", "wan").unwrap();
        let peer = editor.append("peer", "home").unwrap();
        editor.set_list(peer, "lan", &[]).unwrap();
        editor.set(peer, "upload", "1m").unwrap();
        assert_eq!(
            editor.text(),
            "config link 'wan'\n\toption interface 'wan'\n\nconfig peer 'home'\n\toption upload '1m'\n"
        );
    }

    #[test]
    fn a_section_goes_with_what_is_in_it() {
        let text = "config peer 'a'\n\toption x '1'\n\nconfig peer 'b'\n\t# b's\n\toption x '2\n2'\n\nconfig peer 'c'\n\
                    \toption x '3'\n\nconfig peer 'b'\n\toption y '4'\n";
        let mut editor = Editor::new(text).unwrap();
        let b = editor.find("peer", |section| section.name.as_deref() == Some("b")).unwrap();
        editor.remove_section(b).unwrap();
        assert_eq!(editor.text(), "config peer 'a'\n\toption x '1'\n\nconfig peer 'c'\n\toption x '3'\n\n");
    }

    #[test]
    fn lines_without_an_end_and_over_several_lines() {
        let mut editor = Editor::new("config link a\n option x 1").unwrap();
        editor.set(0, "y", "2").unwrap();
        editor.set(0, "x", "3").unwrap();
        assert_eq!(editor.text(), "config link a\n\toption x '3'\n\toption y '2'\n");
        let mut editor = Editor::new("config link a\n option x 'p\nq'\n option z 1\n").unwrap();
        editor.set(0, "x", "r").unwrap();
        assert_eq!(editor.text(), "config link a\n\toption x 'r'\n option z 1\n");
    }

    #[test]
    fn what_shares_a_line_is_left_alone() {
        let mut editor = Editor::new("config link a; option x 1\nconfig link b\n").unwrap();
        assert_eq!(editor.set(0, "x", "2"), Err(EditError::SharedLine(1)));
        assert_eq!(editor.remove_section(0), Err(EditError::SharedLine(1)));
        assert_eq!(editor.set(0, "y", "2"), Ok(()));
        assert_eq!(editor.text(), "config link a; option x 1\n\toption y '2'\nconfig link b\n");
        let mut editor = Editor::new("config link a; config link b\n").unwrap();
        assert_eq!(editor.set(0, "x", "2"), Err(EditError::SharedLine(1)));
        assert!(Editor::new("nonsense\n").is_err());
    }

    proptest::proptest! {
        #[test]
        fn what_is_set_is_read_back(
            value in "[ -~\n]{1,40}",
            before in proptest::collection::vec("(option|list) [a-c] '[ -&(-~]{0,9}'", 0..8),
        ) {
            let text = format!("config link 'l'\n\t{}\n\nconfig link 'm'\n\toption a 'left'\n", before.join("\n\t"));
            let mut editor = Editor::new(&text).unwrap();
            let others = |editor: &Editor| editor.document().sections.iter().map(|section| {
                section.entries.iter().filter(|entry| section.name.as_deref() != Some("l") || entry.name != "b")
                    .map(|entry| (entry.name.clone(), entry.values.iter().map(|v| v.text.clone()).collect::<Vec<_>>()))
                    .collect::<std::collections::BTreeMap<_, _>>()
            }).collect::<Vec<_>>();
            let kept = others(&editor);
            editor.set(0, "b", &value).unwrap();
            let section = &editor.document().sections[0];
            let entry = section.entry("b").unwrap();
            proptest::prop_assert_eq!(entry.values.len(), 1);
            proptest::prop_assert_eq!(entry.values[0].text.as_str(), value.as_str());
            proptest::prop_assert_eq!(others(&editor), kept);
        }
    }
}
