//! The file as MLVPN reads it.
//!
//! Its reader is a small one of its own: `"` is dropped wherever it stands, `#` starts a comment outside of quotes, a line
//! that is neither a section nor `name = value` is passed over.

/// A section, with its options in the order in which they stand.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Section {
    pub name: String,
    pub options: Vec<(String, String)>,
}

impl Section {
    /// The first value that an option is given.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter().find_map(|(own, value)| (own == name).then_some(value))
    }

    pub fn contains(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.options.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

/// The sections, and the numbers of lines that are passed over. What stands before the first section belongs to none.
pub(super) fn read(text: &str) -> (Vec<Section>, Vec<usize>) {
    let mut sections: Vec<Section> = Vec::new();
    let mut strange = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let mut quoted = false;
        let comment = line.find(|character| {
            quoted ^= character == '"';
            character == '#' && !quoted
        });
        let line = line.get(..comment.unwrap_or(line.len())).unwrap_or("").replace(['"', '\r'], "");
        let line = line.trim();
        if let Some(section) = line.strip_prefix('[').and_then(|rest| rest.split(']').next()) {
            sections.push(Section { name: section.trim().to_owned(), options: Vec::new() });
        } else if let Some((name, value)) = line.split_once('=').filter(|(name, _)| !name.trim().is_empty()) {
            if let Some(section) = sections.last_mut().filter(|_| !line.starts_with(';')) {
                section.options.push((name.trim().to_owned(), value.trim().to_owned()));
            }
        } else if !line.is_empty() {
            strange.push(index + 1);
        }
    }
    (sections, strange)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_comments_and_lines_that_say_nothing() {
        let text = "a = 1\n[ one ] x\r\nb=\"2 # 3\" # four\nc : 5\n; d = 6\n = 7\n\n[two\nb = 8\nb = 9\n";
        let (sections, strange) = read(text);
        let found: Vec<_> =
            sections.iter().map(|one| (one.name.as_str(), one.iter().collect::<Vec<_>>())).collect();
        assert_eq!(found, [("one", vec![("b", "2 # 3")]), ("two", vec![("b", "8"), ("b", "9")])]);
        assert_eq!(sections[1].get("b"), Some("8"));
        assert!(!sections[1].contains("c"));
        assert_eq!(strange, [4, 6]);
    }
}
